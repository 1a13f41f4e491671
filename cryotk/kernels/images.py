"""Particle images before the transform: shift by whole pixels, mask, and the pixels of a Fourier lattice afterwards."""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


def shift_and_mask_numpy(images, factors, shifts, mask, outside_total, unmasked, masked, powers):
    """Shift, scale and mask images; the plain definition.

    Parameters
    ----------
    images : (B, n, n) float32
    factors : (B,) float32
        Multiplies each image (normalisation).
    shifts : (B, 2) int64
        Whole-pixel offset (x, y) to apply: ``out(x) = in(x - shift)``, zero outside.
    mask : (n, n) float32
        Soft particle mask, 1 inside; the outside is filled with its mean, weighted by 1 - mask.
    outside_total : float
        Sum of ``1 - mask``.
    unmasked, masked : (B, n, n) float32, OUT
    powers : (B,) float64, OUT
        Sum of squares of each shifted image: 0 marks an empty one, NaN a broken one.
    """
    n = images.shape[-1]
    outside = (1 - mask).astype(np.float64)
    for i, (sx, sy) in enumerate(shifts):
        ys, xs = np.arange(n) - sy, np.arange(n) - sx
        ok = ((ys >= 0) & (ys < n))[:, None] & ((xs >= 0) & (xs < n))[None, :]
        moved = images[i][np.clip(ys, 0, n - 1)][:, np.clip(xs, 0, n - 1)]
        unmasked[i] = np.where(ok, moved, 0) * factors[i]
        mean = (unmasked[i] * outside).sum() / outside_total
        masked[i] = unmasked[i] * mask + mean * outside
        powers[i] = (unmasked[i].astype(np.float64) ** 2).sum()


@_jit
def shift_and_mask(images, factors, shifts, mask, outside_total, unmasked, masked, powers):
    """Numba twin of :func:`shift_and_mask_numpy`."""
    n_images, n, _ = images.shape
    # flat, with positions that are never negative: loops become vector instructions
    source, plain, inside, weight = images.reshape(-1), unmasked.reshape(-1), masked.reshape(-1), mask.reshape(-1)
    for i in range(n_images):
        sx, sy = shifts[i, 0], shifts[i, 1]
        first = i * n * n
        lo, hi = min(max(0, sx), n), max(0, min(n, n + sx))
        factor, power, background = factors[i], np.float32(0.0), 0.0
        for y in range(n):
            to = first + y * n
            if y - sy < 0 or y - sy >= n or lo >= hi:
                for x in range(n):
                    plain[np.uintp(to + x)] = 0.0
                continue
            for x in range(lo):
                plain[np.uintp(to + x)] = 0.0
            for x in range(hi, n):
                plain[np.uintp(to + x)] = 0.0
            row = np.float32(0.0)
            start = first + (y - sy) * n - sx
            for x in range(lo, hi):
                v = source[np.uintp(start + x)] * factor
                plain[np.uintp(to + x)] = v
                row += v * (np.float32(1.0) - weight[np.uintp(y * n + x)])
                power += v * v
            background += row
        powers[i] = power
        mean = np.float32(background / outside_total)
        for k in range(n * n):
            m = weight[np.uintp(k)]
            inside[np.uintp(first + k)] = plain[np.uintp(first + k)] * m + mean * (np.float32(1.0) - m)


def gather_lattice_numpy(transforms, rows, columns, signs, phase, use_phase, factor, out):
    """Pick the pixels of a lattice from half transforms, centred and scaled; the plain definition.

    Parameters
    ----------
    transforms : (B, n, n // 2 + 1) complex64
    rows, columns : (P,) int32
    signs : (P,) float32
        ``(-1)^(kx + ky)``: moves the phase origin to the centre pixel.
    phase : (2, P) float32
        Cosine and sine that remove antisymmetric aberrations, used when ``use_phase``.
    use_phase : bool
    factor : float32
        ``1 / n^2``.
    out : (B, 2, P) float32, OUT
    """
    value = transforms[:, rows, columns] * (signs * factor)
    if use_phase:
        value = value * (phase[0] + 1j * phase[1])
    out[:, 0], out[:, 1] = value.real, value.imag


@_jit
def gather_lattice(transforms, rows, columns, signs, phase, use_phase, factor, out):
    """Numba twin of :func:`gather_lattice_numpy`."""
    for i in range(transforms.shape[0]):
        for p in range(rows.shape[0]):
            v = transforms[i, rows[p], columns[p]]
            s = signs[p] * factor
            a, b = v.real * s, v.imag * s
            if use_phase:
                out[i, 0, p] = a * phase[0, p] - b * phase[1, p]
                out[i, 1, p] = a * phase[1, p] + b * phase[0, p]
            else:
                out[i, 0, p] = a
                out[i, 1, p] = b


def shell_power_numpy(transforms, shell_of, factor, out):
    """Power per shell of the half plane of each transform; the plain definition.

    Parameters
    ----------
    transforms : (B, n, n // 2 + 1) complex64
    shell_of : (n, n // 2 + 1) int32
        -1 where a coefficient does not count.
    factor : float
    out : (B, S) float64, IN and OUT
        Gains ``sum |F|^2 factor^2``.
    """
    counted = shell_of >= 0
    for i, f in enumerate(transforms):
        power = np.abs(f[counted].astype(np.complex128)) ** 2 * factor**2
        out[i] += np.bincount(shell_of[counted], power, minlength=out.shape[1])


