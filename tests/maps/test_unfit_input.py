"""Input that was taken without a word, and messages that name the wrong remedy."""

from __future__ import annotations

import struct

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data import as_volume, open_volume, write_volume
from cryotk.errors import DataError, DataWarning, SettingsError

from .conftest import ball, half_maps

QUIET = pytest.mark.filterwarnings("ignore:.*(B-factor|Guinier):cryotk.errors.DataWarning")


@pytest.fixture(scope="module")
def h():
    return half_maps(32, 4.0)


def _cell(path, a: float) -> None:
    raw = bytearray(path.read_bytes())
    struct.pack_into("<3f", raw, 40, *(n * a for n in struct.unpack("<3i", raw[:12])))
    path.write_bytes(raw)


TAKES_MASK = pytest.mark.parametrize("function", [
    lambda h, m, **k: ctk.postprocess(h.one, h.two, m, b_factor=-1.0, **k), lambda h, m, **k: ctk.local_resolution(h.one, h.two, m, **k),
    lambda h, m, **k: ctk.fsc(h.one, h.two, m, **k),
])  # fmt: skip


@TAKES_MASK
def test_mask_of_another_pixel_size(h, function, tmp_path):
    other = as_volume(h.mask.values, 4.2)
    with pytest.raises(DataError, match=r"mask \(mask\) has a pixel of 4.2000 Å, map of 4.0000 Å; .*give pixel_size= if the headers"):
        function(h, other)
    function(h, other, pixel_size=4.0)
    write_volume(other, tmp_path / "m.mrc")
    with pytest.raises(DataError, match=r"m.mrc\) has a pixel of 4.2000 Å"):
        function(h, tmp_path / "m.mrc")
    for nobody_knows in (0, 1):
        _cell(tmp_path / "m.mrc", nobody_knows)
        function(h, tmp_path / "m.mrc")


@TAKES_MASK
@QUIET
def test_mask_that_masks_nothing(h, function):
    with pytest.warns(DataWarning, match=r"the mask is 0.6 to 0.6 everywhere: it masks nothing") as seen:
        function(h, as_volume(np.full((32, 32, 32), 0.6, np.float32), 4.0))
    assert seen[0].filename == __file__
    with pytest.warns(DataWarning, match=r"0.9999 to 0.9999 everywhere"):
        function(h, np.full((32, 32, 32), 0.9999, np.float32))


@TAKES_MASK
def test_messages_about_a_mask_do_not_name_the_map(h, function, tmp_path):
    write_volume(h.one, tmp_path / "map.mrc")
    m = ctk.create_mask(tmp_path / "map.mrc", 0.5)
    m.mask = m.mask.copy(data=m.mask.values + 0.5)
    with pytest.raises(DataError, match=r"the mask made from .*map.mrc has values from 0.5 to 1.5"):
        function(h, m)


def test_fsc_takes_a_pixel_size(h, tmp_path):
    with pytest.raises(DataError, match="first map: a plain array has no pixel size; give pixel_size="):
        ctk.fsc(h.one.values, h.two.values)
    c = ctk.fsc(h.one.values, h.two.values, h.mask.values, pixel_size=4.0)
    assert c.equals(ctk.fsc(h.one, h.two, h.mask))
    write_volume(h.one, tmp_path / "a.mrc", 1.0)
    with pytest.warns(DataWarning, match=r"a.mrc: the header says exactly 1 Å.*give pixel_size=") as seen:
        ctk.fsc(tmp_path / "a.mrc", as_volume(h.two.values, 1.0))
    assert seen[0].filename == __file__
    assert ctk.fsc(tmp_path / "a.mrc", tmp_path / "a.mrc", pixel_size=4.0).attrs["pixel_size"] == 4.0
    with pytest.raises(DataError, match=r"values from 0 to 7"):
        ctk.fsc(h.one, h.two, h.mask * 7)
    _cell(tmp_path / "a.mrc", 0)
    for of in (h.one.values, tmp_path / "a.mrc"):
        with pytest.raises(DataError, match=r"no pixel size.*; open it with its own: ctk.open_volume\(path, pixel_size\)"):
            ctk.rescale(of, 8.0)


def test_settings_of_masks_that_say_nothing(h):
    with pytest.raises(DataError, match=r"map of and .*pixel of 4.2000 Å"):
        ctk.create_mask(h.one, 0.5, and_=as_volume(h.two.values, 4.2))
    ctk.create_mask(h.one, 0.5, and_=as_volume(h.two.values, 4.2), pixel_size=4.0)
    for how in ("and_", "and_not"):
        with pytest.raises(DataError, match="above the map's maximum"):
            ctk.create_mask(h.one, 1e6, **{how: h.two})
    with pytest.raises(DataError, match=r"nothing is inside at the threshold 1e\+06: .*lower the threshold"):
        ctk.create_mask(h.one, 1e6, or_=h.two)
    with pytest.raises(SettingsError, match="give one of them"):
        ctk.create_mask(h.one, 0.5, molecular_weight=100)
    with pytest.raises(SettingsError, match="mtf_pixel_size says nothing without mtf="):
        ctk.local_resolution(h.one, h.two, mtf_pixel_size=1.0)


