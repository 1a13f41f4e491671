"""Lanes: the same bits on threads and on dask workers."""

import numpy as np
import pytest

import cryotk as ctk
from cryotk import execution
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
