"""Central slices out of a padded half transform, by linear interpolation.

Volumes are stored ``[z, y, x]`` with ``x >= 0`` and z, y centred at index ``r_max + 1``; images the same without z. A
lookup at negative x takes the conjugate of the opposite point.
"""

from __future__ import annotations

import numba
import numpy as np

from cryotk.kernels._corners import AT_ONCE, CHUNK, as_coordinates, interpolate_many, place_many
from cryotk.kernels._emit import WIDE

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


def extract_slices_numpy(volume, inverse, kx, ky, padding, r_max, places, out):
    """Slices of a volume or an image; the plain definition.

    Parameters
    ----------
    volume : (Z, Y, X) or (Y, X) complex
    inverse : (n, 3, 3) float
        Inverse rotations: a slice pixel (x, y) is looked up at ``padding * inverse @ (x, y, 0)``.
    kx, ky : (P,) int
    padding, r_max : float, int
        Pixels beyond ``r_max`` of the padded transform are 0.
    places : (n,) int64
        Where each slice goes in ``out``.
    out : (N, 2, P) float32, OUT
        Real and imaginary parts.
    """
    origin = r_max + 1
    k = np.stack([kx, ky], -1).astype(float) * padding
    for i, m in zip(places, inverse, strict=True):
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
        value = np.where(inside, np.where(flip, value.conj(), value), 0)
        out[i, 0], out[i, 1] = value.real, value.imag


@_jit
def extract_slices_3d(volume, inverse, kx, ky, padding, r_max, places, out):
    """Numba twin of :func:`extract_slices_numpy` for volumes, on a flat float32 view: no wrap-around checks."""
    step_y, step_z = 2 * volume.shape[2], 2 * volume.shape[2] * volume.shape[1]
    row, sheet = np.uint64(step_y), np.uint64(step_z)
    steps, limit, origin = (2.0, float(step_y), float(step_z)), r_max * r_max + 1e-6, float(r_max + 1)
    v = volume.reshape(volume.size).view(np.float32)
    n = np.uint64(kx.shape[0])
    xy = as_coordinates(kx, ky, False)
    x, y = xy[0], xy[1]
    place, fractions, sign = np.empty(CHUNK, np.int64), np.empty(3 * CHUNK, np.float32), np.empty(CHUNK, np.float32)
    re, im = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32)
    for i in range(inverse.shape[0]):
        m = inverse[i]
        matrix = (
            m[0, 0] * padding, m[0, 1] * padding, m[1, 0] * padding, m[1, 1] * padding, m[2, 0] * padding, m[2, 1] * padding
        )  # fmt: skip
        real, imag = out[places[i], 0], out[places[i], 1]
        for first in range(np.uint64(0), n, np.uint64(CHUNK)):
            for q in range(np.uint64(0), np.uint64(CHUNK), np.uint64(AT_ONCE)):
                place_many(x, y, first + q, matrix, limit, origin, steps, place, fractions, sign, q)
            for q in range(np.uint64(0), np.uint64(CHUNK), np.uint64(WIDE)):
                interpolate_many(v, row, sheet, place, fractions, sign, q, re, im)
            for p in range(min(np.uint64(CHUNK), n - first)):
                real[first + p] = re[p]
                imag[first + p] = im[p]


@_jit
def extract_slices_2d(image, inverse, kx, ky, padding, r_max, places, out):
    """Numba twin of :func:`extract_slices_numpy` for images."""
    origin = r_max + 1
    limit = r_max * r_max + 1e-6
    one = np.float32(1.0)
    step_y = 2 * image.shape[1]
    row = np.uint64(step_y)
    i1, i2, i3 = np.uint64(1), np.uint64(2), np.uint64(3)
    v = image.reshape(image.size).view(np.float32)
    for i in range(inverse.shape[0]):
        a00, a01 = inverse[i, 0, 0] * padding, inverse[i, 0, 1] * padding
        a10, a11 = inverse[i, 1, 0] * padding, inverse[i, 1, 1] * padding
        real, imag = out[places[i], 0], out[places[i], 1]
        for p in range(kx.shape[0]):
            qx, qy = np.float64(kx[p]), np.float64(ky[p])
            x = a00 * qx + a01 * qy
            y = a10 * qx + a11 * qy
            if x * x + y * y > limit:
                real[p] = 0
                imag[p] = 0
                continue
            sign = -1.0 if x < 0 else 1.0
            x = x * sign
            y = y * sign + origin
            x0, y0 = np.int64(x), np.int64(y)
            fx, fy = np.float32(x - x0), np.float32(y - y0)
            gx, gy = one - fx, one - fy
            b0 = np.uint64(y0 * step_y + 2 * x0)
            b1 = b0 + row
            s0 = gy * v[b0] + fy * v[b1]
            s1 = gy * v[b0 + i1] + fy * v[b1 + i1]
            s2 = gy * v[b0 + i2] + fy * v[b1 + i2]
            s3 = gy * v[b0 + i3] + fy * v[b1 + i3]
            real[p] = gx * s0 + fx * s2
            imag[p] = np.float32(sign) * (gx * s1 + fx * s3)


