"""The contract of an iterative job, on Class3D: with alignment, around poses, or none."""

import os
import shutil
import subprocess

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import DataError, SettingsError

BOX, PIXEL = 32, 7.0
SETTINGS = {
    "mask_diameter": 180.0, "initial_lowpass": 35.0, "initial_sampling": 15.0, "offset_range_px": 2.0, "seed": 1, "n_iterations": 3,
}  # fmt: skip




@pytest.fixture(scope="module")
def references(shared):
    """The two states of the reference set, and its particles at their true poses."""
    folder = shared / "reference/two_states"
    return [ctk.open_volume(folder / f"truth_class{i}.mrc") for i in (1, 2)]


@pytest.fixture(scope="module")
def particles(shared):
    everything = ctk.open_particles(shared / "reference/two_states/particles_true.star")
    return ctk.select_particles(everything, np.arange(0, 500, 5))


def _fixed(particles, references, **more):
    """No alignment: fast."""
    return ctk.Class3D(particles, references, **({
        "align": False, "absolute_greyscale": True, "initial_lowpass": 40.0, "seed": 1, "n_iterations": 3,
    } | more))  # fmt: skip


@pytest.fixture(scope="module")
def star(tmp_path_factory, write_project):
    return write_project(ctk.simulate.particles(60, BOX, PIXEL, snr=0.5, seed=5, progress=False), tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def reference():
    return ctk.simulate.volume(ctk.simulate.molecule(), BOX, PIXEL)


def bits(job):
    return job.classes.values.tobytes(), job.assignments.max_probability.values.tobytes()


def test_half_steps_threads_history_and_selection(particles, references):
    a, b = _fixed(particles, references), _fixed(particles, references)
    a.threads, b.threads = 1, 3
    a.run(2, progress=False)
    for _ in range(2):
        b.maximization(b.expectation())
    assert bits(a) == bits(b)
    h = a.history
    assert h.sizes == {"iteration": 3, "class_number": 2}
    assert np.allclose(h.occupancy.sum("class_number"), 1) and np.isfinite(h.class_resolution).all()
    assert h.changes_class.values[1] == 1 and h.changes_class.values[2] < 0.5
    chosen = a.select([2], iteration=1)
    assert chosen.sizes["particle"] == int((a.iterations[1].assignments.class_number == 2).sum())
    with pytest.raises(SettingsError, match="classes must be 1 to 2"):
        a.select(3)


def test_without_alignment_poses_stay(particles, references):
    job = _fixed(particles, references)
    job.iterate()
    for name in ("angle_rot", "angle_tilt", "angle_psi", "shift_x"):
        assert np.allclose(job.assignments[name].values, particles[name].values)
    truth = particles["class_number"].values if "class_number" in particles else None
    if truth is not None and set(truth) == {1, 2}:
        assert (job.assignments.class_number.values == truth).mean() > 0.75


def test_saved_and_resumed_it_goes_on_to_the_same_bits(star, reference, tmp_path):
    whole = ctk.Class3D(star, reference, 2, **SETTINGS)
    whole.run(progress=False)
    job = ctk.Class3D(star, reference, 2, **SETTINGS)
    job.save(tmp_path / "run")
    job.run(1, progress=False)
    again = ctk.Class3D.resume(tmp_path / "run")
    assert again.iteration == 1
    # one reference: the second iteration still has to give every class its random particles
    again.run(progress=False)
    assert bits(again) == bits(whole)
    read = ctk.open_iteration(tmp_path / "run" / "run_it003_optimiser.star")
    assert np.allclose(read.model.references, whole.current.model.references, atol=1e-4)
    assert not np.array_equal(read.model.references[0], read.model.references[1])
    onward = ctk.Class3D.resume(tmp_path / "run" / "run_it003_optimiser.star", star, n_iterations=4)
    assert onward.settings.n_classes == 2 and onward.iteration == 3
    onward.run(progress=False)
    assert onward.iteration == 4


def test_one_reference_makes_different_classes(star, reference):
    job = ctk.Class3D(star, reference, 3, **SETTINGS)
    first = job.iterate()
    assert np.array_equal(first.model.references[0], first.model.references[2])
    second = job.iterate()
    assert not np.array_equal(second.model.references[0], second.model.references[1])
    share = np.bincount(second.assignments.class_number.values, minlength=4)[1:] / 60
    assert share.min() > 0.15
    p = job.posterior(3)
    assert set(p.class_number.values) <= {1, 2, 3} and 0.99 < float(p.weight.sum()) < 1.001


def test_local_searches_stay_near_and_count_class_priors(star, reference):
    truth = ctk.simulate.with_true_poses(ctk.open_particles(star))
    weak = reference.copy(data=0.2 * reference.values)
    job = ctk.Class3D(truth, [reference, weak], local_search_range=15.0,
                      **(SETTINGS | {"absolute_greyscale": True, "initial_sampling": 7.5}))  # fmt: skip
    job.run(2, progress=False)
    assert job.current.numbers["changes_orientation"] < 15
    assert job.current.model.sigma_psi == 5 and job.current.model.class_distribution.sum() == pytest.approx(1)


def test_class_priors_count_in_local_searches_unless_as_in_relion(star, reference):
    """Two equal maps: a particle is of each as probably as the class is large; RELION forgets that."""
    truth = ctk.simulate.with_true_poses(ctk.open_particles(star))
    shares = {}
    for compat in (None, "relion"):
        job = ctk.Class3D(
            truth, [reference, reference.copy(data=0.999 * reference.values)], local_search_range=15.0, compat=compat,
            **(SETTINGS | {"absolute_greyscale": True, "initial_sampling": 7.5}),
        )  # fmt: skip
        job.current.model.class_distribution = np.array([0.9, 0.1])
        p = job.posterior(2)
        shares[compat] = float(p.weight.values[p.class_number.values == 1].sum() / p.weight.values.sum())
    assert shares[None] == pytest.approx(0.9, abs=0.03) and shares["relion"] == pytest.approx(0.5, abs=0.1)


def test_symmetry_and_mask(star, reference):
    mask = reference.copy(data=(reference.values > reference.values.max() * 0.02).astype(np.float32))
    job = ctk.Class3D(star, reference, symmetry="D2", mask=mask, **SETTINGS)
    it = job.iterate()
    assert (it.model.references[0][mask.values == 0] == 0).all()
    assert len(it.sampling.directions) < 48 / 3


def test_branch_runs_on_from_the_same_state(particles, references):
    job = _fixed(particles, references)
    job.run(1, progress=False)
    other = job.branch(tau2_fudge=1.0)
    a, b = job.iterate(), other.iterate()
    assert b.model.tau2_fudge == 1 and not np.array_equal(a.model.references, b.model.references)
    with pytest.raises(SettingsError, match="keeps the classes"):
        job.branch(n_classes=3)


def test_an_empty_class_shows_nothing_and_the_run_goes_on(particles, references):
    flipped = references[1].copy(data=-5 * references[1].values)
    job = _fixed(particles, [*references, flipped])
    job.run(2, progress=False)
    m = job.current.model
    assert m.class_distribution[2] < 0.02
    assert np.isfinite(m.references).all()


def test_background_run_stops(particles, references):
    job = _fixed(particles, references, n_iterations=400)
    job.start()
    while job.iteration < 1:
        pass
    job.stop(wait=True)
    assert not job.running and job.iteration < 400
    assert "iteration" in repr(job) and "Class3D" in job._repr_html_()


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ({"tau2_fudge": -1}, SettingsError, "tau2_fudge"),
        ({"symmetry": "X9"}, SettingsError, "symmetry"),
        ({"n_classes": 5}, SettingsError, "2 references for 5 classes"),
        ({"local_search_range": 10.0}, SettingsError, "without alignment"),
        ({"no_such": 1}, SettingsError, "no_such"),
        ({"mask_diameter": 1000.0}, SettingsError, "larger than the box"),
        ({"offset_range_px": 40.0, "align": True}, SettingsError, "out of a box"),
    ],
)
def test_settings_are_checked_at_once(particles, references, bad, error, words):
    with pytest.raises(error, match=words):
        _fixed(particles, references, **bad)