@_jit
def shell_power(transforms, shell_of, factor, out):
    """Numba twin of :func:`shell_power_numpy`."""
    n_images, n_rows, n_columns = transforms.shape
    f2 = factor * factor
    for i in range(n_images):
        for y in range(n_rows):
            for x in range(n_columns):
                s = shell_of[y, x]
                if s >= 0:
                    v = transforms[i, y, x]
                    out[i, s] += (v.real * v.real + v.imag * v.imag) * f2


# One block per image where there are sums, else one thread per pixel.
CUDA_SOURCE = r"""
extern "C" __global__ void shift_and_mask(
    const float* __restrict__ images, const float* __restrict__ factors, const long long* __restrict__ shifts,
    const float* __restrict__ mask, double outside_total, float* __restrict__ unmasked, float* __restrict__ masked,
    double* __restrict__ powers, int n_images, int n)
{
    __shared__ double room[256];
    for (int i = blockIdx.x; i < n_images; i += gridDim.x) {
        const long long sx = shifts[2 * i], sy = shifts[2 * i + 1], base = (long long)i * n * n;
        double outside = 0.0, power = 0.0;
        for (int k = threadIdx.x; k < n * n; k += blockDim.x) {
            const long long y = k / n - sy, x = k % n - sx;
            float v = 0.0f;
            if (y >= 0 && y < n && x >= 0 && x < n) v = images[base + y * n + x] * factors[i];
            unmasked[base + k] = v;
            outside += v * (1.0f - mask[k]);
            power += v * v;
        }
        outside = block_sum(outside, room);
        power = block_sum(power, room);
        const float mean = (float)(outside / outside_total);
        for (int k = threadIdx.x; k < n * n; k += blockDim.x)
            masked[base + k] = unmasked[base + k] * mask[k] + mean * (1.0f - mask[k]);
        if (threadIdx.x == 0) powers[i] = power;
    }
}

extern "C" __global__ void gather_lattice(
    const float2* __restrict__ transforms, const int* __restrict__ rows, const int* __restrict__ columns,
    const float* __restrict__ signs, const float* __restrict__ phase, int use_phase, float factor, float* __restrict__ out,
    int n_images, int n_rows, int n_columns, int n_pixels)
{
    const long long total = (long long)n_images * n_pixels;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const long long i = t / n_pixels;
        const int p = (int)(t % n_pixels);
        const float2 v = transforms[(i * n_rows + rows[p]) * n_columns + columns[p]];
        const float s = signs[p] * factor, a = v.x * s, b = v.y * s;
        float re = a, im = b;
        if (use_phase) {
            re = a * phase[p] - b * phase[n_pixels + p];
            im = a * phase[n_pixels + p] + b * phase[p];
        }
        out[2 * i * n_pixels + p] = re;
        out[(2 * i + 1) * n_pixels + p] = im;
    }
}

// A thread owns a shell and looks at every pixel: all threads of a block read the same one.
extern "C" __global__ void shell_power(
    const float2* __restrict__ transforms, const int* __restrict__ shell_of, double factor, double* out, int n_images, int n_all,
    int n_shells)
{
    for (int i = blockIdx.x; i < n_images; i += gridDim.x)
        for (int s = threadIdx.x; s < n_shells; s += blockDim.x) {
            double total = 0.0;
            for (int k = 0; k < n_all; k++)
                if (shell_of[k] == s) {
                    const float2 v = transforms[(long long)i * n_all + k];
                    total += v.x * v.x + v.y * v.y;
                }
            out[(long long)i * n_shells + s] += total * (factor * factor);
        }
}
"""


def shift_and_mask_cuda(gpu, images, factors, shifts, mask, outside_total, unmasked, masked, powers):
    """CUDA twin of :func:`shift_and_mask_numpy`."""
    gpu.launch(
        CUDA_SOURCE, "shift_and_mask", gpu.spread(len(images), 1), 256, images, factors, shifts, mask, np.float64(outside_total),
        unmasked, masked, powers, np.int32(len(images)), np.int32(images.shape[1]),
    )  # fmt: skip


def gather_lattice_cuda(gpu, transforms, rows, columns, signs, phase, use_phase, factor, out):
    """CUDA twin of :func:`gather_lattice_numpy`."""
    n, n_pixels = len(transforms), len(rows)
    gpu.launch(
        CUDA_SOURCE, "gather_lattice", gpu.spread(n * n_pixels), 256, transforms, rows, columns, signs, phase, np.int32(use_phase),
        np.float32(factor), out, np.int32(n), *(np.int32(v) for v in transforms.shape[1:]), np.int32(n_pixels),
    )  # fmt: skip


def shell_power_cuda(gpu, transforms, shell_of, factor, out):
    """CUDA twin of :func:`shell_power_numpy`."""
    n = len(transforms)
    gpu.launch(
        CUDA_SOURCE, "shell_power", gpu.spread(n, 1), 64, transforms, shell_of, np.float64(factor), out, np.int32(n),
        np.int32(shell_of.size), np.int32(out.shape[1]),
    )  # fmt: skip
