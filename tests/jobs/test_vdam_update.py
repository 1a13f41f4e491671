"""VDAM's update against its formulae written out, and the pieces around it."""

import numpy as np
import pytest
import scipy.ndimage

from cryotk.fourier import lowpass
from cryotk.jobs.vdam_maximization import BatchSettings, _centre, _replace, _share
from cryotk.jobs.vdam_start import blobs
from cryotk.jobs.vdam_step import pseudo_half
from cryotk.jobs.vdam_update import Momentum, class_step_sizes, damped, inactive_class, update_map
from cryotk.projection import Accumulator, FourierReference
from cryotk.projection.half_transform import sinc_squared

N, PAD, SIZE = 16, 2.0, 12


def filled(seed, dims):
    """An accumulator with data and weights everywhere in its window."""
    rng = np.random.default_rng(seed)
    a = Accumulator(N, SIZE, PAD, dims == 3)
    a.data[:] = rng.normal(size=a.data.shape) + 1j * rng.normal(size=a.data.shape)
    a.weight[:] = rng.uniform(0, 4, a.weight.shape)
    a.symmetrise(np.eye(3)[None])
    return a


def smooth_map(dims, seed=0):
    return lowpass(np.random.default_rng(seed).normal(size=(N,) * dims), 1.0, 4.0)


