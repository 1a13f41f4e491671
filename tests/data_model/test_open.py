"""Opening particle sets: names and units, laziness, dialects, several boxes, several images per particle."""

from __future__ import annotations

import pickle
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
import starfile
import xarray as xr

from cryotk.data import image_source, open_particles, optics_groups, select_particles, write_particles
from cryotk.data.source import ArraySource, ImageSource, StackSource
from cryotk.errors import DataError, DataWarning, FormatWarning
from cryotk.io.mrc import write_mrc


def test_names_units_and_pixels(project):
    p = open_particles(project.star)
    assert p.sizes["particle"] == 10 and p["images"].dims == ("particle", "y", "x") and p["images"].dtype == np.float32
    assert p["defocus_u"].attrs == {"relion_label": "rlnDefocusU", "units": "Å"}
    assert p["pixel_size"].values.tolist() == [3.5] and p["optics"].values.tolist() == [1]
    assert p["rlnMyColumn"].values[3] == 1.5 and p["myOwnText"].values[9] == "t9"
    np.testing.assert_array_equal(p["images"].values, project.pixels)


def test_opening_looking_and_selecting_compute_nothing(project, no_compute):
    p = open_particles(project.star)
    part = select_particles(p, p["defocus_u"].values > 12_000)
    for text in (repr(p), p._repr_html_(), repr(p.cryo), p.cryo._repr_html_(), repr(part), part["images"]._repr_html_()):
        assert text
    assert "og1" in repr(p.cryo) and "16 px" in p.cryo._repr_html_()
    assert p.cryo.validate().ok


def test_one_particle_reads_one_particle(project, monkeypatch):
    p = open_particles(project.star)
    asked = []
    read = StackSource.read
    monkeypatch.setattr(StackSource, "read", lambda self, i: (asked.append(len(np.atleast_1d(i))), read(self, i))[1])
    np.testing.assert_array_equal(p["images"][7].values, project.pixels[7])
    np.testing.assert_array_equal(p.isel(particle=4)["images"][2:5, 3].values, project.pixels[4, 2:5, 3])
    np.testing.assert_array_equal(p["images"][2:5].values, project.pixels[2:5])
    np.testing.assert_array_equal((p["images"][9] * 2).values, project.pixels[9] * 2)
    assert asked == [1, 1, 3, 1]


def test_source_reads_any_order(project):
    s = image_source(open_particles(project.star))
    assert isinstance(s, ImageSource) and isinstance(s, StackSource) and (s.n, s.box) == (10, 16)
    index = np.array([9, 0, 6, 6, 3])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(s)).read(index), project.pixels[index])
    assert s.read(np.empty(0, int)).shape == (0, 16, 16)


def test_source_of_changed_sets(project):
    p = open_particles(project.star)
    index = np.array([8, 1, 5])
    part = select_particles(p, index)
    assert isinstance(image_source(part), StackSource)
    np.testing.assert_array_equal(image_source(part).read(np.arange(3)), project.pixels[index])
    flipped = p.isel(y=slice(None, None, -1))
    assert isinstance(image_source(flipped), ArraySource)
    np.testing.assert_array_equal(image_source(flipped).read(np.array([2])), project.pixels[[2], ::-1])
    cropped = p.isel(y=slice(4, 12), x=slice(4, 12))
    assert image_source(cropped).box == 8
    scaled = p.assign(images=p["images"] * 2)
    np.testing.assert_array_equal(image_source(scaled).read(np.array([2])), project.pixels[[2]] * 2)
    in_memory = p.assign(images=p["images"].compute())
    np.testing.assert_array_equal(image_source(in_memory).read(np.array([9, 1])), project.pixels[[9, 1]])


def test_pickles_small_and_whole(project):
    p = open_particles(project.star)
    data = pickle.dumps(p)
    assert len(data) < 20_000
    np.testing.assert_array_equal(pickle.loads(data)["images"].values, project.pixels)


