"""From particle images to what the likelihood compares: shifted, masked, transformed, weighted by CTF and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft

from cryotk.kernels.backends import CPU, Backend
from cryotk.likelihood.lattice import Lattice
from cryotk.likelihood.portions import Scratch
from cryotk.optics import OpticsGroup, ctf_image_terms, ctf_pixel_terms, odd_phase

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
    k = (np.arange(box) - box // 2) ** 2
    r = np.sqrt(np.arange(dims * (box // 2) ** 2 + 1))
    outside = 0.5 + 0.5 * np.cos(np.pi * (radius_px + edge_px - r) / edge_px)
    table = np.where(r < radius_px, 1.0, np.where(r > radius_px + edge_px, 0.0, 1.0 - outside)).astype(np.float32)
    out = np.empty((box,) * dims, np.float32)
    # a plane at a time: large volumes would need several arrays of their size
    for first in range(0, box, 1 if dims == 3 else box):
        some = slice(first, first + 1) if dims == 3 else slice(None)
        out[some] = table[sum(np.meshgrid(k[some], *[k] * (dims - 1), indexing="ij", sparse=True))]
    return out


def without_variance(images: np.ndarray) -> np.ndarray:
    """(n,) bool: images whose pixels are all the same."""
    flat = images.reshape(len(images), -1)
    # three pixels tell most images apart
    out = (flat[:, 0] == flat[:, -1]) & (flat[:, 0] == flat[:, flat.shape[1] // 2])
    some = np.nonzero(out)[0]
    out[some] = (flat[some] == flat[some, :1]).all(1)
    return np.asarray(out)


CACHE_BYTES = 1_000_000
"""Images that are masked and transformed together on the CPU: what is between them stays in its caches."""


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
    """Images of one optics group, ready for the likelihood. P lattice pixels, B particles, I images.

    Arrays with lattice pixels belong to a backend (a card, perhaps); the rest is numpy's.
    """

    particles: np.ndarray
    """(B,) indices of the particles."""
    images: np.ndarray
    """(I,) indices of their images."""
    image_start: np.ndarray
    """(B + 1,) images of each particle."""
    optics_group: int
    masked: Any
    """(I, 2, P) float32."""
    model_ctf: Any
    """(I, P) float32: C, or C^2 for premultiplied data."""
    score_image: Any
    """(B, 2, P) float32: ``sum C s X / sigma2``, origin excluded."""
    score_weight: Any
    """(B, P) float32: ``sum C^2 s^2 / sigma2``, origin excluded."""
    data: Any
    """(B, 2, P) float32: as ``score_image`` for the unmasked image, origin included."""
    data_weight: Any
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
    backend : Backend
        Whose arrays blocks are made of.
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
        backend: Backend = CPU,
    ) -> None:
        n = optics.box_size
        self.backend = backend
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
        there = backend.to_device
        self._mask, self._there_phase = there(self.mask), there(self._phase)
        self._rows, self._columns, self._signs = (there(v) for v in (self.lattice.rows, self.lattice.columns, self.lattice.signs))
        self._kx, self._ky = there(self.lattice.kx), there(self.lattice.ky)
        self.shell, self._outside_shell = there(self.lattice.shell), there(self.lattice.outside_shell)
        self._inverse, self._score_inverse = there(self.inverse_noise), there(self.score_inverse_noise)
        self._ctf_pixels = there(ctf_pixel_terms(optics, self.frequencies))

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
        scratch: Scratch | None = None,
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
        scratch : Scratch, optional
            Whose memory the block is made in: it holds until the next one is made there.
        """
        lattice, backend, xp, there = self.lattice, self.backend, self.backend.xp, self.backend.to_device
        of_image = np.repeat(np.arange(len(particles)), np.diff(image_start))
        offset_px = np.asarray(offsets, float) / self.optics.pixel_size
        rounded = round_half_away(offset_px)

        def room(name: str, *parts: int) -> Any:
            shape = (len(images), *parts, len(lattice))
            return xp.empty(shape, np.float32) if scratch is None or backend.on_device else scratch.array(name, shape)

        x_masked, data, score_image = (room(name, 2) for name in ("masked", "data", "score image"))
        c, weight, data_weight = (room(name) for name in ("ctf", "score weight", "data weight"))
        outside_power = xp.zeros((len(images), self.optics.box_size // 2 + 1))
        usable_image = np.empty(len(images), bool)
        at_once = len(images) if backend.on_device else max(1, CACHE_BYTES // (4 * self.optics.box_size**2))
        for first in range(0, len(images), max(at_once, 1)):
            some = slice(first, first + at_once)
            masked, unmasked, usable_image[some] = self._masked(
                images[some], norm_factor[some], rounded[of_image[some]], image_index[some]
            )
            transform = backend.rfft2(masked)
            self._gather(transform, x_masked[some])
            backend.shell_power(transform, self._outside_shell, 1.0 / self.optics.box_size**2, outside_power[some])
            # without mask, nothing beyond the lattice counts
            self._gather(backend.rfft2(unmasked, columns=lattice.window // 2 + 1), data[some])
        outside = backend.to_host(outside_power)
        if fractional_shift:
            rest = there((offset_px - rounded)[of_image])
            for x in (x_masked, data):
                backend.shift_transforms(x, rest, self._kx, self._ky, self.optics.box_size)
        self._ctf(image_index, c)
        s = np.asarray(scales, np.float64)
        power = xp.empty(len(images))
        backend.weigh_images(
            x_masked, c, there(s, np.float32), self._score_inverse, self._inverse, self.optics.premultiplied, data, data_weight,
            score_image, weight, power,
        )  # fmt: skip
        inside = backend.to_host(power)
        half = lattice.window // 2
        rim = outside[:, half] * self._inverse_by_shell[half]
        beyond = outside[:, half + 1 :].sum(1)
        shell_sums = -0.5 * (inside + rim + beyond) - self._log_norm
        if len(of_image) == len(particles):
            constant, usable = shell_sums, usable_image
        else:
            score_image, weight, data, data_weight = (
                self._per_particle(x, image_start) for x in (score_image, weight, data, data_weight)
            )
            constant = np.add.reduceat(shell_sums, image_start[:-1])
            usable = np.logical_and.reduceat(usable_image, image_start[:-1])
        return Block(
            np.asarray(particles),
            np.asarray(image_index),
            np.asarray(image_start, np.int64),
            self.group_index,
            x_masked,
            c,
            score_image,
            weight,
            data,
            data_weight,
            s,
            outside,
            rounded,
            offset_px - rounded if fractional_shift else np.zeros_like(rounded),
            constant,
            usable,
        )

    def _masked(
        self, images: np.ndarray, norm_factor: np.ndarray, shifts: np.ndarray, image_index: np.ndarray
    ) -> tuple[Any, Any, np.ndarray]:
        """Images shifted and scaled, with and without mask, and which are neither empty nor broken."""
        backend, xp, there = self.backend, self.backend.xp, self.backend.to_device
        unmasked = xp.empty(images.shape, np.float32)
        masked = xp.empty_like(unmasked)
        powers = xp.empty(len(images))
        backend.shift_and_mask(
            backend.upload(images), there(norm_factor, np.float32), there(shifts, np.int64), self._mask, self._outside_total,
            unmasked, masked, powers,
        )  # fmt: skip
        power = backend.to_host(powers)
        usable = np.isfinite(power) & (power > 0) & ~without_variance(images)
        if not usable.all():
            bad = there(np.nonzero(~usable)[0])
            unmasked[bad] = 0
            masked[bad] = 0
        if not self.zero_mask:
            masked = unmasked * self._mask + there(self._noise_outside(image_index))
        return masked, unmasked, usable

    def _per_particle(self, values: Any, image_start: np.ndarray) -> Any:
        """Sums over the images of each particle."""
        if not self.backend.on_device:
            return np.add.reduceat(values, image_start[:-1], axis=0)
        there, first, counts = self.backend.to_device, image_start[:-1], np.diff(image_start)
        out = values[there(first)]
        for k in range(1, int(counts.max())):
            more = np.nonzero(counts > k)[0]
            out[there(more)] += values[there(first[more] + k)]
        return out

    def ctf(self, image_index: np.ndarray) -> np.ndarray:
        """(I, P) float32 CTF on the lattice (squared for premultiplied data, ones without CTF correction)."""
        out = self.backend.xp.empty((len(image_index), len(self.lattice)), np.float32)
        self._ctf(image_index, out)
        return self.backend.to_host(out)

    def _ctf(self, image_index: np.ndarray, out: Any) -> None:
        if not self.do_ctf:
            out[:] = 1
            return
        k = self.columns
        images = ctf_image_terms(
            self.optics, *(v[image_index] for v in (k.defocus_u, k.defocus_v, k.defocus_angle, k.phase_shift, k.b_factor, k.ctf_scale))
        )
        self.backend.ctf_values(self._ctf_pixels, self.backend.to_device(images), self.intact_first_peak, out)
        if self.optics.premultiplied:
            out *= out

    def _gather(self, transform: Any, out: Any) -> None:
        self.backend.gather_lattice(
            transform, self._rows, self._columns, self._signs, self._there_phase, self._use_phase,
            np.float32(1.0 / self.optics.box_size**2), out,
        )  # fmt: skip

    def _noise_outside(self, image_index: np.ndarray) -> np.ndarray:
        """Noise of the estimated spectrum where the mask leaves out the image, the same for the same image and seed."""
        n = self.optics.box_size
        k = np.fft.fftfreq(n) * n
        shell = np.floor(np.hypot(k[:, None], np.arange(n // 2 + 1)) + 0.5).astype(int)
        sigma = np.sqrt(np.append(self.image_noise, 0.0)[np.minimum(shell, n // 2 + 1)]) * n**2
        out = np.empty((len(image_index), n, n), np.float32)
        for i, image in enumerate(image_index):
            rng = np.random.default_rng([self.seed, int(image)])
            noise = rng.normal(size=(2, *sigma.shape)) * sigma
            out[i] = scipy.fft.irfft2(noise[0] + 1j * noise[1], s=(n, n), workers=1) * (1 - self.mask)
        return out
