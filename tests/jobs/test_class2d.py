"""The contract of an iterative job, on Class2D."""

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import CheckpointError, DataWarning, SettingsError


@pytest.fixture(scope="module")
def particles():
    return ctk.simulate.particles(150, 32, 6.0, seed=5, progress=False)


def _job(particles, **more):
    return ctk.Class2D(particles, 3, mask_diameter=170, seed=1, **({"n_iterations": 4} | more))


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
        job.run(2, progress=False)
        results.append((job.classes.values.tobytes(), job.assignments.max_probability.values.tobytes()))
    assert results[0] == results[1] == results[2]


def test_resume_goes_on_to_the_same_bits(particles, tmp_path):
    star = tmp_path / "particles.star"
    ctk.write_particles(particles, star)
    ctk.write_stack(particles.images.values, tmp_path / "stack.mrcs", 6.0)
    import xarray as xr

    names = np.array([f"{i + 1:06d}@stack.mrcs" for i in range(particles.sizes["particle"])], object)
    ctk.write_particles(particles.assign(image_name=xr.Variable("particle", names, {"relion_label": "rlnImageName"})), star)
    full = _job(star)
    full.save(tmp_path / "run")
    full.run(progress=False)
    for file in (tmp_path / "run").glob("run_it00[34]*"):
        file.unlink()
    again = ctk.Class2D.resume(tmp_path / "run")
    assert again.iteration == 2
    again.run(progress=False)
    assert np.array_equal(full.classes.values, again.classes.values)
    assert np.array_equal(full.assignments.max_probability, again.assignments.max_probability)
    read = ctk.open_iteration(tmp_path / "run" / "run_it004_optimiser.star")
    assert np.allclose(read.model.references, full.current.model.references, atol=1e-5)


def test_broken_checkpoint_says_so(particles, tmp_path):
    (tmp_path / "run_it001.checkpoint").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="run_it001"):
        ctk.Class2D.resume(tmp_path, particles)


def test_bad_images_are_flagged_and_left_out(particles):
    images = particles.images.values.copy()
    images[3] = 0
    images[7, 5, 5] = np.nan
    job = _job(particles.assign(images=(("particle", "y", "x"), images)))
    with pytest.warns(DataWarning, match="2 particles"):
        job.iterate()
    assert np.nonzero(job.assignments.flagged.values)[0].tolist() == [3, 7]
    assert np.isfinite(job.classes.values).all()


def test_posterior_and_score_agree_on_the_best_pose(particles):
    job = _job(particles)
    job.run(3, progress=False)
    p = job.posterior(4)
    assert 0.99 < float(p.weight.sum()) <= 1.0001
    best = p.isel(sample=int(p.weight.values.argmax()))
    angles = np.array([[0, 0, float(best.angle_psi)], [0, 0, float(best.angle_psi) + 60]])
    shift = np.tile([float(best.shift_x), float(best.shift_y)], (2, 1))
    s = job.score(4, angles, shift, int(best.class_number))
    assert s[0] > s[1]


def test_background_run_stops_and_select_keeps_rows(particles):
    job = _job(particles, n_iterations=400)
    job.start()
    while job.iteration < 1:
        pass
    job.stop(wait=True)
    assert not job.running and job.iteration < 400
    k = int(job.assignments.class_number.values[0])
    assert job.select(k).sizes["particle"] == int((job.assignments.class_number == k).sum())


@pytest.mark.parametrize(
    "bad", [{"tau2_fudge": -1}, {"psi_step": 0}, {"mask_diameter": 1000.0}, {"no_such": 1}, {"device": "tpu"}]
)
def test_settings_are_checked_at_once(particles, bad):
    with pytest.raises(SettingsError):
        ctk.Class2D(particles, 3, seed=1, **({"mask_diameter": 170} | bad))
