"""STAR files: one million rows x 26 columns, read and written, beside the starfile package. Run: python benchmarks/bench_star.py [rows]."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COLUMNS = 26


def make(path: Path, rows: int) -> None:
    """Write a table of 3 text, 3 integer and 20 floating-point columns."""
    from cryotk.io.star import StarBlock, write_star

    rng = np.random.default_rng(0)
    i = np.arange(rows)
    table: dict[str, np.ndarray] = {
        "rlnImageName": np.array([f"{k % 300 + 1:06d}@Extract/job018/Movies/frame_{k // 300:05d}.mrcs" for k in i], object),
        "rlnMicrographName": np.array([f"MotionCorr/job002/Movies/frame_{k // 300:05d}.mrc" for k in i], object),
        "rlnGroupName": np.array([f"group_{k // 3000:04d}" for k in i], object),
        "rlnOpticsGroup": np.ones(rows, int), "rlnClassNumber": rng.integers(1, 50, rows), "rlnRandomSubset": rng.integers(1, 3, rows),
        "rlnDefocusU": rng.uniform(5e3, 3e4, rows), "rlnDefocusV": rng.uniform(5e3, 3e4, rows),
        "rlnLogLikeliContribution": rng.uniform(1e5, 2e5, rows),
    }  # fmt: skip
    for k in range(COLUMNS - len(table)):
        table[f"rlnAngle{k}"] = rng.uniform(-180, 180, rows)
    write_star(path, {"optics": StarBlock("optics", {"rlnOpticsGroup": np.array([1])}), "particles": StarBlock("particles", table)})


STEPS = {
    "cryotk read": "from cryotk.io.star import read_star; import pandas; START(); b = read_star(P)",
    "starfile read": "import starfile; START(); b = starfile.read(P)",
    "cryotk write": "from cryotk.io.star import read_star, write_star; b = read_star(P); START(); write_star(P + '.w', b)",
    "starfile write": "import starfile; b = starfile.read(P); START(); starfile.write(b, P + '.w', overwrite=True)",
}


def run(step: str, path: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak megabytes of a step in a process of its own."""
    code = f"""
import resource, time
P = {str(path)!r}
def START():
    global T, C
    T, C = time.perf_counter(), time.process_time()
{STEPS[step].replace("; ", chr(10))}
print(time.perf_counter() - T, time.process_time() - C, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return float(out[-3]), float(out[-2]), float(out[-1])


def main() -> None:
    """Print seconds, peak memory and ratios."""
    rows = int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {rows} rows x {COLUMNS} columns")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.star"
        start = time.perf_counter()
        make(path, rows)
        print(f"{path.stat().st_size / 1e6:.0f} MB, made in {time.perf_counter() - start:.1f} s")
        got = {step: run(step, path) for step in STEPS}
    for step, (seconds, cpu, memory) in got.items():
        print(f"{step:16s} {seconds:7.2f} s   CPU {cpu:6.2f} s   peak {memory:6.0f} MB")
    for what in ("read", "write"):
        ours, theirs = got["cryotk " + what], got["starfile " + what]
        print(f"{what}: {theirs[0] / ours[0]:.1f} times as fast as starfile, {theirs[1] / ours[1]:.1f} times less CPU")


if __name__ == "__main__":
    main()
