"""What comes in: paths or volumes, checked before anything is computed; and how results are wrapped."""

from __future__ import annotations

import math
import os
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data import as_volume, open_volume, pixel_size_of
from cryotk.data.notices import warn_caller
from cryotk.data.volumes import upright
from cryotk.errors import DataError, MissingFileError, SettingsError
from cryotk.io import read_header
from cryotk.kernels.backends import backend_of
from cryotk.maps.transform import is_numpy, namespace, to_numpy

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "check_mask",
    "fraction_inside",
    "map_of",
    "mate_of",
    "name_of",
    "on_host",
    "open_like",
    "open_map",
    "require_cube",
    "require_number",
    "require_same_box",
    "require_seed",
    "values_of",
]


def name_of(x: Any, what: str = "map") -> str:
    """How messages call an input: its file, what it was made from, or what it is."""
    if isinstance(x, (str, os.PathLike)):
        return os.fspath(x)
    attrs = getattr(x, "attrs", {})
    source = str(attrs.get("source") or "")
    return f"{what} made from {source}" if source and attrs.get("history") else source or what


def open_map(
    x: Any,
    what: str = "map",
    pixel_size: float | None = None,
    *,
    warn_about_one: bool = True,
    like: Any = None,
    remedy: str = "give pixel_size= in Å",
) -> xr.DataArray:
    """Open a map given as path, DataArray or plain array, as float32 (float64 stays) with a pixel size.

    Parameters
    ----------
    x : path, DataArray, (z, y, x) array or result of ``create_mask``
    what : str
        What messages call it.
    pixel_size : float, optional
        Å; overrides what the file says.
    warn_about_one : bool
        Warn when a header says exactly 1 Å, which many programs write when they do not know.
    like : DataArray, optional
        Bring the map to where this one's array is.
    remedy : str
        What to do where nobody knows the pixel size.

    Raises
    ------
    DataError
        For stacks, values that are not finite, and maps whose pixel size nobody knows.
    """
    import xarray as xr

    if pixel_size is not None and not (isinstance(pixel_size, Real) and pixel_size > 0):
        raise DataError(f"pixel_size must be positive, not {pixel_size!r}: give it in Å")
    x = _mask_inside(x)
    if isinstance(x, (str, os.PathLike)):
        x = _open_file(os.fspath(x), what, pixel_size, warn_about_one, remedy)
    elif not isinstance(x, xr.DataArray):
        if pixel_size is None:
            raise DataError(f"{what}: a plain array has no pixel size; {remedy}")
        if getattr(x, "ndim", None) is None:
            x = np.asarray(x)
        if x.ndim != 3:
            raise DataError(f"{what}: a volume has 3 dimensions, not {x.ndim}")
        x = as_volume(x, pixel_size)
    x = upright(x)
    if "image" in x.dims or x.ndim != 3:
        raise DataError(f"{name_of(x, what)} is a stack of images, {dict(x.sizes)}; take a volume, or one image of it")
    a = pixel_size if pixel_size is not None else pixel_size_of(x)
    if a is None or not a > 0:
        raise DataError(f"{name_of(x, what)} has no pixel size; {remedy}")
    if hasattr(x.data, "dask"):
        x = x.compute()
    data = x.data if like is None else _beside(x.data, like.data)
    xp = namespace(data)
    if is_numpy(data) and not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    if data.dtype not in (xp.float32, xp.float64):
        data = xp.astype(data, xp.float32)
    _require_finite(data, name_of(x, what))
    if data is x.data and pixel_size_of(x) == a and x.attrs.get("pixel_size") == a:
        return x
    return map_of(data, x, a)


def open_like(x: Any, what: str, like: xr.DataArray, pixel_size: float | None = None) -> xr.DataArray:
    """Open a mask or second map on the grid of a map.

    Parameters
    ----------
    x : path, DataArray, array or result of ``create_mask``
    what : str
        What messages call it.
    like : DataArray
    pixel_size : float, Å, optional
        What the user gave: it overrides what both say of themselves.

    Raises
    ------
    DataError
        For a map that says another pixel size; 0 and exactly 1 say that the program which wrote it did not know.
    """
    a = pixel_size_of(like)
    own = _stated_pixel_size(x) if pixel_size is None else None
    if a and own and own != 1.0 and abs(own - a) > 1e-3 * a:
        raise DataError(
            f"{what} ({name_of(_mask_inside(x), what)}) has a pixel of {own:.4f} Å, {name_of(like)} of {a:.4f} Å; use maps of "
            "one pixel size (ctk.rescale changes it), or give pixel_size= if the headers are wrong"
        )
    return open_map(x, what, a, like=like)


