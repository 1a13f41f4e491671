"""Transformed images made ready for the likelihood: shifted by parts of a pixel, and weighted by CTF, scale and noise."""

from __future__ import annotations

import numba
import numpy as np

from cryotk.kernels._sine import cosine, sine

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


def shift_transforms_numpy(transforms, shifts, kx, ky, box):
    """Shift images that are given by their transforms; the plain definition.

    Parameters
    ----------
    transforms : (I, 2, P) float32, IN and OUT
        Real and imaginary part; multiplied by ``exp(-2 pi i k.t / box)``.
    shifts : (I, 2) float64
        Pixels.
    kx, ky : (P,) int32
        ``kx >= 0``; ``|ky| <= box``.
    box : int
        Pixels of the images.
    """
    angle = (-2 * np.pi / box) * (shifts[:, :1] * kx + shifts[:, 1:] * ky)
    turned = (transforms[:, 0] + 1j * transforms[:, 1]) * np.exp(1j * angle)
    transforms[:, 0], transforms[:, 1] = turned.real, turned.imag


@_jit
def shift_transforms(transforms, shifts, kx, ky, box):
    """Numba twin of :func:`shift_transforms_numpy`: a phase is the product of one for the column and one for the row."""
    n, _, n_pixels = transforms.shape
    values = transforms.reshape(-1)
    x_cos, x_sin = np.empty(box + 1, np.float32), np.empty(box + 1, np.float32)
    y_cos, y_sin = np.empty(2 * box + 1, np.float32), np.empty(2 * box + 1, np.float32)
    most = 0
    for p in range(n_pixels):
        most = max(most, kx[p], abs(ky[p]))
    for i in range(n):
        x_step, y_step = -2 * np.pi / box * shifts[i, 0], -2 * np.pi / box * shifts[i, 1]
        for k in range(most + 1):
            x_cos[k], x_sin[k] = cosine(x_step * k), sine(x_step * k)
        for k in range(2 * most + 1):
            y_cos[k], y_sin[k] = cosine(y_step * (k - most)), sine(y_step * (k - most))
        for p in range(n_pixels):
            x, y = np.uintp(kx[p]), np.uintp(ky[p] + most)
            c = x_cos[x] * y_cos[y] - x_sin[x] * y_sin[y]
            s = x_cos[x] * y_sin[y] + x_sin[x] * y_cos[y]
            at = np.uintp(2 * i * n_pixels + p)
            bt = np.uintp((2 * i + 1) * n_pixels + p)
            a, b = values[at], values[bt]
            values[at] = a * c - b * s
            values[bt] = a * s + b * c


def weigh_images_numpy(
    masked, ctf, scales, score_inverse, inverse, premultiplied, data, data_weight, score_image, score_weight, power
):
    """What scores and sums need of each image: the plain definition.

    Parameters
    ----------
    masked : (I, 2, P) float32
        Transforms of the masked images, X.
    ctf : (I, P) float32
        C, or C^2 for premultiplied data.
    scales : (I,) float32
        s, of the image's group.
    score_inverse, inverse : (P,) float32
        One over the noise, for the scores (0 where a pixel is not compared) and for the sums.
    premultiplied : bool
        The images hold one factor C already.
    data : (I, 2, P) float32, IN and OUT
        Transforms of the images without mask, Y, in; ``C s Y / sigma2`` out.
    data_weight : (I, P) float32, OUT
        ``C^2 s^2 / sigma2``.
    score_image : (I, 2, P) float32, OUT
        ``C s X / sigma2``.
    score_weight : (I, P) float32, OUT
        ``C^2 s^2 / sigma2``.
    power : (I,) float64, OUT
        ``sum |X|^2 / sigma2``.
    """
    s = scales[:, None]
    factor = ctf * s * score_inverse
    score_image[:], score_weight[:] = factor[:, None] * masked, factor * ctf * s
    power[:] = ((masked.astype(np.float64) ** 2).sum(1) * score_inverse).sum(1)
    if premultiplied:
        data *= inverse
        data_weight[:] = inverse * ctf * s
    else:
        factor = ctf * s * inverse
        data *= factor[:, None]
        data_weight[:] = factor * ctf * s


