"""The contract of an iterative job, on Class2D by VDAM; and what its mini-batches are."""

import numpy as np
import pytest
import xarray as xr

import cryotk as ctk
from cryotk.errors import DataWarning, SettingsError
from cryotk.jobs.vdam_step import BatchContext, run_batch


@pytest.fixture(scope="module")
def particles():
    return ctk.simulate.particles(260, 32, 6.0, seed=5, progress=False)


def _job(particles, **more):
    settings = {"n_batches": 12, "mask_diameter": 170, "seed": 1} | more
    return ctk.Class2D(particles, 3, algorithm="vdam", **settings)


def test_half_steps_are_an_iteration(particles):
    a, b = _job(particles), _job(particles)
    first = a.iterate()
    second = b.maximization(b.expectation())
    assert np.array_equal(first.model.references, second.model.references)
    assert first.number == 1 and a.history.sizes["iteration"] == 2


def test_same_bits_for_any_number_of_threads(particles):
    results = []
    for threads in (1, 2, 3):
        job = _job(particles)
        job.threads = threads
        job.run(3, progress=False)
        results.append((job.classes.values.tobytes(), job._momenta[0].first.tobytes()))
    assert results[0] == results[1] == results[2]


def test_a_mini_batch_leaves_the_others_as_they_were(particles):
    job = _job(particles)
    job.run(2, progress=False)
    before = job.assignments
    e = job.expectation()
    others = np.setdiff1d(np.arange(job.data.n), e.batch)
    assert len(e.batch) == 200 and len(others) == 60
    after = job.maximization(e).assignments
    for name in ("angle_psi", "shift_x", "class_number", "max_probability", "log_likelihood"):
        assert np.array_equal(before[name].values[others], after[name].values[others])
        assert not np.array_equal(before[name].values[e.batch], after[name].values[e.batch])


def test_history_has_every_mini_batch_and_the_job_keeps_every_tenth(particles):
    job = _job(particles)
    job.run(progress=False)
    assert job.history.iteration.values.tolist() == list(range(13))
    assert [it.number for it in job.iterations] == [0, 10, 12]
    assert np.isfinite(job.history.batch_size.values[1:]).all()
    assert job.history.batch_size.values[-1] == 260 and job.history.batch_size.values[1] == 200
    assert (job.assignments.class_number > 0).all()


def test_momenta_and_both_halves_count(particles):
    job = _job(particles)
    job.iterate()
    first = job._momenta[0].first.copy()
    assert first[0].any() and first[1].any() and not np.array_equal(first[0], first[1])
    job.iterate()
    assert not np.array_equal(first, job._momenta[0].first)


def _named(particles, folder):
    ctk.write_stack(particles.images.values, folder / "stack.mrcs", 6.0)
    names = np.array([f"{i + 1:06d}@stack.mrcs" for i in range(particles.sizes["particle"])], object)
    star = folder / "particles.star"
    ctk.write_particles(particles.assign(image_name=xr.Variable("particle", names, {"relion_label": "rlnImageName"})), star)
    return star


def test_resume_goes_on_to_the_same_bits(particles, tmp_path):
    star = _named(particles, tmp_path)
    full = _job(star)
    full.save(tmp_path / "run")
    full.run(progress=False)
    # what was written: every tenth and the last
    assert sorted(f.name for f in (tmp_path / "run").glob("*.checkpoint")) == [
        "run_it000.checkpoint", "run_it010.checkpoint", "run_it012.checkpoint",
    ]  # fmt: skip
    for file in (tmp_path / "run").glob("run_it012*"):
        file.unlink()
    again = ctk.Class2D.resume(tmp_path / "run")
    assert again.iteration == 10 and again.history.sizes["iteration"] == 11
    again.run(progress=False)
    assert np.array_equal(full.classes.values, again.classes.values)
    assert np.array_equal(full.assignments.max_probability, again.assignments.max_probability)
    assert all(np.array_equal(a.first, b.first) for a, b in zip(full._momenta, again._momenta, strict=True))
    assert np.array_equal(full.history.resolution.values, again.history.resolution.values)
    read = ctk.open_iteration(tmp_path / "run" / "run_it012_optimiser.star")
    assert np.allclose(read.model.references, full.current.model.references, atol=1e-5)
    assert int(read.optimiser["rlnDoGradientRefine"]) == 1


def test_a_stopped_run_is_written_where_it_stopped(particles, tmp_path):
    star = _named(particles, tmp_path)
    job = _job(star, n_batches=400)
    job.save(tmp_path / "run")
    job.start()
    while job.iteration < 3:
        pass
    job.stop(wait=True)
    again = ctk.Class2D.resume(tmp_path / "run")
    assert again.iteration == job.iteration
    assert np.array_equal(again.classes.values, job.classes.values)
    assert np.array_equal(again._momenta[1].first, job._momenta[1].first)


def test_a_checkpoint_without_momenta_says_so(particles, tmp_path):
    job = _job(_named(particles, tmp_path))
    job.run(11, progress=False)
    job.save(tmp_path / "run")
    with pytest.warns(DataWarning, match="without its momenta"):
        again = ctk.Class2D.resume(tmp_path / "run" / "run_it010.checkpoint")
    assert again.iterate().number == 11
    assert ctk.Class2D.resume(tmp_path / "run").iteration == 11


def test_branch_keeps_the_momenta(particles):
    job = _job(particles)
    job.run(2, progress=False)
    a, b = job.branch(), job.branch(tau2_fudge=8)
    assert np.array_equal(a.iterate().model.references, job.iterate().model.references)
    b.run(8, progress=False)
    assert b.settings.tau2_fudge == 8 and job.iteration == 3


