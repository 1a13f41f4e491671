"""Reading pixels: only what is asked for, in one go where neighbours are asked for, the next block ahead of time."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from cryotk.data import StackSource, read_ahead
from cryotk.errors import DataError
from cryotk.io.mrc import read_header, read_images, write_mrc

BOX, PER, STACKS = 64, 20, 6


@pytest.fixture
def stacks(tmp_path):
    pixels = np.random.default_rng(0).normal(size=(STACKS * PER, BOX, BOX)).astype(np.float32)
    for s in range(STACKS):
        write_mrc(tmp_path / f"{s}.mrcs", pixels[s * PER : (s + 1) * PER], 1.0, is_stack=True)
    order = np.random.default_rng(1).permutation(len(pixels))
    return StackSource([f"{i % PER + 1}@{i // PER}.mrcs" for i in order], tmp_path), pixels[order]


def test_shuffled_over_many_stacks(stacks):
    source, pixels = stacks
    rows = np.random.default_rng(2).permutation(len(pixels))[:50]
    np.testing.assert_array_equal(source.read(rows), pixels[rows])
    np.testing.assert_array_equal(source.read(np.array([3, 3, 0])), pixels[[3, 3, 0]])
    assert source.read(np.empty(0, int)).shape == (0, BOX, BOX)


def _bytes_read() -> int:
    return int(next(t.split()[1] for t in Path("/proc/self/io").read_text().splitlines() if t.startswith("rchar")))


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes as Linux does")
def test_no_byte_more_than_the_pixels(stacks):
    source, _pixels = stacks
    blocks = np.array_split(np.random.default_rng(3).permutation(source.n), 7)
    source.read(blocks[0])  # headers are known from now on
    before = _bytes_read()
    for block in blocks:
        source.read(block)
    assert _bytes_read() - before < source.n * BOX * BOX * 4 + 3000  # and /proc/self/io itself


def test_neighbours_are_read_in_one_go(stacks, monkeypatch):
    source, pixels = stacks
    from cryotk.io import mrc

    calls = []
    fill = mrc._fill
    monkeypatch.setattr(mrc, "_fill", lambda f, array, path: (calls.append(len(array)), fill(f, array, path)))
    header = read_header(source.start / "2.mrcs")
    index = np.array([7, 5, 6, 15, 4, 5])
    read = read_images(header, index)
    assert sorted(calls) == [1, 1, 4] or sorted(calls) == [1, 2, 3]
    by_name = {(int(f), int(n)): i for i, (f, n) in enumerate(zip(source.file_of, source.numbers, strict=True))}
    file = source.files.index("2.mrcs")
    np.testing.assert_array_equal(read, pixels[[by_name[file, int(k)] for k in index]])


def test_file_that_shrinks_meanwhile(stacks):
    source, _pixels = stacks
    header = read_header(source.start / "0.mrcs")
    with open(header.path, "r+b") as f:
        f.truncate(1024 + 3 * BOX * BOX * 4 + 100)
    with pytest.raises(DataError, match="became shorter"):
        read_images(header, np.arange(5))


def test_read_ahead(stacks):
    source, pixels = stacks
    blocks = np.array_split(np.arange(source.n), 5)
    begun, threads = [], set()

    def read(block):
        begun.append(int(block[0]))
        threads.add(threading.current_thread().name)
        return source.read(block)

    seen = 0
    for block, images in zip(blocks, read_ahead(read, blocks), strict=True):
        np.testing.assert_array_equal(images, pixels[block])
        seen += 1
        assert len(begun) <= seen + 1, "one block ahead, no more"
    assert begun == [int(b[0]) for b in blocks] and all(t.startswith("cryotk-reader") for t in threads)
    assert list(read_ahead(read, [])) == []


def test_read_ahead_hands_errors_on():
    def read(i: int) -> int:
        if i == 2:
            raise DataError("particle 3 is broken")
        return i

    got = []
    with pytest.raises(DataError, match="particle 3"):
        for i in read_ahead(read, range(5)):
            got.append(i)
    assert got == [0, 1]
    ahead = read_ahead(read, range(2))
    assert next(ahead) == 0
    ahead.close()  # a run that is stopped
