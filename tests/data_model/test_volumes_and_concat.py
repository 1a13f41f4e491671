"""Volumes, stacks, joining sets, and the accessor's verbs."""

from __future__ import annotations

import numpy as np
import pytest

from cryotk.data import (
    as_volume,
    concat,
    image_source,
    open_particles,
    open_stack,
    open_volume,
    optics_groups,
    pixel_size_of,
    select_particles,
    write_particles,
    write_stack,
    write_volume,
)
from cryotk.errors import DataError, DataWarning, SettingsError


def test_volume_keeps_its_pixel_size(tmp_path):
    data = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    write_volume(data, tmp_path / "v.mrc", 2.5)
    v = open_volume(tmp_path / "v.mrc")
    np.testing.assert_array_equal(v.values, data)
    assert v.attrs["pixel_size"] == 2.5 and float(v["x"][4]) == 0 and float(v[2:, 3:]["y"][1] - v["y"][0]) == 10.0
    write_volume(v * 2, tmp_path / "w.mrc", v.attrs["pixel_size"])
    np.testing.assert_array_equal(open_volume(tmp_path / "w.mrc").values, data * 2)
    assert open_volume(v) is v


def test_pixel_size_that_nobody_knows(tmp_path):
    with pytest.raises(DataError, match="give pixel_size="):
        write_volume(np.zeros((4, 4, 4)), tmp_path / "v.mrc")
    write_volume(np.zeros((4, 4, 4)), tmp_path / "v.mrc", 1.0)
    raw = bytearray((tmp_path / "v.mrc").read_bytes())
    raw[40:52] = bytes(12)
    (tmp_path / "v.mrc").write_bytes(raw)
    with pytest.raises(DataError, match="no pixel size; give pixel_size="):
        open_volume(tmp_path / "v.mrc")
    assert open_volume(tmp_path / "v.mrc", 3.0).attrs["pixel_size"] == 3.0
    with pytest.warns(DataWarning, match="1 Å is taken"):
        open_stack(tmp_path / "v.mrc")


def test_stack_is_lazy_and_may_be_a_micrograph(tmp_path, shared, no_compute):
    stack = open_stack(next((shared / "data/micrograph_k2").glob("*.mrc")), 3.54)
    assert stack.shape[0] == 1 and stack.shape[1] != stack.shape[2]


def test_stack_round_trip(tmp_path):
    data = np.random.default_rng(0).normal(size=(9, 6, 6)).astype(np.float32)
    write_stack(data, tmp_path / "a.mrcs", 1.5, dtype="float16")
    stack = open_stack(tmp_path / "a.mrcs")
    np.testing.assert_array_equal(stack[[8, 2]].values, data[[8, 2]].astype(np.float16))
    write_stack(stack, tmp_path / "b.mrcs")
    np.testing.assert_array_equal(open_stack(tmp_path / "b.mrcs").values, data.astype(np.float16))
    raw = (tmp_path / "a.mrcs").read_bytes()
    (tmp_path / "a.mrcs").write_bytes(raw[:-20])
    with pytest.raises(DataError, match="8 of the 9"):
        open_stack(tmp_path / "a.mrcs")


def test_concat_of_parts_is_the_whole(project, no_compute):
    p = open_particles(project.star)
    q = concat([select_particles(p, np.arange(4)), select_particles(p, np.arange(4, 10))])
    assert q.sizes["optics"] == 1 and q["image_name"].values.tolist() == p["image_name"].values.tolist()
    assert q["images"].shape == p["images"].shape


def test_concat_of_projects(project, tmp_path):
    import shutil

    shutil.copytree(project.root, tmp_path / "other")
    other = open_particles(tmp_path / "other/Extract/job001/particles.star")
    other["voltage"] = ("optics", np.array([200.0]))
    other["odd_zernike"] = (("optics", "odd_term"), np.array([[1.0, 2.0, 0.0, 0.0, 0.0, 0.0]]))
    with pytest.warns(DataWarning, match="left out: angle_rot"):
        q = concat([open_particles(project.star), other.assign(angle_rot=("particle", np.zeros(10)))])
    assert q["optics_group"].values.tolist() == [1] * 10 + [2] * 10 and q["voltage"].values.tolist() == [300.0, 200.0]
    assert q["optics_name"].values.tolist() == ["og1", "og1_2"]
    assert optics_groups(q)[1].odd_zernike == (0,) * 6 and optics_groups(q)[2].odd_zernike[1] == 2.0
    np.testing.assert_array_equal(q["images"].values, np.concatenate([project.pixels] * 2))
    (project.root / "Extract/job001/b.mrcs").unlink()
    np.testing.assert_array_equal(image_source(select_particles(q, np.arange(16, 20))).read(np.arange(4)), project.pixels[6:])
    write_particles(q, tmp_path / "joined.star")
    np.testing.assert_array_equal(open_particles(tmp_path / "joined.star")["images"][16:].values, project.pixels[6:])


