"""Class2D on disk: killed at any time and resumed to the same bits, moved, selected, continued from RELION."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import cryotk as ctk
from cryotk.errors import CheckpointError, DataWarning, MissingFileError, SettingsError
from cryotk.io import read_star

SETTINGS = {"mask_diameter": 170, "seed": 1, "n_iterations": 3}


@pytest.fixture(scope="module")
def made():
    return ctk.simulate.particles(120, 32, 6.0, seed=5, progress=False)


@pytest.fixture
def star(made, tmp_path, write_project):
    """The particles as files in a project of their own."""
    return write_project(made, tmp_path / "project")


def bits(job):
    return job.classes.values.tobytes(), job.assignments.max_probability.values.tobytes()


KILLED = """
import sys
import cryotk as ctk
job = ctk.Class2D(sys.argv[1], 3, mask_diameter=170, seed=1, n_iterations=3)
job.save(sys.argv[2])
job.on_progress(lambda p: print(p.iteration, p.phase, flush=True))
job.run(progress=False)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9")
@pytest.mark.parametrize("phase", ["expectation", "maximization"])
def test_killed_in_an_iteration_it_goes_on_to_the_same_bits(star, tmp_path, phase):
    whole = ctk.Class2D(star, 3, **SETTINGS)
    whole.run(progress=False)
    env = os.environ | {"PYTHONPATH": str(Path(ctk.__file__).parents[1])}
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(star), str(run)], stdout=subprocess.PIPE, text=True, env=env)
    for line in process.stdout:
        if line.split()[:2] == ["2", phase]:
            break
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    again = ctk.Class2D.resume(run)
    assert again.iteration in (1, 2)
    again.run(progress=False)
    assert bits(again) == bits(whole)
    assert again.history.sizes["iteration"] == 4


def test_every_iteration_comes_back_with_its_units_and_numbers(star, tmp_path):
    job = ctk.Class2D(star, 3, **SETTINGS)
    job.run(2, progress=False)
    job.save(tmp_path / "run")
    again = ctk.Class2D.resume(tmp_path / "run")
    assert again.settings == job.settings
    for a, b in zip(job.iterations, again.iterations, strict=True):
        xr.testing.assert_identical(a.assignments, b.assignments)
        assert a.numbers == b.numbers and a.convergence == b.convergence
        assert np.array_equal(a.model.references, b.model.references)
    first = ctk.Class2D.resume(tmp_path / "run" / "run_it001.checkpoint")
    assert first.iteration == 1
    first.run(2, progress=False)
    assert bits(first) == bits(job)


def test_settings_can_be_changed_on_the_way(star, tmp_path):
    job = ctk.Class2D(star, 3, **SETTINGS)
    job.run(1, progress=False)
    job.save(tmp_path / "run")
    again = ctk.Class2D.resume(tmp_path / "run", tau2_fudge=4, n_iterations=9)
    assert again.settings.tau2_fudge == 4 and again.n_iterations == 9 and again.settings.seed == 1


def test_a_run_on_a_selection_finds_its_particles_in_the_whole_file(star, tmp_path):
    particles = ctk.select_particles(ctk.open_particles(star), np.arange(100, 10, -1))
    job = ctk.Class2D(particles, 3, **SETTINGS)
    job.run(1, progress=False)
    job.save(tmp_path / "run")
    again = ctk.Class2D.resume(tmp_path / "run")
    assert again.particles.image_name.values.tolist() == particles.image_name.values.tolist()
    job.run(2, progress=False)
    again.run(2, progress=False)
    assert bits(again) == bits(job)


def test_particles_that_moved_or_are_not_the_same(star, made, tmp_path):
    job = ctk.Class2D(star, 3, **SETTINGS)
    job.run(1, progress=False)
    job.save(tmp_path / "run")
    moved = star.parent.rename(tmp_path / "elsewhere") / star.name
    with pytest.raises(CheckpointError, match="which is not there; give particles="):
        ctk.Class2D.resume(tmp_path / "run")
    again = ctk.Class2D.resume(tmp_path / "run", moved)
    job = ctk.Class2D(moved, 3, **SETTINGS)
    job.run(2, progress=False)
    again.run(2, progress=False)
    assert bits(again) == bits(job)
    with pytest.raises(CheckpointError, match=r"is of 120 particles.*has 60, or other ones"):
        ctk.Class2D.resume(tmp_path / "run", made.isel(particle=slice(60)))
    changed = ctk.open_particles(moved)
    changed["defocus_u"] = changed["defocus_u"] + 500
    with pytest.warns(DataWarning, match="not to the same bits"):
        ctk.Class2D.resume(tmp_path / "run", changed)


