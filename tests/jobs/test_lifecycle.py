"""What happens to a run: stopped and gone on with, saved, resumed, branched, finished."""

import os
import time

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import CryotkError, DataWarning, DiskError, SettingsError
from cryotk.io import read_star
from cryotk.jobs import shelf

MAPS = {"mask_diameter": 170.0, "initial_lowpass": 40.0, "initial_sampling": 30.0, "offset_range_px": 2.0, "seed": 1}


def refine(star, reference, **more):
    return ctk.Refine3D(star, reference, **({"symmetry": "D2"} | MAPS | more))


def classify(star, references, **more):
    return ctk.Class3D(star, references, **(MAPS | {"n_iterations": 4} | more))


@pytest.fixture(scope="module")
def soft_mask(small_map):
    return ctk.create_mask(small_map, threshold=float(small_map.max()) / 3, extend_px=1, soft_edge_px=2).mask


# -- stopped -----------------------------------------------------------------------------------------------------------


def test_a_stopped_job_goes_on_by_steps(small_star, small_map):
    whole = refine(small_star, small_map)
    whole.run(2, progress=False)
    job = refine(small_star, small_map)
    job.stop()
    assert job.iterate(progress=False).number == 1
    job.start(3)
    job.stop(wait=True)
    while job.iteration < 2:
        job.maximization(job.expectation())
    assert job.iterations[2].model.references.tobytes() == whole.current.model.references.tobytes()


def test_starting_again_waits_for_what_stops(small_star, small_map):
    job = refine(small_star, small_map)
    job.start(2)
    time.sleep(0.05)
    job.stop()
    job.start(2)
    job.wait(120)
    assert job.iteration == 2


def test_a_stop_during_a_step_says_so(small_star, small_map):
    job = refine(small_star, small_map)
    job.on_progress(lambda p: job.stop() if p.phase == "expectation" else None)
    with pytest.raises(CryotkError, match="stopped before the iteration was finished"):
        job.iterate(progress=False)
    assert job.iteration == 0


# -- masks -------------------------------------------------------------------------------------------------------------


def test_a_flattened_fsc_goes_on_with_its_mask(small_star, small_map, soft_mask, tmp_path):
    job = refine(small_star, small_map, mask=soft_mask, solvent_flatten_fsc=True)
    job.save(tmp_path)
    job.run(2, progress=False)
    again = ctk.Refine3D.resume(tmp_path)
    assert np.array_equal(again._mask, job._mask)
    assert np.array_equal(job.branch(tau2_fudge=2.0)._mask, job._mask)
    a, b = job.iterate(progress=False), again.iterate(progress=False)
    assert a.model.references.tobytes() == b.model.references.tobytes()


@pytest.mark.parametrize("live", [True, False])
def test_every_iteration_knows_the_mask(small_star, small_map, soft_mask, tmp_path, live):
    job = classify(small_star, [small_map, small_map * 0.8], mask=soft_mask)
    if live:
        job.save(tmp_path)
    job.run(2, progress=False)
    if not live:
        job.save(tmp_path)
    again = ctk.Class3D.resume(tmp_path / "run_it001.checkpoint")
    assert np.array_equal(again._mask, job._mask)
    # and can be without, or with another one
    assert ctk.Class3D.resume(tmp_path, mask=None)._mask is None and job.branch(mask=None)._mask is None
    other = (soft_mask * 0.5).assign_attrs(soft_mask.attrs)
    for path in (tmp_path, tmp_path / "run_it002_optimiser.star"):
        assert np.allclose(ctk.Class3D.resume(path, mask=other)._mask, other.values, atol=1e-6)


# -- files -------------------------------------------------------------------------------------------------------------


def test_symmetry_copies_keep_their_poses(small_posed, small_map, tmp_path):
    copies = ctk.symmetry_expand(small_posed.isel(particle=slice(0, 8)), "D2")
    job = classify(copies, [small_map, small_map * 0.8], align=False)
    job.save(tmp_path)
    job.run(1, progress=False)
    again = ctk.Class3D.resume(tmp_path / "run_it001_optimiser.star")
    assert np.allclose(again.data.poses, job.data.poses, atol=1e-4)
    for name in ("angle_rot", "angle_tilt", "angle_psi"):
        assert np.allclose(again.assignments[name], job.assignments[name], atol=1e-4)


def test_two_runs_in_one_folder_do_not_mix(small_star, small_map, tmp_path):
    first = classify(small_star, small_map)
    first.save(tmp_path)
    first.run(3, progress=False)
    second = classify(small_star, small_map, initial_lowpass=60.0)
    with pytest.warns(DataWarning, match="iterations of another run"):
        second.save(tmp_path)
    second.run(1, progress=False)
    again = ctk.Class3D.resume(tmp_path)
    assert again.iteration == 1 and again.settings.initial_lowpass == 60 and len(again.iterations) == 2
    # a run that goes on is no other one
    first.save(tmp_path / "alone")
    ctk.Class3D.resume(tmp_path / "alone").save(tmp_path / "alone")


