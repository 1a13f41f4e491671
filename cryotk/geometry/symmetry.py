"""Point groups with RELION's axes, and the asymmetric unit of a grid of directions."""

from __future__ import annotations

import re

import numpy as np

from cryotk.errors import SettingsError
from cryotk.geometry import healpix
from cryotk.geometry.euler import euler_to_matrix

__all__ = ["directions", "parse_symmetry", "relaxation_operators", "symmetry_operators"]

_AXES: dict[str, list[tuple[int, tuple[float, float, float]]]] = {
    "T": [(3, (0, 0, 1)), (2, (0, 0.816496580927726, 0.577350269189626))],
    "O": [(3, (1, 1, 1)), (4, (0, 0, 1))],
    "I2": [(2, (0, 0, 1)), (5, (0.525731112119134, 0, 0.850650808352040)), (3, (0, 0.356822089773090, 0.934172358962716))],
    "I1": [(2, (1, 0, 0)), (5, (0.850650808352040, 0, -0.525731112119134)), (3, (0.934172358962716, 0.356822089773090, 0))],
    "I3": [(2, (-0.525731112119134, 0, 0.850650808352040)), (5, (0, 0, 1))],
    "I4": [(2, (0.525731112119134, 0, 0.850650808352040)), (5, (0.894427190999916, 0, 0.447213595499958))],
}
_ORDERS = {"T": 12, "O": 24, "I1": 60, "I2": 60, "I3": 60, "I4": 60}


def parse_symmetry(name: str) -> tuple[str, int]:
    """Split a point group name into its family and order, e.g. ``("D", 2)``.

    Raises
    ------
    SettingsError
        For a name that is no point group of RELION.
    """
    text = str(name).strip().upper()
    if text == "I":
        text = "I2"
    if text in _AXES:
        return text, 0
    match = re.fullmatch(r"([CD])(\d+)", text)
    if match and int(match[2]) > 0:
        return match[1], int(match[2])
    raise SettingsError(f"symmetry {name!r} is not known; use C1, C2, ..., D1, D2, ..., T, O, I1, I2, I3 or I4")


def _rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    u = np.asarray(axis, float)
    u = u / np.linalg.norm(u)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    k = np.array([[0, -u[2], u[1]], [u[2], 0, -u[0]], [-u[1], u[0], 0]])
    return np.eye(3) * c + s * k + (1 - c) * np.outer(u, u)


def symmetry_operators(name: str) -> np.ndarray:
    """Rotations of a point group, identity first.

    Parameters
    ----------
    name : str
        ``C1, Cn, Dn, T, O, I1 ... I4`` (``I`` is ``I2``).

    Returns
    -------
    (n, 3, 3) float64
    """
    family, n = parse_symmetry(name)
    if family in ("C", "D"):
        generators = [_rotation((0, 0, 1), 360.0 / n)] if n > 1 else []
        if family == "D":
            generators.append(_rotation((1, 0, 0), 180.0))
        order = n * (2 if family == "D" else 1)
    else:
        generators = [_rotation(axis, 360.0 / fold) for fold, axis in _AXES[family]]
        order = _ORDERS[family]
    found = [np.eye(3)]
    i = 0
    while i < len(found):
        for g in generators:
            new = found[i] @ g
            if all(np.abs(new - f).max() > 1e-4 for f in found):
                found.append(new)
        i += 1
        if len(found) > order:
            break
    out = np.array(found)
    if len(out) != order:
        raise AssertionError(f"{name}: {len(out)} operators, expected {order}")
    out[np.abs(out) < 1e-12] = 0
    return out


def relaxation_operators(symmetry: str, relaxed: str) -> np.ndarray:
    """One rotation of each set of poses that ``relaxed`` takes for the same and ``symmetry`` does not, identity first.

    Parameters
    ----------
    symmetry, relaxed : str
        Point groups; the first has to be a part of the second, on the same axes.

    Returns
    -------
    (n, 3, 3) float64
        n is the ratio of the groups' orders.

    Raises
    ------
    SettingsError
        When they are the same, or ``symmetry`` is not a part of ``relaxed``.
    """
    lower, upper = symmetry_operators(symmetry), symmetry_operators(relaxed)

    def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.abs(a[:, None] - b[None]).max((2, 3)) < 1e-4

    if not same(lower, upper).any(1).all():
        raise SettingsError(
            f"relax_symmetry = {relaxed!r} does not hold symmetry = {symmetry!r} on the same axes: symmetry is what the particle "
            "truly has (often 'C1'), relax_symmetry the higher one that it nearly has"
        )
    if len(lower) == len(upper):
        raise SettingsError(
            f"relax_symmetry = {relaxed!r} is symmetry = {symmetry!r} itself, nothing is relaxed: give the lower symmetry that the "
            "particle truly has as symmetry, e.g. 'C1'"
        )
    found: list[np.ndarray] = []
    for g in upper:
        if not found or not same(g[None], np.concatenate([f @ lower for f in found])).any():
            found.append(g)
    return np.array(found)


