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

from cryotk.kernels._emit import WIDE
from cryotk.kernels._shift_vectors import sum_and_difference, transpose_tile

__all__ = ["LANES", "ShiftGrid", "make_shift_grid", "pays", "row_width", "shift_scores", "shift_sums"]

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
def pays(n_chunks, n_children, n_samples):
    """Whether tables of all shifts, for ``n_chunks`` times LANES rows, are cheaper than tiles of ``n_samples`` fine samples."""
    # measured: of more children a tile reads less
    per_row = 40 if n_children >= 4 else 26
    return n_children <= LANES and n_samples > per_row * LANES * n_chunks


@_inline
def row_width(n_pixels):
    """Numbers that a row of products or sums takes: its 2 P and what fills the last vector."""
    return (2 * n_pixels + WIDE - 1) // WIDE * WIDE


@_inline
def _transpose(source, n_rows, n_columns, out):
    for i in range(np.uint64(0), np.uint64(n_rows), np.uint64(WIDE)):
        for j in range(np.uint64(0), np.uint64(n_columns), np.uint64(WIDE)):
            transpose_tile(
                source, i * np.uint64(n_columns) + j, np.uint64(n_columns), out, j * np.uint64(n_rows) + i, np.uint64(n_rows)
            )


@_inline
def shift_scores(products, grid, turned, out):
    """``Re sum_p Z_p conj(E_tp)`` of LANES products with every shift of a grid.

    Parameters
    ----------
    products : (LANES, W) float32
        ``Z`` times the conjugate of ``grid.centre``, real parts first, in rows of :func:`row_width`.
    grid : ShiftGrid
    turned : (W, LANES) float32
        Room to work in.
    out : (2, B, 2, A, LANES) float32, OUT
        A shift is at ``cell`` of the first four axes.
    """
    n_x, n_a = grid.cos_x.shape
    n_rows, n_b = grid.cos_y.shape
    lanes, imaginary = np.uint64(LANES), np.uint64(grid.centre.shape[1] * LANES)
    _transpose(products.reshape(products.size), products.shape[0], products.shape[1], turned.reshape(turned.size))
    z, flat_out = turned.reshape(turned.size), out.reshape(out.size)
    even = np.empty((n_rows, 2, n_a, LANES), np.float32)
    odd = np.empty((n_rows, 2, n_a, LANES), np.float32)
    flat_even, flat_odd = even.reshape(even.size), odd.reshape(odd.size)
    with_cos = np.empty((n_x, 2 * LANES), np.float32)
    with_sin = np.empty((n_x, 2 * LANES), np.float32)
    c, s = with_cos.reshape(with_cos.size), with_sin.reshape(with_sin.size)
    cosines = np.empty((n_a, 2 * LANES), np.float32)
    sines = np.empty((n_a, 2 * LANES), np.float32)
    flat_cosines, flat_sines = cosines.reshape(cosines.size), sines.reshape(sines.size)
    for row in range(n_rows):
        first = grid.row_start[row]
        n = grid.row_start[row + 1] - first
        for x in range(n):
            # pixels u and v, at +ky and -ky, are folded; one of them may be missing
            u, v = grid.upper[first + x], grid.lower[first + x]
            at = np.uint64(2 * x * LANES)
            if u >= 0 and v >= 0:
                i, j = np.uint64(u) * lanes, np.uint64(v) * lanes
                sum_and_difference(c, at, s, at + lanes, z, i, z, j, lanes)
                sum_and_difference(s, at, c, at + lanes, z, i + imaginary, z, j + imaginary, lanes)
            else:
                sign = np.float32(1.0 if u >= 0 else -1.0)
                i = np.uint64(max(u, v)) * lanes
                for r in range(lanes):
                    c[at + r] = z[i + r]
                    s[at + lanes + r] = sign * z[i + r]
                for r in range(lanes):
                    s[at + r] = z[i + imaginary + r]
                    c[at + lanes + r] = sign * z[i + imaginary + r]
        np.dot(grid.cos_x[:n].T, with_cos[:n], cosines)
        np.dot(grid.sin_x[:n].T, with_sin[:n], sines)
        for a in range(n_a):
            i = np.uint64(2 * a) * lanes
            plus, minus = np.uint64((2 * row + 1) * n_a + a) * lanes, np.uint64(2 * row * n_a + a) * lanes
            sum_and_difference(flat_even, plus, flat_even, minus, flat_cosines, i, flat_sines, i, lanes)
            i += lanes
            sum_and_difference(flat_odd, minus, flat_odd, plus, flat_cosines, i, flat_sines, i, lanes)
    width = 2 * n_a * LANES
    cosines = np.dot(grid.cos_y.T, even.reshape(n_rows, width))
    sines = np.dot(grid.sin_y.T, odd.reshape(n_rows, width))
    n = np.uint64(n_b * width)
    sum_and_difference(
        flat_out, n, flat_out, np.uint64(0), cosines.reshape(cosines.size), np.uint64(0), sines.reshape(sines.size), np.uint64(0), n
    )


