"""The coarse pass against sgemm of the same shapes in the same process, on one thread: its rate as a share of sgemm's."""

import argparse
import os
import time

import numpy as np


def products(a, w, coarse):
    """The matrix products of the coarse pass and nothing else."""
    a @ coarse.real.T
    a @ coarse.imag.T
    w @ coarse.half_power.T


def best(n, function, *arguments):
    """Shortest of n times, after one call that does not count."""
    function(*arguments)
    times = []
    for _ in range(n):
        t = time.thread_time()
        function(*arguments)
        times.append(time.thread_time() - t)
    return min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("star")
    parser.add_argument("-k", type=int, nargs="+", default=[6, 50])
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    from threadpoolctl import threadpool_info, threadpool_limits

    import cryotk as ctk
    from cryotk.kernels.coarse_rows import shifted_rows
    from cryotk.likelihood.coarse import coarse_global

    particles = ctk.open_particles(args.star)
    for k in args.k:
        job = ctk.Class2D(particles, k, mask_diameter=200, seed=1)
        job.run(args.iterations, progress=False)
        context = job.expectation().context
        step, block = context.step, context.prepare(np.arange(250))
        tables = step.tables[0]
        prior = step._log_prior_offsets(block, tables, None)
        c, pixels = tables.coarse, len(tables.coarse_pixels)
        n_offsets = len(tables.coarse_ramps)
        rows = len(block.particles) * n_offsets
        a = np.random.default_rng(1).normal(size=(rows, pixels)).astype(np.float32)
        images = np.ascontiguousarray(block.score_image[:, :, tables.coarse_pixels])
        real = np.empty((len(images), n_offsets, pixels), np.float32)
        imag = np.empty_like(real)

        with threadpool_limits(1):
            whole = best(
                args.repeat, coarse_global, block, tables, step.sampling, step.options, step.log_prior_orientation, prior
            )
            gemm = best(args.repeat, products, a, a[: len(block.particles)], c)
            shifts = best(args.repeat, shifted_rows, images, tables.coarse_ramps, real, imag)
        flops = 2 * (2 * rows + len(images)) * pixels * len(c.real)
        print(
            f"K = {k}: {rows} x {pixels} x {len(c.real)}, twice; coarse pass {1e3 * whole:.1f} ms = {flops / whole / 1e9:.1f} GFLOP/s, "
            f"sgemm alone {1e3 * gemm:.1f} ms = {flops / gemm / 1e9:.1f} GFLOP/s: {100 * gemm / whole:.0f} % of its rate "
            f"(shifts {1e3 * shifts:.1f} ms, the rest is the selection)"
        )
    print("BLAS:", {p.get("architecture") for p in threadpool_info()}, "OPENBLAS_CORETYPE:", os.environ.get("OPENBLAS_CORETYPE"))


if __name__ == "__main__":
    main()