@_jit
def weigh_images(masked, ctf, scales, score_inverse, inverse, premultiplied, data, data_weight, score_image, score_weight, power):
    """Numba twin of :func:`weigh_images_numpy`."""
    n, n_pixels = ctf.shape
    x, c, y, w = masked.reshape(-1), ctf.reshape(-1), data.reshape(-1), data_weight.reshape(-1)
    scored, score_w = score_image.reshape(-1), score_weight.reshape(-1)
    for i in range(n):
        s, total = scales[i], 0.0
        for p in range(n_pixels):
            k, of_pixel = np.uintp(i * n_pixels + p), np.uintp(p)
            re, im = np.uintp(2 * i * n_pixels + p), np.uintp((2 * i + 1) * n_pixels + p)
            cs = c[k] * s
            f = cs * score_inverse[of_pixel]
            a, b = x[re], x[im]
            scored[re], scored[im], score_w[k] = f * a, f * b, f * cs
            total += np.float64(a * a + b * b) * score_inverse[of_pixel]
            if premultiplied:
                g = inverse[of_pixel]
            else:
                g = cs * inverse[of_pixel]
            y[re] *= g
            y[im] *= g
            w[k] = g * cs
        power[i] = total


# One thread per pixel of an image, and one block per image where there is a sum.
CUDA_SOURCE = r"""
extern "C" __global__ void shift_transforms(
    float* transforms, const double* __restrict__ shifts, const int* __restrict__ kx, const int* __restrict__ ky, int box,
    int n_images, int n_pixels)
{
    const long long total = (long long)n_images * n_pixels;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const long long i = t / n_pixels;
        const int p = (int)(t % n_pixels);
        const double angle = -6.283185307179586 / box * (shifts[2 * i] * kx[p] + shifts[2 * i + 1] * ky[p]);
        const float c = (float)cos(angle), s = (float)sin(angle);
        float* at = transforms + 2 * i * n_pixels + p;
        const float a = at[0], b = at[n_pixels];
        at[0] = a * c - b * s;
        at[n_pixels] = a * s + b * c;
    }
}

extern "C" __global__ void weigh_images(
    const float* __restrict__ masked, const float* __restrict__ ctf, const float* __restrict__ scales,
    const float* __restrict__ score_inverse, const float* __restrict__ inverse, int premultiplied, float* data,
    float* __restrict__ data_weight, float* __restrict__ score_image, float* __restrict__ score_weight,
    double* __restrict__ power, int n_images, int n_pixels)
{
    __shared__ double room[256];
    for (int i = blockIdx.x; i < n_images; i += gridDim.x) {
        const float s = scales[i];
        double sum = 0.0;
        for (int p = threadIdx.x; p < n_pixels; p += blockDim.x) {
            const long long k = (long long)i * n_pixels + p, re = k + (long long)i * n_pixels, im = re + n_pixels;
            const float cs = ctf[k] * s, f = cs * score_inverse[p], a = masked[re], b = masked[im];
            score_image[re] = f * a;
            score_image[im] = f * b;
            score_weight[k] = f * cs;
            sum += (double)(a * a + b * b) * score_inverse[p];
            const float g = premultiplied ? inverse[p] : cs * inverse[p];
            data[re] *= g;
            data[im] *= g;
            data_weight[k] = g * cs;
        }
        sum = block_sum(sum, room);
        if (threadIdx.x == 0) power[i] = sum;
    }
}
"""


def shift_transforms_cuda(gpu, transforms, shifts, kx, ky, box):
    """CUDA twin of :func:`shift_transforms_numpy`."""
    n, n_pixels = len(transforms), len(kx)
    gpu.launch(
        CUDA_SOURCE, "shift_transforms", gpu.spread(n * n_pixels), 256, transforms, shifts, kx, ky, np.int32(box), np.int32(n),
        np.int32(n_pixels),
    )  # fmt: skip


def weigh_images_cuda(
    gpu, masked, ctf, scales, score_inverse, inverse, premultiplied, data, data_weight, score_image, score_weight, power
):
    """CUDA twin of :func:`weigh_images_numpy`."""
    n, n_pixels = ctf.shape
    gpu.launch(
        CUDA_SOURCE, "weigh_images", gpu.spread(n, 1), 256, masked, ctf, scales, score_inverse, inverse, np.int32(premultiplied),
        data, data_weight, score_image, score_weight, power, np.int32(n), np.int32(n_pixels),
    )  # fmt: skip
