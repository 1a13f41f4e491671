"""Every kernel on every backend of the machine: plain numpy, numba, and CUDA (on a card, or its sources on the host)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryotk.kernels._cuda import Gpu
from cryotk.kernels.backends import CPU, KERNELS, NUMPY, backend_of, cuda_backend
from cryotk.kernels.distance import integer_type
from cryotk.kernels.shell_sums import unit_circle

F4, I4, I8 = np.float32, np.int32, np.int64


@pytest.fixture(params=["cpu", "cuda"])
def backend(request):
    if request.param == "cpu":
        return CPU
    request.getfixturevalue("cupy")
    return cuda_backend(0)


def run(backend, kernel, *arguments):
    """The kernel's results and its array arguments afterwards, on the host; the arguments given are not touched."""
    there = [backend.to_device(a.copy()) if isinstance(a, np.ndarray) else a for a in arguments]
    out = getattr(backend, kernel)(*there)
    out = () if out is None else out
    return [np.array(backend.to_host(v)) for v in out] + [np.array(backend.to_host(a)) for a in there if not isinstance(a, (int, float, bool, np.generic))]


def agree(backend, kernel, *arguments, rtol=2e-6, exact=()):
    """Same shapes and types and, to ``rtol`` of the largest number, the same values as the plain definition."""
    expected, got = run(NUMPY, kernel, *arguments), run(backend, kernel, *arguments)
    assert len(expected) == len(got)
    for n, (a, b) in enumerate(zip(expected, got, strict=True)):
        assert a.shape == b.shape and a.dtype == b.dtype, f"{kernel}, array {n}: {a.shape} {a.dtype}, {b.shape} {b.dtype}"
        if a.dtype.kind in "iu" or n in exact:
            assert np.array_equal(a, b), f"{kernel}, array {n}"
        elif a.size:
            finite = np.isfinite(a)
            assert np.array_equal(a[~finite], b[~finite], equal_nan=True), f"{kernel}, array {n}"
            scale = np.abs(a[finite]).max(initial=1e-30)
            error = np.abs(a[finite].astype(complex) - b[finite]).max(initial=0) / scale
            assert error < rtol, f"{kernel}, array {n}: {error:.2g}"
    if backend.on_device and getattr(backend.xp, "stand_in", False):
        # what shows a missing barrier or a wrong index: few blocks that each do much, threads in either order, NaN around arrays
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Gpu, "spread", lambda self, n, block=256: min(2, -(-n // block)))
            backend.xp.set_guards(True)
            try:
                for backwards in (False, True):
                    backend.xp.set_order(backwards)
                    again = run(backend, kernel, *arguments)
                    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(got, again, strict=True))
            finally:
                backend.xp.set_order(False)
                backend.xp.set_guards(False)
    return got


# -- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-9, 40)])
def test_shift_and_mask(backend, shift):
    rng = np.random.default_rng(1)
    images = rng.normal(size=(3, 12, 12)).astype(F4)
    images[1] = 0
    mask = np.clip(rng.uniform(-0.5, 1.5, (12, 12)), 0, 1).astype(F4)
    factors, shifts = np.array([1.0, 0.7, 1.3], F4), np.array([shift, shift, (1, 1)], I8)
    out = np.full(images.shape, 9, F4), np.full(images.shape, 9, F4), np.full(3, 9.0)
    got = agree(backend, "shift_and_mask", images, factors, shifts, mask, float((1 - mask).sum(dtype=float)), *out)
    assert got[-1][1] == 0 and (got[-1][0] > 0 or abs(shift[1]) > 12)
    images[2, 3, 3] = np.nan
    broken = run(backend, "shift_and_mask", images, factors, shifts, mask, 1.0, *out)[-1]
    assert np.isnan(broken[2]) and np.isfinite(broken[:2]).all()


@pytest.mark.parametrize("use_phase", [False, True])
def test_gather_lattice(backend, use_phase):
    rng = np.random.default_rng(2)
    f = (rng.normal(size=(3, 8, 5)) + 1j * rng.normal(size=(3, 8, 5))).astype(np.complex64)
    rows, columns = rng.integers(0, 8, 11).astype(I4), rng.integers(0, 5, 11).astype(I4)
    signs, angle = rng.choice([-1.0, 1.0], 11).astype(F4), rng.uniform(0, 6, 11)
    phase = np.stack([np.cos(angle), -np.sin(angle)]).astype(F4)
    agree(backend, "gather_lattice", f, rows, columns, signs, phase, use_phase, F4(1 / 64), np.empty((3, 2, 11), F4))


def test_shell_power(backend):
    rng = np.random.default_rng(3)
    f = (rng.normal(size=(3, 10, 6)) + 1j * rng.normal(size=(3, 10, 6))).astype(np.complex64)
    shell_of = rng.integers(-1, 6, (10, 6)).astype(I4)
    agree(backend, "shell_power", f, shell_of, 0.01, np.ones((3, 6)))


@pytest.mark.parametrize("intact", [False, True])
def test_ctf_values(backend, intact):
    rng = np.random.default_rng(4)
    pixels, images = rng.normal(size=(5, 40)), rng.normal(size=(6, 6)) * 3
    pixels[4] = np.abs(pixels[4])
    images[:, 4] = [0, 10, 20, 0, 1, 1]
    pixels[:4, 0] = 0
    images[0, 3] = 0  # a zero of the CTF
    got = agree(backend, "ctf_values", pixels, images, intact, np.empty((6, 40), F4))
    assert np.all(got[-1] != 0)


@pytest.mark.parametrize("columns", [None, 3])
def test_rfft2(backend, columns):
    images = np.random.default_rng(5).normal(size=(2, 8, 8)).astype(F4)
    got = backend.to_host(backend.rfft2(backend.to_device(images), columns))
    assert got.dtype == np.complex64
    assert np.allclose(got[..., :columns], np.fft.rfft2(images)[..., :columns], atol=1e-5)


@pytest.mark.parametrize("box", [7, 12])
def test_shift_transforms(backend, box):
    rng = np.random.default_rng(6)
    kx, ky = rng.integers(0, box // 2 + 1, 11).astype(I4), rng.integers(-(box // 2), box // 2 + 1, 11).astype(I4)
    transforms, shifts = rng.normal(size=(3, 2, 11)).astype(F4), rng.uniform(-4, 4, (3, 2))
    shifts[1] = 0
    got = agree(backend, "shift_transforms", transforms, shifts, kx, ky, box)[0]
    assert np.array_equal(got[1], transforms[1])
    # the definition itself: a whole pixel along x moves an image by one column
    image = rng.normal(size=(8, 8))
    half = np.fft.rfft2(image)
    y, x = (v.ravel().astype(I4) for v in np.meshgrid(np.fft.fftfreq(8) * 8, np.arange(5), indexing="ij"))
    there = np.stack([half.real.ravel(), half.imag.ravel()])[None].astype(F4)
    moved = run(backend, "shift_transforms", there, np.array([[1.0, 0.0]]), x, y, 8)[0][0]
    back = np.fft.irfft2((moved[0] + 1j * moved[1]).reshape(half.shape), s=(8, 8))
    assert np.allclose(back, np.roll(image, 1, axis=1), atol=1e-5)


@pytest.mark.parametrize("premultiplied", [False, True])
def test_weigh_images(backend, premultiplied):
    rng = np.random.default_rng(7)
    x, y = (rng.normal(size=(3, 2, 11)).astype(F4) for _ in range(2))
    ctf, scales, inverse = rng.normal(size=(3, 11)).astype(F4), rng.uniform(0.5, 2, 3).astype(F4), rng.uniform(0, 2, 11).astype(F4)
    score_inverse = np.where(rng.uniform(size=11) < 0.3, 0, inverse).astype(F4)
    out = (np.full((3, 11), 9, F4), np.full((3, 2, 11), 9, F4), np.full((3, 11), 9, F4), np.full(3, 9.0))
    agree(backend, "weigh_images", x, ctf, scales, score_inverse, inverse, premultiplied, y, *out)


# -- slices ----------------------------------------------------------------------------------------------------------


def _slices_case(dims, padding, seed=0, radius=7, n=9):
    rng = np.random.default_rng(seed)
    r_max = int(radius * padding)
    shape = (2 * (r_max + 1) + 1,) * (dims - 1) + (r_max + 2,)
    volume = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    turns = Rotation.random(n, random_state=seed) if dims == 3 else Rotation.from_euler("z", rng.uniform(0, 360, (n, 1)), degrees=True)
    ky, kx = np.meshgrid(np.arange(-radius - 1, radius + 2), np.arange(radius + 2), indexing="ij")
    return rng, volume, np.ascontiguousarray(turns.as_matrix()), kx.ravel().astype(I4), ky.ravel().astype(I4), r_max


@pytest.mark.parametrize("padding", [1.0, 2.0])
@pytest.mark.parametrize("dims", [2, 3])
def test_extract_slices(backend, dims, padding):
    _, volume, inverse, kx, ky, r_max = _slices_case(dims, padding)
    out, places = np.full((len(inverse) + 2, 2, len(kx)), 9, F4), np.arange(len(inverse), 0, -1)
    got = agree(backend, f"extract_slices_{dims}d", volume, inverse, kx, ky, padding, r_max, places, out)
    assert np.all(got[-1][[0, -1]] == 9)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e9])
