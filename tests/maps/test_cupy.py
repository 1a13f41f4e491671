"""Every function on maps that lie on a card: the same numbers, and maps that stay there (a card, or its strict stand-in)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cryotk as ctk
from cryotk.data import as_volume, open_volume
from cryotk.errors import DataError
from cryotk.maps import rotate, shift

from .conftest import half_maps

pytestmark = pytest.mark.filterwarnings("ignore::cryotk.errors.DataWarning")


@pytest.fixture(scope="module")
def pair(cupy):
    h = half_maps(32, 3.0)
    return h, {k: getattr(h, k).cryo.to_gpu() for k in ("one", "two", "mask")}


def _same(ours, theirs, tolerance=1e-5):
    assert type(theirs.data).__module__ == "cupy" or "cupy" in type(theirs.data).__module__, "came back to numpy on the way"
    a, b = ours.values, theirs.data.get()
    assert a.shape == b.shape and a.dtype == b.dtype
    assert np.abs(a - b).max() <= tolerance * max(a.std(), 1e-12) and ours.attrs["pixel_size"] == theirs.attrs["pixel_size"]


HANDLING = {
    "lowpass": lambda v: ctk.lowpass(v, 10), "highpass": lambda v: ctk.highpass(v, 20), "b": lambda v: ctk.apply_b_factor(v, -30),
    "coarser": lambda v: ctk.rescale(v, 4.0), "finer": lambda v: ctk.rescale(v, 2.0), "same": lambda v: ctk.rescale(v, 3.0),
    "rebox": lambda v: ctk.rebox(v, 40), "rebox3": lambda v: ctk.rebox(v, (20, 21, 22), fill=0.5),
    **{f"flip {a}": (lambda v, a=a: ctk.flip(v, a)) for a in ("hand", "x", "y", "z")},
    "com": lambda v: ctk.shift_to_center_of_mass(v), "com linear": lambda v: ctk.shift_to_center_of_mass(v, compat="relion"),
    "shift": lambda v: shift(v, (1.5, -2, 0.25)), "D2": lambda v: ctk.symmetrise(v, "D2"), "C3": lambda v: ctk.symmetrise(v, "C3"),
    "O": lambda v: ctk.symmetrise(v, "O"), "phases": lambda v: ctk.randomise_phases(v, 12),
    "rotate": lambda v: rotate(v, Rotation.from_rotvec([0.3, 0.2, -1]).as_matrix()),
    "arithmetic": lambda v: abs(2 * v - v * v).where(v > 0, 0) + 1, "slice": lambda v: ctk.rebox(v[4:28, 4:28, 4:28], 16),
    "filter of a slice": lambda v: ctk.lowpass(v[4:28, 4:28, 4:28], 12), "float64": lambda v: ctk.lowpass(v.astype(np.float64), 10),
    "accessor": lambda v: v.cryo.lowpass(10.0),
}  # fmt: skip


@pytest.mark.parametrize("name", HANDLING)
def test_handling(pair, name):
    h, g = pair
    before = g["one"].data.get()
    _same(HANDLING[name](h.one), HANDLING[name](g["one"]))
    np.testing.assert_array_equal(g["one"].data.get(), before)


@pytest.mark.parametrize("options", [{}, {"keep_center": True}, {"apply_symmetry": True, "working_box": 24}])
def test_align_symmetry(pair, options):
    """Which of the equivalent ways to lie on the axes is found is a matter of the last bit, how well it lies is not."""
    h, _ = pair
    turned = rotate(ctk.lowpass(ctk.symmetrise(h.one, "D2"), 14), Rotation.from_rotvec([0.3, 0.2, -1]).as_matrix())
    a, b = (ctk.align_symmetry(v, "D2", **options) for v in (turned, turned.cryo.to_gpu()))
    assert "cupy" in type(b.volume.data).__module__ and b.volume.attrs["pixel_size"] == 3.0
    assert b.correlation == pytest.approx(a.correlation, abs=2e-3) and b.correlation > 0.85 > b.correlation_before
    assert ctk.fsc(b.volume, ctk.symmetrise(b.volume, "D2"))[1:8].min() > 0.95


def test_filters_run_the_cuda_kernels(pair, cupy):
    if not getattr(cupy, "stand_in", False):
        pytest.skip("the stand-in counts")
    _, g = pair
    before, moved = dict(cupy.launched), cupy.transfers["to_host"]
    ctk.lowpass(g["one"], 10)
    assert cupy.transfers["to_host"] == moved, "the map went through the host"
    ctk.fsc(g["one"], g["two"], g["mask"])
    ctk.symmetrise(g["one"], "C3")
    ctk.create_mask(g["one"], 0.8)
    ctk.local_resolution(g["one"], g["two"], sampling=40, progress=False)
    ran = {k for k, v in cupy.launched.items() if v > before.get(k, 0)}
    for kernel in ("apply_gain_float", "cross_sums_double", "mean_over_rotations_float", "nearest_in_row_uint16", "look_up_float_uint16",
                   "cut_parts", "products_to_shells", "join_parts", "add_window", "randomise_phases_float"):  # fmt: skip
        assert kernel in ran, kernel


def test_numbers(pair):
    h, g = pair
    for options in ({}, {"compat": "relion"}):
        np.testing.assert_allclose(ctk.fsc(h.one, h.two, h.mask, **options), ctk.fsc(g["one"], g["two"], g["mask"], **options), atol=1e-9)
    assert ctk.map_statistics(h.one) == pytest.approx(ctk.map_statistics(g["one"]))
    assert ctk.center_of_mass(h.one) == pytest.approx(ctk.center_of_mass(g["one"]))


def test_others_come_to_the_first_map(pair, tmp_path):
    """A mask or model from a file, or from memory, beside maps on a card."""
    h, g = pair
    path = tmp_path / "mask.mrc"
    h.mask.cryo.write(path)
    expected = ctk.fsc(h.one, h.two, h.mask)
    np.testing.assert_allclose(ctk.fsc(g["one"], h.two, path), expected, atol=1e-9)
    np.testing.assert_allclose(ctk.fsc(h.one, g["two"], g["mask"]), expected, atol=1e-9)
    a, b = ctk.postprocess(h.one, h.two, h.mask, b_factor=-50), ctk.postprocess(g["one"], h.two, path, b_factor=-50)
    _same(a.masked, b.masked)
    _same(ctk.create_mask(h.one, 0.5, and_not=h.two).mask, ctk.create_mask(g["one"], 0.5, and_not=h.two).mask)


def test_postprocess(pair, tmp_path):
    h, g = pair
    a = ctk.postprocess(h.one, h.two, h.mask, molecular_weight=50)
    b = ctk.postprocess(g["one"], g["two"], g["mask"], molecular_weight=50)
    for k in a.fsc:
        np.testing.assert_allclose(a.fsc[k], b.fsc[k], atol=1e-5, err_msg=k)
    assert a.b_factor == pytest.approx(b.b_factor, rel=1e-3) and a.resolution == b.resolution
    mtf = (np.array([0, 0.5]), np.array([1.0, 0.4]))
    a, b = (ctk.postprocess(*v, b_factor=-50, lowpass=12, mtf=mtf) for v in ((h.one, h.two, h.mask), (g["one"], g["two"], g["mask"])))
    _same(a.volume, b.volume)
    _same(a.masked, b.masked)
    _same(a.sharpened(-80), b.sharpened(-80))
    np.testing.assert_allclose(a.sharpened_amplitudes(-80), b.sharpened_amplitudes(-80), atol=1e-5)
    b.save(tmp_path)
    np.testing.assert_array_equal(open_volume(tmp_path / "postprocess_masked.mrc").values, b.masked.data.get())
    assert "Å" in repr(b)


@pytest.mark.parametrize("options", [
    {}, {"extend_px": -1.5}, {"soft_edge_px": 0, "extend_px": 0}, {"invert": True, "helix_fraction": 0.5}, {"extend_px": 110, "soft_edge_px": 6},
    {"largest_only": True, "fill_holes": True, "lowpass": None},
])  # fmt: skip
def test_masks(pair, options, tmp_path):
    h, g = pair
    a, b = ctk.create_mask(h.one, 0.8, **options), ctk.create_mask(g["one"], 0.8, **options)
    _same(a.mask, b.mask, 1e-6)
    assert a.fraction == b.fraction
    np.testing.assert_array_equal(open_volume(b.save(tmp_path)).values, b.mask.data.get())


def test_suggested_threshold(pair):
    h, g = pair
    for weight in (None, 30):
        assert ctk.suggest_threshold(g["one"], weight).threshold == pytest.approx(ctk.suggest_threshold(h.one, weight).threshold, rel=1e-4)


def test_local_resolution(pair, tmp_path):
    h, g = pair
    options = {"sampling": 24, "randomise_at": 18, "b_factor": -20, "progress": False}
    a = ctk.local_resolution(h.one, h.two, h.mask, **options, only_inside_mask=True)
    b = ctk.local_resolution(g["one"], g["two"], g["mask"], **options, only_inside_mask=True)
    for k in ("corrected", "masked", "randomised"):
        np.testing.assert_allclose(a.points[k], b.points[k], atol=2e-5)
    _same(a.resolution_map, b.resolution_map, 1e-4)
    _same(a.filtered, b.filtered, 1e-4)
    assert a.histogram.attrs["median"] == pytest.approx(b.histogram.attrs["median"], rel=1e-4)
    np.testing.assert_array_equal(open_volume(b.save(tmp_path)).values, b.resolution_map.data.get())


def test_bad_maps_are_found_there_too(pair):
    _, g = pair
    bad = g["one"].copy(data=g["one"].data.copy())
    bad.data[3, 4, 5] = np.nan
    with pytest.raises(DataError, match=r"1 voxels are not finite .* z, y, x = 3, 4, 5"):
        ctk.lowpass(bad, 10)
    with pytest.raises(DataError, match=r"values from .* must be in \[0, 1\]"):
        ctk.postprocess(g["one"], g["two"], g["mask"] * 1.3)
    with pytest.raises(DataError, match="identical"):
        ctk.postprocess(g["one"], g["one"])
    with pytest.raises(DataError, match="cube"):
        ctk.lowpass(g["one"][:20], 10)


def test_maps_in_memory_and_files(pair, tmp_path):
    h, g = pair
    g["one"].cryo.write(tmp_path / "a.mrc")
    np.testing.assert_array_equal(open_volume(tmp_path / "a.mrc").values, h.one.values)
    np.testing.assert_array_equal(as_volume(g["one"].data, 3.0).data.get(), h.one.values)
