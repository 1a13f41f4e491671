"""Where the symmetry axes of a map are: a search over rotations in Fourier space, and the symmetrised map.

A map made without symmetry shows its point group around arbitrary axes. The search scores how well central slices agree
with their symmetry mates, over a grid of rotations first and then by continuous improvement of rotation and centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryotk.geometry import directions, euler_to_matrix, parse_symmetry, symmetry_operators
from cryotk.projection.reference import FourierReference

__all__ = ["SymmetryAxes", "find_symmetry_axes", "place_on_axes"]

SEARCH_ORDER = 3
N_PLANES = 6
N_CANDIDATES = 6
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
    """Agreement of a map's slices with their symmetry mates."""

    def __init__(self, map_: np.ndarray, operators: np.ndarray, shells: int, seed: int = 0) -> None:
        self.reference = FourierReference.from_map(map_, 1.0, 2 * shells, 2.0)
        self.box = map_.shape[-1]
        k = np.arange(-shells, shells + 1)
        ky, kx = np.meshgrid(k, np.arange(shells + 1), indexing="ij")
        r2 = kx**2 + ky**2
        keep = (r2 <= shells**2) & (r2 > 0) & ~((kx == 0) & (ky < 0))
        self.kx, self.ky = kx[keep].astype(np.int32), ky[keep].astype(np.int32)
        # a plane has k points per shell where space has k^2
        self.weight = np.sqrt(r2[keep].astype(float))
        rng = np.random.default_rng(seed)
        angles = rng.uniform(-180, 180, N_PLANES), np.degrees(np.arccos(rng.uniform(-1, 1, N_PLANES))), np.zeros(N_PLANES)
        self.planes = np.swapaxes(euler_to_matrix(*angles), -1, -2)
        self.operators = operators
        self.points = np.stack([self.kx, self.ky, 0 * self.kx], -1).astype(float)

    def __call__(self, rotations: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """(n,) mean correlation with the mates for (n, 3, 3) rotations."""
        n, g, j = len(rotations), len(self.operators), N_PLANES
        m = rotations[:, None, None] @ self.operators[None, :, None] @ self.planes[None, None]
        m = m.reshape(-1, 3, 3)
        f = self.reference.slices(np.swapaxes(m, -1, -2), self.kx, self.ky)
        if np.any(shift):
            # k.t of each point of each rotated plane
            dot = (np.asarray(shift) @ m) @ self.points.T
            f = f * np.exp((-2j * np.pi / self.box) * dot).astype(np.complex64)
        f = f.reshape(n, g, j, -1)
        power = (np.abs(f) ** 2 * self.weight).sum((2, 3), dtype=float)
        # the mean over the group carries all pairs at once
        mean = (np.abs(f.sum(1)) ** 2 * self.weight).sum((1, 2), dtype=float)
        total = power.sum(1)
        return (mean - total) / np.maximum((g - 1) * total, 1e-300)


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


def find_symmetry_axes(map_: np.ndarray, symmetry: str, shells: int | None = None) -> SymmetryAxes:
    """Find the axes of a point group in a map.

    Parameters
    ----------
    map_ : (N, N, N) float
        Masked, so that solvent does not count.
    symmetry : str
        ``Cn, Dn, T, O, I1 ... I4``.
    shells : int, optional
        Fourier shells the final fit uses, at most N / 2 - 1; 24 by default.

    Returns
    -------
    SymmetryAxes
        For ``C1`` and for a map of zeros the identity with correlation 0.
    """
    from scipy.optimize import minimize

    operators = symmetry_operators(symmetry)
    x = np.asarray(map_, np.float64)
    if len(operators) == 1 or not np.any(x):
        return SymmetryAxes(symmetry, np.eye(3), np.zeros(3), 0.0)
    most = x.shape[-1] // 2 - 1
    centre = -centre_of_mass(x)
    coarse = _Score(x, operators, min(SEARCH_SHELLS, most))
    grid = _grid(symmetry)
    per = max(1, 2_000_000 // (len(operators) * N_PLANES * len(coarse.kx)))
    scores = np.concatenate([coarse(grid[i : i + per], centre) for i in range(0, len(grid), per)])
    fine = _Score(x, operators, min(shells or FINE_SHELLS, most), seed=1)
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for start in _apart(grid, scores, operators):
        rotation, shift = start, centre
        # first where the coarse score led, then with all shells
        for score, size in ((coarse, 0.05), (fine, 0.02)):
            rotation, shift = _improve(score, rotation, shift, size, minimize)
        value = float(fine(rotation[None], shift)[0])
        if best is None or value > best[0]:
            best = value, rotation, shift
    assert best is not None
    return SymmetryAxes(symmetry, best[1], best[2], best[0])


def _improve(
    score: _Score, rotation: np.ndarray, shift: np.ndarray, size: float, minimize: object
) -> tuple[np.ndarray, np.ndarray]:
    def loss(p: np.ndarray) -> float:
        # where the group leaves the centre free (along the axis of Cn) it stays
        free = 1e-7 * float((p[3:] ** 2).sum())
        return free - float(score((_rotation(p[:3]) @ rotation)[None], shift + p[3:])[0])

    simplex = np.vstack([np.zeros(6), np.diag([size] * 3 + [1.0] * 3)])
    found = minimize(  # type: ignore[operator]
        loss, np.zeros(6), method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 2e-4, "fatol": 1e-6, "maxfev": 400},
    )  # fmt: skip
    return _rotation(found.x[:3]) @ rotation, shift + found.x[3:]


def _apart(grid: np.ndarray, scores: np.ndarray, operators: np.ndarray) -> list[np.ndarray]:
    """The best rotations of a grid that are not neighbours of each other."""
    chosen: list[np.ndarray] = []
    for i in np.argsort(scores)[::-1]:
        mates = grid[i] @ operators
        # trace of the relative rotation: 15 degrees apart
        near = any(np.einsum("ij,gij->g", c, mates).max() > 1 + 2 * np.cos(np.radians(15)) for c in chosen)
        if not near:
            chosen.append(grid[i])
        if len(chosen) == N_CANDIDATES:
            break
    return chosen


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
    import scipy.ndimage

    x = np.asarray(map_, np.float64)
    coefficients = scipy.ndimage.spline_filter(x, order=3, mode="constant")
    operators = symmetry_operators(axes.symmetry) if symmetrise else np.eye(3)[None]
    centre = np.full(3, x.shape[-1] // 2, float)
    out = np.zeros_like(x)
    for g in operators:
        # x y z to the arrays' z y x
        m = (axes.rotation @ g)[::-1, ::-1]
        offset = centre - axes.shift[::-1] - m @ centre
        out += scipy.ndimage.affine_transform(coefficients, m, offset, order=3, mode="constant", prefilter=False)
    return out / len(operators)
