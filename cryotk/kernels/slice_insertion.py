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
    """Numba twin of :func:`insert_slices_numpy` for volumes; flat float64 views and unsigned indices, as in extraction."""
    origin = r_max + 1
    limit = r_max * r_max + 1e-6
    n_x = data.shape[2]
    n_xy = n_x * data.shape[1]
    d, w, s = data.reshape(data.size).view(np.float64), weight.reshape(weight.size), slices.view(np.float32)
    i1, i2, i3 = np.uint64(1), np.uint64(2), np.uint64(3)
    for i in range(inverse.shape[0]):
        a00, a01 = inverse[i, 0, 0] * padding, inverse[i, 0, 1] * padding
        a10, a11 = inverse[i, 1, 0] * padding, inverse[i, 1, 1] * padding
        a20, a21 = inverse[i, 2, 0] * padding, inverse[i, 2, 1] * padding
        for p in range(kx.shape[0]):
            c = np.float64(weights[i, p])
            if not c > 0.0 or (kx[p] == 0 and ky[p] < 0):
                continue
            qx, qy = np.float64(kx[p]), np.float64(ky[p])
            x = a00 * qx + a01 * qy
            y = a10 * qx + a11 * qy
            z = a20 * qx + a21 * qy
            if x * x + y * y + z * z > limit:
                continue
            sign = -1.0 if x < 0 else 1.0
            re, im = np.float64(s[i, 2 * p]), sign * np.float64(s[i, 2 * p + 1])
            x = x * sign
            y = y * sign + origin
            z = z * sign + origin
            x0, y0, z0 = np.int64(x), np.int64(y), np.int64(z)
            fx, fy, fz = x - x0, y - y0, z - z0
            gx = 1.0 - fx
            base = z0 * n_xy + y0 * n_x + x0
            for b in range(2):
                wz = fz if b else 1.0 - fz
                for a in range(2):
                    f = wz * (fy if a else 1.0 - fy)
                    lo, hi = f * gx, f * fx
                    k = np.uint64(base + b * n_xy + a * n_x)
                    q = k + k
                    d[q] += lo * re
                    d[q + i1] += lo * im
                    d[q + i2] += hi * re
                    d[q + i3] += hi * im
                    w[k] += lo * c
                    w[k + i1] += hi * c


@_jit
def insert_slices_2d(data, weight, slices, weights, inverse, kx, ky, padding, r_max):
    """Numba twin of :func:`insert_slices_numpy` for images."""
    origin = r_max + 1
    limit = r_max * r_max + 1e-6
    n_x = data.shape[1]
    d, w, s = data.reshape(data.size).view(np.float64), weight.reshape(weight.size), slices.view(np.float32)
    i1, i2, i3 = np.uint64(1), np.uint64(2), np.uint64(3)
    for i in range(inverse.shape[0]):
        a00, a01 = inverse[i, 0, 0] * padding, inverse[i, 0, 1] * padding
        a10, a11 = inverse[i, 1, 0] * padding, inverse[i, 1, 1] * padding
        for p in range(kx.shape[0]):
            c = np.float64(weights[i, p])
            if not c > 0.0 or (kx[p] == 0 and ky[p] < 0):
                continue
            qx, qy = np.float64(kx[p]), np.float64(ky[p])
            x = a00 * qx + a01 * qy
            y = a10 * qx + a11 * qy
            if x * x + y * y > limit:
                continue
            sign = -1.0 if x < 0 else 1.0
            re, im = np.float64(s[i, 2 * p]), sign * np.float64(s[i, 2 * p + 1])
            x = x * sign
            y = y * sign + origin
            x0, y0 = np.int64(x), np.int64(y)
            fx, fy = x - x0, y - y0
            gx = 1.0 - fx
            base = y0 * n_x + x0
            for a in range(2):
                f = fy if a else 1.0 - fy
                lo, hi = f * gx, f * fx
                k = np.uint64(base + a * n_x)
                q = k + k
                d[q] += lo * re
                d[q + i1] += lo * im
                d[q + i2] += hi * re
                d[q + i3] += hi * im
                w[k] += lo * c
                w[k + i1] += hi * c


