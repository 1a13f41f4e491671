"""Squared distance of every voxel to the nearest voxel of a set, exact up to a cap, one axis after the other.

Only a band around the set matters for masks, so each axis looks ``cap`` voxels to both sides, whole rows at a time. Distances are
integers; what is farther than the cap is at least ``far``.
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=True)


def integer_type(cap):
    """Smallest integer type that holds the distances of a cap, and its value for "far"."""
    return (np.uint16, 40_000) if cap <= 100 else (np.int32, 1_000_000_000)


def squared_distance_numpy(inside, cap, xp=np):
    """Twin of the two kernels for whole volumes of any array library.

    Parameters
    ----------
    inside : (z, y, x) bool
    cap : int

    Returns
    -------
    (z, y, x) int32
    """
    far = integer_type(cap)[1]
    out = xp.where(inside, xp.asarray(0, dtype=xp.int32), xp.asarray(far, dtype=xp.int32))
    for axis in (2, 1, 0):
        n = out.shape[axis]
        source, best = out, out + 0
        for d in range(1, min(cap, n - 1) + 1):
            low = tuple(slice(None, n - d) if i == axis else slice(None) for i in range(3))
            high = tuple(slice(d, None) if i == axis else slice(None) for i in range(3))
            for target, origin in ((low, high), (high, low)):
                candidate, now = source[origin] + d * d, best[target]
                best[target] = xp.where(candidate < now, candidate, now)
        out = best
    return xp.where(out > far, xp.asarray(far, dtype=xp.int32), out)


@_jit
def _nearest_in_rows(source, squares, cap, used, out):
    """Lower envelope over neighbouring rows: ``out[i] = min_j source[j] + (i - j)^2``."""
    n, width = source.shape
    for i in range(n):
        for x in range(width):
            out[i, x] = source[i, x]
        for d in range(1, cap + 1):
            for side in range(2):
                j = i - d if side == 0 else i + d
                if j < 0 or j >= n or not used[j]:
                    continue
                square = squares[d]
                for x in range(width):
                    v = source[j, x] + square
                    if v < out[i, x]:
                        out[i, x] = v


@_jit
def distance_in_planes(inside, cap, far, first, last, out):
    """Squared distances within planes ``first`` to ``last - 1``.

    Parameters
    ----------
    inside : (z, y, x) uint8
    cap, far : int
    first, last : int
    out : (z, y, x) integer, OUT
    """
    _, n_y, n_x = inside.shape
    plane = np.empty((n_y, n_x), out.dtype)
    used = np.zeros(n_y, np.bool_)
    squares = np.zeros(cap + 1, out.dtype)
    for d in range(cap + 1):
        squares[d] = d * d
    for z in range(first, last):
        for y in range(n_y):
            any_inside = False
            for x in range(n_x):
                any_inside |= inside[z, y, x] != 0
            used[y] = any_inside
            if not any_inside:
                for x in range(n_x):
                    plane[y, x] = far
                continue
            d = cap + 1
            for x in range(n_x):
                d = 0 if inside[z, y, x] else d + 1
                plane[y, x] = d * d if d <= cap else far
            d = cap + 1
            for x in range(n_x - 1, -1, -1):
                d = 0 if inside[z, y, x] else d + 1
                if d <= cap and d * d < plane[y, x]:
                    plane[y, x] = d * d
        _nearest_in_rows(plane, squares, cap, used, out[z])


@_jit
def distance_across_planes(distance, cap, far, first, last):
    """Finish squared distances along z, for rows ``first`` to ``last - 1`` of every plane, in place.

    Parameters
    ----------
    distance : (z, y, x) integer, IN and OUT
        Of :func:`distance_in_planes`.
    """
    n_z, _, n_x = distance.shape
    source = np.empty((n_z, n_x), distance.dtype)
    out = np.empty((n_z, n_x), distance.dtype)
    used = np.zeros(n_z, np.bool_)
    squares = np.zeros(cap + 1, distance.dtype)
    for d in range(cap + 1):
        squares[d] = d * d
    for y in range(first, last):
        for z in range(n_z):
            near = False
            for x in range(n_x):
                source[z, x] = distance[z, y, x]
                near |= source[z, x] < far
            used[z] = near
        _nearest_in_rows(source, squares, cap, used, out)
        for z in range(n_z):
            for x in range(n_x):
                distance[z, y, x] = out[z, x]


@_jit
def look_up(distance, table, first, last, out):
    """``out = table[min(distance, len(table) - 1)]`` for some planes.

    Parameters
    ----------
    distance : (z, y, x) integer
    table : (m,)
    out : (z, y, x), OUT
    """
    top = len(table) - 1
    _, n_y, n_x = distance.shape
    for z in range(first, last):
        for y in range(n_y):
            for x in range(n_x):
                d = distance[z, y, x]
                out[z, y, x] = table[d if d < top else top]
