"""Every kind of input that cannot be right: the message says what, which file, and the remedy."""

from __future__ import annotations

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data import as_volume, write_volume
from cryotk.errors import CryotkError, DataError, DataWarning, FileFormatError, MissingFileError, SettingsError
from cryotk.fourier import lowpass

from .conftest import ball, half_maps


@pytest.fixture
def files(tmp_path):
    h = half_maps(32, 4.0)
    write_volume(h.one, tmp_path / "run_half1_class001_unfil.mrc")
    write_volume(h.two, tmp_path / "run_half2_class001_unfil.mrc")
    write_volume(h.mask, tmp_path / "mask.mrc")
    h.dir, h.file1, h.file2 = tmp_path, tmp_path / "run_half1_class001_unfil.mrc", tmp_path / "run_half2_class001_unfil.mrc"
    return h


BOTH = pytest.mark.parametrize("function", [ctk.postprocess, ctk.local_resolution])


@pytest.mark.filterwarnings("ignore::cryotk.errors.DataWarning")
def test_mate_is_found_both_ways(files):
    a = ctk.postprocess(files.file1)
    b = ctk.postprocess(files.file2)
    c = ctk.postprocess(files.file1, files.file2)
    assert a.resolution == b.resolution == c.resolution and str(a.half2) == str(files.file2) and str(b.half2) == str(files.file1)


@BOTH
def test_one_half_missing(files, function):
    files.file2.unlink()
    with pytest.raises(MissingFileError, match=r"run_half2_class001_unfil.mrc is not there; give it as half2="):
        function(files.file1)
    with pytest.raises(DataError, match=r"neither half1 nor half2.*give it as half2="):
        function(files.dir / "mask.mrc")
    with pytest.raises(DataError, match="give half2="):
        function(files.one)
    with pytest.raises(MissingFileError, match="no file"):
        function(files.dir / "nothing_half1.mrc", files.file1)


@BOTH
def test_half_maps_of_different_box_or_pixel(files, function):
    with pytest.raises(DataError, match=r"has box \(32, 32, 32\), half2 .* \(30, 30, 30\); .*ctk.rebox"):
        function(files.one, as_volume(files.two.values[1:31, 1:31, 1:31], 4.0))
    with pytest.raises(DataError, match=r"pixel of 4.0000 Å, half2 .* of 4.2000 Å; .*pixel_size="):
        function(files.one, as_volume(files.two.values, 4.2))


@BOTH
def test_identical_half_maps(files, function):
    with pytest.raises(DataError, match=r"identical; give the two half-maps of one refinement"):
        function(files.one, files.one)


def test_filtered_half_maps(files):
    one, two = (as_volume(lowpass(v.values, 4.0, 16.0), 4.0) for v in (files.one, files.two))
    with pytest.warns(DataWarning, match=r"nothing beyond .* Å: they look filtered; take the unfiltered ones \(run_half1_class001_unfil.mrc\)"):
        ctk.postprocess(one, two, b_factor=0.0)


def test_half_maps_that_never_part(files):
    two = as_volume((files.one.values + 1e-3 * files.two.values).astype(np.float32), 4.0)
    with pytest.raises(DataError, match=r"never falls below 0.8 .* give randomise_from= in Å"):
        ctk.postprocess(files.one, two, files.mask, b_factor=0.0)
    ctk.postprocess(files.one, two, files.mask, b_factor=0.0, randomise_from=20)


@BOTH
@pytest.mark.parametrize(("mask", "message"), [
    (lambda: np.zeros((32, 32, 32)), "is empty: its largest value is 0; lower the threshold"),
    (lambda: np.full((32, 32, 32), 1.2), r"values from 1.2 to 1.2, they must be in \[0, 1\]; is it a map\? ctk.create_mask"),
    (lambda: ball(32, 8) - 0.1, r"values from -0.1 to 0.9, they must be in \[0, 1\]"),
    (lambda: ball(30, 8), r"has box \(30, 30, 30\), the maps \(32, 32, 32\); make one with ctk.create_mask"),
    (lambda: np.where(ball(32, 8) > 0.5, np.nan, 0), "voxels are not finite"),
])  # fmt: skip
def test_masks_that_are_none(files, function, mask, message):
    with pytest.raises(DataError, match=message):
        function(files.one, files.two, as_volume(mask().astype(np.float32), 4.0))


