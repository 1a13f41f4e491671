"""What a simulated particle set holds, decided before any pixel is made: settings and the table of truth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

import numpy as np

from cryotk.errors import SettingsError
from cryotk.optics import OpticsGroup
from cryotk.simulate.molecules import Molecule

__all__ = ["JUNK_KINDS", "ParticleSettings", "draw_table"]

JUNK_KINDS = ("noise", "ice_edge", "off_centre", "neighbours")
"""Pure noise; the edge of ice or carbon; a particle far from the centre; a particle touched by others."""

FORMAT = 3
"""Raised whenever the same settings would give other images; part of the cache key."""


@dataclass(frozen=True)
class ParticleSettings:
    """Everything that decides a simulated particle set.

    Lengths are in Å, angles in degrees, defocus in Å with underfocus positive. See :func:`cryotk.simulate.particles`.
    """

    n: int
    box: int
    optics: OpticsGroup
    molecules: tuple[Molecule, ...] = field(repr=False)
    class_weights: tuple[float, ...]
    snr: float = 0.1
    amplitude: float | None = None
    envelope_b_factor: float = 80.0
    offset_sigma: float = 4.0
    n_micrographs: int = 0
    defocus: tuple[float, float] = (8000.0, 22000.0)
    astigmatism: tuple[float, float] = (80.0, 600.0)
    defocus_spread: float = 250.0
    phase_shift: float = 0.0
    scale_sigma: float = 0.12
    junk: tuple[tuple[str, float], ...] = ()
    preferred_views: int = 0
    preferred_fraction: float = 0.8
    preferred_spread: float = 10.0
    noise: tuple[float, float, float] = (0.6, 2.4, 0.035)
    noise_sigma: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        checks = (
            (self.n >= 1, f"n must be at least 1, not {self.n}"),
            (self.box >= 16 and self.box % 2 == 0, f"box must be an even number of at least 16 pixels, not {self.box}"),
            (self.optics.pixel_size > 0, f"pixel_size must be positive, not {self.optics.pixel_size}"),
            (len(self.molecules) > 0, "at least one molecule is needed"),
            (self.snr > 0, f"snr must be positive, not {self.snr}; use noise_sigma=0 for images without noise"),
            (self.noise_sigma >= 0, f"noise_sigma must not be negative: {self.noise_sigma}"),
            (
                len(self.class_weights) == len(self.molecules)
                and min(self.class_weights) >= 0
                and sum(self.class_weights) > 0,
                f"class_weights must be {len(self.molecules)} numbers (one per molecule), not {self.class_weights}",
            ),
            (
                0 <= sum(v for _, v in self.junk) <= 1 and all(v >= 0 for _, v in self.junk),
                f"junk must be fractions that sum to 1 at most, not {dict(self.junk)}",
            ),
        )
        for good, message in checks:
            if not good:
                raise SettingsError(message)
        unknown = {k for k, _ in self.junk} - set(JUNK_KINDS)
        if unknown:
            raise SettingsError(f"unknown kinds of junk {sorted(unknown)}; there are {', '.join(JUNK_KINDS)}")
        for m in self.molecules:
            if m.diameter > self.box * self.optics.pixel_size:
                raise SettingsError(
                    f"a box of {self.box} x {self.optics.pixel_size:g} Å = {self.box * self.optics.pixel_size:.0f} Å "
                    f"does not hold {m.name} of {m.diameter:.0f} Å; take a larger box or pixel size"
                )

    @property
    def diameter(self) -> float:
        """Diameter of the largest molecule, Å."""
        return max(m.diameter for m in self.molecules)

    def key(self) -> str:
        """Return a digest of all settings and atoms, for the cache."""
        h = hashlib.sha256()
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("molecules", "optics")}
        h.update(json.dumps([FORMAT, plain, asdict(self.optics)], sort_keys=True).encode())
        for m in self.molecules:
            h.update(np.ascontiguousarray(m.positions).tobytes() + np.ascontiguousarray(m.weights).tobytes())
            h.update(repr(m.blob_sigma).encode())
        return h.hexdigest()[:24]


def parse_junk(junk: float | Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Return fractions per kind; a number is shared evenly."""
    if isinstance(junk, Mapping):
        return tuple((str(k), float(v)) for k, v in junk.items())
    return tuple((k, float(junk) / len(JUNK_KINDS)) for k in JUNK_KINDS) if junk else ()


