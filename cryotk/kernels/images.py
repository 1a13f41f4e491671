"""Particle images before the transform: shift by whole pixels, mask, and the pixels of a Fourier lattice afterwards."""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


def shift_and_mask_numpy(images, factors, shifts, mask, fill_mean=True):
    """Shift, scale and mask images; the plain definition of :func:`shift_and_mask`.

    Parameters
    ----------
    images : (B, n, n) float32
    factors : (B,) float32
        Multiplies each image (normalisation).
    shifts : (B, 2) int
        Whole-pixel offset (x, y) to apply: ``out(x) = in(x - shift)``, zero outside.
    mask : (n, n) float32
        Soft particle mask, 1 inside.
    fill_mean : bool
        Fill the outside with its mean (weighted by 1 - mask); otherwise leave the images unmasked.

    Returns
    -------
    unmasked, masked : (B, n, n) float32
    """
    n = images.shape[-1]
    unmasked = np.zeros_like(images)
    for i, (sx, sy) in enumerate(np.asarray(shifts, int)):
        ys, xs = np.arange(n) - sy, np.arange(n) - sx
        ok = ((ys >= 0) & (ys < n))[:, None] & ((xs >= 0) & (xs < n))[None, :]
        moved = images[i][np.clip(ys, 0, n - 1)][:, np.clip(xs, 0, n - 1)]
        unmasked[i] = np.where(ok, moved, 0) * factors[i]
    if not fill_mean:
        return unmasked, unmasked.copy()
    outside = (1 - mask).astype(np.float64)
    background = (unmasked * outside).sum((1, 2)) / outside.sum()
    masked = unmasked * mask + background[:, None, None] * outside
    return unmasked, masked.astype(np.float32)


@_jit
def shift_and_mask(images, factors, shifts, mask, outside_total, unmasked, masked, powers):
    """Numba twin of :func:`shift_and_mask_numpy`, writing into ``unmasked`` and ``masked``.

    ``powers`` (B,) receives the sum of squares of each input image: 0 marks an empty one, NaN a broken one.
    """
    n_images, n, _ = images.shape
    for i in range(n_images):
        sx, sy = shifts[i, 0], shifts[i, 1]
        factor = factors[i]
        background = 0.0
        power = np.float32(0.0)
        for y in range(n):
            source = y - sy
            if source < 0 or source >= n:
                for x in range(n):
                    unmasked[i, y, x] = 0.0
                continue
            lo, hi = max(0, sx), min(n, n + sx)
            for x in range(lo):
                unmasked[i, y, x] = 0.0
            for x in range(hi, n):
                unmasked[i, y, x] = 0.0
            row = np.float32(0.0)
            for x in range(lo, hi):
                v = images[i, source, x - sx] * factor
                unmasked[i, y, x] = v
                row += v * (np.float32(1.0) - mask[y, x])
                power += v * v
            background += row
        powers[i] = power
        mean = np.float32(background / outside_total)
        for y in range(n):
            for x in range(n):
                m = mask[y, x]
                masked[i, y, x] = unmasked[i, y, x] * m + mean * (np.float32(1.0) - m)


@_jit
def gather_lattice(transforms, rows, columns, signs, phase, use_phase, factor, out):
    """Pick the pixels of a lattice from half transforms, centred and scaled.

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


@_jit
def shell_power(transforms, shell_of, factor, out):
    """Power per shell of the half plane of each transform: ``out[i, shell] += |F|^2 factor^2``.

    ``shell_of`` (n, n // 2 + 1) int32 is -1 where a coefficient does not count.
    """
    n_images, n_rows, n_columns = transforms.shape
    f2 = factor * factor
    for i in range(n_images):
        for y in range(n_rows):
            for x in range(n_columns):
                s = shell_of[y, x]
                if s >= 0:
                    v = transforms[i, y, x]
                    out[i, s] += (v.real * v.real + v.imag * v.imag) * f2