@pytest.mark.parametrize("dims", [2, 3])
def test_insert_slices(backend, dims, scale):
    rng, volume, inverse, kx, ky, r_max = _slices_case(dims, 2.0, 1)
    shape = (len(inverse), len(kx))
    s = (scale * rng.standard_normal((shape[0], 2, shape[1]))).astype(F4)
    w, picked = rng.uniform(-0.2, 1, shape).astype(F4), np.array([7, 0, 3, 4])
    data, weight = np.zeros(volume.shape, complex), np.zeros(volume.shape)
    # the definition leaves the sign of points on x = 0 open: keep clear of them
    agree(backend, f"insert_slices_{dims}d", data, weight, s, w, picked, inverse[picked], kx, ky, 2.0, r_max, rtol=1e-12)
    agree(backend, f"insert_slices_{dims}d", data, weight, s[:0], w[:0], picked[:0], inverse[:0], kx, ky, 2.0, r_max)


def test_symmetry_mates(backend):
    rng, volume, turns, _, _, r_max = _slices_case(3, 1.0, n=3)
    data, weight = volume.astype(complex), rng.uniform(0, 1, volume.shape)
    # a quarter turn falls on grid points, at the rim too
    turns[0] = Rotation.from_euler("z", 90, degrees=True).as_matrix().round() + 0.0
    agree(backend, "add_symmetry_mates", data, weight, turns, r_max, data.copy(), weight.copy(), rtol=1e-12)
    agree(backend, "add_symmetry_mates", data, weight, turns, r_max, data[3:6].copy(), weight[3:6].copy(), 3, rtol=1e-12)


