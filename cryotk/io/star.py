"""STAR files: blocks of loops and lists, read tolerantly and in pieces, written as RELION writes them."""

from __future__ import annotations

import os
import re
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cryotk.errors import FileFormatError, FormatWarning, MissingFileError
from cryotk.io.atomic import atomic_write
from cryotk.io.labels import label_kind
from cryotk.io.progress import file_bar
from cryotk.io.star_rows import parse_rows, split_row, typed_column, typed_scalar
from cryotk.io.star_write import format_star, write_star

__all__ = ["StarBlock", "atomic_write", "format_star", "read_star", "write_star"]

_FIRST_CHUNK, _CHUNK, _THREAD_FROM = 1 << 16, 1 << 23, 1 << 20
_COMPILED_FROM = 100_000_000
_END_OF_ROWS = re.compile(rb"\n(?=[ \t\r]*(?:\n|(?:data_|loop_)\S*[ \t\r]*(?:\n|\Z)|#[ \t]*version[ \t]+\d))")
_END_AT_ONCE = re.compile(rb"[ \t\r]*(?:\n|\Z|(?:data_|loop_)\S*[ \t\r]*(?:\n|\Z)|#[ \t]*version[ \t]+\d)")
_VERSION = re.compile(rb"#\s*version\s+(\d+)")


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
    version : int, optional
        Number of the ``# version`` line; 0 for a file without; None lets the writer choose.
    first_line : int
        Line of the first row (loop) or entry, from 1.
    comments : list of str
        Comment lines before the block.
    """

    name: str
    columns: dict[str, Any] = field(default_factory=dict)
    is_loop: bool = True
    version: int | None = None
    first_line: int = 0
    comments: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        if not self.is_loop:
            return 1
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __contains__(self, label: str) -> bool:
        return label in self.columns

    def __getitem__(self, label: str) -> Any:
        return self.columns[label]

    def __repr__(self) -> str:
        what = f"{len(self)} rows x {len(self.columns)} columns" if self.is_loop else f"list of {len(self.columns)}"
        return f"<StarBlock data_{self.name}: {what}>"

    def get(self, label: str, default: Any = None) -> Any:
        """Column or entry, or ``default``."""
        return self.columns.get(label, default)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame (one row for a list)."""
        import pandas as pd

        return pd.DataFrame(self.columns if self.is_loop else {k: [v] for k, v in self.columns.items()})


