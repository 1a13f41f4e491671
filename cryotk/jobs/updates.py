"""The maximisation, one pure function per quantity: sums in, new parameters out.

Formulas are those of RELION's paper (Scheres, J. Struct. Biol. 180, 2012) with the details of RELION 5.0.1.
"""

from __future__ import annotations

import numpy as np

from cryotk.kernels.half_volumes import power_in_shells
from cryotk.projection import FourierReference
from cryotk.projection.padded import HalfGrid

__all__ = [
    "centre_of_mass_shift",
    "class_resolution_shells",
    "image_window",
    "next_image_size",
    "reference_power",
    "shift_bilinear",
    "update_class_distribution",
    "update_noise",
    "update_prior_offset",
    "update_scales",
    "update_sigma_offset",
]


def round_int(x: float) -> int:
    """Round half away from zero."""
    return int(np.sign(x) * np.floor(abs(x) + 0.5))


def reference_power(reference: FourierReference, n_shells: int) -> np.ndarray:
    """Prior power tau2 of a reference: half the mean power per shell of its padded transform.

    Returns
    -------
    (n_shells,) float64, 0 beyond the reference's radius.
    """
    data, r_max = reference.data, reference.r_max
    shell = np.floor(np.sqrt(np.arange(r_max**2 + 2)) / reference.padding + 0.5).astype(np.int64)
    # beyond the radius, and beyond the shells asked for: one bin more
    shell = np.minimum(shell, n_shells)
    shell[-1] = n_shells
    total, count = np.zeros((2, n_shells + 1))
    if reference.is_3d:
        parts = [(a - (r_max + 1), data[a:b]) for a, b in HalfGrid(r_max).slabs()]
    else:
        parts = [(0, data[None])]
    for z0, planes in parts:
        of_slab = np.zeros((2, n_shells + 1))
        power_in_shells(planes, z0, r_max, shell, *of_slab)
        total += of_slab[0]
        count += of_slab[1]
    return np.where(count > 0, total / np.maximum(count, 1), 0.0)[:n_shells] / 2


def update_noise(
    noise_sums: np.ndarray, weights: np.ndarray, pixels_per_shell: np.ndarray, previous: np.ndarray, premultiplied: np.ndarray
) -> np.ndarray:
    """Noise power per optics group and shell.

    Parameters
    ----------
    noise_sums : (G, S) summed squared residuals; weights : (G,) summed posterior weights.
    pixels_per_shell : (S,) half-plane pixels of the model box.
    previous : (G, S) spectra kept for groups without particles.
    premultiplied : (G,) bool
    """
    out = np.array(previous, float)
    for g in range(len(out)):
        if weights[g] <= 0:
            continue
        spectrum = noise_sums[g] / (2 * weights[g] * np.maximum(pixels_per_shell, 1))
        if premultiplied[g]:
            spectrum = np.maximum(spectrum, 1e-15)
        else:
            for s in range(1, len(spectrum)):
                if spectrum[s] < 1e-14:
                    spectrum[s] = spectrum[s - 1]
        out[g] = spectrum
    return out


def update_scales(cross: np.ndarray, own: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Intensity scale of each group: regression, clamped to a factor 5 around the median, mean 1 over particles."""
    scale = np.where(own > 0, cross / np.where(own > 0, own, 1), 1.0)
    median = np.median(scale)
    scale = np.clip(scale, median / 5, 5 * median) if median > 0 else np.ones_like(scale)
    average = (scale * counts).sum() / max(counts.sum(), 1)
    return scale / average if average > 0 else np.ones_like(scale)


def update_class_distribution(class_weight: np.ndarray, total: float) -> np.ndarray:
    """Probability of each class."""
    return class_weight / total if total > 0 else np.full(len(class_weight), 1 / len(class_weight))


def update_sigma_offset(squared: float, total: float, previous: float, dimensions: int = 2) -> float:
    """Width in Å of the offset distribution; its square is at least 2 Å^2."""
    if total <= 0:
        return previous
    return float(np.sqrt(max(squared / (dimensions * total), 2.0)))


def update_prior_offset(class_offset: np.ndarray, class_weight: np.ndarray, total: float, compat: str | None) -> np.ndarray:
    """Mean offset in Å of each 2D class (RELION divides by the weight of all classes)."""
    if compat == "relion":
        return class_offset / max(total, 1e-30)
    return class_offset / np.maximum(class_weight, 1e-30)[:, None]


def class_resolution_shells(data_vs_prior: np.ndarray) -> np.ndarray:
    """(K,) last shell before data_vs_prior first falls below 1."""
    below = data_vs_prior[:, 1:] < 1
    first = np.where(below.any(1), below.argmax(1) + 1, data_vs_prior.shape[1])
    return first - 1


def next_image_size(resolution_shell: int, box: int, increment: int, p_max: float, high_fsc: bool) -> int:
    """Window of the next iteration in pixels."""
    shells = resolution_shell + (round_int(0.25 * box / 2) if p_max > 0.1 and high_fsc else increment)
    return int(min(2 * shells, box))


def image_window(group_box: int, rho: float, size: int) -> int:
    """Window of an optics group for a model window of ``size`` pixels."""
    return int(min(group_box, 2 * int(np.ceil(0.5 * rho * size))))


def coarse_window(
    group_box: int, pixel_size: float, angular_step: float, diameter: float, window: int, is_3d: bool,
    maximum: int | None = None,
) -> int:
    """Window of the coarse pass: as fine as the coarse angular step can tell at the particle's edge."""
    c = angular_step / 360 * np.pi * diameter / (1.2 if is_3d else 1.5)
    size = 2 * int(np.ceil(pixel_size * group_box / c))
    if maximum:
        size = min(size, maximum)
    return int(min(size, window))


def centre_of_mass_shift(image: np.ndarray, limit_px: float) -> np.ndarray:
    """Shift (x, y[, z]) in pixels that brings the centre of mass of the positive part to the centre, length limited."""
    positive = np.where(image > 0, image, 0.0)
    total = positive.sum()
    if total <= 0:
        return np.zeros(image.ndim)
    n = image.shape[-1]
    k = np.arange(n) - n // 2
    centre = []
    for axis in range(image.ndim - 1, -1, -1):
        other = tuple(a for a in range(image.ndim) if a != axis)
        centre.append((positive.sum(other) * k).sum() / total)
    shift = -np.array(centre)
    length = np.linalg.norm(shift)
    return shift * (limit_px / length) if length > limit_px > 0 else shift


def shift_bilinear(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Shift a square image by (x, y) pixels with linear interpolation, zeros outside."""
    import scipy.ndimage

    return scipy.ndimage.shift(image, shift[::-1], order=1, mode="constant", cval=0.0, prefilter=False)
