"""STAR files: blocks of loops and lists, read tolerantly, written as RELION writes them.

The whole file is read once; loops go through the C parser of pandas, so that a million rows take seconds.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import FileFormatError, MissingFileError
from cryotk.io.labels import label_kind

__all__ = ["StarBlock", "atomic_write", "read_star", "write_star"]


@dataclass
class StarBlock:
    """One block of a STAR file.

    Parameters
    ----------
    name : str
        Without ``data_``.
    columns : dict
        Label without underscore -> array (loop) or scalar (list), in the file's order.
    is_loop : bool
    version : int
        Number of the ``# version`` line, 0 without.
    first_line : int
        Line of the first row (loop) or entry, from 1.
    """

    name: str
    columns: dict[str, Any] = field(default_factory=dict)
    is_loop: bool = True
    version: int = 0
    first_line: int = 0

    def __len__(self) -> int:
        if not self.is_loop:
            return 1
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __contains__(self, label: str) -> bool:
        return label in self.columns

    def __getitem__(self, label: str) -> Any:
        return self.columns[label]

    def get(self, label: str, default: Any = None) -> Any:
        """Column or entry, or ``default``."""
        return self.columns.get(label, default)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame (one row for a list)."""
        import pandas as pd

        return pd.DataFrame(self.columns if self.is_loop else {k: [v] for k, v in self.columns.items()})


def _tokens(line: str) -> list[str]:
    """Split a row, honouring quotes and trailing comments."""
    if "'" not in line and '"' not in line:
        out = line.split()
        for i, t in enumerate(out):
            if t.startswith("#"):
                return out[:i]
        return out
    out = []
    for m in re.finditer(r"""(?:^|(?<=\s))(?:'(.*?)'(?=\s|$)|"(.*?)"(?=\s|$)|(\S+))""", line):
        quoted = m[1] if m[1] is not None else m[2]
        if quoted is not None:
            out.append(quoted)
        elif m[3].startswith("#"):
            break
        else:
            out.append(m[3])
    return out


def _typed_scalar(label: str, text: str) -> Any:
    kind = label_kind(label)
    try:
        if kind == "int":
            return int(float(text))
        if kind == "bool":
            return bool(int(float(text)))
        if kind == "float":
            return float(text)
        if kind == "unknown":
            try:
                return int(text)
            except ValueError:
                return float(text)
    except ValueError:
        return text
    return text


def _typed_column(label: str, values: Any) -> np.ndarray:
    kind = label_kind(label)
    array = np.asarray(values)
    if kind in ("string", "vector"):
        return array.astype(object)
    if array.dtype == object:
        try:
            array = array.astype(float)
        except (TypeError, ValueError):
            return array
    if kind in ("int", "bool") and array.dtype.kind == "f" and np.all(np.isfinite(array)) and np.all(array == np.rint(array)):
        array = array.astype(np.int64)
    if kind == "float" and array.dtype.kind in "iub":
        array = array.astype(float)
    return array


def _parse_loop(path: str, name: str, labels: list[str], rows: list[bytes], first_line: int, start: int) -> dict[str, np.ndarray]:
    if not rows:
        return {label: _typed_column(label, np.empty(0, object if label_kind(label) in ("string", "vector") else float)) for label in labels}
    raw = b"\n".join(rows)
    n = len(labels)
    strings = {i: str for i, label in enumerate(labels) if label_kind(label) in ("string", "vector")}
    simple = not (b"'" in raw or b'"' in raw or b"#" in raw)
    if simple:
        import pandas as pd

        width = len(rows[0].split())
        if width != n:
            _ragged(path, name, labels, rows, first_line)
        try:
            frame = pd.read_csv(
                io.BytesIO(raw), sep=r"\s+", header=None, names=range(n), dtype=strings, engine="c", na_filter=False,
                index_col=False, encoding="utf-8", encoding_errors="surrogateescape", low_memory=False, quoting=3,
                on_bad_lines="error",
            )
            if len(frame) == len(rows):
                last = frame.iloc[:, -1]
                if last.dtype != object or not (last == "").any():
                    return {label: _typed_column(label, _values(frame[i], path)) for i, label in enumerate(labels)}
        except (pd.errors.ParserError, ValueError):
            pass
    table = []
    for i, row in enumerate(rows):
        tokens = _tokens(row.decode("utf-8", "surrogateescape"))
        if not tokens:
            continue
        if len(tokens) != n:
            raise FileFormatError(
                f"{path}, line {first_line + i}: row of data_{name} has {len(tokens)} values for {n} columns "
                f"(the last column is _{labels[-1]}); mend or remove that line"
            )
        table.append(tokens)
    columns = list(zip(*table, strict=True)) if table else [()] * n
    out = {}
    for label, column in zip(labels, columns, strict=True):
        kind = label_kind(label)
        values: Any = np.array(column, dtype=object)
        if kind not in ("string", "vector"):
            for cast in (np.int64, np.float64):
                try:
                    values = np.array(column, dtype=object).astype(cast)
                    break
                except (TypeError, ValueError):
                    continue
        out[label] = _typed_column(label, values)
    return out


