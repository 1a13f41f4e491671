"""From particle images to what the likelihood compares: shifted, masked, transformed, weighted by CTF and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from cryotk.kernels.images import gather_lattice, shell_power, shift_and_mask
from cryotk.likelihood.lattice import Lattice
from cryotk.optics import OpticsGroup, ctf, odd_phase

__all__ = ["Block", "ImagePreparation", "ParticleColumns", "particle_mask", "round_half_away"]

MASK_EDGE_PX = 5.0


def round_half_away(values: np.ndarray) -> np.ndarray:
    """Round to the nearest integer, halves away from zero."""
    return np.sign(values) * np.floor(np.abs(values) + 0.5)


def particle_mask(box: int, radius_px: float, edge_px: float = MASK_EDGE_PX, dims: int = 2) -> np.ndarray:
    """Soft circular (or spherical) mask: 1 inside ``radius_px``, raised cosine to 0 over ``edge_px``.

    Returns
    -------
    (box,) * dims float32
    """
    k = np.arange(box) - box // 2
    r2 = sum(np.meshgrid(*[k.astype(float) ** 2] * dims, indexing="ij", sparse=True))
    r = np.sqrt(r2)
    outside = 0.5 + 0.5 * np.cos(np.pi * (radius_px + edge_px - r) / edge_px)
    return np.where(r < radius_px, 1.0, np.where(r > radius_px + edge_px, 0.0, 1.0 - outside)).astype(np.float32)


@dataclass
class ParticleColumns:
    """The per-image numbers the likelihood needs, as plain arrays over all images of a data set."""

    defocus_u: np.ndarray
    defocus_v: np.ndarray
    defocus_angle: np.ndarray
    phase_shift: np.ndarray
    b_factor: np.ndarray
    ctf_scale: np.ndarray
    scale_group: np.ndarray
    """Index of the scale group (micrograph) of each image, from 0."""
    optics_group: np.ndarray
    """Index of the optics group of each image, from 0."""


@dataclass
class Block:
    """Images of one optics group, ready for the likelihood. P lattice pixels, B particles, I images."""

    particles: np.ndarray
    """(B,) indices of the particles."""
    images: np.ndarray
    """(I,) indices of their images."""
    image_start: np.ndarray
    """(B + 1,) images of each particle."""
    optics_group: int
    masked: np.ndarray
    """(I, 2, P) float32."""
    model_ctf: np.ndarray
    """(I, P) float32: C, or C^2 for premultiplied data."""
    score_image: np.ndarray
    """(B, 2, P) float32: ``sum C s X / sigma2``, origin excluded."""
    score_weight: np.ndarray
    """(B, P) float32: ``sum C^2 s^2 / sigma2``, origin excluded."""
    data: np.ndarray
    """(B, 2, P) float32: as ``score_image`` for the unmasked image, origin included."""
    data_weight: np.ndarray
    """(B, P) float32."""
    scale: np.ndarray
    """(I,) float64."""
    outside_power: np.ndarray
    """(I, n_shells of the image) float64: power of the pixels that are not on the lattice."""
    old_offset_px: np.ndarray
    """(B, 2) float64: rounded old offset, applied to the images."""
    rest_px: np.ndarray
    """(B, 2) float64: the fractional rest, applied too when nothing is aligned, else 0."""
    constant: np.ndarray
    """(B,) float64: the part of the log likelihood that no pose changes."""
    usable: np.ndarray
    """(B,) bool: False for empty or broken images."""


class ImagePreparation:
    """Prepares blocks of one optics group for one iteration.

    Parameters
    ----------
    optics : OpticsGroup
    group_index : int
        Position of the group in the noise spectra.
    window, window_rho : int, float
        Image window in pixels and ``(n_g a_g) / (N a)``: image shells divided by it are model shells.
    noise_power : (S,) float
        Noise spectrum of the group in model shells.
    mask_diameter : float
        Å.
    columns : ParticleColumns
    ctf_intact_first_peak, do_ctf, zero_mask : bool
    seed : int
        Of the noise that fills the outside when not ``zero_mask``.
    score_window : int, optional
        Smaller window for the scores alone (a resolution limit of the expectation).
    """

    def __init__(
        self,
        optics: OpticsGroup,
        group_index: int,
        window: int,
        window_rho: float,
        noise_power: np.ndarray,
        mask_diameter: float,
        columns: ParticleColumns,
        *,
        ctf_intact_first_peak: bool = False,
        do_ctf: bool = True,
        zero_mask: bool = True,
        seed: int = 0,
        score_window: int | None = None,
    ) -> None:
        n = optics.box_size
        self.optics = optics
        self.group_index = group_index
        self.lattice = Lattice(n, window)
        self.columns = columns
        self.intact_first_peak = ctf_intact_first_peak
        self.do_ctf = do_ctf
        self.zero_mask = zero_mask
        self.seed = seed
        self.mask = particle_mask(n, mask_diameter / (2 * optics.pixel_size))
        self._outside_total = float((1 - self.mask).astype(np.float64).sum())
        self.frequencies = self.lattice.frequencies(optics.pixel_size)
        shells = np.arange(n // 2 + 1)
        model_shell = np.clip(np.floor(shells / window_rho + 0.5).astype(int), 0, len(noise_power) - 1)
        noise = np.asarray(noise_power, float)[model_shell]
        self.image_noise = noise
        inverse = np.where(noise > 0, 1.0 / np.where(noise > 0, noise, 1), 0.0)
        self.inverse_noise = inverse[self.lattice.shell].astype(np.float32)
        in_score = self.lattice.shell > 0
        if score_window is not None and score_window < window:
            chosen = np.zeros(len(self.lattice), bool)
            chosen[self.lattice.subset(score_window)] = True
            in_score &= chosen
        self.score_inverse_noise = np.where(in_score, self.inverse_noise, 0).astype(np.float32)
        phase = odd_phase(optics, self.frequencies)
        self._use_phase = bool(np.any(phase != 0))
        self._phase = np.stack([np.cos(phase), -np.sin(phase)]).astype(np.float32)
        half = window // 2
        counted = shells <= half
        self._inside_shells = counted & (shells > 0)
        with np.errstate(divide="ignore"):
            log_noise = np.where(self._inside_shells & (noise > 0), np.log(2 * np.pi * np.where(noise > 0, noise, 1)), 0)
        self._log_norm = float((log_noise * self.lattice.window_pixels_per_shell).sum())
        self._inverse_by_shell = inverse

    def __call__(
        self,
        images: np.ndarray,
        particles: np.ndarray,
        image_index: np.ndarray,
        image_start: np.ndarray,
        offsets: np.ndarray,
        norm_factor: np.ndarray,
        scales: np.ndarray,
        fractional_shift: bool = False,
    ) -> Block:
        """Prepare one block.

        Parameters
        ----------
        images : (I, n, n) float32
        particles, image_index, image_start : see :class:`Block`
        offsets : (B, 2) float
            Old offsets in Å (to apply).
        norm_factor : (I,) float
            Multiplies each image: average normalisation over its own.
        scales : (I,) float
            Intensity scale of each image's group.
        fractional_shift : bool
            Apply the rest of the rounded offset too (no alignment).
        """
        n, lattice = self.optics.box_size, self.lattice
        of_image = np.repeat(np.arange(len(particles)), np.diff(image_start))
        offset_px = np.asarray(offsets, float) / self.optics.pixel_size
        rounded = round_half_away(offset_px)
        unmasked = np.empty((len(images), n, n), np.float32)
        masked = np.empty_like(unmasked)
        powers = np.empty(len(images))
        shift_and_mask(
            np.ascontiguousarray(images, np.float32),
            norm_factor.astype(np.float32),
            rounded[of_image].astype(np.int64),
            self.mask,
            self._outside_total,
            unmasked,
            masked,
            powers,
        )
        usable_image = np.isfinite(powers) & (powers > 0)
        if not usable_image.all():
            unmasked[~usable_image] = 0
            masked[~usable_image] = 0
        if not self.zero_mask:
            self._fill_with_noise(masked, unmasked, image_index)
        transform = scipy.fft.rfft2(masked, workers=1)
        x_masked = self._gather(transform)
        outside = np.zeros((len(images), n // 2 + 1))
        shell_power(transform, lattice.outside_shell, 1.0 / n**2, outside)
        x_unmasked = self._gather(scipy.fft.rfft2(unmasked, workers=1))
        if fractional_shift:
            for x in (x_masked, x_unmasked):
                self._apply_shift(x, (offset_px - rounded)[of_image])
        c = self.ctf(image_index)
        s = np.asarray(scales, np.float64)
        s32 = s.astype(np.float32)[:, None]
        factor = c * s32 * self.score_inverse_noise
        weight = factor * c * s32
        score_image = factor[:, None, :] * x_masked
        if self.optics.premultiplied:
            inverse = np.broadcast_to(self.inverse_noise, c.shape)
            data = inverse[:, None, :] * x_unmasked
            data_weight = inverse * c * s32
        else:
            factor_all = c * s32 * self.inverse_noise
            data = factor_all[:, None, :] * x_unmasked
            data_weight = factor_all * c * s32
        inside = np.einsum("icp,icp,p->i", x_masked, x_masked, self.score_inverse_noise)
        half = lattice.window // 2
        rim = outside[:, half] * self._inverse_by_shell[half]
        beyond = outside[:, half + 1 :].sum(1)
        shell_sums = -0.5 * (inside + rim + beyond) - self._log_norm
        if len(of_image) == len(particles):
            constant, usable = shell_sums, usable_image
        else:
            add = image_start[:-1]
            score_image = np.add.reduceat(score_image, add, axis=0)
            weight = np.add.reduceat(weight, add, axis=0)
            data = np.add.reduceat(data, add, axis=0)
            data_weight = np.add.reduceat(data_weight, add, axis=0)
            constant = np.add.reduceat(shell_sums, add)
            usable = np.logical_and.reduceat(usable_image, add)
        return Block(
            np.asarray(particles),
            np.asarray(image_index),
            np.asarray(image_start, np.int64),
            self.group_index,
            x_masked,
            c,
            np.ascontiguousarray(score_image),
            np.ascontiguousarray(weight),
            np.ascontiguousarray(data),
            np.ascontiguousarray(data_weight),
            s,
            outside,
            rounded,
            offset_px - rounded if fractional_shift else np.zeros_like(rounded),
            constant,
            usable,
        )

    def ctf(self, image_index: np.ndarray) -> np.ndarray:
        """(I, P) float32 CTF on the lattice (squared for premultiplied data, ones without CTF correction)."""
        if not self.do_ctf:
            return np.ones((len(image_index), len(self.lattice)), np.float32)
        k = self.columns
        c = ctf(
            self.optics,
            self.frequencies,
            k.defocus_u[image_index],
            k.defocus_v[image_index],
            k.defocus_angle[image_index],
            k.phase_shift[image_index],
            k.b_factor[image_index],
            k.ctf_scale[image_index],
            intact_first_peak=self.intact_first_peak,
        )
        c = np.ascontiguousarray(c, np.float32)
        return c * c if self.optics.premultiplied else c

    def _gather(self, transform: np.ndarray) -> np.ndarray:
        lattice = self.lattice
        out = np.empty((len(transform), 2, len(lattice)), np.float32)
        gather_lattice(
            transform,
            lattice.rows,
            lattice.columns,
            lattice.signs,
            self._phase,
            self._use_phase,
            np.float32(1.0 / self.optics.box_size**2),
            out,
        )
        return out

    def _apply_shift(self, x: np.ndarray, shift_px: np.ndarray) -> None:
        ramps = self.lattice.ramps(shift_px)
        real = x[:, 0] * ramps[:, 0] - x[:, 1] * ramps[:, 1]
        x[:, 1] = x[:, 0] * ramps[:, 1] + x[:, 1] * ramps[:, 0]
        x[:, 0] = real

    def _fill_with_noise(self, masked: np.ndarray, unmasked: np.ndarray, image_index: np.ndarray) -> None:
        """Replace the masked-out part by noise of the estimated spectrum, the same for the same image and seed."""
        n = self.optics.box_size
        k = np.fft.fftfreq(n) * n
        shell = np.floor(np.hypot(k[:, None], np.arange(n // 2 + 1)) + 0.5).astype(int)
        sigma = np.sqrt(np.append(self.image_noise, 0.0)[np.minimum(shell, n // 2 + 1)]) * n**2
        for i, image in enumerate(image_index):
            rng = np.random.default_rng([self.seed, int(image)])
            noise = rng.normal(size=(2, *sigma.shape)) * sigma
            field = scipy.fft.irfft2(noise[0] + 1j * noise[1], s=(n, n), workers=1)
            masked[i] = unmasked[i] * self.mask + (field * (1 - self.mask)).astype(np.float32)
