"""How near a result is to a known truth: maps up to rotation and hand, 2D classes by the views they hold together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryotk.fourier import fourier_shell_correlation, resize
from cryotk.geometry import directions, euler_to_matrix
from cryotk.projection.reference import FourierReference
from cryotk.projection.symmetry_search import SymmetryAxes, place_on_axes

__all__ = ["MapFit", "fit_map", "view_spread"]

N_PLANES = 6


@dataclass(frozen=True)
class MapFit:
    """A map laid over the truth."""

    map_: np.ndarray
    """(N, N, N) the map, turned, moved and mirrored as found."""
    correlation: float
    """Inside the sphere, at twice the resolution asked for."""
    fsc: np.ndarray
    """(S,) inside a soft sphere."""
    mirrored: bool

    def resolution(self, pixel_size: float, level: float = 0.5) -> float:
        """Å at which the FSC first falls below a level."""
        below = np.nonzero(self.fsc[1:] < level)[0]
        shell = int(below[0]) if len(below) else len(self.fsc) - 1
        return len(self.map_) * pixel_size / shell if shell else np.inf


def fit_map(
    map_: np.ndarray,
    truth: np.ndarray,
    pixel_size: float,
    *,
    symmetry: str = "C1",
    radius: float = 100.0,
    fsc_radius: float = 92.0,
    pixel: float = 9.44,
    shells: int = 10,
) -> MapFit:
    """Lay a map over the truth, by rotation, shift and either hand, and compare.

    Parameters
    ----------
    map_, truth : (N, N, N) float
    pixel_size : float
        Å.
    symmetry : str
        Of the truth: rotations that differ by it are tried once.
    radius, pixel : float
        Å; the correlation is taken inside a sphere, of maps resampled to about this pixel size.
    fsc_radius : float
        Å; of the soft sphere (edge 4 pixels) that the FSC is taken in.
    shells : int
        Fourier shells that the fit looks at.
    """
    from scipy.optimize import minimize
    from scipy.spatial.transform import Rotation

    n = map_.shape[-1]
    kx, ky, planes, weight = _planes(shells)
    reference = FourierReference.from_map(truth, 1.0, 2 * shells, 2.0)
    wanted = reference.slices(np.swapaxes(planes, -1, -2), kx, ky)
    points = np.stack([kx, ky, 0 * kx], -1).astype(float)
    rot, tilt = directions(3, symmetry)
    psi = np.arange(48) * 7.5
    # rotations take points of the truth to points of the map, modulo the truth's own group
    grid = euler_to_matrix(rot[:, None], tilt[:, None], psi[None]).reshape(-1, 3, 3)
    best: tuple[float, bool, np.ndarray, np.ndarray] | None = None
    for mirrored in (False, True):
        moved = FourierReference.from_map(_mirror(map_) if mirrored else map_, 1.0, 2 * shells, 2.0)

        def score(rotations: np.ndarray, shift: np.ndarray, moved: FourierReference = moved) -> np.ndarray:
            m = (rotations[:, None] @ planes[None]).reshape(-1, 3, 3)
            f = moved.slices(np.swapaxes(m, -1, -2), kx, ky)
            if np.any(shift):
                f = f * np.exp((-2j * np.pi / n) * ((shift @ m) @ points.T))
            f = f.reshape(len(rotations), *wanted.shape)
            cross = ((f * wanted.conj()).real * weight).sum((1, 2))
            power = np.sqrt((np.abs(f) ** 2 * weight).sum((1, 2)) * (np.abs(wanted) ** 2 * weight).sum())
            return np.asarray(cross / np.maximum(power, 1e-300))

        values = np.concatenate([score(grid[i : i + 500], np.zeros(3)) for i in range(0, len(grid), 500)])
        for start in grid[np.argsort(values)[::-1][:3]]:

            def loss(p: np.ndarray, start: np.ndarray = start, score: object = score) -> float:
                return -float(score((Rotation.from_rotvec(p[:3]).as_matrix() @ start)[None], p[3:])[0])  # type: ignore[operator]

            simplex = np.vstack([np.zeros(6), np.diag([0.06] * 3 + [1.0] * 3)])
            found = minimize(loss, np.zeros(6), method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": 400})
            if best is None or -found.fun > best[0]:
                best = -found.fun, mirrored, Rotation.from_rotvec(found.x[:3]).as_matrix() @ start, found.x[3:]
    assert best is not None
    _value, mirrored, rotation, shift = best
    laid = place_on_axes(_mirror(map_) if mirrored else map_, SymmetryAxes("C1", rotation, shift, 0.0))
    k = np.arange(n) - n // 2
    r = np.sqrt((k**2)[:, None, None] + (k**2)[None, :, None] + (k**2)[None, None]) * pixel_size
    edge = np.clip((fsc_radius + 4 * pixel_size - r) / (4 * pixel_size), 0, 1)
    soft = 0.5 - 0.5 * np.cos(np.pi * edge)
    small = int(2 * round(n * pixel_size / pixel / 2))
    a, b = np.asarray(resize(laid, small)), np.asarray(resize(truth, small))
    j = np.arange(small) - small // 2
    inside = np.sqrt((j**2)[:, None, None] + (j**2)[None, :, None] + (j**2)[None, None]) * (n * pixel_size / small) < radius
    fsc = np.asarray(fourier_shell_correlation(laid * soft, truth * soft))
    return MapFit(laid, float(np.corrcoef(a[inside], b[inside])[0, 1]), fsc, mirrored)


def _planes(shells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points of a few central planes, and their weight: a plane has k points per shell where space has k^2."""
    k = np.arange(-shells, shells + 1)
    ky, kx = np.meshgrid(k, np.arange(shells + 1), indexing="ij")
    r2 = kx**2 + ky**2
    keep = (r2 <= shells**2) & (r2 > 0) & ~((kx == 0) & (ky < 0))
    rng = np.random.default_rng(0)
    tilt = np.degrees(np.arccos(rng.uniform(-1, 1, N_PLANES)))
    planes = np.swapaxes(euler_to_matrix(rng.uniform(-180, 180, N_PLANES), tilt, np.zeros(N_PLANES)), -1, -2)
    return kx[keep].astype(np.int32), ky[keep].astype(np.int32), planes, np.sqrt(r2[keep].astype(float))


def _mirror(map_: np.ndarray) -> np.ndarray:
    """The other hand, around the same centre."""
    flipped = map_[..., ::-1]
    return np.roll(flipped, 1, -1) if map_.shape[-1] % 2 == 0 else flipped


def view_spread(class_number: np.ndarray, view: np.ndarray, signs: np.ndarray | None = None) -> tuple[float, float]:
    """How far the views of a class are from its central one.

    Parameters
    ----------
    class_number : (n,) int
        From 1; 0 is left out.
    view : (n, 3) float
        True viewing directions.
    signs : (m, 3, 3) float, optional
        Operators under which directions are equal (a point group and mirrors); the identity and its negative by default.

    Returns
    -------
    median, share
        Median angle in degrees to the central particle of the class, and the share of particles below 30 degrees.
    """
    operators = np.array([np.eye(3), -np.eye(3)]) if signs is None else np.asarray(signs, float)
    angle = np.full(len(class_number), np.nan)
    for k in np.unique(class_number[class_number > 0]):
        rows = np.nonzero(class_number == k)[0]
        cosine = np.max([view[rows] @ (view[rows] @ g.T).T for g in operators], axis=0)
        between = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        angle[rows] = between[between.sum(1).argmin()]
    return float(np.nanmedian(angle)), float(np.nanmean(angle < 30))
