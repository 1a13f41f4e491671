"""Files and arrays as layers: no Qt, no napari."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from cryotk_widgets.napari.arrays import FileArray, MicrographArray
from cryotk_widgets.napari.layers import array_layer, grey_limits
from cryotk_widgets.napari.readers import get_reader, read
from cryotk_widgets.napari.writers import write_mrc_layer

import cryotk as ctk
from cryotk.errors import DataError, DataWarning, FileFormatError, MissingFileError


@pytest.fixture
def blob():
    z = np.arange(24) - 12
    r = np.sqrt(z[:, None, None] ** 2 + z[:, None] ** 2 + z**2)
    return (np.exp(-((r / 5) ** 2)) + 0.01 * np.random.default_rng(0).standard_normal(r.shape)).astype(np.float32)


def test_a_map_is_a_volume_in_angstrom_from_its_centre(tmp_path, blob):
    ctk.write_volume(blob, tmp_path / "m.mrc", 1.5)
    [(data, options, kind)] = read(str(tmp_path / "m.mrc"))
    assert kind == "image" and data.shape == blob.shape and options["scale"] == (1.5,) * 3
    assert options["translate"] == (-18.0,) * 3 and options["units"] == ("angstrom",) * 3
    low, high = options["contrast_limits"]
    assert low < 0.05 and 0.8 < high <= blob.max()
    assert low < options["iso_threshold"] < high
    assert np.array_equal(np.asarray(data), blob)


def test_any_cut_is_what_numpy_cuts(tmp_path, blob):
    ctk.write_volume(blob, tmp_path / "m.mrc", 1.5)
    data = FileArray(tmp_path / "m.mrc")
    for key in (3, -1, slice(2, 9, 3), (slice(None), 4), (slice(None), slice(None), slice(5, 6)), (..., 7), np.array([5, 2, 5])):
        assert np.array_equal(data[key], blob[key])
    assert np.asarray(data).dtype == np.float32 and len(data) == 24 and data.size == blob.size


def test_axes_in_another_order_are_put_right(tmp_path, blob):
    ctk.write_volume(blob, tmp_path / "m.mrc", 1.5)
    raw = bytearray((tmp_path / "m.mrc").read_bytes())
    raw[64:76] = np.array([3, 2, 1], "<i4").tobytes()  # sections run along x
    (tmp_path / "t.mrc").write_bytes(raw)
    assert np.array_equal(np.asarray(FileArray(tmp_path / "t.mrc")), np.asarray(ctk.open_volume(tmp_path / "t.mrc")))
    assert not np.array_equal(np.asarray(FileArray(tmp_path / "t.mrc")), blob)


def test_a_512_map_is_opened_by_reading_three_of_its_sections(tmp_path):
    path = tmp_path / "large.mrc"
    ctk.write_volume(np.zeros((2, 512, 512), np.float32), path, 1.0)
    raw = bytearray(path.read_bytes()[:1024])
    raw[0:12] = np.array([512, 512, 512], "<i4").tobytes()
    raw[28:40] = np.array([512, 512, 512], "<i4").tobytes()
    with open(path, "wb") as f:  # a hole of zeros on the disk
        f.write(raw)
        f.truncate(1024 + 4 * 512**3)
    [(data, _, _)] = read(str(path))
    assert data.shape == (512, 512, 512)
    assert data.bytes_read == 3 * 4 * 512**2
    data[:, 256]
    assert data.bytes_read == 4 * 4 * 512**2  # a cut along another axis reads its own pixels only


def test_a_lazy_map_is_read_in_parts_that_can_be_cancelled(tmp_path):
    from types import SimpleNamespace

    from cryotk_widgets.napari.layers import volume_of

    values = np.random.default_rng(0).standard_normal((70, 8, 8)).astype(np.float32)
    ctk.write_volume(values, tmp_path / "m.mrc", 1.5)
    layer = SimpleNamespace(data=FileArray(tmp_path / "m.mrc"), ndim=3, metadata={}, scale=(1.5,) * 3, name="m")
    told = []
    assert np.array_equal(volume_of(layer, lambda *a: told.append(a)).values, values)
    assert told == [(32, 70), (64, 70), (70, 70)]

    def stop(done, total):
        raise KeyError

    layer.data = FileArray(tmp_path / "m.mrc")
    with pytest.raises(KeyError):
        volume_of(layer, stop)
    assert layer.data.bytes_read == 32 * 64 * 4


def test_what_is_a_stack_and_what_a_volume(tmp_path, blob):
    ctk.write_stack(blob, tmp_path / "s.mrcs", 2.0)
    [(data, options, _)] = read(str(tmp_path / "s.mrcs"))
    assert options["metadata"]["cryotk"]["kind"] == "stack" and options["scale"] == (1.0, 2.0, 2.0)
    # RELION's volumes say that they are stacks
    ctk.write_stack(blob, tmp_path / "s.mrc", 2.0)
    assert read(str(tmp_path / "s.mrc"))[0][1]["metadata"]["cryotk"]["kind"] == "volume"
    ctk.write_stack(blob[:7], tmp_path / "movie.mrc", 2.0)
    assert read(str(tmp_path / "movie.mrc"))[0][1]["metadata"]["cryotk"]["kind"] == "stack"
    ctk.write_stack(blob[:1], tmp_path / "mic.mrc", 2.0)
    [(data, options, _)] = read(str(tmp_path / "mic.mrc"))
    assert data.shape == (24, 24) and options["scale"] == (2.0, 2.0)
    (tmp_path / "m.map.gz").write_bytes(gzip.compress((tmp_path / "s.mrc").read_bytes()))
    assert np.array_equal(read(str(tmp_path / "m.map.gz"))[0][0], blob)


def test_limits_survive_nan_and_nothing():
    assert grey_limits(np.full((4, 4, 4), np.nan), is_volume=True) == (0.0, 1.0)
    assert grey_limits(np.zeros((4, 4, 4)), is_volume=False) == (0.0, 1.0)


def test_reader_takes_what_is_ours_only(tmp_path):
    assert get_reader("a.tif") is None and get_reader(["a.mrc", "b.png"]) is None and get_reader([]) is None
    assert get_reader("a.mrc") is get_reader(["a.MRCS", "b.star"]) is read
    (tmp_path / "bad.mrc").write_bytes(b"no")
    with pytest.raises(FileFormatError, match=r"bad\.mrc"):
        read(str(tmp_path / "bad.mrc"))


def test_writer_keeps_the_pixel_size(tmp_path, blob):
    ctk.write_volume(blob, tmp_path / "m.mrc", 1.5)
    [(data, options, _)] = read(str(tmp_path / "m.mrc"))
    assert write_mrc_layer(str(tmp_path / "out.mrc"), data, options) == [str(tmp_path / "out.mrc")]
    back = ctk.open_volume(tmp_path / "out.mrc")
    assert back.attrs["pixel_size"] == pytest.approx(1.5) and np.array_equal(back.values, blob)
    write_mrc_layer(str(tmp_path / "one.mrc"), blob[3], {"scale": (2.0, 2.0)})
    assert ctk.open_stack(tmp_path / "one.mrc").shape == (1, 24, 24)
    write_mrc_layer(str(tmp_path / "s.mrcs"), blob, {"scale": (1.0, 2.0, 2.0)})
    assert ctk.open_stack(tmp_path / "s.mrcs").attrs["pixel_size"] == pytest.approx(2.0)
    with pytest.raises(DataError, match="square"):
        write_mrc_layer(str(tmp_path / "x.mrc"), blob, {"scale": (1.0, 2.0, 2.0)})
    with pytest.raises(DataError, match="grey"):
        write_mrc_layer(str(tmp_path / "x.mrc"), np.zeros((2, 2, 2, 2)), {"scale": (1.0,) * 4})


def test_particles_lie_on_their_micrographs(tmp_path):
    rng = np.random.default_rng(1)
    for name in "ab":
        ctk.write_stack(rng.standard_normal((1, 40, 60)).astype(np.float32), tmp_path / f"{name}.mrc", 3.0)
    rows = "\n".join(f"{x} {y} {m} {c}" for x, y, m, c in [(5, 10, "b.mrc", 1), (50, 30, "a.mrc", 2), (7, 8, "gone.mrc", 1), (9, 9, "b.mrc", 3)])
    labels = "_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnMicrographName #3\n_rlnClassNumber #4\n"
    (tmp_path / "p.star").write_text(f"data_particles\n\nloop_\n{labels}{rows}\n\n")
    (images, image_options, kind), (points, options, points_kind) = read(str(tmp_path / "p.star"))
    assert (kind, points_kind) == ("image", "points") and isinstance(images, MicrographArray) and images.shape == (2, 40, 60)
    assert points.tolist() == [[1, 10, 5], [0, 30, 50], [1, 9, 9]]
    assert options["scale"] == image_options["scale"] == (1.0, 3.0, 3.0)
    assert options["features"]["class"].tolist() == [1, 2, 3]
    assert np.array_equal(images[1], np.asarray(FileArray(tmp_path / "b.mrc"))[0])
    whole = np.asarray(images)
    for key in ((slice(0, 2), slice(3, 5)), (..., 7), (1, ..., 7), ..., (np.array([1, 0]), 3), -1):
        assert np.array_equal(images[key], whole[key])
    (tmp_path / "a.mrc").unlink(), (tmp_path / "b.mrc").unlink()
    with pytest.raises(MissingFileError, match=r"p\.star.*micrographs"):
        read(str(tmp_path / "p.star"))


def test_picks_of_all_micrographs_and_lists_of_them(tmp_path):
    rng = np.random.default_rng(1)
    for name in "ab":
        ctk.write_stack(rng.standard_normal((1, 40, 60)).astype(np.float32), tmp_path / f"{name}.mrc", 3.0)
    for name, rows in (("a", "1 2 0.5\n"), ("b", "3 4 0.25\n5 6 0.75\n")):
        labels = "_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnAutopickFigureOfMerit #3\n"
        (tmp_path / f"{name}_pick.star").write_text(f"data_\n\nloop_\n{labels}{rows}\n")
    rows = "b.mrc b_pick.star\ngone.mrc gone_pick.star\na.mrc a_pick.star\n"
    (tmp_path / "autopick.star").write_text(
        f"data_coordinate_files\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n{rows}\n"
    )
    (images, _, _), (points, options, _) = read(str(tmp_path / "autopick.star"))
    assert images.shape == (2, 40, 60) and points.tolist() == [[1, 4, 3], [1, 6, 5], [0, 2, 1]]
    assert options["features"]["figure of merit"].tolist() == [0.25, 0.75, 0.5]
    (tmp_path / "micrographs.star").write_text("data_micrographs\n\nloop_\n_rlnMicrographName #1\nb.mrc\na.mrc\n\n")
    [(images, options, _)] = read(str(tmp_path / "micrographs.star"))
    assert np.array_equal(images[0], np.asarray(FileArray(tmp_path / "b.mrc"))[0]) and options["scale"] == (1.0, 3.0, 3.0)
    (tmp_path / "a_pick.star").unlink(), (tmp_path / "b_pick.star").unlink()
    with pytest.raises(MissingFileError, match="coordinates"):
        read(str(tmp_path / "autopick.star"))


def test_particles_without_anything_say_so(tmp_path):
    (tmp_path / "p.star").write_text("data_\n\nloop_\n_rlnImageName #1\n_rlnDetectorPixelSize #2\n_rlnMagnification #3\n1@gone.mrcs 5 10000\n\n")
    with pytest.raises(MissingFileError, match=r"gone\.mrcs|its images"):
        read(str(tmp_path / "p.star"))


def test_a_pick_file_without_names_finds_its_micrograph(shared):
    (image, _, _), (points, options, _) = read(
        str(shared / "data" / "micrograph_k2" / "Ucsf_stack_1142_DW_autopick.star")
    )
    assert image.ndim == 2 and len(points) == len(options["features"]["figure of merit"]) > 20
    assert (points >= 0).all() and (points < image.shape).all()


def test_particles_without_micrographs_are_a_stack(tmp_path, no_compute):
    ctk.write_stack(np.ones((3, 8, 8), np.float32), tmp_path / "s.mrcs", 2.0)
    rows = "\n".join(f"{i + 1:06d}@s.mrcs 1" for i in range(3))
    optics = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n_rlnImageSize #3\n_rlnVoltage #4\n_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\n1 2.0 8 300 2.7 0.1\n\n"
    (tmp_path / "p.star").write_text(f"{optics}data_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n{rows}\n\n")
    import dask

    with dask.config.set(scheduler=lambda dsk, keys, **kw: dask.get(dsk, keys)):
        [(data, options, kind)] = read(str(tmp_path / "p.star"))
    assert kind == "image" and data.shape == (3, 8, 8) and hasattr(data, "dask") and options["scale"] == (1.0, 2.0, 2.0)


def test_classes_of_relion(shared):
    [(data, options, _)] = read(str(shared / "reference" / "class2d_em" / "run_it025_optimiser.star"))
    assert options["metadata"]["cryotk"]["class share"].sum() == pytest.approx(1, abs=1e-3) and data.ndim == 3
    assert len(options["metadata"]["cryotk"]["class share"]) == len(data)


def test_postprocess_shows_what_is_there(tmp_path, blob):
    for name in ("half1", "half2", "postprocess"):
        ctk.write_volume(blob, tmp_path / f"{name}.mrc", 1.5)
    (tmp_path / "postprocess.star").write_text(
        "data_general\n\n_rlnFinalResolution 4.25\n_rlnUnfilteredMapHalf1 half1.mrc\n_rlnUnfilteredMapHalf2 half2.mrc\n_rlnMaskName gone.mrc\n\n"
    )
    out = read(str(tmp_path / "postprocess.star"))
    assert [o["name"] for _, o, _ in out] == ["half-map 1", "half-map 2", "post-processed, 4.25 Å"]
    assert [o.get("visible", True) for _, o, _ in out] == [False, False, True]
    (tmp_path / "other.star").write_text("data_pipeline_general\n\n_rlnPipeLineJobCounter 3\n\n")
    with pytest.raises(FileFormatError, match="pipeline_general"):
        read(str(tmp_path / "other.star"))


def test_arrays_of_cryotk_stay_lazy(tmp_path, blob, count_computes):
    ctk.write_stack(blob, tmp_path / "s.mrcs", 2.0)
    stack = ctk.open_stack(tmp_path / "s.mrcs")
    with count_computes() as computes:
        data, options, _ = array_layer(stack)
    assert computes() == 5  # images for the grey limits
    assert data is stack.data and options["scale"] == (1.0, 2.0, 2.0)
    ctk.write_volume(blob, tmp_path / "m.mrc", 1.5)
    volume = ctk.open_volume(tmp_path / "m.mrc")
    data, options, _ = array_layer(volume[2:], name="mine")
    assert options["translate"][0] == pytest.approx(-15.0) and options["name"] == "mine"
    bare = volume.drop_vars(["x", "y", "z"])
    del bare.attrs["pixel_size"]
    with pytest.raises(DataError, match="pixel_size"):
        array_layer(bare)


def test_the_manifest_names_what_exists():
    from importlib import import_module
    from importlib.resources import files

    import yaml

    manifest = yaml.safe_load((files("cryotk_widgets.napari") / "napari.yaml").read_text())
    c = manifest["contributions"]
    known = {command["id"] for command in c["commands"]}
    used = {entry["command"] for kind in ("readers", "writers", "sample_data", "widgets") for entry in c[kind]}
    assert used == known
    pytest.importorskip("napari")
    for command in c["commands"]:
        module, _, name = command["python_name"].partition(":")
        assert callable(getattr(import_module(module), name))


def test_layers_need_neither_napari_nor_qt():
    import subprocess
    import sys

    code = (
        "import sys, cryotk_widgets.napari.readers, cryotk_widgets.napari.star_layers, cryotk_widgets.napari.writers, "
        "cryotk_widgets.napari.samples; print([m for m in ('napari', 'qtpy', 'magicgui', 'PyQt6') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_an_image_of_a_lazy_stack_is_read_alone(tmp_path, blob, monkeypatch):
    from cryotk.data import volumes

    ctk.write_stack(blob, tmp_path / "s.mrcs", 2.0)
    stack, read_rows, real = ctk.open_stack(tmp_path / "s.mrcs"), [], volumes.read_images

    def counted(header, indices):
        read_rows.extend(np.asarray(indices).tolist())
        return real(header, indices)

    monkeypatch.setattr(volumes, "read_images", counted)
    array_layer(stack)
    assert sorted(read_rows) == [0, 5, 11, 17, 23]


@pytest.mark.parametrize(("low", "high", "want"), [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-0.1, 0.1, [-0.1, -0.05, 0, 0.05, 0.1]), (3, 3, [])])
def test_ticks_are_round(low, high, want):
    pytest.importorskip("napari")
    from cryotk_widgets.napari.curves import ticks

    got = ticks(low, high, 5)
    assert got == pytest.approx(want) and "-0" not in [f"{v:g}" for v in got]


@pytest.mark.parametrize("name", ["slab.mrc", "slab.map"])
def test_volumes_of_relion_that_are_no_cubes_are_volumes(tmp_path, name):
    ctk.write_volume(np.ones((20, 60, 50), np.float32), tmp_path / name, 10.0)
    raw = bytearray((tmp_path / name).read_bytes())
    raw[88:92], raw[224:230] = bytes(4), b"Relion"  # space group 0
    (tmp_path / name).write_bytes(raw)
    assert read(str(tmp_path / name))[0][1]["metadata"]["cryotk"]["kind"] == "volume"
    raw[36:40] = np.array([1], "<i4").tobytes()  # a stack samples one section
    (tmp_path / "stack.mrc").write_bytes(raw)
    assert read(str(tmp_path / "stack.mrc"))[0][1]["metadata"]["cryotk"]["kind"] == "stack"


def test_a_header_without_pixel_size_is_said(tmp_path, blob):
    ctk.write_volume(blob, tmp_path / "m.mrc", 2.0)
    raw = bytearray((tmp_path / "m.mrc").read_bytes())
    raw[40:52] = bytes(12)
    (tmp_path / "m.mrc").write_bytes(raw)
    with pytest.warns(DataWarning, match=r"m\.mrc: the header has no pixel size; 1 Å is drawn"):
        [(_, options, _)] = read(str(tmp_path / "m.mrc"))
    assert options["scale"] == (1.0,) * 3 and options["metadata"]["cryotk"]["has_pixel_size"] is False


def test_layers_are_called_what_they_are(blob):
    v = ctk.data.as_volume(blob, 2.0, "Refine3D/job020/run_half1_class001_unfil.mrc")
    assert array_layer(v)[1]["name"] == "half-map 1"
    v.attrs["history"] = "locally filtered"
    assert array_layer(v)[1]["name"] == "locally filtered"


def test_particles_whose_images_are_elsewhere_are_said_so_that_one_can_follow(shared):
    with pytest.raises(MissingFileError, match=r"run_data\.star: Polish/.*was not found.*open the file that lies in the project") as said:
        read(str(shared / "data" / "relion31_spa_betagal" / "Refine3D" / "job029" / "run_data.star"))
    assert "project_dir" not in str(said.value)
