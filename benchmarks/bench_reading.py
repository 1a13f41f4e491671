"""20 000 particles of 128 px in 400 stacks, in shuffled order: bytes read, and time spent waiting, with and without reading ahead.

    python benchmarks/bench_reading.py [--work 0.1]

Blocks of 500 particles, as a job reads them; between two reads stands work of so many seconds per block. "Cold": the stacks
were pushed out of the file system's cache first (Linux).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from cryotk.data import StackSource, read_ahead
from cryotk.io.mrc import write_mrc

N, STACKS, BOX, BLOCK = 20_000, 400, 128, 500


def make(folder: Path) -> StackSource:
    """Write the stacks; particles in shuffled order."""
    rng, per = np.random.default_rng(0), N // STACKS
    for s in range(STACKS):
        write_mrc(folder / f"s{s:03d}.mrcs", rng.standard_normal((per, BOX, BOX), np.float32), 1.0, is_stack=True)
    os.sync()
    return StackSource([f"{i % per + 1}@s{i // per:03d}.mrcs" for i in rng.permutation(N)], folder)


def forget(folder: Path) -> None:
    """Push the stacks out of the cache."""
    for path in folder.glob("*.mrcs"):
        with open(path, "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_read() -> tuple[int, int]:
    """What this process asked for, and what came from the disk."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"]), int(lines["read_bytes"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=float, default=0.1)
    work = parser.parse_args().work
    blocks = np.array_split(np.arange(N), N // BLOCK)
    print(f"pixels: {N * BOX * BOX * 4 / 1e6:.0f} MB, {len(blocks)} blocks, {work} s of work each")
    with tempfile.TemporaryDirectory() as name:
        source = make(Path(name))
        for word, images in (("one after the other", lambda: map(source.read, blocks)), ("reading ahead", lambda: read_ahead(source.read, blocks))):
            for state in ("cold", "warm"):
                if state == "cold":
                    forget(Path(name))
                before, start, cpu = bytes_read(), time.perf_counter(), time.process_time()
                for _ in images():
                    time.sleep(work)
                asked, fetched = (b - a for a, b in zip(before, bytes_read(), strict=True))
                wait = time.perf_counter() - start - len(blocks) * work
                print(f"{word}, {state}: waited {wait:.2f} s, {time.process_time() - cpu:.2f} CPU-s, {asked / 1e6:.0f} MB asked for, "
                      f"{fetched / 1e6:.0f} MB from the disk")  # fmt: skip


if __name__ == "__main__":
    main()
