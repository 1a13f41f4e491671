"""Euler angles in RELION's convention and rotation matrices.

``A = Rz(psi) Ry(tilt) Rz(rot)`` in the passive sense maps volume coordinates to image coordinates; the third row is the
projection direction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["angular_distance", "euler_to_matrix", "matrix_to_euler"]


def euler_to_matrix(rot: ArrayLike, tilt: ArrayLike, psi: ArrayLike) -> np.ndarray:
    """Rotation matrices of Euler angles.

    Parameters
    ----------
    rot, tilt, psi : array_like, (...)
        Degrees; broadcast against each other.

    Returns
    -------
    (..., 3, 3) float64
    """
    a, b, g = np.broadcast_arrays(*(np.radians(np.asarray(v, float)) for v in (rot, tilt, psi)))
    ca, sa, cb, sb, cg, sg = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(g), np.sin(g)
    out = np.empty((*a.shape, 3, 3))
    out[..., 0, 0] = cg * cb * ca - sg * sa
    out[..., 0, 1] = cg * cb * sa + sg * ca
    out[..., 0, 2] = -cg * sb
    out[..., 1, 0] = -sg * cb * ca - cg * sa
    out[..., 1, 1] = -sg * cb * sa + cg * ca
    out[..., 1, 2] = sg * sb
    out[..., 2, 0] = sb * ca
    out[..., 2, 1] = sb * sa
    out[..., 2, 2] = cb
    return out


def matrix_to_euler(matrix: ArrayLike) -> np.ndarray:
    """Euler angles of rotation matrices; the inverse of :func:`euler_to_matrix`.

    Parameters
    ----------
    matrix : array_like, (..., 3, 3)

    Returns
    -------
    (..., 3) float64
        rot, tilt, psi in degrees; tilt in [0, 180]; rot = 0 where the direction is an axis.
    """
    m = np.asarray(matrix, float)
    sine = np.hypot(m[..., 0, 2], m[..., 1, 2])
    regular = sine > 16 * np.finfo(np.float32).eps
    psi = np.where(regular, np.arctan2(m[..., 1, 2], -m[..., 0, 2]), 0.0)
    rot = np.where(regular, np.arctan2(m[..., 2, 1], m[..., 2, 0]), 0.0)
    tilt = np.arctan2(sine, m[..., 2, 2])
    up = m[..., 2, 2] > 0
    flat = np.where(up, np.arctan2(-m[..., 1, 0], m[..., 0, 0]), np.arctan2(m[..., 1, 0], -m[..., 0, 0]))
    psi = np.where(regular, psi, flat)
    tilt = np.where(regular, tilt, np.where(up, 0.0, np.pi))
    return np.degrees(np.stack([rot, tilt, psi], -1))


def angular_distance(first: ArrayLike, second: ArrayLike, operators: ArrayLike | None = None) -> np.ndarray:
    """Mean angle between the axes of two orientations, the smallest over a point group.

    Parameters
    ----------
    first, second : array_like, (..., 3, 3)
    operators : array_like, (n, 3, 3), optional
        Point group; ``second @ operator`` are the equivalent poses.

    Returns
    -------
    (...) float64, degrees.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    ops = np.eye(3)[None] if operators is None else np.asarray(operators, float)
    best = None
    for op in ops:
        dots = np.clip(np.einsum("...ij,...ij->...i", a, b @ op), -1, 1)
        angle = np.degrees(np.arccos(dots)).mean(-1)
        best = angle if best is None else np.minimum(best, angle)
    assert best is not None
    return best
