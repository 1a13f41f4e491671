"""Before the first iteration: noise spectra, initial averages, first image size."""

from __future__ import annotations

import numpy as np
import scipy.fft

from cryotk.errors import DataError
from cryotk.fourier import lowpass
from cryotk.geometry import euler_to_matrix, symmetry_operators
from cryotk.jobs.particle_set import ParticleSet
from cryotk.jobs.updates import round_int
from cryotk.likelihood.lattice import Lattice
from cryotk.likelihood.prepare import ImagePreparation, particle_mask, without_variance
from cryotk.likelihood.references import SliceMaker, group_transform
from cryotk.projection import Accumulator, wiener_reconstruct

__all__ = ["initial_averages", "initial_noise", "initial_resolution_shell"]

N_NOISE = 1000


def initial_resolution_shell(box: int) -> int:
    """Shell that initial averages are low-passed to when nothing else is known."""
    return max(2, round_int(0.07 * box))


def _first_rows(data: ParticleSet, group: int, limit: int) -> np.ndarray:
    in_order = data.micrograph_order
    rows = in_order[data.group_of_particle()[in_order] == group]
    return rows[:limit]


def _usable(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1)
    return np.isfinite(flat).all(1) & ~without_variance(images)


def initial_noise(data: ParticleSet, box: int, pixel_size: float, mask_diameter: float, zero_mask: bool) -> np.ndarray:
    """Noise power of each optics group from the first particles, minus the power of their mean image.

    Returns
    -------
    (G, box // 2 + 1) float64: variance of the real part of a coefficient, transforms divided by the number of pixels.
    """
    n_shells = box // 2 + 1
    k = np.fft.fftfreq(box) * box
    shell = np.floor(np.hypot(k[:, None], np.arange(box // 2 + 1)) + 0.5).astype(int)
    inside = shell < n_shells
    per_shell = np.bincount(shell[inside], minlength=n_shells)
    spectra = np.zeros((len(data.optics), n_shells))
    mean_image = np.zeros((box, box // 2 + 1), complex)
    counts = np.zeros(len(data.optics))
    for g, optics in enumerate(data.optics):
        rows = _first_rows(data, g, N_NOISE)
        n = optics.box_size
        mask = particle_mask(n, mask_diameter / (2 * optics.pixel_size)).astype(float)
        outside = 1 - mask
        for first in range(0, len(rows), 256):
            images, _ = data.images_of(rows[first : first + 256])
            x = data.read(images).astype(np.float64)
            x = x[_usable(x)]
            if not len(x):
                continue
            if zero_mask:
                background = (x * outside).sum((1, 2)) / outside.sum()
                x = x * mask + background[:, None, None] * outside
            f = scipy.fft.rfft2(x, workers=1) / n**2
            if n != box or abs(optics.pixel_size - pixel_size) > 1e-3:
                f = _resample(f, n, optics.pixel_size, box, pixel_size)
            power = (np.abs(f) ** 2).sum(0)
            spectra[g] += np.bincount(shell[inside], power[inside], minlength=n_shells)
            mean_image += f.sum(0)
            counts[g] += len(x)
    if not counts.any():
        raise DataError(
            f"none of the first {min(N_NOISE, data.n)} particles has an image that can be used: they are empty, the same everywhere or "
            "not finite; look at particles.cryo.view() and at the paths in the STAR file"
        )
    mean_image /= counts.sum()
    mean_power = np.bincount(shell[inside], (np.abs(mean_image) ** 2)[inside], minlength=n_shells) / per_shell / 2
    for g in range(len(spectra)):
        if counts[g] > 0:
            s = spectra[g] / counts[g] / per_shell / 2 - mean_power
            positive = np.nonzero(s > 0)[0]
            if len(positive):
                nearest = positive[np.maximum(np.searchsorted(positive, np.arange(n_shells), side="right") - 1, 0)]
                s = np.where(s > 0, s, s[nearest])
            spectra[g] = s
    return spectra


def _resample(f: np.ndarray, n: int, pixel: float, box: int, model_pixel: float) -> np.ndarray:
    """Half transforms of another box and pixel size, on the model's grid (nearest frequency)."""
    scale = n * pixel / (box * model_pixel)
    ky = np.floor(np.fft.fftfreq(box) * box * scale + 0.5).astype(int)
    kx = np.floor(np.arange(box // 2 + 1) * scale + 0.5).astype(int)
    ok = (np.abs(ky) < n // 2)[:, None] & (kx < n // 2)[None]
    out = f[:, np.clip(ky, -n // 2, n // 2 - 1) % n][:, :, np.clip(kx, 0, n // 2)]
    return np.where(ok, out, 0)


def initial_averages(
    data: ParticleSet,
    n_classes: int,
    box: int,
    pixel_size: float,
    noise: np.ndarray,
    mask_diameter: float,
    rng: np.random.Generator,
    *,
    padding: float = 2.0,
    do_ctf: bool = True,
    intact_first_peak: bool = False,
    per_class: int = 200,
    symmetry: str | None = None,
) -> np.ndarray:
    """Averages of random particles in random in-plane angles, or maps of random particles in random orientations.

    CTF-weighted and low-passed.

    Parameters
    ----------
    symmetry : str, optional
        Point group of maps; averages without it.

    Returns
    -------
    (K, box, box) float64, or (K, box, box, box) with ``symmetry``
    """
    is_3d = symmetry is not None
    shell = initial_resolution_shell(box)
    size = 2 * (shell + 1)
    accumulators = [Accumulator(box, size, padding, is_3d) for _ in range(n_classes)]
    order = rng.permutation(data.n)[: max(N_NOISE, per_class * n_classes)]
    classes = np.arange(len(order)) % n_classes
    psi = rng.uniform(-180, 180, len(order))
    rot, tilt = np.zeros_like(psi), np.zeros_like(psi)
    if is_3d:
        rot, tilt = rng.uniform(-180, 180, len(order)), np.degrees(np.arccos(rng.uniform(-1, 1, len(order))))
    rotations = euler_to_matrix(rot, tilt, psi)
    group = data.group_of_particle()[order]
    for g, optics in enumerate(data.optics):
        rho = (optics.box_size * optics.pixel_size) / (box * pixel_size)
        window = min(optics.box_size, 2 * int(np.ceil(0.5 * rho * size)))
        prepare = ImagePreparation(
            optics, g, window, rho, noise[g], mask_diameter, data.columns, do_ctf=do_ctf,
            ctf_intact_first_peak=intact_first_peak,
        )
        maker = SliceMaker([], Lattice(optics.box_size, window), group_transform(optics, box, pixel_size))
        here = np.nonzero(group == g)[0]
        # in file order, so that each stack is read once
        here = here[np.argsort(order[here])]
        for first in range(0, len(here), 256):
            some = here[first : first + 256]
            rows = order[some]
            images, start = data.images_of(rows)
            block = prepare(
                data.read(images), rows, images, start, data.shifts[rows], np.ones(len(images)), np.ones(len(images))
            )
            good = block.usable
            matrices = rotations[some][good]
            maker.insert(accumulators, classes[some][good], matrices, block.data, block.data_weight, np.nonzero(good)[0])
    dims = 3 if is_3d else 2
    mask = particle_mask(box, mask_diameter / (2 * pixel_size), dims=dims)
    out = np.empty((n_classes, *(box,) * dims))
    for k, acc in enumerate(accumulators):
        acc.symmetrise(symmetry_operators(symmetry) if symmetry is not None else None)
        out[k] = lowpass(wiener_reconstruct(acc), pixel_size, box * pixel_size / shell) * mask
    return out
