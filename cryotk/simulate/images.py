"""Pixels of simulated particles: Fourier sums over atoms, optics, junk, noise, normalisation.

Everything happens on a field of view twice the box; the centre is cut out at the end, so that what the CTF carries out
of the box is really lost, as in extraction from a micrograph.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft
from scipy.special import ndtr

from cryotk.geometry import euler_to_matrix
from cryotk.optics import ctf, odd_phase
from cryotk.simulate.gridding import points_to_image_transform
from cryotk.simulate.plan import ParticleSettings

__all__ = ["Renderer", "noise_power", "normalise", "render"]

BLOCK = 16
"""Images per task: their transforms together fit the cache of a core."""


def noise_power(frequencies: np.ndarray, noise: tuple[float, float, float]) -> np.ndarray:
    """Relative noise power ``a + b exp(-|k| / c)`` at frequencies in 1/Å (not scaled to unit variance)."""
    a, b, c = noise
    return a + b * np.exp(-np.asarray(frequencies) / c)


def normalise(images: np.ndarray) -> np.ndarray:
    """Subtract the mean and divide by the standard deviation of pixels farther than 3/8 of the box from the centre.

    Parameters
    ----------
    images : (m, n, n) float, changed in place

    Returns
    -------
    (m,) float64: the divisors.
    """
    n = images.shape[-1]
    axis = np.arange(n) - n // 2
    outside = np.hypot(axis[:, None], axis) > 0.375 * n
    background = images[:, outside].astype(np.float64)
    mean, std = background.mean(1), background.std(1)
    images -= mean[:, None, None].astype(images.dtype)
    safe = np.where(std > 0, std, 1.0)
    images /= safe[:, None, None].astype(images.dtype)
    return safe


@dataclass(frozen=True)
class Renderer:
    """Makes images from rows of a table. Holds no state that changes: threads share one."""

    settings: ParticleSettings
    table: dict[str, np.ndarray]
    amplitude: float = 1.0

    @cached_property
    def frequencies(self) -> np.ndarray:
        """(P, 2) x, y in 1/Å of the half lattice of the doubled field."""
        field, p = 2 * self.settings.box, self.settings.optics.pixel_size
        y, x = np.meshgrid(np.fft.fftfreq(field, p), np.arange(field // 2 + 1) / (field * p), indexing="ij")
        return np.stack([x.ravel(), y.ravel()], -1)

    @cached_property
    def _shape(self) -> tuple[int, int]:
        return 2 * self.settings.box, self.settings.box + 1

    @cached_property
    def _corrected(self) -> np.ndarray:
        return self.frequencies @ np.array(self.settings.optics.magnification).T

    def _damping(self, blob_sigma: float) -> np.ndarray:
        """Blobs' and envelope's damping, aberrations' phase: all that does not depend on the particle."""
        k2, q2 = (self.frequencies**2).sum(1), (self._corrected**2).sum(1)
        out = np.exp(-2 * np.pi**2 * blob_sigma**2 * q2 - self.settings.envelope_b_factor / 4 * k2)
        phase = odd_phase(self.settings.optics, self.frequencies)
        if np.any(phase):
            return (out * np.exp(1j * phase)).astype(np.complex64).reshape(self._shape)
        return out.astype(np.float32).reshape(self._shape)

    @cached_property
    def _dampings(self) -> list[np.ndarray]:
        return [self._damping(m.blob_sigma) for m in self.settings.molecules]

    @cached_property
    def _noise_filter(self) -> np.ndarray:
        """Amplitude by which the transform of white noise of unit variance is multiplied."""
        power = noise_power(np.hypot(*self.frequencies.T), self.settings.noise).reshape(self._shape)
        counts = np.full(self._shape[1], 2.0)
        counts[[0, -1]] = 1  # columns that a half transform holds whole
        variance = (power * counts).sum() / self._shape[0] ** 2
        return np.sqrt(power / variance).astype(np.float32)

    def prepare(self) -> None:
        """Fill what is shared before threads start."""
        _ = self._dampings, self._noise_filter

    def ctf(self, rows: np.ndarray) -> np.ndarray:
        """CTFs on the doubled field, (m, field, field // 2 + 1) float32."""
        t = self.table
        columns = (t[name][rows] for name in ("defocus_u", "defocus_v", "defocus_angle", "phase_shift"))
        values = ctf(self.settings.optics, self.frequencies, *columns)
        return values.reshape(-1, *self._shape)

    def _projections(self, rows: np.ndarray, which: np.ndarray, matrices: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Projections, damped; ``which`` molecule, pose and centre (Å) per row."""
        optics = self.settings.optics
        out = np.zeros((len(rows), *self._shape), np.complex64)
        # an object at r is imaged at M^T r (M acts on frequencies); the particle as a whole is moved by `at` after that
        bend = np.array(optics.magnification).T
        for c, molecule in enumerate(self.settings.molecules):
            mine = np.nonzero(which == c)[0]
            if len(mine) == 0:
                continue
            in_plane = (
                np.einsum("ij,mjk,nk->min", bend, matrices[mine][:, :2], molecule.positions) + at[mine][:, :, None]
            )
            f = points_to_image_transform(
                in_plane[:, 0], in_plane[:, 1], molecule.weights, 2 * self.settings.box, optics.pixel_size
            )
            out[mine] = f * self._dampings[c]
        out *= np.float32(1 / optics.pixel_size**3)
        return out

    def clean(self, rows: np.ndarray) -> np.ndarray:
        """Return transforms on the doubled field without noise, CTF applied, amplitude 1, micrographs' scale 1."""
        t = self.table
        rows = np.asarray(rows)
        matrices = euler_to_matrix(t["true_angle_rot"][rows], t["true_angle_tilt"][rows], t["true_angle_psi"][rows])
        # RELION's sign: the shift is what must be applied to centre the particle, so it sits at minus the shift
        at = -np.stack([t["true_shift_x"][rows], t["true_shift_y"][rows]], 1)
        kind = t["junk_kind"][rows]
        out = self._projections(rows, t["true_class"][rows] - 1, matrices, at)
        out[(kind == "noise") | (kind == "ice_edge")] = 0
        for i in np.nonzero(kind == "neighbours")[0]:
            out[i] += self._neighbours(int(rows[i]), at[i])
        return out * self.ctf(rows)

    def _random(self, row: int, purpose: int) -> np.random.Generator:
        """One stream per particle and purpose, so that neither threads nor order matter."""
        return np.random.default_rng(np.random.SeedSequence([self.settings.seed, purpose, row]))

    def _neighbours(self, row: int, at: np.ndarray) -> np.ndarray:
        rng = self._random(row, 1)
        count = int(rng.integers(1, 3))
        angles = np.degrees(np.arccos(rng.uniform(-1, 1, count)))
        matrices = euler_to_matrix(rng.uniform(-180, 180, count), angles, rng.uniform(-180, 180, count))
        azimuth = rng.uniform(0, 2 * np.pi) + np.arange(count) * rng.uniform(1.5, 4.0)
        distance = self.settings.diameter * rng.uniform(0.62, 0.85, count)
        centres = at + distance[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)], 1)
        which = np.full(count, self.table["true_class"][row] - 1)
        return self._projections(np.full(count, row), which, matrices, centres).sum(0)

    def _ice_edge(self, row: int) -> np.ndarray:
        """Edge of thick ice or carbon, in units of the noise: a step, and its grain imaged with the CTF."""
        rng = self._random(row, 2)
        field, p = 2 * self.settings.box, self.settings.optics.pixel_size
        axis = (np.arange(field) - field // 2) * p
        angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.22, 0.22) * self.settings.box * p
        distance = np.cos(angle) * axis + np.sin(angle) * axis[:, None] - offset
        inside = ndtr(distance / (1.5 * p)).astype(np.float32)
        grain = self._transform(rng.standard_normal((field, field), dtype=np.float32) * inside)
        grain *= np.exp(-2 * np.pi**2 * 3.0**2 * (self.frequencies**2).sum(1)).astype(np.float32).reshape(self._shape)
        step = self._transform(inside)
        contrast = rng.uniform(0.3, 0.6)
        phase_contrast = (6 * contrast * step + 4 * grain) * self.ctf(np.array([row]))[0]
        return (0.5 * contrast * step + phase_contrast).astype(np.complex64)

    def _transform(self, image: np.ndarray) -> np.ndarray:
        return scipy.fft.rfft2(scipy.fft.ifftshift(image), workers=1)

    def images(self, rows: np.ndarray, noise_sigma: float) -> np.ndarray:
        """Images as extracted, before normalisation: (m, box, box) float32."""
        s = self.settings
        rows = np.asarray(rows)
        scale = (self.amplitude * self.table["true_scale"][rows]).astype(np.float32)
        transform = self.clean(rows) * scale[:, None, None]
        kind = self.table["junk_kind"][rows]
        for i in np.nonzero(kind == "ice_edge")[0]:
            transform[i] += self._ice_edge(int(rows[i]))
        if noise_sigma > 0:
            field = self._shape[0]
            white = np.empty((len(rows), field, field), np.float32)
            for image, row in zip(white, rows, strict=True):
                self._random(int(row), 3).standard_normal(dtype=np.float32, out=image)
            transform += scipy.fft.rfft2(white, workers=1) * (self._noise_filter * np.float32(noise_sigma))
        if s.optics.premultiplied:
            transform *= self.ctf(rows)
        whole = scipy.fft.irfft2(transform, s=(self._shape[0],) * 2, workers=1)
        centre = np.arange(-s.box // 2, s.box // 2)
        return np.ascontiguousarray(whole[:, centre[:, None], centre])


def render(
    renderer: Renderer, threads: int, done: Callable[[int], object] | None = None, *, normalised: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Make all images of a set, in threads; the same bits for any number of them.

    Returns
    -------
    images : (n, box, box) float32
    divisors : (n,) float64
        By which each image was divided.
    """
    s = renderer.settings
    renderer.prepare()
    out = np.empty((s.n, s.box, s.box), np.float32)
    divisors = np.ones(s.n)

    def block(start: int) -> int:
        rows = np.arange(start, min(start + BLOCK, s.n))
        images = renderer.images(rows, s.noise_sigma)
        if normalised:
            divisors[rows] = normalise(images)
        out[rows] = images
        return len(rows)

    with ThreadPoolExecutor(threads) as pool:
        for count in pool.map(block, range(0, s.n, BLOCK)):
            if done is not None:
                done(count)
    return out, divisors


def signal_amplitude(settings: ParticleSettings, table: dict[str, np.ndarray]) -> float:
    """Amplitude that gives the wanted ratio of variances in the particle's circle, from up to 64 particles.

    The pilot particles are the first ones, centred and none of them junk.
    """
    if settings.amplitude is not None:
        return float(settings.amplitude)
    pilot = {name: column[:64].copy() for name, column in table.items()}
    pilot["junk_kind"][:] = "none"
    pilot["true_shift_x"][:] = pilot["true_shift_y"][:] = 0
    pilot["true_scale"][:] = 1
    renderer, rows = Renderer(settings, pilot), np.arange(len(pilot["true_scale"]))
    images = np.concatenate([renderer.images(rows[i : i + BLOCK], 0.0) for i in range(0, len(rows), BLOCK)])
    axis = np.arange(settings.box) - settings.box // 2
    radius = min(settings.diameter / 2 / settings.optics.pixel_size, settings.box / 2)
    inside = np.hypot(axis[:, None], axis) < radius
    variance = images[:, inside].astype(np.float64).var(1).mean()
    return float(np.sqrt(settings.snr / variance))
