"""MRC stacks and volumes: headers, lazy reading of single images, atomic writing.

Every mode becomes float32 before anything is computed: sums of float16 overflow.
"""

from __future__ import annotations

import bz2
import gzip
import itertools
import math
import os
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryotk.errors import DataError, FileFormatError, MissingFileError
from cryotk.io.atomic import atomic_file

__all__ = ["MrcHeader", "read_header", "read_images", "read_mrc", "write_mrc"]

_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_BLOCK_BYTES = 1 << 25
_STAMPS = {b"\x44": "<", b"\x11": ">"}


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
    axes: tuple[int, int, int] = (1, 2, 3)
    """Which of x, y, z (1, 2, 3) runs along columns, rows, sections."""

    @property
    def pixel_size(self) -> float:
        """Å along x, the shortest decimal that the header's single precision stands for; 0 when the header does not say."""
        return _shortest_pixel(self.cell[0], self.sampling[0]) if self.sampling[0] > 0 else 0.0

    @property
    def stored_pixel_size(self) -> float:
        """Å along x exactly as the single precision of the header has it, which programs that do not round go by."""
        return float(self.cell[0]) / self.sampling[0] if self.sampling[0] > 0 else 0.0

    @property
    def voxel(self) -> tuple[float, float, float]:
        """Å along x, y, z; 0 where the header does not say."""
        x, y, z = (_shortest_pixel(c, n) if n > 0 else 0.0 for c, n in zip(self.cell, self.sampling, strict=True))
        return x, y, z

    @property
    def image_bytes(self) -> int:
        """Bytes of one section."""
        return self.shape[1] * self.shape[2] * self.dtype.itemsize

    @property
    def images_present(self) -> int:
        """Whole sections that the file really holds."""
        return max(0, self.file_size - self.offset) // max(self.image_bytes, 1)


def _shortest_pixel(cell: float, sampling: int) -> float:
    """What was written when a cell of ``sampling`` pixels became float32: 1.244, not 1.24400003.

    Some programs round the pixel before they multiply, so a neighbouring cell will do where no short decimal gives this one.
    """
    a, stored = float(cell) / sampling, np.float32(cell)
    if not math.isfinite(a) or a <= 0:
        return a if math.isfinite(a) else 0.0
    for slack in (0.0, float(np.spacing(stored))):
        for digits in range(1, 8):
            short = float(f"{a:.{digits}g}")
            if abs(float(np.float32(short * sampling)) - float(stored)) <= slack:
                return short
    return a


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
    return _parse_header(p, raw, size)


def _parse_header(p: str, raw: bytes, size: int) -> MrcHeader:
    if raw and b"\0" not in raw and b"data_" in raw:
        raise FileFormatError(f"{p} is not an MRC file: it is text; STAR files of particles are opened with ctk.open_particles")
    if len(raw) < 1024:
        raise FileFormatError(f"{p} is not an MRC file: {len(raw)} bytes, an MRC header has 1024")
    order = _byte_order(p, raw, size)
    nx, ny, nz, mode = struct.unpack(order + "4i", raw[:16])
    if mode not in _MODES:
        raise FileFormatError(f"{p}: MRC mode {mode} is not supported; convert it to mode 2 (float32)")
    sampling = struct.unpack(order + "3i", raw[28:40])
    cell = struct.unpack(order + "3f", raw[40:52])
    axes = struct.unpack(order + "3i", raw[64:76])
    space_group, symmetry = struct.unpack(order + "2i", raw[88:96])
    origin = struct.unpack(order + "3f", raw[196:208])
    if not 0 <= symmetry < size:
        symmetry = 0
    if sorted(axes) != [1, 2, 3]:
        axes = (1, 2, 3)
    return MrcHeader(
        p, (nz, ny, nx), np.dtype(order + _MODES[mode]), 1024 + symmetry, cell, sampling, origin, space_group, size, axes
    )


