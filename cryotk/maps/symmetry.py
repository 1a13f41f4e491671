"""Averaging a map over a point group, and turning it so that its axes are the group's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data import write_volume
from cryotk.errors import SettingsError
from cryotk.execution import Steps, pulse
from cryotk.geometry import matrix_to_euler, symmetry_operators
from cryotk.kernels.backends import backend_of
from cryotk.kernels.rotate_volume import mean_at_rotations
from cryotk.maps.handling import center_of_mass, rescale
from cryotk.maps.inputs import map_of, open_map, require_cube, require_number, values_of
from cryotk.maps.report import table_html, table_text
from cryotk.maps.transform import each_slab, namespace, to_numpy
from cryotk.projection.symmetry_search import (
    SymmetryAxes,
    axes_correlation,
    find_symmetry_axes,
    improve_symmetry_axes,
    spline_coefficients,
)

if TYPE_CHECKING:
    import xarray as xr

_AS_GOOD = 2e-5
"""Correlation that a turn by less than 0.1 degrees or a move by less than 0.05 pixels costs."""
_ALIKE = 0.05
"""Entries of rotation matrices by which axes differ that are the same, 3 degrees."""

__all__ = ["AlignedMap", "align_symmetry", "rotate", "symmetrise"]


def symmetrise(
    volume: Any, symmetry: str, pixel_size: float | None = None, *, progress: bool | Callable[[int, int], object] = True
) -> xr.DataArray:
    """Average a map over a point group, in RELION's axes, about the centre ``n // 2``.

    Trilinear; places outside of the box count as zero.

    Parameters
    ----------
    volume : path, DataArray or array
    symmetry : str
        ``C1, Cn, Dn, T, O, I1 ... I4``.
    pixel_size : float, Å, optional
        Overrides what the map says.
    progress : bool or callable
        A bar (after a second), or a function of (done, total), which may raise to cancel.
    """
    v = open_map(volume, pixel_size=pixel_size)
    with Steps(progress, 1, "symmetrise"):
        return map_of(_mean(values_of(v), symmetry_operators(symmetry)), v, history=f"symmetrised {symmetry}")


def _mean(x: Any, operators: np.ndarray) -> Any:
    """Mean over rotations; those that only exchange and reverse axes move voxels, the others interpolate."""
    xp = namespace(x)
    whole = np.rint(operators)
    exact = [bool(np.abs(g - w).max() < 1e-9 and _fits(x.shape, w)) for g, w in zip(operators, whole, strict=True)]
    turned, rest = whole[exact].astype(int), operators[np.logical_not(exact)]
    total = None
    if len(rest):
        backend = backend_of(x)
        if backend is not None:
            total, turns = backend.xp.empty_like(x), backend.to_device(rest)
            each_slab(lambda first, last: backend.mean_over_rotations(x, turns, first, last, total), x.shape[0], backend)
        else:
            total = xp.astype(mean_at_rotations(x, rest, xp), x.dtype)
        if not len(turned):
            return total
        total = total * (len(rest) / len(operators))
    moved = _moved(x, turned) / len(operators)
    return moved if total is None else total + moved


def _fits(shape: tuple[int, ...], rotation: np.ndarray) -> bool:
    """Whether the axes that a rotation exchanges are equally long."""
    source = np.abs(rotation[::-1, ::-1]).argmax(1)
    return all(shape[axis] == shape[int(source[axis])] for axis in range(3))


def _moved(x: Any, rotations: np.ndarray) -> Any:
    """Sum of a volume's values at rotations that exchange and reverse axes; zero where a place is outside.

    In an even box, whose centre is at ``n / 2``, the first plane's mate lies outside.
    """
    xp = namespace(x)
    out = xp.zeros(x.shape, dtype=x.dtype)
    for r in rotations:
        m = r[::-1, ::-1]  # row: axis of the place looked at; column: axis of the voxel
        of_place = np.abs(m).argmax(0)  # for each axis of the voxel, the axis of the place that follows it
        view = xp.permute_dims(x, tuple(int(a) for a in of_place))
        target: list[slice] = []
        for axis in range(3):
            n, backwards = x.shape[axis], m[of_place[axis], axis] < 0
            if backwards:
                view = xp.flip(view, axis=axis)
            target.append(slice(1, None) if backwards and n % 2 == 0 else slice(None))
        # flipped, an even axis starts with index n - 1, which is the mate of 1
        source = tuple(slice(0, x.shape[i] - 1) if t.start else slice(None) for i, t in enumerate(target))
        out[tuple(target)] += view[source]
    return out


def _placed(x: Any, rotations: np.ndarray, offset: Any = (0.0, 0.0, 0.0)) -> Any:
    """Mean of a volume's values at ``rotation place + offset`` (x, y, z from the centre), by cubic splines, on its device."""
    backend = backend_of(x)
    if backend is None:  # no spline in the array libraries' standard
        return namespace(x).asarray(_placed(to_numpy(x), rotations, offset))
    coefficients = spline_coefficients(x)
    turns, move = backend.to_device(rotations, np.float64), backend.to_device(offset, np.float64)
    out = backend.xp.empty_like(coefficients)
    each_slab(
        lambda first, last: backend.mean_over_rotations_spline(coefficients, turns, move, first, last, out), x.shape[0], backend
    )
    return out