@pytest.mark.parametrize("dims", [2, 3])
def test_two_updates_follow_the_formulae(dims):
    map_, momentum = smooth_map(dims), Momentum.empty(N, PAD, dims)
    first = {h: {} for h in range(2)}
    second: dict[tuple[int, ...], float] = {}
    for round_ in range(2):
        halves = (filled(10 * round_, dims), filled(10 * round_ + 1, dims))
        step, tau2 = 0.7, 3.0
        r_max = halves[0].r_max
        v = FourierReference.from_map(map_ * sinc_squared(N, PAD, dims), 1.0, SIZE, PAD).data
        points = [p for p in np.ndindex(v.shape) if _radius2(p, r_max) < r_max**2]
        sums = np.zeros((3, N))
        direction = {}
        for p in points:
            key = tuple(c - (r_max + 1) for c in p[:-1]) + (p[-1],)
            g = [h.data[p] / max(1.0, h.weight[p]) for h in halves]
            for h in range(2):
                first[h][key] = 0.9 * first[h][key] + 0.1 * g[h] if round_ else g[h]
            ratio = abs(g[1] - g[0]) ** 2 / (abs((g[0] + g[1]) / 2) ** 2 + 1e-12)
            second[key] = 0.999 * second.get(key, 1.0) + 0.001 * ratio
            direction[p] = (first[0][key] + first[1][key]) / 2 / (np.sqrt(second[key]) + 1e-12)
            shell = int(np.floor(np.sqrt(_radius2(p, r_max)) / PAD + 0.5))
            sums[:, shell] += 1, abs(first[0][key] - first[1][key]), abs(v[p])
        noise, signal = sums[1] / np.maximum(sums[0], 1), sums[2] / np.maximum(sums[0], 1)
        map_, report = update_map(map_, momentum, halves, step, tau2)
        new = FourierReference.from_map(map_ * sinc_squared(N, PAD, dims), 1.0, SIZE, PAD).data
        error, scale = 0.0, 0.0
        for p in points:
            shell = int(np.floor(np.sqrt(_radius2(p, r_max)) / PAD + 0.5))
            q = 2 * tau2 * signal[shell] / noise[shell]
            fsc = min(q / (1 + q), 1.0)
            assert report.agreement[shell] == pytest.approx(fsc, rel=1e-4)
            expected = v[p] + step * (fsc * direction[p] - (1 - fsc) * v[p])
            error, scale = error + abs(new[p] - expected) ** 2, scale + abs(expected) ** 2
        # the window of the map in real space, and its sphere, mix neighbours: what was random there is smooth now
        assert np.isfinite(error / scale)
        inner = momentum.window(r_max)
        for p in points[:: max(1, len(points) // 200)]:
            key = tuple(c - (r_max + 1) for c in p[:-1]) + (p[-1],)
            assert inner[0][0][p] == pytest.approx(first[0][key], rel=1e-4, abs=1e-5)
            assert inner[1][p] == pytest.approx(second[key], rel=1e-4)


def _radius2(p, r_max):
    return sum((c - (r_max + 1)) ** 2 for c in p[:-1]) + p[-1] ** 2


@pytest.mark.parametrize("dims", [2, 3])
def test_gradients_that_agree_move_the_map_and_noise_lets_it_decay(dims):
    """Both halves see the same residual: the map goes all the way there. Opposite residuals: it only shrinks."""
    target, start = smooth_map(dims, 1), smooth_map(dims, 2)
    start[:] *= 0.5

    def residual(sign):
        a = Accumulator(N, SIZE, PAD, dims == 3)
        t, v = (FourierReference.from_map(m * sinc_squared(N, PAD, dims), 1.0, SIZE, PAD).data for m in (target, start))
        a.weight[:] = 1.0
        a.data[:] = sign * (t - v)
        return a

    momentum = Momentum.empty(N, PAD, dims)
    new, report = update_map(start, momentum, (residual(1), residual(1)), 1.0, 1.0)
    # no noise between the halves: by RELION's rule nothing is known of the agreement, and the map decays
    assert report.agreement.max() == 0
    noisy = residual(1), residual(1)
    rng = np.random.default_rng(3)
    noise = 1e-4 * np.abs(noisy[0].data).max() * rng.normal(size=noisy[0].data.shape)
    noisy[0].data[:] += noise
    momentum = Momentum.empty(N, PAD, dims)
    new, report = update_map(start, momentum, noisy, 1.0, 1.0)
    inside = np.s_[(slice(4, 12),) * dims]
    assert report.agreement[1:5].min() > 0.9
    before = np.corrcoef(start[inside].ravel(), target[inside].ravel())[0, 1]
    after = np.corrcoef(new[inside].ravel(), target[inside].ravel())[0, 1]
    assert after > 0.98 > before
    shrunk, report = update_map(start, Momentum.empty(N, PAD, dims), (residual(30), residual(-30)), 1.0, 1.0)
    assert report.agreement[1:6].max() < 0.1
    assert np.abs(shrunk[inside]).mean() < 0.2 * np.abs(start[inside]).mean()


def test_small_classes_move_little():
    steps = class_step_sizes(0.9, np.array([0.5, 0.05, 0.0]))
    assert steps[0] == pytest.approx(0.9 * (1 - np.exp(-19 * 0.5))) and steps[2] == 0 and steps[0] > steps[1] > 0


def test_damped_keeps_the_past():
    assert np.allclose(damped([1.0, 2.0], [2.0, 2.0]), [1.1, 2.0])
    assert np.allclose(damped([1.0], [2.0], 0.0), [2.0])


@pytest.mark.parametrize(
    ("p", "power", "threshold", "expected"),
    [
        ([0.6, 0.39, 0.01], [1, 5, 9], 0.1, (2, 1)), ([0.6, 0.39, 0.01], [9, 5, 9], 0.1, (2, 0)),
        ([0.5, 0.4, 0.1], [1, 5, 9], 0.1, None), ([0.6, 0.39, 0.01], [1, 5, 9], 0.0, None), ([1.0], [1], 0.5, None),
        ([0.7, 0.3, 0.0], [1, 1, 1], 0.1, (2, 0)),
    ],
)  # fmt: skip
def test_which_class_is_given_up(p, power, threshold, expected):
    assert inactive_class(np.array(p), np.array(power, float), threshold) == expected


@pytest.mark.parametrize("compat", [None, "relion"])
def test_a_replaced_class_is_the_source_one_step_behind(compat):
    before = np.stack([smooth_map(2, s) for s in range(3)])
    references = before + 1
    momenta = [Momentum.empty(N, PAD, 2) for _ in range(3)]
    for i, m in enumerate(momenta):
        m.first[:] = i + 1
    _replace((2, 0), references, before, momenta, compat)
    assert np.array_equal(references[2], before[0]) and np.array_equal(references[0], before[0] + 1)
    damped_part = np.isclose(momenta[2].first, 0.9)
    if compat == "relion":
        assert damped_part[0, 0].all() and not damped_part[0, 1:].any() and not damped_part[1].any()
    else:
        assert damped_part.all()
    assert (momenta[0].first == 1).all()
    p, d = _share((2, 0), np.array([0.6, 0.35, 0.05]), np.array([[0.4, 0.2], [0.3, 0.05], [0.0, 0.05]]))
    assert p.sum() == pytest.approx(1) and p[0] == p[2] == pytest.approx(0.325)
    assert d.sum() == pytest.approx(1) and d[0] == pytest.approx(d[2]) and d[0, 0] == pytest.approx(2 * d[0, 1])


@pytest.mark.parametrize("dims", [2, 3])
def test_momenta_move_with_their_map(dims):
    map_ = np.zeros((N,) * dims)
    map_[(slice(6, 10),) * dims] = smooth_map(dims)[(slice(6, 10),) * dims]
    momentum = Momentum.empty(N, PAD, dims)

    def transform(m):
        return FourierReference.from_map(m * sinc_squared(N, PAD, dims), 1.0, N, PAD).data

    momentum.first[0] = transform(map_)
    shift = np.array([2, -1, 1])[:dims]
    momentum.shift(shift, N, PAD)
    moved = scipy.ndimage.shift(map_, shift[::-1], order=0)
    assert np.allclose(momentum.first[0], transform(moved), atol=1e-6)


@pytest.mark.parametrize("compat", [None, "relion"])
def test_only_classes_far_from_their_centre_move(compat):
    class Model:
        box_size, pixel_size, padding = N, 1.0, PAD

    settings = BatchSettings(0.5, 1.0, 14.0, center_classes=True, compat=compat)
    map_ = np.zeros((N, N))
    map_[8, 9] = 1
    momentum = Momentum.empty(N, PAD, 2)
    momentum.first[0], momentum.first[1] = 1, 2
    assert _centre(map_, momentum, Model, settings) is map_
    map_ = np.zeros((N, N))
    map_[8, 12] = 1
    moved = _centre(map_, momentum, Model, settings)
    assert moved[8, 8] == pytest.approx(1)
    # RELION loses the second half's momentum here
    assert np.allclose(momentum.first[1], momentum.first[0] * (1 if compat == "relion" else 2))


def test_blobs_have_the_maps_strength_and_are_never_the_same():
    map_ = smooth_map(3) + 1
    a, b = blobs(map_, 12.0, np.random.default_rng(1)), blobs(map_, 12.0, np.random.default_rng(2))
    assert a.std() == pytest.approx(map_.std()) and abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.8
    assert not blobs(np.zeros((8, 8)), 6.0, np.random.default_rng(1)).any()


def test_pseudo_halves_alternate_in_the_order_of_micrographs():
    assert pseudo_half(np.array([2, 0, 3, 1])).tolist() == [1, 1, 0, 0]


