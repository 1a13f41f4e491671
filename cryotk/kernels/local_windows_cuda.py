"""CUDA twins of :mod:`cryotk.kernels.local_windows`: one thread per element; shells by sums of fixed order."""

from __future__ import annotations

import numpy as np

CUDA_SOURCE = r"""
// Parts of four values by two signs ++, -+, +-, --: even-even, odd-even, even-odd, odd-odd in them.
inline __device__ void sums_and_differences(float a, float b, float c, float d, float* out)
{
    out[0] = (a + b) + (c + d);
    out[1] = (a - b) + (c - d);
    out[2] = (a + b) - (c + d);
    out[3] = (a - b) - (c - d);
}

inline __device__ float2 times(float2 a, float2 b) { return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }

inline __device__ float at(const float* map, int n_z, int n_y, int n_x, int z, int y, int x, bool counts)
{
    return counts && z >= 0 && z < n_z && y >= 0 && y < n_y && x >= 0 && x < n_x ? map[((long long)z * n_y + y) * n_x + x] : 0.0f;
}

extern "C" __global__ void cut_parts(
    const float* __restrict__ maps, int n_v, int n_z, int n_y, int n_x, int z0, int y0, int x0, const float* __restrict__ window,
    int q, float* __restrict__ out)
{
    const int m = q + 1, side = 2 * q + 1;
    const long long cube = (long long)m * m * m, total = n_v * cube;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const int tz = (int)(t % m), tx = (int)(t / m % m), ty = (int)(t / m / m % m);
        const float* map = maps + t / cube * n_z * n_y * n_x;
        const float w = window[((q + tz) * side + q + ty) * side + q + tx];
        float part[2][4];
        for (int s = 0; s < 2; s++) {
            const int x = s ? x0 - tx : x0 + tx;
            const bool counts = w != 0.0f && (s == 0 || tx > 0);
            sums_and_differences(
                at(map, n_z, n_y, n_x, z0 + tz, y0 + ty, x, counts), at(map, n_z, n_y, n_x, z0 - tz, y0 + ty, x, counts && tz > 0),
                at(map, n_z, n_y, n_x, z0 + tz, y0 - ty, x, counts && ty > 0),
                at(map, n_z, n_y, n_x, z0 - tz, y0 - ty, x, counts && tz > 0 && ty > 0), part[s]);
        }
        for (int p = 0; p < 8; p++) {
            const int py = p / 4, px = p / 2 % 2, pz = p % 2, zy = pz + 2 * py;
            const bool dead = (pz && tz == 0) || (py && ty == 0) || (px && tx == 0);
            out[p * total + t] = dead ? 0.0f : w * (px ? part[0][zy] - part[1][zy] : part[0][zy] + part[1][zy]);
        }
    }
}

extern "C" __global__ void add_products(const float* __restrict__ values, int begin, long long m, float* out)
{
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < m; t += (long long)gridDim.x * blockDim.x)
        for (int pair = 0; pair < 2; pair++) {
            const float a = values[2 * pair * m + t], b = values[(2 * pair + 1) * m + t];
            float* to = out + 3 * pair * m + t;
            to[0] = a * b + (begin ? 0.0f : to[0]);
            to[m] = a * a + (begin ? 0.0f : to[m]);
            to[2 * m] = b * b + (begin ? 0.0f : to[2 * m]);
        }
}

// One block per shell and quantity; in a row of kz a shell is an interval.
extern "C" __global__ void products_to_shells(
    const float* __restrict__ products, int m, int n_z, int y_first, int n_x, int n, const int* __restrict__ shell_of,
    double* out)
{
    __shared__ double room[256];
    const int n_shells = n / 2 + 1;
    for (int t = blockIdx.x; t < 6 * n_shells; t += gridDim.x) {
        const int s = t / 6, c = t % 6;
        double sum = 0.0;
        for (int i = threadIdx.x; i < m; i += blockDim.x) {
            const int ky = y_first + i / n_x, kx = i % n_x, r2 = ky * ky + kx * kx;
            const double wy = ky == 0 || 2 * ky == n ? 1.0 : 2.0;
            int low = -1, high = n_z;
            while (high - low > 1) {
                const int middle = (low + high) / 2;
                if (shell_of[r2 + middle * middle] < s) low = middle; else high = middle;
            }
            const float* row = products + ((long long)c * m + i) * n_z;
            for (int kz = high; kz < n_z && shell_of[r2 + kz * kz] == s; kz++)
                sum += (kz == 0 || 2 * kz == n ? wy : 2.0 * wy) * row[kz];
        }
        sum = block_sum(sum, room);
        if (threadIdx.x == 0) out[6 * s + c] += sum;
    }
}

extern "C" __global__ void coefficients_around(
    const float2* __restrict__ f, int n, const float* __restrict__ gain, int k_max, const float2* __restrict__ turn_z,
    const float2* __restrict__ turn_y, const float2* __restrict__ turn_x, float2* __restrict__ out)
{
    const int m = k_max + 1, width = n / 2 + 1;
    const long long total = (long long)m * m * m;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const int kx = (int)(t % m), ky = (int)(t / m % m), kz = (int)(t / m / m);
        const float g = gain[kz * kz + ky * ky + kx * kx];
        float re[4], im[4];
        for (int i = 0; i < 4; i++) {
            const bool minus_z = i % 2, minus_y = i / 2;
            const bool dead = g == 0.0f || (minus_z && (kz == 0 || 2 * kz == n)) || (minus_y && (ky == 0 || 2 * ky == n));
            float2 v = make_float2(0.0f, 0.0f);
            if (!dead) {
                float2 pz = turn_z[kz], py = turn_y[ky];
                if (minus_z) pz.y = -pz.y;
                if (minus_y) py.y = -py.y;
                const long long row = (long long)(minus_z ? n - kz : kz) * n + (minus_y ? n - ky : ky);
                v = times(times(f[row * width + kx], times(pz, py)), make_float2(turn_x[kx].x * g, turn_x[kx].y * g));
            }
            re[i] = v.x;
            im[i] = v.y;
        }
        float part_re[4], part_im[4];
        sums_and_differences(re[0], re[1], re[2], re[3], part_re);
        sums_and_differences(im[0], im[1], im[2], im[3], part_im);
        // parity in kz is the slower of the two
        for (int p = 0; p < 4; p++) out[(p % 2 * 2 + p / 2) * total + t] = make_float2(part_re[p], part_im[p]);
    }
}

extern "C" __global__ void join_parts(const float2* __restrict__ parts, int m, int n_k, float2* __restrict__ out)
{
    const int q = m - 1, side = 2 * q + 1;
    const long long total = (long long)side * side * n_k, part = (long long)m * m * n_k;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const int k = (int)(t % n_k), ty = (int)(t / n_k % side) - q, tz = (int)(t / n_k / side) - q;
        const float2* at = parts + ((long long)(tz < 0 ? -tz : tz) * m + (ty < 0 ? -ty : ty)) * n_k + k;
        // an odd part stands for i sin; on its plane it is nothing
        const float sz = tz > 0 ? 1.0f : tz < 0 ? -1.0f : 0.0f, sy = ty > 0 ? 1.0f : ty < 0 ? -1.0f : 0.0f;
        const float2 ee = at[0], eo = at[part], oe = at[2 * part], oo = at[3 * part];
        out[t] = make_float2((ee.x - sz * sy * oo.x) - (sz * oe.y + sy * eo.y), (ee.y - sz * sy * oo.y) + (sz * oe.x + sy * eo.x));
    }
}

extern "C" __global__ void add_window(
    const float* __restrict__ values, const float* __restrict__ window, int side, double frequency, int z0, int y0, int x0,
    int n_z, int n_y, int n_x, double* filtered, double* frequencies, double* weights)
{
    const int total = side * side * side, q = side / 2;
    for (int t = blockIdx.x * blockDim.x + threadIdx.x; t < total; t += gridDim.x * blockDim.x) {
        const int x = x0 + t % side - q, y = y0 + t / side % side - q, z = z0 + t / side / side - q;
        if (x < 0 || x >= n_x || y < 0 || y >= n_y || z < 0 || z >= n_z) continue;
        const long long i = ((long long)z * n_y + y) * n_x + x;
        const double w = window[t];
        filtered[i] += w * values[t];
        frequencies[i] += w * frequency;
        weights[i] += w;
    }
}
"""


