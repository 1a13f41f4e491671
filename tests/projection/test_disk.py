"""Accumulators in files do what those in memory do, to the same bits."""

import errno
import shutil

import numpy as np
import pytest

from cryotk.errors import ExecutionError
from cryotk.geometry import symmetry_operators
from cryotk.jobs.half_sets import half_map_fsc, join_low_resolution
from cryotk.projection import Accumulator, DiskAccumulator, padded, scratch_folder, shell_statistics, wiener_reconstruct

N, SIZE = 20, 16


def _filled(seed: int) -> Accumulator:
    rng = np.random.default_rng(seed)
    a = Accumulator(N, SIZE)
    a.weight[:] = rng.uniform(0, 1, a.weight.shape)
    a.data[:] = rng.standard_normal(a.weight.shape) + 1j * rng.standard_normal(a.weight.shape)
    # what slices reach: the corners of all cells that hold points of the sphere
    k, x = np.arange(a.weight.shape[0]) - (a.r_max + 1), np.arange(a.weight.shape[2])
    beyond = k[:, None, None] ** 2 + k[:, None] ** 2 + x**2 > (a.r_max + 3**0.5) ** 2
    a.data[beyond] = a.weight[beyond] = 0
    return a


@pytest.fixture(autouse=True)
def few_planes(monkeypatch, tmp_path):
    """Slabs that do not divide the planes evenly."""
    monkeypatch.setattr(padded, "SLAB_POINTS", 5 * (SIZE * 2 + 3) * (SIZE + 2))
    monkeypatch.setenv("CRYOTK_SCRATCH", str(tmp_path))


@pytest.mark.parametrize("symmetry", ["C1", "D2", "O"])
def test_the_same_bits_as_in_memory(symmetry):
    a, b = _filled(1), _filled(2)
    on_disk = [DiskAccumulator(x) for x in (a, b)]
    pair = [a, b]
    for x in (*pair, *on_disk):
        x.symmetrise(symmetry_operators(symmetry))
    for x, y in zip(pair, on_disk, strict=True):
        assert np.array_equal(x.data, y.data) and np.array_equal(x.weight, y.weight)
    join_low_resolution(*pair, 4)
    join_low_resolution(*on_disk, 4)
    assert np.array_equal(a.data, on_disk[0].data) and np.array_equal(b.weight, on_disk[1].weight)
    assert np.array_equal(half_map_fsc(*pair), half_map_fsc(*on_disk))
    power = np.exp(-np.arange(N // 2 + 1.0))
    assert np.array_equal(wiener_reconstruct(a, power), wiener_reconstruct(on_disk[0], power))
    assert np.array_equal(shell_statistics(a, power).data_vs_prior, shell_statistics(on_disk[0], power).data_vs_prior)


def test_sums():
    a, b, c = _filled(1), _filled(2), _filled(3)
    total = DiskAccumulator(a)
    total += b
    total += DiskAccumulator(c)
    whole = (a + b) + c
    assert np.array_equal(total.data, whole.data) and np.array_equal(total.weight, whole.weight)


def test_nothing_is_left_behind(tmp_path):
    on_disk = DiskAccumulator(_filled(1))
    assert not any(tmp_path.iterdir())
    del on_disk


def test_a_full_disk_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ExecutionError, match="CRYOTK_SCRATCH"):
        scratch_folder(1e6)
    monkeypatch.undo()
    on_disk = DiskAccumulator(_filled(1), tmp_path)

    class Full:
        def seek(self, offset):
            pass

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    on_disk._file.close()
    on_disk._file = Full()
    with pytest.raises(ExecutionError, match="CRYOTK_SCRATCH"):
        on_disk.put_planes(0, 1, np.zeros((1, *on_disk.shape[1:]), complex), np.zeros((1, *on_disk.shape[1:])))
