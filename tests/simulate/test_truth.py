"""Simulated images against what is written down: atoms, shifts, CTF, noise, magnitudes."""

import numpy as np
import pytest

from cryotk import simulate
from cryotk.geometry import euler_to_matrix
from cryotk.optics import OpticsGroup
from cryotk.simulate.gridding import points_to_image_transform, spread_2d
from cryotk.simulate.images import Renderer, noise_power, normalise
from cryotk.simulate.plan import ParticleSettings, draw_table

BOX, PIXEL = 64, 3.5
# no CTF to speak of: amplitude contrast 1 - tiny makes -sin(gamma) = 1 at zero defocus and Cs
PLAIN = OpticsGroup(PIXEL, 300.0, 0.0, 0.9999999)
QUIET = {
    "defocus": (0.0, 0.0), "astigmatism": (0.0, 0.0), "defocus_spread": 0.0, "scale_sigma": 0.0, "noise_sigma": 0.0,
    "envelope_b_factor": 0.0,
}  # fmt: skip


def simulated(n, **kw):
    settings = {"amplitude": 1.0, "normalised": False, "cache": False, "progress": False} | kw
    return simulate.particles(n, BOX, PIXEL, **settings)


def rendered(optics, shift=(0.0, 0.0), **columns):
    """Image of one tetramer without noise, with chosen columns."""
    quiet = {k: v for k, v in QUIET.items() if k != "noise_sigma"}
    group = OpticsGroup(**{**optics.__dict__, "box_size": BOX})
    settings = ParticleSettings(1, BOX, group, (simulate.molecule(),), (1.0,), amplitude=1.0, **quiet)
    table = draw_table(settings)
    table["true_shift_x"][:], table["true_shift_y"][:] = shift
    for name, value in columns.items():
        table[name][:] = value
    return Renderer(settings, table).images(np.array([0]), 0.0)[0]


