"""The forward model's switches, one by one."""

from __future__ import annotations

import numpy as np
import pytest

from cryotk.geometry import euler_to_matrix
from cryotk.optics import OpticsGroup, ctf, odd_phase
from cryotk.projection import FourierReference, group_transform, predict
from cryotk.projection.api import _half_plane

N, A = 24, 3.0
GROUP = OpticsGroup(A, box_size=N, beam_tilt=(2.0, -1.0), odd_zernike=(0, 0, 1, -2, 0.5, 3), even_zernike=(0.1, 2, -1, 1))
CTF = {"defocus_u": np.array([9e3, 12e3]), "defocus_v": np.array([8e3, 12.5e3]), "defocus_angle": np.array([20.0, -70.0])}
MATRICES = euler_to_matrix([10, 80], [30, 110], [-40, 5])


@pytest.fixture(scope="module")
def reference():
    k = np.arange(N) - N // 2
    ball = np.exp(-(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) / 18)
    return FourierReference.from_map(np.random.default_rng(0).standard_normal((N,) * 3) * ball, A)


def test_switches(reference):
    kx, ky = _half_plane(N)
    f = np.stack([kx, ky], -1) / (N * A)
    plain = predict(reference, GROUP, MATRICES, kx, ky)
    assert np.array_equal(plain, reference.slices(MATRICES, kx, ky))
    with_ctf = predict(reference, GROUP, MATRICES, kx, ky, ctf_parameters=CTF)
    assert np.allclose(with_ctf, plain * ctf(GROUP, f, **CTF), atol=1e-6 * np.abs(plain).max())
    odd = predict(reference, GROUP, MATRICES, kx, ky, apply_odd_phase=True)
    assert np.allclose(odd, plain * np.exp(1j * odd_phase(GROUP, f)), atol=1e-6 * np.abs(plain).max())
    t = np.array([[1.0, -2.0], [4.5, 3.0]])
    moved = predict(reference, GROUP, MATRICES, kx, ky, shifts=t)
    ramp = np.exp(2j * np.pi * (t[:, :1] * f[:, 0] + t[:, 1:] * f[:, 1]))
    assert np.allclose(moved, plain * ramp, atol=1e-6 * np.abs(plain).max())
    damped = predict(reference, GROUP, MATRICES, kx, ky, mtf=np.full(len(kx), 0.5))
    assert np.allclose(damped, plain / 2)


def test_premultiplied_images_hold_the_ctf_twice(reference):
    from dataclasses import replace

    kx, ky = _half_plane(N)
    c = ctf(GROUP, np.stack([kx, ky], -1) / (N * A), **CTF)
    once = predict(reference, GROUP, MATRICES, kx, ky, ctf_parameters=CTF)
    twice = predict(reference, replace(GROUP, premultiplied=True), MATRICES, kx, ky, ctf_parameters=CTF)
    assert np.allclose(twice, once * c, atol=1e-6 * np.abs(once).max())


def test_group_transform():
    plain = OpticsGroup(A, box_size=N)
    assert np.allclose(group_transform(plain, N, A), np.eye(3))
    other = OpticsGroup(2.0, box_size=48)
    assert np.allclose(group_transform(other, N, A), np.eye(3) * 96 / 72)
    m = ((1.02, 0.006), (0.004, 0.985))
    distorted = OpticsGroup(A, box_size=N, magnification=m)
    # looked up at the inverse: an image's frequency is multiplied by the magnification
    assert np.allclose(np.linalg.inv(group_transform(distorted, N, A))[:2, :2], m)


def test_2d_references_turn_by_psi():
    image = np.random.default_rng(1).standard_normal((N, N))
    reference = FourierReference.from_map(image, A)
    assert not reference.is_3d
    kx, ky = _half_plane(N, N / 2 - 1)
    still = reference.slices(euler_to_matrix([0.0], 0, 0), kx, ky)
    quarter = reference.slices(euler_to_matrix([0.0], 0, 90), kx, ky)
    lookup = {(int(x), int(y)): v for x, y, v in zip(kx, ky, still[0], strict=True)}
    for x, y, v in zip(kx, ky, quarter[0], strict=True):
        # A^-1 (x, y) for psi = 90 is (-y, x)
        u, w = -int(y), int(x)
        expected = lookup[(u, w)] if (u, w) in lookup else np.conj(lookup[(-u, -w)])
        assert abs(v - expected) < 1e-5 * np.abs(still).max()
