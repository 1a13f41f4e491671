"""Euler angles against independent rotations, and their inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryotk.geometry import angular_distance, euler_to_matrix, matrix_to_euler, symmetry_operators

ANGLE = st.floats(-360, 360, allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(ANGLE, ANGLE, ANGLE)
def test_same_as_scipy(rot, tilt, psi):
    """Passive ZYZ is the inverse of scipy's intrinsic one."""
    expected = Rotation.from_euler("ZYZ", [rot, tilt, psi], degrees=True).inv().as_matrix()
    assert np.allclose(euler_to_matrix(rot, tilt, psi), expected, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(ANGLE, ANGLE, ANGLE)
def test_inverse(rot, tilt, psi):
    a = euler_to_matrix(rot, tilt, psi)
    back = matrix_to_euler(a)
    assert 0 <= back[1] <= 180
    assert np.allclose(euler_to_matrix(*back), a, atol=5e-6)


@pytest.mark.parametrize("tilt", [0.0, 180.0, 1e-7, 180 - 1e-7])
def test_poles(tilt):
    a = euler_to_matrix(40.0, tilt, 25.0)
    back = matrix_to_euler(a)
    assert back[0] == 0
    assert np.allclose(euler_to_matrix(*back), a, atol=1e-5)


def test_shapes():
    assert euler_to_matrix(np.zeros((4, 5)), 0, 0).shape == (4, 5, 3, 3)
    assert matrix_to_euler(np.broadcast_to(np.eye(3), (4, 5, 3, 3))).shape == (4, 5, 3)


def test_projection_direction_is_third_row():
    a = euler_to_matrix(30.0, 60.0, 77.0)
    r, t = np.radians(30), np.radians(60)
    assert np.allclose(a[2], [np.sin(t) * np.cos(r), np.sin(t) * np.sin(r), np.cos(t)])


def test_distance_in_plane():
    a, b = euler_to_matrix(10, 0, 0), euler_to_matrix(10, 0, 9)
    # two of the three axes turn by 9 degrees, the third stays
    assert angular_distance(a, b) == pytest.approx(6.0)


@pytest.mark.parametrize("name", ["C3", "D2", "O", "I1"])
def test_distance_is_blind_to_symmetry(name):
    ops = symmetry_operators(name)
    a = euler_to_matrix(21.0, 47.0, 133.0)
    for op in ops:
        assert angular_distance(a @ op, a, ops) < 1e-4
