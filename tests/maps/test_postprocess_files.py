"""Which maps belong to a ``postprocess.star``."""

from __future__ import annotations

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data import as_volume, write_volume
from cryotk.errors import DataWarning
from cryotk.io import StarBlock, read_star, write_star

from .conftest import half_maps

JOB = "PostProcess/job030"
pytestmark = pytest.mark.filterwarnings("ignore:.*(B-factor|Guinier):cryotk.errors.DataWarning")


@pytest.fixture
def projects(tmp_path, monkeypatch):
    """Two projects with jobs of one name, saved as RELION does: from the project's folder."""
    for name, seed in (("A", 1), ("B", 2)):
        h = half_maps(32, 4.0, seed=seed)
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        write_volume(h.mask * (0.5 if name == "B" else 1.0), "mask.mrc", 4.0)
        result = ctk.postprocess(h.one, h.two, h.mask, b_factor=-50.0)
        result.mask_source = "mask.mrc"
        result.save(JOB)
    return tmp_path


def test_maps_of_the_star_files_own_project(projects, monkeypatch):
    monkeypatch.chdir(projects / "B")
    for path in (projects / "A" / JOB, f"../A/{JOB}/postprocess.star"):
        r = ctk.open_postprocess(path)
        for map_, file in ((r.volume, f"{JOB}/postprocess.mrc"), (r.mask, "mask.mrc")):
            np.testing.assert_array_equal(map_, ctk.open_volume(projects / "A" / file))
        assert ctk.open_volume(r.half1).equals(ctk.open_volume(projects / "A" / JOB / "postprocess_half1_unfil.mrc"))
    # what its own project does not have may still lie where we are
    (projects / "A/mask.mrc").unlink()
    np.testing.assert_array_equal(ctk.open_postprocess(projects / "A" / JOB).mask, ctk.open_volume("mask.mrc"))


def test_a_map_of_another_box_is_left_out(projects, monkeypatch):
    monkeypatch.chdir(projects / "B")
    other = as_volume(np.ones((64, 64, 64), np.float32), 4.0)
    write_volume(other, "postprocess.mrc")
    (projects / "A" / JOB / "postprocess.mrc").unlink()
    (projects / "B" / JOB / "postprocess.mrc").unlink()
    assert ctk.open_postprocess(projects / "A" / JOB).volume is None  # a bare name says nothing in another folder
    write_volume(other, projects / "A" / JOB / "postprocess.mrc")
    with pytest.warns(DataWarning, match=r"postprocess.star: the curves have 17 shells, of a box of 32; the post-processed map "
                                         r".*postprocess.mrc has box \(64, 64, 64\) and is left out") as seen:  # fmt: skip
        r = ctk.open_postprocess(projects / "A" / JOB)
    assert r.volume is None and r.box_size == 32 and r.pixel_size == pytest.approx(4.0)
    assert seen[0].filename == __file__


def test_no_resolution_is_written_and_read_as_relion_does(projects):
    star = projects / "A" / JOB / "postprocess.star"
    blocks = read_star(star)
    blocks["general"].columns["rlnFinalResolution"] = 999.0
    write_star(star, {k: StarBlock(k, b.columns, is_loop=b.is_loop) for k, b in blocks.items()})
    r = ctk.open_postprocess(star)
    assert r.resolution == np.inf
    assert read_star(r.save(projects / "again"))["general"]["rlnFinalResolution"] == 999.0