def test_a_full_disk_names_the_folder_and_the_way_on(small_star, small_map, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    for done in (0, 1):
        job = classify(small_star, small_map)
        if done:
            job.iterate(progress=False)
            job.save(tmp_path / "run")
        else:
            job._directory = tmp_path / "run0"
            (tmp_path / "run0").mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(DiskError, match=r"run.*No space left.*job\.save\(folder\)"):
                job.iterate(progress=False)
        assert job.iteration == 2 * done
        job.run(2, progress=False)
        job.save(tmp_path / f"other{done}")
        assert ctk.Class3D.resume(tmp_path / f"other{done}").iteration == 2


def test_a_full_disk_at_the_end_of_a_run_of_mini_batches(small_star, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    job = ctk.InitialModel(small_star, n_batches=20, mask_diameter=170.0, initial_sampling=30, offset_range_px=2, seed=1)
    job.save(tmp_path / "run")
    job.run(1, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError, match=r"iteration 2 .*run: .*No space left.*job\.save\(folder\)"):
            job.run(2, progress=False)
    assert job.iteration == 2


def test_a_folder_that_cannot_be_made(small_star, small_map):
    with pytest.raises(DiskError, match="/proc/cryotk cannot be made"):
        classify(small_star, small_map).save("/proc/cryotk")


def test_names_in_a_project_behind_a_link(small_star, small_map, tmp_path):
    (tmp_path / "Extract").symlink_to(small_star.parent)
    job = classify(tmp_path / "Extract" / "particles.star", small_map)
    job.save(tmp_path / "Class3D" / "job1")
    job.run(1, progress=False)
    optimiser = read_star(tmp_path / "Class3D" / "job1" / "run_it001_optimiser.star")["optimiser_general"]
    assert optimiser["rlnExperimentalDataStarFile"] == "Class3D/job1/run_it001_data.star"


def test_the_perturbation_of_a_run_goes_on(small_star, small_map, tmp_path):
    job = classify(small_star, small_map, perturbation_factor=0.0)
    job.save(tmp_path)
    job.run(1, progress=False)
    again = ctk.Class3D.resume(tmp_path / "run_it001_optimiser.star", small_star)
    assert again.settings.perturbation_factor == 0
    assert again.iterate(progress=False).sampling.perturbation == 0


def test_a_run_until_a_mini_batch_is_written_there(small_star, tmp_path):
    job = ctk.InitialModel(small_star, n_batches=20, mask_diameter=170.0, initial_sampling=30, offset_range_px=2, seed=1)
    job.save(tmp_path)
    job.run(4, progress=False)
    assert ctk.InitialModel.resume(tmp_path).iteration == 4


# -- memory ------------------------------------------------------------------------------------------------------------


def test_maps_of_past_iterations_go_to_files(small_star, small_map, tmp_path, monkeypatch):
    kept = refine(small_star, small_map)
    kept.run(3, progress=False)
    one = shelf.bytes_in_memory(kept.iterations[1:2])
    assert one > 0 and shelf.bytes_in_memory(kept.iterations) >= 4 * one
    monkeypatch.setattr(shelf, "KEPT_BYTES", one)
    job = refine(small_star, small_map)
    job.save(tmp_path)
    job.run(3, progress=False)
    assert shelf.bytes_in_memory(job.iterations[:-1]) <= one and shelf.bytes_in_memory(job.iterations[-1:]) >= one
    again = ctk.Refine3D.resume(tmp_path)
    assert shelf.bytes_in_memory(again.iterations[:-1]) <= one
    for a, b, c in zip(kept.iterations, job.iterations, again.iterations, strict=True):
        for x in (b, c):
            assert x.model.references.tobytes() == a.model.references.tobytes()
            assert x.half2.references.tobytes() == a.half2.references.tobytes()
    # all can still be written, and looked at
    job.save(tmp_path / "again")
    assert np.isfinite(job.iterations[0].classes.values).all()


def test_a_branch_keeps_its_iteration_while_its_parent_goes_on(small_star, small_map, monkeypatch):
    monkeypatch.setattr(shelf, "KEPT_BYTES", 0)
    job = classify(small_star, small_map)
    job.run(1, progress=False)
    branch = job.branch(tau2_fudge=2.0)
    e = branch.expectation()
    job.run(3, progress=False)
    assert branch.maximization(e).number == 2


def test_no_room_for_files_keeps_maps_in_memory(small_star, small_map, monkeypatch):
    monkeypatch.setattr(shelf, "KEPT_BYTES", 0)
    monkeypatch.setenv("CRYOTK_SCRATCH", "/nowhere")
    job = refine(small_star, small_map)
    job.run(2, progress=False)
    assert not isinstance(job.iterations[0].model.references, np.memmap)


# -- results -----------------------------------------------------------------------------------------------------------


def test_particles_are_those_of_the_last_iteration(small_star, small_map):
    job = refine(small_star, small_map)
    assert "angle_rot" not in job.particles
    job.run(1, progress=False)
    for name in ("angle_rot", "angle_psi", "shift_x", "random_subset", "max_probability"):
        assert np.array_equal(job.particles[name].values, job.assignments[name].values), name
    assert "angle_rot" not in job.input_particles
    assert job.particles.images.shape == job.input_particles.images.shape


def test_a_finished_refinement_can_be_looked_at(small_star, small_map):
    job = refine(small_star, small_map)
    job.run(progress=False)
    assert job.converged
    post = job.posterior(3)
    assert 0 < post.p_max <= 1 and post.weight.size > 0
    assert np.isfinite(job.score(3, (10, 20, 30), (0, 0))).all()
    for step in (job.iterate, job.expectation, lambda: job.branch(tau2_fudge=2.0)):
        with pytest.raises(SettingsError, match=r"has converged.*start a new Refine3D from job\.volume"):
            step()
