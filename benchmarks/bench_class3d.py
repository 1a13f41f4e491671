"""Class3D on two_states with and without alignment: right classes, and CPU-seconds per iteration against relion_refine."""

import argparse
import os
import re
import resource
import shutil
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np


def ours(root, align, seed, iterations, threads, references, **more):
    """One run: CPU-seconds of the late iterations, the share of right classes, the last numbers."""
    import cryotk as ctk

    folder = root / "two_states"
    truth = np.asarray(next(iter(ctk.io.read_star(folder / "truth.star").values()))["rlnClassNumber"], int)
    star = folder / ("particles.star" if align else "particles_true.star")
    job = ctk.Class3D(
        star, references, 2, align=align, initial_lowpass=40, absolute_greyscale=True, offset_range_px=3, seed=seed, n_iterations=iterations, **more
    )
    job.threads = threads
    cpu, wall = [], []
    while job.iteration < iterations:
        c, w = time.process_time(), time.perf_counter()
        e = job.expectation()
        job.maximization(e)
        cpu.append(time.process_time() - c)
        wall.append(time.perf_counter() - w)
    right = float((job.assignments.class_number.values == truth).mean())
    return cpu, wall, max(right, 1 - right), job, e.seconds


def known_maps(root):
    """Right classes of a classifier that knows the true maps and poses: the best any run without alignment can reach."""
    import cryotk as ctk

    folder = root / "two_states"
    truth = np.asarray(next(iter(ctk.io.read_star(folder / "truth.star").values()))["rlnClassNumber"], int)
    job = ctk.Class3D(
        folder / "particles_true.star", [folder / f"truth_class{i}.mrc" for i in (1, 2)], 2, align=False, initial_lowpass=None, absolute_greyscale=True, seed=1
    )
    job.iterate()
    return float((job.assignments.class_number.values == truth).mean())


def relion(root, align, iterations):
    """CPU-seconds per iteration of Debian's relion_refine, start-up and first iteration taken off, and its last numbers."""
    with tempfile.TemporaryDirectory() as work:

        def run(n):
            command = ["relion_refine", "--i", "two_states/particles.star" if align else "two_states/particles_true.star", "--o", f"{work}/run", "--ref", "two_states/refs2.star",
                       "--ini_high", "40", "--iter", str(n), "--K", "2", "--tau2_fudge", "4", "--ctf", "--ctf_corrected_ref", "--particle_diameter", "200", "--flatten_solvent",
                       "--zero_mask", "--oversampling", "1", "--norm", "--scale", "--sym", "C1", "--pad", "2", "--pool", "30", "--preread_images", "--dont_combine_weights_via_disc",
                       "--random_seed", "1", "--j", "1"]  # fmt: skip
            command += ["--healpix_order", "2", "--offset_range", "3", "--offset_step", "2"] if align else ["--skip_align"]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        first, all_ = run(1), run(iterations)
        text = Path(f"{work}/run_it{iterations:03d}_model.star").read_text()
        p_max = float(re.search(r"_rlnAveragePmax\s+(\S+)", text)[1])
        return (all_ - first) / (iterations - 1), p_max


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--iterations", type=int, default=25)
    parser.add_argument("--relion-iterations", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-relion", action="store_true")
    parser.add_argument("--only", choices=["none", "align"], default=None)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    root = args.reference
    two = [root / "two_states" / f"truth_class{i}.mrc" for i in (1, 2)]
    print("load:", os.getloadavg(), "threads:", args.threads)
    print(f"a classifier that knows the true maps and poses: {known_maps(root):.3f} right")
    for align in [a for a in (False, True) if args.only is None or args.only == ("align" if a else "none")]:
        name = "with alignment" if align else "without alignment"
        # the seed changes nothing but the perturbation: without alignment one run says all
        for seed in args.seeds if align else args.seeds[:1]:
            cpu, wall, right, job, seconds = ours(root, align, seed, args.iterations, args.threads, two)
            n = job.current.numbers
            print(
                f"{name}, seed {seed}: {right:.3f} right, {n['resolution']:.1f} Å, P_max {n['average_p_max']:.3f}, {n['mean_significant']:.0f} significant; "
                f"CPU-s per iteration: iterations 2 to {args.relion_iterations} {np.mean(cpu[1 : args.relion_iterations]):.2f}, last five {np.mean(cpu[-5:]):.2f}; wall {np.mean(wall[-5:]):.2f} s",
                flush=True,
            )
        print("  profile of the last iteration, seconds:", {k: round(v, 3) for k, v in seconds.items()})
        one = ours(root, align, args.seeds[0], args.iterations if not align else 8, args.threads, root / "two_states/ref40.mrc")[2]
        print(f"{name}, from ONE reference: {one:.3f} right")
        if not align:
            limited = [ours(root, align, seed, 20, args.threads, root / "two_states/ref40.mrc", resolution_limit=60.0)[2] for seed in args.seeds]
            print(f"{name}, from ONE reference, nothing finer than 60 A compared: right", ", ".join(f"{x:.3f}" for x in limited))
        if not args.skip_relion and shutil.which("relion_refine"):
            per, p_max = relion(root, align, args.relion_iterations)
            mine = np.mean(cpu[1 : args.relion_iterations])
            print(f"{name}: relion_refine {per:.2f} CPU-s per iteration (2 to {args.relion_iterations}; P_max {p_max:.3f}), cryotk {mine:.2f}: ratio {per / mine:.1f}", flush=True)


if __name__ == "__main__":
    main()