# One thread per pixel of a slice. Pixels of many slices meet in one point: they are added as 64-bit integers, whose sum does
# not depend on the order, and turned into doubles by add_integers.
CUDA_SOURCE = r"""
inline __device__ void add_scaled(long long* at, double value)
{
    atomicAdd((unsigned long long*)at, (unsigned long long)__double2ll_rn(value));
}

// data and weight of grid points, as integers of units 1 / data_scale and 1 / weight_scale, added to doubles.
extern "C" __global__ void add_integers(
    const long long* __restrict__ integers, const long long* __restrict__ weight_integers, double data_scale, double weight_scale,
    long long n, double2* data, double* weight)
{
    for (long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x; k < n; k += (long long)gridDim.x * blockDim.x) {
        data[k].x += integers[2 * k] / data_scale;
        data[k].y += integers[2 * k + 1] / data_scale;
        weight[k] += weight_integers[k] / weight_scale;
    }
}

extern "C" __global__ void insert_slices_3d(
    long long* data, long long* weight, double data_scale, double weight_scale, int n_y, int n_x, const float2* __restrict__ slices, const float* __restrict__ weights,
    const double* __restrict__ inverse, const int* __restrict__ kx, const int* __restrict__ ky, int n_slices, int n_pixels,
    double padding, int r_max)
{
    const long long total = (long long)n_slices * n_pixels;
    const double limit = (double)r_max * r_max + 1e-6;
    const int origin = r_max + 1;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const double* m = inverse + 9 * (t / n_pixels);
        const int p = (int)(t % n_pixels);
        const double c = weights[t];
        if (!(c > 0.0) || (kx[p] == 0 && ky[p] < 0)) continue;
        const double qx = kx[p] * padding, qy = ky[p] * padding;
        double x = m[0] * qx + m[1] * qy, y = m[3] * qx + m[4] * qy, z = m[6] * qx + m[7] * qy;
        if (x * x + y * y + z * z > limit) continue;
        const double sign = x < 0 ? -1.0 : 1.0;
        const double re = slices[t].x, im = sign * slices[t].y;
        x *= sign;
        y = y * sign + origin;
        z = z * sign + origin;
        const int x0 = (int)x, y0 = (int)y, z0 = (int)z;
        const double fx = x - x0, fy = y - y0, fz = z - z0;
        for (int b = 0; b < 2; b++)
            for (int a = 0; a < 2; a++) {
                const double f = (b ? fz : 1.0 - fz) * (a ? fy : 1.0 - fy);
                const long long k = ((long long)(z0 + b) * n_y + y0 + a) * n_x + x0;
                for (int e = 0; e < 2; e++) {
                    const double g = f * (e ? fx : 1.0 - fx);
                    add_scaled(&data[2 * (k + e)], g * re * data_scale);
                    add_scaled(&data[2 * (k + e) + 1], g * im * data_scale);
                    add_scaled(&weight[k + e], g * c * weight_scale);
                }
            }
    }
}

extern "C" __global__ void insert_slices_2d(
    long long* data, long long* weight, double data_scale, double weight_scale, int n_x, const float2* __restrict__ slices, const float* __restrict__ weights,
    const double* __restrict__ inverse, const int* __restrict__ kx, const int* __restrict__ ky, int n_slices, int n_pixels,
    double padding, int r_max)
{
    const long long total = (long long)n_slices * n_pixels;
    const double limit = (double)r_max * r_max + 1e-6;
    const int origin = r_max + 1;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const double* m = inverse + 9 * (t / n_pixels);
        const int p = (int)(t % n_pixels);
        const double c = weights[t];
        if (!(c > 0.0) || (kx[p] == 0 && ky[p] < 0)) continue;
        const double qx = kx[p] * padding, qy = ky[p] * padding;
        double x = m[0] * qx + m[1] * qy, y = m[3] * qx + m[4] * qy;
        if (x * x + y * y > limit) continue;
        const double sign = x < 0 ? -1.0 : 1.0;
        const double re = slices[t].x, im = sign * slices[t].y;
        x *= sign;
        y = y * sign + origin;
        const int x0 = (int)x, y0 = (int)y;
        const double fx = x - x0, fy = y - y0;
        for (int a = 0; a < 2; a++) {
            const double f = a ? fy : 1.0 - fy;
            const long long k = (long long)(y0 + a) * n_x + x0;
            for (int e = 0; e < 2; e++) {
                const double g = f * (e ? fx : 1.0 - fx);
                add_scaled(&data[2 * (k + e)], g * re * data_scale);
                add_scaled(&data[2 * (k + e) + 1], g * im * data_scale);
                add_scaled(&weight[k + e], g * c * weight_scale);
            }
        }
    }
}
"""


def _scale(top, n):
    """The power of two with which ``n`` slices of values up to ``top`` stay below 2^62; three bits for pixels that meet."""
    return 2.0 ** (59 - int(np.ceil(np.log2(max(n, 1)))) - int(np.frexp(top)[1])) if top > 0 else 1.0


def _insert_cuda(gpu, data, weight, slices, weights, inverse, kx, ky, padding, r_max):
    if slices.size == 0:
        return
    xp = gpu.xp
    top = max(float(abs(slices.real).max()), float(abs(slices.imag).max()))
    scales = np.float64(_scale(top, len(slices))), np.float64(_scale(float(weights.max()), len(slices)))
    integers, weight_integers = xp.zeros((*data.shape, 2), np.int64), xp.zeros(weight.shape, np.int64)
    gpu.launch(
        CUDA_SOURCE, f"insert_slices_{data.ndim}d", gpu.spread(slices.size), 256, integers, weight_integers, *scales,
        *(np.int32(n) for n in data.shape[1:]), slices, weights, inverse, kx, ky, np.int32(len(slices)), np.int32(len(kx)),
        np.float64(padding), np.int32(r_max),
    )  # fmt: skip
    gpu.launch(
        CUDA_SOURCE, "add_integers", gpu.spread(weight.size), 256, integers, weight_integers, *scales, np.int64(weight.size), data,
        weight,
    )  # fmt: skip


def insert_slices_3d_cuda(gpu, data, weight, slices, weights, inverse, kx, ky, padding, r_max):
    """CUDA twin of :func:`insert_slices_numpy` for volumes."""
    _insert_cuda(gpu, data, weight, slices, weights, inverse, kx, ky, padding, r_max)


def insert_slices_2d_cuda(gpu, data, weight, slices, weights, inverse, kx, ky, padding, r_max):
    """CUDA twin of :func:`insert_slices_numpy` for images."""
    _insert_cuda(gpu, data, weight, slices, weights, inverse, kx, ky, padding, r_max)
