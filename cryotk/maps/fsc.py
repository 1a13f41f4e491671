"""Fourier shell correlation of two maps: halves of one refinement, or a map and a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.errors import DataError, SettingsError
from cryotk.maps.curves import fsc_from_sums
from cryotk.maps.inputs import check_mask, open_like, open_map, values_of
from cryotk.maps.transform import cross_sums, forward, namespace, plane_sums

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["fsc"]


def fsc(a: Any, b: Any, mask: Any = None, compat: str | None = None, pixel_size: float | None = None) -> xr.DataArray:
    """Fourier shell correlation of two maps; on the array module of the maps.

    Parameters
    ----------
    a, b : DataArray, path or array
        Two half-maps, or a map and one calculated from a model; of one box and pixel size.
    mask : DataArray, path, array or result of create_mask, optional
        Multiplied with both; 0 to 1.
    compat : {None, "relion"}
        ``"relion"`` counts the coefficients of the plane kx = 0 as often as the others, as RELION's programs do.
    pixel_size : float, Å, optional
        Overrides what maps and mask say.

    Returns
    -------
    xarray.DataArray
        Over ``shell`` with coordinate ``frequency`` (1/Å); attributes ``resolution_0143`` and ``resolution_05`` in Å, where the
        curve first falls below (infinite when at once, the box's Nyquist limit when never). Half-maps of one refinement are read at
        0.143, a map against a model at 0.5.

    Raises
    ------
    DataError
        For maps that do not fit each other.
    """
    import xarray as xr

    if compat not in (None, "relion"):
        raise SettingsError(f"compat must be None or 'relion', not {compat!r}")
    x = open_map(a, "first map", pixel_size)
    y = open_map(b, "second map", pixel_size, warn_about_one=False, like=x)
    if x.shape != y.shape:
        raise DataError(f"maps have different boxes: {x.shape} and {y.shape}; bring them to one with ctk.rescale and ctk.rebox")
    if len(set(x.shape)) != 1:
        raise DataError(f"maps must be cubes, not {x.shape}; pad or cut them with ctk.rebox")
    pa, pb = float(x.attrs["pixel_size"]), float(y.attrs["pixel_size"])
    if abs(pa - pb) > 1e-3 * pa:
        raise DataError(
            f"maps have different pixel sizes: {pa:.4f} and {pb:.4f} Å; bring them to one with ctk.rescale, "
            "or give pixel_size= if the headers are wrong"
        )
    m = None
    if mask is not None:
        mask_map = open_like(mask, "mask", x, pixel_size)
        check_mask(mask_map, x)
        m = values_of(mask_map)
    xv, yv = values_of(x), values_of(y)
    xp = namespace(xv, yv)
    # a model's map may have no noise at all: double precision keeps its far shells
    fa, fb = forward(xp.astype(xv, xp.float64), m), forward(xp.astype(yv, xp.float64), m)
    sums = cross_sums(fa, fb)
    if compat is None:
        sums = 2 * sums - plane_sums(fa, fb)
    curve = fsc_from_sums(sums)
    n = x.shape[-1]
    shells = np.arange(len(curve))
    attrs = {f"resolution_{name}": _crossing(curve, level, n * pa) for name, level in (("0143", 0.143), ("05", 0.5))}
    return xr.DataArray(
        curve,
        dims=("shell",),
        coords={"shell": shells, "frequency": ("shell", shells / (n * pa), {"units": "1/Å"})},
        name="fsc",
        attrs={**attrs, "pixel_size": pa, "box_size": n},
    )


def _crossing(curve: np.ndarray, level: float, extent: float) -> float:
    """Resolution of the last shell before the curve falls below a level."""
    below = np.nonzero(curve[1:] < level)[0]
    last = int(below[0]) if len(below) else len(curve) - 1
    return extent / last if last > 0 else float("inf")