def test_references_that_hold_nothing(particles, references):
    with pytest.raises(DataError, match="not finite"):
        _ = _fixed(particles, [references[0], references[1].copy(data=np.full((48,) * 3, np.nan, np.float32))]).current
    noise = references[0].copy(data=np.random.default_rng(0).normal(size=(48,) * 3).astype(np.float32))
    job = _fixed(particles, noise)
    job.iterate()
    assert np.isfinite(job.classes.values).all()


@pytest.mark.slow
def test_relion_continues_our_classification(star, reference):
    program = shutil.which("relion_refine")
    if program is None:
        pytest.skip("needs RELION's relion_refine (Debian: apt-get install relion)")
    job = ctk.Class3D(star, reference, 2, **SETTINGS)
    job.run(2, progress=False)
    job.save(star.parent / "class3d", relion="3.1")
    (star.parent / "on").mkdir()
    run = subprocess.run(
        [program, "--continue", "class3d/run_it002_optimiser.star", "--o", "on/run", "--iter", "3", "--pad", "2", "--j", "1"],
        cwd=star.parent, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert list((star.parent / "on").glob("run*it003*class002.mrc")), run.stdout[-3000:] + run.stderr[-3000:]
    # and back
    again = ctk.Class3D.resume(next((star.parent / "on").glob("run*it003_optimiser.star")), star)
    assert again.iteration == 3 and again.settings.n_classes == 2
    before, it = again.current, again.iterate()
    assert it.number == 4
    for a, b in zip(before.model.references, it.model.references, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.8


def test_classes_at_fixed_poses_start_by_correlation_when_the_grey_scale_is_unknown(star, reference):
    """Maps a hundred times too bright: the first iteration ranks classes by correlation, the next has the right scale."""
    truth = ctk.simulate.with_true_poses(ctk.open_particles(star), classes=False)
    bright = [reference.copy(data=100 * x) for x in (reference.values, reference.values[::-1].copy())]
    job = ctk.Class3D(truth, bright, align=False, **SETTINGS)
    first = job.iterate()
    assert (first.assignments.max_probability == 1).all() and (first.assignments.class_number == 1).mean() > 0.8
    assert first.assignments.log_likelihood.max() <= 1.001
    second = job.iterate()
    assert (second.assignments.class_number == 1).mean() > 0.8
