"""Central slices out of a padded half transform, by linear interpolation.

Volumes are stored ``[z, y, x]`` with ``x >= 0`` and z, y centred at index ``r_max + 1``; images the same without z. A
lookup at negative x takes the conjugate of the opposite point.
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


def extract_slices_numpy(volume, inverse, kx, ky, padding, r_max):
    """Slices of a volume or an image; the plain definition.

    Parameters
    ----------
    volume : (Z, Y, X) or (Y, X) complex
    inverse : (n, 3, 3) float
        Inverse rotations: a slice pixel (x, y) is looked up at ``padding * inverse @ (x, y, 0)``.
    kx, ky : (P,) int
    padding, r_max : float, int
        Pixels beyond ``r_max`` of the padded transform are 0.

    Returns
    -------
    (n, P) complex64
    """
    origin = r_max + 1
    k = np.stack([kx, ky], -1).astype(float) * padding
    out = np.zeros((len(inverse), len(kx)), np.complex64)
    for i, m in enumerate(inverse):
        p = k @ m[: volume.ndim, :2].T
        inside = (p**2).sum(-1) <= r_max**2 + 1e-6
        flip = p[:, 0] < 0
        p = np.where(flip[:, None], -p, p)
        low = np.floor(p).astype(int)
        frac = p - low
        value = np.zeros(len(kx), complex)
        for corner in np.ndindex(*(2,) * volume.ndim):
            c = np.array(corner)
            weight = np.prod(np.where(c, frac, 1 - frac), -1)
            index = [low[:, 0] + c[0]] + [low[:, a] + c[a] + origin for a in range(1, volume.ndim)]
            index = [np.clip(v, 0, volume.shape[volume.ndim - 1 - a] - 1) for a, v in enumerate(index)]
            value += weight * volume[tuple(index[::-1])]
        out[i] = np.where(inside, np.where(flip, value.conj(), value), 0)
    return out


@_jit
def extract_slices_3d(volume, inverse, kx, ky, padding, r_max, out):
    """Numba twin of :func:`extract_slices_numpy` for volumes; ``out`` (n, P) complex64 is written."""
    origin = r_max + 1
    limit = r_max * r_max + 1e-6
    one = np.float32(1.0)
    for i in range(inverse.shape[0]):
        a00, a01 = inverse[i, 0, 0] * padding, inverse[i, 0, 1] * padding
        a10, a11 = inverse[i, 1, 0] * padding, inverse[i, 1, 1] * padding
        a20, a21 = inverse[i, 2, 0] * padding, inverse[i, 2, 1] * padding
        for p in range(kx.shape[0]):
            x = a00 * kx[p] + a01 * ky[p]
            y = a10 * kx[p] + a11 * ky[p]
            z = a20 * kx[p] + a21 * ky[p]
            if x * x + y * y + z * z > limit:
                out[i, p] = 0
                continue
            flip = x < 0
            if flip:
                x, y, z = -x, -y, -z
            y += origin
            z += origin
            # all three are >= 0: truncation is floor
            x0, y0, z0 = int(x), int(y), int(z)
            fx, fy, fz = np.float32(x - x0), np.float32(y - y0), np.float32(z - z0)
            gx, gy, gz = one - fx, one - fy, one - fz
            v = gz * (
                gy * (gx * volume[z0, y0, x0] + fx * volume[z0, y0, x0 + 1])
                + fy * (gx * volume[z0, y0 + 1, x0] + fx * volume[z0, y0 + 1, x0 + 1])
            ) + fz * (
                gy * (gx * volume[z0 + 1, y0, x0] + fx * volume[z0 + 1, y0, x0 + 1])
                + fy * (gx * volume[z0 + 1, y0 + 1, x0] + fx * volume[z0 + 1, y0 + 1, x0 + 1])
            )
            out[i, p] = np.conj(v) if flip else v


@_jit
def extract_slices_2d(image, inverse, kx, ky, padding, r_max, out):
    """Numba twin of :func:`extract_slices_numpy` for images; ``out`` (n, P) complex64 is written."""
    origin = r_max + 1
    limit = r_max * r_max + 1e-6
    one = np.float32(1.0)
    for i in range(inverse.shape[0]):
        a00, a01 = inverse[i, 0, 0] * padding, inverse[i, 0, 1] * padding
        a10, a11 = inverse[i, 1, 0] * padding, inverse[i, 1, 1] * padding
        for p in range(kx.shape[0]):
            x = a00 * kx[p] + a01 * ky[p]
            y = a10 * kx[p] + a11 * ky[p]
            if x * x + y * y > limit:
                out[i, p] = 0
                continue
            flip = x < 0
            if flip:
                x, y = -x, -y
            y += origin
            x0, y0 = int(x), int(y)
            fx, fy = np.float32(x - x0), np.float32(y - y0)
            gx, gy = one - fx, one - fy
            v = gy * (gx * image[y0, x0] + fx * image[y0, x0 + 1]) + fy * (
                gx * image[y0 + 1, x0] + fx * image[y0 + 1, x0 + 1]
            )
            out[i, p] = np.conj(v) if flip else v
