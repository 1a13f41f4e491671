"""Rows of a STAR loop: text to typed columns. Plain chunks go through the C parser of pandas, odd ones through a tokenizer."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from cryotk.errors import FileFormatError
from cryotk.io.labels import label_kind

__all__ = ["parse_rows", "split_row", "typed_column", "typed_scalar"]

_TOKEN = re.compile(rb"""(?:^|(?<=\s))(?:'(.*?)(?<!\x07)'(?=\s|$)|"(.*?)(?<!\x07)"(?=\s|$)|(\S+))""")
_ODD = re.compile(rb"""(?:^|[ \t\n])["'#]""")
_INTEGER = re.compile(r"[+-]?\d{1,19}$")


def split_row(line: bytes) -> list[str]:
    """Values of a row or list entry: quotes are honoured, a trailing comment is dropped."""
    if b"'" not in line and b'"' not in line and b"#" not in line:
        return [t.decode("utf-8", "surrogateescape") for t in line.split()]
    out = []
    for m in _TOKEN.finditer(line):
        token = m[3]
        if token is None:
            token = m[1].replace(b"\x07'", b"'") if m[1] is not None else m[2].replace(b'\x07"', b'"')
        elif token.startswith(b"#"):
            break
        out.append(token.decode("utf-8", "surrogateescape"))
    return out


def typed_scalar(label: str, text: str) -> Any:
    """Value of a list entry, in the type of its label; text that is no such number stays text."""
    kind = label_kind(label)
    if kind in ("string", "vector") or "_" in text:
        return text
    try:
        if kind in ("int", "bool"):
            number = int(text) if _INTEGER.match(text) else float(text)
            return number if isinstance(number, float) and number != int(number) else (bool if kind == "bool" else int)(number)
        if kind == "unknown" and _INTEGER.match(text):
            return int(text)
        return float(text)
    except (ValueError, OverflowError):
        return text


def typed_column(label: str, values: np.ndarray) -> np.ndarray:
    """Column in the type of its label; a column with text where numbers belong stays an object array of str."""
    kind = label_kind(label)
    if kind in ("string", "vector"):
        return values.astype(object)
    if values.dtype == object:
        values = _numbers(values)
    if kind in ("int", "bool") and values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.rint(values)).all():
        return values.astype(np.int64)
    if kind == "float" and values.dtype.kind in "iub":
        return values.astype(float)
    return values


def _numbers(values: np.ndarray) -> np.ndarray:
    """Object array of str as int64 or float64 where every value is a number."""
    if len(values) == 0:
        return np.empty(0, float)
    if any("_" in v for v in values):  # Python would read 1_2 as 12
        return values
    try:
        if all(_INTEGER.match(v) for v in values):
            return values.astype(np.int64)
    except OverflowError:
        pass
    try:
        return values.astype(float)
    except ValueError:
        return values


def parse_rows(path: str, name: str, labels: list[str], text: bytes, first_line: int, as_text: set[int],
               compiled: bool = False) -> list[np.ndarray]:
    """Parse whole lines of a loop.

    Parameters
    ----------
    path, name : str
        Of file and block, for messages.
    labels : list of str
    text : bytes
        Lines, the first of which is line ``first_line`` of the file.
    as_text : set of int
        Columns that are not to be taken as numbers.
    compiled : bool
        Whether the file is worth the start of compiled code.

    Returns
    -------
    list of ndarray
        int64, float64, or object (str), one per label.

    Raises
    ------
    FileFormatError
        For a row with too many or too few values, with its line.
    """
    if not _is_odd(text) and len(text.split(b"\n", 1)[0].split()) == len(labels):
        parsed = None
        if compiled:
            from cryotk.io.star_scan import scan_rows

            parsed = scan_rows(text, len(labels), as_text)
        if parsed is None:
            parsed = _parse_plain(text, len(labels), as_text)
        if parsed is not None:
            return parsed
    return _parse_odd(path, name, labels, text, first_line, as_text)


def _is_odd(text: bytes) -> bool:
    """Whether quotes, comments or unusual white space need the tokenizer; plain searches are much faster than one pattern."""
    if any(c in text for c in (b"\r", b"\v", b"\f")):
        return True
    return any(c in text for c in (b"'", b'"', b"#")) and _ODD.search(text) is not None


def _parse_plain(text: bytes, n: int, as_text: set[int]) -> list[np.ndarray] | None:
    import pandas as pd

    try:
        frame = pd.read_csv(
            io.BytesIO(text), sep=r"\s+", header=None, names=range(n), dtype=dict.fromkeys(as_text, object), engine="c",
            na_filter=False, index_col=False, encoding="utf-8", encoding_errors="surrogateescape", low_memory=False, quoting=3,
            on_bad_lines="error", skip_blank_lines=False,
        )  # fmt: skip
    except (pd.errors.ParserError, ValueError, OverflowError):
        return None
    if len(frame) != text.count(b"\n") + (not text.endswith(b"\n")):
        return None
    out = []
    for i in range(n):
        series = frame[i]
        if series.dtype.kind == "b":  # words like True: text
            return _parse_plain(text, n, as_text | {j for j in range(n) if frame[j].dtype.kind == "b"})
        out.append(series.to_numpy() if series.dtype.kind in "iuf" else series.to_numpy(dtype=object))
    if out[-1].dtype == object and any(v == "" or v is None or v != v for v in out[-1]):
        return None  # a short row
    return out


def _parse_odd(path: str, name: str, labels: list[str], text: bytes, first_line: int, as_text: set[int]) -> list[np.ndarray]:
    n = len(labels)
    table = []
    lines = text.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    for i, line in enumerate(lines):
        tokens = split_row(line)
        if not tokens and line.strip()[:1] == b"#":
            continue
        if len(tokens) != n:
            cut = i == len(lines) - 1 and not text.endswith(b"\n") and len(tokens) < n
            remedy = "the file ends in the middle of this row: it was cut, copy it again" if cut else "mend or remove that line"
            raise FileFormatError(
                f"{path}, line {first_line + i}: row of data_{name} has {len(tokens)} values for {n} columns "
                f"(the last column is _{labels[-1]}); {remedy}"
            )
        table.append(tokens)
    columns = list(zip(*table, strict=True)) if table else [()] * n
    out = []
    for i, column in enumerate(columns):
        values = np.empty(len(column), object)
        values[:] = column
        out.append(values if i in as_text else _numbers(values) if len(values) else values)
    return out
