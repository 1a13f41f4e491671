"""Two half-maps: the second found by name, both of one box and pixel size; and whether they are what an FSC needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data import pixel_size_of
from cryotk.data.notices import warn_caller
from cryotk.errors import DataError
from cryotk.maps.inputs import mate_of, name_of, open_map, require_cube, require_same_box
from cryotk.maps.transform import to_numpy

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["judge_half_maps", "names_of", "note", "open_half_maps"]

_CLIFF, _WITHIN, _FIRST = 3000.0, 4, 4
"""Step of the power per coefficient over so many shells, from this shell on: unfiltered maps fall by 10, filtered ones by 1e4."""
_EMPTY_SHARE = 0.05


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


def names_of(half1: xr.DataArray, half2: xr.DataArray) -> tuple[str, str]:
    """What messages call them: their files, unless arithmetic has left both with one."""
    one, two = name_of(half1, "half1"), name_of(half2, "half2")
    return (one, two) if one != two else ("half1", "half2")


def note(notes: list[str], text: str) -> None:
    """Warn the caller, and keep the words for the result."""
    notes.append(text)
    warn_caller(text)


def judge_half_maps(
    names: tuple[str, str], voxels: tuple[Any, Any], sums: np.ndarray, n: int, pixel_size: float, notes: list[str]
) -> None:
    """Look whether two half-maps are independent, unfiltered and unmasked.

    Parameters
    ----------
    names : tuple of str
    voxels : tuple of (z, y, x) arrays
    sums : (3, n // 2 + 1) float64
        As :func:`cryotk.maps.transform.cross_sums` gives them.
    n : int
        Box of the maps.
    pixel_size : float, Å
    notes : list of str
        Grows by what was warned of.

    Raises
    ------
    DataError
        For half-maps that are identical or empty.

    Warns
    -----
    DataWarning
        For half-maps that look filtered or masked.
    """
    cross, one, two = (v[1:] for v in sums)
    for name, power in zip(names, (one, two), strict=True):
        if not power.any():
            raise DataError(f"{name} is empty: all voxels have one value")
    norm = np.sqrt(one * two)
    if np.all(norm > 0) and np.all(np.abs(cross / norm - 1) < 1e-9):
        raise DataError(f"{names[0]} and {names[1]} are identical; give the two half-maps of one refinement")
    edge = _last_shell_with_noise(np.minimum(sums[1], sums[2]))
    if edge < 0.9 * (n // 2):
        note(
            notes, f"the half-maps hold nothing beyond {n * pixel_size / max(edge, 1):.2f} Å: they look filtered; "
            "take the unfiltered ones (run_half1_class001_unfil.mrc), or the resolution is what the filter left",
        )  # fmt: skip
    empty = max(_share_of_zeros(v) for v in voxels)
    if empty > _EMPTY_SHARE:
        note(
            notes, f"{100 * empty:.0f} % of the voxels of {names[0]} or {names[1]}, corners of the box not counted, are exactly 0: "
            "the half-maps look masked; take the unmasked ones (run_half1_class001_unfil.mrc), or the FSC counts the mask too",
        )  # fmt: skip


def _last_shell_with_noise(power: np.ndarray) -> int:
    """Shell before a cliff in the power per coefficient; the last one when there is none.

    Rounding leaves a floor far below the noise (of float16 1e-11 of the strongest shell), so the height of the step tells.
    """
    shell = np.arange(len(power))
    mean = power / np.maximum(shell, 1) ** 2
    dead = np.nonzero(power[1:] < 1e-12 * power[1:].max())[0]
    beyond = np.maximum.accumulate(mean[::-1])[::-1]
    cliffs = [s for s in range(_FIRST, len(power) - _WITHIN) if mean[s] > _CLIFF * beyond[s + _WITHIN]]
    last = len(power) - 1
    if cliffs:
        s = cliffs[0]
        last = s + int(np.argmax(mean[s : s + _WITHIN + 1] < mean[s] / np.sqrt(_CLIFF))) - 1
    return min(last, int(dead[0])) if len(dead) else last


def _share_of_zeros(voxels: Any) -> float:
    """Fraction of zeros inside the ball that fills the box; many programs leave the corners empty."""
    step = max(1, voxels.shape[0] // 64)
    thin = to_numpy(voxels[::step, ::step, ::step])
    k = [np.arange(0, n, step) - n // 2 for n in voxels.shape]
    r2 = k[0][:, None, None] ** 2 + k[1][:, None] ** 2 + k[2] ** 2
    return float(np.mean(thin[r2 < (min(voxels.shape) // 2) ** 2] == 0))
