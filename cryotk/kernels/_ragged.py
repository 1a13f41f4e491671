"""What fine scores and their sums share: the shifts of a parent as positions in tables."""

from __future__ import annotations

import numba
import numpy as np

from cryotk.kernels.shift_grid import LANES

# see shift_grid.py
_inline = numba.njit(
    nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy", inline="always"
)

@_inline
def list_shifts(offset_start, offsets, low, high, n_over, cell, places):
    """Where the shifts of some parents are in a table of all shifts, row 0; one parent's after the other's."""
    count = np.uint64(0)
    for j in range(np.uint64(offset_start[low]), np.uint64(offset_start[high])):
        shift = np.uint64(offsets[j] * n_over)
        for q in range(np.uint64(n_over)):
            places[count] = cell[shift + q] * LANES
            count += np.uint64(1)


@_inline
def list_priors(offset_start, offsets, low, high, n_over, log_prior_offset, i, parent_class, priors):
    """Prior of each of these shifts for image ``i``, in the same order."""
    count = np.uint64(0)
    per_class = log_prior_offset.shape[1] > 1
    for a in range(low, high):
        k = parent_class[a] if per_class else 0
        for j in range(np.uint64(offset_start[a]), np.uint64(offset_start[a + 1])):
            prior = log_prior_offset[i, k, offsets[j]]
            for _q in range(n_over):
                priors[count] = prior
                count += np.uint64(1)