def _byte_order(p: str, raw: bytes, size: int) -> str:
    """``<`` or ``>``: the only one that gives a sensible size; else as the machine stamp says; else as the file's length says."""
    likely = []
    for order in "<>":
        nx, ny, nz, mode = struct.unpack(order + "4i", raw[:16])
        if 0 < nx < 200_000 and 0 < ny < 200_000 and 0 < nz < 100_000_000 and 0 <= mode <= 101:
            likely.append((abs(nx * ny * nz * np.dtype(_MODES.get(mode, "f4")).itemsize + 1024 - size), order))
    if not likely:
        raise FileFormatError(f"{p} is not an MRC file: its header gives no sensible size")
    stamped = _STAMPS.get(raw[212:213]) if raw[208:212] == b"MAP " else None
    if stamped in [order for _, order in likely]:
        return str(stamped)
    return min(likely)[1]


def read_images(header: MrcHeader, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Read sections (from 0) of a stack as float32, in the order asked, each run of neighbours in one go; into ``out`` where given.

    Raises
    ------
    DataError
        When the file ends before a section.
    """
    index = np.asarray(indices, np.int64)
    if out is None:
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
    longest = min(256, max(1, _BLOCK_BYTES // max(header.image_bytes, 1)))
    runs = _runs(index[order], longest)
    buffer = None
    with open(header.path, "rb", buffering=0) as f:
        for i, j in runs:
            f.seek(header.offset + int(index[order[i]]) * header.image_bytes)
            together = order[j - 1] - order[i] == j - 1 - i and bool((np.diff(order[i:j]) == 1).all())
            if together and header.dtype == out.dtype:
                _fill(f, out[order[i] : order[i] + j - i], header.path)
                continue
            if buffer is None:
                buffer = np.empty((max(b - a for a, b in runs), *header.shape[1:]), header.dtype)
            _fill(f, buffer[: j - i], header.path)
            out[order[i:j]] = buffer[: j - i]
    return out


def _runs(ascending: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """Slices of ascending numbers without a gap, none longer than ``longest``."""
    edges = np.nonzero(np.diff(ascending) != 1)[0] + 1
    out = []
    for start, end in itertools.pairwise([0, *edges.tolist(), len(ascending)]):
        out += [(i, min(i + longest, end)) for i in range(start, end, longest)]
    return out


def _fill(file: Any, array: np.ndarray, path: str) -> None:
    """Read the bytes of an array, no more and no less."""
    view = array.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        got = file.readinto(view[done:])
        if not got:
            raise DataError(f"{path} became shorter while it was read; copy it again")
        done += got


def read_mrc(path: str | os.PathLike[str]) -> tuple[np.ndarray, MrcHeader]:
    """Read a whole file as float32 ``(z, y, x)`` and its header; ``.gz`` and ``.bz2`` are unpacked in memory.

    Raises
    ------
    MissingFileError, FileFormatError, DataError
    """
    p = os.fspath(path)
    if not p.endswith((".gz", ".bz2")):
        header = read_header(p)
        return _upright(read_images(header, np.arange(header.shape[0])), header), header
    raw = _unpack(p)
    header = _parse_header(p, raw[:1024], len(raw))
    count = math.prod(header.shape)
    if header.images_present < header.shape[0]:
        raise DataError(f"{p} holds {header.images_present} of the {header.shape[0]} sections its header promises; copy it again")
    pixels = np.frombuffer(raw, header.dtype, count, header.offset).reshape(header.shape)
    return _upright(pixels.astype(np.float32), header), header


def _unpack(p: str) -> bytes:
    opener = gzip.open if p.endswith(".gz") else bz2.open
    try:
        with opener(p, "rb") as f:
            return f.read()
    except FileNotFoundError:
        raise MissingFileError(f"{p}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise FileFormatError(f"{p} cannot be unpacked: {error}") from None


def _upright(data: np.ndarray, header: MrcHeader) -> np.ndarray:
    """Sections along z, rows along y, columns along x, whatever order the file has them in."""
    if header.axes == (1, 2, 3):
        return data
    columns, rows, sections = (axis - 1 for axis in header.axes)
    stored = {sections: 0, rows: 1, columns: 2}
    return np.ascontiguousarray(data.transpose(stored[2], stored[1], stored[0]))


def write_mrc(path: str | os.PathLike[str], data: Any, pixel_size: float, *, is_stack: bool = False,
              dtype: str = "float32") -> None:
    """Write a volume or a stack, atomically and a block of sections at a time.

    Parameters
    ----------
    path : path
    data : (z, y, x) or (y, x) float
        A numpy or dask array; of a dask array no more than one chunk of sections is in memory at a time.
    pixel_size : float, Å
    is_stack : bool
        Images, not sections of a volume.
    dtype : {"float32", "float16"}

    Raises
    ------
    DataError
        For other dimensions, and for values beyond what float16 holds.
    """
    array: Any = data if hasattr(data, "dask") else np.asarray(data)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise DataError(f"{path}: an MRC file holds 2 or 3 dimensions, not {array.ndim}")
    if dtype not in ("float32", "float16"):
        raise DataError(f"{path}: dtype must be float32 or float16, not {dtype!r}")
    nz = array.shape[0]
    step = max(1, min(nz, _BLOCK_BYTES // max(1, 4 * array.shape[1] * array.shape[2])))
    edges = [0, *np.cumsum(array.chunks[0]).tolist()] if hasattr(array, "dask") else [*range(0, nz, step), nz]
    stats = _Statistics()
    mode = 2 if dtype == "float32" else 12

    def stored(start: int, end: int) -> np.ndarray:
        block = np.asarray(array[start:end], np.float32)
        if dtype == "float16" and block.size and float(np.abs(block).max()) > 65504:
            raise DataError(f"{path}: float16 holds values up to 65504, found {np.abs(block).max():g}; write float32")
        out = np.ascontiguousarray(block, "<f4" if dtype == "float32" else "<f2")
        stats.add(out.astype(np.float32, copy=False))  # the header describes what is in the file
        return out

    with atomic_file(path) as f:
        if len(edges) == 2:
            block = stored(*edges)
            f.write(_header(array.shape, float(pixel_size), mode, is_stack, stats.values()))
            if block.size:
                f.write(block.data)
            return
        f.write(bytes(1024))
        for start, end in itertools.pairwise(edges):
            block = stored(start, end)
            if block.size:
                f.write(block.data)
        f.seek(0)
        f.write(_header(array.shape, float(pixel_size), mode, is_stack, stats.values()))


class _Statistics:
    """Minimum, maximum, mean and standard deviation of blocks."""

    def __init__(self) -> None:
        self.low, self.high, self.total, self.square, self.n = np.inf, -np.inf, 0.0, 0.0, 0

    def add(self, block: np.ndarray) -> None:
        if block.size == 0:
            return
        self.low, self.high = min(self.low, float(block.min())), max(self.high, float(block.max()))
        flat = block.reshape(-1)
        for i in range(0, flat.size, 16_384):  # in the cache in double precision
            piece = flat[i : i + 16_384].astype(float)
            self.total += float(piece.sum())
            self.square += float(piece @ piece)
        self.n += block.size

    def values(self) -> tuple[float, ...]:
        n = max(1, self.n)
        mean = self.total / n
        spread = math.sqrt(max(0.0, self.square / n - mean**2)) if math.isfinite(self.square) else 0.0
        return self.low, self.high, mean, spread


def _header(shape: tuple[int, ...], a: float, mode: int, is_stack: bool, stats: tuple[float, ...]) -> bytes:
    nz, ny, nx = shape
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, nx, ny, nz, mode)
    # the standard's images of a stack are cells of one plane
    mz = 1 if is_stack else nz
    struct.pack_into("<3i", header, 28, nx, ny, mz)
    struct.pack_into("<3f", header, 40, nx * a, ny * a, mz * a)
    struct.pack_into("<3f", header, 52, 90.0, 90.0, 90.0)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    finite = stats if all(map(math.isfinite, stats)) else (0.0, -1.0, -2.0, -1.0)  # MRC2014's way to say "not determined"
    struct.pack_into("<3f", header, 76, *finite[:3])
    struct.pack_into("<2i", header, 88, 0 if is_stack else 1, 0)
    struct.pack_into("<i", header, 108, 20140)
    header[208:212] = b"MAP "
    header[212:216] = b"\x44\x44\x00\x00"
    struct.pack_into("<f", header, 216, finite[3])
    struct.pack_into("<i", header, 220, 1)
    header[224:234] = b"cryotk    "
    return bytes(header)
