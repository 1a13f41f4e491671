"""VDAM against the truth over several seeds, and against relion_refine's time, in one run.

Debian's RELION 3.1.3 has stochastic gradient descent (``--sgd``) instead of VDAM: for initial models that is the nearest it
can do, for 2D classes it is 25 iterations of expectation-maximisation. Both print what they looked at (P_max, significant
samples) and, where the truth is known, how near they came to it.

    python benchmarks/bench_vdam.py particles.star --truth truth.star --map truth_map.mrc --symmetry D2
"""

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np


def views_of(path):
    from cryotk.geometry import euler_to_matrix
    from cryotk.io import read_star

    blocks = read_star(path)
    t = next(b for b in blocks.values() if b.is_loop and "rlnAngleTilt" in b)
    return euler_to_matrix(t["rlnAngleRot"], t["rlnAngleTilt"], t["rlnAnglePsi"])[:, 2]


def timed(job):
    """Run a job mini-batch by mini-batch; wall and CPU seconds, and thread-seconds of each part."""
    wall, cpu, parts = time.perf_counter(), time.process_time(), {}
    while job.iteration < job.n_iterations:
        e = job.expectation()
        clock = time.perf_counter()
        job.maximization(e)
        parts["maximization"] = parts.get("maximization", 0.0) + time.perf_counter() - clock
        for name, seconds in e.seconds.items():
            parts[name] = parts.get(name, 0.0) + seconds
    return time.perf_counter() - wall, time.process_time() - cpu, {k: round(v, 1) for k, v in parts.items()}


def class2d(args, seed):
    import cryotk as ctk
    from cryotk.geometry import symmetry_operators
    from cryotk.testing import view_spread

    job = ctk.Class2D(args.star, args.k, algorithm="vdam", n_batches=args.batches_2d, seed=seed)
    job.threads = args.threads
    wall, cpu, parts = timed(job)
    n, text = job.current.numbers, ""
    if args.truth:
        g = symmetry_operators(args.symmetry)
        spread, share = view_spread(job.assignments.class_number.values, views_of(args.truth), np.concatenate([g, -g]))
        text = f"view spread {spread:.1f} degrees, within 30: {share:.3f}; "
    print(
        f"Class2D seed {seed}: {text}{n['resolution']:.1f} A, P_max {n['average_p_max']:.3f}, significant "
        f"{n['mean_significant']:.1f}; {wall:.1f} s wall, {cpu:.1f} CPU-s", flush=True,
    )  # fmt: skip
    return wall, cpu, parts


def initial_model(args, seed):
    import cryotk as ctk
    from cryotk.testing import fit_map

    job = ctk.InitialModel(args.star, symmetry=args.symmetry, n_batches=args.batches_3d, seed=seed)
    job.threads = args.threads
    wall, cpu, parts = timed(job)
    n, text = job.current.numbers, ""
    if args.map:
        truth, a = read_map(args.map)
        fit = fit_map(job.volume.values, truth, a, symmetry=args.symmetry)
        at = round(len(truth) * a / 45), round(len(truth) * a / 25)
        text = (
            f"correlation {fit.correlation:.3f}, FSC {fit.fsc[at[0]]:.2f} at 45 A, {fit.fsc[at[1]]:.2f} at 25 A, 0.5 at "
            f"{fit.resolution(a):.1f} A{' (mirrored)' if fit.mirrored else ''}; "
        )
    print(
        f"InitialModel seed {seed}: {text}axes {job.volume.attrs['symmetry_correlation']:.2f}, P_max {n['average_p_max']:.3f}, "
        f"significant {n['mean_significant']:.1f}; {wall:.1f} s wall, {cpu:.1f} CPU-s", flush=True,
    )  # fmt: skip
    return wall, cpu, parts


def read_map(path):
    from cryotk.io import read_mrc

    x, header = read_mrc(path)
    return x.astype(float), float(header.cell[0]) / x.shape[-1]


