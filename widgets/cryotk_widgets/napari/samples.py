"""Sample data from :mod:`cryotk.simulate`."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryotk_widgets.napari.layers import LayerData, image_layer, volume_layer

__all__ = ["half_maps", "micrograph", "noisy_half_maps", "particle_images"]


def noisy_half_maps(box: int = 96, pixel_size: float = 2.0, seed: int = 0, noise: float = 0.7) -> tuple[Any, Any]:
    """Two half-maps of a simulated tetramer: one density, blurred, with independent white noise.

    Parameters
    ----------
    box : int
    pixel_size : float, Å
    seed : int
        Of molecule and noise.
    noise : float
        Standard deviation on the good side (small x), in that of the density.

    Returns
    -------
    half1, half2 : DataArray
        (z, y, x); the noise is three times as strong on one side, so that the local resolution differs.
    """
    from cryotk import simulate
    from cryotk.data import as_volume

    density = simulate.volume(simulate.molecule(seed=seed), box, pixel_size, envelope_b_factor=120.0)
    signal = np.asarray(density.values) / float(density.values.std())
    rng = np.random.default_rng(seed)
    side = 1.0 + 2.0 / (1.0 + np.exp(-np.asarray(density["x"]) / 12.0))
    return tuple(  # type: ignore[return-value]
        as_volume((signal + noise * side * rng.standard_normal(signal.shape)).astype(np.float32), pixel_size, f"half-map {i}")
        for i in (1, 2)
    )


def half_maps() -> list[LayerData]:
    """Two half-maps, for the dock widgets."""
    a, b = noisy_half_maps()
    step = float(a.attrs["pixel_size"])
    return [volume_layer(h.values, step, f"half-map {i}", h.attrs["source"]) for i, h in ((1, a), (2, b))]


def particle_images() -> list[LayerData]:
    """500 particle images."""
    from cryotk import simulate

    particles = simulate.example(500, progress=False)
    return [image_layer(particles["images"].data, float(particles["pixel_size"].values[0]), "particles (simulated)", "simulated")]


def micrograph(size: int = 1024, seed: int = 0) -> list[LayerData]:
    """A micrograph with particles put where none overlap, and the points.

    Parameters
    ----------
    size : int
        Edge in pixels of 3.5 Å.
    seed : int
        Of places and noise.
    """
    from cryotk import simulate

    particles = simulate.particles(48, 64, 3.5, snr=0.3, seed=seed, cache=True, progress=False)
    images, box = np.asarray(particles["images"].data, np.float32), 64
    rng = np.random.default_rng(seed)
    field = rng.standard_normal((size, size)).astype(np.float32)
    spots = np.stack(np.meshgrid(*[np.arange(box, size - box, int(1.5 * box))] * 2, indexing="ij"), -1).reshape(-1, 2)
    spots = rng.permutation(spots)[: len(images)] + rng.integers(-12, 13, (min(len(spots), len(images)), 2))
    y = np.arange(box) - box // 2
    radius = np.hypot(y[:, None], y)
    # the images bring noise of their own: they fade into the field's at their rim
    fade = np.clip((box / 2 - radius) / 6, 0, 1).astype(np.float32)
    for (i, j), image in zip(spots, images, strict=False):
        window = field[i - box // 2 : i + box // 2, j - box // 2 : j + box // 2]
        window *= np.sqrt(1 - fade**2)
        window += fade * image
    picture = image_layer(field, 3.5, "micrograph (simulated)", "simulated")
    options = {
        "name": f"particles ({len(spots)})", "scale": (3.5, 3.5), "units": ("angstrom",) * 2, "size": 52,
        "face_color": "transparent", "border_color": "#56b4e9", "border_width": 0.08, "metadata": {"cryotk": {"kind": "particles"}},
    }  # fmt: skip
    return [picture, (spots.astype(float), options, "points")]
