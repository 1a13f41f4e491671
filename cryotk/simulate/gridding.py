"""Fourier sums over atoms: ``F(k) = sum_j w_j exp(-2 pi i k.r_j)`` on a lattice, by spreading and a transform.

A type-1 non-uniform transform: every atom is spread on a twofold finer lattice with a kernel of six points, the lattice
is transformed, and the kernel's own transform divided out (relative error about 1e-5). It shares nothing with the
slices that the engine takes out of Fourier volumes, so simulated images are an independent truth.
"""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np
import scipy.fft

__all__ = ["WIDTH", "kernel_transform", "points_to_image_transform", "points_to_volume_transform", "spread_2d"]

WIDTH = 6
# "Exponential of semicircle" kernel; beta = 2.3 * width suits a twofold finer lattice
# (Barnett, Magland & af Klinteberg 2019).
_BETA = 2.3 * WIDTH


@numba.njit(nogil=True, cache=True, inline="always")
def _kernel_row(at, values):
    """Fill the kernel at the WIDTH lattice points around ``at``; return the first point."""
    first = int(np.ceil(at - 0.5 * WIDTH))
    for i in range(WIDTH):
        z = (first + i - at) * (2.0 / WIDTH)
        s = 1.0 - z * z
        values[i] = np.exp(_BETA * (np.sqrt(s) - 1.0)) if s > 0.0 else 0.0
    return first


@numba.njit(nogil=True, cache=True)
def spread_2d(x, y, weights, grid):
    """Add weighted points to a periodic lattice.

    Parameters
    ----------
    x, y : (n,) float64
        In lattice steps from element 0.
    weights : (n,) float64
    grid : (m, m) float32, OUT, added to; ``[y, x]``
    """
    m = grid.shape[0]
    kx, ky = np.empty(WIDTH), np.empty(WIDTH)
    for j in range(x.shape[0]):
        x0, y0, w = _kernel_row(x[j], kx), _kernel_row(y[j], ky), weights[j]
        for b in range(WIDTH):
            row = (y0 + b) % m
            v = w * ky[b]
            for a in range(WIDTH):
                grid[row, (x0 + a) % m] += np.float32(v * kx[a])


@numba.njit(nogil=True, cache=True)
def _spread_3d(x, y, z, weights, grid):
    m = grid.shape[0]
    kx, ky, kz = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    for j in range(x.shape[0]):
        x0, y0, z0 = _kernel_row(x[j], kx), _kernel_row(y[j], ky), _kernel_row(z[j], kz)
        for c in range(WIDTH):
            for b in range(WIDTH):
                v = weights[j] * kz[c] * ky[b]
                for a in range(WIDTH):
                    grid[(z0 + c) % m, (y0 + b) % m, (x0 + a) % m] += v * kx[a]


@lru_cache(maxsize=16)
def kernel_transform(m: int, count: int) -> np.ndarray:
    """Transform of the spreading kernel at lattice frequencies 0 .. count-1 of a lattice of ``m`` points."""
    nodes, gauss = np.polynomial.legendre.leggauss(64)
    values = np.exp(_BETA * (np.sqrt(1 - nodes**2) - 1)) * gauss * (WIDTH / 2)
    return np.cos(2 * np.pi * np.outer(np.arange(count), nodes * (WIDTH / 2)) / m) @ values


def points_to_image_transform(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, field: int, pixel_size: float
) -> np.ndarray:
    """Fourier sums of several point sets on the half lattice of a square field.

    Parameters
    ----------
    x, y : (b, n) float64
        Å from the centre of the field.
    weights : (n,) float64
    field : int
        Even number of pixels.
    pixel_size : float, Å

    Returns
    -------
    (b, field, field // 2 + 1) complex64
        ``[ky, kx]`` in the order of a real transform, phases relative to the field's centre; 0 at the unpaired Nyquist
        row and column.
    """
    half, fine = field // 2, 2 * field
    grid = np.zeros((len(x), fine, fine), np.float32)
    step = pixel_size / 2
    for i in range(len(x)):
        spread_2d(x[i] / step, y[i] / step, weights, grid[i])
    rows = scipy.fft.rfft(grid, axis=2, workers=1)[:, :, : half + 1]
    full = scipy.fft.fft(rows, axis=1, workers=1, overwrite_x=True)
    out = np.zeros((len(x), field, half + 1), np.complex64)
    out[:, :half] = full[:, :half]
    out[:, half + 1 :] = full[:, fine - half + 1 :]
    correction = 1 / kernel_transform(fine, half + 1)
    correction[half] = 0
    lines = correction[np.minimum(np.arange(field), field - np.arange(field))]
    out *= (lines[:, None] * correction).astype(np.float32)
    return out


def points_to_volume_transform(positions: np.ndarray, weights: np.ndarray, box: int, pixel_size: float) -> np.ndarray:
    """Fourier sums of points on the half lattice of a cube.

    Returns
    -------
    (box, box, box // 2 + 1) complex128
        ``[kz, ky, kx]``; otherwise as :func:`points_to_image_transform`.
    """
    half, fine = box // 2, 2 * box
    grid = np.zeros((fine, fine, fine))
    at = positions / (pixel_size / 2)
    x, y, z = (np.ascontiguousarray(at[:, i]) for i in range(3))
    _spread_3d(x, y, z, weights, grid)
    full = scipy.fft.rfftn(grid, workers=1)
    index = np.arange(box)
    source = np.where(index <= half, index, index - box)
    out = full[np.ix_(source, source, np.arange(half + 1))]
    correction = 1 / kernel_transform(fine, half + 1)
    correction[half] = 0
    lines = correction[np.minimum(index, box - index)]
    out *= lines[:, None, None] * lines[:, None] * correction
    return out
