"""What fine scores and their sums share: short loops over pixels."""

from __future__ import annotations

import numba
import numpy as np

# see shift_grid.py
_inline = numba.njit(
    nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy", inline="always"
)

@_inline
def conjugate_product(out_r, out_i, ar, ai, br, bi):
    """``out = a conj(b)``."""
    for p in range(out_r.shape[0]):
        out_r[p] = ar[p] * br[p] + ai[p] * bi[p]
    for p in range(out_r.shape[0]):
        out_i[p] = ai[p] * br[p] - ar[p] * bi[p]


@_inline
def weighted_power(w, ar, ai):
    total = np.float32(0.0)
    for p in range(w.shape[0]):
        total += w[p] * (ar[p] * ar[p] + ai[p] * ai[p])
    return total
