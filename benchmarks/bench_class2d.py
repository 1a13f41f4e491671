"""Class2D against relion_refine on the same particles and cores: wall and CPU seconds per iteration, as ratios in one run."""

import argparse
import os
import re
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path


def ours(star, k, iterations, threads):
    import cryotk as ctk

    particles = ctk.open_particles(star)
    ctk.Class2D(particles.isel(particle=slice(0, 60)), 2, seed=1).run(2, progress=False)  # compile
    job = ctk.Class2D(particles, k, seed=1, n_iterations=iterations)
    job.threads = threads
    _ = job.current
    wall, cpu = [], []
    for _ in range(iterations):
        w, c = time.perf_counter(), time.process_time()
        e = job.expectation()
        job.maximization(e)
        wall.append(time.perf_counter() - w)
        cpu.append(time.process_time() - c)
    n = job.current.numbers
    print("profile of the last iteration, thread-seconds:", {a: round(b, 4) for a, b in e.seconds.items()})
    print(f"cryotk's first iteration, from a random start: {wall[0]:.2f} s wall, {cpu[0]:.2f} CPU-s (taken off on both sides)")
    return sum(wall[1:]), sum(cpu[1:]), n["average_p_max"], n["mean_significant"]


def relion(star, k, iterations, threads):
    star = Path(star).resolve()
    project = star.parent.parent
    with tempfile.TemporaryDirectory() as folder:

        def run(n):
            command = [
                "relion_refine", "--i", str(star.relative_to(project)), "--o", f"{folder}/run", "--K", str(k), "--iter", str(n), "--tau2_fudge", "2",
                "--particle_diameter", "200", "--ctf", "--ctf_corrected_ref", "--zero_mask", "--center_classes", "--psi_step", "12",
                "--offset_range", "5", "--offset_step", "2", "--oversampling", "1", "--flatten_solvent", "--norm", "--scale",
                "--dont_combine_weights_via_disc", "--pool", "30", "--pad", "2", "--preread_images", "--j", str(threads), "--random_seed", "1",
            ]  # fmt: skip
            w, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, cwd=project, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return time.perf_counter() - w, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        base, full = run(1), run(iterations)
        text = Path(f"{folder}/run_it{iterations:03d}_model.star").read_text()
        from cryotk.io import read_star

        table = read_star(f"{folder}/run_it{iterations:03d}_data.star")["particles"]
        significant = float(table["rlnNrOfSignificantSamples"].mean())
    p_max = float(re.search(r"_rlnAveragePmax\s+(\S+)", text)[1])
    return full[0] - base[0], full[1] - base[1], p_max, significant


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("star")
    parser.add_argument("-k", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    from threadpoolctl import threadpool_info

    a = ours(args.star, args.k, args.iterations, args.threads)
    print("BLAS:", {p.get("architecture") for p in threadpool_info()}, "threads:", args.threads, "OPENBLAS_CORETYPE:", os.environ.get("OPENBLAS_CORETYPE"))
    print(f"cryotk: {a[0]:.2f} s wall, {a[1]:.2f} CPU-s for {args.iterations - 1} iterations; P_max {a[2]:.3f}, significant {a[3]:.1f}")
    if shutil.which("relion_refine"):
        b = relion(args.star, args.k, args.iterations, args.threads)
        m = args.iterations - 1
        print(f"relion_refine: {b[0]:.2f} s wall, {b[1]:.2f} CPU-s for {m} iterations (start-up and the first taken off); P_max {b[2]:.3f}, significant {b[3]:.1f}")
        print(f"ratio per iteration: wall {b[0] / a[0]:.1f}, CPU {b[1] / a[1]:.1f}")


if __name__ == "__main__":
    main()