def test_a_hundred_thousand_images_open_in_no_memory(tmp_path):
    # the second it may take is benchmarks/bench_open.py's business
    from cryotk.data import open_stack

    n = 100_000
    write_mrc(tmp_path / "a.mrcs", np.zeros((1, 16, 16)), 1.0, is_stack=True)
    with open(tmp_path / "a.mrcs", "r+b") as f:  # a sparse file: the pixels take no disk
        f.seek(8)
        f.write(np.int32(n).tobytes())
        f.truncate(1024 + n * 16 * 16 * 4)
    names = np.array([f"{i + 1}@a.mrcs" for i in range(n)], object)
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnVoltage": [300.0], "rlnImagePixelSize": [1.0], "rlnImageSize": [16]})
    frames = {"optics": optics, "particles": pd.DataFrame({"rlnImageName": pd.Series(names, dtype=object), "rlnOpticsGroup": 1})}
    open_particles({k: v.iloc[:10] for k, v in frames.items()}, tmp_path)
    tracemalloc.start()
    p, stack = open_particles(frames, tmp_path), open_stack(tmp_path / "a.mrcs")
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert p.sizes["particle"] == stack.sizes["image"] == n
    assert memory < 5e6


def test_reads_real_float16_particles(shared):
    p = open_particles(shared / "data/relion5_spa_betagal/derived/particles_ctf_fixed.star")
    assert p.sizes["particle"] == 735 and optics_groups(p)[1].pixel_size == pytest.approx(3.54)
    images = image_source(p).read(np.arange(0, 735, 50))
    assert images.dtype == np.float32 and np.isfinite(images.sum()) and 0.5 < images.std() < 2


def test_project_directory_is_found_by_walking_up_or_given(project, tmp_path):
    moved = tmp_path / "elsewhere.star"
    moved.write_bytes(project.star.read_bytes())
    assert open_particles(moved, project.root)["images"][3].values.shape == (16, 16)


def test_old_tables_become_optics_groups_in_angstrom(tmp_path):
    (tmp_path / "old.star").write_text(
        "\ndata_\n\nloop_ \n" + "".join(f"_{c}\n" for c in (
            "rlnImageName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast",
            "rlnMagnification", "rlnDetectorPixelSize",
            "rlnOriginX", "rlnOriginYPrior", "rlnHelicalTrackLength", "rlnDefocusU"))
        + "1@s.mrcs 300 2.7 0.1 10000 2.0 1.5 -2 10 10000\n2@s.mrcs 200 2.7 0.1 10000 3.0 1.5 -2 10 10000\n"
          "3@s.mrcs 300 2.7 0.1 10000 2.0 -4 0 0 10000\n")  # fmt: skip
    write_mrc(tmp_path / "s.mrcs", np.zeros((3, 8, 8)), 1.0, is_stack=True)
    p = open_particles(tmp_path / "old.star")
    assert p["optics_group"].values.tolist() == [1, 2, 1] and p["optics_name"].values.tolist() == ["opticsGroup1", "opticsGroup2"]
    assert p["pixel_size"].values.tolist() == [2.0, 3.0] and p["voltage"].values.tolist() == [300.0, 200.0]
    assert p["shift_x"].values.tolist() == [3.0, 4.5, -8.0]
    assert p["rlnOriginYPriorAngst"].values.tolist() == [-4.0, -6.0, 0.0]
    assert p["rlnHelicalTrackLengthAngst"].values.tolist() == [20.0, 30.0, 0.0]
    assert p["box_size"].values.tolist() == [8, 8] and "images" in p
    assert not {"rlnOriginX", "rlnMagnification", "rlnDetectorPixelSize"} & set(p.data_vars)


def test_old_table_without_its_stacks_opens_without_images(shared):
    with pytest.warns(DataWarning, match="project_dir="):
        p = open_particles(shared / "data/relion2_spa_betagal/Class2D/job006/run_it025_data.star")
    assert "images" not in p and p.sizes["particle"] == 200 and p["pixel_size"].values[0] == pytest.approx(3.54)


def test_written_files_are_relions_own_bytes(shared, tmp_path):
    same = 0
    for path in sorted((shared / "data").rglob("*.star")) + sorted((shared / "reference").rglob("*.star")):
        if b"_rlnImageName" not in path.read_bytes() or b"data_optics" not in path.read_bytes():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FormatWarning)
            warnings.simplefilter("ignore", DataWarning)
            try:
                p = open_particles(path)
            except DataError:
                continue
        write_particles(p, tmp_path / "w.star")
        same += (tmp_path / "w.star").read_bytes() == path.read_bytes()
    assert same >= 70


def test_round_trip_of_changed_sets(project, tmp_path):
    p = open_particles(project.star)
    part = select_particles(p, np.arange(10)[::-2]).assign(
        angle_rot=("particle", np.arange(5.0)), thoughts=("particle", np.zeros(5))
    )
    write_particles(part, project.star.parent / "w.star")
    back = open_particles(project.star.parent / "w.star")
    np.testing.assert_array_equal(back["images"].values, project.pixels[::-2][:5])
    assert back["angle_rot"].values.tolist() == [0, 1, 2, 3, 4] and "thoughts" not in back
    assert list(back.attrs["star_columns"])[:3] == ["rlnImageName", "rlnMicrographName", "rlnOpticsGroup"]
    assert back.attrs["star_columns"][-1] == "rlnAngleRot"


