"""Rotations rounded as RELION 5.0.1 rounds them, for pixels that lie exactly on the sphere on which a transform ends.

Such a pixel is inserted where the rounded square of its rotated vector is not above the square of the radius. Which way the last
bit goes follows from three facts: the Euler angles' products and sums are fused (one rounding for ``a * b + c``), the inverse is that
of cofactors divided by the determinant, and the rotated vector's square is summed from the middle outwards, fused too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["beyond_the_sphere", "rounded_rotations"]


@intrinsic
def _fused(_typing: Any, _a: Any, _b: Any, _c: Any) -> Any:
    """One rounding for a * b + c."""
    signature = types.float64(types.float64, types.float64, types.float64)
    return signature, lambda _context, builder, _signature, values: builder.fma(*values)


@njit(cache=True, nogil=True)
def rounded_rotations(angles: np.ndarray) -> np.ndarray:
    """(n, 3, 3) matrices of (n, 3) Euler angles in degrees."""
    out = np.empty((len(angles), 3, 3))
    for i in range(len(angles)):
        a, b, g = angles[i, 0] * math.pi / 180.0, angles[i, 1] * math.pi / 180.0, angles[i, 2] * math.pi / 180.0
        ca, sa, cb, sb, cg, sg = math.cos(a), math.sin(a), math.cos(b), math.sin(b), math.cos(g), math.sin(g)
        cc, cs = cb * ca, cb * sa
        out[i, 0, 0], out[i, 0, 1], out[i, 0, 2] = _fused(cg, cc, -(sg * sa)), _fused(cg, cs, sg * ca), -cg * sb
        out[i, 1, 0], out[i, 1, 1], out[i, 1, 2] = _fused(-sg, cc, -(cg * sa)), _fused(-sg, cs, cg * ca), sg * sb
        out[i, 2, 0], out[i, 2, 1], out[i, 2, 2] = sb * ca, sb * sa, cb
    return out


@njit(cache=True, nogil=True)
def _minor(a: float, b: float, c: float, d: float) -> float:
    return _fused(a, b, -(c * d))


@njit(cache=True, nogil=True)
def beyond_the_sphere(matrices: np.ndarray, kx: np.ndarray, ky: np.ndarray, padding: float, r_max: int) -> np.ndarray:
    """(n, P): which pixels of slices at (n, 3, 3) rotations are found outside ``r_max`` points of the padded transform."""
    out = np.zeros((len(matrices), len(kx)), np.bool_)
    limit = float(r_max) * float(r_max)
    for i in range(len(matrices)):
        m = matrices[i]
        # the first two columns of the inverse: cofactors by the determinant
        x0, x1 = _minor(m[2, 2], m[1, 1], m[2, 1], m[1, 2]), -_minor(m[2, 2], m[0, 1], m[2, 1], m[0, 2])
        y0, y1 = -_minor(m[2, 2], m[1, 0], m[2, 0], m[1, 2]), _minor(m[2, 2], m[0, 0], m[2, 0], m[0, 2])
        z0, z1 = _minor(m[2, 1], m[1, 0], m[2, 0], m[1, 1]), -_minor(m[2, 1], m[0, 0], m[2, 0], m[0, 1])
        third = _minor(m[1, 2], m[0, 1], m[1, 1], m[0, 2])
        det = _fused(m[2, 0], third, _fused(m[0, 0], x0, m[1, 0] * x1))
        x0, x1, y0, y1, z0, z1 = (x0 / det, x1 / det, y0 / det, y1 / det, z0 / det, z1 / det)
        for p in range(len(kx)):
            x = _fused(x0 * padding, kx[p], x1 * padding * ky[p])
            y = _fused(y0 * padding, kx[p], y1 * padding * ky[p])
            z = _fused(z0 * padding, kx[p], z1 * padding * ky[p])
            out[i, p] = _fused(z, z, _fused(x, x, y * y)) > limit
    return out
