"""Scores against a plain float64 sum, particles of several images, kernels against their numpy definitions."""

import numpy as np
import pytest

import cryotk as ctk
from cryotk.geometry import euler_to_matrix
from cryotk.jobs.step import StepContext
from cryotk.kernels.significance import significance_threshold, significance_threshold_numpy


@pytest.fixture(scope="module")
def job():
    particles = ctk.simulate.particles(80, 32, 6.0, seed=9, progress=False)
    job = ctk.Class2D(particles, 2, mask_diameter=170, seed=1)
    job.run(2, progress=False)
    return job


def _direct(context, block, k, pose, shift_px):
    """-1/2 sum |s C V - X exp(-2 pi i k.t)|^2 / sigma2 without the part no pose changes, in float64."""
    tables = context.step.tables[0]
    lattice, prepare = tables.prepare.lattice, tables.prepare
    reference = context.references[k]
    v = reference.slices(tables.maker.rotations(euler_to_matrix(*pose)[None]), lattice.kx, lattice.ky)[0].astype(complex)
    total = 0.0
    for m in range(len(block.images)):
        x = block.masked[m, 0].astype(float) + 1j * block.masked[m, 1].astype(float)
        x = x * np.exp(-2j * np.pi * (lattice.kx * shift_px[0] + lattice.ky * shift_px[1]) / lattice.box)
        w = np.where(lattice.shell > 0, prepare.inverse_noise.astype(float), 0)
        model = block.scale[m] * block.model_ctf[m].astype(float) * v
        total += -0.5 * (w * (np.abs(model - x) ** 2 - np.abs(x) ** 2)).sum()
    return total


def test_score_is_the_direct_sum(job):
    context = job._cached_context(0)
    for particle, k, psi, shift in ((0, 0, 33.0, (1.5, -2.0)), (7, 1, -71.0, (0.0, 3.25))):
        block = context.prepare(np.array([particle]))
        a = context.data.optics[0].pixel_size
        ours = job.score(particle, (0, 0, psi), (block.old_offset_px[0] + shift) * a, k + 1)[0]
        assert ours == pytest.approx(_direct(context, block, k, (0, 0, psi), shift), rel=2e-5, abs=1e-3)


def test_a_particle_of_two_images_scores_as_their_sum(job):
    context = job._cached_context(0)
    step = context.step
    d = context.data
    one, two = (context.prepare(np.array([i])) for i in (3, 4))
    zeros = np.zeros(2)
    prepare = step.tables[0].prepare
    images = d.read(np.array([3, 4]))
    both = prepare(images, np.array([0]), np.array([3, 4]), np.array([0, 2]), np.zeros((1, 2)), zeros + 1, zeros + 1)
    alone = [
        prepare(images[[i]], np.array([0]), np.array([3 + i]), np.array([0, 1]), np.zeros((1, 2)), zeros[:1] + 1, zeros[:1] + 1) for i in (0, 1)
    ]
    assert one.score_image.shape == two.score_image.shape == both.score_image.shape
    for pose, shift in (((0, 0, 20.0), (1.0, 2.0)), ((0, 0, -130.0), (-3.0, 0.5))):
        parts = [_direct(context, block, 1, pose, shift) for block in alone]
        assert _direct(context, both, 1, pose, shift) == pytest.approx(sum(parts), rel=1e-9)
    for name in ("score_image", "score_weight", "data", "data_weight", "constant"):
        joined, parts = getattr(both, name), [getattr(b, name) for b in alone]
        assert np.allclose(joined, parts[0] + parts[1], rtol=1e-5, atol=1e-5)
    post = step.posterior(both, np.zeros((1, 3)))
    result = step.result(both, post, np.zeros((1, 3)))
    sums = step.empty_sums(len(d.group_names))
    step.accumulate(sums, both, post, result, np.ones(2), 1.0, d.columns.scale_group[[3, 4]])
    assert 0.99 < sums.weight <= 1.0001
    assert sums.noise_weight[0] == pytest.approx(2 * sums.weight)


@pytest.mark.parametrize("limit", [0, 3])
@pytest.mark.parametrize("n", [1, 2, 500, 20_000])
def test_threshold_twins_agree(n, limit):
    scores = (np.random.default_rng(n).normal(size=n) * 8).astype(np.float32)
    a = significance_threshold_numpy(scores, 0.999, limit)
    b = significance_threshold(scores, 0.999, limit)
    assert a[0] == b[0] and a[1] == b[1] and a[2] == b[2]
    assert b[3] == pytest.approx(a[3], rel=1e-5)


def test_threshold_of_nothing_allowed():
    assert significance_threshold(np.full(5, -np.inf, np.float32), 0.999, 0)[1] == 0


def test_two_optics_groups_of_other_box_and_pixel_in_one_classification(shared):
    job = ctk.Class2D(shared / "reference/two_groups/particles_true.star", 2, seed=1, mask_diameter=200)
    job.run(3, progress=False)
    assert job.noise_power().sizes["optics_group"] == 2
    assert (job.assignments.class_number.values > 0).all() and not job.assignments.flagged.values.any()
    assert isinstance(job._cached_context(0), StepContext)
