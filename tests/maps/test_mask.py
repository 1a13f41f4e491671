"""Masks against RELION's, against the rules evaluated voxel by voxel, and the suggestion of a threshold."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data import as_volume
from cryotk.io import read_mrc
from cryotk.maps import crown_mask, soft_mask

from .conftest import ball

GOLDEN = {
    "a_gui": {"lowpass": 25, "extend_px": 3, "soft_edge_px": 6}, "b_nolp": {"lowpass": None, "extend_px": 0, "soft_edge_px": 0},
    "c_edge": {"lowpass": 20, "extend_px": 0, "soft_edge_px": 5}, "d_shrink": {"lowpass": 25, "extend_px": -2, "soft_edge_px": 3},
    "f_and": {"lowpass": None, "extend_px": 1, "soft_edge_px": 2, "second": "and_"},
    "g_andnot": {"lowpass": None, "extend_px": 1, "soft_edge_px": 2, "second": "and_not"},
    "h_or": {"lowpass": None, "extend_px": 1, "soft_edge_px": 2, "second": "or_"},
}  # fmt: skip


@pytest.mark.golden
@pytest.mark.parametrize("name", GOLDEN)
def test_relions_masks(reference, name):
    folder, options = reference / "mask_create", dict(GOLDEN[name])
    if "second" in options:
        options[options.pop("second")] = folder / "other.mrc"
    r = ctk.create_mask(folder / "input.mrc", 0.0393, pixel_size=7.08, **options)
    np.testing.assert_allclose(r.mask.values, read_mrc(folder / f"{name}.mrc")[0], atol=1e-5)


@pytest.mark.golden
def test_relions_mask_without_a_map(reference):
    r = crown_mask(32, 7.08, outer_radius=11, inner_radius=4, centre=(3, -2, 1), soft_edge_px=4)
    np.testing.assert_allclose(r.mask.values, read_mrc(reference / "mask_create/i_denovo.mrc")[0], atol=1e-5)


@pytest.mark.golden
def test_mask_of_the_postprocess_golden(reference, tmp_path):
    """The 15 Å mask whose map was the merged one: from half 1 it is nearly the same; saved and read again it is itself."""
    r = ctk.create_mask(reference / "refine3d/run_half1_class001_unfil.mrc", 0.0454, extend_px=3, soft_edge_px=6)
    expected = read_mrc(reference / "postprocess/mask.mrc")[0]
    assert np.corrcoef(r.mask.values.ravel(), expected.ravel())[0, 1] > 0.97
    path = r.save(tmp_path)
    np.testing.assert_array_equal(ctk.open_volume(path).values, r.mask.values)


def _by_the_rules(inside, extend, edge):
    """Every voxel against every other."""
    place = np.argwhere(np.ones(inside.shape, bool))
    flat = inside.ravel()

    def squared(to):
        return ((place[:, None] - place[to][None]) ** 2).sum(-1).min(1) if to.any() else np.full(len(place), 10**9)

    if extend > 0:
        flat = flat | (squared(flat) < extend**2)
    elif extend < 0:
        flat = flat & ~(squared(~flat) < extend**2)
    out = flat.astype(float)
    if edge > 0:
        d = np.sqrt(squared(flat))
        out = np.where(~flat & (d < edge), 0.5 + 0.5 * np.cos(np.pi * d / edge), out)
    return out.reshape(inside.shape)


@pytest.mark.parametrize(("extend", "edge"), itertools.product((3, 2.5, 1, 0, -1, -2, -2.5), (0, 1, 4.5, 3)))
def test_rules(extend, edge):
    inside = np.random.default_rng(int(extend * 10 + 100)).random((11, 9, 10)) < (0.02 if extend > 0 else 0.93)
    np.testing.assert_allclose(soft_mask(inside, extend, edge), _by_the_rules(inside, extend, edge), atol=1e-6)


def test_edges_of_the_rules():
    one = np.zeros((9, 9, 9), bool)
    one[4, 4, 4] = True
    k = np.arange(9) - 4
    r2 = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
    m = soft_mask(one, 3, 3)
    assert np.array_equal(m == 1, r2 < 9)
    assert soft_mask(np.ones((5, 5, 5), bool), -3, 3).all() and not soft_mask(np.zeros((5, 5, 5), bool), 3, 3).any()
    assert np.array_equal(soft_mask(one, 0, 1), one)  # the nearest voxel is at distance 1, which is not less
    wide = soft_mask(one, 0, 150.0)  # wider than RELION's search
    np.testing.assert_allclose(wide, 0.5 + 0.5 * np.cos(np.pi * np.sqrt(r2) / 150), atol=1e-6)


def test_options():
    v = as_volume(ball(32, 6) + ball(32, 3) * 0, 3.0)
    a = ctk.create_mask(v, 0.5, lowpass=None)
    assert a.reason == "as given" and a.threshold == 0.5 and a.mask.attrs["pixel_size"] == 3.0
    np.testing.assert_allclose(a.mask.values + ctk.create_mask(v, 0.5, lowpass=None, invert=True).mask.values, 1, atol=1e-6)
    h = ctk.create_mask(v, 0.5, lowpass=None, helix_fraction=0.25, soft_edge_px=2).mask.values
    plain = ctk.create_mask(v, 0.5, lowpass=None, soft_edge_px=2).mask.values
    z = np.abs(np.arange(32) - 16)
    profile = np.where(z < 4, 1, np.where(z > 6, 0, 0.5 + 0.5 * np.cos(np.pi * (z - 4) / 2)))
    np.testing.assert_allclose(h, plain * profile[:, None, None], atol=1e-6)
    two = ball(32, 3)
    two = np.roll(two, 8, 2) + np.roll(ball(32, 1, 1), -10, 2)
    hollow = as_volume(np.where(ball(32, 2, 1) > 0.5, 0, ball(32, 8)), 3.0)
    assert ctk.create_mask(as_volume(two, 3.0), 0.5, lowpass=None, largest_only=True, extend_px=0).mask.values[:, :, :12].max() == 0
    assert ctk.create_mask(as_volume(two, 3.0), 0.5, lowpass=None, extend_px=0).mask.values[:, :, :12].max() == 1
    assert ctk.create_mask(hollow, 0.5, lowpass=None, extend_px=0, soft_edge_px=0, fill_holes=True).mask.values[16, 16, 16] == 1
    assert ctk.create_mask(hollow, 0.5, lowpass=None, extend_px=0, soft_edge_px=0).mask.values[16, 16, 16] == 0
    assert "px" in repr(a) and "%" in a._repr_html_()


def test_suggestion_by_mass():
    v = as_volume(ball(48, 10, 6), 2.0)
    t = ctk.suggest_threshold(v, molecular_weight=40, lowpass=None)
    assert (v.values >= t.threshold).sum() * 8 == pytest.approx(40_000 * 1.21, rel=0.03) and "40 kDa" in t.reason
    assert ctk.create_mask(v, molecular_weight=40, lowpass=None).reason == t.reason


@pytest.mark.parametrize("name", ["refine3d/run_half1_class001_unfil.mrc", "betagal_noisy/truth_map.mrc"])
def test_suggestion_without_anything(reference, name):
    """Without extension, the suggested mask holds the particle (465 kDa) and not much else, noisy or not."""
    r = ctk.create_mask(reference / name, extend_px=0, soft_edge_px=0)
    truth = read_mrc(reference / "betagal_noisy/truth_map.mrc")[0]
    strong = truth > np.quantile(truth, 0.97)
    inside = r.mask.values > 0.5
    assert (inside & strong).sum() > 0.85 * strong.sum()
    assert 0.7 * 465_000 * 1.21 < r.volume_inside < 4 * 465_000 * 1.21, r
    assert f"{r.threshold:.5g}" in repr(r) and len(r.reason) > 10


def test_suggestion_for_a_real_map(shared):
    r = ctk.create_mask(shared / "data/relion2_spa_betagal/Refine3D/job020/run_half1_class001_unfil.mrc", extend_px=0, soft_edge_px=0, pixel_size=3.54)
    assert 0.7 * 465_000 * 1.21 < r.volume_inside < 4 * 465_000 * 1.21, r


def test_a_large_map_is_quick_enough_to_follow_a_slider():
    """Not a race: only that no step of the cost of a brute-force search is left."""
    v = as_volume(ball(128, 30, 10), 1.0)
    ctk.create_mask(v, 0.5)
    start = time.process_time()
    ctk.create_mask(v, 0.5, extend_px=10, soft_edge_px=15)
    assert time.process_time() - start < 20


def test_a_result_of_create_mask_serves_as_the_mask():
    from cryotk.maps.inputs import open_map

    volume = ctk.simulate.volume(ctk.simulate.molecule(), 32, 6.0)
    made = ctk.create_mask(volume)
    assert np.array_equal(open_map(made, "mask").values, made.mask.values)
