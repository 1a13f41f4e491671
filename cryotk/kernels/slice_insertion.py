"""Central slices into a padded half transform: the transpose of slice extraction, for data and weight together."""

from __future__ import annotations

import numba
import numpy as np

from cryotk.kernels._corners import AT_ONCE, CHUNK, as_coordinates, place_many
from cryotk.kernels._vectors import add_corner_pair

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


def insert_slices_numpy(data, weight, rows, weights, picked, inverse, kx, ky, padding, r_max):
    """Add slices to a padded half transform; the plain definition.

    Parameters
    ----------
    data, weight : (Z, Y, X) or (Y, X), complex128 and float64, IN and OUT
    rows, weights : (N, 2, P), (N, P) float32
        Real and imaginary parts of slices, and weights. Pixels with weight <= 0 are left out.
    picked : (n,) int64
        The slices to add.
    inverse : (n, 3, 3) float
        Of the picked ones.
    kx, ky : (P,) int
        Pixels with ``kx == 0 and ky < 0`` are left out: they repeat their mates.
    padding, r_max : float, int
    """
    origin = r_max + 1
    k = np.stack([kx, ky], -1).astype(float) * padding
    for m, i in zip(inverse, picked, strict=True):
        s, w = rows[i, 0] + 1j * rows[i, 1].astype(complex), weights[i]
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
def insert_slices_3d(data, weight, rows, weights, picked, inverse, kx, ky, padding, r_max):
    """Numba twin of :func:`insert_slices_numpy` for volumes."""
    n_x, n_xy = data.shape[2], data.shape[2] * data.shape[1]
    steps, limit, origin = (1.0, float(n_x), float(n_xy)), r_max * r_max + 1e-6, float(r_max + 1)
    d, w = data.reshape(data.size).view(np.float64), weight.reshape(weight.size)
    row, sheet = np.uint64(n_x), np.uint64(n_xy)
    n = np.uint64(kx.shape[0])
    xy = as_coordinates(kx, ky, True)
    x, y = xy[0], xy[1]
    place, fractions, sign = np.empty(CHUNK, np.int64), np.empty(3 * CHUNK), np.empty(CHUNK)
    axis_y, axis_z = np.uint64(CHUNK), np.uint64(2 * CHUNK)
    for i in range(inverse.shape[0]):
        m = inverse[i]
        matrix = (
            m[0, 0] * padding, m[0, 1] * padding, m[1, 0] * padding, m[1, 1] * padding, m[2, 0] * padding, m[2, 1] * padding
        )  # fmt: skip
        real, imag, of_row = rows[picked[i], 0], rows[picked[i], 1], weights[picked[i]]
        for first in range(np.uint64(0), n, np.uint64(CHUNK)):
            for q in range(np.uint64(0), np.uint64(CHUNK), np.uint64(AT_ONCE)):
                place_many(x, y, first + q, matrix, limit, origin, steps, place, fractions, sign, q)
            for p in range(min(np.uint64(CHUNK), n - first)):
                c, s = np.float64(of_row[first + p]), sign[p]
                if not c > 0.0 or s == 0.0:
                    continue
                fx, fy, fz = fractions[p], fractions[axis_y + p], fractions[axis_z + p]
                gx, gy, gz = 1.0 - fx, 1.0 - fy, 1.0 - fz
                re, im = np.float64(real[first + p]), s * np.float64(imag[first + p])
                k = np.uint64(place[p])
                add_corner_pair(d, w, k, gz * gy, gx, fx, re, im, c)
                add_corner_pair(d, w, k + row, gz * fy, gx, fx, re, im, c)
                k += sheet
                add_corner_pair(d, w, k, fz * gy, gx, fx, re, im, c)
                add_corner_pair(d, w, k + row, fz * fy, gx, fx, re, im, c)