@pytest.mark.filterwarnings("ignore:.*automatic B-factor:cryotk.errors.DataWarning")
def test_mask_of_ones(files):
    with pytest.warns(DataWarning, match="one everywhere: it masks nothing"):
        ctk.postprocess(files.one, files.two, as_volume(np.ones((32, 32, 32), np.float32), 4.0), b_factor=-1.0)


@BOTH
def test_nan(files, function):
    bad = files.one.copy(data=files.one.values.copy())
    bad[3, 4, 5] = np.nan
    with pytest.raises(DataError, match=r"1 voxels are not finite .* z, y, x = 3, 4, 5; .*fillna"):
        function(bad, files.two)
    with pytest.raises(DataError, match="not finite"):
        ctk.create_mask(bad)
    bad[3, 4, 5] = np.inf
    with pytest.raises(DataError, match="not finite"):
        ctk.lowpass(bad, 20)


@BOTH
def test_mtf_with_the_wrong_table(files, function):
    wrong = files.dir / "wrong.star"
    wrong.write_text("data_\n\nloop_\n_rlnVoltage #1\n_rlnDefocusU #2\n300 1000\n")
    with pytest.raises(DataError, match=r"wrong.star is no MTF file: .*rlnMtfValue \(found rlnDefocusU, rlnVoltage\)"):
        function(files.one, files.two, mtf=wrong)
    wrong.write_text("data_\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n0 1\n0.25 0\n0.5 0.1\n")
    with pytest.raises(DataError, match=r"row 2 has the value 0; a detector's MTF is positive"):
        function(files.one, files.two, mtf=wrong)
    with pytest.raises(DataError, match="pair of arrays"):
        function(files.one, files.two, mtf=np.arange(3))
    with pytest.raises(CryotkError, match=r"nowhere\.star"):
        function(files.one, files.two, mtf=files.dir / "nowhere.star")


def _with_pixel_size(path, a):
    raw = bytearray(path.read_bytes())
    n = np.frombuffer(raw[:12], "<i4")
    raw[40:52] = (n * np.float32(a)).astype("<f4").tobytes()
    path.write_bytes(raw)


@BOTH
def test_header_without_pixel_size(files, function):
    _with_pixel_size(files.file1, 0)
    _with_pixel_size(files.file2, 0)
    with pytest.raises(DataError, match=r"the header has no pixel size \(0 Å\); give pixel_size= in Å"):
        function(files.file1)


@pytest.mark.filterwarnings("ignore:.*(B-factor|Guinier).*:cryotk.errors.DataWarning")
def test_header_that_says_one(files):
    _with_pixel_size(files.file1, 1)
    _with_pixel_size(files.file2, 1)
    with pytest.warns(DataWarning, match=r"exactly 1 Å, which many programs write when they do not know; give pixel_size="):
        ctk.postprocess(files.file1, b_factor=0.0)
    ctk.postprocess(files.file1, pixel_size=4.0, b_factor=0.0)


def test_threshold_above_the_maximum(files):
    with pytest.raises(DataError, match=r"threshold 1e\+06 is above the map's maximum after the low-pass of 15 Å, .*leave it out for a suggestion"):
        ctk.create_mask(files.one, 1e6)
    with pytest.raises(DataError, match="above the map's maximum, "):
        ctk.create_mask(files.one, 1e6, lowpass=None)


@BOTH
def test_map_that_is_no_cube(files, function):
    flat = [as_volume(v.values[:24], 4.0) for v in (files.one, files.two)]
    with pytest.raises(DataError, match=r"must be a cube, not \(24, 32, 32\); pad or cut it with ctk.rebox"):
        function(*flat)
    for other in (lambda v: ctk.lowpass(v, 20), lambda v: ctk.rescale(v, 8.0), lambda v: ctk.create_mask(v), lambda v: ctk.align_symmetry(v, "C2")):
        with pytest.raises(DataError, match="cube"):
            other(flat[0])
    assert ctk.create_mask(flat[0], 0.5, lowpass=None, extend_px=0).mask.shape == (24, 32, 32)


@BOTH
def test_stack_where_a_volume_is_wanted(files, function):
    stack = files.dir / "images_half1.mrcs"
    stack.write_bytes(files.file1.read_bytes())
    (files.dir / "images_half2.mrcs").write_bytes(files.file2.read_bytes())
    with pytest.raises(DataError, match=r"images_half1.mrcs is a stack of images by its name, a volume is wanted"):
        function(stack)
    with pytest.raises(DataError, match="stack of images"):
        function(ctk.open_stack(stack), files.two)
    with pytest.raises(DataError, match="3 dimensions, not 2"):
        function(np.zeros((8, 8)), files.two, pixel_size=1.0)