def _values(series: Any, path: str) -> np.ndarray:
    return series.to_numpy(dtype=object) if series.dtype.kind not in "iufb" else series.to_numpy()


def _ragged(path: str, name: str, labels: list[str], rows: list[bytes], first_line: int) -> None:
    for i, row in enumerate(rows):
        k = len(_tokens(row.decode("utf-8", "surrogateescape")))
        if k != len(labels):
            raise FileFormatError(
                f"{path}, line {first_line + i}: row of data_{name} has {k} values for {len(labels)} columns "
                f"(the last column is _{labels[-1]}); mend or remove that line"
            )


def read_star(path: str | os.PathLike[str], blocks: list[str] | None = None) -> dict[str, StarBlock]:
    """Read a STAR file.

    Parameters
    ----------
    path : path
    blocks : list of str, optional
        Names of the blocks to parse; all by default.

    Returns
    -------
    dict of str to StarBlock
        In the file's order; a repeated name gets ``.2``, ``.3``.

    Raises
    ------
    MissingFileError, FileFormatError
        With file and line.
    """
    p = Path(path)
    try:
        text = p.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"{p}: no such file") from None
    except IsADirectoryError:
        raise FileFormatError(f"{p} is a folder, not a STAR file") from None
    if b"data_" not in text:
        what = "it is empty" if not text.strip() else "it has no line starting with data_"
        raise FileFormatError(f"{p} is not a STAR file: {what}")
    if b"\0" in text[:4096]:
        raise FileFormatError(f"{p} is not a STAR file: it is binary")
    lines = text.split(b"\n")
    out: dict[str, StarBlock] = {}
    version = 0
    i = 0
    while i < len(lines):
        line = lines[i].strip()
        if line.startswith(b"#"):
            m = re.search(rb"version\s+(\d+)", line)
            if m and b"RELION" not in line:
                version = int(m[1])
            i += 1
            continue
        if line.startswith(b"data_"):
            name = line.split()[0][5:].decode("utf-8", "surrogateescape")
            key, k = name, 2
            while key in out:
                key, k = f"{name}.{k}", k + 1
            wanted = blocks is None or name in blocks
            block = StarBlock(name, version=version)
            i = _read_block(str(p), lines, i + 1, block, wanted)
            if wanted:
                out[key] = block
            continue
        i += 1
    return out


def _read_block(path: str, lines: list[bytes], i: int, block: StarBlock, wanted: bool) -> int:
    """Parse one block from line index ``i``; return the index after it."""
    n = len(lines)
    block.is_loop = False
    while i < n:
        line = lines[i].strip()
        if not line or line.startswith((b"#", b";")):
            if line.startswith(b"# version"):
                return i
            i += 1
            continue
        if line.startswith(b"data_"):
            return i
        if line.startswith(b"loop_"):
            if block.columns and block.is_loop:
                raise FileFormatError(f"{path}, line {i + 1}: a second loop_ in data_{block.name}; split it into two blocks")
            return _read_loop(path, lines, i + 1, block, wanted)
        if line.startswith(b"_"):
            tokens = _tokens(line.decode("utf-8", "surrogateescape"))
            if not block.columns:
                block.first_line = i + 1
            label = tokens[0][1:]
            if len(tokens) < 2:
                raise FileFormatError(f"{path}, line {i + 1}: _{label} has no value")
            block.columns[label] = _typed_scalar(label, tokens[1])
            i += 1
            continue
        raise FileFormatError(
            f"{path}, line {i + 1}: {line[:40].decode('utf-8', 'replace')!r} is neither a label, nor loop_, nor data_"
        )
    return i


