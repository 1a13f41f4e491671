"""Averaging a map over a point group, and turning it so that its axes are the group's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data import write_volume
from cryotk.errors import SettingsError
from cryotk.execution import Steps, pulse
from cryotk.geometry import matrix_to_euler, symmetry_operators
from cryotk.kernels import rotate_volume as kernels
from cryotk.maps.handling import rescale, shift_to_center_of_mass
from cryotk.maps.inputs import map_of, open_map, require_cube, values_of
from cryotk.maps.report import table_html, table_text
from cryotk.maps.transform import each_slab, is_numpy, namespace

if TYPE_CHECKING:
    import xarray as xr

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
        if is_numpy(x):
            total = np.empty_like(x)
            each_slab(lambda first, last: kernels.mean_over_rotations(x, rest, first, last, total), x.shape[0])
        else:
            total = xp.astype(kernels.mean_over_rotations_numpy(x, rest, xp), x.dtype)
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


def rotate(volume: Any, rotation: np.ndarray, pixel_size: float | None = None) -> xr.DataArray:
    """Rotate a map about its centre ``n // 2``; cubic splines on the CPU, trilinear on other array modules.

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
    x = values_of(v)
    if is_numpy(x):
        from scipy.ndimage import affine_transform

        m = r.T[::-1, ::-1]  # from output to input, in z, y, x
        centre = np.array([n // 2 for n in x.shape], float)
        return map_of(affine_transform(x, m, centre - m @ centre, order=3), v, history="rotated")
    return map_of(_mean(x, r.T[None]), v, history="rotated")


@dataclass(repr=False)
class AlignedMap:
    """Result of :func:`cryotk.align_symmetry`. Nothing is computed by looking at it."""

    volume: xr.DataArray
    """Turned so that its axes are the group's, symmetrised when asked for."""
    rotation: np.ndarray
    """Matrix on (x, y, z) that turned it."""
    symmetry: str
    asymmetry: float
    """Variance that the group's mean leaves, as a fraction of the map's, in the best orientation."""
    asymmetry_before: float
    """The same as the map came."""

    @property
    def angles(self) -> tuple[float, float, float]:
        """Rot, tilt, psi in degrees."""
        rot, tilt, psi = (float(v) for v in np.ravel(matrix_to_euler(self.rotation)))
        return rot, tilt, psi

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
            "symmetry": self.symmetry, "rot, tilt, psi": ", ".join(f"{v:.2f}°" for v in self.angles),
            "not explained by the symmetry": f"{100 * self.asymmetry:.1f} % of the variance, before "
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
    n_orientations: int = 400,
    seed: int = 0,
    pixel_size: float | None = None,
    progress: bool | Callable[[int, int], object] = True,
) -> AlignedMap:
    """Turn a map so that its symmetry axes are RELION's axes of a point group.

    The map is moved to its centre of mass, and tried in random orientations on a small box; the one that differs least from
    its average over the group is refined, and the full map turned accordingly.

    Parameters
    ----------
    volume : path, DataArray or array
        A cube.
    symmetry : str
    keep_center : bool
        Leave the map where it is.
    apply_symmetry : bool
        Average the result over the group.
    working_box : int
    n_orientations : int
        At random; the best ten are refined.
    seed : int
    pixel_size : float, Å, optional
        Overrides what the map says.
    progress : bool or callable
        A bar (after a second), or a function of (done, total), which may raise to cancel.

    Notes
    -----
    RELION's program is ``relion_align_symmetry``.
    """
    # scores, one after the other; how many the refinements need is known about
    with Steps(progress, n_orientations + 1000, "align to symmetry"):
        return _align(volume, symmetry, keep_center, apply_symmetry, working_box, n_orientations, seed, pixel_size)


def _align(
    volume: Any, symmetry: str, keep_center: bool, apply_symmetry: bool, working_box: int, n_orientations: int, seed: int,
    pixel_size: float | None,
) -> AlignedMap:  # fmt: skip
    from scipy.optimize import minimize
    from scipy.spatial.transform import Rotation

    operators = symmetry_operators(symmetry)
    v = open_map(volume, pixel_size=pixel_size)
    n, a = require_cube(v), float(v.attrs["pixel_size"])
    if n_orientations < 1 or working_box < 8:
        raise SettingsError(f"n_orientations must be positive and working_box 8 at least, not {n_orientations} and {working_box}")
    if not keep_center:
        v = shift_to_center_of_mass(v)
    x = values_of(v)
    small = v if is_numpy(x) else v.copy(data=np.asarray(x.get() if hasattr(x, "get") else x))
    if n > working_box:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small = rescale(small, n * a / working_box)
    data = np.ascontiguousarray(small.data, np.float32)
    m = data.shape[0]
    k = np.arange(m) - m // 2
    z, y, x_ = np.meshgrid(k, k, k, indexing="ij")
    ball = np.stack([x_, y, z], -1).reshape(-1, 3)[(x_**2 + y**2 + z**2 < (m / 2 - 1) ** 2).ravel()].astype(float)
    rng = np.random.default_rng(seed)
    few, many = (ball[rng.permutation(len(ball))[:count]] for count in (3000, 20_000))
    variance = float(np.mean(data[tuple((many[:, ::-1].astype(int) + m // 2).T)] ** 2)) or 1.0

    def score(orientations: np.ndarray, places: np.ndarray) -> np.ndarray:
        out = np.empty(len(orientations))
        each_slab(lambda i, j: kernels.asymmetry(data, orientations[i:j], operators, places, out[i:j]), len(orientations))
        return out / variance

    before = float(score(np.eye(3)[None], many)[0])
    if len(operators) == 1:
        return AlignedMap(v, np.eye(3), symmetry, before, before)
    tried = np.concatenate([np.eye(3)[None], Rotation.random(n_orientations, rng=rng).as_matrix()])
    rough = score(tried, few)
    pulse(n_orientations)
    best, best_score = np.eye(3), np.inf
    for start in tried[np.argsort(rough)[:10]]:

        def cost(turn: np.ndarray, start: np.ndarray = start, places: np.ndarray = few) -> float:
            return float(score((Rotation.from_rotvec(turn).as_matrix() @ start)[None], places)[0])

        simplex = np.concatenate([np.zeros((1, 3)), 0.2 * np.eye(3)])
        found = minimize(
            cost, np.zeros(3), method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-7}
        )
        if found.fun < best_score:
            best_score, best = float(found.fun), Rotation.from_rotvec(found.x).as_matrix() @ start
    simplex = np.concatenate([np.zeros((1, 3)), 0.01 * np.eye(3)])
    found = minimize(
        lambda t: cost(t, best, many),
        np.zeros(3),
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-9},
    )
    best = Rotation.from_rotvec(found.x).as_matrix() @ best
    out = rotate(v, best)
    if apply_symmetry:
        out = symmetrise(out, symmetry)
    return AlignedMap(out, best, symmetry, float(found.fun), before)
