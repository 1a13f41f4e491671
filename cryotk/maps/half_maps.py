"""Two half-maps: the second found by name, both of one box and pixel size."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cryotk.data import pixel_size_of
from cryotk.errors import DataError
from cryotk.maps.inputs import mate_of, open_map, require_cube, require_same_box

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["open_half_maps"]


def open_half_maps(half1: Any, half2: Any = None, pixel_size: float | None = None) -> tuple[xr.DataArray, xr.DataArray]:
    """Open both halves; the second is found by name when the first is a file.

    Raises
    ------
    DataError, MissingFileError
        When the second cannot be found, or they do not fit each other.
    """
    if half2 is None:
        if not isinstance(half1, (str, os.PathLike)):
            raise DataError("the other half-map is missing: give half2= (it is found by name only when half1 is a file)")
        half2 = mate_of(half1)
    one = open_map(half1, "half1", pixel_size)
    two = open_map(half2, "half2", pixel_size, warn_about_one=False, like=one)
    require_same_box(one, two, "half1", "half2")
    require_cube(one, "half1")
    a = pixel_size_of(one)
    if a is not None and pixel_size_of(two) != a:  # headers may differ in the last digit
        two = open_map(two, "half2", a)
    return one, two
