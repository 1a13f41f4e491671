"""Jobs with maps, and mini-batches, on dask workers: the bits of threads, also when a worker dies in the middle."""

import os
import threading

import numpy as np
import pytest

import cryotk as ctk
from cryotk import execution
from cryotk.execution.device import Lane, on_devices

BOX, PIXEL = 24, 8.0
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def particles():
    return ctk.simulate.particles(60, BOX, PIXEL, snr=0.5, seed=5, poses=True, progress=False)


@pytest.fixture(scope="module")
def reference():
    return ctk.simulate.volume(ctk.simulate.molecule(), BOX, PIXEL)


SETTINGS = {"mask_diameter": 170.0, "initial_lowpass": 40.0, "initial_sampling": 30.0, "offset_range_px": 2.0, "seed": 1}
JOBS = {
    "half-sets": lambda p, r: ctk.Refine3D(p, r, symmetry="D2", **SETTINGS),
    "classes": lambda p, r: ctk.Class3D(p, r, 2, **SETTINGS),
    "initial model": lambda p, r: ctk.InitialModel(
        p, n_batches=4, mask_diameter=170, seed=1, initial_sampling=30, offset_range_px=2
    ),
    "mini-batches in 2D": lambda p, r: ctk.Class2D(
        p, 2, algorithm="vdam", n_batches=4, mask_diameter=170, seed=1, psi_step=15, offset_range_px=2
    ),
}  # fmt: skip


def bits(job):
    it = job.current
    out = [it.model.references.tobytes(), it.assignments.max_probability.values.tobytes(), it.assignments.angle_psi.values.tobytes()]
    return out if it.half2 is None else [*out, it.half2.references.tobytes()]


@pytest.fixture(scope="module")
def on_threads(particles, reference):
    out = {}
    for name, make in JOBS.items():
        job = make(particles, reference)
        job.run(3, progress=False)
        out[name] = bits(job)
    return out


@pytest.fixture
def client():
    # a cluster of its own for every test: what one test kills is no concern of the next
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, distributed.Client(cluster) as c:
        c.wait_for_workers(2, timeout=120)
        execution.use(c)
        try:
            yield c
        finally:
            execution.use(None)


@pytest.mark.parametrize("name", JOBS)
def test_two_worker_processes_give_the_bits_of_threads(name, client, particles, reference, on_threads):
    job = JOBS[name](particles, reference)
    job.run(3, progress=False)
    assert bits(job) == on_threads[name]


@pytest.mark.parametrize("name", JOBS)
def test_a_worker_killed_in_the_middle_costs_its_lanes_only(name, client, particles, reference, on_threads):
    """Killed while it works on a lane of the second iteration; the nanny starts another one."""
    job = JOBS[name](particles, reference)
    job.iterate()
    killed, done = [], []
    pids = dict(client.run(os.getpid))

    def kill_one_that_works():
        while not killed and not done:
            busy = [w for w, tasks in client.processing().items() if tasks and w in pids]
            if busy:
                os.kill(pids[busy[0]], 9)
                killed.append(busy[0])
            threading.Event().wait(0.002)

    killer = threading.Thread(target=kill_one_that_works)
    killer.start()
    job.iterate()
    done.append(True)
    killer.join()
    assert killed
    job.iterate()
    assert bits(job) == on_threads[name]


def test_a_lane_keeps_its_device_on_the_way_to_a_worker(client):
    def which(context, lane, stop, on_block):  # in here, so that it travels by value: workers do not know this module
        return getattr(lane, "device", None), list(lane)

    lanes = on_devices([[np.arange(2)], [np.arange(3)], [np.arange(1)]], ["cuda:0", "cuda:1"])
    assert all(isinstance(lane, Lane) for lane in lanes)
    found = execution.run_lanes(which, {}, lanes)
    assert [device for device, _ in found] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [len(blocks[0]) for _, blocks in found] == [2, 3, 1]


@pytest.mark.parametrize("tile_bytes", [4_000_000, 40_000], ids=["portions", "tiles"])
def test_threads_share_the_parts_of_a_block(particles, reference, monkeypatch, tile_bytes):
    """Where slices are made by block, all particles are one block: the same bits for any number of threads in it."""
    from cryotk.jobs import step
    from cryotk.jobs.blocks import cut_blocks
    from cryotk.kernels.backends import CPU
    from cryotk.likelihood import parts

    monkeypatch.setattr(CPU, "slice_bytes", 0)
    monkeypatch.setattr(CPU, "coarse_bytes", 1_000_000)
    monkeypatch.setattr(parts, "TILE_BYTES", tile_bytes)
    used = []
    in_turns = step.in_turns
    monkeypatch.setattr(step, "in_turns", lambda work, items, threads: used.append(threads) or in_turns(work, items, threads))
    results = []
    for threads in (1, 2, 3):
        job = ctk.Class3D(particles, reference, 2, absolute_greyscale=True, **SETTINGS)
        job.threads = threads
        assert [len(b) for b in cut_blocks(job._context())] == [60]
        used.clear()
        job.run(2, progress=False)
        assert set(used) == ({threads} if threads > 1 else set())
        results.append(bits(job))
    assert results[0] == results[1] == results[2]


def test_blocks_that_make_their_slices_are_few_and_even():
    from cryotk.jobs.blocks import block_size

    assert block_size(500, 400, tiled=True) == 500 and block_size(1000, 400, tiled=True) == 500
    assert block_size(1100, 400, tiled=True) == 367 and block_size(100, 400) == 25


def test_without_alignment_few_particles_are_one_lane(particles, reference):
    """Its blocks are done side by side all the same, and the bits are those of one thread."""
    from cryotk.jobs.blocks import most_lanes

    assert most_lanes(500, 2, 36, 2.0, True, align=False) == 1 and most_lanes(100_000, 2, 36, 2.0, True, align=False) == 4
    assert most_lanes(500, 2, 36, 2.0, True, align=True) == 4 and most_lanes(500, 2, 36, 2.0, False, align=False) == 8
    results = []
    for threads in (1, 2, 3):
        job = ctk.Class3D(particles, [reference, 0.5 * reference], align=False, absolute_greyscale=True, mask_diameter=170.0, seed=1)
        job.threads = threads
        job.run(2, progress=False)
        results.append(bits(job))
    assert results[0] == results[1] == results[2]
