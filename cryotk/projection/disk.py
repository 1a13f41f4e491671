"""Accumulators in files, for volumes of which memory holds one but not several."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import ExecutionError
from cryotk.kernels.slice_symmetry import add_symmetry_mates
from cryotk.projection.padded import slabs
from cryotk.projection.reconstruction import Accumulator, complete_plane

__all__ = ["DiskAccumulator", "scratch_folder"]


REMEDY = "set CRYOTK_SCRATCH to a folder on a disk with more room"


def scratch_folder(n_bytes: float = 0) -> Path:
    """Folder for files that live as long as an iteration: ``CRYOTK_SCRATCH``, or that of temporary files.

    Raises
    ------
    ExecutionError
        When it is not there or has less than ``n_bytes`` left.
    """
    folder = Path(os.environ.get("CRYOTK_SCRATCH") or tempfile.gettempdir())
    if not folder.is_dir():
        raise ExecutionError(f"CRYOTK_SCRATCH = {folder} is no folder; {REMEDY}")
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise ExecutionError(
            f"memory is too small for the sums of this iteration, and {folder} has {free / 1e9:.1f} GB for them where "
            f"{n_bytes / 1e9:.1f} are needed; {REMEDY}"
        )
    return folder


class DiskAccumulator:
    """An :class:`Accumulator` of a volume in a temporary file, read and written a few planes at a time.

    It takes part in sums and reconstructions as one in memory does, to the same bits. The file has no name: it is gone with the
    object or the process.

    Parameters
    ----------
    source : Accumulator
        Of a volume; copied.
    folder : path, optional
        See :func:`scratch_folder`.
    """

    def __init__(self, source: Accumulator, folder: str | Path | None = None) -> None:
        self.box, self.current_size, self.padding = source.box, source.current_size, source.padding
        self.r_max, self.is_3d, self.dims = source.r_max, True, 3
        self.shape = source.weight.shape
        self._points = self.shape[1] * self.shape[2]
        # slices reach no further than the corners of the cells that hold the sphere: half of the cube is not stored
        k, x = np.arange(self.shape[0]) - (self.r_max + 1), np.arange(self.shape[2])
        self._plane, self._rest = k[:, None] ** 2 + x**2, (self.r_max + 2) ** 2 - k**2
        counts = [int((self._plane <= rest).sum()) for rest in self._rest]
        self._start = 24 * np.concatenate([[0], np.cumsum(counts)])
        self._file: Any = tempfile.TemporaryFile(buffering=0, dir=folder or scratch_folder(int(self._start[-1])))
        # the plane x = 0, which symmetry changes, is in memory
        self._column: tuple[np.ndarray, np.ndarray] = source.data[..., 0].copy(), source.weight[..., 0].copy()
        for first, last in self._slabs():
            self.put_planes(first, last, *source.planes(first, last))

    def _slabs(self) -> Any:
        return slabs(self.shape[0], self._points)

    def _some(self, raw: np.ndarray, plane: int, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which points of a plane are stored, and where their data and weights are in the bytes of planes from ``first`` on."""
        inside = self._plane <= self._rest[plane]
        here = raw[self._start[plane] - self._start[first] : self._start[plane + 1] - self._start[first]]
        n = 2 * len(here) // 3
        return inside, here[:n].view(np.complex128), here[n:].view(np.float64)

    def planes(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Data and weight of some planes."""
        raw = np.empty(int(self._start[last] - self._start[first]), np.uint8)
        _read(self._file, raw, int(self._start[first]))
        shape = (last - first, *self.shape[1:])
        data, weight = np.zeros(shape, np.complex128), np.zeros(shape)
        for i in range(first, last):
            inside, of_data, of_weight = self._some(raw, i, first)
            data[i - first][inside], weight[i - first][inside] = of_data, of_weight
        for values, column in zip((data, weight), self._column, strict=True):
            values[..., 0] = column[first:last]
        return data, weight

    def put_planes(self, first: int, last: int, data: np.ndarray, weight: np.ndarray) -> None:
        """Replace data and weight of some planes."""
        raw = np.empty(int(self._start[last] - self._start[first]), np.uint8)
        for i in range(first, last):
            inside, of_data, of_weight = self._some(raw, i, first)
            of_data[:], of_weight[:] = data[i - first][inside], weight[i - first][inside]
        for values, column in zip((data, weight), self._column, strict=True):
            column[first:last] = values[..., 0]
        _write(self._file, raw, int(self._start[first]))

    def load(self) -> Accumulator:
        """The same in memory."""
        out = Accumulator(self.box, self.current_size, self.padding)
        for first, last in self._slabs():
            out.put_planes(first, last, *self.planes(first, last))
        return out

    @property
    def data(self) -> np.ndarray:
        """All data, read into memory."""
        return self.load().data

    @property
    def weight(self) -> np.ndarray:
        """All weights, read into memory."""
        return self.load().weight

    def __iadd__(self, other: Accumulator | DiskAccumulator) -> DiskAccumulator:
        for first, last in self._slabs():
            (a, v), (b, w) = self.planes(first, last), other.planes(first, last)
            self.put_planes(first, last, a + b, v + w)
        return self

    def symmetrise(self, operators: np.ndarray | None = None) -> None:
        """See :meth:`Accumulator.symmetrise`; mates are looked up in memory."""
        complete_plane(*self._column, self.r_max)
        if operators is None or len(operators) < 2:
            return
        source = self.load()
        turns = np.ascontiguousarray(operators[1:], dtype=float)
        for first, last in self._slabs():
            data, weight = (np.ascontiguousarray(v) for v in source.planes(first, last))
            data, weight = data.copy(), weight.copy()
            add_symmetry_mates(source.data, source.weight, turns, self.r_max, data, weight, first)
            self.put_planes(first, last, data, weight)


def _bytes_of(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _read(file: Any, out: np.ndarray, offset: int) -> None:
    view = _bytes_of(out)
    file.seek(offset)
    while len(view):
        got = file.readinto(view[: 1 << 30])
        if not got:
            raise ExecutionError("the temporary file with the sums of this iteration ended early: another program cut it")
        view = view[got:]


def _write(file: Any, raw: np.ndarray, offset: int) -> None:
    view = _bytes_of(raw)
    file.seek(offset)
    while len(view):
        try:
            put = file.write(view[: 1 << 30])
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise ExecutionError(
                f"the disk of {scratch_folder()} is full: sums of this iteration are held there, because memory is too small for "
                f"them; {REMEDY}"
            ) from error
        view = view[put:]
