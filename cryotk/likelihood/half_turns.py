"""Orientations of a list that another one equals but for a turn of 180 degrees in the plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryotk.kernels.backends import Backend
from cryotk.kernels.half_turns import fold_rows

__all__ = ["fold_half_turns", "half_turns"]


def half_turns(keys: np.ndarray, n_psi: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Orientations that another one of the list equals but for a turn of 180 degrees in the plane.

    Parameters
    ----------
    keys : (n,) int
        Orientations, psi fastest, ascending.
    n_psi : int
        Even.

    Returns
    -------
    upper, partner, left : int arrays
        Positions with a partner, their partners, and all but the first.
    """
    half = n_psi // 2
    upper = np.nonzero(keys % n_psi >= half)[0]
    partner = np.searchsorted(keys, keys[upper] - half)
    there = keys[partner] == keys[upper] - half
    left = np.ones(len(keys), bool)
    left[upper[there]] = False
    return upper[there], partner[there], np.nonzero(left)[0]


def fold_half_turns(rows: Any, row_weights: Any, upper: np.ndarray, partner: np.ndarray, backend: Backend) -> None:
    """Add rows of psi + 180 to those of psi, conjugated, and take their weight: the same points of the transform, inserted once.

    Parameters
    ----------
    rows, row_weights : (n, C, 2, P), (n, C, P) float32, IN and OUT
    upper, partner : (m,) int
        See :func:`half_turns`.
    backend : Backend
        Whose arrays rows are.
    """
    if not backend.on_device:
        fold_rows(rows, row_weights, upper, partner)
        return
    above, below = backend.to_device(upper), backend.to_device(partner)
    rows[below, :, 0] += rows[above, :, 0]
    rows[below, :, 1] -= rows[above, :, 1]
    row_weights[below] += row_weights[above]
    row_weights[above] = 0