@_jit
def insert_slices_2d(data, weight, rows, weights, picked, inverse, kx, ky, padding, r_max):
    """Numba twin of :func:`insert_slices_numpy` for images."""
    origin = r_max + 1
    limit = r_max * r_max + 1e-6
    n_x = data.shape[1]
    d, w = data.reshape(data.size).view(np.float64), weight.reshape(weight.size)
    for i in range(inverse.shape[0]):
        a00, a01 = inverse[i, 0, 0] * padding, inverse[i, 0, 1] * padding
        a10, a11 = inverse[i, 1, 0] * padding, inverse[i, 1, 1] * padding
        real, imag, of_row = rows[picked[i], 0], rows[picked[i], 1], weights[picked[i]]
        for p in range(kx.shape[0]):
            c = np.float64(of_row[p])
            if not c > 0.0 or (kx[p] == 0 and ky[p] < 0):
                continue
            qx, qy = np.float64(kx[p]), np.float64(ky[p])
            x = a00 * qx + a01 * qy
            y = a10 * qx + a11 * qy
            if x * x + y * y > limit:
                continue
            sign = -1.0 if x < 0 else 1.0
            re, im = np.float64(real[p]), sign * np.float64(imag[p])
            x = x * sign
            y = y * sign + origin
            x0, y0 = np.int64(x), np.int64(y)
            fx, fy = x - x0, y - y0
            gx, gy = 1.0 - fx, 1.0 - fy
            k = np.uint64(y0 * n_x + x0)
            add_corner_pair(d, w, k, gy, gx, fx, re, im, c)
            add_corner_pair(d, w, k + np.uint64(n_x), fy, gx, fx, re, im, c)


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
    long long* data, long long* weight, double data_scale, double weight_scale, int n_y, int n_x, const float* __restrict__ rows, const float* __restrict__ weights,
    const long long* __restrict__ picked, const double* __restrict__ inverse, const int* __restrict__ kx, const int* __restrict__ ky, int n_slices, int n_pixels,
    double padding, int r_max)
{
    const long long total = (long long)n_slices * n_pixels;
    const double limit = (double)r_max * r_max + 1e-6;
    const int origin = r_max + 1;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const double* m = inverse + 9 * (t / n_pixels);
        const long long slice = picked[t / n_pixels];
        const int p = (int)(t % n_pixels);
        const double c = weights[slice * n_pixels + p];
        if (!(c > 0.0) || (kx[p] == 0 && ky[p] < 0)) continue;
        const double qx = kx[p] * padding, qy = ky[p] * padding;
        double x = m[0] * qx + m[1] * qy, y = m[3] * qx + m[4] * qy, z = m[6] * qx + m[7] * qy;
        if (x * x + y * y + z * z > limit) continue;
        const double sign = x < 0 ? -1.0 : 1.0;
        const double re = rows[2 * slice * n_pixels + p], im = sign * rows[(2 * slice + 1) * n_pixels + p];
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
    long long* data, long long* weight, double data_scale, double weight_scale, int n_x, const float* __restrict__ rows, const float* __restrict__ weights,
    const long long* __restrict__ picked, const double* __restrict__ inverse, const int* __restrict__ kx, const int* __restrict__ ky, int n_slices, int n_pixels,
    double padding, int r_max)
{
    const long long total = (long long)n_slices * n_pixels;
    const double limit = (double)r_max * r_max + 1e-6;
    const int origin = r_max + 1;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const double* m = inverse + 9 * (t / n_pixels);
        const long long slice = picked[t / n_pixels];
        const int p = (int)(t % n_pixels);
        const double c = weights[slice * n_pixels + p];
        if (!(c > 0.0) || (kx[p] == 0 && ky[p] < 0)) continue;
        const double qx = kx[p] * padding, qy = ky[p] * padding;
        double x = m[0] * qx + m[1] * qy, y = m[3] * qx + m[4] * qy;
        if (x * x + y * y > limit) continue;
        const double sign = x < 0 ? -1.0 : 1.0;
        const double re = rows[2 * slice * n_pixels + p], im = sign * rows[(2 * slice + 1) * n_pixels + p];
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


def _insert_cuda(gpu, data, weight, rows, weights, picked, inverse, kx, ky, padding, r_max, tops):
    if picked.size == 0:
        return
    xp = gpu.xp
    n = len(picked)
    if tops is None:
        tops = float(abs(rows).max()), float(weights.max())
    # of all rows, picked or not: rows that are left out are zero or like the others
    scales = np.float64(_scale(tops[0], n)), np.float64(_scale(tops[1], n))
    integers, weight_integers = xp.zeros((*data.shape, 2), np.int64), xp.zeros(weight.shape, np.int64)
    gpu.launch(
        CUDA_SOURCE, f"insert_slices_{data.ndim}d", gpu.spread(n * len(kx)), 256, integers, weight_integers, *scales,
        *(np.int32(n) for n in data.shape[1:]), rows, weights, picked, inverse, kx, ky, np.int32(n), np.int32(len(kx)),
        np.float64(padding), np.int32(r_max),
    )  # fmt: skip
    gpu.launch(
        CUDA_SOURCE, "add_integers", gpu.spread(weight.size), 256, integers, weight_integers, *scales, np.int64(weight.size), data,
        weight,
    )  # fmt: skip


def insert_slices_3d_cuda(gpu, data, weight, rows, weights, picked, inverse, kx, ky, padding, r_max, tops=None):
    """CUDA twin of :func:`insert_slices_numpy` for volumes; ``tops`` are the largest ``abs(rows)`` and weight, where known."""
    _insert_cuda(gpu, data, weight, rows, weights, picked, inverse, kx, ky, padding, r_max, tops)


def insert_slices_2d_cuda(gpu, data, weight, rows, weights, picked, inverse, kx, ky, padding, r_max, tops=None):
    """CUDA twin of :func:`insert_slices_numpy` for images; ``tops`` are the largest ``abs(rows)`` and weight, where known."""
    _insert_cuda(gpu, data, weight, rows, weights, picked, inverse, kx, ky, padding, r_max, tops)
