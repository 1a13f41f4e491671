"""Orientations that differ by a turn of 180 degrees in the plane: their slices are conjugates, their rows meet in the same points."""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["conjugate_slices", "fold_rows"]

_jit = numba.njit(nogil=True, cache=True)


@_jit
def conjugate_slices(slices, upper, partner):
    """Fill slices of psi + 180 with the conjugates of those of psi.

    Parameters
    ----------
    slices : (n, C, 2, P) float32, IN and OUT
    upper, partner : (m,) int64
        Which are filled, and from which.
    """
    for i in range(upper.shape[0]):
        there, here = slices[upper[i]], slices[partner[i]]
        for c in range(slices.shape[1]):
            for p in range(slices.shape[3]):
                there[c, 0, p] = here[c, 0, p]
                there[c, 1, p] = -here[c, 1, p]


@_jit
def fold_rows(rows, row_weights, upper, partner):
    """Add rows of psi + 180, conjugated, to those of psi, and set their weights to 0: the same points are inserted once.

    Parameters
    ----------
    rows, row_weights : (n, C, 2, P), (n, C, P) float32, IN and OUT
    upper, partner : (m,) int64
    """
    zero = np.float32(0.0)
    for i in range(upper.shape[0]):
        there, here = rows[upper[i]], rows[partner[i]]
        own, other = row_weights[partner[i]], row_weights[upper[i]]
        for c in range(rows.shape[1]):
            for p in range(rows.shape[3]):
                here[c, 0, p] += there[c, 0, p]
                here[c, 1, p] -= there[c, 1, p]
                own[c, p] += other[c, p]
                other[c, p] = zero
