"""A threshold for a mask, from the map alone or from the particle's mass, with the reason in words."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cryotk.errors import DataError, SettingsError
from cryotk.maps import gains
from cryotk.maps.inputs import open_map, require_cube, values_of
from cryotk.maps.transform import apply_gain, forward, inverse, namespace

__all__ = ["SuggestedThreshold", "suggest_threshold"]

_VOLUME_PER_DALTON = 1.21  # Å^3, partial specific volume 0.73 ml/g
_SIGMAS = 5.0


class SuggestedThreshold(NamedTuple):
    """A threshold and why."""

    threshold: float
    reason: str


def suggest_threshold(
    volume: Any, molecular_weight: float | None = None, lowpass: float | None = 15.0, pixel_size: float | None = None
) -> SuggestedThreshold:
    """Suggest a threshold for :func:`cryotk.create_mask`.

    With a molecular weight: the one that encloses 1.21 Å^3 per Da. Without: the solvent's level and spread are taken from the
    histogram's lower side, where there is no particle (density below the most frequent value, mirrored); the suggestion is
    five spreads above it, but not above half of the density that only one voxel in a thousand exceeds, so that a nearly
    noise-free map is not cut at nothing.

    Parameters
    ----------
    volume : path, DataArray or array
    molecular_weight : float, kDa, optional
    lowpass : float, Å, optional
        Applied first; None when the map is already low-passed.
    pixel_size : float, Å, optional

    Returns
    -------
    SuggestedThreshold
        ``threshold, reason``.
    """
    v = open_map(volume, "map", pixel_size)
    a = float(v.attrs["pixel_size"])
    data = values_of(v)
    if lowpass:
        n = require_cube(v, "map")
        data = inverse(apply_gain(forward(data), gains.lowpass_gain(n, a, lowpass), overwrite=True), n, overwrite=True)
    xp = namespace(data)
    flat = xp.reshape(data, (-1,))
    count = int(flat.shape[0])
    if molecular_weight is not None:
        if not molecular_weight > 0:
            raise SettingsError(f"molecular_weight must be positive, in kDa, not {molecular_weight}")
        voxels = round(1000 * molecular_weight * _VOLUME_PER_DALTON / a**3)
        if not 0 < voxels < count:
            raise DataError(
                f"{molecular_weight:g} kDa fill {voxels} voxels of {a:.3g} Å at 1.21 Å³ per Da, the box has "
                f"{count}; is the weight in kDa, the pixel size right?"
            )
        level = float(xp.sort(flat)[count - voxels])
        return SuggestedThreshold(level, f"encloses {molecular_weight:g} kDa at 1.21 Å³ per Da")
    # a sample is enough: every suggestion is a quantile
    sample = np.sort(_host(flat[:: max(1, count // 2_000_000)]))
    if sample[0] == sample[-1]:
        raise DataError(f"the map has one value everywhere ({sample[0]:g}): there is nothing to mask")
    mode = _mode(sample)
    below = mode - sample[sample < mode]
    spread = 1.4826 * float(np.median(below)) if len(below) else 0.0
    strong = float(sample[int(0.999 * (len(sample) - 1))])
    level, limit = mode + _SIGMAS * spread, mode + 0.5 * (strong - mode)
    if level >= limit:
        return SuggestedThreshold(
            limit, "half of the strongest density; the solvent is too noisy for five standard deviations: look at it"
        )
    floor = mode + 0.05 * (strong - mode)
    if level < floor:
        return SuggestedThreshold(floor, "5 % of the strongest density; the solvent is nearly empty")
    return SuggestedThreshold(level, f"solvent {mode:.3g} plus {_SIGMAS:g} of its standard deviations of {spread:.3g}")


def _mode(sample: np.ndarray) -> float:
    """Most frequent value of a sorted sample: middle of the shortest interval that holds a fifth of it."""
    m = max(2, len(sample) // 5)
    widths = sample[m - 1 :] - sample[: len(sample) - m + 1]
    at = int(np.argmin(widths))
    return float(sample[at + m // 2])


def _host(x: Any) -> np.ndarray:
    return np.asarray(x.get() if hasattr(x, "get") else x)