def test_posterior_and_estimate(particles):
    job = _job(particles)
    assert job.estimate()["memory_bytes"] > 0
    job.run(3, progress=False)
    p = job.posterior(4)
    assert 0.99 < float(p.weight.sum()) <= 1.0001


def test_bad_images_are_flagged_and_left_out(particles):
    images = particles.images.values.copy()
    images[3] = 0
    images[7, 5, 5] = np.nan
    job = _job(particles.assign(images=(("particle", "y", "x"), images)), n_batches=2)
    with pytest.warns(DataWarning, match="particles were left out"):
        job.run(progress=False)
    assert np.nonzero(job.assignments.flagged.values)[0].tolist() == [3, 7]
    assert np.isfinite(job.classes.values).all()


@pytest.mark.parametrize("kind", ["equal", "noise"])
def test_nothing_to_classify(particles, kind):
    """All particles alike, or nothing but noise: no crash, finite maps, every particle in a class."""
    few = particles.isel(particle=slice(0, 40))
    shape = few.images.shape
    images = np.repeat(few.images.values[:1], 40, 0) if kind == "equal" else np.random.default_rng(1).normal(size=shape)
    job = _job(few.assign(images=(("particle", "y", "x"), images.astype(np.float32))), n_batches=6)
    job.run(progress=False)
    assert np.isfinite(job.classes.values).all() and np.isfinite(job.noise_power()).all()
    assert (job.assignments.class_number > 0).all()
    assert job.current.model.class_distribution.sum() == pytest.approx(1)


def test_fewer_particles_than_a_batch_makes_every_batch_the_whole_set(particles):
    job = _job(particles.isel(particle=slice(0, 30)), n_batches=3)
    job.run(progress=False)
    assert job.history.batch_size.values[1:].tolist() == [30, 30, 30]
    one = _job(particles.isel(particle=slice(0, 3)), n_batches=2)
    one.run(progress=False)
    assert np.isfinite(one.classes.values).all()


def test_an_inactive_class_is_replaced_and_an_empty_one_harms_nothing(particles):
    job = _job(particles, n_batches=20, inactivity_threshold=0.9)
    job.run(progress=False)
    assert (job.history.replaced_class > 0).any()
    job = _job(particles, n_batches=4, inactivity_threshold=0, center_classes=False)
    model = job.current.model
    model.class_distribution = np.array([0.5, 0.5, 0.0])
    kept = model.references[2].copy()
    job.run(2, progress=False)
    assert np.allclose(job.classes.values[2], kept * _mask_of(job))
    assert (job.assignments.class_number != 3).all()


def _mask_of(job):
    from cryotk.likelihood import particle_mask

    m = job.current.model
    return particle_mask(m.box_size, job.settings.mask_diameter / (2 * m.pixel_size)) ** job.iteration


@pytest.mark.parametrize("bad", [{"n_batches": 0}, {"algorithm": "sgd"}, {"inactivity_threshold": 2}])
def test_settings_are_checked_at_once(particles, bad):
    with pytest.raises(SettingsError):
        ctk.Class2D(particles, 3, seed=1, **({"algorithm": "vdam", "mask_diameter": 170} | bad))


def test_images_that_equal_their_prediction_leave_no_residual(particles):
    """Residual sums are the sums of expectation-maximisation minus the model's own slices."""
    job = _job(particles)
    job.run(2, progress=False)
    c = job._context()
    assert isinstance(c, BatchContext)
    batch = np.arange(130)
    residual = run_batch(c, batch)
    full, compared = _as_em(c, batch), 0
    for h in range(2):
        for k in range(3):
            a, b = residual.halves[h].accumulators[k], full.halves[h].accumulators[k]
            assert np.allclose(a.weight, b.weight)
            predicted = b.data - a.data
            # where slices were inserted, prediction over weight is the reference itself, up to interpolation
            good = b.weight > 0.3 * b.weight.max()
            if not good.any():
                continue
            compared += 1
            reference = c.references[k].data
            assert np.corrcoef((predicted[good] / b.weight[good]).real, reference[good].real)[0, 1] > 0.95
    assert compared >= 4
    assert residual.sums.weight == pytest.approx(full.sums.weight)


def _as_em(c, batch):
    class Plain(BatchContext):
        from cryotk.likelihood import ExpectationStep

        step_type = ExpectationStep

    plain = Plain(c.model, c.sampling_settings, c.settings, c.data, c.state, c.size, c.coarse_step, c.references)
    return run_batch(plain, batch)


def test_relions_run_goes_on_by_vdam(shared):
    """From RELION's last mini-batch: its model, poses and schedule; momenta, which its files here do not have, start anew."""
    path = shared / "reference" / "class2d_vdam" / "run_it200_optimiser.star"
    particles = shared / "reference" / "betagal_noisy" / "particles.star"
    with pytest.warns(DataWarning, match="momenta"):
        job = ctk.Class2D.resume(path, particles, n_batches=201)
    assert job.settings.algorithm == "vdam" and job.settings.tau2_fudge == 2 and job.iteration == 200
    before = job.current
    it = job.iterate()
    assert it.number == 201 and it.numbers["batch_size"] == 1000
    # one small step changes little
    assert (it.assignments.class_number.values == before.assignments.class_number.values).mean() > 0.9
    for a, b in zip(it.model.references, before.model.references, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95
    assert it.model.average_p_max == pytest.approx(0.6, abs=0.15)
