"""Compiled kernels of maps and their numpy twins."""

from __future__ import annotations

import numpy as np
import pytest

from cryotk.kernels import distance, local_windows, rotate_volume, shell_sums
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
    shells_of_radii,
)


@pytest.fixture(params=[16, 17])
def transforms(request):
    n = request.param
    rng = np.random.default_rng(n)
    return n, rng.normal(size=(n, n, n)).astype(np.float32), rng.normal(size=(n, n, n)).astype(np.float32)


def test_shell_kernels(transforms):
    n, x, y = transforms
    a, b = forward(x), forward(y)
    np.testing.assert_allclose(a, np.fft.rfftn(x, norm="forward"), atol=1e-7)
    out = np.zeros((3, n // 2 + 1))
    shell_sums.cross_sums(a, b, shells_of_radii(n), 3, 11, out)
    np.testing.assert_allclose(out, shell_sums.cross_sums_numpy(a, b, shells_of_radii(n), 3, 11), rtol=1e-12, atol=1e-20)
    sums = np.zeros(len(radii(n)))
    shell_sums.amplitude_sums(a, 2, 9, sums)
    np.testing.assert_allclose(sums, shell_sums.amplitude_sums_numpy(a, 2, 9, len(sums)), rtol=1e-6)
    gain = np.linspace(0, 1, len(radii(n))).astype(np.float32)
    one, two = np.zeros_like(a), np.zeros_like(a)
    shell_sums.apply_gain(a, gain, 1, 7, one)
    shell_sums.apply_gain_numpy(a, gain, 1, 7, two)
    np.testing.assert_allclose(one, two, rtol=1e-6)
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
    np.testing.assert_allclose(g, shell_sums.randomise_phases_numpy(f, 9, int(key), circle), atol=1e-7)
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
    inside = np.random.default_rng(cap).random((20, 17, 23)) < 0.01
    kind, far = distance.integer_type(cap)
    out = np.empty(inside.shape, kind)
    distance.distance_in_planes(inside.astype(np.uint8), cap, far, 0, 20, out)
    distance.distance_across_planes(out, cap, far, 0, 17)
    twin = distance.squared_distance_numpy(inside, cap)
    near = np.asarray(twin) <= cap * cap
    np.testing.assert_array_equal(out[near], np.asarray(twin)[near])
    assert np.all(out[~near] > cap * cap)
    looked = np.empty(inside.shape, np.float32)
    table = np.sqrt(np.arange(cap * cap + 2, dtype=np.float32))
    distance.look_up(out, table, 0, 20, looked)
    np.testing.assert_array_equal(looked, table[np.minimum(out, len(table) - 1)])


def test_windows():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 14, 14, 14)).astype(np.float32)
    window = np.ones((9, 9, 9), np.float32)
    for point in ((7, 7, 7), (1, 12, 3)):
        out = np.empty((2, 2, 2, 4, 5, 5, 5), np.float32)
        local_windows.cut_parts(maps, *point, window, out)
        np.testing.assert_allclose(out, local_windows.cut_parts_numpy(maps, *point, window), atol=1e-5)
    values = rng.normal(size=(4, 50)).astype(np.float32)
    one, two = np.empty((6, 50), np.float32), np.empty((6, 50), np.float32)
    for begin in (True, False):
        local_windows.add_products(values, begin, one)
        local_windows.add_products_numpy(values, begin, two)
        np.testing.assert_allclose(one, two, rtol=1e-6)


def test_rotations():
    from cryotk.geometry import symmetry_operators

    v = np.random.default_rng(0).normal(size=(13, 12, 14)).astype(np.float32)
    operators = symmetry_operators("D3")
    out = np.empty_like(v)
    rotate_volume.mean_over_rotations(v, operators, 0, 13, out)
    np.testing.assert_allclose(out, rotate_volume.mean_over_rotations_numpy(v, operators), atol=1e-5)
    score = np.empty(2)
    n = 12
    cube = np.random.default_rng(1).normal(size=(n, n, n)).astype(np.float32)
    places = np.array([[1.0, 2, -1], [0, 0, 3], [2, -2, 2]])
    rotate_volume.asymmetry(cube, np.stack([np.eye(3), operators[1]]), operators, places, score)
    samples = np.array([[cube[tuple((np.rint(g @ p)[::-1] + n // 2).astype(int))] for g in symmetry_operators("D2")] for p in places])
    rotate_volume.asymmetry(cube, np.eye(3)[None], symmetry_operators("D2"), places, score[:1])
    assert score[0] == pytest.approx(samples.var(axis=1).mean(), rel=1e-6)