def _mask_inside(x: Any) -> Any:
    """The map of what create_mask gives; anything else as it is."""
    import xarray as xr

    inner = None if isinstance(x, xr.DataArray) else getattr(x, "mask", None)
    return inner if isinstance(inner, xr.DataArray) else x


def _stated_pixel_size(x: Any) -> float | None:
    if isinstance(x, (str, os.PathLike)):
        path = os.fspath(x)
        return read_header(path).pixel_size if Path(path).is_file() and not path.endswith((".gz", ".bz2")) else None
    return pixel_size_of(_mask_inside(x))


def _beside(data: Any, other: Any) -> Any:
    """The array where another one is: as it is when it is of that library."""
    if type(data) is type(other) or (is_numpy(data) and is_numpy(other)):
        return data
    backend = backend_of(other)
    host = to_numpy(data)
    return namespace(other).asarray(host) if backend is None else backend.to_device(host)


def _open_file(path: str, what: str, pixel_size: float | None, warn_about_one: bool, remedy: str) -> xr.DataArray:
    name = path.removesuffix(".gz").removesuffix(".bz2")
    if name.endswith((".mrcs", ".st")):
        raise DataError(f"{path} is a stack of images by its name, a volume is wanted; rename it to .mrc if it is one")
    if not Path(path).exists():
        raise MissingFileError(f"{what}: there is no file {path}")
    if name == path and pixel_size is None:
        header = read_header(path)
        if not header.pixel_size > 0:
            raise DataError(f"{path}: the header has no pixel size (0 Å); {remedy}")
        if header.pixel_size == 1.0 and warn_about_one:
            warn_caller(
                f"{path}: the header says exactly 1 Å, which many programs write when they do not know; {remedy} if that is not it"
            )
    return open_volume(path, pixel_size)


def _require_finite(data: Any, name: str) -> None:
    """Refuse NaN and infinity."""
    if is_numpy(data):
        if np.isfinite(np.sum(data)):  # one pass without a temporary; a sum of finite float32 that overflows is looked at below
            return
    xp = namespace(data)
    bad = ~xp.isfinite(data)
    n = int(xp.sum(xp.astype(bad, xp.int64)))
    if n:
        at = np.unravel_index(int(xp.argmax(xp.astype(xp.reshape(bad, (-1,)), xp.int8))), data.shape)
        raise DataError(
            f"{name}: {n} voxels are not finite (NaN or infinite), the first at z, y, x = {', '.join(str(int(i)) for i in at)}; "
            "compute the map again, or replace them with xarray's fillna(0)"
        )


def map_of(data: Any, like: xr.DataArray, pixel_size: float | None = None, history: str = "") -> xr.DataArray:
    """Wrap a result, with the pixel size and the past of the map it was made from; on its grid where that is still the same."""
    own = pixel_size_of(like)
    a = pixel_size if pixel_size is not None else own
    out = as_volume(data, float(a) if a else 1.0, str(like.attrs.get("source", "")))
    past = str(like.attrs.get("history", ""))
    same_grid = a == own and out.shape == like.shape
    if same_grid and _is_elsewhere(like, out):  # a cut-out stays where it is
        out = out.assign_coords({axis: like.coords[axis] for axis in out.dims})
    lost = {"pixel_size", "history"} if same_grid else {"pixel_size", "history", "origin"}
    out.attrs = {**{k: v for k, v in like.attrs.items() if k not in lost}, "pixel_size": out.attrs["pixel_size"]}
    if history or past:
        out.attrs["history"] = "; ".join(p for p in (past, history) if p)
    return out


def _is_elsewhere(volume: xr.DataArray, centred: xr.DataArray) -> bool:
    here, there = volume.coords.variables, centred.coords.variables
    if any(axis not in here for axis in centred.dims):
        return False
    return not all(np.array_equal(here[axis].values, there[axis].values) for axis in centred.dims)


def values_of(volume: xr.DataArray) -> Any:
    """Array of a volume, contiguous where compiled kernels take it."""
    backend = backend_of(volume.data)
    return volume.data if backend is None else backend.to_device(volume.data)


def on_host(volume: xr.DataArray) -> xr.DataArray:
    """The volume with a numpy array; itself when it has one."""
    return volume if is_numpy(volume.data) else volume.copy(data=to_numpy(volume.data))