@pytest.mark.filterwarnings("ignore::cryotk.errors.DataWarning")
def test_volumes_with_relions_space_group_are_volumes(files):
    """RELION writes ispg 0 for volumes too: the name decides."""
    for f in (files.file1, files.file2):
        raw = bytearray(f.read_bytes())
        raw[88:92] = bytes(4)
        f.write_bytes(raw)
    assert ctk.postprocess(files.file1, b_factor=0.0).volume.shape == (32, 32, 32)


@pytest.mark.parametrize(("options", "message"), [
    ({"b_factor_highres": 12, "b_factor_lowres": 10}, "must be finer than"), ({"lowpass": -3}, "lowpass must be positive"),
    ({"compat": "eman"}, "compat must be"), ({"mtf_pixel_size": 1.0}, "says nothing without mtf="), ({"randomise_at_fsc": 1.5}, "between 0 and 1"),
    ({"molecular_weight": 0}, "molecular_weight must be positive"),
])  # fmt: skip
def test_settings_of_postprocess(files, options, message):
    with pytest.raises(SettingsError, match=message):
        ctk.postprocess(files.one, files.two, **options)


@pytest.mark.parametrize(("options", "message"), [
    ({"sampling": 0}, "sampling must be positive"), ({"sampling": 500}, "does not fit a box of 128 Å"), ({"sampling": 0.5}, "does not fit"),
    ({"only_inside_mask": True}, "needs mask="), ({"compat": "x"}, "compat must be"),
])  # fmt: skip
def test_settings_of_local_resolution(files, options, message):
    with pytest.raises(SettingsError, match=message):
        ctk.local_resolution(files.one, files.two, **options)


@pytest.mark.parametrize(("options", "message"), [
    ({"and_": 1, "or_": 2}, "only one of"), ({"soft_edge_px": -1}, "must not be negative"), ({"helix_fraction": 2}, "between 0 and 1"),
    ({"helix_fraction": 0.3, "soft_edge_px": 0}, "needs a soft edge"),
])  # fmt: skip
def test_settings_of_masks(files, options, message):
    with pytest.raises(SettingsError, match=message):
        ctk.create_mask(files.one, 0.5, **options)


def test_other_maps_that_do_not_fit(files):
    with pytest.raises(DataError, match="map of and_not"):
        ctk.create_mask(files.one, 0.5, and_not=as_volume(np.zeros((30, 30, 30)), 4.0))
    with pytest.raises(DataError, match=r"fill .* voxels"):
        ctk.create_mask(files.one, molecular_weight=1e6)
    with pytest.raises(DataError, match="one value everywhere"):
        ctk.create_mask(as_volume(np.zeros((32, 32, 32), np.float32), 4.0))
    with pytest.raises(DataError, match="empty: all voxels have one value"):
        ctk.postprocess(as_volume(np.zeros((32, 32, 32)), 4.0), files.two)
    for call in (lambda: ctk.flip(files.one, "q"), lambda: ctk.rebox(files.one, (3, 4)), lambda: ctk.rescale(files.one, -1), lambda: ctk.lowpass(files.one, 0),
                 lambda: ctk.symmetrise(files.one, "Q7")):  # fmt: skip
        with pytest.raises(SettingsError):
            call()
    with pytest.raises(DataError, match="no pixel size; give pixel_size="):
        ctk.lowpass(np.zeros((8, 8, 8)), 10)


def test_star_that_is_no_postprocess(files):
    star = files.dir / "x.star"
    star.write_text("data_optics\n\nloop_\n_rlnVoltage #1\n300\n")
    with pytest.raises(FileFormatError, match=r"no postprocess\.star: it has optics, not general and fsc"):
        ctk.open_postprocess(star)
    with pytest.raises(MissingFileError):
        ctk.open_postprocess(files.dir)


def test_mask_that_comes_out_empty(files):
    with pytest.warns(DataWarning, match="the mask is empty: lower the threshold"):
        ctk.create_mask(files.one, float(files.one.max()), lowpass=None, extend_px=-3)
    with pytest.warns(DataWarning, match="one everywhere: raise the threshold"):
        ctk.create_mask(files.one, -1e9, lowpass=None)
