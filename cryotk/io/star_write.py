"""Writing STAR files in RELION's layout. Numbers of long tables are turned into digits by array arithmetic."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.errors import DataError
from cryotk.io.atomic import atomic_file
from cryotk.io.labels import label_kind
from cryotk.io.progress import file_bar

if TYPE_CHECKING:
    from cryotk.io.star import StarBlock

__all__ = ["format_star", "write_star"]

_ROWS = 32_768
_LONGEST = 4096


def format_star(blocks: dict[str, StarBlock], version: int = 50001) -> bytes:
    """Return the bytes of a STAR file."""
    return b"".join(_pieces(blocks, version))


def write_star(path: str | os.PathLike[str], blocks: dict[str, StarBlock], version: int = 50001, header: str = "") -> None:
    """Write a STAR file in RELION's layout, atomically.

    Parameters
    ----------
    path : path
    blocks : dict of str to StarBlock
        Written under each block's own name.
    version : int
        For blocks whose ``version`` is None.
    header : str
        Comment lines before the first block.

    Raises
    ------
    DataError
        For columns of different lengths, or a value that no STAR file can hold.
    """
    # 13 bytes a value: only the bar's length rests on it
    expected = sum(13 * len(b) * len(b.columns) for b in blocks.values() if b.is_loop)
    with atomic_file(path) as f, file_bar(expected, f"writing {os.path.basename(path)}") as bar:
        f.write(header.encode())
        for piece in _pieces(blocks, version):
            f.write(piece)
            bar.update(len(piece))


def _pieces(blocks: dict[str, StarBlock], version: int) -> Iterator[bytes]:
    for block in blocks.values():
        number = version if block.version is None else block.version
        head = "".join(f"{line}\n" for line in block.comments)
        head += (f"\n# version {number}\n" if number else "") + f"\ndata_{block.name.removesuffix('.loop')}\n\n"
        yield head.encode("utf-8", "surrogateescape")
        if block.is_loop:
            yield "".join(["loop_ \n", *(f"_{label} #{i} \n" for i, label in enumerate(block.columns, 1))]).encode()
            yield from _rows(block, number == 0)
        else:
            width = max((len(label) for label in block.columns), default=0) + 1 + 12
            for label, v in block.columns.items():
                yield f"_{label}".ljust(width).encode() + _scalar(label, v, number == 0) + b"\n"
        yield b" \n"


def _rows(block: StarBlock, old: bool) -> Iterator[bytes]:
    columns = {label: np.asarray(v) for label, v in block.columns.items()}
    lengths = {len(v) for v in columns.values()}
    if len(lengths) > 1:
        raise DataError(f"data_{block.name}: columns have different lengths: {sorted(lengths)}")
    n = lengths.pop() if lengths else 0
    for start in range(0, n, _ROWS):
        matrices: list[np.ndarray] = []
        m = min(_ROWS, n - start)
        blank = np.full((m, 1), 32, np.uint8)
        for label, values in columns.items():
            matrices += [_column(block.name, label, values[start : start + m], old, not matrices), blank]
        matrices.append(np.full((m, 1), 10, np.uint8))
        text = np.concatenate(matrices, axis=1).ravel()
        yield text[text != 0].tobytes()  # zeros fill up fields that are shorter than the longest


def _column(block: str, label: str, values: np.ndarray, old: bool, first: bool) -> np.ndarray:
    """Fields of one column as (rows, width) bytes, filled up with zeros; ``old``: in the manner of RELION 3.0 and before."""
    kind = label_kind(label)
    if kind == "vector":
        return _texts(block, label, [_vector(v) for v in values], first)
    if kind == "string" or values.dtype.kind not in "iufb":
        return _texts(block, label, values.tolist(), first)
    if values.dtype.kind == "f" or kind == "float":
        return _floats(values.astype(float), old)
    return _integers(values.astype(np.int64) if values.dtype.kind != "u" else values)


@cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Digits of 0 to 99999: right-aligned in 5; with a minus in 6; with leading zeros in 5; of 0 to 999 with zeros in 3."""
    def table(form: str, n: int) -> np.ndarray:
        text = "".join(form % i for i in range(n)).encode()
        return np.frombuffer(text, np.uint8).reshape(n, -1)

    minus = "".join(f"-{i}".rjust(6) for i in range(100_000)).encode()
    return table("%5d", 100_000), np.frombuffer(minus, np.uint8).reshape(-1, 6), table("%05d", 100_000), table("%03d", 1000)


def _floats(values: np.ndarray, old: bool) -> np.ndarray:
    """``%12.6f``, or ``%12.5f`` when negative (not if ``old``), or with an exponent when small or large."""
    plain, minus, zeros5, zeros3 = _tables()
    out = np.full((len(values), 12), 32, np.uint8)
    size, negative = np.abs(values), np.signbit(values)
    fixed = ((size >= 0.001) & (size < np.where(negative & old, 9_999.9, 99_999.9))) | ((values == 0) & ~negative)
    for sign in (False, True):
        rows = np.nonzero(fixed & (negative == sign))[0]
        if len(rows) == 0:
            continue
        six = old or not sign
        unit = 1_000_000 if six else 100_000
        scaled = size[rows] * unit
        number = np.rint(scaled).astype(np.int64)
        # the product is rounded itself: near a tie the decision is left to the exact conversion
        doubtful = np.abs(np.abs(scaled - np.floor(scaled)) - 0.5) < 1e-3
        fixed[rows[doubtful]] = False
        whole, rest = np.divmod(number, unit)
        if six:
            high, low = np.divmod(rest, 1000)
            out[rows, :5] = minus[whole, 1:] if sign else plain[whole]
            out[rows, 5], out[rows, 6:9], out[rows, 9:] = 46, zeros3[high], zeros3[low]
        else:
            out[rows, :6], out[rows, 6], out[rows, 7:] = minus[whole], 46, zeros5[rest]
    return _patch(out, np.nonzero(~fixed)[0], [_float(v, old) for v in values[~fixed].tolist()])


