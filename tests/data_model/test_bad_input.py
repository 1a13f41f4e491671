"""Bad input: each case ends in one clear message that says where and what to do."""

from __future__ import annotations

import numpy as np
import pytest

from cryotk.data import image_source, open_particles, optics_groups
from cryotk.errors import DataError, FileFormatError, MissingFileError
from cryotk.io.mrc import write_mrc


def test_missing_stack(project):
    (project.root / "Extract/job001/b.mrcs").unlink()
    p = open_particles(project.star)
    with pytest.raises(MissingFileError, match=r"b\.mrcs was not found .* give project_dir="):
        p["images"][8].compute()
    assert p["images"][2].compute().shape == (16, 16)
    report = p.cryo.validate()
    assert not report.ok and "4 particles, first: 7" in report.errors[0]
    with pytest.raises(MissingFileError, match="correct project_dir="):
        image_source(open_particles(project.star, project.root / "Extract")).read(np.array([0]))


def test_truncated_stack(project):
    path = project.root / "Extract/job001/b.mrcs"
    path.write_bytes(path.read_bytes()[:-100])
    p = open_particles(project.star)
    with pytest.raises(DataError, match="holds 3 of the 4 images"):
        p["images"][9].compute()
    assert "cut short" in p.cryo.validate().errors[0]


def test_index_beyond_the_stack(project):
    names = open_particles(project.star)["image_name"].values.copy()
    names[4] = "000099@Extract/job001/a.mrcs"
    p = open_particles(project.write(rlnImageName=names))
    with pytest.raises(DataError, match=r"particle 5 wants image 99 of .*a\.mrcs, which has 6"):
        p["images"][4].compute()
    assert "particle 5: image 99" in p.cryo.validate().errors[0]


@pytest.mark.parametrize("name", ["0@Extract/job001/a.mrcs", "x@Extract/job001/a.mrcs", "5@", "-1@a.mrcs"])
def test_impossible_image_names(project, name):
    names = open_particles(project.star)["image_name"].values.copy()
    names[4] = name
    with pytest.raises(DataError, match="particle 5: image name"):
        open_particles(project.write(rlnImageName=names))


def test_mixed_boxes_within_a_group(project):
    write_mrc(project.root / "Extract/job001/b.mrcs", np.zeros((4, 8, 8)), 3.5, is_stack=True)
    p = open_particles(project.star)
    with pytest.raises(DataError, match="8 x 8 pixels, particle 7 and its optics group say 16 x 16"):
        p["images"][6].compute()
    assert any("8 x 8 px, optics group 1 says 16 px" in e for e in p.cryo.validate().errors)


def test_missing_optics_group(project):
    with pytest.raises(DataError, match="particle 10 is of optics group 7, which data_optics does not have"):
        open_particles(project.write(rlnOpticsGroup=np.array([1] * 9 + [7])))


def test_optics_groups_that_particles_do_not_name(project):
    optics = {"rlnOpticsGroup": [1, 2], "rlnImagePixelSize": [1.0, 1.0], "rlnImageSize": [16, 16]}
    with pytest.raises(DataError, match="lacks _rlnOpticsGroup and there are 2"):
        open_particles(project.write(rlnOpticsGroup=None, optics=optics))
    with pytest.raises(DataError, match="two groups of one number"):
        open_particles(project.write(optics=optics | {"rlnOpticsGroup": [1, 1]}))


def test_missing_pixel_size(project):
    with pytest.raises(DataError, match=r"no pixel size; add _rlnImagePixelSize, or give pixel_size="):
        open_particles(project.write(rlnImagePixelSize=None))
    assert open_particles(project.star, pixel_size=2.0)["pixel_size"].values.tolist() == [2.0]
    with pytest.raises(DataError, match="optics group 1 is 0; give pixel_size="):
        open_particles(project.write(rlnImagePixelSize=np.array([0.0])))


def test_old_table_without_pixel_size(tmp_path):
    path = tmp_path / "old.star"
    path.write_text("data_\nloop_\n_rlnImageName\n_rlnDefocusU\n1@a.mrcs 1000\n")
    with pytest.raises(DataError, match="rlnDetectorPixelSize with _rlnMagnification"):
        open_particles(path)


def test_missing_voltage(project):
    with pytest.raises(DataError, match="voltage is missing; give _rlnVoltage"):
        optics_groups(open_particles(project.write(rlnVoltage=None)))


def test_missing_ctf_column(project):
    p = open_particles(project.write(rlnDefocusU=None, rlnDefocusV=None))
    assert any("no CTF parameters" in w for w in p.cryo.validate().warnings)
    from cryotk.jobs.particle_set import ParticleSet

    with pytest.raises(DataError, match="defocus_u is missing"):
        ParticleSet.from_dataset(p)


