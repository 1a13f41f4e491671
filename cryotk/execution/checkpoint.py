"""Exact checkpoints: nested dicts of arrays, numbers and text in one file, written atomically and checked on reading.

The file is a zip archive without compression: one ``.npy`` per array, then ``state.json`` with everything else, the version,
and the SHA-256 of every array and of the tree. Arrays go through one at a time, so that a checkpoint costs no second copy.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np

from cryotk.errors import CheckpointError, DataWarning
from cryotk.io.atomic import atomic_file

__all__ = ["checkpoints", "latest", "load", "of_run", "peek", "save"]

FORMAT = 2
SUFFIX = ".checkpoint"
_STATE = "state.json"


class _Hashing:
    """File that hashes what passes through it."""

    def __init__(self, file: Any) -> None:
        self.file, self.sha = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha.update(data)
        return int(self.file.write(data))

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.sha.update(data)
        return cast(bytes, data)


def _flatten(value: Any, path: str, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise CheckpointError(f"cannot store the key {key!r} of {path or 'the state'}: keys must be text")
        return {"dict": {k: _flatten(v, f"{path}/{k}", arrays) for k, v in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_flatten(v, f"{path}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, list):
        return {"list": [_flatten(v, f"{path}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biufc":
            arrays.append(value)
            return {"array": len(arrays) - 1}
        if value.dtype.kind in "OUS" and value.ndim == 1 and all(isinstance(v, str) for v in value.tolist()):
            return {"strings": value.tolist()}
        raise CheckpointError(f"cannot store an array of {value.dtype} with {value.ndim} dimensions ({path})")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        # exact, infinities and NaN included
        return {"float": value.hex()}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise CheckpointError(f"cannot store a {type(value).__name__} ({path}): use dicts, lists, arrays, numbers and text")


def _restore(value: Any, arrays: list[np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {k: _restore(v, arrays) for k, v in content.items()}
    if kind == "tuple":
        return tuple(_restore(v, arrays) for v in content)
    if kind == "list":
        return [_restore(v, arrays) for v in content]
    if kind == "array":
        return arrays[content]
    if kind == "strings":
        return np.array(content, object)
    return float.fromhex(content)


def _tree_digest(header: dict[str, Any]) -> str:
    body = {k: v for k, v in header.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def save(path: str | Path, state: dict[str, Any], kind: str) -> None:
    """Write a checkpoint: whole under its name, or not at all.

    Parameters
    ----------
    path : path
    state : dict
        Nested dicts (text keys), lists and tuples of arrays of numbers, 1D arrays of text, numbers, text, None; the state of
        a random generator (``rng.bit_generator.state``) is such a dict. Restored to the same bits.
    kind : str
        What it is a checkpoint of; asked for on loading.

    Raises
    ------
    CheckpointError
        For a value that cannot be stored, with where it is; nothing is written then.
    """
    arrays: list[np.ndarray] = []
    header: dict[str, Any] = {"cryotk": FORMAT, "kind": kind, "tree": _flatten(state, "", arrays), "arrays": []}
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for i, array in enumerate(arrays):
            with archive.open(f"{i}.npy", "w", force_zip64=True) as member:
                hashing = _Hashing(member)
                np.lib.format.write_array(cast(Any, hashing), np.asanyarray(array), allow_pickle=False)
            header["arrays"].append(hashing.sha.hexdigest())
        header["sha256"] = _tree_digest(header)
        archive.writestr(_STATE, json.dumps(header))


def load(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint and check it.

    Parameters
    ----------
    path : path
    kind : str
        As given to :func:`save`.

    Raises
    ------
    CheckpointError
        For a broken file, a foreign one, one of another kind or another version; says what to do.
    """
    p = Path(path)
    try:
        with zipfile.ZipFile(p) as archive:
            header = json.loads(archive.read(_STATE))
            if not isinstance(header, dict) or "cryotk" not in header:
                raise CheckpointError(f"{p} is not a cryotk checkpoint: give a file that job.save() wrote (*{SUFFIX})")
            if header["cryotk"] != FORMAT:
                raise CheckpointError(
                    f"{p} has checkpoint format {header['cryotk']}, this cryotk reads {FORMAT}: resume with the cryotk that wrote it, "
                    "or from the _optimiser.star beside it"
                )
            if header.get("kind") != kind:
                raise CheckpointError(f"{p} is a checkpoint of {header.get('kind')}, not of {kind}: use {header.get('kind')}.resume")
            if _tree_digest(header) != header.get("sha256"):
                raise CheckpointError(_broken(p, "its checksum does not fit"))
            arrays = []
            for i, digest in enumerate(header["arrays"]):
                with archive.open(f"{i}.npy") as member:
                    hashing = _Hashing(member)
                    arrays.append(np.lib.format.read_array(cast(Any, hashing), allow_pickle=False))
                if hashing.sha.hexdigest() != digest:
                    raise CheckpointError(_broken(p, f"the checksum of array {i} does not fit"))
    except FileNotFoundError:
        raise CheckpointError(f"{p}: no such checkpoint; job.save(directory) writes them") from None
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError, OSError) as error:
        # RuntimeError is what CheckpointError is: it must pass
        raise CheckpointError(_broken(p, str(error))) from None
    return cast(dict[str, Any], _restore(header["tree"], arrays))