def _read_loop(path: str, lines: list[bytes], i: int, block: StarBlock, wanted: bool) -> int:
    n = len(lines)
    labels: list[str] = []
    while i < n:
        line = lines[i].strip()
        if line.startswith(b"_"):
            label = line.split()[0][1:].split(b"#")[0].decode("utf-8", "surrogateescape")
            if label in labels:
                raise FileFormatError(f"{path}, line {i + 1}: column _{label} appears twice in data_{block.name}")
            labels.append(label)
        elif line and not line.startswith((b"#", b";")):
            break
        i += 1
    if not labels:
        raise FileFormatError(f"{path}, line {i}: loop_ of data_{block.name} has no columns")
    block.is_loop = True
    first = i
    rows: list[bytes] = []
    clean = True
    while i < n:
        line = lines[i]
        s = line.strip()
        if not s:
            # RELION ends a loop at an empty line; some writers put one before more rows: those are lost rows, say so
            break
        if s[:1] == b"#":
            clean = False
            if s.startswith(b"# version"):
                break
            i += 1
            rows.append(b"")
            continue
        if s.startswith((b"data_", b"loop_")) and len(s.split()) == 1:
            break
        rows.append(line)
        i += 1
    block.first_line = first + 1
    if not wanted:
        return i
    if not clean:
        rows = [r for r in rows if r]
    block.columns = dict(_parse_loop(path, block.name, labels, rows, first + 1, first))
    return i


# -- writing -------------------------------------------------------------------------------------------------------


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name, sync it, and rename it into place."""
    p = Path(path)
    p.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{p.name}.", dir=p.parent)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(name, 0o644)
        os.replace(name, p)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _format_float(v: float) -> str:
    if not np.isfinite(v):
        return f"{v:>12}"
    a = abs(v)
    exponent = (0 < a < 0.001) or a > 1e5
    if v < 0:
        return f"{v:12.5e}" if exponent else f"{v:12.5f}"
    return f"{v:12.6e}" if exponent else f"{v:12.6f}"


def _quote(s: str) -> str:
    if s == "":
        return '""'
    if s[0] in "'\"#" or any(c.isspace() for c in s):
        return f'"{s}"' if '"' not in s else f"'{s}'"
    return s


def _format_vector(v: Any) -> str:
    return v if isinstance(v, str) else "[" + ",".join(f"{x:.12g}" for x in np.asarray(v, float)) + "]"


def _format_column(label: str, values: np.ndarray) -> list[str]:
    kind = label_kind(label)
    if kind == "vector":
        return [f"{_format_vector(v):>10}" for v in values]
    if values.dtype.kind == "f":
        a = np.abs(values)
        special = ~np.isfinite(values) | ((a > 0) & (a < 0.001)) | (a > 1e5) | (values < 0)
        out = ("%12.6f\n" * len(values) % tuple(values.tolist())).split("\n")[:-1] if len(values) else []
        for i in np.nonzero(special)[0]:
            out[i] = _format_float(float(values[i]))
        return out
    if values.dtype.kind in "iub":
        return ("%12d\n" * len(values) % tuple(int(v) for v in values.tolist())).split("\n")[:-1] if len(values) else []
    return [f"{_quote(str(v)):>10}" for v in values]


def _format_scalar(label: str, v: Any) -> str:
    if isinstance(v, (bool, np.bool_, int, np.integer)):
        return f"{int(v):12d}"
    if isinstance(v, (float, np.floating)):
        return _format_float(float(v))
    return _quote(str(v))


def format_star(blocks: dict[str, StarBlock], version: int = 50001) -> bytes:
    """The bytes of a STAR file."""
    parts: list[str] = []
    for block in blocks.values():
        parts.append(f"\n# version {block.version or version}\n\ndata_{block.name}\n\n")
        if block.is_loop:
            parts.append("loop_ \n")
            parts.extend(f"_{label} #{i} \n" for i, label in enumerate(block.columns, 1))
            columns = [_format_column(label, np.asarray(v)) for label, v in block.columns.items()]
            if columns and len(columns[0]):
                parts.append(" \n".join(map(" ".join, zip(*columns, strict=True))) + " \n")
        else:
            width = max((len(label) for label in block.columns), default=0) + 1 + 12
            parts.extend(f"_{label}".ljust(width) + f" {_format_scalar(label, v)}\n" for label, v in block.columns.items())
        parts.append(" \n")
    return "".join(parts).encode("utf-8", "surrogateescape")


def write_star(path: str | os.PathLike[str], blocks: dict[str, StarBlock], version: int = 50001, header: str = "") -> None:
    """Write a STAR file in RELION's layout, atomically.

    Parameters
    ----------
    path : path
    blocks : dict of str to StarBlock
    version : int
        For blocks that have none.
    header : str
        Comment lines before the first block.
    """
    atomic_write(path, header.encode() + format_star(blocks, version))
