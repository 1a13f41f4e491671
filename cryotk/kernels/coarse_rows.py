"""Images under every coarse shift: the rows of the coarse pass's matrix products."""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


def shifted_rows_numpy(images, ramps, out_real, out_imag):
    """Write every image under every shift; the plain definition.

    Parameters
    ----------
    images : (B, 2, P) float32
    ramps : (T, 2, P) float32
        Real and imaginary part of ``exp(-2 pi i k.t)``.
    out_real, out_imag : (B, T, P) float32, OUT
    """
    y, e = images[:, None], ramps[None]
    out_real[:] = y[:, :, 0] * e[:, :, 0] - y[:, :, 1] * e[:, :, 1]
    out_imag[:] = y[:, :, 0] * e[:, :, 1] + y[:, :, 1] * e[:, :, 0]


@_jit
def shifted_rows(images, ramps, out_real, out_imag):
    """Numba twin of :func:`shifted_rows_numpy`."""
    n_images, _, n_pixels = images.shape
    for i in range(n_images):
        for t in range(ramps.shape[0]):
            for p in range(n_pixels):
                a, b = images[i, 0, p], images[i, 1, p]
                c, d = ramps[t, 0, p], ramps[t, 1, p]
                out_real[i, t, p] = a * c - b * d
                out_imag[i, t, p] = a * d + b * c


# One thread per pixel of a row.
CUDA_SOURCE = r"""
extern "C" __global__ void shifted_rows(
    const float* __restrict__ images, const float* __restrict__ ramps, float* __restrict__ out_real, float* __restrict__ out_imag,
    int n_images, int n_shifts, int n_pixels)
{
    const long long total = (long long)n_images * n_shifts * n_pixels;
    for (long long x = blockIdx.x * (long long)blockDim.x + threadIdx.x; x < total; x += (long long)gridDim.x * blockDim.x) {
        const int p = (int)(x % n_pixels), t = (int)(x / n_pixels % n_shifts);
        const float* y = images + 2 * (x / n_pixels / n_shifts) * n_pixels + p;
        const float* e = ramps + 2 * (long long)t * n_pixels + p;
        const float a = y[0], b = y[n_pixels], c = e[0], d = e[n_pixels];
        out_real[x] = a * c - b * d;
        out_imag[x] = a * d + b * c;
    }
}
"""


def shifted_rows_cuda(gpu, images, ramps, out_real, out_imag):
    """CUDA twin of :func:`shifted_rows_numpy`."""
    sizes = (len(images), len(ramps), images.shape[2])
    gpu.launch(
        CUDA_SOURCE, "shifted_rows", gpu.spread(int(np.prod(sizes))), 256, images, ramps, out_real, out_imag,
        *(np.int32(n) for n in sizes),
    )  # fmt: skip
