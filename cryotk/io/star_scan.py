"""Rows of very long tables, scanned by compiled code: exact numbers, and the places of texts.

Used for large files only, so that nobody waits for a compiler to read a small one.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["scan_rows"]

_POWERS = 10.0 ** np.arange(23)
_MOST_HARD = 1 << 16


@numba.njit(nogil=True, cache=True)
def _scan(buf, n_columns, place, is_text, values, starts, ends, integer, hard, powers):  # type: ignore[no-untyped-def]
    """Fill values and places; return rows, number of hard tokens, and a code: 0 well, 1 ragged row, 2 + column: not a number."""
    n, i, row, n_hard = buf.shape[0], 0, 0, 0
    while i < n:
        column = 0
        while True:
            while i < n and (buf[i] == 32 or buf[i] == 9):
                i += 1
            if i >= n or buf[i] == 10:
                break
            if column >= n_columns:
                return row, n_hard, 1
            start = i
            at = place[column]
            if is_text[column]:
                while i < n and buf[i] > 32:
                    i += 1
                starts[at, row], ends[at, row] = start, i
                column += 1
                continue
            negative = buf[i] == 45
            if negative or buf[i] == 43:
                i += 1
            mantissa, digits, power, whole = 0, 0, 0, True
            while i < n and 48 <= buf[i] <= 57:
                if digits < 18:
                    mantissa = mantissa * 10 + (buf[i] - 48)
                digits += 1
                i += 1
            if i < n and buf[i] == 46:
                whole = False
                i += 1
                while i < n and 48 <= buf[i] <= 57:
                    if digits < 18:
                        mantissa = mantissa * 10 + (buf[i] - 48)
                    digits += 1
                    power -= 1
                    i += 1
            bad = digits == 0
            if i < n and (buf[i] == 101 or buf[i] == 69):
                whole = False
                i += 1
                down = i < n and buf[i] == 45
                if i < n and (buf[i] == 45 or buf[i] == 43):
                    i += 1
                exponent, some = 0, False
                while i < n and 48 <= buf[i] <= 57:
                    exponent = min(exponent * 10 + (buf[i] - 48), 100000)
                    some = True
                    i += 1
                bad = bad or not some
                power += -exponent if down else exponent
            if bad or (i < n and buf[i] > 32):
                return row, n_hard, 2 + column
            if digits > 18 or mantissa > 9007199254740992 or power < -22 or power > 22:
                # not exact in one division: left to the exact conversion
                if n_hard == hard.shape[0]:
                    return row, n_hard, 1
                hard[n_hard, 0], hard[n_hard, 1], hard[n_hard, 2], hard[n_hard, 3] = at, row, start, i
                n_hard += 1
            else:
                v = float(mantissa)
                v = v / powers[-power] if power < 0 else v * powers[power]
                values[at, row] = -v if negative else v
            integer[column] &= whole
            column += 1
        if column != n_columns:
            return row, n_hard, 1
        row += 1
        i += 1
    return row, n_hard, 0


@numba.njit(nogil=True, cache=True)
def _gather(buf, starts, ends, out):  # type: ignore[no-untyped-def]
    """Texts one after the other, each with a line feed; of one that repeats the row before, the line feed only."""
    at = 0
    for row in range(starts.shape[0]):
        size = ends[row] - starts[row]
        same = row > 0 and size == ends[row - 1] - starts[row - 1]
        if same:
            for k in range(size - 1, -1, -1):  # names differ at their ends
                if buf[starts[row] + k] != buf[starts[row - 1] + k]:
                    same = False
                    break
        if not same:
            for k in range(size):
                out[at] = buf[starts[row] + k]
                at += 1
        out[at] = 10
        at += 1
    return at


def scan_rows(text: bytes, n_columns: int, as_text: set[int]) -> list[np.ndarray] | None:
    """Parse whole lines without quotes or comments.

    Parameters
    ----------
    text : bytes
    n_columns : int
    as_text : set of int
        Columns that are not to be taken as numbers; others join them when a value is no number.

    Returns
    -------
    list of ndarray or None
        int64, float64 or object (str) columns; None for rows that do not have ``n_columns`` values.
    """
    buf = np.frombuffer(text, np.uint8)
    rows = text.count(b"\n") + (not text.endswith(b"\n"))
    texts = set(as_text)
    while True:
        is_text = np.array([i in texts for i in range(n_columns)])
        place = np.where(is_text, np.cumsum(is_text), np.cumsum(~is_text)) - 1
        values = np.empty((n_columns - len(texts), rows))
        starts, ends = np.empty((2, len(texts), rows), np.int64)
        integer, hard = np.ones(n_columns, np.bool_), np.empty((_MOST_HARD, 4), np.int64)
        got, n_hard, code = _scan(buf, n_columns, place, is_text, values, starts, ends, integer, hard, _POWERS)
        if code < 2:
            break
        texts.add(code - 2)
    if code or got != rows:
        return None
    for at, row, start, end in hard[:n_hard].tolist():
        values[at, row] = float(text[start:end])
    for at in {int(h) for h in hard[:n_hard, 0]}:
        integer[np.nonzero(~is_text)[0][at]] = False  # whole numbers beyond float64: rare, and not for this path
        if any(b"." not in text[s:e] and b"e" not in text[s:e].lower() for a, _, s, e in hard[:n_hard].tolist() if a == at):
            return None
    return [
        _texts(buf, starts[place[i]], ends[place[i]]) if is_text[i]
        else values[place[i]].astype(np.int64) if integer[i] else values[place[i]].copy()
        for i in range(n_columns)
    ]  # fmt: skip


def _texts(buf: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    out = np.empty(int((ends - starts).sum()) + len(starts), np.uint8)
    size = _gather(buf, starts, ends, out)
    values = np.empty(len(starts), object)
    values[:] = out[:size].tobytes().decode("utf-8", "surrogateescape").split("\n")[:-1]
    new = np.fromiter(map(bool, values), np.bool_, len(values))
    return values if new.all() else values[np.maximum.accumulate(np.where(new, np.arange(len(values)), 0))]