@pytest.mark.parametrize(("call", "message"), [
    (lambda h: ctk.create_mask(h.one, float("nan")), "threshold must be a number, not nan"),
    (lambda h: ctk.create_mask(h.one, lowpass="x"), "lowpass must be a number, in Å, not 'x'"),
    (lambda h: ctk.postprocess(h.one, h.two, seed=-5), "seed must be a whole number from 0 on, not -5"),
    (lambda h: ctk.postprocess(h.one, h.two, seed=None), "seed must be"),
    (lambda h: ctk.local_resolution(h.one, h.two, seed=-5), "seed must be"),
    (lambda h: ctk.maps.randomise_phases(h.one, 20, seed=0.5), "seed must be"),
    (lambda h: ctk.postprocess(h.one, h.two, b_factor="x"), "b_factor must be a number, in Å.2, not 'x'"),
    (lambda h: ctk.postprocess(h.one, h.two, lowpass="20"), "lowpass must be a number, in Å, not '20'"),
    (lambda h: ctk.local_resolution(h.one, h.two, b_factor="x"), "b_factor must be a number"),
    (lambda h: ctk.local_resolution(h.one, h.two, sampling="25"), "sampling must be a number"),
    (lambda h: ctk.lowpass(h.one, "20"), "resolution must be a number, in Å, not '20'"),
    (lambda h: h.one.cryo.lowpass("20"), "resolution must be a positive number, in Å, not '20'"),
    (lambda h: h.one.cryo.lowpass(-3), "resolution must be a positive number, in Å, not -3"),
    (lambda h: ctk.maps.suggest_threshold(h.one, lowpass="x"), "a low-pass needs a positive resolution in Å, not 'x'"),
    (lambda h: ctk.align_symmetry(h.one, "C2", working_box="x"), "working_box must be a number"),
    (lambda h: ctk.maps.apply_b_factor(h.one, "x"), "b_factor must be a number"),
    (lambda h: ctk.symmetrise(h.one, None), "symmetry None is not known"),
    (lambda h: ctk.maps.shift(h.one, (1, 2)), r"by must be three numbers of pixels \(x, y, z\), not \(1, 2\)"),
    (lambda h: ctk.maps.shift(h.one, 3), "by must be three numbers"),
    (lambda h: ctk.rebox(h.one, 20.5), "box must be a positive whole number"),
])  # fmt: skip
def test_what_is_no_number(h, call, message):
    with pytest.raises(SettingsError, match=message):
        call(h)


def test_whole_floats_are_boxes(h):
    assert ctk.rebox(h.one, 20.0).shape == (20, 20, 20) and ctk.rebox(h.one, (8, 9.0, np.int64(10))).shape == (8, 9, 10)


@QUIET
def test_an_option_that_a_figure_does_not_have(h):
    pytest.importorskip("holoviews")
    for result in (ctk.create_mask(h.one, 0.5), ctk.postprocess(h.one, h.two, b_factor=-1.0)):
        with pytest.raises(SettingsError, match=r".plot\(\): .*'foo'; its options are: "):
            result.plot(foo=1)


def test_a_map_times_a_mask_result(h):
    m = ctk.create_mask(h.one, 0.5)
    for product in (h.one * m, m * h.one):
        assert product.dims == ("z", "y", "x")
        np.testing.assert_array_equal(product.values, h.one.values * m.mask.values)
    np.testing.assert_array_equal(h.one.values * m, h.one.values * m.mask.values)
    with pytest.raises(DataError, match=r"the mask has box \(32, 32, 32\), the map \(30, 30, 30\)"):
        h.one[1:31, 1:31, 1:31] * m


def test_attributes_and_coordinates_follow_the_grid(h, tmp_path):
    v = h.one.assign_attrs(origin=(1.0, 2.0, 3.0))
    assert ctk.lowpass(v, 20).attrs["origin"] == (1, 2, 3)
    for other in (ctk.rebox(v, 20), ctk.rescale(v, 8.0), ctk.lowpass(v, 20, pixel_size=4.1)):
        assert "origin" not in other.attrs
    cut = v[4:20, 6:22, 8:24]
    assert all(ctk.lowpass(cut, 20)[axis].equals(cut[axis]) for axis in "zyx")
    assert (ctk.lowpass(cut, 20) * v).shape == (16, 16, 16)
    assert float(ctk.lowpass(cut, 20, pixel_size=5.0)["x"][8]) == 0
    for box in (10, 20, 15):
        again = ctk.rebox(cut, box)
        assert (again * v).shape == again.shape == (box,) * 3
        common = {axis: again[axis].values[np.isin(again[axis], cut[axis])] for axis in "zyx"}
        np.testing.assert_array_equal(again.sel(common).values, cut.sel(common).values)
        assert again.sel(common).size == min(box, 16) ** 3
    write_volume(v, tmp_path / "v.mrc", 1.0)
    for function in (ctk.lowpass, lambda f, r: ctk.maps.map_statistics(f)):
        with pytest.warns(DataWarning, match="exactly 1 Å") as seen:
            function(tmp_path / "v.mrc", 20)
        assert seen[0].filename == __file__
    assert open_volume(tmp_path / "v.mrc").shape == ball(32, 3).shape