class _Lines:
    """A file read line by line, with line numbers and one line of memory."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path, self.file, self.number = path, file, 0
        self._kept: bytes | None = None

    def next(self) -> bytes | None:
        """Next line, None at the end; :attr:`number` is its number."""
        if self._kept is not None:
            line, self._kept = self._kept, None
        else:
            line = self.file.readline()
        if not line:
            return None
        self.number += 1
        return line

    def keep(self, line: bytes) -> None:
        """Give a line back."""
        self._kept = line
        self.number -= 1

    def rewind(self) -> None:
        """Move the file to the start of the line that was given back."""
        if self._kept is not None:
            self.file.seek(-len(self._kept), os.SEEK_CUR)
            self._kept = None


_MRC_NAMES = (".mrc", ".mrcs", ".map", ".st", ".rec")


def read_star(path: str | os.PathLike[str], blocks: list[str] | None = None) -> dict[str, StarBlock]:
    """Read a STAR file.

    Parameters
    ----------
    path : path
    blocks : list of str, optional
        Names of the blocks to parse; all by default. The rows of others are skipped unread.

    Returns
    -------
    dict of str to StarBlock
        In the file's order; a repeated name, or a second loop of a block, gets ``.2``, ``.3``. Where a loop follows a
        list in one block, the list has the
        block's name and the loop the name ``<block>.loop``.

    Raises
    ------
    MissingFileError, FileFormatError
        With file and line.
    """
    p = Path(path)
    try:
        file = open(p, "rb", buffering=1 << 16)
    except FileNotFoundError:
        raise MissingFileError(f"{p}: no such file") from None
    except IsADirectoryError:
        raise FileFormatError(f"{p} is a folder, not a STAR file") from None
    with file:
        start = file.read(4096)
        file.seek(0)
        if b"\0" in start:
            kind = " (an MRC file: open it with ctk.open_stack or ctk.open_volume)" if str(p).endswith(_MRC_NAMES) else ""
            raise FileFormatError(f"{p} is not a STAR file: it is binary{kind}")
        lines = _Lines(str(p), file)
        out: dict[str, StarBlock] = {}
        version, empty = 0, True
        comments: list[str] = []
        while (line := lines.next()) is not None:
            stripped = line.strip()
            empty = empty and not stripped
            if stripped.startswith(b"data_"):
                name = stripped.split()[0][5:].decode("utf-8", "surrogateescape")
                block = StarBlock(name, version=version, comments=comments)
                _read_block(lines, block, out, blocks is None or name in blocks)
                version, comments = 0, []
            elif m := _VERSION.match(stripped):
                version = int(m[1])
            elif stripped.startswith(b"#"):
                comments.append(line.rstrip(b"\r\n").decode("utf-8", "surrogateescape"))
            elif stripped and out:
                shown = stripped[:40].decode("utf-8", "replace")
                raise FileFormatError(
                    f"{p}, line {lines.number}: {shown!r} is neither a label, nor loop_, nor data_; rows may not follow an empty "
                    f"line"
                )
            elif lines.number > 100_000:
                break
    if not out and not (blocks is not None and version):
        if empty:
            raise FileFormatError(f"{p} is not a STAR file: it is empty")
        if blocks is None or not lines.number:
            raise FileFormatError(f"{p} is not a STAR file: it has no line starting with data_")
    return out


def _read_block(lines: _Lines, block: StarBlock, out: dict[str, StarBlock], wanted: bool) -> None:
    """Parse one block into ``out``; leave the reader at the line after it."""

    def add(one: StarBlock, key: str) -> None:
        if wanted:
            base, k = key, 2
            while key in out:
                key, k = f"{base}.{k}", k + 1
            out[key] = one

    block.is_loop = False
    done = False
    while (line := lines.next()) is not None:
        stripped = line.strip()
        if stripped.startswith(b"data_"):
            lines.keep(line)
            break
        if m := _VERSION.match(stripped):
            if block.columns or done:
                lines.keep(line)
                break
            block.version = int(m[1])
        if not stripped or stripped.startswith((b"#", b";")):
            continue
        if stripped.startswith(b"loop_"):
            if block.columns or done:
                add(block, block.name)
                block = StarBlock(block.name if done else f"{block.name}.loop", version=block.version)
            _read_loop(lines, block, wanted)
            done = True
        elif stripped.startswith(b"_") and not done:
            if wanted or not block.columns:
                _read_entry(lines, block, stripped)
        else:
            shown = stripped[:40].decode("utf-8", "replace")
            raise FileFormatError(
                f"{lines.path}, line {lines.number}: {shown!r} is neither a label, nor loop_, nor data_"
                + ("; rows may not follow an empty line" if done else "")
            )
    add(block, block.name)


def _read_entry(lines: _Lines, block: StarBlock, line: bytes) -> None:
    tokens = split_row(line)
    label = tokens[0][1:]
    if not block.columns:
        block.first_line = lines.number
    if len(tokens) < 2:
        raise FileFormatError(f"{lines.path}, line {lines.number}: _{label} has no value")
    block.columns[label] = typed_scalar(label, tokens[1])


def _read_loop(lines: _Lines, block: StarBlock, wanted: bool) -> None:
    labels: list[str] = []
    while (line := lines.next()) is not None:
        stripped = line.strip()
        if stripped.startswith(b"_"):
            label = stripped.split()[0][1:].split(b"#")[0].decode("utf-8", "surrogateescape")
            if label in labels:
                raise FileFormatError(
                    f"{lines.path}, line {lines.number}: column _{label} appears twice in data_{block.name}; remove one"
                )
            labels.append(label)
        elif stripped and not stripped.startswith((b"#", b";")):
            lines.keep(line)
            break
    if not labels:
        raise FileFormatError(f"{lines.path}, line {lines.number}: loop_ of data_{block.name} has no columns")
    block.is_loop = True
    block.first_line = lines.number + 1
    lines.rewind()
    start = lines.file.tell(), lines.number
    as_text = {i for i, label in enumerate(labels) if label_kind(label) in ("string", "vector")}
    while True:
        parts = _read_rows(lines, block.name, labels, as_text, wanted)
        mixed = {i for i in range(len(labels)) if len({p[i].dtype == object for p in parts}) > 1}
        if not mixed:
            break
        as_text = as_text | mixed  # text in one piece of the file, numbers in another: keep the text of all
        lines.file.seek(start[0])
        lines.number = start[1]
    for i, label in enumerate(labels):
        column = parts[0][i] if len(parts) == 1 else np.concatenate([p[i] for p in parts]) if parts else np.empty(0, object)
        for p in parts:
            p[i] = None  # the pieces of a long table are let go column by column
        block.columns[label] = typed_column(label, column)


def _read_rows(lines: _Lines, name: str, labels: list[str], as_text: set[int], wanted: bool) -> list[list[Any]]:
    """Read rows in pieces up to the end of the loop; leave the file at the line that ends it."""
    parts: list[list[Any]] = []
    waiting: deque[Any] = deque()
    size = os.fstat(lines.file.fileno()).st_size
    compiled = size > _COMPILED_FROM
    text = b"\n"
    with ThreadPoolExecutor(2) as pool, file_bar(size, f"reading {os.path.basename(lines.path)}") as bar:
        for text, first_line in _pieces_of_rows(lines):
            bar.update(len(text))
            if not wanted:
                continue
            arguments = (lines.path, name, labels, text, first_line, as_text, compiled)
            if len(text) < _THREAD_FROM:
                parts.append(parse_rows(*arguments))
                continue
            waiting.append(pool.submit(parse_rows, *arguments))  # the C parser lets other threads run
            if len(waiting) > 2:
                parts.append(waiting.popleft().result())
        parts += [w.result() for w in waiting]
    if wanted and not text.endswith((b"\n", b" ")) and text[: text.rfind(b"\n") + 1].endswith(b" \n"):
        warnings.warn(
            f"{lines.path}: the last row ends without the blank that ends the others; the file may have been cut, compare it with "
            "its original",
            FormatWarning,
            stacklevel=5,
        )
    return parts


def _pieces_of_rows(lines: _Lines) -> Iterator[tuple[bytes, int]]:
    """Whole lines of a loop in ever larger pieces, each with the number of its first line."""
    size = _FIRST_CHUNK
    file = lines.file
    while text := file.read(size):
        if not text.endswith(b"\n"):
            text += file.readline()
        got = len(text)
        if _END_AT_ONCE.match(text):
            text = b""
        elif m := _END_OF_ROWS.search(text):
            text = text[: m.end()]
        ended = len(text) < got
        if ended:
            file.seek(len(text) - got, os.SEEK_CUR)
        first = lines.number + 1
        lines.number += text.count(b"\n") + (not text.endswith(b"\n") and bool(text))
        if text:
            yield (text.replace(b"\r\n", b"\n") if b"\r" in text else text), first
        if ended:
            return
        size = min(_CHUNK, size * 8)
