"""Passes of the expectation step on a CUDA card: particles per second, and the share of the card's matrix-product rate.

    python benchmarks/bench_gpu.py                       # 4000 simulated particles of 128 px, 50 classes
    python benchmarks/bench_gpu.py particles.star -k 100

Needs cupy and a card. The passes are timed one at a time, each waited for; the last line is the step as it runs. The rates that
they are compared with are those of cuBLAS on the same card in the same run: float32, and TF32 for scale (cryotk computes in float32).
"""

import argparse
import os
import subprocess
import sys
import time

import numpy as np

from cryotk.errors import SettingsError
from cryotk.execution.device import device_backend, resolve_device


def gemm_rate(backend, m, n, k, seconds=1.0):
    """Floating-point operations per second of a float32 matrix product (m, k) x (k, n)."""
    xp = backend.xp
    with backend.use():
        a, b = xp.ones((m, k), np.float32), xp.ones((n, k), np.float32)
        a @ b.T
        backend.synchronize()
        count, clock = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - clock < seconds:
            a @ b.T
            backend.synchronize()
            count += 1
        return 2.0 * m * n * k * count / (time.perf_counter() - clock)


def tf32_rate(device, size):
    """The same with TF32, in a process of its own: cupy reads the setting when it is imported; None where that fails."""
    command = [sys.executable, __file__, "--device", device, "--gemm", str(size)]
    done = subprocess.run(command, env=os.environ | {"CUPY_TF32": "1"}, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def work(context):
    """Floating-point operations of the coarse product per particle, and its shape."""
    tables = context.step.tables[0]
    n_offsets, _, n_pixels = tables.coarse_ramps.shape
    n_columns = len(tables.coarse.real)
    return 2.0 * 2 * n_offsets * n_columns * n_pixels, (n_offsets, n_columns, n_pixels)


def measure(particles, k, device, mask_diameter, gemm=8192, more=None):
    """Print the table; returns {pass: particles per second}."""
    import cryotk as ctk
    from cryotk.jobs.blocks import cut_blocks
    from cryotk.jobs.step import run_expectation

    job = ctk.Class2D(particles, k, mask_diameter=mask_diameter, seed=1, device=device, **(more or {}))
    job.run(2, progress=False)  # compiles, and classes begin to differ
    context = job._context()
    backend, n = context.backend, context.data.n
    clock = time.perf_counter()
    step = context.step
    backend.synchronize()
    tables_seconds = time.perf_counter() - clock
    step.timed = True
    e = run_expectation(context, threads=1)
    seconds = dict(e.seconds)
    step.timed = False
    clock = time.perf_counter()
    run_expectation(context)
    whole = time.perf_counter() - clock
    flops, (n_offsets, n_columns, n_pixels) = work(context)
    block = len(cut_blocks(context)[0])
    at_once = max(1, min(block, backend.coarse_bytes // (n_offsets * n_columns * 16)))
    same, square = gemm_rate(backend, at_once * n_offsets, n_columns, n_pixels), gemm_rate(backend, gemm, gemm, gemm)
    tf32 = tf32_rate(device, gemm)
    print(f"{n} particles of {context.data.optics[0].box_size} px, window {context.size} px, K = {k}, blocks of {block}; "
          f"mean P_max {e.p_max.mean():.3f}, {e.n_significant.mean():.1f} significant samples; tables {tables_seconds:.3f} s")  # fmt: skip
    rates = {name: n / s for name, s in seconds.items() if s > 0}
    for name, s in seconds.items():
        print(f"  {name:11s} {s:8.3f} s {n / max(s, 1e-9):12.0f} particles/s")
    coarse = flops * n / max(seconds["coarse"], 1e-9)
    print(f"  whole step  {whole:8.3f} s {n / whole:12.0f} particles/s")
    print(f"float32 matrix product: {same / 1e12:.2f} TFLOP/s at the coarse pass's shape, {square / 1e12:.2f} at {gemm}^3")
    print("TF32 at the same size: " + (f"{tf32 / 1e12:.2f} TFLOP/s" if tf32 else "not measured"))
    print(f"coarse pass (products and selection): {coarse / 1e12:.2f} TFLOP/s = {coarse / same:.0%} of the product of its shape, "
          f"{coarse / square:.0%} of the large one" + (f", {coarse / tf32:.0%} of TF32" if tf32 else ""))  # fmt: skip
    return rates | {"whole": n / whole}


def main(arguments=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("star", nargs="?", help="particles; simulated where none are given")
    parser.add_argument("-k", type=int, default=50)
    parser.add_argument("-n", type=int, default=4000, help="simulated particles")
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--mask-diameter", type=float, default=200.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--gemm", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    try:
        device = resolve_device(args.device)
    except SettingsError as error:
        print(f"No card, nothing measured: {error}")
        return 1
    if device == "cpu":
        print("No card, nothing measured: this benchmark is about CUDA devices; bench_class2d.py measures the CPU")
        return 1
    if args.gemm:
        print(gemm_rate(device_backend(device), args.gemm, args.gemm, args.gemm))
        return 0
    import cupy

    import cryotk as ctk

    name = cupy.cuda.runtime.getDeviceProperties(int(device.partition(":")[2]))["name"]
    print(f"{device}: {name.decode() if isinstance(name, bytes) else name}, cupy {cupy.__version__}")
    particles = ctk.open_particles(args.star) if args.star else ctk.simulate.particles(args.n, args.box, 3.5 * 64 / args.box, seed=1)
    measure(particles, args.k, device, args.mask_diameter)
    return 0


if __name__ == "__main__":
    sys.exit(main())
