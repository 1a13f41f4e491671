"""Passes of the expectation step on a CUDA card: particles per second, and the share of the card's matrix-product rate.

    python benchmarks/bench_gpu.py                       # 4000 simulated particles of 128 px: 50 classes; global; local
    python benchmarks/bench_gpu.py --only class2d particles.star -k 100

Needs cupy and a card. The passes are timed one at a time, each waited for; the last line is the step as it runs, and the same step on the
CPU with ``--cpu``. The rates that they are compared with are those of cuBLAS on the same card in the same run: float32, and TF32 for scale
(cryotk computes in float32). ``--kernels`` adds the time of each kernel on the card.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time

import numpy as np

from cryotk.errors import SettingsError
from cryotk.execution.device import device_backend, resolve_device

CASES = ("class2d", "global", "local")


def gemm_rate(backend, m, n, k, seconds=1.0):
    """Floating-point operations per second of a float32 matrix product (m, k) x (k, n)."""
    xp = backend.xp
    with backend.use():
        a, b = (xp.asarray(np.random.default_rng(0).normal(size=s).astype(np.float32)) for s in ((m, k), (n, k)))
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


@contextlib.contextmanager
def kernel_times(backend, enabled):
    """{kernel: [milliseconds of each launch]}, filled at the end; measured on the card between two events."""
    from cryotk.kernels._cuda import Gpu

    out, events, launch = {}, [], Gpu.launch
    if not enabled:
        yield out
        return

    def timed(self, source, name, *arguments):
        first, last = (backend.xp.cuda.Event() for _ in range(2))
        first.record()
        launch(self, source, name, *arguments)
        last.record()
        events.append((name, first, last))

    Gpu.launch = timed
    try:
        yield out
    finally:
        Gpu.launch = launch
        backend.synchronize()
        for name, first, last in events:
            out.setdefault(name, []).append(backend.xp.cuda.get_elapsed_time(first, last))


def work(context):
    """Floating-point operations of the coarse product per particle, and its shape."""
    tables = context.step.tables[0]
    n_offsets, _, n_pixels = tables.coarse_ramps.shape
    n_columns = len(tables.coarse.real)
    return 2.0 * 2 * n_offsets * n_columns * n_pixels, (n_offsets, n_columns, n_pixels)


def make_job(case, particles, k, device, mask_diameter, map_=None, more=None):
    """A job whose next iteration is that of the case."""
    import cryotk as ctk

    more = {"mask_diameter": mask_diameter, "seed": 1, "device": device} | (more or {})
    if case == "class2d":
        return ctk.Class2D(particles, k, **more)
    more |= {"absolute_greyscale": True}
    if case == "global":
        return ctk.Class3D(particles, [map_, 0.9 * map_], 2, **({"initial_sampling": 7.5, "initial_lowpass": 14.0} | more))
    local = {"initial_sampling": 1.8, "initial_lowpass": 6.8, "offset_range_px": 3.0, "local_search_range": 11.0}
    return ctk.Class3D(particles, [map_, 0.9 * map_], 2, **(local | more))


def step_seconds(job):
    """Wall seconds of an expectation step and of the maximisation after it."""
    clock = time.perf_counter()
    e = job.expectation()
    middle = time.perf_counter()
    job.maximization(e)
    return middle - clock, time.perf_counter() - middle


def measure(particles, k, device, mask_diameter, gemm=8192, more=None, case="class2d", map_=None, kernels=False, cpu=False):
    """Print the table; returns {pass: particles per second}."""
    from cryotk.jobs.blocks import cut_blocks
    from cryotk.jobs.step import run_expectation

    job = make_job(case, particles, k, device, mask_diameter, map_, more)
    # compiles, and classes begin to differ
    job.run(2 if case == "class2d" else 1, progress=False)
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
    with kernel_times(backend, kernels) as of_kernel:
        if kernels:
            run_expectation(context, threads=1)
    block = len(cut_blocks(context)[0])
    print(f"{case}: {n} particles of {context.data.optics[0].box_size} px, window {context.size} px, K = {context.model.n_classes}, blocks of {block}; "
          f"mean P_max {e.p_max.mean():.3f}, {e.n_significant.mean():.1f} significant samples; tables {tables_seconds:.3f} s")  # fmt: skip
    rates = {name: n / s for name, s in seconds.items() if s > 0}
    for name, s in seconds.items():
        print(f"  {name:11s} {s:8.3f} s {n / max(s, 1e-9):12.0f} particles/s")
    print(f"  whole step  {whole:8.3f} s {n / whole:12.0f} particles/s")
    if kernels:
        for name, ms in sorted(of_kernel.items(), key=lambda v: -sum(v[1])):
            print(f"    {name:28s} {sum(ms) / 1e3:8.4f} s in {len(ms)} launches, the longest {max(ms):.3f} ms")
    e_seconds, m_seconds = step_seconds(job)
    print(f"  an iteration: tables and expectation {e_seconds:.3f} s, maximisation (on the host) {m_seconds:.3f} s")
    if case != "local":
        flops, (n_offsets, n_columns, n_pixels) = work(context)
        at_once = max(1, min(block, backend.coarse_bytes // (n_offsets * n_columns * 16)))
        same, square = gemm_rate(backend, at_once * n_offsets, n_columns, n_pixels), gemm_rate(backend, gemm, gemm, gemm)
        tf32 = tf32_rate(device, gemm)
        coarse = flops * n / max(seconds["coarse"], 1e-9)
        print(f"float32 matrix product: {same / 1e12:.2f} TFLOP/s at the coarse pass's shape ({at_once * n_offsets} x {n_columns} x {n_pixels}), "
              f"{square / 1e12:.2f} at {gemm}^3; TF32 " + (f"{tf32 / 1e12:.2f}" if tf32 else "not measured"))  # fmt: skip
        print(f"coarse pass (products and selection): {coarse / 1e12:.2f} TFLOP/s = {coarse / same:.0%} of the product of its shape, "
              f"{coarse / square:.0%} of the large one" + (f", {coarse / tf32:.0%} of TF32" if tf32 else ""))  # fmt: skip
    if cpu:
        on_host = make_job(case, particles, k, "cpu", mask_diameter, map_, more)
        on_host.run(2 if case == "class2d" else 1, progress=False)
        host = step_seconds(on_host)
        print(f"  the same on the CPU, {os.cpu_count()} cores: expectation {host[0]:.2f} s, maximisation {host[1]:.2f} s; ratio {host[0] / e_seconds:.1f}")
    return rates | {"whole": n / whole}


def main(arguments=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("star", nargs="?", help="particles (for class2d); simulated where none are given")
    parser.add_argument("-k", type=int, default=50)
    parser.add_argument("-n", type=int, default=4000, help="simulated particles")
    parser.add_argument("--times", type=int, default=1, help="use the particles so many times over")
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--mask-diameter", type=float, default=200.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", choices=CASES, nargs="*")
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="the same step on the CPU too")
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
    pixel = 3.5 * 64 / args.box
    source = ctk.simulate.particles(args.n, args.box, pixel, seed=1, progress=False)
    map_ = ctk.simulate.volume(ctk.simulate.molecule(), args.box, pixel, amplitude=source.attrs["amplitude"])
    for case in args.only or ([CASES[0]] if args.star else CASES):
        particles = ctk.open_particles(args.star) if args.star else source
        if case == "local":
            poses = {f"angle_{a}": ("particle", source[f"true_angle_{a}"].values) for a in ("rot", "tilt", "psi")}
            particles = source.assign(poses | {f"shift_{a}": ("particle", source[f"true_shift_{a}"].values) for a in "xy"})
        if args.times > 1:
            particles = ctk.concat([particles] * args.times)
        measure(particles, args.k, device, args.mask_diameter, case=case, map_=map_, kernels=args.kernels, cpu=args.cpu)
    return 0


if __name__ == "__main__":
    sys.exit(main())
