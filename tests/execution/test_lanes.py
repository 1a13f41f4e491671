"""Lanes: the same bits on threads and on dask workers."""

import os
import threading
import time

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


def test_lanes_come_in_order_and_few_at_a_time():
    alive, most, lock = set(), [0], threading.Lock()

    class Result:
        def __init__(self, i):
            self.i = i
            with lock:
                alive.add(i)
                most[0] = max(most[0], len(alive))

        def __del__(self):
            with lock:
                alive.discard(self.i)

    def work(context, lane, stop, on_block):
        time.sleep(0.02 * (lane[0] % 2))
        return Result(lane[0])

    for threads in (1, 2, 3):
        most[0], seen = 0, []
        for part in execution.each_lane(work, None, [[i] for i in range(8)], threads=threads):
            seen.append(part.i)
            del part
        assert seen == list(range(8))
        # those under way, and the one handed over
        assert most[0] <= threads + 1


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_blocks_are_added_in_turn(threads):
    added, working, most = [], set(), [0]

    def work(i, ready):
        working.add(i)
        most[0] = max(most[0], len(working))
        time.sleep(0.01 * ((7 * i) % 3))
        ready()
        added.append(i)
        working.discard(i)
        return i * i

    assert execution.in_turns(work, iter(range(20)), threads) == [i * i for i in range(20)]
    assert added == list(range(20))
    assert most[0] == threads


def test_a_failing_block_ends_the_lane():
    def work(i, ready):
        if i == 3:
            time.sleep(0.05)
            raise ZeroDivisionError
        ready()

    with pytest.raises(ZeroDivisionError):
        execution.in_turns(work, range(10), 3)


def test_available_memory_minds_the_control_group(tmp_path):
    from cryotk.execution import memory

    assert 1e8 < memory.available_memory() < 1e14
    assert memory._group(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory._group(tmp_path) is None
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory._group(tmp_path) == 4000


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


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_without_workers_is_said(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("cryotk.execution.lanes.WORKER_TIMEOUT", 0.5)
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster, distributed.Client(cluster) as client:
        execution.use(client)
        try:
            with pytest.raises(ExecutionError, match=r"had no worker.*cluster.scale"):
                execution.run_lanes(lambda c, lane, s, b: 0, {}, [[0]])
        finally:
            execution.use(None)
