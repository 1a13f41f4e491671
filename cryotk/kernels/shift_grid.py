"""All shifts of a square grid at once, axis by axis: for images of which many shifts are wanted.

A phase ramp is a product, ``E(tx, ty; kx, ky) = Ex(tx, kx) Ey(ty, ky)``, and shifts on a square grid share few ``tx`` and ``ty``.
So the sum over pixels of ``Z conj(E)`` is done over ``kx`` first and over ``ky`` then. Three symmetries halve it again: rows
``ky`` and ``-ky`` are folded before the first sum, and ``+t`` and ``-t`` share their cosines and sines. That leaves about a
twentieth of the operations of one dot product per shift. The way back (weights of shifts to a weighted sum of ramps)
is its transpose.

What is left are products of small matrices, with the rows (orientations) side by side: LANES of them at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

__all__ = ["LANES", "ShiftGrid", "make_shift_grid", "pays", "shift_scores", "shift_sums"]

LANES = 64
"""Rows done together. Their tables stay in the second-level cache."""

# Part of the kernels that call them, instruction for instruction: a function of its own that two cached kernels bring along is
# taken from whichever was loaded first, and their sums may differ in the last bit.
_inline = numba.njit(
    nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy", inline="always"
)


class ShiftGrid(NamedTuple):
    """Shifts of a square grid and the pixels they act on. Made by :func:`make_shift_grid`.

    A folded column is a pair of pixels ``(kx, ky)`` and ``(kx, -ky)``; the columns of one ``ky`` are neighbours.
    """

    upper: np.ndarray
    """(C,) int32: pixel at +ky of each folded column; -1 for none."""
    lower: np.ndarray
    """(C,) int32: pixel at -ky; -1 for none."""
    row_start: np.ndarray
    """(R + 1,) int32: first column of each row ky = 0, 1, …; a row's columns are kx = 0, 1, …"""
    cell: np.ndarray
    """(T,) int32: position of each shift in a table (sign of ty, |ty|, sign of tx, |tx|)."""
    cos_x: np.ndarray
    """(X, A) float32 at kx = 0, 1, …"""
    sin_x: np.ndarray
    cos_y: np.ndarray
    """(R, B) float32 at ky = 0, 1, …"""
    sin_y: np.ndarray
    centre: np.ndarray
    """(2, P) float32: ``exp(-2 pi i k.t0)`` of the grid's centre t0."""


