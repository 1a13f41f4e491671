"""CTF of many images on a set of pixels, from the terms that :mod:`cryotk.optics` makes."""

from __future__ import annotations

import numba
import numpy as np

from cryotk.kernels._sine import sine

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


def ctf_values_numpy(pixels, images, intact, out):
    """CTF of each image at each pixel; the plain definition.

    Parameters
    ----------
    pixels : (5, P) float64
        ``x^2, x y, y^2``, phase that all images share (radians), squared frequency (1/Å^2).
    images : (n, 6) float64
        Factors of the first three, phase of the image (radians), B-factor (Å^2), scale.
    intact : bool
        1 until the first peak.
    out : (n, P) float32, OUT
        Never exactly 0, since images may be divided by it.
    """
    phase = images[:, :3] @ pixels[:3] + pixels[3] + images[:, 3:4]
    value = -np.sin(phase)
    if intact:
        value = np.where(np.abs(phase) < np.pi / 2, 1.0, value)
    value = value * np.exp(-images[:, 4:5] / 4 * pixels[4]) * images[:, 5:]
    out[:] = np.where(np.abs(value) < 1e-8, np.where(value >= 0, 1e-8, -1e-8), value)


@_jit
def ctf_values(pixels, images, intact, out):
    """Numba twin of :func:`ctf_values_numpy`."""
    half_pi, n = np.pi / 2, out.shape[1]
    x, values = pixels.reshape(-1), out.reshape(-1)
    for i in range(out.shape[0]):
        a, b, c, d = images[i, 0], images[i, 1], images[i, 2], images[i, 3]
        damping, scale = -images[i, 4] / 4, images[i, 5]
        for p in range(n):
            g = a * x[np.uintp(p)] + b * x[np.uintp(n + p)] + c * x[np.uintp(2 * n + p)] + x[np.uintp(3 * n + p)] + d
            v = -sine(g)
            if intact and abs(g) < half_pi:
                v = 1.0
            v *= scale
            if damping != 0.0:
                v *= np.exp(damping * x[np.uintp(4 * n + p)])
            if abs(v) < 1e-8:
                v = 1e-8 if v >= 0 else -1e-8
            values[np.uintp(i * n + p)] = v


# One thread per pixel of an image.
CUDA_SOURCE = r"""
extern "C" __global__ void ctf_values(
    const double* __restrict__ pixels, const double* __restrict__ images, int intact, int n_images, int n_pixels,
    float* __restrict__ out)
{
    const long long total = (long long)n_images * n_pixels;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const double* image = images + 6 * (t / n_pixels);
        const double* x = pixels + t % n_pixels;
        const double g = image[0] * x[0] + image[1] * x[n_pixels] + image[2] * x[2 * n_pixels] + x[3 * n_pixels] + image[3];
        double v = intact && fabs(g) < 1.5707963267948966 ? 1.0 : -sin(g);
        if (image[4] != 0.0) v *= exp(-image[4] / 4 * x[4 * n_pixels]);
        v *= image[5];
        if (fabs(v) < 1e-8) v = v >= 0 ? 1e-8 : -1e-8;
        out[t] = (float)v;
    }
}
"""


def ctf_values_cuda(gpu, pixels, images, intact, out):
    """CUDA twin of :func:`ctf_values_numpy`."""
    gpu.launch(
        CUDA_SOURCE, "ctf_values", gpu.spread(out.size), 256, pixels, images, np.int32(intact), np.int32(len(out)),
        np.int32(out.shape[1]), out,
    )  # fmt: skip