def _unit(rot: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    a, b = np.radians(rot), np.radians(tilt)
    return np.stack([np.sin(b) * np.cos(a), np.sin(b) * np.sin(a), np.cos(b)], -1)


def _in_unit(family: str, n: int, rot: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    if family == "C":
        return np.abs(rot) <= 180.0 / n + 1e-9 if n > 1 else np.ones(len(rot), bool)
    if family == "D":
        if n == 1:
            return tilt <= 90
        return (np.abs(rot - 90) <= 180.0 / n + 1e-9) & (tilt <= 90)
    v = _unit(rot, tilt)

    def inside(planes: np.ndarray, sign: float = 1.0) -> np.ndarray:
        unit = planes / np.linalg.norm(planes, axis=1, keepdims=True)
        return np.all(sign * (v @ unit.T) >= 0, axis=1)

    if family == "T":
        planes = np.array([[-1, 0, 0], [0.471405, 0.272165, 0.7698], [0.471404, 0.816497, 0]])
        return inside(planes) & (((rot >= 90) & (rot <= 150)) | (rot == 0))
    if family == "O":
        planes = np.array([[0, -1, 1], [1, 1, 0], [-1, 1, 0.0]])
        return inside(planes) & (((rot >= 45) & (rot <= 135) & (tilt <= 90)) | (rot == 0))
    i2 = np.array([[0, 1, 0], [-0.5, -0.809017, 0.309017], [0.5, -0.809017, 0.309017]])
    if family == "I2":
        return inside(i2)
    if family == "I1":
        return inside(i2 @ euler_to_matrix(0, 90, 0).T)
    if family == "I3":
        return inside(i2 @ euler_to_matrix(0, 31.7174745559, 0).T)
    i4 = np.array([[0, 0, 1], [0.187592, -0.303531, -0.491123], [0.187592, 0.303531, -0.491123]])
    return inside(i4 @ euler_to_matrix(0, -31.7174745559, 0).T, -1.0)


def directions(order: int, symmetry: str = "C1", limit_tilt: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Directions of a HEALPix grid inside the asymmetric unit, in RELION's order.

    Parameters
    ----------
    order : int
    symmetry : str
    limit_tilt : float, optional
        Keep ``|tilt| >= limit`` (positive) or ``|tilt| <= |limit|`` (negative), tilt folded to [-90, 90].

    Returns
    -------
    rot, tilt : (D,) float64, degrees.
    """
    rot, tilt = healpix.pixel_to_angles(order, np.arange(healpix.n_pixels(order)))
    if limit_tilt is not None:
        folded = np.abs(np.where(tilt > 90, tilt - 180, tilt))
        keep = folded >= limit_tilt if limit_tilt > 0 else folded <= abs(limit_tilt)
        rot, tilt = rot[keep], tilt[keep]
    family, n = parse_symmetry(symmetry)
    keep = _in_unit(family, n, rot, tilt)
    if not keep.any():
        # a unit smaller than the grid's cells: one direction of each set of mates, wherever it lies
        keep[:] = True
    rot, tilt = rot[keep], tilt[keep]
    if len(rot) >= 4000 or (family == "C" and n == 1):
        return rot, tilt
    # seams: a direction whose mate is already in the list is the same direction
    operators = symmetry_operators(symmetry)
    limit = np.cos(0.5 * _max_pixel_radius(order))
    v = _unit(rot, tilt)
    mates = np.einsum("nij,dj->dni", operators, v)
    kept: list[int] = []
    for i in range(len(v)):
        if kept and (mates[kept] @ v[i]).max() > limit:
            continue
        kept.append(i)
    return rot[kept], tilt[kept]


def _max_pixel_radius(order: int) -> float:
    """Largest distance of a pixel's corner from its centre, radians."""
    n = 2**order
    va = np.array([np.sqrt(1 - (2 / 3) ** 2) * np.cos(np.pi / (4 * n)), np.sqrt(1 - (2 / 3) ** 2) * np.sin(np.pi / (4 * n)), 2 / 3])
    t = (1 - 1.0 / n) ** 2
    z = 1 - t / 3
    vb = np.array([np.sqrt(1 - z * z), 0.0, z])
    return float(np.arccos(np.clip(va @ vb, -1, 1)))
