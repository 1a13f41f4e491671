"""What fine scores and their sums share: short loops over pixels, and the choice between single samples and a matrix product."""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")

DENSE_FILL = 0.25
"""Where more than this share of (orientation, offset) pairs is wanted, a matrix product of all is cheaper."""


@_jit
def used_offsets(offset_start, offsets, first_parent, last_parent, n_coarse, column):
    """Number the coarse offsets that any of some parents uses: fill ``column`` and return their count."""
    column[:] = -1
    for j in range(offset_start[first_parent], offset_start[last_parent]):
        column[offsets[j]] = 0
    n_used = 0
    for t in range(n_coarse):
        if column[t] == 0:
            column[t] = n_used
            n_used += 1
    return n_used


@_jit
def is_dense(n_parents, n_samples, n_used, n_children):
    return n_parents * n_children >= 8 and n_samples > DENSE_FILL * n_parents * n_used


@_jit
def gather_ramps(ramps, column, n_coarse, n_over, n_used):
    """Rows of the ramps in use, (n_used * n_over, 2 P)."""
    width = 2 * ramps.shape[2]
    out = np.empty((n_used * n_over, width), np.float32)
    for t in range(n_coarse):
        if column[t] >= 0:
            for q in range(n_over):
                out[column[t] * n_over + q] = ramps[t * n_over + q].reshape(width)
    return out


@_jit
def conjugate_product(out_r, out_i, ar, ai, br, bi):
    """``out = a conj(b)``."""
    for p in range(out_r.shape[0]):
        out_r[p] = ar[p] * br[p] + ai[p] * bi[p]
    for p in range(out_r.shape[0]):
        out_i[p] = ai[p] * br[p] - ar[p] * bi[p]


@_jit
def weighted_power(w, ar, ai):
    total = np.float32(0.0)
    for p in range(w.shape[0]):
        total += w[p] * (ar[p] * ar[p] + ai[p] * ai[p])
    return total
