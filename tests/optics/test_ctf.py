"""The CTF against its formula, and what each parameter does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryotk.optics import OpticsGroup, ctf, dose_weight, even_basis, even_phase, gamma, odd_basis, odd_phase, wavelength

GROUP = OpticsGroup(1.5, 300.0, 2.7, 0.1, 128)


def _frequencies(n: int = 200, limit: float = 0.3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-limit, limit, (n, 2))


def test_wavelength():
    # relativistic wavelengths of the usual voltages, in pm
    for kv, pm in ((300, 1.9687), (200, 2.5079), (120, 3.3492)):
        assert 100 * wavelength(kv) == pytest.approx(pm, abs=2e-4)


def test_formula():
    """Defocus along the direction of a frequency, written with angles."""
    f = _frequencies()
    du, dv, azimuth, phase = 15e3, 12e3, 35.0, 20.0
    s2, angle = (f**2).sum(1), np.arctan2(f[:, 1], f[:, 0])
    defocus = 0.5 * (du + dv + (du - dv) * np.cos(2 * (angle - np.radians(azimuth))))
    lam = wavelength(300)
    chi = np.pi * lam * s2 * (defocus - 0.5 * 2.7e7 * lam**2 * s2) + np.radians(phase) + np.arcsin(0.1)
    value = ctf(GROUP, f, du, dv, azimuth, phase)[0]
    assert np.allclose(value, np.sin(chi), atol=2e-5)
    assert value.dtype == np.float32


def test_positive_at_low_frequency():
    assert ctf(GROUP, np.zeros((1, 2)), 1e4, 1e4, 0)[0, 0] == pytest.approx(0.1, abs=1e-6)
    assert ctf(GROUP, np.array([[0.01, 0]]), 1e4, 1e4, 0)[0, 0] > 0.1


def test_b_factor_and_scale():
    f = _frequencies()
    plain = ctf(GROUP, f, 1e4, 1e4, 0)
    damped = ctf(GROUP, f, 1e4, 1e4, 0, b_factor=80.0, scale=0.7)
    assert np.allclose(damped, 0.7 * plain * np.exp(-20 * (f**2).sum(1)), atol=1e-6)


def test_intact_first_peak_and_flip():
    f = _frequencies()
    phase, plain = gamma(GROUP, f, 1e4, 1e4, 0), ctf(GROUP, f, 1e4, 1e4, 0)
    intact = ctf(GROUP, f, 1e4, 1e4, 0, intact_first_peak=True)
    inside = np.abs(phase) < np.pi / 2
    assert inside.any() and np.all(intact[inside] == 1) and np.array_equal(intact[~inside], plain[~inside])
    flipped = ctf(GROUP, f, 1e4, 1e4, 0, phase_flip_only=True)
    assert np.array_equal(flipped, np.sign(plain))


def test_many_images_are_one_at_a_time():
    f = _frequencies(30)
    u, v, a = np.array([1e4, 2e4]), np.array([9e3, 2.1e4]), np.array([10.0, 100.0])
    both = ctf(GROUP, f, u, v, a)
    for i in range(2):
        assert np.array_equal(both[i], ctf(GROUP, f, u[i], v[i], a[i])[0])


def test_never_exactly_zero():
    f = np.stack([np.linspace(0, 0.3, 100_000), np.zeros(100_000)], -1)
    assert np.abs(ctf(GROUP, f, 2e4, 2e4, 0)).min() >= 0.99e-8


@pytest.mark.parametrize(
    ("index", "polynomial"),
    [
        (0, lambda x, y: 1 + 0 * x),
        (1, lambda x, y: 2 * x * y),
        (2, lambda x, y: 2 * (x**2 + y**2) - 1),
        (3, lambda x, y: x**2 - y**2),
        (6, lambda x, y: 6 * (x**2 + y**2) ** 2 - 6 * (x**2 + y**2) + 1),
        (8, lambda x, y: x**4 - 6 * x**2 * y**2 + y**4),
    ],
)
def test_even_basis(index, polynomial):
    x, y = _frequencies(seed=1).T
    assert np.allclose(even_basis(index, x, y), polynomial(x, y), atol=1e-12)
    assert np.allclose(even_basis(index, -x, -y), even_basis(index, x, y))


@pytest.mark.parametrize(
    ("index", "polynomial"),
    [
        (0, lambda x, y: y),
        (1, lambda x, y: x),
        (2, lambda x, y: 3 * x**2 * y - y**3),
        (3, lambda x, y: (3 * (x**2 + y**2) - 2) * y),
        (4, lambda x, y: (3 * (x**2 + y**2) - 2) * x),
        (5, lambda x, y: x**3 - 3 * x * y**2),
    ],
)
def test_odd_basis(index, polynomial):
    x, y = _frequencies(seed=2).T
    assert np.allclose(odd_basis(index, x, y), polynomial(x, y), atol=1e-12)
    assert np.allclose(odd_basis(index, -x, -y), -odd_basis(index, x, y))


def test_aberrations_add_to_the_phase():
    f = _frequencies()
    group = replace(GROUP, even_zernike=(0.1, 3.0, 0.0, -2.0))
    difference = gamma(group, f, 1e4, 1e4, 0) - gamma(GROUP, f, 1e4, 1e4, 0)
    assert np.allclose(difference[0], 0.1 + 6 * f[:, 0] * f[:, 1] - 2 * (f[:, 0] ** 2 - f[:, 1] ** 2))
    assert np.allclose(even_phase(group, f), difference[0])


def test_beam_tilt_is_coma():
    """A tilt is a cubic phase without the linear one: Cs lambda^2 2 pi 1e4 u^2 (t . u), t in mrad, minus sign."""
    f = _frequencies()
    tilt = (1.5, -0.7)
    phase = odd_phase(replace(GROUP, beam_tilt=tilt), f)
    q = 2.7 * 2e4 * wavelength(300) ** 2 * np.pi
    assert np.allclose(phase, -q * (f**2).sum(1) * (f @ tilt), atol=1e-9)
    assert np.all(odd_phase(GROUP, f) == 0)


def test_magnification_moves_frequencies():
    f, m = _frequencies(), ((1.03, 0.01), (-0.004, 0.98))
    distorted = replace(GROUP, magnification=m, even_zernike=(0, 1.0, 2.0, 1.0), odd_zernike=(1.0, 2.0, 0, 3.0))
    straight = replace(distorted, magnification=((1, 0), (0, 1)))
    g = f @ np.array(m).T
    assert np.allclose(gamma(distorted, f, 1e4, 9e3, 30), gamma(straight, g, 1e4, 9e3, 30))
    assert np.allclose(odd_phase(distorted, f), odd_phase(straight, g))


def test_dose():
    w = dose_weight(np.array([0.01, 0.1, 0.3]), np.array([0.0, 10.0, 40.0]))
    assert w.shape == (3, 3) and np.all(w[0] == 1)
    assert np.all(np.diff(w, axis=0) < 0) and np.all(np.diff(w[1:], axis=1) < 0)
    assert w[2, 1] == pytest.approx(np.exp(-0.5 * 40 / (0.245 * 0.1**-1.665 + 2.81)))
