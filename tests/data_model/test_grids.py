"""Coordinates of maps: what is written reads back on the same grid, axes go by their names."""

from __future__ import annotations

import struct

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data import as_volume, open_stack, open_volume, write_stack, write_volume
from cryotk.errors import DataError, DataWarning
from cryotk.io import read_header


def _cell(path, *cell: float) -> None:
    raw = bytearray(path.read_bytes())
    struct.pack_into("<3f", raw, 40, *cell)
    path.write_bytes(raw)


@pytest.mark.parametrize("pixel_size", [1.244, 1.0631, 0.885, 2.1247, 1.37, 3.54, 0.655, 13.48, 1.06314])
@pytest.mark.parametrize("box", [5, 6, 31, 100, 384, 449])
def test_what_is_written_has_the_same_pixel_size_when_read(tmp_path, pixel_size, box):
    flat = np.zeros((1, 4, box), np.float32)
    write_volume(flat, tmp_path / "v.mrc", pixel_size)
    header = read_header(tmp_path / "v.mrc")
    assert header.pixel_size == pixel_size and header.voxel == (pixel_size,) * 3
    _cell(tmp_path / "v.mrc", *(np.float32(pixel_size) * np.float32(n) for n in (box, 4, 1)))  # a program in single precision
    assert read_header(tmp_path / "v.mrc").pixel_size == pixel_size


def test_pixel_sizes_of_many_digits_keep_what_single_precision_holds(tmp_path):
    rng = np.random.default_rng(0)
    for a in rng.uniform(0.3, 20, 200):
        write_volume(np.zeros((1, 2, 360), np.float32), tmp_path / "v.mrc", a)
        assert read_header(tmp_path / "v.mrc").pixel_size == pytest.approx(a, rel=3e-7)
    for cell in (0.0, np.nan, np.inf):
        _cell(tmp_path / "v.mrc", cell, 1, 1)
        assert read_header(tmp_path / "v.mrc").pixel_size == 0


def test_a_map_and_its_file_share_one_grid(tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    v = as_volume(x, 1.244)
    write_volume(v, tmp_path / "v.mrc")
    np.testing.assert_array_equal((v * ctk.open_volume(tmp_path / "v.mrc")).values, x * x)


def test_on_grid():
    v, near = as_volume(np.ones((8, 8, 8)), 3.54), as_volume(np.ones((8, 8, 8)), 3.5400002)
    assert (v + near).shape == (1, 1, 1)  # what on_grid is for
    moved = near.cryo.on_grid(v)
    assert (v + moved).shape == (8, 8, 8) and moved.attrs["pixel_size"] == 3.54 and near.attrs["pixel_size"] == 3.5400002
    with pytest.raises(DataError, match=r"pixel sizes differ: 3.6 Å and 3.54 Å; .*ctk.rescale"):
        as_volume(np.ones((8, 8, 8)), 3.6).cryo.on_grid(v)
    with pytest.raises(DataError, match=r"boxes differ: .*'z': 6.*'z': 8.*ctk.rebox"):
        as_volume(np.ones((6, 6, 6)), 3.54).cryo.on_grid(v)


@pytest.mark.parametrize("order", [("x", "y", "z"), ("y", "z", "x")])
def test_axes_go_by_their_names(tmp_path, order):
    v = as_volume(np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32), 2.0)
    t = v.transpose(*order)
    assert open_volume(t).dims == ("z", "y", "x") and open_volume(v) is v
    for function in (lambda m: ctk.lowpass(m, 8), lambda m: ctk.rebox(m, (4, 6, 8)), lambda m: ctk.maps.shift(m, (1, 2, 3)), lambda m: as_volume(m, 2.0)):
        one, other = function(v), function(t)
        assert other.dims == ("z", "y", "x")
        np.testing.assert_allclose(other.values, one.values, atol=1e-6)
    assert float(ctk.fsc(v, t).min()) > 0.999
    np.testing.assert_array_equal(open_volume(t.cryo.save(tmp_path)).values, v.values)
    t.cryo.write(tmp_path / "w.mrc")
    np.testing.assert_array_equal(open_volume(tmp_path / "w.mrc").values, v.values)


def test_axes_of_a_stack_go_by_their_names(tmp_path):
    write_stack(np.random.default_rng(0).normal(size=(5, 6, 8)).astype(np.float32), tmp_path / "a.mrcs", 2.0)
    s = open_stack(tmp_path / "a.mrcs")
    write_stack(s.transpose("y", "x", "image"), tmp_path / "b.mrcs")
    assert open_stack(s.transpose("x", "image", "y")).dims == ("image", "y", "x")
    np.testing.assert_array_equal(open_stack(tmp_path / "b.mrcs").values, s.values)


def test_voxels_that_are_no_cubes_are_named(tmp_path):
    path = tmp_path / "v.mrc"
    write_volume(np.zeros((8, 8, 8), np.float32), path, 3.54)
    _cell(path, 8 * 3.54, 8 * 3.54, 8 * 7.0)
    with pytest.warns(DataWarning, match=r"v.mrc: the header's voxels are 3.54 x 3.54 x 7 Å; 3.54 Å is taken .* pixel_size=") as seen:
        ctk.lowpass(path, 20)
    assert [w.filename for w in seen] == [__file__]
    assert open_volume(path, 3.54).attrs["pixel_size"] == 3.54
    raw = bytearray(path.read_bytes())
    struct.pack_into("<3i", raw, 28, 8, 8, 1)  # a stack's sampling says nothing of z
    path.write_bytes(raw)
    assert ctk.lowpass(path, 20).attrs["pixel_size"] == 3.54


def test_the_origin_follows_a_calibrated_pixel_size(tmp_path):
    path = tmp_path / "v.mrc"
    write_volume(np.zeros((8, 8, 8), np.float32), path, 2.0)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<3f", raw, 196, -8.0, 4.0, 2.0)
    path.write_bytes(raw)
    assert open_volume(path).attrs["origin"] == (-8, 4, 2)
    assert open_volume(path, 2.5).attrs["origin"] == (-10, 5, 2.5)
