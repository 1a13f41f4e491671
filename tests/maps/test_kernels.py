"""What transforms and kernels of maps mean; the kernels' twins are compared in tests/kernels/test_twins.py."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.ndimage import distance_transform_edt
from scipy.spatial.transform import Rotation

from cryotk.geometry import symmetry_operators
from cryotk.kernels import distance, rotate_volume, shell_sums
from cryotk.maps.transform import (
    amplitudes_by_radius,
    apply_gain,
    cross_sums,
    forward,
    inverse,
    mask_transform,
    radii,
    random_phases,
    shell_means,
)
from cryotk.projection.symmetry_search import spline_coefficients


@pytest.fixture(params=[16, 17])
def transforms(request):
    n = request.param
    rng = np.random.default_rng(n)
    return n, rng.normal(size=(n, n, n)).astype(np.float32), rng.normal(size=(n, n, n)).astype(np.float32)


def test_shell_kernels(transforms):
    n, x, y = transforms
    a, b = forward(x), forward(y)
    np.testing.assert_allclose(a, np.fft.rfftn(x, norm="forward"), atol=1e-7)
    shells = np.floor(np.sqrt(shell_sums.squared_radius_numpy(n)) + 0.5).astype(int)
    sums = cross_sums(a, b)
    for s in (0, 3, n // 2):
        p, q = a[shells == s].astype(complex), b[shells == s].astype(complex)
        np.testing.assert_allclose(sums[:, s], [np.vdot(p, q).real, np.vdot(p, p).real, np.vdot(q, q).real], rtol=1e-12)
    gain = np.linspace(0, 1, len(radii(n)))
    np.testing.assert_allclose(apply_gain(a, gain), a * gain[shell_sums.squared_radius_numpy(n)], rtol=1e-6)
    k2 = shell_sums.squared_radius_numpy(n)
    amplitude = np.abs(a)[np.floor(np.sqrt(k2) + 0.5) == 3].mean()
    assert shell_means(amplitudes_by_radius(a), n)[3] == pytest.approx(amplitude, rel=1e-6)


def test_random_phases(transforms):
    """Kernel and twin agree, the map stays real, amplitudes stay, seeds differ."""
    n, x, _ = transforms
    f = forward(x)
    g = random_phases(f, 3, 5, 1)
    circle = shell_sums.unit_circle()
    key = np.random.SeedSequence([5, 1]).generate_state(1, np.uint64)[0]
    np.testing.assert_allclose(g, shell_sums.with_random_phases(f, 9, int(key), circle), atol=1e-7)
    np.testing.assert_allclose(np.abs(g), np.abs(f), rtol=1e-5)
    np.testing.assert_allclose(np.fft.rfftn(np.fft.irfftn(g, s=(n,) * 3)), g, atol=1e-7)
    inside = shell_sums.squared_radius_numpy(n) < 9
    np.testing.assert_array_equal(g[inside], f[inside])
    assert not np.allclose(g, random_phases(f, 3, 6, 1)) and not np.allclose(g, random_phases(f, 3, 5, 2))


def test_phases_are_uniform():
    f = np.ones((48, 48, 25), np.complex64)
    g = random_phases(f, 1, 0, 1)[:, :, 1:24]
    angle = np.angle(g).ravel()
    for m in (1, 2, 3):
        assert abs(np.mean(np.exp(1j * m * angle))) < 4 / np.sqrt(angle.size)
    assert np.histogram(angle, 16, (-np.pi, np.pi))[0] == pytest.approx(angle.size / 16, rel=0.05)


def test_transform_steps(transforms):
    n, x, mask = transforms
    mask = np.abs(mask)
    f = forward(x)
    np.testing.assert_allclose(inverse(f, n), x, atol=1e-5)
    np.testing.assert_allclose(mask_transform(f.copy(), mask), forward(x, mask), atol=1e-6)
    before = f.copy()
    inverse(f, n)
    apply_gain(f, np.zeros(len(radii(n))))
    np.testing.assert_array_equal(f, before)
    assert cross_sums(f, f)[0] == pytest.approx(cross_sums(f, f)[1])


@pytest.mark.parametrize("cap", [1, 3, 7, 120])
def test_distance(cap):
    """In planes and across them is the distance in space, wherever it is within the cap."""
    inside = np.random.default_rng(cap).random((20, 17, 23)) < 0.01
    kind, far = distance.integer_type(cap)
    out = np.empty(inside.shape, kind)
    distance.distance_in_planes(inside.astype(np.uint8), cap, far, 0, 20, out)
    distance.distance_across_planes(out, cap, far, 0, 17)
    np.testing.assert_array_equal(out, distance.squared_distance(inside, cap))
    true = np.rint(distance_transform_edt(~inside) ** 2)
    near = true <= cap * cap
    np.testing.assert_array_equal(out[near], true[near])
    assert np.all(out[~near] > cap * cap)


def test_rotations():
    """The mean over a group is the same at all mates; a spline goes through the voxels."""
    v = np.random.default_rng(0).normal(size=(13, 13, 13)).astype(np.float32)
    operators = symmetry_operators("D2")
    out, spline = np.empty_like(v), np.empty_like(v)
    rotate_volume.mean_over_rotations(v, operators, 0, 13, out)
    np.testing.assert_allclose(out, out[::-1, ::-1, :], atol=1e-6)
    np.testing.assert_allclose(out, rotate_volume.mean_at_rotations(v, operators), atol=1e-5)
    rotate_volume.mean_over_rotations_spline(spline_coefficients(v), operators, np.zeros(3), 0, 13, spline)
    np.testing.assert_allclose(spline, out, atol=1e-5)
    coefficients = ndimage.spline_filter(v.astype(float), 3, mode="mirror")
    np.testing.assert_allclose(spline_coefficients(v.astype(float)), coefficients, atol=1e-12)
    r = Rotation.from_rotvec([0.2, 0.5, -0.3]).as_matrix()
    rotate_volume.mean_over_rotations_spline(coefficients, r[None], np.array([0.5, 0.0, -1.0]), 0, 13, spline)
    m, centre = r[::-1, ::-1], np.full(3, 6.0)
    np.testing.assert_allclose(spline, ndimage.affine_transform(v, m, centre + [-1.0, 0, 0.5] - m @ centre, order=3), atol=1e-5)
