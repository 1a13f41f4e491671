"""estimate() before an iteration, against the memory that the iteration then takes: counted, not timed."""

import tracemalloc

import numpy as np
import pytest

import cryotk as ctk
from cryotk.jobs import blocks, resources

BOX, PIXEL = 64, 4.0
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def particles():
    return ctk.simulate.particles(160, BOX, PIXEL, seed=3, poses=True, progress=False)


@pytest.fixture(scope="module")
def reference(particles):
    return ctk.simulate.volume(ctk.simulate.molecule(), BOX, PIXEL, amplitude=particles.attrs["amplitude"])


COMMON = {"mask_diameter": 180.0, "offset_range_px": 3.0, "absolute_greyscale": True, "seed": 1}
FINE = {"initial_lowpass": 9.0, "initial_sampling": 1.8}
JOBS = {
    "half-sets, local": lambda p, r: ctk.Refine3D(p, r, **COMMON, **FINE),
    "half-sets, global": lambda p, r: ctk.Refine3D(p, r, "D2", initial_lowpass=20.0, initial_sampling=15.0, **COMMON),
    "three classes": lambda p, r: ctk.Class3D(p, [r, r * 0.9, r * 0.8], local_search_range=6.0, **COMMON, **FINE),
    "two classes of one map": lambda p, r: ctk.Class3D(p, r, 2, local_search_range=6.0, **COMMON, **FINE),
    "classes, poses kept": lambda p, r: ctk.Class3D(
        p, [r, r * 0.9], align=False, mask_diameter=180, absolute_greyscale=True, initial_lowpass=9.0
    ),
}  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", JOBS)
def test_memory_of_an_iteration(particles, reference, name, threads):
    job = JOBS[name](particles, reference)
    job.threads = threads
    _ = job.current
    said = job.estimate()["memory_bytes"] - resources.BASE_BYTES
    kept = job.current.model.references.nbytes * (2 if job.current.half2 is not None else 1)
    tracemalloc.start()
    try:
        job.maximization(job.expectation())
        counted = tracemalloc.get_traced_memory()[1] + kept
    finally:
        tracemalloc.stop()
    # how the peaks of two threads meet is not the same each time
    assert said == pytest.approx(counted, rel=0.25), f"{said / 1e6:.0f} MB said, {counted / 1e6:.0f} MB counted"


def test_before_the_start_it_says_much_the_same(particles, reference):
    for name in ("half-sets, local", "three classes"):
        job = JOBS[name](particles, reference)
        before = job.estimate()
        _ = job.current
        after = job.estimate()
        assert before["memory_bytes"] == pytest.approx(after["memory_bytes"], rel=0.1)
        assert before["seconds_per_iteration"] == pytest.approx(after["seconds_per_iteration"], rel=0.3)


def test_counts_of_the_grids():
    assert [resources.offsets_in(r) for r in (0, 1, 2.5)] == [1, 5, 21]
    whole = 12 * 4**3 * 6 * 2**3
    assert resources.orientations_near(3, 60.0) == pytest.approx(whole, rel=1e-12)
    assert resources.orientations_near(3, 5.0) < whole / 100


def test_short_memory_goes_to_disk_and_is_said(monkeypatch):
    """A box of 512 pixels, padded twice: what one machine of 24 GB does, and one of 128 GB."""
    w = resources.Work(
        n_particles=50_000, n_rows=50_000, box=512, size=512, padding=2.0, n_classes=1, is_3d=True, orientations=300, n_children=8,
        n_offsets=21, coarse_pixels=30_000, significant=10, threads=2, local=True, halves=2,
    )  # fmt: skip
    small, on_disk = resources.memory_of_iteration(w, 22.5e9)
    large, nothing = resources.memory_of_iteration(w, 126e9)
    assert small < 24e9 and on_disk == pytest.approx(2 * np.pi / 6 * blocks.bytes_of_sums(1, 512, 2.0, True), rel=0.03)
    assert large > 40e9 and nothing == 0


def test_what_the_context_decides_is_what_was_estimated(particles, reference, monkeypatch):
    """Lanes side by side and files, decided by the same numbers."""
    job = JOBS["half-sets, local"](particles, reference)
    one = blocks.bytes_of_sums(1, job._work().size, 2.0, True)
    for available in (4e9, 4 * one + resources.WORK_BYTES, 2 * one + resources.WORK_BYTES, 1e9):
        monkeypatch.setattr(blocks, "available_memory", lambda: available)
        context = job._context()
        lanes, on_disk = resources.lanes_in_memory(job._work(), available)
        assert blocks.sums_on_disk(context) == on_disk
        if not on_disk:
            assert np.minimum(blocks.lanes_at_once(context, 4) + 1, 4) >= lanes
