"""InitialModel: the contract of an iterative job, the search for axes, bad input; and one small run against the truth."""

import numpy as np
import pytest
import xarray as xr

import cryotk as ctk
from cryotk.errors import SettingsError
from cryotk.jobs.initial_model import InitialModel


@pytest.fixture(scope="module")
def particles():
    return ctk.simulate.particles(220, 24, 8.0, seed=5, progress=False)


def _job(particles, **more):
    settings = {"n_batches": 3, "mask_diameter": 170, "seed": 1, "initial_sampling": 30, "offset_range_px": 2} | more
    return InitialModel(particles, **settings)


def test_half_steps_are_an_iteration_and_the_start_is_the_seeds(particles):
    a, b, c = _job(particles), _job(particles), _job(particles, seed=2)
    first = a.iterate()
    second = b.maximization(b.expectation())
    assert np.array_equal(first.model.references, second.model.references)
    assert not np.array_equal(a.iterations[0].model.references, c.current.model.references)


def test_same_bits_for_any_number_of_threads(particles):
    results = []
    for threads in (1, 2, 3):
        job = _job(particles)
        job.threads = threads
        job.run(2, progress=False)
        results.append((job.classes.values.tobytes(), job._momenta[0].first.tobytes()))
    assert results[0] == results[1] == results[2]


def test_resume_goes_on_to_the_same_bits_and_files_are_relions(particles, tmp_path):
    ctk.write_stack(particles.images.values, tmp_path / "stack.mrcs", 8.0)
    names = np.array([f"{i + 1:06d}@stack.mrcs" for i in range(particles.sizes["particle"])], object)
    star = tmp_path / "particles.star"
    ctk.write_particles(particles.assign(image_name=xr.Variable("particle", names, {"relion_label": "rlnImageName"})), star)
    full = _job(star, n_batches=11, symmetry="C2")
    full.save(tmp_path / "run")
    full.run(progress=False)
    assert (tmp_path / "run" / "initial_model.mrc").exists()
    done = InitialModel.resume(tmp_path / "run")
    assert np.array_equal(done.volume.values, full.volume.values)
    assert done._axes is not None, "the axes are read, not searched again"
    for file in (tmp_path / "run").glob("run_it011*"):
        file.unlink()
    again = InitialModel.resume(tmp_path / "run")
    assert again.iteration == 10
    again.run(progress=False)
    assert np.array_equal(full.classes.values, again.classes.values)
    assert np.array_equal(full._momenta[0].first, again._momenta[0].first)
    assert np.array_equal(full.volume.values, again.volume.values)
    read = ctk.open_iteration(tmp_path / "run" / "run_it011_optimiser.star")
    assert read.model.is_3d and read.sampling.healpix_order == full.current.sampling.healpix_order
    assert np.allclose(read.model.references, full.current.model.references, atol=1e-4)


def test_finer_sampling_starts_with_flat_directions(particles):
    job = _job(particles, n_batches=40, compat="relion", resolution_limit=None)
    job.run(9, progress=False)
    job.current.convergence.iterations_without_resolution_gain = 1
    job._planned = None
    order = job.current.sampling.healpix_order
    it = job.iterate()
    assert it.number == 10 and it.sampling.healpix_order == order + 1
    assert it.model.direction_distribution.shape[1] == len(it.sampling.directions)
    assert it.convergence.iterations_without_resolution_gain <= 1 and it.model.accuracy_rotation[0] < 999


def test_symmetry_from_the_start(particles):
    job = _job(particles, symmetry="D2", run_in_c1=False)
    job.run(2, progress=False)
    m = job.classes.values[0]
    inner = np.s_[4:21, 4:21, 4:21]
    for turned in (m[:, ::-1, ::-1], m[::-1, ::-1, :], m[::-1, :, ::-1]):
        turned = np.roll(turned, [1 if a else 0 for a in _flipped(m, turned)], (0, 1, 2))
        assert np.corrcoef(m[inner].ravel(), turned[inner].ravel())[0, 1] > 0.9
    assert job.current.sampling.symmetry == "D2"


def _flipped(m, turned):
    strides = [t != s for t, s in zip(turned.strides, m.strides, strict=True)]
    return strides


def test_volume_is_the_largest_class_and_on_its_axes_in_the_end(particles):
    job = _job(particles, n_classes=2, symmetry="C2")
    job.run(2, progress=False)
    k = job.largest_class
    assert np.array_equal(job.volume.values, job.classes.sel(class_number=k).values)
    assert job.align_symmetry().attrs["symmetry_correlation"] <= 1
    job.run(progress=False)
    volume = job.volume
    assert volume.attrs["symmetry"] == "C2" and volume.dims == ("z", "y", "x")
    assert (job.assignments.class_number > 0).all()
    half_turn = np.roll(volume.values[:, ::-1, ::-1], (1, 1), (1, 2))
    assert np.corrcoef(volume.values.ravel(), half_turn.ravel())[0, 1] > 0.97


def test_axes_of_one_point_group_are_not_taken_for_those_of_another(particles):
    job = _job(particles, symmetry="C2")
    job.run(progress=False)
    assert job._axes is not None
    other = job.branch(symmetry="D2")
    assert other.volume.attrs["symmetry"] == "D2" and job.volume.attrs["symmetry"] == "C2"
    direct = InitialModel(particles, **(job.settings.model_dump() | {"symmetry": "D2"}))
    direct.run(progress=False)
    assert np.array_equal(other.volume.values, direct.volume.values)


@pytest.mark.parametrize("kind", ["equal", "noise", "few"])
def test_nothing_to_find(particles, kind):
    """All particles alike, nothing but noise, three particles: finite maps, no crash."""
    few = particles.isel(particle=slice(0, 3 if kind == "few" else 40))
    images = few.images.values
    if kind == "equal":
        images = np.repeat(images[:1], len(images), 0)
    elif kind == "noise":
        images = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
    job = _job(few.assign(images=(("particle", "y", "x"), images)))
    job.run(progress=False)
    assert np.isfinite(job.volume.values).all()
    assert job.history.batch_size.values[1:].tolist() == [len(images)] * 3


@pytest.mark.parametrize(
    "bad", [{"symmetry": "Q7"}, {"n_batches": 0}, {"mask_diameter": 1000.0}, {"no_such": 1}, {"tau2_fudge": 0}, {"n_classes": 0}]
)
def test_settings_are_checked_at_once(particles, bad):
    with pytest.raises(SettingsError):
        _job(particles, **bad)


def test_a_classification_by_iterations_is_refused(shared):
    with pytest.raises(SettingsError, match="2D classification"):
        InitialModel.resume(shared / "reference" / "class2d_vdam" / "run_it200_optimiser.star")
