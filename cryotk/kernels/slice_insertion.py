"""Central slices into a padded half transform: the transpose of slice extraction, for data and weight together."""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


def insert_slices_numpy(data, weight, slices, weights, inverse, kx, ky, padding, r_max):
    """Add slices to a padded half transform; the plain definition.

    Parameters
    ----------
    data, weight : (Z, Y, X) or (Y, X), complex128 and float64, IN and OUT
    slices, weights : (n, P) complex, float
        Pixels with weight <= 0 are left out.
    inverse : (n, 3, 3) float
    kx, ky : (P,) int
        Pixels with ``kx == 0 and ky < 0`` are left out: they repeat their mates.
    padding, r_max : float, int
    """
    origin = r_max + 1
    k = np.stack([kx, ky], -1).astype(float) * padding
    for m, s, w in zip(inverse, slices, weights, strict=True):
        p = k @ m[: data.ndim, :2].T
        keep = ((p**2).sum(-1) <= r_max**2 + 1e-6) & (w > 0) & ~((kx == 0) & (ky < 0))
        p, s, w = p[keep], s[keep], w[keep]
        flip = p[:, 0] < 0
        p = np.where(flip[:, None], -p, p)
        s = np.where(flip, np.conj(s), s)
        low = np.floor(p).astype(int)
        frac = p - low
        for corner in np.ndindex(*(2,) * data.ndim):
            c = np.array(corner)
            f = np.prod(np.where(c, frac, 1 - frac), -1)
            index = tuple(([low[:, 0] + c[0]] + [low[:, a] + c[a] + origin for a in range(1, data.ndim)])[::-1])
            np.add.at(data, index, f * s)
            np.add.at(weight, index, f * w)


@_jit
def insert_slices_3d(data, weight, slices, weights, inverse, kx, ky, padding, r_max):
    """Numba twin of :func:`insert_slices_numpy` for volumes."""
    origin = r_max + 1
    limit = r_max * r_max + 1e-6
    for i in range(inverse.shape[0]):
        a00, a01 = inverse[i, 0, 0] * padding, inverse[i, 0, 1] * padding
        a10, a11 = inverse[i, 1, 0] * padding, inverse[i, 1, 1] * padding
        a20, a21 = inverse[i, 2, 0] * padding, inverse[i, 2, 1] * padding
        for p in range(kx.shape[0]):
            w = np.float64(weights[i, p])
            if not w > 0.0 or (kx[p] == 0 and ky[p] < 0):
                continue
            x = a00 * kx[p] + a01 * ky[p]
            y = a10 * kx[p] + a11 * ky[p]
            z = a20 * kx[p] + a21 * ky[p]
            if x * x + y * y + z * z > limit:
                continue
            v = np.complex128(slices[i, p])
            if x < 0:
                x, y, z = -x, -y, -z
                v = np.conj(v)
            y += origin
            z += origin
            x0, y0, z0 = int(x), int(y), int(z)
            fx, fy, fz = x - x0, y - y0, z - z0
            for c in range(2):
                wz = fz if c else 1.0 - fz
                for b in range(2):
                    wy = wz * (fy if b else 1.0 - fy)
                    lo, hi = wy * (1.0 - fx), wy * fx
                    data[z0 + c, y0 + b, x0] += lo * v
                    data[z0 + c, y0 + b, x0 + 1] += hi * v
                    weight[z0 + c, y0 + b, x0] += lo * w
                    weight[z0 + c, y0 + b, x0 + 1] += hi * w


@_jit
def insert_slices_2d(data, weight, slices, weights, inverse, kx, ky, padding, r_max):
    """Numba twin of :func:`insert_slices_numpy` for images."""
    origin = r_max + 1
    limit = r_max * r_max + 1e-6
    for i in range(inverse.shape[0]):
        a00, a01 = inverse[i, 0, 0] * padding, inverse[i, 0, 1] * padding
        a10, a11 = inverse[i, 1, 0] * padding, inverse[i, 1, 1] * padding
        for p in range(kx.shape[0]):
            w = np.float64(weights[i, p])
            if not w > 0.0 or (kx[p] == 0 and ky[p] < 0):
                continue
            x = a00 * kx[p] + a01 * ky[p]
            y = a10 * kx[p] + a11 * ky[p]
            if x * x + y * y > limit:
                continue
            v = np.complex128(slices[i, p])
            if x < 0:
                x, y = -x, -y
                v = np.conj(v)
            y += origin
            x0, y0 = int(x), int(y)
            fx, fy = x - x0, y - y0
            for b in range(2):
                wy = fy if b else 1.0 - fy
                lo, hi = wy * (1.0 - fx), wy * fx
                data[y0 + b, x0] += lo * v
                data[y0 + b, x0 + 1] += hi * v
                weight[y0 + b, x0] += lo * w
                weight[y0 + b, x0 + 1] += hi * w
