"""Refine3D to convergence, judged by truth; its profile; CPU-seconds against RELION's programs on the same machine.

``--relion run`` lets Debian's ``relion_refine_mpi`` refine the same particles from the same map (an hour of CPU time); ``--relion
steps`` compares one global and one local iteration on fewer particles, per particle, with one thread each.
"""

import argparse
import os
import resource
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np

GLOBAL = {"order": 3, "sampling": 3.75, "range": 3.3, "step": 0.42, "lowpass": 14.0}
LOCAL = {"order": 4, "sampling": 1.875, "range": 1.5, "step": 0.42, "lowpass": 14.0, "sigma": 3.75}


def truth_of(folder):
    """Poses, offsets and map that the particles were made from."""
    import cryotk as ctk
    from cryotk.geometry import euler_to_matrix

    table = next(iter(ctk.io.read_star(folder / "truth.star").values()))
    poses = euler_to_matrix(*(np.asarray(table[f"rlnAngle{x}"], float) for x in ("Rot", "Tilt", "Psi")))
    shifts = np.stack([np.asarray(table[f"rlnOrigin{x}Angst"], float) for x in "XY"], -1)
    return poses, shifts, ctk.open_volume(folder / "truth_map.mrc")


def errors(assignments, truth, operators):
    """Rotation error modulo symmetry in degrees and offset error in Å of every particle."""
    from cryotk.geometry import euler_to_matrix

    poses = euler_to_matrix(*(assignments[f"angle_{x}"].values for x in ("rot", "tilt", "psi")))
    trace = np.max([np.einsum("nij,nij->n", poses, truth[0] @ o) for o in operators], 0)
    angle = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    return angle, np.hypot(assignments.shift_x.values - truth[1][:, 0], assignments.shift_y.values - truth[1][:, 1])


