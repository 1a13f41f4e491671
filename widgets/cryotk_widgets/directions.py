"""Viewing directions on an equal-area map of the sphere."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

__all__ = ["direction_map", "mollweide_angles", "viridis"]


@lru_cache(maxsize=4)
def mollweide_angles(width: int = 240) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rot and tilt (degrees) of the pixels of a Mollweide map, and which lie on it: each (width / 2, width).

    Rot runs from -180 (left) to 180, tilt from 0 (top) to 180; the middle is rot 0 on the equator.
    """
    height = width // 2
    y, x = np.meshgrid(
        (height / 2 - 0.5 - np.arange(height)) / (height / 2), (np.arange(width) + 0.5 - width / 2) / (width / 2), indexing="ij"
    )
    theta = np.arcsin(np.clip(y, -1, 1))
    rot = 180 * x / np.maximum(np.cos(theta), 1e-9)
    latitude = np.degrees(np.arcsin(np.clip((2 * theta + np.sin(2 * theta)) / np.pi, -1, 1)))
    inside = np.abs(rot) <= 180
    return np.where(inside, rot, 0.0), 90.0 - latitude, inside


@lru_cache(maxsize=8)
def _cells(order: int, width: int) -> np.ndarray:
    from cryotk.geometry import healpix

    rot, tilt, inside = mollweide_angles(width)
    return np.where(inside, healpix.angles_to_pixel(order, rot, tilt), -1)


def direction_map(rot: Any, tilt: Any, symmetry: str = "C1", weights: Any = None, width: int = 240) -> tuple[np.ndarray, float]:
    """Density of viewing directions on a Mollweide map.

    Parameters
    ----------
    rot, tilt : (n,) float
        Degrees.
    symmetry : str
        Point group; every direction counts at all of its mates, so that a gap is a gap.
    weights : (n,) float, optional
    width : int
        Pixels.

    Returns
    -------
    image : (width / 2, width) uint8
        0 outside of the map, 1 to 255 from nothing to ``most``.
    most : float
        Density of the fullest cell over that of even coverage.
    """
    from cryotk.geometry import euler_to_matrix, healpix, symmetry_operators

    rot, tilt = np.asarray(rot, float), np.asarray(tilt, float)
    operators = symmetry_operators(symmetry)
    vectors = euler_to_matrix(rot, tilt, 0.0)[:, 2] if len(rot) else np.zeros((0, 3))
    n = len(rot) * len(operators)
    order = int(np.clip(np.floor(np.log2(max(n, 1) / 100) / 2), 1, 4))
    size = healpix.n_pixels(order)
    counts = np.zeros(size)
    for m in operators:
        v = vectors @ m
        cell = healpix.angles_to_pixel(
            order, np.degrees(np.arctan2(v[:, 1], v[:, 0])), np.degrees(np.arccos(np.clip(v[:, 2], -1, 1)))
        )
        counts += np.bincount(cell, weights, minlength=size)
    most = float(counts.max())
    cells = _cells(order, width)
    shade = 1 + np.rint(254 * counts[np.maximum(cells, 0)] / most) if most > 0 else np.ones(cells.shape)
    total = counts.sum()
    return np.where(cells >= 0, shade, 0).astype(np.uint8), most * size / total if total > 0 else 0.0


@lru_cache(maxsize=1)
def viridis() -> np.ndarray:
    """(256, 3) uint8; interpolated from 17 of its colours."""
    knots = [
        "440154", "48186a", "472d7b", "424086", "3b528b", "33638d", "2c728e", "26828e", "21918c", "1fa088", "28ae80", "3fbc73", "5ec962", "84d44b",
        "addc30", "d8e219", "fde725",
    ]  # fmt: skip
    rgb = np.array([[int(k[i : i + 2], 16) for i in (0, 2, 4)] for k in knots], float)
    at = np.linspace(0, len(knots) - 1, 256)
    return np.rint(np.stack([np.interp(at, np.arange(len(knots)), rgb[:, i]) for i in range(3)], -1)).astype(np.uint8)