def _axis(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances from the centre, and of each value the position of its distance, plus their number where it is negative."""
    rounded = np.round(np.abs(values), 6)
    distance, index = np.unique(rounded, return_inverse=True)
    return distance, np.where((values < 0) & (rounded > 0), index + len(distance), index).astype(np.int32)


def make_shift_grid(kx: np.ndarray, ky: np.ndarray, shifts: np.ndarray, box: int) -> ShiftGrid:
    """Tables of a set of shifts.

    Parameters
    ----------
    kx, ky : (P,) int
        Frequencies of the pixels: each ``(kx, ky)`` once, ``kx >= 0``.
    shifts : (T, 2) float
        x and y shifts in pixels. Any set works; one on a square grid that is symmetric about its centre is fast.
    box : int
    """
    kx, ky, shifts = np.asarray(kx, int), np.asarray(ky, int), np.asarray(shifts, float)
    centre = 0.5 * (shifts.min(0) + shifts.max(0))
    ax, x_index = _axis(shifts[:, 0] - centre[0])
    ay, y_index = _axis(shifts[:, 1] - centre[1])
    at = {(x, y): p for p, (x, y) in enumerate(zip(kx.tolist(), ky.tolist(), strict=True))}
    widths = np.zeros(int(np.abs(ky).max()) + 1, int)
    np.maximum.at(widths, np.abs(ky), kx + 1)
    columns = [(x, y) for y, width in enumerate(widths) for x in range(width)]
    x_angle = 2 * np.pi / box * np.arange(kx.max() + 1)[:, None] * ax
    y_angle = 2 * np.pi / box * np.arange(len(widths))[:, None] * ay
    angle = -2 * np.pi / box * (centre[0] * kx + centre[1] * ky)
    return ShiftGrid(
        np.array([at.get((x, y), -1) for x, y in columns], np.int32),
        np.array([at.get((x, -y), -1) if y else -1 for x, y in columns], np.int32),
        np.concatenate([[0], np.cumsum(widths)]).astype(np.int32),
        (y_index * (2 * len(ax)) + x_index).astype(np.int32),
        np.cos(x_angle).astype(np.float32),
        np.sin(x_angle).astype(np.float32),
        np.cos(y_angle).astype(np.float32),
        np.sin(y_angle).astype(np.float32),
        np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32),
    )


@_inline
def pays(n_parents, n_children, n_samples):
    """Whether a table of all shifts is cheaper than a dot product for each of ``n_samples`` fine samples."""
    n_chunks = (n_parents * n_children + LANES - 1) // LANES
    return n_children <= LANES and n_samples > 32 * LANES * n_chunks


@_inline
def _sum_and_difference(total, difference, a, b):
    for r in range(a.shape[0]):
        total[r] = a[r] + b[r]
    for r in range(a.shape[0]):
        difference[r] = a[r] - b[r]


@_inline
def _fold(products, u, v, sum_r, difference_i, sum_i, difference_r):
    """Sum and difference of pixels u and v (one may be missing) of (LANES, 2 P) products."""
    lanes, n_pixels = products.shape[0], products.shape[1] // 2
    if u >= 0 and v >= 0:
        for r in range(lanes):
            sum_r[r] = products[r, u] + products[r, v]
            difference_r[r] = products[r, u] - products[r, v]
        for r in range(lanes):
            sum_i[r] = products[r, n_pixels + u] + products[r, n_pixels + v]
            difference_i[r] = products[r, n_pixels + u] - products[r, n_pixels + v]
    else:
        sign = np.float32(1.0 if u >= 0 else -1.0)
        p = u if u >= 0 else v
        for r in range(lanes):
            sum_r[r] = products[r, p]
            difference_r[r] = sign * products[r, p]
            sum_i[r] = products[r, n_pixels + p]
            difference_i[r] = sign * products[r, n_pixels + p]


@_inline
def shift_scores(products, grid, out):
    """``Re sum_p Z_p conj(E_tp)`` of LANES products with every shift of a grid.

    Parameters
    ----------
    products : (LANES, 2 P) float32
        ``Z`` times the conjugate of ``grid.centre``, real parts first.
    grid : ShiftGrid
    out : (2, B, 2, A, LANES) float32, OUT
        A shift is at ``cell`` of the first four axes.
    """
    lanes = products.shape[0]
    n_x, n_a = grid.cos_x.shape
    n_rows, n_b = grid.cos_y.shape
    even = np.empty((n_rows, 2, n_a, lanes), np.float32)
    odd = np.empty((n_rows, 2, n_a, lanes), np.float32)
    with_cos = np.empty((n_x, 2, lanes), np.float32)
    with_sin = np.empty((n_x, 2, lanes), np.float32)
    cosines = np.empty((n_a, 2 * lanes), np.float32)
    sines = np.empty((n_a, 2 * lanes), np.float32)
    for row in range(n_rows):
        first = grid.row_start[row]
        n = grid.row_start[row + 1] - first
        for x in range(n):
            _fold(
                products, grid.upper[first + x], grid.lower[first + x], with_cos[x, 0], with_cos[x, 1], with_sin[x, 0], with_sin[x, 1]
            )
        np.dot(grid.cos_x[:n].T, with_cos[:n].reshape(n, 2 * lanes), cosines)
        np.dot(grid.sin_x[:n].T, with_sin[:n].reshape(n, 2 * lanes), sines)
        for a in range(n_a):
            _sum_and_difference(even[row, 1, a], even[row, 0, a], cosines[a, :lanes], sines[a, :lanes])
            _sum_and_difference(odd[row, 0, a], odd[row, 1, a], cosines[a, lanes:], sines[a, lanes:])
    width = 2 * n_a * lanes
    cosines = np.dot(grid.cos_y.T, even.reshape(n_rows, width))
    sines = np.dot(grid.sin_y.T, odd.reshape(n_rows, width))
    for b in range(n_b):
        _sum_and_difference(out[1, b].reshape(width), out[0, b].reshape(width), cosines[b], sines[b])


@_inline
def shift_sums(weights, grid, out):
    """``sum_t w_t E_tp`` of LANES sets of weights over the shifts of a grid.

    Parameters
    ----------
    weights : (2, B, 2, A, LANES) float32
        A shift is at ``cell`` of the first four axes.
    grid : ShiftGrid
    out : (LANES, 2 P) float32, OUT
        Real parts first; without the ramp of the grid's centre.
    """
    lanes, n_pixels = out.shape[0], out.shape[1] // 2
    n_x, n_a = grid.cos_x.shape
    n_rows, n_b = grid.cos_y.shape
    width = 2 * n_a * lanes
    total = np.empty((n_b, width), np.float32)
    difference = np.empty((n_b, width), np.float32)
    for b in range(n_b):
        _sum_and_difference(total[b], difference[b], weights[0, b].reshape(width), weights[1, b].reshape(width))
    even = np.dot(grid.cos_y, total).reshape(n_rows, 2, n_a, lanes)
    odd = np.dot(grid.sin_y, difference).reshape(n_rows, 2, n_a, lanes)
    with_cos = np.empty((n_a, 2, lanes), np.float32)
    with_sin = np.empty((n_a, 2, lanes), np.float32)
    cosines = np.empty((n_x, 2 * lanes), np.float32)
    sines = np.empty((n_x, 2 * lanes), np.float32)
    for row in range(n_rows):
        first = grid.row_start[row]
        n = grid.row_start[row + 1] - first
        for a in range(n_a):
            _sum_and_difference(with_cos[a, 0], with_sin[a, 1], even[row, 0, a], even[row, 1, a])
            _sum_and_difference(with_cos[a, 1], with_sin[a, 0], odd[row, 0, a], odd[row, 1, a])
        np.dot(grid.cos_x[:n], with_cos.reshape(n_a, 2 * lanes), cosines[:n])
        np.dot(grid.sin_x[:n], with_sin.reshape(n_a, 2 * lanes), sines[:n])
        for x in range(n):
            u, v = grid.upper[first + x], grid.lower[first + x]
            if u >= 0:
                for r in range(lanes):
                    out[r, u] = cosines[x, r] - sines[x, r]
                for r in range(lanes):
                    out[r, n_pixels + u] = -sines[x, lanes + r] - cosines[x, lanes + r]
            if v >= 0:
                for r in range(lanes):
                    out[r, v] = cosines[x, r] + sines[x, r]
                for r in range(lanes):
                    out[r, n_pixels + v] = cosines[x, lanes + r] - sines[x, lanes + r]
