"""What a view is given as a map: files, arrays, results; its voxels in Å, and what it is called."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import DataError, SettingsError

__all__ = ["GivenMap", "as_map", "called", "is_volume_file", "name_of"]

_COMPRESSED = (".gz", ".bz2")
# what each kind of picture takes of a result
_PARTS = {"map": ("volume", "filtered", "mask"), "colour": ("resolution_map",), "mask": ("mask",)}
_MISSING = {
    "volume": "its map was not found: give the file of the map",
    "mask": "it was made without a mask: give one",
}
# steps that make another map of it, not a filtered copy
_MADE = ("post-processed", "sharpened", "locally filtered", "local resolution", "mask")
# what xarray calls it where nobody named it
_UNNAMED = ("", "None", "density", "images")


@dataclass(frozen=True)
class GivenMap:
    """A map to show."""

    array: np.ndarray
    """(z, y, x) float32, finite."""
    pixel_size: float
    """Å; 1 where nobody knows."""
    name: str = ""
    source: str = ""
    """File, where the name does not say it."""
    is_scaled: bool = True
    """Whether the pixel size is known."""

    @property
    def about(self) -> str:
        """Voxels and their size."""
        size = f"voxels of {self.pixel_size:.4g} Å" if self.is_scaled else "voxels of unknown size, drawn as 1 Å: give pixel_size="
        return f"{' × '.join(str(n) for n in self.array.shape[::-1])} {size}"


def is_volume_file(path: str | os.PathLike[str], header: Any) -> bool:
    """Whether an MRC file is a volume.

    RELION's headers say of its volumes that they are stacks (space group 0); but those of stacks sample one section of the cell,
    those of volumes all of them.
    """
    name = os.fspath(path).lower()
    for end in _COMPRESSED:
        name = name.removesuffix(end)
    if name.endswith(".mrcs") or header.shape[0] == 1:
        return False
    if header.space_group != 0 or name.endswith(".map") or len(set(header.shape)) == 1:
        return True
    return bool(header.sampling[2] == header.shape[0])


def name_of(volume: Any) -> str:
    """What a DataArray is: its name, else what was done to it last (``history``), else its file; half-maps by their number."""
    if str(volume.name) not in _UNNAMED:
        return str(volume.name)
    name = _file_name(str(volume.attrs.get("source") or ""))
    for step in str(volume.attrs.get("history") or "").split("; "):
        text = step.replace("^2", "²")
        if text.startswith(_MADE):
            name = text
        elif text:
            name = f"{name}, {text}" if name else text
    return name


def _file_name(source: str) -> str:
    name = Path(source).name
    half = re.search(r"half[-_ ]?(?:map)?[-_ ]?([12])(?![0-9])", name, re.IGNORECASE)
    return f"half-map {half[1]}" if half else name


def called(names: Any, given: list[GivenMap]) -> list[str]:
    """The names of the maps: what the user calls them, else their own.

    Raises
    ------
    SettingsError
        For more names than maps.
    """
    said = [] if names is None else [names] if isinstance(names, str) else [str(n) for n in names]
    if len(said) > len(given):
        raise SettingsError(f"names = {said}: {len(said)} names for {len(given)} map{'s' * (len(given) > 1)}")
    return said + [g.name for g in given[len(said) :]]


def as_map(volume: Any, pixel_size: float | None = None, kind: str = "map") -> GivenMap:
    """Whatever a view is given as a map.

    Parameters
    ----------
    volume : path, DataArray, array or result
        Of a post-process the map, of a local resolution the filtered map, of a mask the mask.
    pixel_size : float, optional
        Å; overrides what the map says.
    kind : {"map", "colour", "mask"}
        What it is shown as: what is taken of a result.

    Raises
    ------
    DataError
        For anything that is not a map, such as a stack, and for one that holds nothing but NaN.
    """
    import xarray as xr

    from cryotk.data.volumes import upright

    volume = _of_result(volume, kind)
    name = source = ""
    if isinstance(volume, (str, os.PathLike)):
        volume = _opened(Path(volume).expanduser(), pixel_size)
    if isinstance(volume, xr.DataArray):
        if "image" in volume.dims:
            raise _stack_error(f"this array with the dimensions {volume.dims}", volume.sizes["image"], "stack")
        volume = upright(volume)
        name = name_of(volume)
        file = Path(str(volume.attrs.get("source") or "")).name
        source = "" if file in name else file
        pixel_size = pixel_size if pixel_size is not None else _voxel(volume)
        volume = volume.data
        volume = volume.compute() if hasattr(volume, "dask") else volume
    volume = volume.get() if hasattr(volume, "get") and hasattr(volume, "shape") else volume
    try:
        array = np.asarray(volume, np.float32)
    except (TypeError, ValueError):
        raise DataError(
            f"a {kind if kind != 'colour' else 'map of colours'} is a path, a DataArray, an array (z, y, x) or a result that holds one, "
            f"not {type(volume).__name__}"
        ) from None
    if array.ndim != 3 or min(array.shape) < 2:
        raise DataError(f"a map has three dimensions (z, y, x), this array has the shape {array.shape}")
    if pixel_size is not None and not pixel_size > 0:
        raise DataError(f"pixel_size = {pixel_size}: give it in Å, larger than 0")
    if not np.isfinite(array).all():
        if not np.isfinite(array).any():
            raise DataError("the map holds no finite value: nothing to show")
        array = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
    return GivenMap(array, float(pixel_size or 1.0), name, source, pixel_size is not None)


def _of_result(given: Any, kind: str) -> Any:
    if isinstance(given, (str, os.PathLike)) or hasattr(given, "ndim") or hasattr(given, "dims"):
        return given
    part = next((p for p in _PARTS[kind] if hasattr(given, p)), None)
    if part is None:
        return given
    found = getattr(given, part)
    if found is None:
        raise DataError(f"this {type(given).__name__} has no {part}; {_MISSING.get(part, 'give the map itself')}")
    return found


def _opened(path: Path, pixel_size: float | None) -> Any:
    from cryotk.data import open_volume
    from cryotk.io.mrc import read_header

    if path.is_file() and path.suffix not in _COMPRESSED:
        header = read_header(path)
        if not is_volume_file(path, header):
            raise _stack_error(str(path), header.shape[0], f"ctk.open_stack({str(path)!r})")
    return open_volume(path, pixel_size)


def _stack_error(what: str, n: int, opened: str) -> DataError:
    return DataError(
        f"{what} is a stack of {n} image{'s' * (n != 1)}, not a map: {opened}.cryo.view() shows it; a map of such a file is opened "
        "by ctk.open_volume"
    )


def _voxel(volume: Any) -> float | None:
    """Å, of cubes."""
    from cryotk.data import pixel_size_of

    steps = {}
    for axis in ("x", "y", "z"):
        if axis in volume.coords and volume.coords[axis].attrs.get("units") == "Å" and volume.sizes.get(axis, 0) > 1:
            at = volume.coords[axis].values
            steps[axis] = abs(float(at[-1]) - float(at[0])) / (len(at) - 1)
    if steps and max(steps.values()) > 1.001 * min(steps.values()):
        text = ", ".join(f"{v:.4g} Å along {k}" for k, v in steps.items())
        raise DataError(f"the map's voxels are no cubes ({text}): take the same steps along all axes")
    a = pixel_size_of(volume)
    return a if a else None
