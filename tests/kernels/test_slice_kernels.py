"""Slices out of and into half transforms: numba against the plain definition, and each against the other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryotk.kernels.slice_extraction import extract_slices_2d, extract_slices_3d, extract_slices_numpy
from cryotk.kernels.slice_insertion import insert_slices_2d, insert_slices_3d, insert_slices_numpy
from cryotk.kernels.slice_symmetry import add_symmetry_mates

EXTRACT, INSERT = {2: extract_slices_2d, 3: extract_slices_3d}, {2: insert_slices_2d, 3: insert_slices_3d}


def _extract(run, volume, inverse, kx, ky, padding, r_max):
    """Slices as complex numbers."""
    parts = np.full((len(inverse), 2, len(kx)), np.nan, np.float32)
    run(volume, inverse, kx, ky, padding, r_max, np.arange(len(inverse)), parts)
    return parts[:, 0] + 1j * parts[:, 1]


def _insert(run, data, weight, s, w, inverse, kx, ky, padding, r_max):
    """Insert complex slices, all of them."""
    rows = np.stack([s.real, s.imag], 1).astype(np.float32)
    run(data, weight, rows, w, np.arange(len(s)), inverse, kx, ky, padding, r_max)


def _case(dims: int, padding: float, seed: int = 0, radius: int = 7, n: int = 9):
    rng = np.random.default_rng(seed)
    r_max = int(radius * padding)
    shape = (2 * (r_max + 1) + 1,) * (dims - 1) + (r_max + 2,)
    volume = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    if dims == 3:
        inverse = Rotation.random(n, random_state=seed).as_matrix()
        inverse[0] = np.eye(3)
    else:
        inverse = Rotation.from_euler("z", rng.uniform(0, 360, (n, 1)), degrees=True).as_matrix()
    ky, kx = np.meshgrid(np.arange(-radius - 1, radius + 2), np.arange(radius + 2), indexing="ij")
    inverse = np.ascontiguousarray(inverse)
    return rng, volume, inverse, kx.ravel().astype(np.int32), ky.ravel().astype(np.int32), r_max


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("padding", [1.0, 2.0])
def test_extraction(dims, padding):
    _, volume, inverse, kx, ky, r_max = _case(dims, padding)
    out = _extract(EXTRACT[dims], volume, inverse, kx, ky, padding, r_max)
    expected = _extract(extract_slices_numpy, volume, inverse, kx, ky, padding, r_max)
    assert np.abs(out - expected).max() < 2e-6 * np.abs(expected).max()
    outside = kx.astype(int) ** 2 + ky**2 > (r_max / padding) ** 2
    assert outside.any() and np.all(out[:, outside] == 0) and np.all(out[:, ~outside] != 0)


@pytest.mark.parametrize("dims", [2, 3])
def test_linear_functions_are_exact(dims):
    """Trilinear interpolation reproduces a linear function, real part odd as the imaginary part of a real map is."""
    _, _, inverse, kx, ky, r_max = _case(dims, 2.0)
    k = np.arange(-(r_max + 1), r_max + 2)
    axes = np.meshgrid(*[k] * (dims - 1), np.arange(r_max + 2), indexing="ij")
    slope = np.array([0.3, -1.1, 0.7])[:dims]  # x, y, z
    volume = (1j * sum(s * a for s, a in zip(slope, axes[::-1], strict=True))).astype(np.complex64)
    out = _extract(EXTRACT[dims], volume, inverse, kx, ky, 2.0, r_max)
    at = 2.0 * np.einsum("nij,jp->npi", inverse[:, :dims, :2], np.stack([kx, ky]).astype(float))
    inside = kx.astype(int) ** 2 + ky**2 <= (r_max / 2) ** 2
    assert np.abs(out.imag - at @ slope)[:, inside].max() < 2e-5 * r_max


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("padding", [1.0, 2.0])
def test_insertion(dims, padding):
    rng, volume, inverse, kx, ky, r_max = _case(dims, padding, 1)
    s = (rng.standard_normal((len(inverse), len(kx))) + 1j * rng.standard_normal((len(inverse), len(kx)))).astype(np.complex64)
    w = rng.uniform(-0.2, 1, s.shape).astype(np.float32)
    results = []
    for run in (INSERT[dims], insert_slices_numpy):
        data, weight = np.zeros(volume.shape, complex), np.zeros(volume.shape)
        _insert(run, data, weight, s, w, inverse, kx, ky, padding, r_max)
        # the plane x = 0 may be filled on either side: complete it before comparing
        for plane, a in ((data[..., 0], data), (weight[..., 0], weight)):
            a[..., 0] = plane + np.conj(np.flip(plane))
        results.append((data, weight))
    (data, weight), (data_plain, weight_plain) = results
    assert np.abs(data - data_plain).max() < 1e-12 * np.abs(data).max() + 1e-12
    assert np.abs(weight - weight_plain).max() < 1e-12 * weight.max() + 1e-12


@pytest.mark.parametrize("dims", [2, 3])
def test_insertion_is_the_transpose_of_extraction(dims):
    """<extract(V), s> = <V, insert(s)>, as real inner products of half transforms."""
    rng, volume, inverse, kx, ky, r_max = _case(dims, 2.0, 2)
    keep = (kx > 0) | (ky >= 0)
    kx, ky = kx[keep], ky[keep]
    s = (rng.standard_normal((len(inverse), len(kx))) + 1j * rng.standard_normal((len(inverse), len(kx)))).astype(np.complex64)
    out = _extract(EXTRACT[dims], volume, inverse, kx, ky, 2.0, r_max)
    data, weight = np.zeros(volume.shape, complex), np.zeros(volume.shape)
    _insert(INSERT[dims], data, weight, s, np.ones(s.shape, np.float32), inverse, kx, ky, 2.0, r_max)
    left, right = (np.conj(out) * s).real.sum(dtype=float), (np.conj(volume) * data).real.sum()
    assert left == pytest.approx(right, rel=1e-4)
    inside = kx.astype(int) ** 2 + ky**2 <= (r_max / 2) ** 2
    assert weight.sum() == pytest.approx(len(inverse) * inside.sum(), rel=1e-9)


@pytest.mark.parametrize("dims", [2, 3])
def test_pixels_on_the_limit_are_inside(dims):
    _, volume, _, _, _, r_max = _case(dims, 2.0)
    kx, ky = np.array([r_max // 2, 0], np.int32), np.array([0, r_max // 2], np.int32)
    scaled = np.eye(3)[None] * (1 + 1e-10)
    out = _extract(EXTRACT[dims], volume, np.ascontiguousarray(scaled), kx, ky, 2.0, r_max)
    assert np.all(out != 0)
    data, weight = np.zeros(volume.shape, complex), np.zeros(volume.shape)
    _insert(INSERT[dims], data, weight, out, np.ones((1, 2), np.float32), np.ascontiguousarray(scaled), kx, ky, 2.0, r_max)
    assert weight.sum() == pytest.approx(2)


def test_symmetry_mates_of_a_right_angle_are_exact():
    """A quarter turn about z needs no interpolation: the sum over C4 is the sum of turned copies."""
    _, volume, _, _, _, r_max = _case(3, 1.0)
    o = r_max + 1
    data, weight = volume.astype(complex), np.random.default_rng(3).uniform(0, 1, volume.shape)
    turns = [Rotation.from_euler("z", 90 * k, degrees=True).as_matrix().round() + 0.0 for k in (1, 2, 3)]
    out, out_weight = data.copy(), weight.copy()
    add_symmetry_mates(data, weight, np.ascontiguousarray(turns), r_max, out, out_weight)
    rng = np.random.default_rng(4)
    for _ in range(50):
        x, y, z = rng.integers(1, r_max // 2 + 1), *rng.integers(-r_max // 2, r_max // 2 + 1, 2)
        value, w = 0, 0
        for m in [np.eye(3), *turns]:
            a, b, c = (int(v) for v in np.rint(m @ [x, y, z]))
            if a < 0:
                value, w = value + np.conj(data[o - c, o - b, -a]), w + weight[o - c, o - b, -a]
            else:
                value, w = value + data[o + c, o + b, a], w + weight[o + c, o + b, a]
        assert abs(out[o + z, o + y, x] - value) < 1e-12 and abs(out_weight[o + z, o + y, x] - w) < 1e-12
