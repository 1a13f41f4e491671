"""What comes in: paths or volumes, checked before anything is computed; and how results are wrapped."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data import as_volume, open_volume, pixel_size_of
from cryotk.data.volumes import upright
from cryotk.errors import DataError, DataWarning, MissingFileError
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
    "open_map",
    "require_cube",
    "require_same_box",
    "values_of",
]


def name_of(x: Any, what: str = "map") -> str:
    """How messages call an input: its file, or what it is."""
    if isinstance(x, (str, os.PathLike)):
        return os.fspath(x)
    return str(getattr(x, "attrs", {}).get("source") or what)


def open_map(
    x: Any, what: str = "map", pixel_size: float | None = None, *, warn_about_one: bool = True, like: Any = None
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

    Raises
    ------
    DataError
        For stacks, values that are not finite, and maps whose pixel size nobody knows.
    """
    import xarray as xr

    if pixel_size is not None and not pixel_size > 0:
        raise DataError(f"pixel_size must be positive, not {pixel_size}: give it in Å")
    if isinstance(getattr(x, "mask", None), xr.DataArray) and not isinstance(x, xr.DataArray):
        x = x.mask  # what create_mask gives
    if isinstance(x, (str, os.PathLike)):
        x = _open_file(os.fspath(x), what, pixel_size, warn_about_one)
    elif not isinstance(x, xr.DataArray):
        if pixel_size is None:
            raise DataError(f"{what}: a plain array has no pixel size; give pixel_size= in Å")
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
        raise DataError(f"{name_of(x, what)} has no pixel size; give pixel_size= in Å")
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
    out = as_volume(data, a, name_of(x, ""))
    out.attrs = {**x.attrs, **out.attrs}
    return out


def _beside(data: Any, other: Any) -> Any:
    """The array where another one is: as it is when it is of that library."""
    if type(data) is type(other) or (is_numpy(data) and is_numpy(other)):
        return data
    backend = backend_of(other)
    host = to_numpy(data)
    return namespace(other).asarray(host) if backend is None else backend.to_device(host)


def _open_file(path: str, what: str, pixel_size: float | None, warn_about_one: bool) -> xr.DataArray:
    name = path.removesuffix(".gz").removesuffix(".bz2")
    if name.endswith((".mrcs", ".st")):
        raise DataError(f"{path} is a stack of images by its name, a volume is wanted; rename it to .mrc if it is one")
    if not Path(path).exists():
        raise MissingFileError(f"{what}: there is no file {path}")
    if name == path and pixel_size is None:
        header = read_header(path)
        if not header.pixel_size > 0:
            raise DataError(f"{path}: the header has no pixel size (0 Å); give pixel_size= in Å")
        if header.pixel_size == 1.0 and warn_about_one:
            warnings.warn(
                f"{path}: the header says exactly 1 Å, which many programs write when they do not know; give "
                "pixel_size= if that is not it",
                DataWarning, stacklevel=4,
            )  # fmt: skip
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
    """Wrap a result, with the pixel size and the past of the map it was made from."""
    a = pixel_size if pixel_size is not None else pixel_size_of(like)
    out = as_volume(data, float(a) if a else 1.0, str(like.attrs.get("source", "")))
    past = str(like.attrs.get("history", ""))
    out.attrs = {
        **{k: v for k, v in like.attrs.items() if k not in ("pixel_size", "history")},
        "pixel_size": out.attrs["pixel_size"],
    }
    if history or past:
        out.attrs["history"] = "; ".join(p for p in (past, history) if p)
    return out


def values_of(volume: xr.DataArray) -> Any:
    """Array of a volume, contiguous where compiled kernels take it."""
    backend = backend_of(volume.data)
    return volume.data if backend is None else backend.to_device(volume.data)


def on_host(volume: xr.DataArray) -> xr.DataArray:
    """The volume with a numpy array; itself when it has one."""
    return volume if is_numpy(volume.data) else volume.copy(data=to_numpy(volume.data))


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
    if mask.shape != volume.shape:
        raise DataError(
            f"the mask {name} has box {mask.shape}, the maps {volume.shape}; make one with ctk.create_mask of one of the maps"
        )
    xp = namespace(mask.data)
    low, high = float(xp.min(mask.data)), float(xp.max(mask.data))
    if low < -1e-6 or high > 1 + 1e-6:
        raise DataError(
            f"the mask {name} has values from {low:g} to {high:g}, they must be in [0, 1]; is it a map? "
            "ctk.create_mask makes a mask of it"
        )
    if high <= 0.5:
        raise DataError(f"the mask {name} is empty: its largest value is {high:g}; lower the threshold it was made with")
    fraction = fraction_inside(mask.data)
    if low >= 1:
        warnings.warn(
            f"the mask {name} is one everywhere: it masks nothing; leave it out, or lower its extent", DataWarning, stacklevel=3
        )
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