def peek(path: str | Path, name: str) -> str | None:
    """One text at the top of a checkpoint's state, without reading the rest; None where there is none, or nothing readable."""
    try:
        with zipfile.ZipFile(path) as archive:
            value = json.loads(archive.read(_STATE))["tree"]["dict"].get(name)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError, NotImplementedError, OSError):
        return None
    return value if isinstance(value, str) else None


def _broken(path: Path, why: str) -> str:
    return f"{path} is broken, or not a cryotk checkpoint ({why}): resume from the iteration before, or from the _optimiser.star"


def checkpoints(directory: str | Path) -> list[Path]:
    """Return the checkpoints of a directory, ordered by iteration number."""
    found = [p for p in Path(directory).glob(f"*{SUFFIX}") if not p.name.startswith(".")]

    def number(p: Path) -> tuple[int, str]:
        digits = re.search(r"_it(\d+)$", p.stem)
        return int(digits[1]) if digits else -1, p.name

    return sorted(found, key=number)


def of_run(directory: str | Path, run: str | None = None) -> list[Path]:
    """Checkpoints of a run (by default the one that wrote to the directory last), ordered by iteration number.

    Those that do not say whose they are, broken ones among them, count for every run.
    """
    runs = {p: peek(p, "run") for p in checkpoints(directory)}
    known = [p for p in runs if runs[p] is not None]
    if run is None and known:
        run = runs[max(reversed(known), key=lambda p: p.stat().st_mtime_ns)]
    return [p for p in runs if run is None or runs[p] in (run, None)]


def latest(directory: str | Path, kind: str | None = None) -> Path:
    """Return the newest checkpoint of a directory's last run; with ``kind`` the newest that is whole.

    Parameters
    ----------
    directory : path
    kind : str, optional
        Checkpoints are then read and checked, newest first; broken ones are passed over with a warning.

    Raises
    ------
    CheckpointError
        When there is none.
    """
    found = of_run(directory)
    if not found:
        raise CheckpointError(f"{directory} holds no checkpoint (*{SUFFIX}): was job.save() called, and did an iteration finish?")
    if kind is None:
        return found[-1]
    errors = []
    for p in reversed(found):
        try:
            load(p, kind)
        except CheckpointError as error:
            errors.append(str(error))
            continue
        if errors:
            warnings.warn(f"going on from {p.name}: {errors[0]}", DataWarning, stacklevel=2)
        return p
    raise CheckpointError(f"{directory}: none of its {len(found)} checkpoints can be used; {errors[0]}")
