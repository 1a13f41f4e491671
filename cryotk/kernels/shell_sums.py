"""Sums over shells of half transforms, radial gains, and random phases that depend on nothing but their place.

A half transform is ``(n, n, n // 2 + 1)``, origin at index 0, each stored coefficient counted once. Functions of the radius
are tables over the integer ``k^2``: a whole chain of filters is one look-up.
"""

from __future__ import annotations

import numba
import numpy as np

from cryotk.kernels._cuda import for_types

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")
# see shift_grid.py
_inline = numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")


def squared_radius_numpy(n):
    """``k^2`` of every coefficient, int64."""
    k = np.arange(n)
    k = np.where(k <= n // 2, k, k - n) ** 2
    return k[:, None, None] + k[:, None] + np.arange(n // 2 + 1) ** 2


@_inline
def _square(i, n):
    """``k^2`` of an index."""
    k = i if 2 * i <= n else i - n
    return k * k


def cross_sums_numpy(a, b, shell_of, first, last, out):
    """Add ``Re(conj(a) b)``, ``|a|^2`` and ``|b|^2`` of some planes to their shells; the plain definition.

    Parameters
    ----------
    a, b : (n, n, n // 2 + 1) complex
    shell_of : (m,) int32
        Shell of every ``k^2``; grows with it.
    first, last : int
        Planes.
    out : (3, n // 2 + 1) float64, IN and OUT
    """
    n = a.shape[1]
    shell = shell_of[squared_radius_numpy(n)][first:last]
    use = shell <= n // 2
    x, y, s = a[first:last][use].astype(complex), b[first:last][use].astype(complex), shell[use]
    out += np.stack([np.bincount(s, w, n // 2 + 1) for w in ((x.conj() * y).real, np.abs(x) ** 2, np.abs(y) ** 2)])


@_jit
def cross_sums(a, b, shell_of, first, last, out):
    """Numba twin of :func:`cross_sums_numpy`."""
    n = a.shape[1]
    half = n // 2
    for z in range(first, last):
        for y in range(n):
            r2 = _square(z, n) + _square(y, n)
            for x in range(half + 1):
                s = shell_of[r2 + x * x]
                if s > half:
                    break
                p, q = a[z, y, x], b[z, y, x]
                pr, pi, qr, qi = np.float64(p.real), np.float64(p.imag), np.float64(q.real), np.float64(q.imag)
                out[0, s] += pr * qr + pi * qi
                out[1, s] += pr * pr + pi * pi
                out[2, s] += qr * qr + qi * qi


def amplitude_sums_numpy(f, first, last, out):
    """Add ``|f|`` of some planes to a table over ``k^2``; the plain definition.

    Parameters
    ----------
    f : (n, n, n // 2 + 1) complex
    first, last : int
    out : (m,) float64, IN and OUT
    """
    n = f.shape[1]
    r2 = squared_radius_numpy(n)[first:last]
    out += np.bincount(r2.ravel(), np.abs(f[first:last]).astype(float).ravel(), len(out))


@_jit
def amplitude_sums(f, first, last, out):
    """Numba twin of :func:`amplitude_sums_numpy`."""
    n = f.shape[1]
    for z in range(first, last):
        for y in range(n):
            r2 = _square(z, n) + _square(y, n)
            for x in range(n // 2 + 1):
                p = f[z, y, x]
                out[r2 + x * x] += np.sqrt(np.float64(p.real) * p.real + np.float64(p.imag) * p.imag)


def apply_gain_numpy(f, gain, first, last, out):
    """Multiply some planes by a table over ``k^2``; the plain definition.

    Parameters
    ----------
    f : (n, n, n // 2 + 1) complex
    gain : (m,) float
        Of the transform's precision.
    first, last : int
    out : OUT, may be ``f``
    """
    out[first:last] = f[first:last] * gain[squared_radius_numpy(f.shape[1])[first:last]]


@_jit
def apply_gain(f, gain, first, last, out):
    """Numba twin of :func:`apply_gain_numpy`."""
    n = f.shape[1]
    for z in range(first, last):
        for y in range(n):
            r2 = _square(z, n) + _square(y, n)
            for x in range(n // 2 + 1):
                out[z, y, x] = f[z, y, x] * gain[r2 + x * x]


def unit_circle(n=4096):
    """Values ``exp(2 pi i j / n)``, complex64: the phases that :func:`randomise_phases` draws from."""
    return np.exp(2j * np.pi * np.arange(n) / n).astype(np.complex64)


def with_random_phases(f, from_squared, key, circle, xp=np):
    """Definition of :func:`randomise_phases` for whole transforms of any array library; returns a new array."""
    n = f.shape[1]
    width = n // 2 + 1
    i, j = xp.arange(n, dtype=xp.int64), xp.arange(width, dtype=xp.int64)
    k2 = xp.where(i <= n // 2, i, i - n) ** 2
    r2 = k2[:, None, None] + k2[None, :, None] + (j**2)[None, None, :]
    place = (i[:, None, None] * n + i[None, :, None]) * width + j[None, None, :]
    m = (n - i) % n
    mate = (m[:, None, None] * n + m[None, :, None]) * width + j[None, None, :]
    paired = ((j == 0) | (2 * j == n))[None, None, :]
    swapped, alone = paired & (mate < place), paired & (mate == place)

    def word(value):
        return xp.asarray(value, dtype=xp.uint64)

    def mix(x):
        x = (x ^ (x >> word(30))) * word(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> word(27))) * word(0x94D049BB133111EB)
        return x ^ (x >> word(31))

    x = xp.astype(xp.where(swapped, mate, place), xp.uint64) + word(int(key))
    at = xp.astype(mix(mix(x) + word(0x9E3779B97F4A7C15)) >> word(52), xp.int64)
    c = xp.reshape(xp.take(circle, xp.reshape(at, (-1,))), at.shape)
    c = xp.where(swapped, xp.conj(c), c)
    plus = xp.astype(1 - 2 * xp.astype(at >= 2048, xp.int64), c.dtype)
    c = xp.where(alone, plus, c)
    size = xp.astype(xp.abs(f), f.dtype)
    return xp.where(r2 >= from_squared, size * xp.astype(c, f.dtype), f)


def randomise_phases_numpy(f, from_squared, key, circle, first, last):
    """Give every coefficient of some planes with ``k^2 >= from_squared`` a random phase, keeping its amplitude and the map real.

    The plain definition.

    Parameters
    ----------
    f : (n, n, n // 2 + 1) complex, IN and OUT
    from_squared : int
    key : uint64
        Phases are a function of it and the place.
    circle : (4096,) complex64
        Of :func:`unit_circle`.
    first, last : int
    """
    f[first:last] = with_random_phases(f, from_squared, key, circle)[first:last]


@_inline
def _mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@_jit
def randomise_phases(f, from_squared, key, circle, first, last):
    """Numba twin of :func:`randomise_phases_numpy`."""
    n = f.shape[1]
    width = n // 2 + 1
    for z in range(first, last):
        for y in range(n):
            r2 = _square(z, n) + _square(y, n)
            for x in range(width):
                if r2 + x * x < from_squared:
                    continue
                place = (z * n + y) * width + x
                sign = np.float32(1.0)
                if x == 0 or 2 * x == n:  # both of a pair of mates are stored here
                    mate = (((n - z) % n) * n + (n - y) % n) * width + x
                    if mate < place:
                        place = mate
                        sign = np.float32(-1.0)
                    elif mate == place:
                        sign = np.float32(0.0)
                i = np.int64(_mix(_mix(np.uint64(place) + key) + np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(52))
                c = circle[i]
                p = f[z, y, x]
                size = np.sqrt(p.real * p.real + p.imag * p.imag)
                if sign == 0.0:
                    f[z, y, x] = size if i < 2048 else -size
                else:
                    f[z, y, x] = complex(size * c.real, sign * size * c.imag)


_SHARED = r"""
inline __device__ int square(int i, int n)
{
    const int k = 2 * i <= n ? i : i - n;
    return k * k;
}

// First x from 0 to n / 2 + 1 whose k^2 is at least r2 + x^2 in shell s or a later one.
inline __device__ int first_in_shell(const int* shell_of, int r2, int s, int n)
{
    int low = -1, high = n / 2 + 1;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (shell_of[r2 + middle * middle] < s) low = middle; else high = middle;
    }
    return high;
}

inline __device__ unsigned long long mix(unsigned long long x)
{
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
}

// Partial sums of planes, in the planes' order.
extern "C" __global__ void add_planes(const double* __restrict__ partial, int n_planes, int n_values, double* out)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n_values; i += gridDim.x * blockDim.x) {
        double total = 0.0;
        for (int z = 0; z < n_planes; z++) total += partial[(long long)z * n_values + i];
        out[i] += total;
    }
}

extern "C" __global__ void add_integers(const long long* __restrict__ integers, double scale, int n, double* out)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) out[i] += integers[i] / scale;
}
"""

# cross_sums: one block per plane and shell; each thread takes rows, in which a shell is an interval.
# amplitude_sums: many rows meet in one k^2; integers, whose sum does not depend on the order.
_BY_TYPE = r"""
extern "C" __global__ void cross_sums_SUFFIX(
    const REAL2* __restrict__ a, const REAL2* __restrict__ b, const int* __restrict__ shell_of, int first, int n_planes, int n,
    double* __restrict__ partial)
{
    __shared__ double room[128];
    const int half = n / 2, width = half + 1;
    for (int t = blockIdx.x; t < n_planes * width; t += gridDim.x) {
        const int plane = t / width, s = t % width, z = first + plane;
        double ab = 0.0, aa = 0.0, bb = 0.0;
        for (int y = threadIdx.x; y < n; y += blockDim.x) {
            const int r2 = square(z, n) + square(y, n);
            const long long row = ((long long)z * n + y) * width;
            for (int x = first_in_shell(shell_of, r2, s, n); x < width && shell_of[r2 + x * x] == s; x++) {
                const double pr = a[row + x].x, pi = a[row + x].y, qr = b[row + x].x, qi = b[row + x].y;
                ab += pr * qr + pi * qi;
                aa += pr * pr + pi * pi;
                bb += qr * qr + qi * qi;
            }
        }
        ab = block_sum(ab, room);
        aa = block_sum(aa, room);
        bb = block_sum(bb, room);
        if (threadIdx.x == 0) {
            double* to = partial + (long long)plane * 3 * width + s;
            to[0] = ab;
            to[width] = aa;
            to[2 * width] = bb;
        }
    }
}

extern "C" __global__ void amplitude_sums_SUFFIX(
    const REAL2* __restrict__ f, int first, int last, int n, double scale, long long* integers)
{
    const int width = n / 2 + 1;
    const long long end = (long long)last * n * width;
    for (long long t = (long long)first * n * width + blockIdx.x * (long long)blockDim.x + threadIdx.x; t < end;
         t += (long long)gridDim.x * blockDim.x) {
        const int x = (int)(t % width), y = (int)(t / width % n), z = (int)(t / width / n);
        const double re = f[t].x, im = f[t].y;
        atomicAdd((unsigned long long*)&integers[square(z, n) + square(y, n) + x * x],
                  (unsigned long long)__double2ll_rn(scale * sqrt(re * re + im * im)));
    }
}

extern "C" __global__ void apply_gain_SUFFIX(
    const REAL2* f, const REAL* __restrict__ gain, int first, int last, int n, REAL2* out)
{
    const int width = n / 2 + 1;
    const long long end = (long long)last * n * width;
    for (long long t = (long long)first * n * width + blockIdx.x * (long long)blockDim.x + threadIdx.x; t < end;
         t += (long long)gridDim.x * blockDim.x) {
        const int x = (int)(t % width), y = (int)(t / width % n), z = (int)(t / width / n);
        const REAL g = gain[square(z, n) + square(y, n) + x * x];
        out[t].x = f[t].x * g;
        out[t].y = f[t].y * g;
    }
}

extern "C" __global__ void randomise_phases_SUFFIX(
    REAL2* f, long long from_squared, unsigned long long key, const float2* __restrict__ circle, int first, int last, int n)
{
    const int width = n / 2 + 1;
    const long long end = (long long)last * n * width;
    for (long long t = (long long)first * n * width + blockIdx.x * (long long)blockDim.x + threadIdx.x; t < end;
         t += (long long)gridDim.x * blockDim.x) {
        const int x = (int)(t % width), y = (int)(t / width % n), z = (int)(t / width / n);
        if (square(z, n) + square(y, n) + x * x < from_squared) continue;
        long long place = t;
        int sign = 1;
        if (x == 0 || 2 * x == n) {
            const long long mate = ((long long)((n - z) % n) * n + (n - y) % n) * width + x;
            if (mate < place) {
                place = mate;
                sign = -1;
            } else if (mate == place)
                sign = 0;
        }
        const int i = (int)(mix(mix((unsigned long long)place + key) + 0x9E3779B97F4A7C15ULL) >> 52);
        const REAL size = sqrt(f[t].x * f[t].x + f[t].y * f[t].y);
        f[t].x = sign == 0 ? (i < 2048 ? size : -size) : size * (REAL)circle[i].x;
        f[t].y = sign == 0 ? (REAL)0 : sign * size * (REAL)circle[i].y;
    }
}
"""

CUDA_SOURCE = _SHARED + for_types(_BY_TYPE)


def _launch(gpu, name, f, n_threads, *arguments):
    suffix = {"complex64": "float", "complex128": "double"}[f.dtype.name]
    gpu.launch(CUDA_SOURCE, f"{name}_{suffix}", gpu.spread(n_threads), 256, f, *arguments)


def cross_sums_cuda(gpu, a, b, shell_of, first, last, out):
    """CUDA twin of :func:`cross_sums_numpy`."""
    n, planes = a.shape[1], last - first
    suffix = {"complex64": "float", "complex128": "double"}[a.dtype.name]
    partial = gpu.xp.empty((planes, *out.shape), np.float64)
    gpu.launch(
        CUDA_SOURCE, f"cross_sums_{suffix}", gpu.spread(planes * (n // 2 + 1), 1), 128, a, b, shell_of, np.int32(first),
        np.int32(planes), np.int32(n), partial,
    )  # fmt: skip
    gpu.launch(CUDA_SOURCE, "add_planes", gpu.spread(out.size), 256, partial, np.int32(planes), np.int32(out.size), out)


def amplitude_sums_cuda(gpu, f, first, last, out):
    """CUDA twin of :func:`amplitude_sums_numpy`."""
    n = f.shape[1]
    if last <= first:
        return
    planes = f[first:last]
    top = 2 * max(float(abs(planes.real).max()), float(abs(planes.imag).max()))
    # a sphere of radius r has some 8 r lattice points per unit of k^2, with scatter: 64 n is safely more
    scale = 2.0 ** (62 - int(np.ceil(np.log2(64 * n))) - int(np.frexp(top)[1])) if np.isfinite(top) and top > 0 else 1.0
    integers = gpu.xp.zeros(len(out), np.int64)
    count = (last - first) * n * (n // 2 + 1)
    _launch(gpu, "amplitude_sums", f, count, np.int32(first), np.int32(last), np.int32(n), np.float64(scale), integers)
    gpu.launch(CUDA_SOURCE, "add_integers", gpu.spread(len(out)), 256, integers, np.float64(scale), np.int32(len(out)), out)


def apply_gain_cuda(gpu, f, gain, first, last, out):
    """CUDA twin of :func:`apply_gain_numpy`."""
    n = f.shape[1]
    _launch(gpu, "apply_gain", f, (last - first) * n * (n // 2 + 1), gain, np.int32(first), np.int32(last), np.int32(n), out)


def randomise_phases_cuda(gpu, f, from_squared, key, circle, first, last):
    """CUDA twin of :func:`randomise_phases_numpy`."""
    n = f.shape[1]
    _launch(
        gpu, "randomise_phases", f, (last - first) * n * (n // 2 + 1), np.int64(from_squared), np.uint64(key), circle,
        np.int32(first), np.int32(last), np.int32(n),
    )  # fmt: skip