def draw_table(settings: ParticleSettings) -> dict[str, np.ndarray]:
    """Draw poses, offsets, defocus, micrographs, classes and junk of all particles.

    Returns
    -------
    dict of (n,) arrays under the names of the particle set; ``true_*`` is what a refinement does not know.
    """
    rng = np.random.default_rng(np.random.SeedSequence([settings.seed, 0]))
    n = settings.n
    micrographs = settings.n_micrographs or max(1, round(n / 40))
    of = np.arange(n) * micrographs // n
    table = _micrograph_columns(settings, rng, micrographs, of)
    table["true_angle_rot"], table["true_angle_tilt"] = _directions(settings, rng)
    table["true_angle_psi"] = rng.uniform(-180, 180, n)
    shift = rng.normal(0, settings.offset_sigma, (n, 2))
    weights = np.array(settings.class_weights) / sum(settings.class_weights)
    table["true_class"] = rng.choice(len(weights), n, p=weights) + 1
    kind = np.full(n, "none", dtype="<U10")
    chosen, start = rng.permutation(n), 0
    for name, fraction in settings.junk:
        count = round(fraction * n)
        kind[chosen[start : start + count]] = name
        start += count
    # far enough that part of the particle leaves the box, near enough that some of it stays
    far, azimuth = rng.uniform(0.28, 0.5, n), rng.uniform(0, 2 * np.pi, n)
    moved = (far * settings.box * settings.optics.pixel_size)[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)], 1)
    shift = np.where((kind == "off_centre")[:, None], moved, shift)
    table["true_shift_x"], table["true_shift_y"] = shift[:, 0].copy(), shift[:, 1].copy()
    table["junk_kind"], table["is_junk"] = kind, kind != "none"
    return table


def _directions(settings: ParticleSettings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rot and tilt: uniform over the sphere, or a share of them near a few preferred views."""
    n = settings.n
    rot, tilt = rng.uniform(-180, 180, n), np.degrees(np.arccos(rng.uniform(-1, 1, n)))
    if settings.preferred_views:
        views = rng.standard_normal((settings.preferred_views, 3))
        views /= np.linalg.norm(views, axis=1, keepdims=True)
        near = views[rng.integers(len(views), size=n)]
        near = near + np.radians(settings.preferred_spread) * rng.standard_normal((n, 3))
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        chosen = rng.random(n) < settings.preferred_fraction
        rot = np.where(chosen, np.degrees(np.arctan2(near[:, 1], near[:, 0])), rot)
        tilt = np.where(chosen, np.degrees(np.arccos(np.clip(near[:, 2], -1, 1))), tilt)
    return rot, tilt


def _micrograph_columns(
    settings: ParticleSettings, rng: np.random.Generator, count: int, of: np.ndarray
) -> dict[str, np.ndarray]:
    n = settings.n
    mean, astigmatism = rng.uniform(*settings.defocus, count), rng.uniform(*settings.astigmatism, count)
    azimuth, scale = rng.uniform(0, 180, count), rng.normal(1, settings.scale_sigma, count)
    defocus = mean[of] + rng.normal(0, settings.defocus_spread, n)
    names = np.array([f"simulated/micrograph{i + 1:04d}.mrc" for i in range(count)], dtype=object)
    return {
        "micrograph": names[of],
        "coordinate_x": rng.uniform(200, 3800, n).round(1),
        "coordinate_y": rng.uniform(200, 3800, n).round(1),
        "defocus_u": defocus + astigmatism[of] / 2,
        "defocus_v": defocus - astigmatism[of] / 2,
        "defocus_angle": azimuth[of],
        "phase_shift": np.full(n, settings.phase_shift),
        # an intensity must stay positive, whatever the spread asked for
        "true_scale": np.clip(scale, 0.2, None)[of],
    }
