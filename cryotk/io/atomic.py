"""Files that are whole or not there: written under a temporary name, synced, and renamed into place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cryotk.errors import MissingFileError

__all__ = ["atomic_file", "atomic_write"]


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when the block ends without an error.

    Parameters
    ----------
    path : path
        Missing folders are made; an existing file stays as it is until the new one is complete, and gives it its permissions.
    """
    p = Path(path)
    try:
        p.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise MissingFileError(f"{p} cannot be written: {p.parent} is a file, or lies in one; name a folder") from None
    try:
        mode = p.stat().st_mode & 0o777
    except OSError:
        mode = 0o644
    fd, name = tempfile.mkstemp(prefix=f".{p.name}.", suffix=".tmp", dir=p.parent)
    try:
        with os.fdopen(fd, "wb", buffering=1 << 20) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.chmod(name, mode)
        os.replace(name, p)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file at once."""
    with atomic_file(path) as f:
        f.write(data)
