"""MRC files: modes, byte orders, damaged headers, and the mrcfile package as an oracle."""

from __future__ import annotations

import gzip
import struct

import mrcfile
import numpy as np
import pytest

from cryotk.errors import DataError, FileFormatError, MissingFileError
from cryotk.io.mrc import read_header, read_images, read_mrc, write_mrc

MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


def _file(path, data, mode, order="<", magic=True, cell=0.0, extended=0):
    nz, ny, nx = data.shape
    header = bytearray(1024 + extended)
    struct.pack_into(order + "4i", header, 0, nx, ny, nz, mode)
    struct.pack_into(order + "3i", header, 28, nx, ny, nz)
    struct.pack_into(order + "3f", header, 40, nx * cell, ny * cell, nz * cell)
    struct.pack_into(order + "2i", header, 88, 0, extended)
    if magic:
        header[208:212] = b"MAP "
        header[212:214] = b"\x44\x44" if order == "<" else b"\x11\x11"
    path.write_bytes(bytes(header) + data.astype(order + MODES[mode]).tobytes())
    return path


@pytest.mark.parametrize("magic", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mode", MODES)
def test_modes_byte_orders_and_missing_magic(tmp_path, mode, order, magic):
    data = np.random.default_rng(0).integers(0, 100, (3, 4, 6))
    path = _file(tmp_path / "a.mrc", data, mode, order, magic, extended=160)
    got, header = read_mrc(path)
    assert got.dtype == np.float32 and header.pixel_size == 0
    np.testing.assert_array_equal(got, data)


def test_sizes_that_read_both_ways_go_by_the_stamp_or_the_length(tmp_path):
    data = np.zeros((1, 256, 256))
    for magic in (True, False):
        path = _file(tmp_path / f"{magic}.mrc", data, 0, ">", magic)
        assert read_header(path).shape == (1, 256, 256)


def test_float16_does_not_overflow_in_sums(tmp_path):
    path = _file(tmp_path / "a.mrc", np.full((4, 64, 64), 100.0), 12)
    assert read_mrc(path)[0].sum() == 4 * 64 * 64 * 100


def test_real_files_agree_with_mrcfile(shared):
    n = 0
    for path in sorted((shared / "data").rglob("*.mrc*")):
        if path.name in ("header_only.mrc",) or path.suffix not in (".mrc", ".mrcs"):
            continue
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = mrcfile.open(path, permissive=True).data.astype(np.float32)
        np.testing.assert_array_equal(read_mrc(path)[0], theirs.reshape(read_header(path).shape))
        n += 1
    assert n > 10


def test_packed_files(shared):
    folder = shared / "data" / "mrc_files"
    packed = sorted(p for p in folder.iterdir() if p.suffix in (".gz", ".bz2") and "png" not in p.name)
    assert packed
    for path in packed:
        assert read_mrc(path)[0].shape == (20, 20, 20)
    with pytest.raises(FileFormatError, match="not an MRC file"):
        read_mrc(next(folder.glob("*png*")))


def test_axes_in_another_order(tmp_path):
    data = np.arange(24.0).reshape(2, 3, 4)
    path = _file(tmp_path / "a.mrc", data, 2)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<3i", raw, 64, 3, 2, 1)  # columns run along z
    path.write_bytes(raw)
    np.testing.assert_array_equal(read_mrc(path)[0], data.transpose(2, 1, 0))


def test_single_images_in_any_order(tmp_path):
    data = np.random.default_rng(0).normal(size=(50, 8, 8)).astype(np.float32)
    path = _file(tmp_path / "a.mrcs", data, 2)
    index = np.array([49, 3, 3, 4, 5, 0])
    np.testing.assert_array_equal(read_images(read_header(path), index), data[index])


def test_truncated(tmp_path, shared):
    path = _file(tmp_path / "a.mrcs", np.zeros((10, 8, 8)), 2)
    path.write_bytes(path.read_bytes()[:-300])
    assert read_images(read_header(path), np.array([7])).shape == (1, 8, 8)
    with pytest.raises(DataError, match="ends before image 10: it holds 8 of the 10"):
        read_images(read_header(path), np.array([9]))
    with pytest.raises(DataError, match="holds 0 of the 32"):
        read_mrc(next(shared.rglob("header_only.mrc")))


@pytest.mark.parametrize(("raw", "words"), [
    (b"short", "5 bytes"), (bytes(2000), "no sensible size"), (struct.pack("<4i", 8, 8, 8, 4) + bytes(2000), "mode 4"),
    (b"data_particles\nloop_\n" * 100, "it is text"),
])  # fmt: skip
def test_not_mrc(tmp_path, raw, words):
    path = tmp_path / "x.mrc"
    path.write_bytes(raw)
    with pytest.raises(FileFormatError, match=words):
        read_header(path)


def test_missing(tmp_path):
    for name in ("x.mrc", "x.mrc.gz"):
        with pytest.raises(MissingFileError):
            read_mrc(tmp_path / name)
    (tmp_path / "b.mrc.gz").write_bytes(gzip.compress(bytes(100))[:-9])
    with pytest.raises(FileFormatError, match="cannot be unpacked"):
        read_mrc(tmp_path / "b.mrc.gz")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("stack", [True, False])
def test_written_files_are_valid(tmp_path, dtype, stack):
    data = np.random.default_rng(0).normal(size=(6, 8, 8)).astype(np.float32)
    path = tmp_path / "a.mrcs"
    write_mrc(path, data, 3.5, is_stack=stack, dtype=dtype)
    with mrcfile.open(path) as m:
        assert mrcfile.validate(path)
        assert bool(m.is_image_stack()) is stack and float(m.voxel_size.x) == pytest.approx(3.5)
        np.testing.assert_array_equal(m.data, data.astype(dtype))
        assert float(m.header.rms) == pytest.approx(data.std(), rel=1e-3)


def test_dask_stack_is_written_chunk_by_chunk(tmp_path, count_computes):
    import dask.array as da

    data = np.random.default_rng(0).normal(size=(20, 8, 8)).astype(np.float32)
    with count_computes() as n:
        write_mrc(tmp_path / "a.mrcs", da.from_array(data, chunks=(5, 8, 8)), 1.0, is_stack=True)
    assert n() == 4
    np.testing.assert_array_equal(read_mrc(tmp_path / "a.mrcs")[0], data)


def test_float16_overflow_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(DataError, match="65504"):
        write_mrc(tmp_path / "a.mrc", np.full((2, 2, 2), 1e6), 1.0, dtype="float16")
    assert not list(tmp_path.iterdir())
