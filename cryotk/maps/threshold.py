"""A threshold for a mask, from the map alone or from the particle's mass, with the reason in words."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cryotk.errors import DataError
from cryotk.maps import gains
from cryotk.maps.inputs import open_map, require_cube, require_number, values_of
from cryotk.maps.transform import filtered, namespace, to_numpy

__all__ = ["SuggestedThreshold", "suggest_threshold"]

_VOLUME_PER_DALTON = 1.21  # Å^3, partial specific volume 0.73 ml/g
_RARE = 1e-4


class SuggestedThreshold(NamedTuple):
    """A threshold and why."""

    threshold: float
    reason: str


def suggest_threshold(
    volume: Any, molecular_weight: float | None = None, lowpass: float | None = 15.0, pixel_size: float | None = None
) -> SuggestedThreshold:
    """Suggest a threshold for :func:`cryotk.create_mask`.

    With a molecular weight: the one that encloses 1.21 Å^3 per Da. Without: noise and ripples go as far up as down, and only they
    go down; so as far above the solvent (the most frequent density) as the lowest 0.01 % of the voxels lie below it, but between
    5 % and half of the density that only one voxel in a thousand exceeds.

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
        data = filtered(data, gains.lowpass_gain(n, a, lowpass))
    xp = namespace(data)
    flat = xp.reshape(data, (-1,))
    count = int(flat.shape[0])
    if molecular_weight is not None:
        require_number("molecular_weight", molecular_weight, "kDa", positive=True)
        voxels = round(1000 * molecular_weight * _VOLUME_PER_DALTON / a**3)
        if not 0 < voxels < count:
            raise DataError(
                f"{molecular_weight:g} kDa fill {voxels} voxels of {a:.3g} Å at 1.21 Å³ per Da, the box has "
                f"{count}; is the weight in kDa, the pixel size right?"
            )
        at = count - voxels
        level = float(np.partition(flat, at)[at] if isinstance(flat, np.ndarray) else xp.sort(flat)[at])
        return SuggestedThreshold(level, f"encloses {molecular_weight:g} kDa at 1.21 Å³ per Da")
    # a sample is enough: every suggestion is a quantile
    sample = np.sort(to_numpy(flat[:: max(1, count // 2_000_000)]))
    if sample[0] == sample[-1]:
        raise DataError(f"the map has one value everywhere ({sample[0]:g}): there is nothing to mask")
    mode = _mode(sample)
    strong = float(sample[int(0.999 * (len(sample) - 1))])
    reach = mode - float(sample[int(_RARE * (len(sample) - 1))])
    level, low, high = mode + reach, mode + 0.05 * (strong - mode), mode + 0.5 * (strong - mode)
    if level > high:
        return SuggestedThreshold(high, "half of the strongest density; noise and ripples reach as far: look at the mask")
    if level < low:
        return SuggestedThreshold(low, "5 % of the strongest density; the solvent is nearly empty")
    return SuggestedThreshold(level, f"as far above the solvent's {mode:.3g} as noise and ripples go below it, {reach:.3g}")


def _mode(sample: np.ndarray) -> float:
    """Most frequent value of a sorted sample: middle of the shortest interval that holds a fifth of it."""
    m = max(2, len(sample) // 5)
    widths = sample[m - 1 :] - sample[: len(sample) - m + 1]
    at = int(np.argmin(widths))
    return float(sample[at + m // 2])