# One thread per pixel of a slice.
CUDA_SOURCE = r"""
extern "C" __global__ void extract_slices_3d(
    const float2* __restrict__ volume, int n_y, int n_x, const double* __restrict__ inverse, const int* __restrict__ kx,
    const int* __restrict__ ky, int n_slices, int n_pixels, double padding, int r_max,
    const long long* __restrict__ places, float* __restrict__ out)
{
    const long long total = (long long)n_slices * n_pixels;
    const double limit = (double)r_max * r_max + 1e-6;
    const int origin = r_max + 1;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const double* m = inverse + 9 * (t / n_pixels);
        const int p = (int)(t % n_pixels);
        float* real = out + 2 * places[t / n_pixels] * n_pixels + p;
        const double qx = kx[p] * padding, qy = ky[p] * padding;
        double x = m[0] * qx + m[1] * qy, y = m[3] * qx + m[4] * qy, z = m[6] * qx + m[7] * qy;
        if (x * x + y * y + z * z > limit) {
            real[0] = 0.0f;
            real[n_pixels] = 0.0f;
            continue;
        }
        const double sign = x < 0 ? -1.0 : 1.0;
        x *= sign;
        y = y * sign + origin;
        z = z * sign + origin;
        const int x0 = (int)x, y0 = (int)y, z0 = (int)z;
        const float fx = (float)(x - x0), fy = (float)(y - y0), fz = (float)(z - z0), gx = 1.0f - fx;
        float re = 0.0f, im = 0.0f;
        for (int b = 0; b < 2; b++)
            for (int a = 0; a < 2; a++) {
                const float w = (b ? fz : 1.0f - fz) * (a ? fy : 1.0f - fy);
                const float2* row = volume + ((long long)(z0 + b) * n_y + y0 + a) * n_x + x0;
                re += w * (gx * row[0].x + fx * row[1].x);
                im += w * (gx * row[0].y + fx * row[1].y);
            }
        real[0] = re;
        real[n_pixels] = (float)sign * im;
    }
}

extern "C" __global__ void extract_slices_2d(
    const float2* __restrict__ image, int n_x, const double* __restrict__ inverse, const int* __restrict__ kx,
    const int* __restrict__ ky, int n_slices, int n_pixels, double padding, int r_max,
    const long long* __restrict__ places, float* __restrict__ out)
{
    const long long total = (long long)n_slices * n_pixels;
    const double limit = (double)r_max * r_max + 1e-6;
    const int origin = r_max + 1;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const double* m = inverse + 9 * (t / n_pixels);
        const int p = (int)(t % n_pixels);
        float* real = out + 2 * places[t / n_pixels] * n_pixels + p;
        const double qx = kx[p] * padding, qy = ky[p] * padding;
        double x = m[0] * qx + m[1] * qy, y = m[3] * qx + m[4] * qy;
        if (x * x + y * y > limit) {
            real[0] = 0.0f;
            real[n_pixels] = 0.0f;
            continue;
        }
        const double sign = x < 0 ? -1.0 : 1.0;
        x *= sign;
        y = y * sign + origin;
        const int x0 = (int)x, y0 = (int)y;
        const float fx = (float)(x - x0), fy = (float)(y - y0), gx = 1.0f - fx;
        float re = 0.0f, im = 0.0f;
        for (int a = 0; a < 2; a++) {
            const float w = a ? fy : 1.0f - fy;
            const float2* row = image + (long long)(y0 + a) * n_x + x0;
            re += w * (gx * row[0].x + fx * row[1].x);
            im += w * (gx * row[0].y + fx * row[1].y);
        }
        real[0] = re;
        real[n_pixels] = (float)sign * im;
    }
}
"""


def extract_slices_3d_cuda(gpu, volume, inverse, kx, ky, padding, r_max, places, out):
    """CUDA twin of :func:`extract_slices_numpy` for volumes."""
    _, n_y, n_x = volume.shape
    gpu.launch(
        CUDA_SOURCE, "extract_slices_3d", gpu.spread(len(places) * len(kx)), 256, volume, np.int32(n_y), np.int32(n_x), inverse, kx, ky,
        np.int32(len(places)), np.int32(len(kx)), np.float64(padding), np.int32(r_max), places, out,
    )  # fmt: skip


def extract_slices_2d_cuda(gpu, image, inverse, kx, ky, padding, r_max, places, out):
    """CUDA twin of :func:`extract_slices_numpy` for images."""
    gpu.launch(
        CUDA_SOURCE, "extract_slices_2d", gpu.spread(len(places) * len(kx)), 256, image, np.int32(image.shape[1]), inverse, kx, ky,
        np.int32(len(places)), np.int32(len(kx)), np.float64(padding), np.int32(r_max), places, out,
    )  # fmt: skip