def require_number(name: str, value: Any, unit: str = "", *, positive: bool = False) -> None:
    """Refuse what is no finite number, or not above zero.

    Raises
    ------
    SettingsError
    """
    unit = f", in {unit}" if unit else ""
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(float(value)):
        raise SettingsError(f"{name} must be a number{unit}, not {value!r}")
    if positive and not float(value) > 0:
        raise SettingsError(f"{name} must be positive{unit}, not {value}")


def require_seed(seed: Any) -> None:
    """Refuse what random numbers cannot start from.

    Raises
    ------
    SettingsError
    """
    if not isinstance(seed, Integral) or seed < 0:
        raise SettingsError(f"seed must be a whole number from 0 on, not {seed!r}")


def require_cube(volume: xr.DataArray, what: str = "map") -> int:
    """Box of a cube.

    Raises
    ------
    DataError
        For maps that are none.
    """
    if len(set(volume.shape)) != 1:
        raise DataError(
            f"{name_of(volume, what)}: the map must be a cube, not {volume.shape}; pad or cut it with ctk.rebox(volume, n)"
        )
    return int(volume.shape[0])


def require_same_box(a: xr.DataArray, b: xr.DataArray, what_a: str, what_b: str, *, pixel_size: bool = True) -> None:
    """Refuse maps of different boxes or pixel sizes."""
    if a.shape != b.shape:
        raise DataError(
            f"{what_a} ({name_of(a, what_a)}) has box {a.shape}, {what_b} ({name_of(b, what_b)}) {b.shape}; use maps of one box: "
            "ctk.rescale and ctk.rebox change it"
        )
    pa, pb = pixel_size_of(a), pixel_size_of(b)
    if pixel_size and pa and pb and abs(pa - pb) > 1e-3 * pa:
        raise DataError(
            f"{what_a} ({name_of(a, what_a)}) has a pixel of {pa:.4f} Å, {what_b} ({name_of(b, what_b)}) of {pb:.4f} Å; "
            "use maps of one pixel size, or give pixel_size= if the headers are wrong"
        )


def fraction_inside(mask: Any) -> float:
    """Fraction of voxels above 0.5."""
    if is_numpy(mask):
        return float(np.count_nonzero(mask > 0.5)) / mask.size
    xp = namespace(mask)
    return float(xp.mean(xp.astype(mask > 0.5, xp.float64)))


def check_mask(mask: xr.DataArray, volume: xr.DataArray) -> float:
    """Check that a mask fits and can be one; returns the fraction of voxels above 0.5.

    Raises
    ------
    DataError
        For another box, values outside [0, 1], or nothing inside.
    """
    name = name_of(mask, "mask")
    name = f"the {name}" if name.startswith("mask") else f"the mask {name}"
    if mask.shape != volume.shape:
        raise DataError(
            f"{name} has box {mask.shape}, the maps {volume.shape}; make one with ctk.create_mask of one of the maps"
        )
    xp = namespace(mask.data)
    low, high = float(xp.min(mask.data)), float(xp.max(mask.data))
    if low < -1e-6 or high > 1 + 1e-6:
        raise DataError(
            f"{name} has values from {low:g} to {high:g}, they must be in [0, 1]; is it a map? "
            "ctk.create_mask makes a mask of it"
        )
    if high <= 0.5:
        raise DataError(f"{name} is empty: its largest value is {high:g}; lower the threshold it was made with")
    fraction = fraction_inside(mask.data)
    if low > 0.5:
        found = "one everywhere" if low >= 1 else f"{low:.4g} to {high:.4g} everywhere"
        warn_caller(f"{name} is {found}: it masks nothing; leave it out, or lower its extent")
    return fraction


def mate_of(path: str | os.PathLike[str]) -> Path:
    """The other half-map's file: ``half1`` in the name becomes ``half2``, and the other way round.

    Raises
    ------
    DataError
        For a name without either.
    MissingFileError
        When there is no such file.
    """
    p = Path(path)
    for here, there in (("half1", "half2"), ("half2", "half1")):
        if here in p.name:
            mate = p.with_name(p.name.replace(here, there))
            if not mate.exists():
                raise MissingFileError(f"{p}: its other half {mate} is not there; give it as half2=")
            return mate
    raise DataError(f"{p}: the name has neither half1 nor half2, so the other half cannot be found; give it as half2=")