def test_concat_of_tilt_sets_and_of_nothing(shared):
    path = shared / "data/sta_images/ribosome_tiltseries/sta_testing_bin8.star"
    p = open_particles(path, particle_column="rlnGroupName")
    q = concat([p, p])
    assert q.sizes["particle"] == 2 and q.sizes["image"] == 78 and q["particle_of_image"].values.tolist() == [0] * 39 + [1] * 39
    np.testing.assert_array_equal(q["images"][39].values, p["images"][0].values)
    with pytest.raises(DataError, match="at least one"):
        concat([])
    with pytest.raises(DataError, match="cannot be joined"):
        concat([p, open_particles(path)])


def test_selection_by_mask_and_what_is_not_there(project):
    p = open_particles(project.star)
    assert p.cryo.select(p["defocus_u"].values > 14_000).sizes["particle"] == 2
    assert p.cryo.select([-1])["myOwnText"].values.tolist() == ["t9"]
    with pytest.raises(DataError, match="5 values for 10 particles"):
        p.cryo.select(np.ones(5, bool))
    with pytest.raises(DataError, match="10 particles"):
        p.cryo.select([10])


def test_lowpass_of_a_set_is_lazy(project):
    p = open_particles(project.star)
    q = p.cryo.lowpass(14.0)
    assert hasattr(q["images"].data, "dask") and q["images"][0].values.std() < p["images"][0].values.std()


def test_gpu_and_programs_that_are_not_there(project, tmp_path, monkeypatch):
    p = open_particles(project.star)
    try:
        import cupy

        there = cupy.cuda.is_available()
    except ImportError:
        there = False
    if there:
        assert type(p.cryo.to_gpu()["images"][0].data.compute()).__module__.startswith("cupy")
    else:
        with pytest.raises(SettingsError, match=r"cupy|CUDA"):
            p.cryo.to_gpu()
    write_volume(np.zeros((4, 4, 4)), tmp_path / "v.mrc", 1.0)
    v = open_volume(tmp_path / "v.mrc")
    with pytest.raises(SettingsError, match="not in the PATH"):
        v.cryo.open_in("no-such-viewer")
    assert v.cryo.open_in("true").name == "volume.mrc"
    monkeypatch.setattr("subprocess.Popen", lambda command: None)
    script = v.cryo.open_in("chimerax", tmp_path / "out", level=0.25)
    text = script.read_text()
    assert (
        script.name == "volume.cxc"
        and str(tmp_path / "out" / "volume.mrc") in text
        and "level 0.25" in text
        and "voxelSize 1" in text
    )
    assert open_volume(tmp_path / "out" / "volume.mrc").shape == v.shape
    monkeypatch.setitem(__import__("sys").modules, "napari", None)
    with pytest.raises(SettingsError, match="napari"):
        v.cryo.to_napari()


def test_volumes_of_one_shape_share_nothing_that_can_be_changed():
    a, b = (as_volume(np.zeros((4, 4, 4), np.float32), 2.0, name) for name in "ab")
    a.x.attrs["units"] = "nm"
    a.attrs["pixel_size"] = 3.0
    a.name = "other"
    with pytest.raises(ValueError, match="read-only"):
        a.y.values[0] = 1
    for v in (b, as_volume(np.ones((4, 4, 4)), 2.0)):
        assert v.x.attrs == {"units": "Å"} and v.attrs["pixel_size"] == 2.0 and v.name == "density"
        assert v.y.values.tolist() == [-4, -2, 0, 2]
    assert pixel_size_of(b) == 2.0 and pixel_size_of(b[:, :, ::2]) == 4.0


def test_statistics_in_the_header(tmp_path, monkeypatch):
    """The same whether a map is written at once or in blocks."""
    x = np.random.default_rng(0).normal(3.0, 2.0, (9, 40, 50)).astype(np.float32)
    found = []
    for block in (1 << 25, 2 * 4 * 40 * 50):
        monkeypatch.setattr("cryotk.io.mrc._BLOCK_BYTES", block)
        write_volume(x, tmp_path / "x.mrc", 1.5)
        raw = (tmp_path / "x.mrc").read_bytes()
        found.append(np.concatenate([np.frombuffer(raw[76:88], "<f4"), np.frombuffer(raw[216:220], "<f4")]))
        np.testing.assert_array_equal(np.frombuffer(raw[1024:], "<f4").reshape(x.shape), x)
        np.testing.assert_array_equal(open_volume(tmp_path / "x.mrc").values, x)
    np.testing.assert_allclose(found, [[x.min(), x.max(), x.mean(dtype=float), x.std(dtype=float)]] * 2, rtol=1e-6)
