"""References before the first mini-batch: averages of random particles, broken into blobs."""

from __future__ import annotations

import numpy as np

from cryotk.fourier import lowpass
from cryotk.jobs.particle_set import ParticleSet
from cryotk.jobs.start import initial_averages, initial_resolution_shell
from cryotk.likelihood.prepare import particle_mask
from cryotk.projection.symmetry_search import SymmetryAxes, place_on_axes

__all__ = ["blobs", "random_references"]

N_BLOBS = 40


def blobs(map_: np.ndarray, diameter_px: float, rng: np.random.Generator) -> np.ndarray:
    """Random blobs of both signs with the strength of a map where they sit, so that no start is like another.

    Parameters
    ----------
    map_ : (N, N, N) or (N, N) float
    diameter_px : float
        Of the particle.
    rng : numpy.random.Generator

    Returns
    -------
    as ``map_``, with its standard deviation
    """
    n, dims = map_.shape[-1], map_.ndim
    k = np.arange(n)
    total = np.zeros_like(map_, float)
    for strength in (1.0, -0.5):
        centres = rng.normal(n // 2, diameter_px / (6 if dims == 3 else 7), (N_BLOBS, dims))
        for centre in centres:
            at = tuple(np.clip(np.round(centre).astype(int), 0, n - 1))
            gains = [np.exp(-((10 * (k - c) / diameter_px) ** 2)) for c in centre]
            blob = gains[0]
            for g in gains[1:]:
                blob = np.multiply.outer(blob, g)
            total += strength * abs(float(map_[at])) * blob
    spread = total.std()
    return total * (map_.std() / spread) if spread > 0 else total


def random_references(
    data: ParticleSet,
    n_classes: int,
    box: int,
    pixel_size: float,
    noise: np.ndarray,
    mask_diameter: float,
    rng: np.random.Generator,
    *,
    padding: float,
    do_ctf: bool = True,
    intact_first_peak: bool = False,
    symmetry: str | None = None,
) -> np.ndarray:
    """References that nothing but the size of the particle is known of.

    Parameters
    ----------
    symmetry : str, optional
        Point group of maps; averages without it.

    Returns
    -------
    (K, N, N) or (K, N, N, N) float64
    """
    averages = initial_averages(
        data, n_classes, box, pixel_size, noise, mask_diameter, rng, padding=padding, do_ctf=do_ctf,
        intact_first_peak=intact_first_peak, symmetry=symmetry,
    )
    resolution = box * pixel_size / initial_resolution_shell(box)
    mask = particle_mask(box, mask_diameter / (2 * pixel_size), dims=averages.ndim - 1)
    out = []
    for average in averages:
        start = blobs(average, mask_diameter / pixel_size, rng)
        if symmetry is not None and symmetry != "C1":
            # blobs know no symmetry, and what is not symmetric would only fade slowly
            start = place_on_axes(start, SymmetryAxes(symmetry, np.eye(3), np.zeros(3), 1.0))
            start *= average.std() / max(start.std(), 1e-30)
        out.append(lowpass(start, pixel_size, resolution) * mask)
    return np.array(out)
