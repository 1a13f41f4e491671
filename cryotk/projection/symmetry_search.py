"""Where the symmetry axes of a map are: a search over rotations in Fourier space, and the symmetrised map.

A map made without symmetry shows its point group around arbitrary axes. The search scores how well central slices agree
with their symmetry mates, over a grid of rotations first and then by continuous improvement of rotation and centre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryotk.geometry import directions, euler_to_matrix, parse_symmetry, symmetry_operators
from cryotk.kernels.backends import CPU, backend_of
from cryotk.projection.reference import FourierReference

__all__ = [
    "SymmetryAxes", "axes_correlation", "find_symmetry_axes", "improve_symmetry_axes", "place_on_axes", "spline_coefficients",
]  # fmt: skip

SEARCH_ORDER = 3
N_PLANES, N_SEARCH_PLANES = 6, 3
N_CANDIDATES, N_REFINED = 6, 2
SEARCH_SHELLS, FINE_SHELLS = 12, 24


@dataclass(frozen=True)
class SymmetryAxes:
    """How to move a map so that its axes are where a point group has them.

    A point ``x`` (pixels from the centre, x y z) of the aligned map is the point ``rotation @ x - shift`` of the map.
    """

    symmetry: str
    rotation: np.ndarray
    """(3, 3)"""
    shift: np.ndarray
    """(3,) pixels x, y, z: moves the map's centre of symmetry to the box centre."""
    correlation: float
    """Mean correlation of the map with its symmetry mates, 1 for a symmetric map."""


