"""Axes planted in a map are found again."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryotk.geometry import symmetry_operators
from cryotk.projection.symmetry_search import SymmetryAxes, find_symmetry_axes, place_on_axes


def blobs(rotation, shift, operators, n=32, seed=3):
    """Gaussian blobs at the mates of random points, turned and moved."""
    rng = np.random.default_rng(seed)
    points, heights = rng.normal(0, 4.5, (7, 3)), rng.uniform(0.5, 1.5, 7)
    k = np.arange(n) - n // 2
    z, y, x = np.meshgrid(k, k, k, indexing="ij")
    out = np.zeros((n, n, n))
    for g in operators:
        # the aligned point p is rotation @ p - shift in the map
        for p, h in zip(points @ g.T @ rotation.T - shift, heights, strict=True):
            out += h * np.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2) / (2 * 1.5**2))
    return out


@pytest.mark.parametrize("symmetry", ["C2", "C3", "D2", "D3", *(pytest.param(s, marks=pytest.mark.slow) for s in ("T", "O", "I1"))])
def test_planted_axes_are_found(symmetry):
    operators = symmetry_operators(symmetry)
    rotation = Rotation.random(random_state=7).as_matrix()
    shift = np.array([1.3, -0.8, 0.6])
    map_ = blobs(rotation, shift, operators)
    map_ += np.random.default_rng(1).normal(0, 0.3 * map_.std(), map_.shape)
    found = find_symmetry_axes(map_, symmetry)
    assert found.correlation > 0.8
    # the found rotation differs from the planted one by something that maps the group onto itself
    relative = found.rotation.T @ rotation
    turned = relative @ operators @ relative.T
    nearest = [max(np.trace(t @ g.T) for g in operators) for t in turned]
    assert np.degrees(np.arccos(np.clip((min(nearest) - 1) / 2, -1, 1))) < 2.0
    aligned = place_on_axes(map_, found)
    again = place_on_axes(aligned, SymmetryAxes(symmetry, np.eye(3), np.zeros(3), 1.0))
    assert np.corrcoef(aligned.ravel(), again.ravel())[0, 1] > 0.985
    clean = place_on_axes(blobs(rotation, shift, operators), found, symmetrise=False)
    assert np.corrcoef(aligned.ravel(), clean.ravel())[0, 1] > 0.9


def test_a_map_without_symmetry_has_low_correlation():
    map_ = blobs(np.eye(3), np.zeros(3), np.eye(3)[None])
    assert find_symmetry_axes(map_, "D2").correlation < 0.6


@pytest.mark.parametrize(("map_", "symmetry"), [(np.zeros((16, 16, 16)), "D2"), (np.ones((16, 16, 16)), "C1")])
def test_nothing_to_find(map_, symmetry):
    found = find_symmetry_axes(map_, symmetry)
    assert found.correlation == 0 and np.array_equal(found.rotation, np.eye(3))