def test_a_file_that_changed_under_the_run_is_noticed(star, tmp_path):
    job = ctk.Class2D(star, 3, **SETTINGS)
    job.run(1, progress=False)
    job.save(tmp_path / "run")
    changed = ctk.open_particles(star)
    changed["defocus_u"] = changed["defocus_u"] + 500
    ctk.write_particles(changed, star)
    with pytest.raises(CheckpointError, match="CTF, groups or optics are not those of the run"):
        ctk.Class2D.resume(tmp_path / "run")


def test_a_broken_last_checkpoint_costs_one_iteration(star, tmp_path):
    job = ctk.Class2D(star, 3, **SETTINGS)
    job.run(2, progress=False)
    job.save(tmp_path / "run")
    last = tmp_path / "run" / "run_it002.checkpoint"
    last.write_bytes(last.read_bytes()[:-300])
    with pytest.warns(DataWarning, match="going on from run_it001"):
        again = ctk.Class2D.resume(tmp_path / "run")
    again.run(2, progress=False)
    assert bits(again) == bits(job)


def test_names_in_a_project_are_relative_to_it(star):
    job = ctk.Class2D(ctk.open_particles(star, star.parent), 3, **SETTINGS)
    job.run(1, progress=False)
    job.save(star.parent / "Class2D" / "job001")
    entries = read_star(star.parent / "Class2D/job001/run_it001_optimiser.star")["optimiser_general"]
    assert entries["rlnModelStarFile"] == "Class2D/job001/run_it001_model.star"
    assert ctk.open_iteration(star.parent / "Class2D/job001/run_it001_optimiser.star").model.references.any()


def test_a_project_is_found_from_where_its_images_are(star, tmp_path):
    """Without a word about the project: names are relative to the folder that image names are relative to."""
    job = ctk.Class2D(star, 3, **SETTINGS)
    job.run(1, progress=False)
    job.save(star.parent / "Class2D" / "job002", relion="3.1")
    entries = read_star(star.parent / "Class2D/job002/run_it001_optimiser.star")["optimiser_general"]
    assert entries["rlnModelStarFile"] == "Class2D/job002/run_it001_model.star" and "rlnDoBlush" not in entries
    job.save(tmp_path / "elsewhere")
    entries = read_star(tmp_path / "elsewhere/run_it001_optimiser.star")["optimiser_general"]
    assert entries["rlnModelStarFile"] == "run_it001_model.star" and entries["rlnDoBlush"] == 0
    # the dialect is kept when the run goes on
    again = ctk.Class2D.resume(star.parent / "Class2D" / "job002")
    again.iterate()
    assert "rlnDoBlush" not in read_star(star.parent / "Class2D/job002/run_it002_optimiser.star")["optimiser_general"]


def test_a_run_of_relion_goes_on_and_its_entries_stay(golden, tmp_path):
    step = golden / "one_step" / "step2d"
    job = ctk.Class2D.resume(step / "run_it001_optimiser.star", _renamed(golden), n_iterations=2)
    s = job.settings
    assert (s.n_classes, s.tau2_fudge, s.mask_diameter, s.psi_step, s.zero_mask, s.center_classes) == (6, 2, 200, 5.625, True, False)
    assert job.iteration == 1 and s.offset_range_px == pytest.approx(5) and s.offset_step_px == pytest.approx(1)
    job.iterations[0].optimiser["rlnFromTheFuture"] = 7
    job.iterate()
    assert job.iteration == 2 and job.current.model.average_p_max > 0.5
    job.save(tmp_path)
    entries = read_star(tmp_path / "run_it002_optimiser.star")["optimiser_general"]
    assert entries["rlnFromTheFuture"] == 7 and entries["rlnCurrentIteration"] == 2 and entries["rlnNumberOfIterations"] == 2
    again = ctk.Class2D.resume(tmp_path, _renamed(golden))
    assert again.iterations[0].optimiser["rlnFromTheFuture"] == 7


def _renamed(golden):
    """The particles of the step under the names that RELION's files use."""
    particles = ctk.open_particles(golden / "betagal_noisy/subset200.star")
    images = particles.images.values
    names = np.array([f"{5 * i + 1:06d}@betagal_noisy/particles.mrcs" for i in range(200)], object)
    return particles.assign(
        image_name=xr.Variable("particle", names, particles.image_name.attrs), images=(("particle", "y", "x"), images)
    )


def test_what_class2d_cannot_go_on_from(golden, tmp_path):
    with pytest.raises(SettingsError, match="3D refinement"):
        ctk.Class2D.resume(golden / "one_step/step3d/run_it001_optimiser.star")
    with pytest.raises(SettingsError, match="give RELION's _optimiser"):
        ctk.Class2D.resume(golden / "one_step/step2d/run_it001_model.star")
    for what in ("optimiser", "model", "data", "sampling"):
        file = golden / f"one_step/step2d/run_it001_{what}.star"
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(MissingFileError, match=r"copy run_it001_classes\.mrcs beside it"):
        ctk.Class2D.resume(tmp_path / "run_it001_optimiser.star")