def test_gridding_equals_the_direct_sum():
    rng = np.random.default_rng(1)
    x, y, w = rng.uniform(-80, 80, (2, 50)), rng.uniform(-80, 80, (2, 50)), rng.uniform(0.5, 4, 50)
    field = 32
    f = points_to_image_transform(x, y, w, field, 5.0)
    ky, kx = np.fft.fftfreq(field, 1 / field), np.arange(field // 2 + 1)
    for i in range(2):
        phase = (kx[None, :, None] * x[i] + ky[:, None, None] * y[i]) / (field * 5.0)
        direct = (w * np.exp(-2j * np.pi * phase)).sum(-1)
        direct[field // 2] = direct[:, field // 2] = 0
        assert np.abs(f[i] - direct).max() < 2e-5 * w.sum()


def test_spreading_equals_its_plain_form():
    rng = np.random.default_rng(2)
    x, y, w = rng.uniform(-20, 20, 9), rng.uniform(-20, 20, 9), rng.uniform(1, 2, 9)
    grid, plain = np.zeros((16, 16), np.float32), np.zeros((16, 16))
    spread_2d(x, y, w, grid)
    spread_2d.py_func(x, y, w, plain)
    assert np.allclose(grid, plain, atol=1e-5)


def test_without_ctf_an_unrotated_image_is_the_maps_sum_along_z():
    p = simulated(1, optics=PLAIN, **QUIET, offset_sigma=0.0)
    settings_pose = [float(p[f"true_angle_{a}"][0]) for a in ("rot", "tilt", "psi")]
    m = simulate.molecule()
    turned = simulate.Molecule(m.positions @ euler_to_matrix(*settings_pose).T, m.weights)
    expected = simulate.volume(turned, BOX, PIXEL).values.sum(0)
    # the map's own Nyquist plane is missing in one box and not in two: half a percent
    assert np.abs(p.images.values[0] - expected).max() < 1e-2 * expected.max()


def test_a_particle_with_positive_shift_sits_at_lower_x_and_y():
    centred, moved = (rendered(optics=PLAIN, shift=shift) for shift in ((0.0, 0.0), (5 * PIXEL, 2 * PIXEL)))
    # moved[y, x] = centred[y + 2, x + 5]
    assert np.abs(moved[:-2, :-5] - centred[2:, 5:]).max() < 2e-3 * centred.max()
    # applying the shift, out(x) = in(x - t), brings it back to the centre
    back = np.roll(moved, (2, 5), (0, 1))
    assert np.abs(back[8:-8, 8:-8] - centred[8:-8, 8:-8]).max() < 2e-3 * centred.max()


def test_particles_are_white_and_the_ctf_is_minus_sine_gamma():
    angles = {"true_angle_rot": 20.0, "true_angle_tilt": 50.0, "true_angle_psi": 0.0}
    # a defocus so small that delocalisation stays inside the box
    blank = rendered(PLAIN, **angles)
    du, dv, azimuth, phase = 6000.0, 5000.0, 30.0, 20.0
    optics = OpticsGroup(PIXEL, 300.0, 2.7, 0.1)
    image = rendered(optics, defocus_u=du, defocus_v=dv, defocus_angle=azimuth, phase_shift=phase, **angles)
    f, g = np.fft.rfft2(blank.astype(float)), np.fft.rfft2(image.astype(float))
    k = np.stack(np.meshgrid(np.fft.fftfreq(BOX, PIXEL), np.fft.rfftfreq(BOX, PIXEL), indexing="ij")[::-1], -1)
    lam = 12.2643247 / np.sqrt(3e5 * (1 + 0.978466e-6 * 3e5))
    c, s = np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth))
    u, v = c * k[..., 0] + s * k[..., 1], -s * k[..., 0] + c * k[..., 1]
    gamma = (
        -np.pi * lam * (du * u**2 + dv * v**2) + np.pi / 2 * 2.7e7 * lam**3 * (k**2).sum(-1) ** 2
        - np.radians(phase) - np.arctan(0.1 / np.sqrt(1 - 0.01))
    )  # fmt: skip
    strong = np.abs(f) > 0.02 * np.abs(f).max()
    residual = np.abs(g - f * -np.sin(gamma))[strong]
    assert np.sqrt((residual**2).sum() / (np.abs(g[strong]) ** 2).sum()) < 0.03
    wrong = np.abs(g - f * np.sin(gamma))[strong]
    assert np.sqrt((wrong**2).sum()) > 10 * np.sqrt((residual**2).sum())
    # underfocus and amplitude contrast: white on black
    assert image[24:40, 24:40].mean() > image[:8].mean()


def test_delocalised_signal_is_cut_by_the_box_not_wrapped_around_it():
    optics = OpticsGroup(PIXEL, 300.0, 2.7, 0.1)
    angles = {"true_angle_rot": 20.0, "true_angle_tilt": 50.0, "true_angle_psi": 0.0}
    far = {"defocus_u": 30000.0, "defocus_v": 30000.0, **angles}
    corner = rendered(optics, shift=(70.0, 0.0), **far)
    middle = rendered(optics, **far)
    # shifted by 20 pixels: the part in common is the same whatever side of the box it left
    assert np.abs(corner[:, :40] - middle[:, 20:60]).max() < 2e-2 * middle.max()


def test_noise_has_the_power_asked_for_and_unit_variance():
    p = simulated(400, junk={"noise": 1.0}, seed=3)
    x = p.images.values
    assert abs(x.std() - 1) < 0.01
    power = (np.abs(np.fft.rfft2(x)) ** 2).mean(0) / BOX**2
    k = np.hypot(np.fft.fftfreq(BOX, PIXEL)[:, None], np.fft.rfftfreq(BOX, PIXEL))
    shell = np.round(k * BOX * PIXEL).astype(int)
    measured = np.bincount(shell.ravel(), power.ravel())[3:32] / np.bincount(shell.ravel())[3:32]
    expected = noise_power(np.arange(3, 32) / (BOX * PIXEL), (0.6, 2.4, 0.035))
    ratio = measured / expected
    assert np.allclose(ratio / ratio.mean(), 1, atol=0.06)


