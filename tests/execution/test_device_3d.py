"""Jobs with maps on a card, compared with the same step on the CPU (see test_device)."""

import numpy as np
import pytest

import cryotk as ctk
from cryotk.jobs.initial_model import InitialModel

BOX, PIXEL = 24, 8.0


@pytest.fixture(scope="module")
def particles():
    return ctk.simulate.particles(40, BOX, PIXEL, snr=0.5, seed=5, poses=True, progress=False)


@pytest.fixture(scope="module")
def reference():
    return ctk.simulate.volume(ctk.simulate.molecule(), BOX, PIXEL)


def _close(a, b, limit=1e-3):
    """Nearly all the same poses; where all are, the same map."""
    x, y = a.assignments, b.assignments
    same = np.all([np.abs(x[n].values - y[n].values) < 1e-6 for n in ("angle_rot", "angle_tilt", "angle_psi")], 0)
    assert same.mean() > 0.95
    assert np.abs(x.max_probability.values - y.max_probability.values)[same].max() < 1e-3
    p, q = (np.asarray(i.model.references, float) for i in (a, b))
    assert np.abs(p - q).max() < limit * np.abs(p).max()


JOBS = {
    "global": lambda p, r, d: ctk.Class3D(
        p, r, 2, mask_diameter=170.0, initial_lowpass=40.0, initial_sampling=30.0, offset_range_px=2.0, seed=1, device=d,
        absolute_greyscale=True,
    ),
    "first by correlation": lambda p, r, d: ctk.Class3D(
        p, r, 1, mask_diameter=170.0, initial_lowpass=40.0, initial_sampling=30.0, offset_range_px=2.0, seed=1, device=d,
    ),
    "local": lambda p, r, d: ctk.Class3D(
        p, r, 1, mask_diameter=170.0, initial_lowpass=30.0, initial_sampling=7.5, local_search_range=12.0, offset_range_px=2.0,
        seed=1, device=d, absolute_greyscale=True,
    ),
    "no alignment": lambda p, r, d: ctk.Class3D(
        p, [r, 0.5 * r], align=False, absolute_greyscale=True, mask_diameter=170.0, initial_lowpass=40.0, seed=1, device=d
    ),
    "half-sets": lambda p, r, d: ctk.Refine3D(
        p, r, symmetry="D2", mask_diameter=170.0, initial_lowpass=40.0, initial_sampling=30.0, offset_range_px=2.0, seed=1, device=d,
        absolute_greyscale=True,
    ),
    "gradient": lambda p, r, d: InitialModel(
        p, n_batches=3, mask_diameter=170, seed=1, initial_sampling=30, offset_range_px=2, device=d
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", JOBS)
def test_a_step_on_the_device_is_the_step_on_the_cpu(name, cupy, particles, reference):
    results = []
    before = cupy.launched.get("ragged_scores", 0) if getattr(cupy, "stand_in", False) else 0
    for device in ("cpu", "cuda"):
        job = JOBS[name](particles, reference, device)
        for _ in range(2 if name == "first by correlation" else 1):
            job.iterate()
        results.append(job.current)
        if getattr(cupy, "stand_in", False):
            assert (cupy.launched.get("ragged_scores", 0) > before) == (device == "cuda")
    _close(*results)


def test_slices_that_do_not_fit_are_made_by_each_block(cupy, particles, reference):
    context = JOBS["global"](particles, reference, "cuda")._contexts()[0]
    backend, rows = context.backend, np.arange(12)
    results = []
    for slice_bytes in (backend.slice_bytes, 0):
        kept, backend.slice_bytes = backend.slice_bytes, slice_bytes
        try:
            step = context._step_on(backend)
        finally:
            backend.slice_bytes = kept
        assert (step.tables[0].fine is None) == (slice_bytes == 0)
        block = context.prepare(rows)
        post = step.posterior(block, context.state.poses[rows])
        results.append([backend.to_host(post.weights), post.log_likelihood])
    assert np.array_equal(results[0][0], results[1][0]) and np.array_equal(results[0][1], results[1][1])