def _integers(values: np.ndarray) -> np.ndarray:
    plain, minus, _, _ = _tables()
    out = np.full((len(values), 12), 32, np.uint8)
    low, high = (values >= 0) & (values < 100_000), np.zeros(len(values), bool)
    if values.dtype.kind != "u":
        high = (values < 0) & (values > -100_000)
        out[high, 6:] = minus[-values[high]]
    out[low, 7:] = plain[values[low]]
    other = ~(low | high)
    return _patch(out, np.nonzero(other)[0], [f"{v:12d}" for v in values[other].tolist()])


def _patch(out: np.ndarray, rows: np.ndarray, texts: list[str]) -> np.ndarray:
    """Put texts into some rows, widening the fields where one is longer."""
    if not texts:
        return out
    fields = np.array([t.encode() for t in texts])
    matrix = fields.view(np.uint8).reshape(len(fields), -1)
    if matrix.shape[1] > out.shape[1]:
        out = np.pad(out, ((0, 0), (0, matrix.shape[1] - out.shape[1])))
    out[rows] = 0
    out[rows, : matrix.shape[1]] = matrix
    return out


def _texts(block: str, label: str, values: list[Any], first: bool) -> np.ndarray:
    fields = [(v if type(v) is str else _plain_text(v)).encode("utf-8", "surrogateescape") for v in values]
    longest = max(map(len, fields))
    if longest <= _LONGEST:
        matrix = np.array(fields, dtype=f"S{max(longest, 1)}").view(np.uint8).reshape(len(fields), -1)
        # short, quoted or impossible ones: bytes up to the blank, quotes and # at the start, and nothing at all
        odd = (matrix[:, : min(10, matrix.shape[1])] == 0).any(1) if longest >= 10 else np.ones(len(fields), bool)
        odd |= (((matrix > 0) & (matrix <= 32)) | (matrix == 127)).any(1) | np.isin(
            matrix[:, 0], (0, 34, 35, 39, *b";_dl") if first else (0, 34, 35, 39)
        )
        rows = np.nonzero(odd)[0]
        if len(rows) == 0:
            return matrix
    else:
        rows, matrix = np.arange(len(fields)), np.empty((len(fields), 0), np.uint8)
    changed = [_quoted(block, label, fields[i], first).rjust(10) for i in rows]
    wide = np.array(changed).view(np.uint8).reshape(len(rows), -1)
    if wide.shape[1] > matrix.shape[1]:
        matrix = np.pad(matrix, ((0, 0), (0, wide.shape[1] - matrix.shape[1])))
    matrix = matrix.copy()
    matrix[rows] = 0
    matrix[rows, : wide.shape[1]] = wide
    return matrix


def _plain_text(v: Any) -> str:
    return "None" if v is None else str(v)


def _quoted(block: str, label: str, text: bytes, first: bool = False) -> bytes:
    """A value as it must stand in a row: in quotes when it is empty, holds white space, or begins like a quote or comment.

    In the ``first`` column also when its row would be taken for a comment, a label, or the start of something else.
    """
    if b"\n" in text or b"\r" in text or b"\0" in text:
        raise DataError(
            f"data_{block}, column _{label}: {text.decode(errors='replace')!r} holds a line break; STAR values have one line"
        )
    like_a_header = first and text.startswith((b";", b"_", b"data_", b"loop_"))
    if text and not like_a_header and text[:1] not in (b"'", b'"', b"#") and len(text.split()) == 1 and text.split()[0] == text:
        return text
    return b'"' + text.replace(b'"', b'\x07"') + b'"'


def _float(v: float, old: bool) -> str:
    a = abs(v)
    if math.isnan(v):
        return "        -nan" if math.copysign(1, v) < 0 else "         nan"
    if math.isinf(v):
        return f"{v:>12}"
    digits = 5 if v < 0 and not old else 6
    return f"{v:12.{digits}e}" if 0 < a < 0.001 or a > 1e5 else f"{v:12.{digits}f}"


def _vector(v: Any) -> str:
    return v if isinstance(v, str) else "[" + ",".join(f"{x:.12g}" for x in np.asarray(v, float).ravel()) + "]"


def _scalar(label: str, v: Any, old: bool) -> bytes:
    kind = label_kind(label)
    if kind == "vector":
        return _vector(v).encode()
    if isinstance(v, (bool, np.bool_, int, np.integer)) and kind not in ("float", "string"):
        return f"{int(v):12d}".encode()
    if isinstance(v, (bool, np.bool_, int, np.integer, float, np.floating)) and kind != "string":
        return _float(float(v), old).encode()
    return _quoted("", label, _plain_text(v).encode("utf-8", "surrogateescape"))