@_inline
def shift_sums(weights, grid, turned, out):
    """``sum_t w_t E_tp`` of LANES sets of weights over the shifts of a grid.

    Parameters
    ----------
    weights : (2, B, 2, A, LANES) float32
        A shift is at ``cell`` of the first four axes.
    grid : ShiftGrid
    turned : (W, LANES) float32
        Room to work in.
    out : (LANES, W) float32, OUT
        Real parts first, in rows of :func:`row_width`; without the ramp of the grid's centre.
    """
    n_x, n_a = grid.cos_x.shape
    n_rows, n_b = grid.cos_y.shape
    lanes, imaginary = np.uint64(LANES), np.uint64(grid.centre.shape[1] * LANES)
    width = 2 * n_a * LANES
    total = np.empty((n_b, width), np.float32)
    difference = np.empty((n_b, width), np.float32)
    flat, z, n = weights.reshape(weights.size), turned.reshape(turned.size), np.uint64(n_b * width)
    sum_and_difference(total.reshape(total.size), np.uint64(0), difference.reshape(total.size), np.uint64(0), flat, np.uint64(0), flat, n, n)
    even = np.dot(grid.cos_y, total)
    odd = np.dot(grid.sin_y, difference)
    flat_even, flat_odd = even.reshape(even.size), odd.reshape(odd.size)
    with_cos = np.empty((n_a, 2 * LANES), np.float32)
    with_sin = np.empty((n_a, 2 * LANES), np.float32)
    flat_cos, flat_sin = with_cos.reshape(with_cos.size), with_sin.reshape(with_sin.size)
    cosines = np.empty((n_x, 2 * LANES), np.float32)
    sines = np.empty((n_x, 2 * LANES), np.float32)
    c, s = cosines.reshape(cosines.size), sines.reshape(sines.size)
    for row in range(n_rows):
        first = grid.row_start[row]
        n_columns = grid.row_start[row + 1] - first
        for a in range(n_a):
            at = np.uint64(2 * a) * lanes
            i, j = np.uint64(2 * row * n_a + a) * lanes, np.uint64((2 * row + 1) * n_a + a) * lanes
            sum_and_difference(flat_cos, at, flat_sin, at + lanes, flat_even, i, flat_even, j, lanes)
            sum_and_difference(flat_cos, at + lanes, flat_sin, at, flat_odd, i, flat_odd, j, lanes)
        np.dot(grid.cos_x[:n_columns], with_cos, cosines[:n_columns])
        np.dot(grid.sin_x[:n_columns], with_sin, sines[:n_columns])
        for x in range(n_columns):
            u, v = grid.upper[first + x], grid.lower[first + x]
            i = np.uint64(2 * x) * lanes
            k = i + lanes
            if u >= 0:
                at = np.uint64(u) * lanes
                for r in range(lanes):
                    z[at + r] = c[i + r] - s[i + r]
                at += imaginary
                for r in range(lanes):
                    z[at + r] = -s[k + r] - c[k + r]
            if v >= 0:
                at = np.uint64(v) * lanes
                for r in range(lanes):
                    z[at + r] = c[i + r] + s[i + r]
                at += imaginary
                for r in range(lanes):
                    z[at + r] = c[k + r] - s[k + r]
    _transpose(z, turned.shape[0], turned.shape[1], out.reshape(out.size))
