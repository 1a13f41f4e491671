"""Every function on arrays of another library: a strict one that knows nothing but the array API standard."""

from __future__ import annotations

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data import as_volume

from .conftest import half_maps

strict = pytest.importorskip("array_api_strict", reason="needs array-api-strict")

pytestmark = pytest.mark.filterwarnings("ignore::cryotk.errors.DataWarning")


@pytest.fixture(scope="module")
def pair():
    h = half_maps(32, 3.0)
    return h, {k: as_volume(strict.asarray(getattr(h, k).values), 3.0) for k in ("one", "two", "mask")}


def _same(ours, theirs, tolerance=1e-5):
    assert type(theirs.data).__module__.startswith("array_api_strict"), "came back to numpy on the way"
    a, b = ours.values, np.asarray(theirs.data)
    assert np.abs(a - b).max() <= tolerance * max(a.std(), 1e-12) and ours.attrs["pixel_size"] == theirs.attrs["pixel_size"]


def test_postprocess(pair):
    h, s = pair
    a, b = ctk.postprocess(h.one, h.two, h.mask), ctk.postprocess(s["one"], s["two"], s["mask"])
    for k in a.fsc:
        np.testing.assert_allclose(a.fsc[k], b.fsc[k], atol=1e-5, err_msg=k)
    np.testing.assert_allclose(a.guinier["sharpened"], b.guinier["sharpened"], atol=1e-3)
    assert a.b_factor == pytest.approx(b.b_factor, rel=1e-3)
    _same(ctk.postprocess(h.one, h.two, h.mask, b_factor=-50, fsc_weighting=False).masked,
          ctk.postprocess(s["one"], s["two"], s["mask"], b_factor=-50, fsc_weighting=False).masked)  # fmt: skip


def test_masks(pair):
    h, s = pair
    for options in ({}, {"extend_px": -1.5}, {"soft_edge_px": 0, "extend_px": 0}, {"invert": True, "helix_fraction": 0.5}):
        _same(ctk.create_mask(h.one, 0.8, **options).mask, ctk.create_mask(s["one"], 0.8, **options).mask, 1e-6)
    assert ctk.suggest_threshold(s["one"]).threshold == pytest.approx(ctk.suggest_threshold(h.one).threshold, rel=1e-4)
    assert ctk.suggest_threshold(s["one"], 30).threshold == pytest.approx(ctk.suggest_threshold(h.one, 30).threshold, rel=1e-4)
    _same(ctk.create_mask(h.one, 0.5, and_not=h.two).mask, ctk.create_mask(s["one"], 0.5, and_not=s["two"]).mask)


def test_local_resolution(pair):
    h, s = pair
    options = {"sampling": 24, "randomise_at": 18, "b_factor": -20, "progress": False}
    a, b = ctk.local_resolution(h.one, h.two, **options), ctk.local_resolution(s["one"], s["two"], **options)
    np.testing.assert_allclose(a.points["corrected"], b.points["corrected"], atol=2e-5)
    np.testing.assert_allclose(a.resolution_map.values, np.asarray(b.resolution_map.data), atol=1e-4)
    _same(a.filtered, b.filtered, 1e-4)


@pytest.mark.parametrize("function", [
    lambda v: ctk.lowpass(v, 10), lambda v: ctk.highpass(v, 20), lambda v: ctk.apply_b_factor(v, -30), lambda v: ctk.rescale(v, 4.0),
    lambda v: ctk.rescale(v, 2.0), lambda v: ctk.rebox(v, 40), lambda v: ctk.rebox(v, (20, 21, 22)), lambda v: ctk.flip(v, "hand"), lambda v: ctk.flip(v, "z"),
    lambda v: ctk.shift_to_center_of_mass(v), lambda v: ctk.shift_to_center_of_mass(v, compat="relion"), lambda v: ctk.symmetrise(v, "D3"),
    lambda v: ctk.randomise_phases(v, 12),
])  # fmt: skip
def test_handling(pair, function):
    h, s = pair
    _same(function(h.one), function(s["one"]))


def test_numbers(pair):
    h, s = pair
    np.testing.assert_allclose(ctk.fsc(h.one, h.two, h.mask), ctk.fsc(s["one"], s["two"], s["mask"]), atol=1e-9)
    assert ctk.map_statistics(h.one) == pytest.approx(ctk.map_statistics(s["one"]))
    assert ctk.center_of_mass(h.one) == pytest.approx(ctk.center_of_mass(s["one"]))