def test_signal_to_noise_is_what_was_asked_for():
    common = {"seed": 5, "amplitude": None, "snr": 0.25, "scale_sigma": 0.0}
    clean = simulated(64, noise_sigma=0.0, offset_sigma=0.0, **common).images.values
    axis = np.arange(BOX) - BOX // 2
    inside = np.hypot(axis[:, None], axis) < simulate.molecule().diameter / 2 / PIXEL
    assert np.isclose(clean[:, inside].var(1).mean(), 0.25, rtol=0.02)


def test_normalisation_makes_the_background_standard_and_says_by_what():
    raw = simulated(20, seed=4)
    images = raw.images.values.copy()
    divisors = normalise(images)
    p = simulated(20, seed=4, normalised=True)
    assert np.array_equal(p.images.values, images)
    assert np.allclose(p.true_norm, divisors)
    axis = np.arange(BOX) - BOX // 2
    outside = np.hypot(axis[:, None], axis) > 0.375 * BOX
    assert np.allclose(p.images.values[:, outside].mean(1), 0, atol=1e-5)
    assert np.allclose(p.images.values[:, outside].std(1), 1, atol=1e-5)


def test_aberrations_follow_the_magnification_matrix():
    """An object at r is imaged at M^T r."""
    matrix = ((1.04, 0.03), (0.0, 0.97))
    optics = OpticsGroup(PIXEL, 300.0, 0.0, 0.9999999, magnification=matrix)
    angles = {"true_angle_rot": 20.0, "true_angle_tilt": 50.0, "true_angle_psi": 10.0}
    image = rendered(optics, **angles)
    m = simulate.molecule()
    at = (m.positions @ euler_to_matrix(20.0, 50.0, 10.0).T)[:, :2] @ np.array(matrix)
    moments = np.average(at**2, axis=0, weights=m.weights)
    axis = (np.arange(BOX) - BOX // 2) * PIXEL
    found = [(image.sum(0) * axis**2).sum() / image.sum(), (image.sum(1) * axis**2).sum() / image.sum()]
    assert np.allclose(found, moments + 1.6**2, rtol=0.02)


@pytest.mark.parametrize("tilt", [(3.0, -2.0)])
def test_beam_tilt_moves_high_frequencies(tilt):
    angles = {"true_angle_rot": 20.0, "true_angle_tilt": 50.0, "true_angle_psi": 10.0}
    angles |= {"defocus_u": 9000.0, "defocus_v": 9000.0}
    plain = rendered(OpticsGroup(PIXEL), **angles)
    tilted = rendered(OpticsGroup(PIXEL, beam_tilt=tilt), **angles)
    f, g = np.fft.rfft2(plain.astype(float)), np.fft.rfft2(tilted.astype(float))
    k = np.meshgrid(np.fft.fftfreq(BOX, PIXEL), np.fft.rfftfreq(BOX, PIXEL), indexing="ij")
    lam = 12.2643247 / np.sqrt(3e5 * (1 + 0.978466e-6 * 3e5))
    expected = -2 * np.pi * 2.7e7 * lam**2 * (k[0] ** 2 + k[1] ** 2) * 1e-3 * (k[1] * tilt[0] + k[0] * tilt[1])
    shell = np.hypot(*k)
    strong = (np.abs(f) > 0.2 * np.abs(f)[shell > 0.08].max()) & (shell > 0.08)
    measured = np.angle(g[strong] / f[strong])
    assert np.abs(np.exp(1j * measured) - np.exp(1j * expected[strong])).mean() < 0.2
    assert np.abs(np.exp(1j * measured) - np.exp(-1j * expected[strong])).mean() > 0.3
