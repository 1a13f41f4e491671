"""One Class2D iteration over many particles in shuffled stacks: time, bytes read, peak memory; each size in a process of its own.

The images are a simulated set with fresh noise; a larger table names the same images again, so that disk space stays bounded.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


def make(folder, n, box, stacks, base=1000):
    """Write ``stacks`` stacks with ``n`` images in all and a table of optics and CTFs."""
    import cryotk as ctk

    if (folder / f"particles_{n}.star").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    source = ctk.simulate.particles(base, box, 3.0, seed=1, progress=False)
    images = source.images.values
    rng = np.random.default_rng(2)
    order = rng.permutation(n)
    per = -(-n // stacks)
    names = np.empty(n, object)
    for s in range(stacks):
        rows = np.arange(s * per, min(n, (s + 1) * per))
        stack = images[rows % base] + rng.normal(size=(len(rows), box, box)).astype(np.float32)
        ctk.write_stack(stack, folder / f"stack{s:04d}.mrcs", pixel_size=3.0)
        names[rows] = [f"{i + 1:06d}@stack{s:04d}.mrcs" for i in range(len(rows))]
    write_table(folder / f"particles_{n}.star", source, order % base, names[order])
    write_table(folder / f"posed_{n}.star", source, order % base, names[order], poses=True)
    molecule = ctk.simulate.molecule()
    ctk.write_volume(ctk.simulate.volume(molecule, box, 3.0, amplitude=source.attrs["amplitude"]), folder / "truth.mrc")


def write_table(path, source, rows, names, poses=False):
    """A RELION 3.1 table of images by name, with the CTFs of rows of a simulated set; with their true poses on demand."""
    import pandas as pd
    import starfile

    g = source.isel(particle=rows)
    label = {"defocus_u": "rlnDefocusU", "defocus_v": "rlnDefocusV", "defocus_angle": "rlnDefocusAngle"}
    table = {"rlnImageName": list(names)} | {v: g[k].values for k, v in label.items()} | {"rlnOpticsGroup": np.ones(len(rows), int)}
    table["rlnMicrographName"] = [n.partition("@")[2].replace("stack", "mic") for n in names]
    if poses:
        table |= {f"rlnAngle{x.title()}": g[f"true_angle_{x}"].values for x in ("rot", "tilt", "psi")}
        table |= {f"rlnOrigin{x.upper()}Angst": g[f"true_shift_{x}"].values for x in "xy"}
    optics = {
        "rlnOpticsGroup": np.array([1]), "rlnOpticsGroupName": ["opticsGroup1"], "rlnImagePixelSize": np.array([3.0]),
        "rlnVoltage": np.array([300.0]), "rlnSphericalAberration": np.array([2.7]), "rlnAmplitudeContrast": np.array([0.1]),
        "rlnImageSize": np.array([g.images.shape[-1]]), "rlnImageDimensionality": np.array([2]),
    }  # fmt: skip
    starfile.write({"optics": pd.DataFrame(optics), "particles": pd.DataFrame(table)}, path)


def enlarge(folder, n, times, name="particles"):
    """A table that names every image of ``particles_n`` ``times`` times."""
    import starfile

    out = folder / f"{name}_{n * times}.star"
    if out.exists():
        return
    tables = starfile.read(folder / f"{name}_{n}.star", always_dict=True)
    order = np.random.default_rng(3).permutation(n * times) % n
    starfile.write(tables | {"particles": tables["particles"].iloc[order]}, out)


def read_so_far():
    return int(next(line for line in open("/proc/self/io") if line.startswith("rchar")).split()[1])


def child(star, k, threads, warm, out):
    """Run one iteration and leave its figures in a file."""
    from dataclasses import replace

    import cryotk as ctk

    particles = ctk.open_particles(star)
    n = particles.sizes["particle"]
    job = ctk.Class2D(particles, k, mask_diameter=180, seed=1)
    job.threads = threads
    t = time.perf_counter()
    start = job.current
    start_seconds = time.perf_counter() - t
    if warm:
        small = ctk.Class2D(particles.isel(particle=slice(0, warm)), k, mask_diameter=180, seed=1)
        small.threads = threads
        m = small.run(8, progress=False).model
        keep = {
            a: getattr(m, a)
            for a in ("references", "noise_power", "prior_power", "data_vs_prior", "current_resolution", "current_size", "class_distribution")
        }
        job.iterations[0] = replace(start, model=start.model.copy(**keep))
        del small
    before, usage, t = read_so_far(), resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    e = job.expectation()
    it = job.maximization(e)
    wall, after = time.perf_counter() - t, resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "particles": n,
        "start_s": start_seconds,
        "wall_s": wall,
        "cpu_s": after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime,
        "bytes_read": read_so_far() - before,
        "images_bytes": n * particles.images.shape[-1] ** 2 * 4,
        "peak_bytes": after.ru_maxrss * 1024,
        "significant": it.numbers["mean_significant"],
        "seconds": e.seconds,
        "estimate": job.estimate(),
    }
    Path(out).write_text(json.dumps(figures))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the stacks are made, once; 1.3 GB by default")
    parser.add_argument("--particles", type=int, default=20_000)
    parser.add_argument("--times", type=int, default=5, help="the larger table")
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--stacks", type=int, default=400)
    parser.add_argument("-k", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warm", type=int, default=2000, help="particles of the run that gives the averages to begin from; 0: random start")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.k, args.threads, args.warm, args.folder)
        return
    make(args.folder, args.particles, args.box, args.stacks)
    if args.times > 1:
        enlarge(args.folder, args.particles, args.times)
    for n in sorted({args.particles, args.particles * args.times}):
        out = args.folder / "figures.json"
        command = [sys.executable, __file__, str(out), "--child", str(args.folder / f"particles_{n}.star"), "-k", str(args.k)]
        subprocess.run([*command, "--threads", str(args.threads), "--warm", str(args.warm)], check=True)
        r = json.loads(out.read_text())
        print(
            f"{r['particles']} particles, K = {args.k}: {r['wall_s']:.1f} s wall, {r['cpu_s']:.1f} CPU-s, {r['particles'] / r['wall_s']:.0f} particles/s; "
            f"read {r['bytes_read'] / 1e9:.2f} GB (images: {r['images_bytes'] / 1e9:.2f}); peak {r['peak_bytes'] / 1e9:.3f} GB "
            f"(estimate() says {r['estimate']['memory_bytes'] / 1e9:.2f} and {r['estimate']['seconds_per_iteration']:.0f} s); significant {r['significant']:.0f}"
        )
        print("  profile, thread-seconds:", {a: round(b, 2) for a, b in r["seconds"].items()})


if __name__ == "__main__":
    main()
