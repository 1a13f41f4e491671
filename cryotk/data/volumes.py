"""Volumes and stacks: DataArrays with coordinates in Å."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data.lazy_images import lazy_images
from cryotk.data.notices import warn_caller
from cryotk.errors import DataError
from cryotk.io.mrc import MrcHeader, read_header, read_images, read_mrc, write_mrc

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["as_volume", "open_stack", "open_volume", "pixel_size_of", "pixels_to_write", "upright", "write_stack", "write_volume"]


def _coordinates(shape: tuple[int, ...], axes: tuple[str, ...], pixel_size: float) -> dict[str, Any]:
    return {a: (a, (np.arange(n) - n // 2) * pixel_size, {"units": "Å"}) for a, n in zip(axes, shape, strict=True)}


def as_volume(array: Any, pixel_size: float, source: str = "") -> xr.DataArray:
    """Wrap a (z, y, x) array as a volume, centre at index n // 2.

    Parameters
    ----------
    array : (z, y, x) array
        Density; arrays of other libraries stay what they are.
    pixel_size : float
        Å.
    source : str
        Where it came from.
    """
    # cupy says what it is by the second alone
    is_array = hasattr(array, "__array_namespace__") or hasattr(array, "__array_function__")
    array = upright(array)
    data = array if is_array else np.asarray(array)
    if data.ndim != 3:
        raise DataError(f"a volume has 3 dimensions, not {data.ndim}")
    out = _empty_volume(tuple(data.shape), float(pixel_size)).copy(deep=False, data=data)
    out.attrs = {"pixel_size": float(pixel_size), "source": source}
    return out


@lru_cache(maxsize=16)
def _empty_volume(shape: tuple[int, ...], pixel_size: float) -> xr.DataArray:
    """A volume without memory, whose coordinates others copy: making them anew costs as much as filtering a small map."""
    import xarray as xr

    axes = ("z", "y", "x")
    zeros = np.broadcast_to(np.float32(0), shape)
    out = xr.DataArray(zeros, dims=axes, coords=_coordinates(shape, axes, pixel_size), name="density")
    for axis in axes:
        out.coords.variables[axis].values.setflags(write=False)
    return out


def open_volume(path: Any, pixel_size: float | None = None) -> xr.DataArray:
    """Open an MRC map.

    Parameters
    ----------
    path : path or DataArray
        A DataArray is returned as it is, its axes in the order of files.
    pixel_size : float, optional
        Å; overrides the header.

    Returns
    -------
    xarray.DataArray
        (z, y, x) float32, coordinates in Å, ``pixel_size`` in attrs.

    Raises
    ------
    DataError
        When neither the header nor ``pixel_size`` gives a pixel size.

    Notes
    -----
    xarray combines maps where their coordinates are equal, so maps of different pixel sizes have little more than the centre
    in common and ``a - b`` loses the others. ``a.cryo.on_grid(b)`` says so, and puts a map on another's grid where both are
    the same but for the header's last digit; :func:`cryotk.rescale` and :func:`cryotk.rebox` bring a map to another grid.
    """
    import xarray as xr

    if isinstance(path, xr.DataArray):
        return upright(path)
    data, header = read_mrc(path)
    a = pixel_size if pixel_size is not None else header.pixel_size
    if not a > 0:
        raise DataError(f"{path}: the header has no pixel size; give pixel_size= in Å")
    if pixel_size is None:
        _judge_voxel(header)
    out = as_volume(data, a, str(path))
    calibrated = a / header.pixel_size if header.pixel_size > 0 else 1.0
    out.attrs["origin"] = tuple(float(v) * calibrated for v in header.origin)
    return out


def _judge_voxel(header: MrcHeader) -> None:
    """Warn of voxels that are no cubes; a header whose cell is not that of the box says nothing."""
    voxel = header.voxel
    if sorted(header.sampling) != sorted(header.shape) or min(voxel) <= 0:
        return
    if max(voxel) - min(voxel) > 1e-3 * max(voxel):
        warn_caller(
            f"{header.path}: the header's voxels are {' x '.join(f'{v:.5g}' for v in voxel)} Å; {voxel[0]:.5g} Å is taken for "
            "all axes, give pixel_size= if that is not it"
        )


class _Sections:
    """All sections of one file as an image source."""

    def __init__(self, path: str) -> None:
        header = read_header(path)
        self.path, self.n, self.box, self.image_shape = path, header.shape[0], header.shape[-1], header.shape[1:]

    def read(self, indices: np.ndarray) -> np.ndarray:
        return read_images(read_header(self.path), indices)


def open_stack(path: Any, pixel_size: float | None = None) -> xr.DataArray:
    """Open an MRC stack or micrograph; images are read when asked for.

    Parameters
    ----------
    path : path or DataArray
        A DataArray is returned as it is, its axes in the order of files.
    pixel_size : float, optional
        Å; overrides the header. Where neither gives one it is taken as 1, with a warning.

    Returns
    -------
    xarray.DataArray
        (image, y, x) float32 over dask, coordinates of y and x in Å.

    Raises
    ------
    MissingFileError, FileFormatError, DataError
        The last when the file is shorter than its header promises.
    """
    import xarray as xr

    if isinstance(path, xr.DataArray):
        return upright(path)
    header = read_header(path)
    if header.images_present < header.shape[0]:
        raise DataError(f"{path} holds {header.images_present} of the {header.shape[0]} images its header promises; copy it again")
    a = pixel_size if pixel_size is not None else header.pixel_size
    if not a > 0:
        warn_caller(f"{path}: the header has no pixel size; 1 Å is taken, give pixel_size=")
        a = 1.0
    source = _Sections(str(path))
    return xr.DataArray(
        lazy_images(source), dims=("image", "y", "x"), coords=_coordinates(source.image_shape, ("y", "x"), a), name="images",
        attrs={"pixel_size": float(a), "source": str(path)},
    )


def upright(array: Any) -> Any:
    """A DataArray with its axes in the order of files, by their names; anything else as it is."""
    dims = getattr(array, "dims", ())
    for order in (("z", "y", "x"), ("image", "y", "x")):
        if set(dims) == set(order) and dims != order:
            return array.transpose(*order)
    return array


def pixels_to_write(data: Any) -> Any:
    """Dask or numpy array of what is to be written, axes in the file's order."""
    data = upright(data)
    inner = getattr(data, "data", data)
    if hasattr(inner, "dask"):
        return inner
    for array in (inner, data):
        if hasattr(array, "get") and hasattr(array, "shape"):  # on a GPU
            return np.asarray(array.get())
    return np.asarray(data)


