"""MRC stacks and volumes: headers, lazy reading of single images, atomic writing.

Every mode becomes float32 before anything is computed: sums of float16 overflow.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryotk.errors import DataError, FileFormatError, MissingFileError
from cryotk.io.atomic import atomic_write

__all__ = ["MrcHeader", "read_header", "read_images", "read_mrc", "write_mrc"]

_MODES = {0: "i1", 1: "i2", 2: "f4", 4: "c8", 6: "u2", 12: "f2"}


@dataclass(frozen=True)
class MrcHeader:
    """What a reader needs of an MRC header."""

    path: str
    shape: tuple[int, int, int]
    """(z, y, x)."""
    dtype: np.dtype
    offset: int
    """Byte of the first pixel."""
    cell: tuple[float, float, float]
    """Å, x, y, z."""
    sampling: tuple[int, int, int]
    origin: tuple[float, float, float]
    space_group: int
    file_size: int

    @property
    def pixel_size(self) -> float:
        """Å along x; 0 when the header does not say."""
        return float(self.cell[0]) / self.sampling[0] if self.sampling[0] > 0 else 0.0

    @property
    def image_bytes(self) -> int:
        """Bytes of one section."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    @property
    def images_present(self) -> int:
        """Whole sections that the file really holds."""
        return max(0, self.file_size - self.offset) // max(self.image_bytes, 1)


def read_header(path: str | os.PathLike[str]) -> MrcHeader:
    """Read and check the header of an MRC file.

    Accepts both byte orders, and files without the ``MAP`` magic.

    Raises
    ------
    MissingFileError, FileFormatError
    """
    p = os.fspath(path)
    try:
        with open(p, "rb") as f:
            raw = f.read(1024)
            size = os.fstat(f.fileno()).st_size
    except FileNotFoundError:
        raise MissingFileError(f"{p}: no such file") from None
    except IsADirectoryError:
        raise FileFormatError(f"{p} is a folder, not an MRC file") from None
    if len(raw) < 1024:
        raise FileFormatError(f"{p} is not an MRC file: {len(raw)} bytes, an MRC header has 1024")
    for order in "<>":
        nx, ny, nz, mode = struct.unpack(order + "4i", raw[:16])
        if 0 < nx < 200_000 and 0 < ny < 200_000 and 0 < nz < 100_000_000 and 0 <= mode <= 101:
            break
    else:
        raise FileFormatError(f"{p} is not an MRC file: its header gives no sensible size")
    if mode not in _MODES:
        raise FileFormatError(f"{p}: MRC mode {mode} is not supported; convert it to mode 2 (float32)")
    sampling = struct.unpack(order + "3i", raw[28:40])
    cell = struct.unpack(order + "3f", raw[40:52])
    space_group, symmetry = struct.unpack(order + "2i", raw[88:96])
    origin = struct.unpack(order + "3f", raw[196:208])
    if not 0 <= symmetry < size:
        symmetry = 0
    return MrcHeader(
        p, (nz, ny, nx), np.dtype(order + _MODES[mode]), 1024 + symmetry, cell, sampling, origin, space_group, size
    )


def read_images(header: MrcHeader, indices: np.ndarray) -> np.ndarray:
    """Read sections (from 0) of a stack as float32, in the order asked, each run of neighbours in one go.

    Raises
    ------
    DataError
        When the file ends before a section.
    """
    index = np.asarray(indices, np.int64)
    out = np.empty((len(index), *header.shape[1:]), np.float32)
    if len(index) == 0:
        return out
    top = int(index.max())
    if top >= header.images_present:
        raise DataError(
            f"{header.path} ends before image {top + 1}: it holds {header.images_present} of the {header.shape[0]} images "
            "its header promises; copy the file again"
        )
    order = np.argsort(index, kind="stable")
    count = header.shape[1] * header.shape[2]
    with open(header.path, "rb", buffering=0) as f:
        i = 0
        while i < len(order):
            j = i + 1
            while j < len(order) and index[order[j]] == index[order[j - 1]] + 1 and j - i < 256:
                j += 1
            f.seek(header.offset + int(index[order[i]]) * header.image_bytes)
            data = np.fromfile(f, header.dtype, count * (j - i))
            out[order[i:j]] = data.reshape(j - i, *header.shape[1:])
            i = j
    return out


def read_mrc(path: str | os.PathLike[str]) -> tuple[np.ndarray, MrcHeader]:
    """Read a whole file as float32 ``(z, y, x)`` and its header."""
    header = read_header(path)
    return read_images(header, np.arange(header.shape[0])), header


def write_mrc(path: str | os.PathLike[str], data: np.ndarray, pixel_size: float, *, is_stack: bool = False,
              dtype: str = "float32") -> None:
    """Write a volume or a stack, atomically.

    Parameters
    ----------
    path : path
    data : (z, y, x) or (y, x) float
    pixel_size : float, Å
    is_stack : bool
        Images, not sections of a volume.
    dtype : {"float32", "float16"}
    """
    array = np.asarray(data)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise DataError(f"{path}: an MRC file holds 2 or 3 dimensions, not {array.ndim}")
    if dtype not in ("float32", "float16"):
        raise DataError(f"{path}: dtype must be float32 or float16, not {dtype!r}")
    pixels = np.ascontiguousarray(array, dtype="<f4" if dtype == "float32" else "<f2")
    nz, ny, nx = pixels.shape
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, nx, ny, nz, 2 if dtype == "float32" else 12)
    struct.pack_into("<3i", header, 28, nx, ny, nz)
    struct.pack_into("<3f", header, 40, nx * pixel_size, ny * pixel_size, nz * pixel_size)
    struct.pack_into("<3f", header, 52, 90.0, 90.0, 90.0)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    values = pixels.astype(np.float32)
    stats = (values.min(), values.max(), values.mean(dtype=float)) if values.size else (0, 0, 0)
    struct.pack_into("<3f", header, 76, *(float(s) for s in stats))
    struct.pack_into("<2i", header, 88, 0 if is_stack else 1, 0)
    struct.pack_into("<i", header, 108, 20140)
    header[208:212] = b"MAP "
    header[212:216] = b"\x44\x44\x00\x00"
    struct.pack_into("<f", header, 216, float(values.std(dtype=float)) if values.size else 0.0)
    struct.pack_into("<i", header, 220, 1)
    header[224:234] = b"cryotk    "
    atomic_write(Path(path), bytes(header) + pixels.tobytes())
