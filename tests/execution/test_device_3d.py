"""Jobs with maps on a card, compared with the same step on the CPU (see test_device)."""

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import SettingsError
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
    "gradient in 2D": lambda p, r, d: ctk.Class2D(
        p, 2, algorithm="vdam", n_batches=3, mask_diameter=170, seed=1, psi_step=15, offset_range_px=2, device=d
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


@pytest.fixture
def two_cards(cupy):
    """Two cards: cupy's, or two pretended ones whose arrays do not mix."""
    if getattr(cupy, "stand_in", False):
        cupy.set_device_count(2)
        yield cupy
        cupy.set_device_count(1)
    elif cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two CUDA devices")
    else:
        yield cupy


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", JOBS)
def test_lanes_on_two_cards_give_the_bits_of_one(name, two_cards, particles, reference):
    found = []
    for device in ("cuda", "cuda:0,1", "cuda:1"):
        job = JOBS[name](particles, reference, device)
        if getattr(two_cards, "stand_in", False):
            two_cards.launched_on.clear()
        for _ in range(2 if name == "first by correlation" else 1):
            job.iterate()
        found.append((job.current.model.references.tobytes(), job.assignments.max_probability.values.tobytes(), job.assignments.angle_rot.values.tobytes()))
        if getattr(two_cards, "stand_in", False):
            ran = two_cards.launched_on
            assert set(ran) == {"cuda": {0}, "cuda:1": {1}, "cuda:0,1": {0, 1}}[device]
            if device == "cuda:0,1":
                assert min(ran.values()) > 0.3 * max(ran.values())
    assert found[0] == found[1] == found[2]
    assert job.posterior(3).attrs["p_max"] > 0


def test_wrong_lists_of_cards_say_so(two_cards, particles, reference):
    n = two_cards.cuda.runtime.getDeviceCount()
    with pytest.raises(SettingsError, match=f"there are {n} CUDA devices"):
        JOBS["global"](particles, reference, f"cuda:0,{n}")
    with pytest.raises(SettingsError, match="names a card twice"):
        JOBS["global"](particles, reference, "cuda:1,1")


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


def test_warm_up_runs_every_kernel_of_the_jobs(cupy):
    from cryotk.jobs.warmup import warm_up

    if not getattr(cupy, "stand_in", False):
        pytest.skip("the stand-in counts")
    cupy.launched.clear()
    warm_up("cuda")
    expected = {"shift_and_mask", "gather_lattice", "shell_power", "ctf_values", "shift_transforms", "weigh_images", "extract_slices_2d",
                "extract_slices_3d", "shifted_rows", "dense_scores", "count_ragged", "ragged_scores", "posterior_weights", "accumulate_rows", "accumulate_pixels", "sum_shells", "insert_slices_2d",
                "insert_slices_3d", "add_integers"}  # fmt: skip
    assert expected <= set(cupy.launched)