def pixel_size_of(array: Any) -> float | None:
    """Pixel size of a DataArray in Å: the spacing of its coordinates, which slicing and arithmetic keep right, else its attribute.

    None when it has neither.
    """
    stated = getattr(array, "attrs", {}).get("pixel_size")
    # variables, not DataArrays: these are slow to make
    coordinates = getattr(getattr(array, "coords", None), "variables", {})
    for axis in ("x", "y", "z"):
        c = coordinates.get(axis)
        if c is None or c.dims != (axis,) or c.size < 2 or c.attrs.get("units") != "Å":
            continue
        values = c.values
        step = abs(float(values[-1]) - float(values[0])) / (c.size - 1)
        if step > 0:
            return float(stated) if stated is not None and abs(stated - step) <= 1e-6 * step else step
    return None if stated is None else float(stated)


def _pixel_size(data: Any, pixel_size: float | None, path: Any) -> float:
    a = pixel_size if pixel_size is not None else pixel_size_of(data)
    if a is None or not a > 0:
        raise DataError(f"{path}: the pixel size is not known; give pixel_size= in Å")
    return float(a)


def write_volume(volume: Any, path: str | os.PathLike[str], pixel_size: float | None = None, dtype: str = "float32") -> None:
    """Write a map (z, y, x), atomically; the pixel size is the DataArray's unless given.

    Parameters
    ----------
    volume : (z, y, x) array or DataArray
        Density.
    path : path
        The MRC file to write.
    pixel_size : float, optional
        Å.
    """
    write_mrc(Path(path), pixels_to_write(volume), _pixel_size(volume, pixel_size, path), dtype=dtype)


def write_stack(stack: Any, path: str | os.PathLike[str], pixel_size: float | None = None, dtype: str = "float32") -> None:
    """Write images (image, y, x), atomically; the pixel size is the DataArray's unless given.

    Parameters
    ----------
    stack : (image, y, x) array or DataArray
        Images.
    path : path
        The MRC file to write.
    pixel_size : float, optional
        Å.
    """
    write_mrc(Path(path), pixels_to_write(stack), _pixel_size(stack, pixel_size, path), is_stack=True, dtype=dtype)
