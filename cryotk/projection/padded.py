"""Between maps and padded half transforms of volumes, without ever holding the padded cube.

A padded cube is mostly zeros on one side and mostly thrown away on the other. Transforms along one axis after the other, a few
planes at a time, skip both: less memory and less work than one transform of the whole, and planes may come from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.fft

from cryotk.projection.half_transform import half_shape

__all__ = ["HalfGrid", "map_of_half", "padded_half", "slabs"]

SLAB_POINTS = 500_000
"""Points that are worked on at a time."""


def slabs(n: int, points: int) -> Iterator[tuple[int, int]]:
    """Ranges of ``n`` planes (rows) of ``points`` points each; depends on nothing but its arguments."""
    per = max(1, SLAB_POINTS // max(points, 1))
    for first in range(0, n, per):
        yield first, min(first + per, n)


class HalfGrid:
    """Squared radii of a volume's half transform, a slab of planes at a time.

    Parameters
    ----------
    r_max : int
    """

    def __init__(self, r_max: int) -> None:
        self.r_max = r_max
        self.shape = half_shape(r_max, 3)
        k = np.arange(-(r_max + 1), r_max + 2, dtype=np.int32)
        x = np.arange(r_max + 2, dtype=np.int32)
        self._squares = k * k
        self._plane = self._squares[:, None] + x * x

    def slabs(self) -> Iterator[tuple[int, int]]:
        """Ranges of planes that hold points within ``r_max``; the first and the last plane hold none."""
        for a, b in slabs(2 * self.r_max + 1, self._plane.size):
            yield a + 1, b + 1

    def radius_squared(self, first: int, last: int) -> np.ndarray:
        """(planes, Y, X) int32; ``r_max**2 + 1`` for all points beyond ``r_max``, so that a short table serves them."""
        out = self._squares[first:last, None, None] + self._plane
        return np.minimum(out, self.r_max**2 + 1, out=out)


def _places(r_max: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions on the grid of the frequencies that an FFT of length ``m`` has, and their indices in FFT order."""
    k = np.arange(-(r_max + 1), r_max + 2)
    there = np.nonzero(np.abs(k) <= m // 2)[0]
    return there, k[there] % m


def padded_half(box: int, planes: Callable[[int, int], np.ndarray], m: int, r_max: int) -> np.ndarray:
    """Half transform of a map padded to ``m`` pixels, with the origin at the map's centre.

    Parameters
    ----------
    box : int
        Pixels of the map.
    planes : callable
        ``planes(first, last)`` gives (n, box, box) float32 planes of the map.
    m : int
        Even.
    r_max : int
        Radius that is kept, at most ``m // 2``; 0 beyond it.

    Returns
    -------
    ``[z, y, x >= 0]`` complex64 of the layout of :class:`cryotk.projection.FourierReference`
    """
    grid = HalfGrid(r_max)
    n_rows, n_x = grid.shape[1:]
    there, index = _places(r_max, m)
    kept = min(n_x, m // 2 + 1)
    # the map's centre goes to the first pixel: no signs are to be corrected afterwards
    pixel = (np.arange(box) - box // 2) % m
    rows = np.zeros((box, n_rows, n_x), np.complex64)
    for first, last in slabs(box, m * m):
        some = np.zeros((last - first, box, m), np.float32)
        some[:, :, pixel] = planes(first, last)
        wide = np.zeros((last - first, m, kept), np.complex64)
        wide[:, pixel] = scipy.fft.rfft(some, axis=2, workers=1)[:, :, :kept]
        rows[first:last, there, :kept] = scipy.fft.fft(wide, axis=1, workers=1, overwrite_x=True)[:, index]
    out = np.zeros(grid.shape, np.complex64)
    for first, last in slabs(n_rows, m * n_x):
        wide = np.zeros((m, last - first, n_x), np.complex64)
        wide[pixel] = rows[:, first:last]
        out[there, first:last] = scipy.fft.fft(wide, axis=0, workers=1, overwrite_x=True)[index]
    del rows
    out[[0, -1]] = 0
    for first, last in grid.slabs():
        out[first:last][grid.radius_squared(first, last) > r_max**2] = 0
    return out


def map_of_half(planes: Callable[[int, int], np.ndarray], r_max: int, box: int, m: int) -> np.ndarray:
    """The central ``box`` pixels of the map of a padded half transform; the inverse of :func:`padded_half`.

    Parameters
    ----------
    planes : callable
        ``planes(first, last)`` gives (n, Y, X) complex128 planes of the half transform, 0 beyond ``r_max``; each is asked for once.
    r_max, box, m : int

    Returns
    -------
    (box, box, box) float64
    """
    grid = HalfGrid(r_max)
    n_x = grid.shape[2]
    there, index = _places(r_max, m)
    if r_max >= m // 2:
        # the Nyquist row exists once
        there, index = there[1:], index[1:]
    kept = min(n_x, m // 2 + 1)
    pixel = (np.arange(box) - box // 2) % m
    rows = np.zeros((grid.shape[0], box, kept), np.complex128)
    for first, last in grid.slabs():
        wide = np.zeros((last - first, m, kept), np.complex128)
        wide[:, index] = planes(first, last)[:, there, :kept]
        rows[first:last] = scipy.fft.ifft(wide, axis=1, workers=1, overwrite_x=True)[:, pixel]
    out = np.empty((box, box, box))
    for first, last in slabs(box, m * m):
        wide = np.zeros((m, last - first, kept), np.complex128)
        wide[index] = rows[there, first:last]
        narrow = scipy.fft.ifft(wide, axis=0, workers=1, overwrite_x=True)[pixel]
        out[:, first:last] = scipy.fft.irfft(narrow, n=m, axis=2, workers=1)[:, :, pixel]
    return out