def test_ctf_that_is_no_number(project):
    values = np.array([10_000.0] * 10, object)
    values[3] = "oops"
    project.write(rlnDefocusU=np.array([str(v) for v in values], object))
    line = next(i for i, t in enumerate(project.star.read_text().splitlines(), 1) if "oops" in t)
    with pytest.raises(FileFormatError, match=f"line {line}: particle 4 has 'oops' in column _rlnDefocusU, which must be a number"):
        open_particles(project.star)
    with pytest.raises(FileFormatError, match="row 1 has 'high' in column _rlnVoltage"):
        open_particles(project.write(rlnVoltage=np.array(["high"], object)))
    report = open_particles(project.write(rlnDefocusU=np.array([np.nan] + [1e4] * 9))).cryo.validate()
    assert "particle 1: defocus is not a number" in report.errors[0]


def test_pixels_that_are_no_numbers(project):
    pixels = project.pixels.copy()
    pixels[7, 3, 3], pixels[2] = np.nan, 5.0
    write_mrc(project.root / "Extract/job001/a.mrcs", pixels[:6], 3.5, is_stack=True)
    write_mrc(project.root / "Extract/job001/b.mrcs", pixels[6:], 3.5, is_stack=True)
    report = open_particles(project.star).cryo.check_images(100)
    assert report.errors == [
        "particle 8 (000002@Extract/job001/b.mrcs) has pixels that are not numbers; remove it",
        "particle 3 (000003@Extract/job001/a.mrcs) is constant; remove it",
    ]


def test_contrast_and_normalisation(project):
    yy, xx = np.mgrid[:16, :16] - 8
    blob = 2 * np.exp(-(xx**2 + yy**2) / 8).astype(np.float32)
    for sign, scale, word in ((1, 1, None), (-1, 1, "inverted contrast"), (1, 20, "normalised")):
        images = scale * (project.pixels + sign * blob)
        write_mrc(project.root / "Extract/job001/a.mrcs", images[:6], 3.5, is_stack=True)
        write_mrc(project.root / "Extract/job001/b.mrcs", images[6:], 3.5, is_stack=True)
        warnings = open_particles(project.star).cryo.check_images().warnings
        assert warnings == [] if word is None else any(word in w for w in warnings)


def test_empty_table(project):
    text = project.star.read_text()
    project.star.write_text(text[: text.index("000001@")])
    with pytest.raises(DataError, match="data_particles is empty"):
        open_particles(project.star)


def test_cut_in_the_middle(project):
    text = project.star.read_text()
    project.star.write_text(text[: text.index("000005@") + 60])
    with pytest.raises(FileFormatError, match="ends in the middle of this row"):
        open_particles(project.star)
    project.star.write_text(text[: text.index("data_particles")])
    with pytest.raises(FileFormatError, match=r"no particle table.*cut after data_optics"):
        open_particles(project.star)


def test_ragged_row(project):
    lines = project.star.read_text().splitlines(keepends=True)
    i = next(i for i, t in enumerate(lines) if "000003@Extract/job001/a.mrcs" in t)
    lines[i] = lines[i].replace("m1.mrc", "m1 .mrc")
    project.star.write_text("".join(lines))
    with pytest.raises(FileFormatError, match=f"line {i + 1}: row of data_particles has 9 values for 8 columns"):
        open_particles(project.star)


def test_not_a_particle_file(project, shared):
    with pytest.raises(FileFormatError, match="not a STAR file: it is binary"):
        open_particles(project.root / "Extract/job001/a.mrcs")
    with pytest.raises(FileFormatError, match="holds no particle table; it has the blocks data_pipeline_general"):
        open_particles(shared / "data/relion31_spa_betagal/default_pipeline.star")
    with pytest.raises(MissingFileError):
        open_particles(project.root / "none.star")


def test_half_sets_and_implausible_ctfs(project):
    p = open_particles(
        project.write(rlnRandomSubset=np.array([1] * 9 + [3]), rlnDefocusU=np.full(10, 1.2), rlnDefocusV=np.full(10, 1.1))
    )
    report = p.cryo.validate()
    assert any("random_subset must be 1 or 2" in e for e in report.errors)
    assert any("below 1000 Å" in w for w in report.warnings)
    assert "error: random_subset" in repr(report) and "<ul>" in report._repr_html_()


def test_failed_ctf_fits_of_the_real_set_are_noticed(shared):
    report = open_particles(shared / "data/relion5_spa_betagal/Extract/job009/particles.star").cryo.validate()
    assert any("the fit may have failed" in w for w in report.warnings)
