"""Peak memory and time of one iteration of each job, each in a process of its own, beside what estimate() says before.

``--scale FOLDER`` takes the particles of bench_scale.py (20 000 of 128 pixels, each named five times) for one iteration of Refine3D at
a global and at a local order.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_scale import enlarge, make, read_so_far

PARTICLES = {64: 2000, 128: 2000, 256: 600}
CASES = ("class2d", "refine3d global", "refine3d local", "class3d global", "class3d local", "initial")
GLOBAL = {"initial_sampling": 7.5, "initial_lowpass": 14.0}
# maps so fine that the whole image counts, as at the end of a refinement
LOCAL = {"initial_sampling": 1.8, "initial_lowpass": 6.8, "offset_range_px": 3.0}


def make_job(case, star, map_, seed=1):
    """A job whose next iteration is that of the case."""
    import cryotk as ctk

    name, _, kind = case.partition(" ")
    more = (LOCAL if kind == "local" else GLOBAL) | {"mask_diameter": 180.0, "absolute_greyscale": True, "seed": seed}
    if name == "class2d":
        return ctk.Class2D(star, 20, mask_diameter=180, seed=seed)
    if name == "initial":
        return ctk.InitialModel(star, 1, mask_diameter=180, seed=seed)
    if name == "refine3d":
        return ctk.Refine3D(star, map_, **more)
    search = {"local_search_range": 11.0} if kind == "local" else {}
    maps = [ctk.open_volume(map_), 0.9 * ctk.open_volume(map_)]
    return ctk.Class3D(star, maps, 2, **more, **search)


def status(name):
    """A line of this process' status, in bytes."""
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name + ":"))


def child(case, star, map_, threads, out):
    """Run one iteration and leave its figures in a file."""
    import cryotk as ctk

    baseline = status("VmRSS")
    particles = ctk.open_particles(star)
    job = make_job(case, particles, map_)
    job.threads = threads
    before = job.estimate()
    _ = job.current
    if case == "class2d":
        # what follows the averages of random particles: from the third iteration on sizes are those of a run
        job.run(3, progress=False)
    started = job.estimate()
    # the peak from here on
    Path("/proc/self/clear_refs").write_text("5")
    read, usage, t = read_so_far(), resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    e = job.expectation()
    middle, t_middle = status("VmHWM"), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")
    it = job.maximization(e)
    after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - t
    figures = {
        "particles": particles.sizes["particle"], "box": int(job.current.model.box_size), "size": int(e.context.size),
        "threads": threads, "baseline": baseline, "expectation_peak": middle, "maximization_peak": status("VmHWM"), "wall_s": wall,
        "maximization_s": wall - (t_middle - t), "cpu_s": after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime,
        "bytes_read": read_so_far() - read, "estimate": started, "estimate_before": before,
        "significant": it.numbers["mean_significant"], "seconds": e.seconds,
    }  # fmt: skip
    Path(out).write_text(json.dumps(figures))


def measure(case, star, map_, threads):
    """Figures of one case, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        command = [sys.executable, __file__, str(out), "--child", case, str(star), str(map_), "--threads", str(threads)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
        return json.loads(out.read_text())


def report(case, r):
    """One line of a case."""
    peak, said, first = max(r["expectation_peak"], r["maximization_peak"]), r["estimate"], r["estimate_before"]
    print(
        f"{case:16s} {r['particles']:6d} x {r['box']:3d} px (window {r['size']:3d}): peak {peak / 1e9:6.3f} GB = imports {r['baseline'] / 1e9:.3f} + {(peak - r['baseline']) / 1e9:6.3f} "
        f"(expectation {r['expectation_peak'] / 1e9:.3f}, maximization {r['maximization_peak'] / 1e9:.3f}); estimate() {said['memory_bytes'] / 1e9:6.3f} GB, {said['memory_bytes'] / peak:.2f} of it, "
        f"before the start {first['memory_bytes'] / peak:.2f}; {r['wall_s']:.1f} s ({r['maximization_s']:.1f} in maximization), estimate() {said['seconds_per_iteration']:.1f} s, {said['seconds_per_iteration'] / r['wall_s']:.2f} of it ({said['seconds_per_iteration'] * r['threads'] / r['cpu_s']:.2f} of the CPU time); "
        f"{r['cpu_s']:.1f} CPU-s, {r['particles'] / r['wall_s']:.0f} particles/s, read {r['bytes_read'] / 1e6:.0f} MB, {r['significant']:.1f} significant",
        flush=True,
    )
    print("    thread-seconds:", {a: round(b, 2) for a, b in r["seconds"].items()}, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where particles are made, once; 0.6 GB")
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--boxes", nargs="*", type=int, default=[64, 128, 256])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", type=Path, help="folder of bench_scale.py")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child, args.threads, args.folder)
        return
    print("load:", os.getloadavg(), "threads:", args.threads)
    if args.scale:
        make(args.scale, 20_000, 128, 400)
        enlarge(args.scale, 20_000, 5, "posed")
        for case in args.cases:
            report(case, measure(case, args.scale / "posed_100000.star", args.scale / "truth.mrc", args.threads))
        return
    for box in args.boxes:
        folder, n = args.folder / f"box{box}", PARTICLES.get(box, 40)
        make(folder, n, box, max(1, n // 100), base=min(n, 200))
        for case in args.cases:
            report(case, measure(case, folder / f"posed_{n}.star", folder / "truth.mrc", args.threads))


if __name__ == "__main__":
    main()