def fsc_to_truth(volume, truth, radius=92.0, edge_px=4.0):
    """FSC inside the README's soft sphere."""
    from cryotk.fourier import fourier_shell_correlation

    n, a = volume.shape[-1], float(truth.attrs["pixel_size"])
    k = (np.arange(n) - n // 2) ** 2
    r = np.sqrt(k[:, None, None] + k[None, :, None] + k[None, None]) * a
    mask = np.clip(0.5 + 0.5 * np.cos(np.pi * np.clip((r - radius) / (edge_px * a), 0, 1)), 0, 1)
    return fourier_shell_correlation(np.asarray(volume, float) * mask, np.asarray(truth.values, float) * mask)


def refine(folder, start, seed, compat, threads):
    """One run; prints its trajectory."""
    import cryotk as ctk
    from cryotk.geometry import symmetry_operators

    truth, operators = truth_of(folder), symmetry_operators("D2")
    job = ctk.Refine3D(folder / "particles.star", start, "D2", initial_lowpass=40, seed=seed, compat=compat)
    job.threads = threads
    wall, cpu, profiles = time.perf_counter(), time.process_time(), {}
    print(f"seed {seed}: it  wall    CPU  step size  P_max  significant  res Å  angle°  >10°  shift Å")
    while not job.converged and job.iteration < job.n_iterations:
        w, c = time.perf_counter(), time.process_time()
        e = job.expectation()
        it = job.maximization(e)
        angle, shift = errors(it.assignments, truth, operators)
        n, order = it.numbers, int(it.numbers["healpix_order"])
        kind = "last" if job.converged else ("local" if it.model.sigma_psi > 0 else f"global, {7.5 / 2 ** (order - 2):g} degrees")
        profiles[kind] = e.seconds | {"maximization": n["seconds_maximization"]}
        print(
            f"{it.number:10d} {time.perf_counter() - w:6.2f} {time.process_time() - c:6.2f} {7.5 / 2 ** (order - 2):5.2f} {n['image_size']:4.0f} "
            f"{n['average_p_max']:6.3f} {n['mean_significant']:8.1f} {n['resolution']:9.2f} {np.median(angle):6.2f} {(angle > 10).mean():7.3f} {np.median(shift):6.2f}",
            flush=True,
        )
    total = time.perf_counter() - wall, time.process_time() - cpu
    f = fsc_to_truth(job.volume.values, truth[2])
    half = np.nonzero(f[1:] < 0.5)[0]
    box = f"{226.56 / (half[0] + 1):.1f}" if len(half) else "beyond Nyquist"
    print(f"seed {seed}: {total[0]:.1f} s wall, {total[1]:.1f} CPU-s, {job.iteration} iterations, {job.resolution:.1f} Å unmasked, FSC to the truth 0.5 at {box} Å")
    return total, profiles, job


def measured(command, cwd):
    """Wall and CPU-seconds of a command."""
    w, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if run.returncode:
        raise SystemExit(run.stdout[-2000:] + run.stderr[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - w, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


COMMON = ["--ctf", "--ctf_corrected_ref", "--particle_diameter", "200", "--flatten_solvent", "--zero_mask", "--oversampling", "1", "--sym", "D2",
          "--norm", "--scale", "--pad", "2", "--pool", "30", "--preread_images", "--dont_combine_weights_via_disc", "--random_seed", "1"]  # fmt: skip


def masters_seconds(stop, out):
    """CPU-seconds of rank 0 of an MPI run, which hands out particles and polls for answers: read while it lives."""
    tick = os.sysconf("SC_CLK_TCK")
    while not stop.wait(1.0):
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if b"relion_refine_m" in (folder / "comm").read_bytes() and b"OMPI_COMM_WORLD_RANK=0" in (folder / "environ").read_bytes().split(b"\0"):
                    fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                    out[folder.name] = (int(fields[11]) + int(fields[12])) / tick
            except OSError:
                continue


def relion_run(folder, start, work):
    """Wall seconds, CPU-seconds of all and of the master alone, iterations."""
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "-n", "3", "relion_refine_mpi", "--o", f"{work}/run",
               "--auto_refine", "--split_random_halves", "--i", f"{folder.name}/particles.star", "--ref", str(start), "--firstiter_cc", "--ini_high", "40",
               "--healpix_order", "2", "--auto_local_healpix_order", "4", "--offset_range", "5", "--offset_step", "2", "--low_resol_join_halves", "40",
               "--j", "1", *COMMON]  # fmt: skip
    stop, master = threading.Event(), {}
    watch = threading.Thread(target=masters_seconds, args=(stop, master), daemon=True)
    watch.start()
    try:
        wall, cpu = measured(command, folder.parent)
    finally:
        stop.set()
        watch.join()
    return wall, cpu, sum(master.values()), len(list(work.glob("run_it*_half1_model.star"))) - 1


def steps(folder, refined, work, few, many):
    """One iteration of each kind from a refined state: ours on ``many`` particles, RELION's on ``few``."""
    import cryotk as ctk

    n = refined.data.n
    table = refined.particles.drop_vars("images", errors="ignore")
    for name, values in refined.assignments.data_vars.items():
        if name.startswith(("angle", "shift")):
            table[name] = ("particle", values.values)
    out = {}
    ctk.write_volume(refined.volume, work / "refined.mrc")
    for kind, s in (("global", GLOBAL), ("local", LOCAL)):
        seconds = {}
        for count in (few, few // 2):
            rows = np.arange(0, n, n // count)[:count]
            ctk.write_particles(ctk.select_particles(table, rows), work / "few.star")
            command = ["relion_refine", "--i", str(work / "few.star"), "--o", f"{work}/{kind}", "--ref", str(work / "refined.mrc"), "--ini_high", str(s["lowpass"]),
                       "--iter", "1", "--healpix_order", str(s["order"]), "--offset_range", str(s["range"]), "--offset_step", str(2 * s["step"]), "--tau2_fudge", "1",
                       "--offset", "4", "--j", "1", *COMMON]  # fmt: skip
            if "sigma" in s:
                command += ["--sigma_ang", str(s["sigma"])]
            seconds[count] = measured(command, folder.parent)[1]
        # start-up and the maximisation taken off
        relion = (seconds[few] - seconds[few // 2]) / (few - few // 2)
        job = ctk.Class3D(
            ctk.select_particles(refined.particles, np.arange(0, n, n // many)[:many]).assign({v: ("particle", table[v].values[:: n // many][:many]) for v in
                ("angle_rot", "angle_tilt", "angle_psi", "shift_x", "shift_y")}),
            refined.volume, 1, tau2_fudge=1, initial_lowpass=s["lowpass"], symmetry="D2", initial_sampling=s["sampling"], offset_range_px=s["range"],
            offset_step_px=s["step"], local_search_range=3 * s["sigma"] if "sigma" in s else None, absolute_greyscale=True, seed=1, compat="relion",
        )  # fmt: skip
        job.threads = 1
        _ = job.current
        job.current.model.sigma_offset = 4.0
        c = time.process_time()
        e = job.expectation()
        it = job.maximization(e)
        mine = (time.process_time() - c) / many
        golden = ctk.io.read_star(work / f"{kind}_it001_data.star")["particles"]
        print(
            f"{kind}: cryotk {1000 * mine:.2f} ms of CPU per particle (P_max {it.model.average_p_max:.3f}, {it.numbers['mean_significant']:.0f} significant), relion_refine "
            f"{1000 * relion:.1f} ms (P_max {np.mean(golden['rlnMaxValueProbDistribution']):.3f}, {np.mean(golden['rlnNrOfSignificantSamples']):.0f} significant): ratio {relion / mine:.1f}"
        )
        print("  profile, seconds:", {k: round(v, 3) for k, v in e.seconds.items()})
        out[kind] = relion / mine
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path, help="folder `reference` with betagal_noisy")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compat", default=None)
    parser.add_argument("--relion", choices=["no", "run", "steps"], default="no")
    args = parser.parse_args()
    import cryotk as ctk
    from cryotk.fourier import lowpass

    warnings.simplefilter("ignore")
    folder = args.reference / "betagal_noisy"
    print("load:", os.getloadavg(), "threads:", args.threads, "(seconds of a pass are wall seconds of all threads together)")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        truth = ctk.open_volume(folder / "truth_map.mrc")
        start = truth.copy(data=lowpass(truth.values.astype(float), 3.54, 40).astype(np.float32))
        ctk.write_volume(start, work / "start.mrc")
        # compile before the clock runs
        small = ctk.Refine3D(ctk.select_particles(ctk.open_particles(folder / "particles.star"), np.arange(40)), start, "D2", seed=1, initial_sampling=15)
        small.run(2, progress=False)
        runs = [refine(folder, work / "start.mrc", seed, args.compat, args.threads) for seed in args.seeds]
        for kind, seconds in runs[-1][1].items():
            total = seconds.pop("total")
            print(f"profile of the last {kind} iteration:", ", ".join(f"{k} {v:.2f}" for k, v in seconds.items()), f"; both halves {total:.2f} s wall")
        at_truth = ctk.reconstruct(ctk.open_particles(folder / "particles.star").assign(_true(folder)), "D2", progress=False)
        f = fsc_to_truth(at_truth.values, truth)
        print(f"ceiling, the map from the true poses: FSC 0.5 at {226.56 / (np.nonzero(f[1:] < 0.5)[0][0] + 1):.1f} Å")
        if args.relion != "no" and shutil.which("relion_refine"):
            if args.relion == "run":
                wall, cpu, master, n = relion_run(folder, work / "start.mrc", work)
                mean = np.mean([r[0] for r in runs], 0)
                print(
                    f"relion_refine_mpi: {wall:.0f} s wall, {cpu:.0f} CPU-s, {master:.0f} of them its master's, which computes nothing; {n} iterations; "
                    f"ratio wall {wall / mean[0]:.1f}, CPU {cpu / mean[1]:.1f}, without the master {(cpu - master) / mean[1]:.1f}"
                )
            else:
                steps(folder, runs[-1][2], work, 24, 500)


def _true(folder):
    table = next(iter(__import__("cryotk").io.read_star(folder / "truth.star").values()))
    names = {"angle_rot": "AngleRot", "angle_tilt": "AngleTilt", "angle_psi": "AnglePsi", "shift_x": "OriginXAngst", "shift_y": "OriginYAngst"}
    return {k: ("particle", np.asarray(table[f"rln{v}"], float)) for k, v in names.items()}


if __name__ == "__main__":
    main()