def test_starfile_tables_in_and_out(project):
    p = open_particles(starfile.read(project.star), project.root)
    np.testing.assert_array_equal(p["images"].values, project.pixels)
    tables = p.cryo.to_starfile()
    assert list(tables) == ["optics", "particles"] and tables["particles"]["rlnDefocusU"].iloc[0] == 10_000
    starfile.write(tables, project.star.parent / "theirs.star")
    np.testing.assert_array_equal(open_particles(project.star.parent / "theirs.star")["images"].values, project.pixels)
    assert open_particles(p) is p
    with pytest.raises(DataError, match="not int"):
        open_particles(5)


@pytest.mark.parametrize("chunks", [None, {}])
def test_xarray_engine(project, chunks):
    p = xr.open_dataset(project.star, engine="cryotk", chunks=chunks)
    np.testing.assert_array_equal(p["images"][3].values, project.pixels[3])
    assert "defocus_u" not in xr.open_dataset(project.star, engine="cryotk", drop_variables=["defocus_u"])
    assert xr.open_dataset(project.star).sizes["particle"] == 10


def test_groups_of_different_boxes(project):
    small = np.ones((4, 8, 8), np.float32)
    write_mrc(project.root / "Extract/job001/b.mrcs", small, 7.0, is_stack=True)
    p = open_particles(project.write(
        rlnOpticsGroup=np.array([1] * 6 + [2] * 4),
        optics={"rlnOpticsGroup": [1, 2], "rlnOpticsGroupName": np.array(["fine", "coarse"], object), "rlnVoltage": [300.0, 300.0],
                "rlnSphericalAberration": [2.7, 2.7], "rlnImagePixelSize": [3.5, 7.0], "rlnImageSize": [16, 8]},
    ))  # fmt: skip
    assert "images" not in p and p.cryo.validate().ok
    with pytest.raises(DataError, match=r"cryo\.group"):
        image_source(p)
    fine, coarse = p.cryo.group("fine"), p.cryo.group(2)
    np.testing.assert_array_equal(fine["images"].values, project.pixels[:6])
    np.testing.assert_array_equal(coarse["images"].values, small)
    assert coarse.sizes["optics"] == 1 and optics_groups(coarse)[2].box_size == 8
    assert image_source(select_particles(p, np.arange(6, 10))).box == 8
    with pytest.raises(DataError, match="fine, coarse"):
        p.cryo.group("none")


def test_relion5_stacks_of_tilt_images(shared):
    p = open_particles(shared / "data/sta_images/relion5_stack2d/Extract/job001_filled/particles.star",
                       shared / "data/sta_images/relion5_stack2d")  # fmt: skip
    assert p.sizes["particle"] == 2 and p.sizes["image"] == 62 and p["images"].dims == ("image", "y", "x")
    assert p["particle_of_image"].values.tolist() == [0] * 31 + [1] * 31 and p["frame"].values[[0, 30, 31]].tolist() == [0, 30, 0]
    images = image_source(p).read(np.array([30, 0]))
    np.testing.assert_array_equal(images[1], p["images"][0].values)
    assert np.isfinite(images).all() and images.std() > 0
    assert p.attrs["star_general"]["rlnTomoSubTomosAre2DStacks"] == 1
    second = select_particles(p, [1])
    assert second.sizes["image"] == 31 and set(second["particle_of_image"].values) == {0}


def test_rows_of_tilt_images_as_one_particle(shared, tmp_path):
    path = shared / "data/sta_images/ribosome_tiltseries/sta_testing_bin8.star"
    p = open_particles(path, particle_column="rlnGroupName")
    assert p.sizes["particle"] == 1 and p.sizes["image"] == 39
    assert p["ctf_b_factor"].dims == ("image",) and p["random_subset"].dims == ("particle",)
    assert image_source(p).read(np.arange(39)).shape == (39, 64, 64)
    write_particles(p, tmp_path / "w.star")
    assert open_particles(tmp_path / "w.star", path.parent).sizes["particle"] == 39
    with pytest.raises(DataError, match="no column 'rlnNone'"):
        open_particles(path, particle_column="rlnNone")
