"""Maps, stacks and micrographs as napari's layers: data, scale in Å, grey limits. No Qt, no napari."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import DataError, DataWarning
from cryotk_widgets.given_maps import is_volume_file, name_of
from cryotk_widgets.napari.arrays import open_pixels

__all__ = ["LayerData", "array_layer", "doubt_about", "file_layer", "grey_limits", "header_pixel_size", "image_layer", "volume_layer", "volume_of"]

LayerData = tuple[Any, dict[str, Any], str]
"""What napari's readers return: data, keyword arguments, kind of layer."""

_FILES = (".mrc", ".map", ".mrcs", ".gz", ".bz2")
_ENOUGH = 1_000_000
_SECTIONS = 5
_AT_ONCE = 32


def _sample(array: Any, middle: bool) -> np.ndarray:
    """Finite values of a few sections: the middle ones of a volume, evenly spread ones of a stack."""
    n = array.shape[0]
    at = [n // 2 - n // 8, n // 2, n // 2 + n // 8] if middle else np.linspace(0, n - 1, min(n, _SECTIONS)).astype(int).tolist()
    # one by one: what is not in memory yet is read only where it is looked at
    values = np.concatenate([np.asarray(array[i], np.float32).ravel() for i in sorted(set(at))])
    values = values[:: max(1, values.size // _ENOUGH)]
    values = values[np.isfinite(values)]
    return values if values.size else np.zeros(1, np.float32)


def grey_limits(array: Any, *, is_volume: bool) -> tuple[float, float]:
    """Grey limits from a few sections; nothing else is read.

    Parameters
    ----------
    array : (z, y, x) array
        May be lazy.
    is_volume : bool
        The solvent of a volume is its black, the brightest voxels in ten thousand its white; images keep 99 % of their pixels.

    Returns
    -------
    low, high : float
    """
    return _limits(_sample(array, is_volume), is_volume)


def _limits(values: np.ndarray, is_volume: bool) -> tuple[float, float]:
    low, high = (float(v) for v in np.quantile(values, (0.05, 0.9999) if is_volume else (0.005, 0.995)))
    if not high > low:
        high = float(values.max())
    return (low, high) if high > low else (low, low + 1.0)


def _surface_level(values: np.ndarray, limits: tuple[float, float]) -> float:
    from cryotk_widgets.volume_pictures import suggested_threshold

    return float(np.clip(suggested_threshold(values), *limits))


def _options(name: str, kind: str, pixel_size: float, ndim: int, source: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "scale": (pixel_size,) * ndim if kind in ("volume", "micrograph") else (1.0,) * (ndim - 2) + (pixel_size,) * 2,
        # napari draws a scale bar only when all axes of all layers agree, the number of an image included
        "units": ("angstrom",) * ndim,
        "metadata": {"cryotk": {"kind": kind, "pixel_size": float(pixel_size), "source": source, **(more or {})}},
    }


def volume_layer(array: Any, pixel_size: float, name: str, source: str = "", **changes: Any) -> LayerData:
    """A volume: Å from the box's centre, as an isosurface in 3D.

    Parameters
    ----------
    array : (z, y, x) array
        May be lazy: three sections are read.
    pixel_size : float, Å
    name, source : str
    **changes
        Of napari's ``add_image``.
    """
    values = _sample(array, True)
    limits = _limits(values, True)
    options = _options(name, "volume", pixel_size, 3, source) | {
        "translate": tuple(-(n // 2) * pixel_size for n in array.shape), "contrast_limits": limits, "colormap": "gray",
        "rendering": "iso", "iso_threshold": _surface_level(values, limits), "multiscale": False,
    }  # fmt: skip
    return array, options | changes, "image"


def image_layer(array: Any, pixel_size: float, name: str, source: str = "", **changes: Any) -> LayerData:
    """A stack (image, y, x), or one image (y, x) such as a micrograph: Å from its first pixel.

    Parameters
    ----------
    array : (image, y, x) or (y, x) array
        May be lazy: at most five images are read.
    pixel_size : float, Å
    name, source : str
    **changes
        Of napari's ``add_image``.
    """
    kind = "stack" if array.ndim == 3 else "micrograph"
    options = _options(name, kind, pixel_size, array.ndim, source) | {
        "contrast_limits": grey_limits(array if array.ndim == 3 else array[None], is_volume=False), "colormap": "gray",
        "multiscale": False, **({"axis_labels": ("image", "y", "x")} if array.ndim == 3 else {}),
    }  # fmt: skip
    return array, options | changes, "image"


def header_pixel_size(path: str | os.PathLike[str], header: Any, stated: float = 0.0) -> tuple[float, bool]:
    """Pixel size in Å of a file, and whether the file says it.

    Parameters
    ----------
    path : path
    header : MrcHeader
    stated : float
        What another file says of it, such as a STAR file; 0 when it does not.

    Warns
    -----
    DataWarning
        Where nobody says it: 1 Å is drawn.
    """
    a = stated if stated > 0 else header.pixel_size
    if a > 0:
        return float(a), True
    warnings.warn(
        f"{path}: the header has no pixel size; 1 Å is drawn. Docks have a field for it, and a layer's scale can be set",
        DataWarning, stacklevel=3,
    )  # fmt: skip
    return 1.0, False


def doubt_about(layers: list[Any]) -> str:
    """Line for layers whose pixel size nobody knows: no header says it, or one says exactly 1 Å; empty where all is known."""
    for layer in layers:
        known = layer.metadata.get("cryotk", {})
        if known.get("is_calibrated"):
            continue
        if not known.get("has_pixel_size", True):
            return f"{layer.name}: its file has no pixel size, 1 Å is taken. Give it in the field pixel size"
        if known.get("source", "").lower().endswith(_FILES) and [float(s) for s in layer.scale[-3:]] == [1.0] * min(3, len(layer.scale)):
            return (
                f"{layer.name}: its file says exactly 1 Å, which many programs write when they do not know. "
                "Give it in the field pixel size if that is not it"
            )
    return ""


def file_layer(path: str | os.PathLike[str], **changes: Any) -> LayerData:
    """An MRC file as a layer; pixels are read when they are looked at.

    Parameters
    ----------
    path : path
        ``.mrcs`` is a stack; of ``.mrc`` and ``.map`` one section is a micrograph, otherwise the header's space group and its
        sampling along z tell volumes from stacks.
    **changes
        Of napari's ``add_image``.
    """
    array, header = open_pixels(path)
    a, is_known = header_pixel_size(path, header)
    name = changes.pop("name", Path(path).name)
    if is_volume_file(path, header):
        layer = volume_layer(array, a, name, str(path), **changes)
    else:
        layer = image_layer(array[0] if array.shape[0] == 1 else array, a, name, str(path), **changes)
    layer[1]["metadata"]["cryotk"]["has_pixel_size"] = is_known
    return layer


def array_layer(array: Any, **changes: Any) -> LayerData:
    """A DataArray of cryotk, volume or stack, as a layer; dask arrays stay lazy.

    Raises
    ------
    DataError
        Without a pixel size.
    """
    from cryotk.data import pixel_size_of

    a = pixel_size_of(array)
    if a is None:
        raise DataError("this array has no pixel_size in its attrs: open it with open_volume, or set it")
    data = array.data.get() if hasattr(array.data, "get") and not hasattr(array.data, "dask") else array.data
    source = str(array.attrs.get("source") or "")
    name = changes.pop("name", None) or name_of(array) or str(array.name or "images")
    if "z" not in array.dims:
        return image_layer(data, a, name, source, **changes)
    at = tuple(float(array[d][0]) if d in array.coords and array[d].attrs.get("units") == "Å" else -(n // 2) * a
               for d, n in zip(array.dims, array.shape, strict=True))  # fmt: skip
    return volume_layer(data, a, name, source, **{"translate": at} | changes)


def volume_of(layer: Any, step: Callable[[int, int], None] = lambda done, total: None) -> Any:
    """The volume that an image layer shows, for cryotk's functions; a lazy one is read now, a few sections at a time.

    Parameters
    ----------
    layer : napari.layers.Image
    step : callable
        Told of (done, total) sections; may raise to cancel.

    Raises
    ------
    DataError
        When it is not a volume, or its voxels are not cubes.
    """
    from cryotk.data import as_volume

    if layer.ndim != 3 or layer.metadata.get("cryotk", {}).get("kind") == "stack":
        raise DataError(f"{layer.name} is not a volume: choose a layer with a map (z, y, x)")
    scale = [float(s) for s in layer.scale]
    if max(scale) - min(scale) > 1e-4 * max(scale):
        raise DataError(f"{layer.name}: its voxels are {' x '.join(f'{s:.4g}' for s in scale)} Å; a map needs cubes")
    source = layer.metadata.get("cryotk", {}).get("source", "")
    data = layer.data
    if isinstance(data, np.ndarray):
        step(1, 1)
        return as_volume(np.asarray(data, np.float32), scale[0], source or layer.name)
    values = np.empty(data.shape, np.float32)
    for i in range(0, len(values), _AT_ONCE):
        values[i : i + _AT_ONCE] = np.asarray(data[i : i + _AT_ONCE])
        step(min(i + _AT_ONCE, len(values)), len(values))
    return as_volume(values, scale[0], source or layer.name)
