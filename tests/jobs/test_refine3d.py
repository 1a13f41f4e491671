"""The contract of an iterative job, on Refine3D, and its files."""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import CheckpointError, DataError, DataWarning, ExecutionError, MissingFileError, SettingsError
from cryotk.io import read_star

BOX, PIXEL = 32, 7.0
SETTINGS = {
    "symmetry": "D2", "mask_diameter": 180.0, "initial_lowpass": 40.0, "initial_sampling": 15.0, "offset_range_px": 2.0, "seed": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def reference():
    volume = ctk.simulate.volume(ctk.simulate.molecule(), BOX, PIXEL)
    return volume


@pytest.fixture(scope="module")
def star(tmp_path_factory, write_project):
    return write_project(ctk.simulate.particles(80, BOX, PIXEL, snr=0.5, seed=5, progress=False), tmp_path_factory.mktemp("project"))


def _job(star, reference, **more):
    return ctk.Refine3D(star, reference, **(SETTINGS | more))


def bits(job):
    return job.volume.values.tobytes(), job.assignments.max_probability.values.tobytes()


@pytest.fixture(scope="module")
def converged(star, reference):
    """A whole run, and the same by half-steps."""
    job = _job(star, reference)
    job.run(progress=False)
    return job


def test_a_run_converges_and_has_its_results(converged):
    assert converged.converged and converged.iteration == converged.n_iterations
    assert converged.current.model.current_size == BOX
    assert converged.resolution < 25
    first, second = converged.half_maps
    assert first.shape == (BOX,) * 3 and not np.array_equal(first.values, second.values)
    f = ctk.fsc(first, second)
    assert float(f[2]) > 0.8
    assert converged.fsc.sizes == {"iteration": converged.iteration, "shell": BOX // 2 + 1}
    history = converged.history
    assert {"resolution", "healpix_order", "accuracy_rotation", "changes_offset", "seconds"} <= set(history)
    assert (np.diff(history.healpix_order.values[1:]) >= 0).all()
    with pytest.raises(SettingsError, match="has converged"):
        converged.iterate()


def test_half_sets_never_mix_before_the_end(converged):
    """Until the last iteration each half-set has a model of its own, and halves are as the seed or the input says."""
    for it in converged.iterations[1:-1]:
        assert it.half2 is not None
        assert not np.array_equal(it.model.references, it.half2.references)
    halves = converged.assignments.random_subset.values
    assert set(halves) == {1, 2} and abs((halves == 1).sum() - 40) <= 1
    assert np.array_equal(converged.select(1).random_subset.values, halves)


def test_half_steps_are_an_iteration_and_threads_change_no_bit(star, reference):
    a, b = _job(star, reference), _job(star, reference)
    a.threads, b.threads = 1, 3
    a.iterate()
    a.iterate()
    for _ in range(2):
        b.maximization(b.expectation())
    assert bits(a) == bits(b)
    assert np.array_equal(a.current.half2.references, b.current.half2.references)


def test_lanes_one_at_a_time_change_no_bit(star, reference, monkeypatch):
    """Where memory is short one lane's sums are made at a time, by all threads; in memory are they and the total."""
    from cryotk.jobs import blocks
    from cryotk.projection import Accumulator

    alive, most = weakref.WeakSet(), [0]
    start = Accumulator.__init__

    def init(self, *args, **more):
        start(self, *args, **more)
        alive.add(self)
        most[0] = max(most[0], len(alive))

    monkeypatch.setattr(Accumulator, "__init__", init)
    results = []
    for share, threads, limit in ((1.0, 3, 3 + 2), (0.0, 3, 3), (0.0, 1, 3)):
        monkeypatch.setattr(blocks, "LANE_SHARE", share)
        alive.clear()
        most[0] = 0
        job = _job(star, reference)
        job.threads = threads
        job.run(2, progress=False)
        results.append((bits(job), job.current.half2.references))
        # one half's total, the other's, and lanes under way
        assert most[0] <= limit
    for other in results[1:]:
        assert other[0] == results[0][0]
        assert np.array_equal(other[1], results[0][1])


def test_sums_on_disk_change_no_bit(star, reference, converged, monkeypatch, tmp_path, caplog):
    """Where memory is too short for the sums of both halves they are held in files: to the end of the run, the same bits."""
    from cryotk.jobs import blocks
    from cryotk.projection import disk

    made = []
    start = disk.DiskAccumulator.__init__

    def init(self, *args, **more):
        start(self, *args, **more)
        made.append(self.shape)

    monkeypatch.setattr(disk.DiskAccumulator, "__init__", init)
    monkeypatch.setattr(blocks, "available_memory", lambda: 1_000_000_000)
    monkeypatch.setenv("CRYOTK_SCRATCH", str(tmp_path))
    job = _job(star, reference)
    job.run(progress=False)
    assert job.converged and bits(job) == bits(converged)
    assert np.array_equal(job.half_maps[0].values, converged.half_maps[0].values)
    assert len(made) == 2 * job.iteration
    assert "lanes are done one after the other" in caplog.text and str(tmp_path) in caplog.text
    assert not any(tmp_path.iterdir())
    monkeypatch.setenv("CRYOTK_SCRATCH", str(tmp_path / "nowhere"))
    with pytest.raises(ExecutionError, match="CRYOTK_SCRATCH"):
        _job(star, reference).iterate()


def test_posterior_of_a_particle_is_of_its_own_half(star, reference):
    job = _job(star, reference)
    job.run(2, progress=False)
    for particle in (0, int(np.nonzero(job.half_sets == 2)[0][0])):
        p = job.posterior(particle)
        assert 0.99 < float(p.weight.sum()) <= 1.001
        best = p.isel(sample=int(p.weight.values.argmax()))
        angles = [float(best[f"angle_{x}"]) for x in ("rot", "tilt", "psi")]
        shift = [float(best.shift_x), float(best.shift_y)]
        s = job.score(particle, [angles, [angles[0], angles[1], angles[2] + 90]], [shift, shift])
        assert s[0] > s[1]
    half = {c.rows[0]: c for c in job._contexts()}
    assert len(half) == 2


def test_saved_and_resumed_it_goes_on_to_the_same_bits(star, reference, converged, tmp_path):
    job = _job(star, reference)
    job.save(tmp_path / "run")
    job.run(3, progress=False)
    again = ctk.Refine3D.resume(tmp_path / "run")
    assert again.iteration == 3 and again.settings == job.settings
    again.run(progress=False)
    assert bits(again) == bits(converged)
    assert np.array_equal(again.half_maps[0].values, converged.half_maps[0].values)
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"run_it003_half1_model.star", "run_it003_half2_class001.mrc", "run_class001.mrc", "run_half1_class001_unfil.mrc",
            "run_model.star", "run_data.star", "run_optimiser.star"} <= names  # fmt: skip
    end = ctk.Refine3D.resume(tmp_path / "run")
    assert end.converged and bits(end) == bits(converged)
    data = read_star(tmp_path / "run" / "run_data.star")["particles"]
    assert np.array_equal(np.asarray(data["rlnRandomSubset"], int), converged.half_sets)


KILLED = """
import sys, pickle
import cryotk as ctk
job = ctk.Refine3D(sys.argv[1], ctk.open_volume(sys.argv[3]), **pickle.loads(bytes.fromhex(sys.argv[4])))
job.save(sys.argv[2])
job.on_progress(lambda p: print(p.iteration, p.phase, flush=True))
job.run(3, progress=False)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_killed_in_an_iteration_it_goes_on_to_the_same_bits(star, reference, tmp_path):
    import pickle

    ctk.write_volume(reference, tmp_path / "reference.mrc")
    start = ctk.open_volume(tmp_path / "reference.mrc")
    whole = _job(star, start)
    whole.run(3, progress=False)
    env = os.environ | {"PYTHONPATH": str(Path(ctk.__file__).parents[1])}
    arguments = [str(star), str(tmp_path / "run"), str(tmp_path / "reference.mrc"), pickle.dumps(SETTINGS).hex()]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True, env=env)
    for line in process.stdout:
        if line.split()[:2] == ["3", "expectation"]:
            break
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    again = ctk.Refine3D.resume(tmp_path / "run")
    assert again.iteration in (2, 3)
    again.run(3, progress=False)
    assert bits(again) == bits(whole)


def test_it_goes_on_from_its_own_relion_files(star, reference, tmp_path):
    """Files alone, without the checkpoint: as far as six digits allow."""
    job = _job(star, reference)
    job.run(2, progress=False)
    job.save(tmp_path / "run")
    again = ctk.Refine3D.resume(tmp_path / "run" / "run_it002_optimiser.star", star)
    assert again.iteration == 2 and np.array_equal(again.half_sets, job.half_sets)
    a, b = job.iterate(), again.iterate()
    assert b.model.current_size == a.model.current_size and b.sampling.healpix_order == a.sampling.healpix_order
    assert b.half2 is not None
    assert np.corrcoef(a.model.references.ravel(), b.model.references.ravel())[0, 1] > 0.98


def test_branch_and_estimate(star, reference):
    job = _job(star, reference)
    job.run(1, progress=False)
    other = job.branch(tau2_fudge=2.0)
    assert other.settings.tau2_fudge == 2 and other.iteration == 1
    other.iterate()
    assert job.iteration == 1
    figures = job.estimate()
    assert figures["memory_bytes"] > 0 and figures["seconds_per_iteration"] > 0


def test_a_mask_with_corrected_fsc_at_every_iteration(star, reference):
    blurred = ctk.fourier.lowpass(np.asarray(reference.values, float), PIXEL, 40.0)
    mask = reference.copy(data=np.clip(blurred / blurred.max() * 4, 0, 1).astype(np.float32))
    job = _job(star, reference, mask=mask, solvent_flatten_fsc=True)
    job.run(2, progress=False)
    outside = mask.values == 0
    assert np.abs(job.current.model.references[0][outside]).max() == 0
    assert job.current.half_maps is not None and job.fsc.values[-1, 0] == 1


def test_local_only_refinement_keeps_close_to_the_input(star, reference):
    truth = ctk.simulate.with_true_poses(ctk.open_particles(star))
    job = ctk.Refine3D(truth, reference, **(SETTINGS | {"initial_sampling": 3.75, "local_search_from": 3.75}))
    assert job.current.model.sigma_psi == pytest.approx(2 * 3.75)
    job.run(2, progress=False)
    assert job.current.numbers["changes_orientation"] < 10


def test_poses_outside_the_asymmetric_unit_are_not_lost(star, reference):
    """Imported poses that are symmetry mates of those in the unit: searched around the equivalent pose, none is lost."""
    from cryotk.geometry import angular_distance, euler_to_matrix, matrix_to_euler, symmetry_operators

    truth = ctk.simulate.with_true_poses(ctk.open_particles(star))
    names = [f"angle_{x}" for x in ("rot", "tilt", "psi")]
    right = euler_to_matrix(*(truth[n].values for n in names))
    ops = symmetry_operators("D2")
    moved = matrix_to_euler(right @ ops[np.random.default_rng(0).integers(0, 4, len(right))])
    mates = truth.assign({n: ("particle", moved[:, i], truth[n].attrs) for i, n in enumerate(names)})
    lost = {}
    for compat in (None, "relion"):
        job = ctk.Refine3D(
            mates, reference, **(SETTINGS | {"initial_sampling": 3.75, "local_search_from": 3.75, "compat": compat}),
            absolute_greyscale=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            job.iterate()
        found = euler_to_matrix(*(job.assignments[n].values for n in names))
        lost[compat] = int((angular_distance(found, right, ops) > 40).sum())
    assert lost[None] == 0
    assert lost["relion"] > 10


def test_a_half_map_brings_its_mate(star, reference, tmp_path):
    rng = np.random.default_rng(0)
    noisy = [reference.copy(data=reference.values + rng.normal(0, reference.values.std(), (BOX,) * 3).astype(np.float32)) for _ in "12"]
    for i, v in enumerate(noisy):
        ctk.write_volume(v, tmp_path / f"run_half{i + 1}_class001_unfil.mrc")
    job = _job(star, tmp_path / "run_half2_class001_unfil.mrc")
    start = job.current
    swapped = _job(star, tmp_path / "run_half1_class001_unfil.mrc").current
    assert not np.array_equal(start.model.references, start.half2.references)
    assert np.array_equal(start.model.references, swapped.model.references)
    (tmp_path / "run_half1_class001_unfil.mrc").unlink()
    with pytest.raises(MissingFileError, match="run_half1_class001_unfil"):
        _job(star, tmp_path / "run_half2_class001_unfil.mrc")


def test_a_reference_of_another_box_and_pixel_is_resampled_and_said(star, reference):
    other = ctk.simulate.volume(ctk.simulate.molecule(), 56, 4.0)
    job = _job(star, other)
    with pytest.warns(DataWarning, match="resampled to the particles' 32 of 7 Å"):
        start = job.current
    same = _job(star, reference).current
    assert np.corrcoef(start.model.references.ravel(), same.model.references.ravel())[0, 1] > 0.98


def test_bad_input_says_what_to_do(star, reference, tmp_path):
    particles = ctk.open_particles(star)
    n = particles.sizes["particle"]
    with pytest.raises(SettingsError, match="symmetry"):
        _job(star, reference, symmetry="Q7")
    with pytest.raises(SettingsError, match="needs a mask"):
        _job(star, reference, solvent_flatten_fsc=True)
    with pytest.raises(DataError, match="between 0 and 1"):
        _job(star, reference, mask=reference.copy(data=np.full((BOX,) * 3, 1.5, np.float32)))
    with pytest.raises(DataError, match="same box"):
        _job(star, reference, mask=ctk.simulate.volume(ctk.simulate.molecule(), 36, PIXEL))
    with pytest.raises(DataError, match=r"the mask has .* voxels, the particles"):
        _job(star, reference, mask=np.ones((8, 8, 8), np.float32))
    with pytest.raises(SettingsError, match="the mask is an array of shape"):
        _job(star, reference, mask=np.ones((8, 8), np.float32))
    with pytest.raises(MissingFileError, match=r"nowhere\.mrc"):
        _job(star, tmp_path / "nowhere.mrc")
    with pytest.raises(DataError, match="half-set 2 is empty"):
        _job(particles.assign(random_subset=("particle", np.ones(n, int))), reference)
    with pytest.raises(DataError, match="must be 1 or 2"):
        _job(particles.assign(random_subset=("particle", np.r_[0, np.ones(n - 1, int)])), reference)
    with pytest.raises(DataError, match="the same everywhere"):
        _ = _job(star, reference.copy(data=np.zeros((BOX,) * 3, np.float32))).current
    with pytest.raises(DataError, match="defocus"):
        _job(particles.drop_vars([v for v in particles if str(v).startswith("defocus")]), reference)
    far = particles.assign(shift_x=("particle", np.r_[500.0, np.zeros(n - 1)]), shift_y=("particle", np.zeros(n)))
    with pytest.raises(DataError, match="particle 1 has an offset of 500"):
        _job(far, reference)
    (tmp_path / "run_it001.checkpoint").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        ctk.Refine3D.resume(tmp_path, star)


def test_a_foreign_checkpoint_is_refused(star, reference, tmp_path):
    job = ctk.Class3D(star, reference, 1, **SETTINGS)
    job.run(0, progress=False)
    _ = job.current
    job.save(tmp_path)
    with pytest.raises(CheckpointError):
        ctk.Refine3D.resume(tmp_path, star)


def test_empty_images_are_left_out(star, reference):
    particles = ctk.open_particles(star)
    images = particles.images.values.copy()
    images[3] = 0
    images[7, 5, 5] = np.nan
    job = _job(particles.assign(images=(("particle", "y", "x"), images)), reference)
    with pytest.warns(DataWarning, match="2 particles"):
        job.iterate()
    assert np.nonzero(job.assignments.flagged.values)[0].tolist() == [3, 7]
    assert np.isfinite(job.volume.values).all()


def test_a_full_disk_loses_nothing(star, reference, tmp_path, monkeypatch):
    job = _job(star, reference)
    job.save(tmp_path / "run")
    job.iterate()
    from cryotk.execution import checkpoint

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="No space"):
        job.iterate()
    assert job.iteration == 2
    monkeypatch.undo()
    assert ctk.Refine3D.resume(tmp_path / "run").iteration == 1
    job.save(tmp_path / "other")
    assert ctk.Refine3D.resume(tmp_path / "other").iteration == 2


# -- RELION goes on with our files ------------------------------------------------------------------------------------


def _relion(program):
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs RELION's {program} (Debian: apt-get install relion)")
    return found


@pytest.mark.slow
def test_relion_postprocesses_and_reconstructs_from_our_files(star, reference, converged, tmp_path):
    postprocess, reconstruct = _relion("relion_postprocess"), _relion("relion_reconstruct")
    converged.save(star.parent / "run")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [postprocess, "--i", "run/run_half1_class001_unfil.mrc", "--o", "run/post", "--angpix", str(PIXEL), "--autob_lowres", "30"],
        cwd=star.parent, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert (star.parent / "run/post.star").exists(), run.stdout + run.stderr
    run = subprocess.run(
        [reconstruct, "--i", "run/run_data.star", "--o", "run/again.mrc", "--ctf", "--sym", "D2"],
        cwd=star.parent, capture_output=True, text=True, env=environment,
    )
    assert (star.parent / "run/again.mrc").exists(), run.stdout + run.stderr
    again = ctk.open_volume(star.parent / "run/again.mrc")
    f = ctk.fsc(again, converged.volume)
    assert float(f[1:5].min()) > 0.95


@pytest.mark.slow
def test_relion_continues_our_refinement(star, reference):
    program, mpirun = _relion("relion_refine_mpi"), _relion("mpirun")
    job = _job(star, reference)
    job.run(2, progress=False)
    folder = star.parent / "continued"
    folder.mkdir()
    job.save(star.parent / "ours", relion="3.1")
    run = subprocess.run(
        [mpirun, "--allow-run-as-root", "--oversubscribe", "-n", "3", program, "--continue", "ours/run_it002_optimiser.star", "--o",
         "continued/run", "--auto_iter_max", "3", "--pad", "2", "--j", "1", "--dont_combine_weights_via_disc"],
        cwd=star.parent, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    written = list(folder.glob("run*it003*half1_class001.mrc"))
    assert written, run.stdout[-3000:] + run.stderr[-3000:]
    # and back
    again = ctk.Refine3D.resume(next(folder.glob("run*it003_optimiser.star")), star)
    assert again.iteration == 3 and np.array_equal(again.half_sets, job.half_sets)
    before, it = again.current, again.iterate()
    assert it.number == 4 and it.half2 is not None
    assert np.corrcoef(before.half2.references.ravel(), it.half2.references.ravel())[0, 1] > 0.8