def rotate(volume: Any, rotation: np.ndarray, pixel_size: float | None = None) -> xr.DataArray:
    """Rotate a map about its centre ``n // 2``, by cubic splines.

    Parameters
    ----------
    volume : path, DataArray or array
    rotation : (3, 3) float
        Acts on (x, y, z).
    pixel_size : float, Å, optional
        Overrides what the map says.
    """
    v = open_map(volume, pixel_size=pixel_size)
    r = np.asarray(rotation, float)
    if r.shape != (3, 3):
        raise SettingsError(f"rotation must be a 3 x 3 matrix, not of shape {r.shape}")
    return map_of(_placed(values_of(v), r.T[None]), v, history="rotated")


@dataclass(repr=False)
class AlignedMap:
    """Result of :func:`cryotk.align_symmetry`. Nothing is computed by looking at it."""

    volume: xr.DataArray
    """Turned so that its axes are the group's, symmetrised when asked for."""
    rotation: np.ndarray
    """Matrix on (x, y, z) that turned it."""
    shift: np.ndarray
    """Pixels (x, y, z) it was moved by before, so that the axes meet in the centre."""
    symmetry: str
    correlation: float
    """Of the map with its symmetry mates, in the best orientation; 1 for a symmetric map."""
    correlation_before: float
    """The same as the map came."""

    @property
    def angles(self) -> tuple[float, float, float]:
        """Rot, tilt, psi in degrees."""
        rot, tilt, psi = (float(v) for v in np.ravel(matrix_to_euler(self.rotation)))
        return rot, tilt, psi

    @property
    def asymmetry(self) -> float:
        """Fraction of the map's power that its mean over the group leaves."""
        return self._left(self.correlation)

    @property
    def asymmetry_before(self) -> float:
        """The same as the map came."""
        return self._left(self.correlation_before)

    def _left(self, correlation: float) -> float:
        order = len(symmetry_operators(self.symmetry))
        return max(0.0, 1 - correlation) * (order - 1) / order  # interpolation may give a hair above 1

    def save(self, directory: Any, name: str = "aligned.mrc") -> Path:
        """Write the map; returns its path."""
        path = Path(directory) / name
        write_volume(self.volume, path)
        return path

    def plot(self, **kwargs: Any) -> Any:
        """Show the map in a widget (needs the lab extra)."""
        return self.volume.cryo.view(**kwargs)

    def _rows(self) -> dict[str, str]:
        return {
            "symmetry": self.symmetry, "rot, tilt, psi": ", ".join(f"{round(v, 2) + 0.0:.2f}°" for v in self.angles),
            "moved by x, y, z": ", ".join(f"{round(float(v), 2) + 0.0:.2f}" for v in self.shift) + " px",
            "correlation with the symmetry mates": f"{self.correlation:.3f}, before {self.correlation_before:.3f}",
            "not explained by the symmetry": f"{100 * self.asymmetry:.1f} % of the power, before "
            f"{100 * self.asymmetry_before:.1f} %",
        }  # fmt: skip

    def __repr__(self) -> str:
        return table_text("AlignedMap", self._rows())

    def _repr_html_(self) -> str:
        return table_html("Aligned to symmetry", self._rows())