def _start(gpu, name, n_threads, *arguments):
    gpu.launch(CUDA_SOURCE, name, gpu.spread(n_threads), 256, *arguments)


def cut_parts_cuda(gpu, maps, z0, y0, x0, window, out):
    """CUDA twin of :func:`cut_parts_numpy`."""
    q = window.shape[0] // 2
    _start(
        gpu, "cut_parts", out.size // 8, maps, *(np.int32(n) for n in maps.shape), np.int32(z0), np.int32(y0), np.int32(x0), window,
        np.int32(q), out,
    )  # fmt: skip


def add_products_cuda(gpu, values, begin, out):
    """CUDA twin of :func:`add_products_numpy`."""
    _start(gpu, "add_products", out.shape[1], values, np.int32(begin), np.int64(out.shape[1]), out)


def products_to_shells_cuda(gpu, products, y_first, n_x, n, shell_of, out):
    """CUDA twin of :func:`products_to_shells_numpy`."""
    _, m, n_z = products.shape
    gpu.launch(
        CUDA_SOURCE, "products_to_shells", gpu.spread(out.size, 1), 256, products, np.int32(m), np.int32(n_z), np.int32(y_first),
        np.int32(n_x), np.int32(n), shell_of, out,
    )  # fmt: skip


def coefficients_around_cuda(gpu, f, gain, k_max, turn_z, turn_y, turn_x, out):
    """CUDA twin of :func:`coefficients_around_numpy`."""
    _start(
        gpu, "coefficients_around", out.size // 4, f, np.int32(f.shape[0]), gain, np.int32(k_max), turn_z, turn_y, turn_x, out
    )


def join_parts_cuda(gpu, parts, out):
    """CUDA twin of :func:`join_parts_numpy`."""
    _start(gpu, "join_parts", out.size, parts, np.int32(parts.shape[2]), np.int32(parts.shape[4]), out)


def add_window_cuda(gpu, values, window, frequency, z0, y0, x0, filtered, frequencies, weights):
    """CUDA twin of :func:`add_window_numpy`."""
    _start(
        gpu, "add_window", window.size, values, window, np.int32(window.shape[0]), np.float64(frequency), np.int32(z0),
        np.int32(y0), np.int32(x0), *(np.int32(n) for n in weights.shape), filtered, frequencies, weights,
    )  # fmt: skip
