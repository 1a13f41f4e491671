"""Maps to start a 3D refinement from: opened, checked, brought to the particles' box and pixel size."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cryotk.data import open_volume, pixel_size_of
from cryotk.errors import DataError, DataWarning, MissingFileError, SettingsError
from cryotk.fourier import resize, window
from cryotk.io.mrc import read_header

__all__ = ["mate_of_half_map", "missing_reference", "open_mask", "open_references"]

SAME_PIXEL = 1e-3
"""Å; pixel sizes closer than this are one."""


def mate_of_half_map(path: Any) -> Path | None:
    """The other half-map of a path whose name holds ``half1`` or ``half2``; None for any other reference.

    Raises
    ------
    MissingFileError
        When the mate is not there.
    """
    if not isinstance(path, (str, Path)):
        return None
    p = Path(path)
    found = re.search(r"half([12])", p.name)
    if not found:
        return None
    mate = p.with_name(p.name[: found.start(1)] + ("2" if found[1] == "1" else "1") + p.name[found.end(1) :])
    if not mate.exists():
        raise MissingFileError(
            f"{p} is a half-map, but its mate {mate.name} is not beside it: put it there, or give a map of all particles"
        )
    return mate


def _list(references: Any) -> list[Any]:
    """References one by one: of a list, of an array over classes, or of RELION's STAR file of references."""
    if isinstance(references, (list, tuple)):
        return [r for item in references for r in _list(item)]
    if isinstance(references, (str, Path)) and Path(references).suffix == ".star":
        return _of_star(Path(references))
    if hasattr(references, "dims") and "class_number" in references.dims:
        a = _pixel_size_of(references, "the references")
        return [r.drop_vars("class_number").assign_attrs(pixel_size=a) for r in references]
    return [references]


def _of_star(path: Path) -> list[Any]:
    from cryotk.io.relion_read import find_near
    from cryotk.io.star import read_star

    for block in read_star(path).values():
        if "rlnReferenceImage" in block:
            out = []
            for name in block["rlnReferenceImage"]:
                found = find_near(str(name), path.parent)
                if found is None:
                    raise MissingFileError(f"{path} names the reference {name}, which is not there")
                out.append(found)
            return out
    raise DataError(f"{path} names no references: it has no column _rlnReferenceImage")


def open_references(references: Any, box: int, pixel_size: float) -> tuple[np.ndarray, float]:
    """Maps at the particles' box and pixel size.

    Parameters
    ----------
    references : DataArray, path, or several of them
    box : int
        Pixels of the particles.
    pixel_size : float
        Å, of the particles.

    Returns
    -------
    maps : (K, box, box, box) float64
    pixel_size : float
        That of the first map's header where it is the particles' but for rounding, else the particles'.

    Raises
    ------
    DataError
        For maps that are no cubes, hold no density, or values that are not finite.
    """
    maps, header = [], None
    for i, reference in enumerate(_list(references)):
        name = str(reference) if isinstance(reference, (str, Path)) else f"reference {i + 1}"
        v = _opened(reference, name, pixel_size)
        x = np.asarray(v.data, float)
        if x.ndim != 3 or len(set(x.shape)) != 1:
            raise DataError(f"{name} has {x.shape} voxels; a reference is a cube")
        if not np.isfinite(x).all():
            raise DataError(f"{name} holds values that are not finite: correct or replace it")
        if np.ptp(x) == 0:
            raise DataError(f"{name} is the same everywhere ({x.flat[0]:g}): there is nothing to align to")
        a = _pixel_size_of(v, name)
        if abs(a - pixel_size) <= SAME_PIXEL:
            header = _stored_pixel_size(reference, a) if header is None else header
        else:
            x = _rescale(x, a, pixel_size)
        if len(x) != box:
            x = window(x, box)
        if len(v.data) != box or abs(a - pixel_size) > SAME_PIXEL:
            warnings.warn(
                f"{name} of {len(v.data)} voxels of {a:g} Å was resampled to the particles' {box} of {pixel_size:g} Å",
                DataWarning,
                stacklevel=4,
            )
        maps.append(x)
    if not maps:
        raise SettingsError("there is no reference: give a map or a list of maps")
    return np.array(maps), pixel_size if header is None else header


def _opened(given: Any, name: str, pixel_size: float) -> xr.DataArray:
    """A map or mask from a path, a DataArray, an array (of the particles' pixel size) or a result of ``create_mask``."""
    if isinstance(given, (str, Path, xr.DataArray)):
        return open_volume(given)
    if isinstance(getattr(given, "mask", None), xr.DataArray):
        return given.mask
    if isinstance(given, np.ndarray) and given.dtype.kind in "fiub" and given.ndim == 3:
        return xr.DataArray(given, dims=("z", "y", "x"), attrs={"pixel_size": pixel_size})
    what = f"an array of shape {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
    raise SettingsError(f"{name} is {what}: give the path of an .mrc file, a volume that ctk.open_volume made, or a (z, y, x) array")


def _stored_pixel_size(reference: Any, a: float) -> float:
    """A map's pixel size with the rounding of its file, where it is one of MRC."""
    is_file = isinstance(reference, (str, Path)) and str(reference).endswith((".mrc", ".map", ".rec"))
    return read_header(reference).stored_pixel_size if is_file else a


def _pixel_size_of(volume: xr.DataArray, name: str) -> float:
    a = pixel_size_of(volume)
    if a is None or not a > 0:
        raise DataError(f"{name} has no pixel size: give one made by ctk.open_volume, with its pixel_size= where the header has none")
    return a


def missing_reference(references: Any) -> None:
    """Raise for a path that is not there, before anything is computed."""
    for given in references if isinstance(references, (list, tuple)) else [references]:
        if isinstance(given, (str, Path)) and not Path(given).exists():
            raise MissingFileError(f"reference {given}: no such file")


def _rescale(x: np.ndarray, a: float, pixel_size: float) -> np.ndarray:
    """Change the pixel size, keeping density values: first a box whose new box is a whole, even number of pixels."""
    n = len(x)
    if n % 2:
        x, n = window(x, n + 1), n + 1
    # widen the field of view until both pixel sizes divide it nearly; the rest is below a thousandth
    best = min(range(n, 2 * n + 2, 2), key=lambda m: (abs(m * a / pixel_size / 2 - round(m * a / pixel_size / 2)) > 0.02, m))
    wide = window(x, best) if best != n else x
    return resize(wide, max(2, 2 * round(best * a / pixel_size / 2)))


def open_mask(mask: Any, box: int, pixel_size: float) -> np.ndarray | None:
    """Solvent mask, checked: 0 to 1, of the particles' box.

    Raises
    ------
    DataError
        For another box or values outside [0, 1].
    """
    if mask is None:
        return None
    name = str(mask) if isinstance(mask, (str, Path)) else "the mask"
    v = _opened(mask, name, pixel_size)
    x = np.asarray(v.data, np.float32)
    if x.shape != (box,) * 3:
        raise DataError(f"{name} has {x.shape} voxels, the particles {box}: make a mask of the same box")
    a = _pixel_size_of(v, name)
    if abs(a - pixel_size) > 0.01 * pixel_size:
        raise DataError(f"{name} has voxels of {a:g} Å, the particles {pixel_size:g} Å: make a mask of the same pixel size")
    if not np.isfinite(x).all() or x.min() < -1e-4 or x.max() > 1 + 1e-4:
        raise DataError(f"{name} goes from {x.min():g} to {x.max():g}: a mask must lie between 0 and 1")
    if x.max() == 0:
        raise DataError(f"{name} is zero everywhere: nothing of the map would be left")
    return np.clip(x, 0, 1)
