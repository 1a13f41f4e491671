"""Exact checkpoints: nested dicts of arrays, numbers and text in one file, written atomically and checked on reading."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import CheckpointError
from cryotk.io.star import atomic_write

__all__ = ["latest", "load", "save"]

FORMAT = 1


def _flatten(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        return {"__dict__": {str(k): _flatten(v, f"{path}/{k}", arrays) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"__list__": [_flatten(v, f"{path}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        arrays[path] = value
        return {"__array__": path}
    if isinstance(value, np.ndarray):
        return {"__strings__": [str(v) for v in value]}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return {"__float__": value.hex()}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise CheckpointError(f"cannot store a {type(value).__name__} ({path})")


def _restore(value: Any, arrays: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "__dict__" in value:
        return {k: _restore(v, arrays) for k, v in value["__dict__"].items()}
    if "__list__" in value:
        return [_restore(v, arrays) for v in value["__list__"]]
    if "__array__" in value:
        return arrays[value["__array__"]]
    if "__strings__" in value:
        return np.array(value["__strings__"], object)
    return float.fromhex(value["__float__"])


def save(path: str | Path, state: dict[str, Any], kind: str) -> None:
    """Write a checkpoint.

    Parameters
    ----------
    path : path
    state : dict
        Nested dicts and lists of arrays, numbers, text, None; restored to the same bits.
    kind : str
        What it is a checkpoint of; asked for on loading.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = _flatten(state, "", arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **{f"a{i}": a for i, a in enumerate(arrays.values())})
    payload = buffer.getvalue()
    header = {
        "cryotk": FORMAT, "kind": kind, "tree": tree, "names": list(arrays), "sha256": hashlib.sha256(payload).hexdigest(),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        z.writestr("state.json", json.dumps(header))
        z.writestr("arrays.npz", payload)
    atomic_write(path, out.getvalue())


def load(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint.

    Raises
    ------
    CheckpointError
        For a broken file, a foreign one, or one of another kind or of a newer version.
    """
    p = Path(path)
    try:
        with zipfile.ZipFile(p) as z:
            header = json.loads(z.read("state.json"))
            payload = z.read("arrays.npz")
    except FileNotFoundError:
        raise CheckpointError(f"{p}: no such checkpoint") from None
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise CheckpointError(f"{p} is not a cryotk checkpoint, or it is broken ({error}); resume from the iteration before") from None
    if header.get("cryotk") != FORMAT:
        raise CheckpointError(f"{p} was written by another version of cryotk (format {header.get('cryotk')}, this reads {FORMAT})")
    if header.get("kind") != kind:
        raise CheckpointError(f"{p} is a checkpoint of {header.get('kind')}, not of {kind}")
    if hashlib.sha256(payload).hexdigest() != header["sha256"]:
        raise CheckpointError(f"{p} is broken: its checksum does not fit; resume from the iteration before")
    stored = np.load(io.BytesIO(payload), allow_pickle=False)
    arrays = {name: stored[f"a{i}"] for i, name in enumerate(header["names"])}
    return _restore(header["tree"], arrays)


def latest(directory: str | Path, suffix: str = ".checkpoint") -> Path:
    """The newest checkpoint of a directory, by name.

    Raises
    ------
    CheckpointError
        When there is none.
    """
    found = sorted(Path(directory).glob(f"*{suffix}"))
    if not found:
        raise CheckpointError(f"{directory} holds no checkpoint (*{suffix}): was job.save() called, and did an iteration finish?")
    return found[-1]
