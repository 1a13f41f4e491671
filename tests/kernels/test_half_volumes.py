"""Passes over half volumes, and what shares half turns, against plain definitions."""

import numpy as np
import pytest

from cryotk.kernels.half_turns import conjugate_slices, fold_rows
from cryotk.kernels.half_volumes import divide_by_weight, power_in_shells, weight_statistics

R_MAX, FLOOR = 5, 1e-3


@pytest.fixture(scope="module")
def points():
    """Planes z = -1 to 2 of a half volume, its squared radii (one number for all beyond), and tables over them."""
    rng = np.random.default_rng(3)
    k, x = np.arange(-(R_MAX + 1), R_MAX + 2), np.arange(R_MAX + 2)
    r2 = np.arange(-1, 3)[:, None, None] ** 2 + k[:, None] ** 2 + x**2
    r2 = np.minimum(r2, R_MAX**2 + 1)
    data = (rng.normal(size=r2.shape) + 1j * rng.normal(size=r2.shape)).astype(np.complex64)
    weight = np.where(rng.uniform(size=r2.shape) < 0.2, 0, rng.uniform(size=r2.shape))
    bins = rng.integers(0, 4, R_MAX**2 + 2)
    inverse = rng.uniform(0.1, 1, R_MAX**2 + 2)
    inverse[::3] = -1
    return r2, data, weight, bins, inverse


def _regularised(inverse, weight):
    return np.where(inverse < 0, 1 / np.maximum(FLOOR * weight, 1e-300), inverse)


def test_power(points):
    r2, data, _, bins, _ = points
    total, count = np.zeros((2, 4))
    power_in_shells(data, -1, R_MAX, bins, total, count)
    np.testing.assert_allclose(total, np.bincount(bins[r2].ravel(), np.abs(data.astype(complex)).ravel() ** 2, 4), rtol=1e-12)
    np.testing.assert_array_equal(count, np.bincount(bins[r2].ravel(), minlength=4))


def test_weights(points):
    r2, _, weight, bins, inverse = points
    ctf2 = np.linspace(0.5, 2, len(bins))
    sums = np.zeros((5, 4))
    weight_statistics(weight, -1, R_MAX, bins, inverse, ctf2, FLOOR, sums)
    prior = _regularised(inverse[r2], weight) / ctf2[r2]
    for row, values in zip(sums, (np.ones_like(weight), weight, weight / prior, weight >= prior, weight + prior), strict=True):
        np.testing.assert_allclose(row, np.bincount(bins[r2].ravel(), values.ravel(), 4), rtol=1e-12)


def test_ratio(points):
    r2, data, weight, _, inverse = points
    floor_of, out = np.linspace(0, 0.5, len(inverse)), np.full(data.shape, np.nan, complex)
    divide_by_weight(data.astype(complex), weight, -1, R_MAX, inverse, floor_of, FLOOR, out)
    den = np.maximum(weight + _regularised(inverse[r2], weight), floor_of[r2])
    np.testing.assert_allclose(out, np.where(r2 > R_MAX**2, 0, data / den), rtol=1e-12)


def test_half_turns():
    rng = np.random.default_rng(4)
    slices, rows = rng.normal(size=(2, 3, 2, 2, 5)).astype(np.float32)
    weights = rng.uniform(size=(3, 2, 5)).astype(np.float32)
    upper, partner = np.array([2]), np.array([0])
    expected = slices.copy()
    expected[2] = slices[0] * np.array([1, -1], np.float32)[None, :, None]
    conjugate_slices(slices, upper, partner)
    np.testing.assert_array_equal(slices, expected)
    both, own = rows[0] + rows[2] * np.array([1, -1], np.float32)[None, :, None], weights[0] + weights[2]
    others = rows[1].copy(), weights[1].copy()
    fold_rows(rows, weights, upper, partner)
    np.testing.assert_array_equal(rows[0], both)
    np.testing.assert_array_equal(weights[0], own)
    assert not weights[2].any() and np.array_equal(rows[1], others[0]) and np.array_equal(weights[1], others[1])
