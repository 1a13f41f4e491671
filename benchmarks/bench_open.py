"""Opening 100 000 particles in 400 stacks, reading one, some, and all through the image source. Run: python benchmarks/bench_open.py."""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

N, STACKS, BOX = 100_000, 400, 64


def make(folder: Path) -> Path:
    """Write sparse stacks and a table."""
    from cryotk.io.mrc import write_mrc
    from cryotk.io.star import StarBlock, write_star

    per = N // STACKS
    for s in range(STACKS):
        path = folder / f"s{s:03d}.mrcs"
        write_mrc(path, np.zeros((1, BOX, BOX)), 1.0, is_stack=True)
        with open(path, "r+b") as f:
            f.seek(8)
            f.write(np.int32(per).tobytes())
            f.truncate(1024 + per * BOX * BOX * 4)
    names = np.array([f"{i % per + 1:06d}@s{i // per:03d}.mrcs" for i in range(N)], object)
    optics = {
        "rlnOpticsGroup": [1],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnImagePixelSize": [1.0],
        "rlnImageSize": [BOX],
    }
    particles = {
        "rlnImageName": names,
        "rlnOpticsGroup": np.ones(N, int),
        "rlnDefocusU": np.full(N, 1e4),
        "rlnDefocusV": np.full(N, 9e3),
    }
    write_star(folder / "p.star", {"optics": StarBlock("optics", optics), "particles": StarBlock("particles", particles)})
    return folder / "p.star"


def main() -> None:
    """Print times and memory."""
    from cryotk.data import image_source, open_particles

    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder))
        open_particles(path)
        start = time.perf_counter()
        p = open_particles(path)
        print(f"open {N} particles in {STACKS} stacks: {time.perf_counter() - start:.2f} s")
        tracemalloc.start()
        before = open_particles(path, images=False)
        table = tracemalloc.get_traced_memory()[0]
        after = open_particles(path)
        print(f"memory: table {table / 1e6:.1f} MB, images {(tracemalloc.get_traced_memory()[0] - 2 * table) / 1e6:.1f} MB")
        tracemalloc.stop()
        del before, after
        for label, action in (
            ("one particle through xarray", lambda: p["images"][54_321].values),
            ("100 neighbours through xarray", lambda: p["images"][1000:1100].values),
        ):
            action()
            start = time.perf_counter()
            action()
            print(f"{label}: {1e3 * (time.perf_counter() - start):.1f} ms")
        source = image_source(p)
        rng = np.random.default_rng(0)
        for label, order in (("in order", np.arange(N)), ("shuffled", rng.permutation(N))):
            start = time.perf_counter()
            for block in np.array_split(order, 100):
                source.read(block)
            seconds = time.perf_counter() - start
            print(f"all through the image source, {label}: {seconds:.2f} s, {N * BOX * BOX * 4 / seconds / 1e9:.2f} GB/s")
        start = time.perf_counter()
        report = p.cryo.validate()
        print(f"validate: {time.perf_counter() - start:.2f} s, {len(report.errors)} errors")


if __name__ == "__main__":
    main()
