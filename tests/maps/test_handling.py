"""Filters, boxes, flips, shifts, symmetry of maps against RELION's programs and against what must hold."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cryotk as ctk
from cryotk.data import as_volume, open_volume, pixel_size_of, write_volume
from cryotk.errors import DataWarning
from cryotk.fourier import lowpass as soft_lowpass
from cryotk.geometry import symmetry_operators
from cryotk.io import read_mrc
from cryotk.maps import rotate, shift

from .conftest import ball

GOLDEN = {
    "rescale_12A": lambda v: ctk.rescale(v, 12), "rescale_6p5A": lambda v: ctk.rescale(v, 6.5), "newbox_30": lambda v: ctk.rebox(v, 30),
    "newbox_18": lambda v: ctk.rebox(v, 18), "rescale_newbox": lambda v: ctk.rebox(ctk.rescale(v, 12), 24), "lowpass_25": lambda v: ctk.lowpass(v, 25),
    "lowpass_25_w5": lambda v: ctk.lowpass(v, 25, width=5), "bandpass": lambda v: ctk.highpass(ctk.lowpass(v, 25), 80),
    "flipX": lambda v: ctk.flip(v, "x"), "invert_hand": lambda v: ctk.flip(v, "hand"),
    "shift_com": lambda v: ctk.shift_to_center_of_mass(v, compat="relion"), "shift_xyz": lambda v: shift(v, (2, -1.5, 0.25), compat="relion"),
    "bfactor_200": lambda v: ctk.apply_b_factor(v, 200), "bfactor_m200": lambda v: ctk.apply_b_factor(v, -200),
    "sym_D2": lambda v: ctk.symmetrise(v, "D2"), "sym_C3": lambda v: ctk.symmetrise(v, "C3"),
}  # fmt: skip


@pytest.fixture(scope="module")
def golden_map(reference):
    return open_volume(reference / "image_handler/in.mrc", 8.0)


@pytest.mark.golden
@pytest.mark.filterwarnings("ignore:.*an even box gives:cryotk.errors.DataWarning")
@pytest.mark.parametrize("name", GOLDEN)
def test_relions_image_handler(golden_map, reference, name):
    ours = GOLDEN[name](golden_map)
    theirs, header = read_mrc(reference / f"image_handler/{name}.mrc")
    assert np.abs(ours.values - theirs).max() <= 1e-5 * np.abs(theirs).max()
    assert pixel_size_of(ours) == pytest.approx(header.pixel_size) and ours.attrs["pixel_size"] == pytest.approx(header.pixel_size)
    assert ours.dtype == np.float32 and ours.attrs["history"] and float(ours["x"][ours.shape[2] // 2]) == 0


@pytest.mark.golden
def test_relions_phase_randomisation(golden_map, reference):
    """Amplitudes stay, and shells below the cut-off."""
    ours, (theirs, _) = ctk.randomise_phases(golden_map, 25), read_mrc(reference / "image_handler/phase_rand.mrc")
    f, g, h = (np.fft.rfftn(v) for v in (golden_map.values, ours.values, theirs))
    k = np.rint(np.fft.fftfreq(24) * 24)
    r = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + np.arange(13) ** 2)
    low = r < int(24 * 8 / 25)
    top = np.abs(f).max()
    assert np.abs(g - h)[low].max() < 1e-5 * top
    np.testing.assert_allclose(np.abs(g), np.abs(f), atol=1e-5 * top)
    interior = ~low & (np.arange(13) > 0) & (np.arange(13) < 12)
    assert abs(np.mean(np.exp(1j * np.angle(g / np.where(f == 0, 1, f)))[interior])) < 0.05
    np.testing.assert_allclose(np.abs(h)[interior], np.abs(g)[interior], atol=1e-4 * top)


@pytest.mark.golden
def test_relions_numbers(golden_map, reference):
    s = ctk.map_statistics(golden_map)
    line = (reference / "image_handler/stats.txt").read_text()
    for key, name in (("avg", "mean"), ("stddev", "std"), ("minval", "min"), ("maxval", "max")):
        assert s[name] == pytest.approx(float(line.split(f"{key}=")[1].split()[0].rstrip(";")), rel=1e-5)
    com = (reference / "image_handler/com.txt").read_text().split()
    expected = [float(com[com.index(a) + 1]) for a in ("x", "y", "z")]
    assert ctk.center_of_mass(golden_map) == pytest.approx(expected, abs=1e-5)


def test_there_and_back():
    v = as_volume(soft_lowpass(np.random.default_rng(0).normal(size=(48, 48, 48)), 1.0, 6.0).astype(np.float32), 1.0)
    back = ctk.rescale(ctk.rescale(v, 1.5), 1.0)
    np.testing.assert_allclose(back.values, v.values, atol=1e-6)
    assert back.attrs["pixel_size"] == 1.0 and ctk.rescale(v, 1.5).shape == (32, 32, 32)
    for axis in ("hand", "x", "y", "z"):
        np.testing.assert_array_equal(ctk.flip(ctk.flip(v, axis), axis).values, v.values)
    np.testing.assert_array_equal(ctk.rebox(ctk.rebox(v, 60), 48).values, v.values)
    assert ctk.rebox(v, (10, 20, 30)).shape == (10, 20, 30)
    np.testing.assert_allclose(shift(shift(v, (1.5, -2, 0.3)), (-1.5, 2, -0.3)).values, v.values, atol=2e-6)
    np.testing.assert_allclose(shift(v, (3, -2, 1)).values, np.roll(v.values, (1, -2, 3), (0, 1, 2)), atol=2e-6)


def test_centre_of_mass_comes_to_the_centre():
    k = np.arange(40) - 20
    blob = np.exp(-((k - 3.3)[:, None, None] ** 2 + (k + 2.2)[:, None] ** 2 + (k - 1.1) ** 2) / 18)
    v = as_volume(blob.astype(np.float32), 2.0)
    assert ctk.center_of_mass(v) == pytest.approx((1.1, -2.2, 3.3), abs=1e-3)
    moved = ctk.shift_to_center_of_mass(v)
    assert ctk.center_of_mass(moved) == pytest.approx((0, 0, 0), abs=1e-3)
    assert ctk.center_of_mass(as_volume(-blob, 2.0)) == (0, 0, 0)
    # in Å it stays where it is when the box changes
    for m in (32, 50):
        scaled = ctk.rescale(v, 80 / m)
        assert np.array(ctk.center_of_mass(scaled)) * 80 / m == pytest.approx(np.array((1.1, -2.2, 3.3)) * 2, abs=0.02)


def test_odd_boxes():
    k = np.arange(45) - 22
    v = as_volume(np.exp(-((k - 2)[:, None, None] ** 2 + k[:, None] ** 2 + (k + 3) ** 2) / 30).astype(np.float32), 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scaled = ctk.rescale(v, 1.5)
    a = scaled.attrs["pixel_size"]
    assert scaled.shape == (30, 30, 30) and np.array(ctk.center_of_mass(scaled)) * a == pytest.approx((-3, 0, 2), abs=0.02)
    assert ctk.center_of_mass(ctk.flip(v, "hand")) == pytest.approx((3, 0, 2), abs=1e-3)


def test_pixel_size_that_an_even_box_cannot_give():
    with pytest.warns(DataWarning, match="an even box gives 6.4 Å, not 6.5 Å"):
        v = ctk.rescale(as_volume(np.random.default_rng(0).normal(size=(24, 24, 24)), 8.0), 6.5)
    assert v.attrs["pixel_size"] == pytest.approx(6.4) and v.dtype == np.float64


def test_arithmetic_keeps_the_pixel_size(tmp_path):
    """Sums, products, slices and numpy functions; also when attributes are lost."""
    v = as_volume(np.random.default_rng(0).normal(size=(24, 24, 24)).astype(np.float32), 1.7)
    for w in (v * 2, 0.5 * (v + v), abs(v), v[4:20, 4:20, 4:20], v.where(v > 0, 0), (v * 2).drop_attrs(deep=False), np.tanh(v)):
        assert pixel_size_of(w) == pytest.approx(1.7), w.attrs
        assert ctk.lowpass(w, 6.0).attrs["pixel_size"] == pytest.approx(1.7)
        write_volume(w, tmp_path / "w.mrc")
        assert open_volume(tmp_path / "w.mrc").attrs["pixel_size"] == pytest.approx(1.7)
    assert pixel_size_of(v[::2, ::2, ::2]) == pytest.approx(3.4)
    assert pixel_size_of(v[::2, ::2, ::2].drop_attrs(deep=False).cryo.lowpass(10)) == pytest.approx(3.4)
    assert ctk.rescale(v[::2, ::2, ::2], 3.4).shape == (12, 12, 12)


def test_accessor_filters_as_the_functions_do():
    v = as_volume(np.random.default_rng(0).normal(size=(24, 24, 24)).astype(np.float32), 2.0)
    np.testing.assert_allclose(v.cryo.lowpass(9.0).values, ctk.lowpass(v, 9.0).values, atol=1e-6)


@pytest.mark.parametrize("symmetry", ["C2", "C4", "D2", "D4", "O", "T", "I1", "C3", "D7"])
def test_symmetry(symmetry):
    """Axes that turn the grid onto itself are exact; twice is once, beyond interpolation."""
    n = 33
    v = as_volume((soft_lowpass(np.random.default_rng(0).normal(size=(n, n, n)), 1.0, 8.0) * ball(n, 9, 3)).astype(np.float32), 2.0)
    s = ctk.symmetrise(v, symmetry)
    again = ctk.symmetrise(s, symmetry)
    assert np.corrcoef(s.values.ravel(), again.values.ravel())[0, 1] > (1 - 1e-10 if symmetry in ("C2", "C4", "D2", "D4", "O") else 0.98)
    if symmetry in ("C2", "C4", "D2", "D4", "O"):
        np.testing.assert_allclose(again.values, s.values, atol=1e-6)
        g = symmetry_operators(symmetry)[-1]
        np.testing.assert_allclose(rotate(s, g).values, s.values, atol=1e-5)
    hand = ctk.flip(s, "hand")
    if symmetry == "D7":  # the other hand of a D7 map is D7 about the same axes
        assert np.corrcoef(ctk.symmetrise(hand, symmetry).values.ravel(), hand.values.ravel())[0, 1] > 0.98


def test_rotation_turns_the_map():
    k = np.arange(32) - 16
    v = as_volume(np.exp(-(k[:, None, None] ** 2 + k[:, None] ** 2 + (k - 6) ** 2) / 8).astype(np.float32), 1.0)  # at x = 6
    turned = rotate(v, Rotation.from_euler("z", 90, degrees=True).as_matrix())
    assert ctk.center_of_mass(turned) == pytest.approx((0, 6, 0), abs=0.05)


def test_align_symmetry_finds_the_axes(reference, tmp_path):
    truth = open_volume(reference / "betagal_noisy/truth_map.mrc")
    r = Rotation.from_rotvec([0.5, -1.0, 0.7]).as_matrix()
    turned = shift(rotate(truth, r), (1.5, -1, 0.5))
    found = ctk.align_symmetry(turned, "D2", working_box=48)
    assert found.asymmetry < 0.03 < 0.3 < found.asymmetry_before
    assert ctk.fsc(found.volume, ctk.symmetrise(found.volume, "D2"))[:16].min() > 0.97
    # up to the axes that a D2 map may exchange
    assert "rot, tilt, psi" in repr(found) and len(found.angles) == 3
    assert f"before {100 * found.asymmetry_before:.1f} %" in repr(found) and "{" not in repr(found)
    assert open_volume(found.save(tmp_path)).shape == truth.shape
    done = ctk.align_symmetry(truth, "D2", keep_center=True, apply_symmetry=True, working_box=32)
    assert np.corrcoef(ctk.symmetrise(done.volume, "D2").values.ravel(), done.volume.values.ravel())[0, 1] > 0.9999
    assert ctk.align_symmetry(truth, "C1").asymmetry == pytest.approx(0, abs=1e-9)


def test_align_symmetry_leaves_alone_what_is_in_place(reference):
    truth = ctk.symmetrise(open_volume(reference / "betagal_noisy/truth_map.mrc"), "D2")
    for keep_center in (False, True):
        same = ctk.align_symmetry(truth, "D2", keep_center, working_box=48)
        np.testing.assert_array_equal(same.volume.values, truth.values)
        np.testing.assert_array_equal(same.rotation, np.eye(3))
        assert not same.shift.any() and "-0." not in repr(same) and 0 <= same.asymmetry < 1e-4
    r = Rotation.from_rotvec([0.02, -0.01, 0.03]).as_matrix()
    turned = shift(rotate(truth, r), (0.7, -0.5, 0.2))
    back = ctk.align_symmetry(turned, "D2", working_box=48)
    assert np.degrees(Rotation.from_matrix(back.rotation @ r).magnitude()) < 0.2
    np.testing.assert_allclose(back.shift, (-0.7, 0.5, -0.2), atol=0.05)
    assert np.corrcoef(back.volume.values.ravel(), truth.values.ravel())[0, 1] > 0.99


def test_fsc_against_a_model(reference):
    """Half-map against the true map: 0.5 is where 0.143 of the half-maps is, about; and RELION's way of counting is near ours."""
    truth, half = (open_volume(reference / p) for p in ("betagal_noisy/truth_map.mrc", "refine3d/run_half1_class001_unfil.mrc"))
    mask = ctk.crown_mask(64, 3.54, outer_radius=26, soft_edge_px=4).mask
    model = ctk.fsc(half, truth, mask)
    assert 8 < model.attrs["resolution_05"] < 16 and model[1:5].min() > 0.95
    relion = ctk.fsc(half, truth, mask, compat="relion")
    assert 0 < np.abs(model - relion).max() < 0.03
    import scipy.fft

    f, g = (scipy.fft.rfftn(v.values.astype(float) * mask.values) for v in (half, truth))
    k = np.rint(np.fft.fftfreq(64) * 64)
    s = np.floor(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + np.arange(33) ** 2) + 0.5).astype(int)
    for weight, curve in ((np.r_[1, np.full(31, 2), 1], model), (np.ones(33), relion)):
        sums = [np.bincount(s.ravel(), (x * weight).ravel())[:33] for x in ((f.conj() * g).real, abs(f) ** 2, abs(g) ** 2)]
        np.testing.assert_allclose(curve, sums[0] / np.sqrt(sums[1] * sums[2]), atol=1e-9)