class _Score:
    """Agreement of a map's slices with their symmetry mates, up to a shell."""

    def __init__(self, reference: FourierReference, operators: np.ndarray, shells: int, n_planes: int, seed: int = 0) -> None:
        self.reference, self.operators, self.shells = reference, operators, shells
        k = np.arange(-shells, shells + 1)
        ky, kx = np.meshgrid(k, np.arange(shells + 1), indexing="ij")
        r2 = kx**2 + ky**2
        keep = (r2 <= shells**2) & (r2 > 0) & ~((kx == 0) & (ky < 0))
        self.kx, self.ky = kx[keep].astype(np.int32), ky[keep].astype(np.int32)
        # a plane has k points per shell where space has k^2; for real and imaginary parts
        self.weight = np.repeat(np.sqrt(r2[keep].astype(np.float32)), 2)
        rng = np.random.default_rng(seed)
        angles = rng.uniform(-180, 180, n_planes), np.degrees(np.arccos(rng.uniform(-1, 1, n_planes))), np.zeros(n_planes)
        self.planes = np.swapaxes(euler_to_matrix(*angles), -1, -2)

    def __call__(self, rotations: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """(n,) mean correlation with the mates for (n, 3, 3) rotations."""
        n, g, j = len(rotations), len(self.operators), len(self.planes)
        m = rotations[:, None, None] @ self.operators[None, :, None] @ self.planes[None, None]
        m = m.reshape(-1, 3, 3)
        f = self.reference.slices(np.swapaxes(m, -1, -2), self.kx, self.ky)
        if np.any(shift):
            # k.t of a point of a rotated plane is kx u + ky v
            u, v, _ = (np.asarray(shift) @ m).T * (-2j * np.pi / self.reference.box)
            along_x = np.exp(u[:, None] * np.arange(self.shells + 1)).astype(np.complex64)
            along_y = np.exp(v[:, None] * np.arange(-self.shells, self.shells + 1)).astype(np.complex64)
            f *= along_x[:, self.kx]
            f *= along_y[:, self.ky + self.shells]
        f = f.reshape(n, g, j, -1)
        power = np.einsum("ngjp,ngjp,p->ng", f.view(np.float32), f.view(np.float32), self.weight).sum(1, dtype=float)
        # the sum over the group carries all pairs at once
        total = f.sum(1).view(np.float32)
        both = np.einsum("njp,njp,p->nj", total, total, self.weight).sum(1, dtype=float)
        return (both - power) / np.maximum((g - 1) * power, 1e-300)


def _grid(symmetry: str) -> np.ndarray:
    """(n, 3, 3) rotations from axes to map, none twice up to the group."""
    if parse_symmetry(symmetry)[0] == "C":
        # turns about the axis change nothing, and the axis has no sign
        rot, tilt = directions(SEARCH_ORDER, "C1")
        half = tilt <= 90 + 1e-9
        return np.swapaxes(euler_to_matrix(rot[half], tilt[half], 0 * rot[half]), -1, -2)
    rot, tilt = directions(SEARCH_ORDER, symmetry)
    psi = np.arange(6 * 2**SEARCH_ORDER) * 360.0 / (6 * 2**SEARCH_ORDER)
    return euler_to_matrix(rot[:, None], tilt[:, None], psi[None]).reshape(-1, 3, 3)


def _rotation(vector: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vector).as_matrix()


def centre_of_mass(map_: np.ndarray) -> np.ndarray:
    """(3,) centre of mass of the positive part, x y z in pixels from the box centre."""
    positive = np.maximum(map_, 0)
    total = positive.sum()
    if total <= 0:
        return np.zeros(3)
    k = np.arange(map_.shape[-1]) - map_.shape[-1] // 2
    return np.array([(positive.sum(tuple(a for a in range(3) if a != axis)) * k).sum() / total for axis in (2, 1, 0)])


def find_symmetry_axes(
    map_: np.ndarray,
    symmetry: str,
    shells: int | None = None,
    fit_centre: bool = True,
    tick: Callable[[float], object] = lambda share: None,
) -> SymmetryAxes:
    """Find the axes of a point group in a map.

    Parameters
    ----------
    map_ : (N, N, N) float
        Masked, so that solvent does not count.
    symmetry : str
        ``Cn, Dn, T, O, I1 ... I4``.
    shells : int, optional
        Fourier shells the final fit uses, at most N / 2 - 1; 24 by default.
    fit_centre : bool
        Else the axes go through the box centre.
    tick : callable
        Told what share of the work, about, is done since it was told last; may raise to cancel.

    Returns
    -------
    SymmetryAxes
        For ``C1`` and for a map of zeros the identity with correlation 0.
    """
    operators = symmetry_operators(symmetry)
    x = np.asarray(map_, np.float64)
    if len(operators) == 1 or not np.any(x):
        return SymmetryAxes(symmetry, np.eye(3), np.zeros(3), 0.0)
    coarse, fine = _shells(x, shells)
    reference = FourierReference.from_map(x, 1.0, 2 * fine, 2.0)
    centre = -centre_of_mass(x) if fit_centre else np.zeros(3)
    grid = _grid(symmetry)
    scores = _score_many(_Score(reference, operators, coarse, N_SEARCH_PLANES), grid, centre, lambda share: tick(0.4 * share))
    # few planes say where to look, more of them what is best
    best = np.argsort(scores)[::-1][: max(200, len(grid) // 20)]
    score = _Score(reference, operators, coarse, N_PLANES)
    starts = _apart(grid[best], _score_many(score, grid[best], centre, lambda share: tick(0.1 * share)), operators, N_CANDIDATES)
    found = [_improve(score, grid[best[i]], centre, 0.05, fit_centre, lambda: tick(2e-4)) for i in starts]
    value = np.array([score(r[None], t)[0] for r, t in found])
    score = _Score(reference, operators, fine, N_PLANES, seed=1)
    ends = _apart(np.array([r for r, _ in found]), value, operators, N_REFINED)
    found = [_improve(score, *found[i], 0.02, fit_centre, lambda: tick(4e-4)) for i in ends]
    value = np.array([score(r[None], t)[0] for r, t in found])
    at = int(np.argmax(value))
    return SymmetryAxes(symmetry, *found[at], float(value[at]))


def improve_symmetry_axes(
    map_: np.ndarray, axes: SymmetryAxes, shells: int | None = None, fit_centre: bool = True
) -> SymmetryAxes:
    """Improve axes that are nearly right, within a few degrees; others of the map's axes stay out of reach.

    Parameters
    ----------
    map_ : (N, N, N) float
    axes : SymmetryAxes
    shells : int, optional
    fit_centre : bool
        As in :func:`find_symmetry_axes`.

    Returns
    -------
    SymmetryAxes
        The same for ``C1`` and for a map of zeros.
    """
    operators = symmetry_operators(axes.symmetry)
    x = np.asarray(map_, np.float64)
    if len(operators) == 1 or not np.any(x):
        return axes
    fine = _shells(x, shells)[1]
    score = _Score(FourierReference.from_map(x, 1.0, 2 * fine, 2.0), operators, fine, N_PLANES, seed=1)
    rotation, shift = _improve(score, axes.rotation, axes.shift, 0.02, fit_centre, lambda: None)
    return SymmetryAxes(axes.symmetry, rotation, shift, float(score(rotation[None], shift)[0]))


def axes_correlation(map_: np.ndarray, axes: SymmetryAxes, shells: int | None = None) -> float:
    """Correlation with the symmetry mates about given axes, measured as :func:`find_symmetry_axes` does.

    Parameters
    ----------
    map_ : (N, N, N) float
    axes : SymmetryAxes
    shells : int, optional
        As there.

    Returns
    -------
    float
        1 for C1, 0 for a map of zeros.
    """
    operators = symmetry_operators(axes.symmetry)
    x = np.asarray(map_, np.float64)
    if len(operators) == 1 or not np.any(x):
        return float(len(operators) == 1)
    fine = _shells(x, shells)[1]
    score = _Score(FourierReference.from_map(x, 1.0, 2 * fine, 2.0), operators, fine, N_PLANES, seed=1)
    return float(score(np.asarray(axes.rotation)[None], axes.shift)[0])


def _shells(x: np.ndarray, shells: int | None) -> tuple[int, int]:
    most = x.shape[-1] // 2 - 1
    fine = min(shells or FINE_SHELLS, most)
    return min(SEARCH_SHELLS, fine), fine


def _score_many(score: _Score, rotations: np.ndarray, centre: np.ndarray, tick: Callable[[float], object]) -> np.ndarray:
    per = max(1, 1_000_000 // (len(score.operators) * len(score.planes) * len(score.kx)))
    out = []
    for i in range(0, len(rotations), per):
        out.append(score(rotations[i : i + per], centre))
        tick(len(out[-1]) / len(rotations))
    return np.concatenate(out)


def _improve(
    score: _Score, rotation: np.ndarray, shift: np.ndarray, size: float, fit_centre: bool, tick: Callable[[], object]
) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import minimize

    def loss(p: np.ndarray) -> float:
        tick()
        moved = shift + p[3:] if fit_centre else shift
        # where the group leaves the centre free (along the axis of Cn) it stays
        free = 1e-7 * float((p[3:] ** 2).sum())
        return free - float(score((_rotation(p[:3]) @ rotation)[None], moved)[0])

    steps = np.diag([size] * 3 + [1.0] * 3) if fit_centre else size * np.eye(3)
    simplex = np.vstack([0 * steps[:1], steps])
    found = minimize(
        loss, simplex[0], method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 2e-4, "fatol": 1e-6, "maxfev": 400}
    )
    return _rotation(found.x[:3]) @ rotation, shift + found.x[3:] if fit_centre else shift


def _apart(rotations: np.ndarray, scores: np.ndarray, operators: np.ndarray, count: int) -> list[int]:
    """Positions of the best rotations that are not neighbours of each other, the best first."""
    chosen: list[int] = []
    for i in np.argsort(scores)[::-1]:
        mates = rotations[i] @ operators
        # trace of the relative rotation: 15 degrees apart
        near = any(np.einsum("ij,gij->g", rotations[c], mates).max() > 1 + 2 * np.cos(np.radians(15)) for c in chosen)
        if not near:
            chosen.append(int(i))
        if len(chosen) == count:
            break
    return chosen


def spline_coefficients(x: Any) -> Any:
    """Coefficients of the cubic spline through a volume's voxels, on the device of the volume.

    Parameters
    ----------
    x : (Z, Y, X) numpy or cupy array

    Returns
    -------
    (Z, Y, X), of its type
    """
    kernels = backend_of(x)
    if kernels is None:
        raise TypeError(f"an array of numpy or cupy is wanted, not {type(x)}")
    out = kernels.to_device(x).copy()
    n_z, n_y, n_x = out.shape
    for lines in (out.reshape(1, n_z, n_y * n_x), out, out.reshape(n_z * n_y, n_x, 1)):
        if lines.shape[1] > 1:
            kernels.spline_filter(lines)
    return out


def place_on_axes(map_: np.ndarray, axes: SymmetryAxes, symmetrise: bool = True) -> np.ndarray:
    """Rotate and shift a map onto the axes of its point group, by cubic splines in real space.

    Parameters
    ----------
    map_ : (N, N, N) float
    axes : SymmetryAxes
    symmetrise : bool
        Average over the group.

    Returns
    -------
    (N, N, N) float64
    """
    x = spline_coefficients(np.asarray(map_, np.float64))
    operators = symmetry_operators(axes.symmetry) if symmetrise else np.eye(3)[None]
    out = np.empty_like(x)
    CPU.mean_over_rotations_spline(x, axes.rotation @ operators, -np.asarray(axes.shift, float), 0, len(x), out)
    return out
