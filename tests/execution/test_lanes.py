"""Lanes: the same bits on threads and on dask workers."""

import os

import numpy as np
import pytest

import cryotk as ctk
from cryotk import execution
from cryotk.errors import ExecutionError
from cryotk.execution.lanes import cut_lanes, tree_sum


def test_lanes_cover_all_blocks_in_order():
    for n in (1, 2, 7, 40):
        assert [b for lane in cut_lanes(n, 8) for b in lane] == list(range(n))


def test_tree_sum_is_fixed():
    assert tree_sum(["a", "b", "c", "d", "e"]) == "abcde"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_dask_workers_give_the_bits_of_threads():
    distributed = pytest.importorskip("distributed")
    particles = ctk.simulate.particles(90, 32, 6.0, seed=3, progress=False)

    def run():
        job = ctk.Class2D(particles, 2, mask_diameter=170, seed=1)
        job.run(2, progress=False)
        return job.classes.values, job.assignments.max_probability.values

    expected = run()
    for workers in (1, 2):
        with distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster, distributed.Client(cluster) as client:
            execution.use(client)
            try:
                got = run()
            finally:
                execution.use(None)
        assert np.array_equal(expected[0], got[0]) and np.array_equal(expected[1], got[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_costs_its_lanes_only(tmp_path):
    distributed = pytest.importorskip("distributed")

    def work(context, lane, stop, on_block):
        with (tmp_path / f"lane{lane[0]}").open("a") as f:
            f.write("x")
        marker = tmp_path / "died"
        if lane[0] == 5 and not marker.exists():
            marker.touch()
            os._exit(9)
        return context["factor"] * sum(lane)

    seen = []
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, distributed.Client(cluster) as client:
        execution.use(client)
        try:
            lanes = [[i] for i in range(10)]
            got = execution.run_lanes(work, {"factor": 3}, lanes, on_block=seen.append)
        finally:
            execution.use(None)
    assert (tmp_path / "died").exists()
    assert got == [3 * i for i in range(10)]
    times = [len((tmp_path / f"lane{i}").read_text()) for i in range(10)]
    assert times[5] >= 2 and min(times) >= 1 and sum(times) <= 18
    assert len(seen) == 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_job_survives_a_killed_worker_with_the_same_bits():
    distributed = pytest.importorskip("distributed")
    particles = ctk.simulate.particles(90, 32, 6.0, seed=3, progress=False)
    job = ctk.Class2D(particles, 2, mask_diameter=170, seed=1)
    job.run(2, progress=False)
    expected = job.classes.values, job.assignments.max_probability.values

    job = ctk.Class2D(particles, 2, mask_diameter=170, seed=1)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, distributed.Client(cluster) as client:
        execution.use(client)
        try:
            job.iterate()
            victim = next(iter(client.run(os.getpid).items()))
            # the worker is gone, its tables and lanes with it, when the next iteration begins
            os.kill(victim[1], 9)
            job.iterate()
        finally:
            execution.use(None)
    assert np.array_equal(expected[0], job.classes.values)
    assert np.array_equal(expected[1], job.assignments.max_probability.values)


@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_always_dies_is_an_error(tmp_path):
    distributed = pytest.importorskip("distributed")

    def work(context, lane, stop, on_block):
        os._exit(9)

    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, distributed.Client(cluster) as client:
        execution.use(client)
        try:
            with pytest.raises(ExecutionError, match="lane 1 of 1"):
                execution.run_lanes(work, {}, [[0]])
        finally:
            execution.use(None)