def relion(args, options, map_name=None):
    """Wall and CPU seconds of relion_refine, and the map it ends with."""
    star = Path(args.star).resolve()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "relion_refine", "--i", str(star.relative_to(star.parent.parent)), "--o", f"{folder}/run", "--ctf", "--ctf_corrected_ref",
            "--particle_diameter", "200", "--zero_mask", "--flatten_solvent", "--oversampling", "1", "--preread_images",
            "--dont_combine_weights_via_disc", "--pool", "30", "--j", str(args.threads), "--random_seed", "1", *options,
        ]  # fmt: skip
        wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=star.parent.parent, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        maps = sorted(Path(folder).glob("run_it*_class001.mrc"))
        found = read_map(maps[-1])[0] if maps and map_name else None
        return time.perf_counter() - wall, cpu, found


def relions_initial_model(args):
    """3.1's own defaults of SGD for an initial model, with as many mini-batches as ours."""
    n = args.batches_3d
    ini, fin = n // 5, n // 5
    options = [
        "--sgd", "--denovo_3dref", "--K", "1", "--sym", "C1", "--pad", "1", "--healpix_order", "1", "--offset_range", "6",
        "--offset_step", "2", "--sgd_ini_iter", str(ini), "--sgd_inbetween_iter", str(n - ini - fin), "--sgd_fin_iter", str(fin),
        "--sgd_write_iter", "10", "--sgd_ini_resol", "35", "--sgd_fin_resol", "15", "--sgd_ini_subset", "100",
        "--sgd_fin_subset", "500",
    ]  # fmt: skip
    wall, cpu, found = relion(args, options, "map")
    text = ""
    if args.map and found is not None:
        from cryotk.projection.symmetry_search import find_symmetry_axes, place_on_axes
        from cryotk.testing import fit_map

        truth, a = read_map(args.map)
        aligned = place_on_axes(found, find_symmetry_axes(found, args.symmetry))
        fit = fit_map(aligned, truth, a, symmetry=args.symmetry)
        text = f": correlation {fit.correlation:.3f}, FSC 0.5 at {fit.resolution(a):.1f} A"
    print(f"relion_refine --sgd, {n} mini-batches of 100 to 500{text}; {wall:.1f} s wall, {cpu:.1f} CPU-s", flush=True)
    return wall, cpu


def relions_classes(args):
    options = [
        "--K", str(args.k), "--iter", "25", "--tau2_fudge", "2", "--center_classes", "--psi_step", "12", "--offset_range", "5",
        "--offset_step", "2", "--norm", "--scale", "--pad", "2",
    ]  # fmt: skip
    wall, cpu, _ = relion(args, options)
    print(f"relion_refine, 2D, 25 iterations of expectation-maximisation; {wall:.1f} s wall, {cpu:.1f} CPU-s", flush=True)
    return wall, cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("star")
    parser.add_argument("--truth", help="STAR file with the true angles, in the order of the particles")
    parser.add_argument("--map", help="true map")
    parser.add_argument("--symmetry", default="C1")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-k", type=int, default=6)
    parser.add_argument("--batches-2d", type=int, default=200)
    parser.add_argument("--batches-3d", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["class2d", "initial_model"])
    parser.add_argument("--no-relion", action="store_true")
    args = parser.parse_args()
    for name, ours, theirs in (
        ("class2d", class2d, relions_classes), ("initial_model", initial_model, relions_initial_model),
    ):  # fmt: skip
        if args.only not in (None, name):
            continue
        # compile before the clock starts
        once = argparse.Namespace(**(vars(args) | {"batches_2d": 2, "batches_3d": 2, "truth": None, "map": None}))
        ours(once, 0)
        runs = [ours(args, seed) for seed in range(1, args.seeds + 1)]
        wall, cpu = np.mean([r[0] for r in runs]), np.mean([r[1] for r in runs])
        print(f"{name}: mean {wall:.1f} s wall, {cpu:.1f} CPU-s; thread-seconds of the last run: {runs[-1][2]}")
        if shutil.which("relion_refine") and not args.no_relion:
            w, c = theirs(args)
            print(f"{name}: ratio wall {w / wall:.1f}, CPU {c / cpu:.1f}")


if __name__ == "__main__":
    main()