# -- the coarse pass -------------------------------------------------------------------------------------------------


def test_shifted_rows(backend):
    rng = np.random.default_rng(5)
    images, ramps = rng.normal(size=(3, 2, 13)).astype(F4), rng.normal(size=(4, 2, 13)).astype(F4)
    agree(backend, "shifted_rows", images, ramps, np.empty((3, 4, 13), F4), np.empty((3, 4, 13), F4))


DENSE = {
    "plain": {}, "halved": {"halved": True}, "per class": {"halved": True, "per_class": True},
    "at most three": {"limit": 3}, "one": {"limit": 1}, "flat": {"spread": 1e-3}, "narrow": {"spread": 60.0},
    "ties": {"spread": 2.0, "rounded": True}, "all equal": {"spread": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("case", DENSE)
def test_select_dense(backend, case):
    o = {"halved": False, "per_class": False, "limit": 0, "spread": 5.0, "rounded": False} | DENSE[case]
    rng = np.random.default_rng(6)
    b, t, k, d, n_psi = 4, 5, 3, 2, 8
    h = k * d * (n_psi // 2 if o["halved"] else n_psi)
    even, odd = ((o["spread"] * rng.normal(size=(b, t, h))).astype(F4) for _ in range(2))
    self_term = np.abs(rng.normal(size=(b, h))).astype(F4) * bool(o["spread"])
    prior_r = (rng.normal(size=k * d * n_psi) * bool(o["spread"])).astype(F4)
    prior_r[n_psi * d : 2 * n_psi * d] = -np.inf  # an inactive class
    prior_t = (rng.normal(size=(b, k if o["per_class"] else 1, t)) * bool(o["spread"])).astype(F4)
    if o["rounded"]:
        even, odd, self_term, prior_r, prior_t = (np.round(x) for x in (even, odd, self_term, prior_r, prior_t))
    prior_t[2] = -np.inf  # a particle without any allowed sample
    block_class = np.repeat(np.arange(k), d).astype(I4)
    got = agree(
        backend, "select_dense", even, odd, self_term, prior_r, prior_t, n_psi, o["halved"], block_class, 0.999, o["limit"]
    )
    count, best, start, parents, offset_start, _offsets = got[:6]
    assert count[2] == 0 and start[3] == start[2] and best[2] == -np.inf
    assert not np.isin(parents // (n_psi * d), 1).any()
    if not o["rounded"] and o["spread"]:
        assert np.array_equal(np.diff(offset_start[start]), count)
    if o["limit"] and not o["rounded"]:
        assert count.max() == o["limit"]


@pytest.mark.parametrize("limit", [0, 4])
@pytest.mark.parametrize("rounded", [False, True])
def test_select_ragged(backend, limit, rounded):
    rng = np.random.default_rng(7)
    n = np.array([3, 0, 7, 4, 5, 1])
    start, n_offsets = np.concatenate([[0], np.cumsum(n)]).astype(I8), 6
    scores = (rng.normal(size=n.sum() * n_offsets) * 4).astype(F4)
    scores[start[5] * n_offsets :] = -np.inf
    if rounded:
        scores = np.round(scores)
    got = agree(backend, "select_ragged", scores, start, rng.integers(0, 99, n.sum()).astype(I4), n_offsets, 0.999, limit)
    assert (got[0] == 0).tolist() == [False, True, False, False, False, True]


# -- the fine pass ---------------------------------------------------------------------------------------------------


def _ragged_case(seed=8, n_pixels=70, n_children=2, n_over=4, n_coarse=5, per_class=True, dense=False, n_images=4):
    """Particles with parents of three classes (the last inactive): the second particle has none."""
    rng = np.random.default_rng(seed)
    per_particle = np.array([9 if dense else 3, 0, 2, 1] + [2] * (n_images - 4))
    parent_start = np.concatenate([[0], np.cumsum(per_particle)]).astype(I8)
    n = int(per_particle.sum())
    parent_class = np.concatenate([np.sort(rng.integers(0, 2, k)) for k in per_particle]).astype(I4)
    n_slots = 6
    chosen = [np.arange(n_coarse) if dense else np.sort(rng.choice(n_coarse, rng.integers(1, n_coarse), False)) for _ in range(n)]
    offset_start = np.concatenate([[0], np.cumsum([len(c) for c in chosen])]).astype(I8)
    return {
        "images": rng.normal(size=(len(per_particle), 2, n_pixels)).astype(F4),
        "self_weights": rng.uniform(0, 1, (len(per_particle), n_pixels)).astype(F4),
        "slices": rng.normal(size=(n_slots, n_children, 2, n_pixels)).astype(F4),
        "ramps": rng.normal(size=(n_coarse * n_over, 2, n_pixels)).astype(F4),
        "parent_start": parent_start,
        "parent_slot": rng.integers(0, n_slots, n).astype(I8),
        "parent_prior": rng.normal(size=n).astype(F4),
        "parent_class": parent_class,
        "offset_start": offset_start,
        "offsets": np.concatenate(chosen).astype(I4),
        "n_over": n_over,
        "log_prior_offset": rng.normal(size=(len(per_particle), 3 if per_class else 1, n_coarse)).astype(F4),
    }


RAGGED = {
    "sparse": {}, "dense": {"dense": True}, "eight children": {"n_children": 8}, "many children": {"n_children": 19, "n_pixels": 31},
    "many offsets": {"n_coarse": 21, "dense": True, "n_pixels": 130}, "no oversampling": {"n_children": 1, "n_over": 1},
    "one prior": {"per_class": False}, "one pixel": {"n_pixels": 1}, "eleven children": {"n_children": 11, "dense": True},
    "shortest rows of tiles": {"n_pixels": 32, "n_children": 8, "dense": True}, "too short": {"n_pixels": 31, "n_children": 8},
    "alike": {"n_children": 1, "n_over": 1, "n_coarse": 9, "dense": True},
    "more than are done together": {"n_children": 1, "n_over": 1, "n_coarse": 9, "dense": True, "per_class": False},
}  # fmt: skip


@pytest.mark.parametrize("case", RAGGED)
def test_ragged_scores(backend, case):
    c = _ragged_case(**RAGGED[case])
    out = np.full(len(c["offsets"]) * c["slices"].shape[1] * c["n_over"], 99, F4)
    got = agree(backend, "ragged_scores", *c.values(), out)
    assert not np.any(got[-1] == 99)


@pytest.mark.parametrize("case", RAGGED)
def test_accumulate(backend, case):
    c = _ragged_case(**RAGGED[case])
    rng = np.random.default_rng(9)
    b, _, n_pixels = c["images"].shape
    n_children, n_over, n_shells = c["slices"].shape[1], c["n_over"], 7
    weights = rng.uniform(0.01 if RAGGED[case].get("dense") else -2, 1, len(c["offsets"]) * n_children * n_over)
    weights = np.maximum(weights, 0).astype(F4)
    position = (c["offset_start"][c["parent_start"]] * n_children * n_over).astype(int)
    weights[position[2] : position[3]] = 0  # a particle that was dropped
    image_start = np.array([0, 1, 4, 5, 6], I8)
    n_images, k, d = 6, 3, 4
    n_shifts, n_slots = len(c["ramps"]), len(c["slices"])
    per_image = np.zeros((n_images, 3))
    per_image[:, 0] = rng.uniform(0.8, 1.2, n_images)
    signal = np.ones((k, n_shells), F4)
    signal[0, 3:] = 0
    agree(
        backend, "accumulate", c["images"], c["self_weights"], rng.normal(size=(n_images, 2, n_pixels)).astype(F4),
        rng.uniform(-1, 1, (n_images, n_pixels)).astype(F4), image_start, c["slices"], c["ramps"], c["parent_start"],
        c["parent_slot"], c["parent_class"], rng.integers(0, d, len(c["parent_slot"])).astype(I8), c["offset_start"], c["offsets"],
        n_over, weights, rng.integers(0, n_shells, n_pixels).astype(I4), signal, rng.normal(size=(n_shifts, 2)) * 5,
        rng.normal(size=(b, 2)), rng.normal(size=(k, 2)), np.ones((n_slots, n_children, 2, n_pixels), F4),
        np.ones((n_slots, n_children, n_pixels), F4), np.zeros((n_images, n_shells)), per_image, np.zeros((b, 2)), np.ones(k),
        np.ones((k, 2)), np.ones((k, d)), rtol=5e-6,
    )  # fmt: skip


def test_posterior_weights(backend):
    rng = np.random.default_rng(10)
    n = np.array([40, 0, 1, 3000, 7, 5])
    start = np.concatenate([[0], np.cumsum(n)]).astype(I8)
    scores = (rng.normal(size=n.sum()) * 6 - 40).astype(F4)
    scores[start[4] : start[5]] = -np.inf
    scores[start[5] :] = 3.0  # ties
    got = agree(backend, "posterior_weights", scores, start, 0.999)
    p_max, log_sum, kept, best, weights = got[:5]
    assert p_max.tolist()[1] == 0 and best.tolist()[1] == best.tolist()[4] == -1 and best[5] == start[5]
    assert p_max[2] == 1 and weights[start[2]] == 1
    assert np.all(kept[[0, 2, 3, 5]] > 0.999) and np.isneginf(log_sum[[1, 4]]).all()


# -- maps ------------------------------------------------------------------------------------------------------------


def _transform(n, kind, seed=11):
    rng = np.random.default_rng(seed)
    return np.fft.rfftn(rng.normal(size=(n, n, n)), norm="forward").astype(kind), len(np.arange(3 * (n // 2) ** 2 + 1))


@pytest.mark.parametrize("kind", [np.complex64, np.complex128])
@pytest.mark.parametrize("n", [12, 13])
def test_shells(backend, n, kind):
    (a, m), (b, _) = _transform(n, kind), _transform(n, kind, 12)
    shell_of = np.floor(np.sqrt(np.arange(m)) + 0.5).astype(I4)
    for first, last in ((0, n), (3, 8), (4, 4)):
        agree(backend, "cross_sums", a, b, shell_of, first, last, np.ones((3, n // 2 + 1)), rtol=1e-12)
        agree(backend, "amplitude_sums", a, first, last, np.ones(m), rtol=1e-7)
        gain = np.linspace(0, 2, m).astype(a.real.dtype)
        agree(backend, "apply_gain", a, gain, first, last, np.full_like(a, 9), rtol=1e-6 if kind == np.complex64 else 1e-14)
    huge = a.copy()
    huge[0, 0, 0] = 1e8
    agree(backend, "amplitude_sums", huge, 0, n, np.zeros(m))
    agree(backend, "amplitude_sums", 0 * a, 0, n, np.zeros(m))


@pytest.mark.parametrize("kind", [np.complex64, np.complex128])
@pytest.mark.parametrize("n", [12, 13])
def test_random_phases(backend, n, kind):
    f, _ = _transform(n, kind)
    key, circle = np.uint64(0xFEDCBA9876543210), unit_circle()
    for first, last in ((0, n), (2, 7)):
        agree(backend, "randomise_phases", f, 9, key, circle, first, last, rtol=5e-7)


@pytest.mark.parametrize(("cap", "kind"), [(1, np.uint16), (3, np.uint16), (40, np.uint16), (101, I4)])
def test_distances(backend, cap, kind):
    inside = (np.random.default_rng(cap).random((9, 14, 11)) < 0.01).astype(np.uint8)
    inside[:, :, 5] = 0
    far = integer_type(cap)[1]
    assert integer_type(cap)[0] == kind
    for first, last in ((0, 9), (2, 5)):
        got = agree(backend, "distance_in_planes", inside, cap, far, first, last, np.full(inside.shape, 7, kind))[-1]
        agree(backend, "distance_across_planes", got, cap, far, first, last)
        for table in (np.linspace(0, 1, cap * cap + 2).astype(F4), np.arange(cap + 1, dtype=np.uint8)):
            agree(backend, "look_up", got, table, first, last, np.full(inside.shape, 3, table.dtype), rtol=1e-7)


@pytest.mark.parametrize("point", [(7, 7, 7), (1, 12, 3), (13, 0, 6)])
def test_windows(backend, point):
    rng = np.random.default_rng(13)
    n, q, k_max = 14, 4, 5
    maps, window = rng.normal(size=(4, n, n, n)).astype(F4), np.ones((9, 9, 9), F4)
    window[0] = window[-1] = 0
    agree(backend, "cut_parts", maps, *point, window, np.full((2, 2, 2, 4, q + 1, q + 1, q + 1), 9, F4))
    values = rng.normal(size=(9, 9, 9)).astype(F4)
    agree(backend, "add_window", values, window, 0.1, *point, *(np.ones((n, n, n)) for _ in range(3)), rtol=1e-12)
    f, m = _transform(n, np.complex64)
    gain = np.linspace(1, 0, m).astype(F4)
    gain[30:] = 0
    k = np.arange(n // 2 + 1)
    turns = [np.exp(2j * np.pi * k * p / n).astype(np.complex64) for p in point]
    for most in (k_max, n // 2):
        agree(backend, "coefficients_around", f, gain, most, *turns, np.full((2, 2, *(most + 1,) * 3), 9, np.complex64))


@pytest.mark.parametrize("n", [12, 13])
def test_sums_of_windows(backend, n):
    rng = np.random.default_rng(14)
    for begin in (True, False):
        agree(backend, "add_products", rng.normal(size=(4, 50)).astype(F4), begin, np.ones((6, 50), F4))
    half = n // 2
    shell_of = np.floor(np.sqrt(np.arange(3 * half * half + 1)) + 0.5).astype(I4)
    for first, rows, width in ((0, half + 1, half + 1), (2, 3, 5)):
        products = rng.normal(size=(6, rows * width, width)).astype(F4)
        agree(backend, "products_to_shells", products, first, width, n, shell_of, np.ones((half + 1, 6)), rtol=1e-7)
    parts = (rng.normal(size=(2, 2, 4, 4, 5)) + 1j * rng.normal(size=(2, 2, 4, 4, 5))).astype(np.complex64)
    parts[1, :, 0] = 0
    parts[:, 1, :, 0] = 0
    agree(backend, "join_parts", parts, np.full((7, 7, 5), 9, np.complex64))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(9, 8, 10), (5, 5, 5), (3, 2, 4)])
def test_rotations(backend, shape, kind):
    rng = np.random.default_rng(15)
    volume = rng.normal(size=shape).astype(kind)
    turns = Rotation.random(3, random_state=0).as_matrix()
    turns[0] = Rotation.from_euler("z", 90, degrees=True).as_matrix().round() + 0.0
    tolerance = 1e-6 if kind == np.float32 else 1e-13
    for first, last in ((0, shape[0]), (1, 2)):
        agree(backend, "mean_over_rotations", volume, turns, first, last, np.full(shape, 9, kind), rtol=tolerance)
        offset = np.array([0.3, -0.2, 0.7])
        agree(backend, "mean_over_rotations_spline", volume, turns, offset, first, last, np.full(shape, 9, kind), rtol=tolerance)
    for lines in (volume.reshape(1, shape[0], -1), volume, volume.reshape(-1, shape[2], 1)):
        agree(backend, "spline_filter", lines, rtol=2e-6 if kind == np.float32 else 1e-13)


def test_spline_filter_of_long_lines(backend):
    lines = np.random.default_rng(16).normal(size=(2, 200, 3))
    agree(backend, "spline_filter", lines, rtol=1e-13)


def test_every_kernel_is_tested():
    text = Path(__file__).read_text()
    assert all(f'"{k}"' in text or f'"{k[:-2]}{{dims}}d"' in text for k in KERNELS)


def test_backend_of_arrays(cupy):
    assert backend_of(np.zeros(1)) is CPU
    assert backend_of(cupy.zeros(1)) is cuda_backend(0)
    assert backend_of([1.0]) is None