def align_symmetry(
    volume: Any,
    symmetry: str,
    keep_center: bool = False,
    apply_symmetry: bool = False,
    *,
    working_box: int = 64,
    pixel_size: float | None = None,
    progress: bool | Callable[[int, int], object] = True,
) -> AlignedMap:
    """Turn and move a map so that its symmetry axes are RELION's axes of a point group.

    A grid of orientations is tried on a small box, in Fourier space; those in which the map agrees best with its symmetry mates
    are refined together with the centre (:mod:`cryotk.projection.symmetry_search`), and the full map is placed accordingly.
    Where several placements are as good (the axes of a D2 map can be exchanged), a map nearly in place is not turned further
    than it must be, and one that is in place stays as it is.

    Parameters
    ----------
    volume : path, DataArray or array
        A cube.
    symmetry : str
    keep_center : bool
        The axes meet in the box centre already.
    apply_symmetry : bool
        Average the result over the group.
    working_box : int
        Pixels; what is finer than its Nyquist limit does not count.
    pixel_size : float, Å, optional
        Overrides what the map says.
    progress : bool or callable
        A bar (after a second), or a function of (done, total), which may raise to cancel.

    Notes
    -----
    RELION's program is ``relion_align_symmetry``, which tries random orientations and moves the map to its centre of mass.
    """
    # passes over the volume, and a search as long as so many
    with Steps(progress, 60, "align to symmetry"):
        return _align(volume, symmetry, keep_center, apply_symmetry, working_box, pixel_size)


def _align(
    volume: Any, symmetry: str, keep_center: bool, apply_symmetry: bool, working_box: int, pixel_size: float | None
) -> AlignedMap:
    operators = symmetry_operators(symmetry)
    v = open_map(volume, pixel_size=pixel_size)
    n, a = require_cube(v), float(v.attrs["pixel_size"])
    require_number("working_box", working_box)
    if working_box < 8:
        raise SettingsError(f"working_box must be 8 at least, not {working_box}")
    small = v
    if n > working_box:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small = rescale(v, n * a / working_box)
    data = to_numpy(small.data) * _ball(small.shape[0])
    here = SymmetryAxes(symmetry, np.eye(3), np.zeros(3), 0.0)
    before = axes_correlation(data, here)
    axes = find_symmetry_axes(data, symmetry, fit_centre=not keep_center, tick=lambda share: pulse(50 * share))
    near = improve_symmetry_axes(data, here, fit_centre=not keep_center)
    if near.correlation >= axes.correlation - _AS_GOOD or _same_axes(axes.rotation.T @ near.rotation, operators):
        axes = near
    in_place = len(operators) > 1 and before >= axes.correlation - _AS_GOOD
    if in_place:
        axes = SymmetryAxes(symmetry, np.eye(3), np.zeros(3), before)
    shift, correlation = axes.shift * (n / small.shape[0]), axes.correlation
    if len(operators) == 1:
        shift, correlation = np.zeros(3) if keep_center else -np.array(center_of_mass(v)), before
    if apply_symmetry:
        placed = _placed(values_of(v), axes.rotation @ operators, -shift)
    elif in_place:
        placed = values_of(v) + 0
    else:
        placed = _placed(values_of(v), axes.rotation[None], -shift)
    text = f"placed on the axes of {symmetry}" + (", symmetrised" if apply_symmetry else "")
    return AlignedMap(map_of(placed, v, history=text), axes.rotation.T.copy(), shift, symmetry, correlation, before)


def _same_axes(turn: np.ndarray, operators: np.ndarray) -> bool:
    """Whether a turn exchanges the axes of a group: such placements are one, though a few planes score them a little apart."""
    turned = turn @ operators @ turn.T
    return bool((np.abs(turned[:, None] - operators).max((-1, -2)).min(1) < _ALIKE).all())


def _ball(n: int) -> np.ndarray:
    """Soft ball that fills the box: rotations keep it."""
    k = np.arange(n) - n // 2
    r = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((r - (n / 2 - 4)) / 3, 0, 1))
