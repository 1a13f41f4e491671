"""Symmetry expansion: equivalent poses, nothing else changes."""

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import DataError, SettingsError
from cryotk.geometry import angular_distance, euler_to_matrix, symmetry_operators


@pytest.fixture(scope="module")
def particles():
    return ctk.simulate.particles(12, 32, 7.0, seed=1, poses=True, progress=False)


@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2", "O", "I1"])
def test_copies_are_equivalent_and_all_different(particles, symmetry):
    out = ctk.symmetry_expand(particles, symmetry)
    ops = symmetry_operators(symmetry)
    m = len(ops)
    assert out.sizes["particle"] == 12 * m
    names = [f"angle_{x}" for x in ("rot", "tilt", "psi")]
    a = euler_to_matrix(*(np.repeat(particles[n].values, m) for n in names))
    b = euler_to_matrix(*(out[n].values for n in names))
    assert angular_distance(a, b, ops).max() < 1e-4
    first = b[:m]
    apart = angular_distance(np.repeat(first, m, 0), np.tile(first, (m, 1, 1))).reshape(m, m) + 999 * np.eye(m)
    assert apart.min() > 10
    assert np.array_equal(out.angle_rot.values[::m], particles.angle_rot.values)
    assert np.array_equal(out.shift_x.values, np.repeat(particles.shift_x.values, m))


def test_a_symmetric_map_is_the_same_from_expanded_particles(particles):
    """Expanded and reconstructed without symmetry, or with it: one map."""
    d2 = ctk.reconstruct(particles, "D2", progress=False)
    c1 = ctk.reconstruct(ctk.symmetry_expand(particles, "D2"), "C1", progress=False)
    assert float(ctk.fsc(d2, c1)[1:10].min()) > 0.99


def test_images_stay_lazy_and_halves_together(particles, no_compute):
    given = particles.assign(random_subset=("particle", np.arange(12) % 2 + 1))
    out = ctk.symmetry_expand(given, "D2")
    assert out.images.shape[0] == 48 and out.images.chunks is not None
    assert np.array_equal(out.random_subset.values.reshape(12, 4), np.repeat(given.random_subset.values[:, None], 4, 1))


def test_bad_input(particles):
    with pytest.raises(DataError, match="refine them first"):
        ctk.symmetry_expand(particles.drop_vars("angle_rot"), "D2")
    with pytest.raises(SettingsError, match="symmetry"):
        ctk.symmetry_expand(particles, "Z3")
