"""What RELION's optimiser files bring along, and what they ask for that no job here does."""

import re
import warnings

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import DataWarning, MissingFileError, SettingsError
from cryotk.io import read_star

BOX, PIXEL, N = 24, 8.0, 40
SETTINGS = {"mask_diameter": 170.0, "initial_lowpass": 40.0, "initial_sampling": 30.0, "offset_range_px": 2.0, "seed": 1}
JOBS = {
    "class3d": lambda p, r, **more: ctk.Class3D(p, r, 2, **(SETTINGS | more)),
    "refine3d": lambda p, r, **more: ctk.Refine3D(p, r, **(SETTINGS | more)),
}


@pytest.fixture(scope="module")
def reference():
    return ctk.simulate.volume(ctk.simulate.molecule(), BOX, PIXEL)


@pytest.fixture(scope="module")
def mask(reference):
    blurred = ctk.fourier.lowpass(np.asarray(reference.values, float), PIXEL, 40.0)
    return reference.copy(data=np.clip(blurred / blurred.max() * 4, 0, 1).astype(np.float32))


@pytest.fixture(scope="module")
def star(tmp_path_factory, write_project):
    return write_project(ctk.simulate.particles(N, BOX, PIXEL, snr=0.5, seed=5, progress=False), tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize("kind", JOBS)
def test_the_mask_goes_to_relions_files_and_comes_back(kind, star, reference, mask, tmp_path):
    more = {"solvent_flatten_fsc": True} if kind == "refine3d" else {}
    job = JOBS[kind](star, reference, mask=mask, **more)
    job.save(tmp_path / "run")
    job.run(1, progress=False)
    file = tmp_path / "run" / "run_it001_optimiser.star"
    entries = read_star(file)["optimiser_general"]
    assert entries["rlnSolventMaskName"].endswith("run_solvent_mask.mrc")
    assert np.array_equal(ctk.open_volume(tmp_path / "run" / "run_solvent_mask.mrc").values, mask.values)
    again = type(job).resume(file, star)
    assert np.array_equal(again._mask, job._mask)
    if kind == "refine3d":
        assert again.settings.solvent_flatten_fsc
    outside = mask.values == 0
    assert np.abs(again.iterate().model.references[0][outside]).max() == 0
    # in its own place: another mask of a branch is another file's
    (tmp_path / "run" / "run_solvent_mask.mrc").unlink()
    with pytest.raises(MissingFileError, match="run_solvent_mask"):
        type(job).resume(file, star)
    other = type(job).resume(file, star, mask=None, **({"solvent_flatten_fsc": False} if kind == "refine3d" else {}))
    assert other._mask is None
    without = JOBS[kind](star, reference)
    _ = without.current
    without.save(tmp_path / "plain")
    assert read_star(tmp_path / "plain" / "run_it000_optimiser.star")["optimiser_general"]["rlnSolventMaskName"] == "None"


def _changed(folder, label, value):
    file = next(folder.glob("run_it001_optimiser.star"))
    text = re.sub(rf"(_{label}\s+)\S+", rf"\g<1>{value}", file.read_text())
    assert f"_{label}" in text
    out = file.with_name(f"{label}_optimiser.star")
    out.write_text(text)
    return out


@pytest.fixture(scope="module")
def run(star, reference, tmp_path_factory):
    job = JOBS["class3d"](star, reference)
    job.run(1, progress=False)
    folder = tmp_path_factory.mktemp("run")
    job.save(folder)
    return folder


@pytest.mark.parametrize(
    ("label", "value", "words"),
    [
        ("rlnDoHelicalRefine", 1, "helical"), ("rlnBodyStarFile", "bodies.star", "multi-body"),
        ("rlnTomoTomogramsFile", "tomograms.star", "subtomograms"), ("rlnDoSkipRotate", 1, "offsets alone"),
    ],
)  # fmt: skip
def test_runs_of_other_methods_are_refused(run, star, label, value, words):
    with pytest.raises(SettingsError, match=words):
        ctk.Class3D.resume(_changed(run, label, value), star)


@pytest.mark.parametrize(
    ("label", "value"), [("rlnDoBlush", 1), ("rlnFixSigmaNoiseEstimates", 1), ("rlnSolventMask2Name", "two.mrc"), ("rlnAdaptiveOversampleOrder", 0)]
)
def test_settings_that_are_not_followed_are_said(run, star, label, value):
    with pytest.warns(DataWarning, match=f"not followed.*{label} = {value}"):
        job = ctk.Class3D.resume(_changed(run, label, value), star)
    assert job.iteration == 1


def test_an_ordinary_run_is_taken_on_without_a_word(run, star):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ctk.Class3D.resume(run / "run_it001_optimiser.star", star)
