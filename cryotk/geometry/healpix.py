"""HEALPix pixels in the NEST scheme: equal-area directions on the sphere (Gorski et al. 2005).

Angles are RELION's: ``rot`` is the longitude in (-180, 180], ``tilt`` the colatitude, in degrees.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["angles_to_pixel", "children", "n_pixels", "pixel_to_angles"]

_ROW = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])
_COLUMN = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])


def n_pixels(order: int) -> int:
    """Number of pixels of the grid of ``order``: ``12 * 4^order``."""
    return 12 * 4**order


def _spread(v: np.ndarray, order: int) -> np.ndarray:
    out = np.zeros_like(v)
    for b in range(order):
        out |= ((v >> b) & 1) << (2 * b)
    return out


def _compress(v: np.ndarray, order: int) -> np.ndarray:
    out = np.zeros_like(v)
    for b in range(order):
        out |= ((v >> (2 * b)) & 1) << b
    return out


def pixel_to_angles(order: int, pixel: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Centre of pixels.

    Parameters
    ----------
    order : int
    pixel : array_like of int, (...)
        NEST index.

    Returns
    -------
    rot, tilt : (...) float64, degrees.
    """
    p = np.asarray(pixel, np.int64)
    n = 2**order
    face, inside = np.divmod(p, n * n)
    x, y = _compress(inside, order), _compress(inside >> 1, order)
    ring = _ROW[face] * n - x - y - 1
    north, south = ring < n, ring > 3 * n
    nr = np.where(north, ring, np.where(south, 4 * n - ring, n))
    z = np.where(
        north, 1 - nr**2 / (3.0 * n * n), np.where(south, -1 + nr**2 / (3.0 * n * n), (2 * n - ring) * 2 / (3.0 * n))
    )
    shift = np.where(north | south, 0, (ring - n) & 1)
    column = (_COLUMN[face] * nr + x - y + 1 + shift) // 2
    column = np.where(column > 4 * n, column - 4 * n, column)
    column = np.where(column < 1, column + 4 * n, column)
    phi = (column - (shift + 1) * 0.5) * (np.pi / 2 / nr)
    rot = np.degrees(phi)
    rot = np.where(rot > 180, rot - 360, rot)
    return rot, np.degrees(np.arccos(np.clip(z, -1, 1)))


def angles_to_pixel(order: int, rot: ArrayLike, tilt: ArrayLike) -> np.ndarray:
    """NEST index of the pixel that holds each direction.

    Parameters
    ----------
    order : int
    rot, tilt : array_like, (...)
        Degrees.

    Returns
    -------
    (...) int64
    """
    n = 2**order
    z = np.cos(np.radians(np.asarray(tilt, float)))
    tt = np.mod(np.radians(np.asarray(rot, float)), 2 * np.pi) / (np.pi / 2)
    tt = np.where(tt >= 4, 0.0, tt)
    z, tt = np.broadcast_arrays(z, tt)
    # equatorial belt
    t1, t2 = n * (0.5 + tt), n * z * 0.75
    jp, jm = np.floor(t1 - t2).astype(np.int64), np.floor(t1 + t2).astype(np.int64)
    ifp, ifm = jp // n, jm // n
    face_e = np.where(ifp == ifm, (ifp & 3) + 4, np.where(ifp < ifm, ifp & 3, (ifm & 3) + 8))
    x_e, y_e = jm & (n - 1), n - (jp & (n - 1)) - 1
    # caps
    ntt = np.minimum(np.floor(tt).astype(np.int64), 3)
    tp = tt - ntt
    tmp = n * np.sqrt(3 * np.maximum(1 - np.abs(z), 0))
    cp = np.minimum(np.floor(tp * tmp).astype(np.int64), n - 1)
    cm = np.minimum(np.floor((1 - tp) * tmp).astype(np.int64), n - 1)
    up = z >= 0
    face_c = np.where(up, ntt, ntt + 8)
    x_c, y_c = np.where(up, n - cm - 1, cp), np.where(up, n - cp - 1, cm)
    belt = np.abs(z) <= 2 / 3
    face, x, y = np.where(belt, face_e, face_c), np.where(belt, x_e, x_c), np.where(belt, y_e, y_c)
    return face * n * n + _spread(x, order) + (_spread(y, order) << 1)


def children(order: int, pixel: ArrayLike, levels: int) -> np.ndarray:
    """Pixels of ``order + levels`` inside each pixel, the face's y index slowest.

    Returns
    -------
    (..., 4^levels) int64
    """
    p = np.asarray(pixel, np.int64)[..., None] << (2 * levels)
    m = 2**levels
    y, x = np.meshgrid(np.arange(m), np.arange(m), indexing="ij")
    inner = _spread(x.ravel(), levels) + (_spread(y.ravel(), levels) << 1)
    return p + inner
