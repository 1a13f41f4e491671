"""Pixels of MRC files that are read when they are looked at, and not before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from cryotk.errors import DataError
from cryotk.io.mrc import MrcHeader, read_header, read_mrc

__all__ = ["FileArray", "MicrographArray", "open_pixels"]


class FileArray:
    """An MRC file as an array (z, y, x) float32: indexing reads what is asked for, along any axis.

    A viewer cuts maps along all three axes; dask would read whole chunks for one row.

    Parameters
    ----------
    path : path
        Not compressed.

    Attributes
    ----------
    bytes_read : int
        Of pixels handed out so far.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.header = read_header(path)
        if self.header.images_present < self.header.shape[0]:
            raise DataError(
                f"{path} holds {self.header.images_present} of the {self.header.shape[0]} sections its header promises; "
                "copy it again"
            )
        columns, rows, sections = (axis - 1 for axis in self.header.axes)
        stored = {sections: 0, rows: 1, columns: 2}
        self._order = (stored[2], stored[1], stored[0])
        self.shape = tuple(self.header.shape[i] for i in self._order)
        self.ndim, self.bytes_read = 3, 0

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels as float32."""
        return 4 * self.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        h = self.header
        # opened for each look: nothing stays open, and a copy of this object costs nothing
        pixels = np.memmap(h.path, h.dtype, "r", h.offset, h.shape)
        out = np.array(pixels.transpose(self._order)[key], np.float32)
        self.bytes_read += out.nbytes
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)

    def __repr__(self) -> str:
        return f"<{' x '.join(map(str, self.shape))} pixels of {self.header.path}, read when looked at>"


class MicrographArray:
    """Micrographs of one size as an array (micrograph, y, x): each is read when it is looked at.

    Parameters
    ----------
    paths : sequence of path

    Raises
    ------
    DataError
        When they differ in size.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self.files = [FileArray(p) for p in paths]
        sizes = {f.shape[1:] for f in self.files}
        if len(sizes) != 1:
            raise DataError(f"the micrographs have different sizes: {', '.join(f'{x} x {y}' for y, x in sorted(sizes))} pixels")
        self.shape = (len(self.files), *self.files[0].shape[1:])
        self.ndim = 3

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = list(key) if isinstance(key, tuple) else [key]
        where = next((i for i, k in enumerate(keys) if k is Ellipsis), None)
        if where is not None:
            keys[where : where + 1] = [slice(None)] * (4 - len(keys))
        first, *rest = keys
        which = np.arange(len(self.files))[first]
        if np.ndim(which) == 0:
            return self.files[int(which)][(0, *rest)]
        planes = [self.files[int(i)][(0, *rest)] for i in which]
        return np.stack(planes) if planes else np.empty((0, *self.shape[1:]), np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)


def open_pixels(path: str | os.PathLike[str]) -> tuple[Any, MrcHeader]:
    """Pixels (z, y, x) and header of an MRC file; only a compressed one is read whole.

    Raises
    ------
    MissingFileError, FileFormatError, DataError
    """
    if os.fspath(path).endswith((".gz", ".bz2")):
        return read_mrc(path)
    array = FileArray(path)
    return array, array.header
