"""Orientations near a pose: the compiled loop is the plain definition."""

import numpy as np
import pytest

from cryotk.geometry import directions, euler_to_matrix, matrix_to_euler, symmetry_operators
from cryotk.kernels.local_search import orientations_near, orientations_near_numpy


@pytest.mark.parametrize(
    ("order", "symmetry", "sigma_direction", "sigma_psi"), [(4, "D2", 3.75, 3.75), (2, "C1", 0.1, 0.1), (2, "C3", 70.0, 200.0)]
)
def test_twins(order, symmetry, sigma_direction, sigma_psi):
    rot, tilt = directions(order, symmetry)
    axes = np.ascontiguousarray(euler_to_matrix(rot, tilt, 0 * rot)[:, 2])
    psi = np.arange(6 * 2**order) * 360 / (6 * 2**order)
    angles = np.random.default_rng(0).uniform(-180, 180, (3, 20))
    poses = euler_to_matrix(*angles)[:, None] @ symmetry_operators(symmetry)[None]
    arguments = axes, psi, np.ascontiguousarray(poses[:, :, 2]), np.ascontiguousarray(matrix_to_euler(poses)[..., 2])
    plain = orientations_near_numpy(*arguments, sigma_direction, sigma_psi)
    start, orientation, prior = orientations_near(*arguments, sigma_direction, sigma_psi)
    assert np.array_equal(start, plain[0]) and np.array_equal(orientation, plain[1])
    assert np.abs(prior - plain[2]).max() < 1e-6
    total = np.add.reduceat(np.exp(prior.astype(float)), start[:-1])
    assert np.allclose(total, 1, atol=1e-5)
