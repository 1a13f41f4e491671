"""Post-processing, masks, local resolution, map handling beside RELION's programs: seconds, CPU seconds and peak memory, in one run.

    python benchmarks/bench_maps.py [--sizes 64 256] [--only mask,locres] [--threads 1] [--memory 512] [--json FILE]

Both read the same half-maps and write the same files. Ours runs in a process of its own, imported and compiled before the clock starts (a
notebook's case); RELION's time is that of its process. CPU seconds say more than wall time on a busy machine. Memory is the process's peak, in
volumes of the map's size (float32); ours includes 0.28 GB of Python and its libraries. What takes milliseconds (map handling at 64) is
repeated ten times, ours in its one process, RELION's as ten processes; figures are per call.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PIXEL = {64: 3.54, 128: 2.0, 256: 1.0, 512: 0.8}
CHILD = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
import cryotk as ctk
from cryotk.data import as_volume
threads = int(sys.argv[1])
import cryotk.maps.transform as transform
transform.default_threads = lambda: threads
def call(one, two, mask):
    {call}
rng = np.random.default_rng(0)
small = [as_volume(rng.normal(size=(32, 32, 32)).astype("f4"), 5.0) for _ in range(2)]
k = np.arange(32) - 16
ball = as_volume(((k[:, None, None] ** 2 + k[:, None] ** 2 + k ** 2) < 100).astype("f4"), 5.0)
threshold, folder, pixel = 0.5, sys.argv[2] + "/warm", 5.0
call(*small, ball)
threshold, folder, pixel = {threshold}, sys.argv[2], {pixel}
before, usage = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
for _ in range({repeat}):
    call("run_half1.mrc", "run_half2.mrc", "mask.mrc")
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = (after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime) / {repeat}
wall = (time.perf_counter() - before) / {repeat}
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0]  # ru_maxrss would count the parent's
print(json.dumps([wall, cpu, int(peak.split()[1]) * 1024]))
"""


def cases(n: int, a: float, threshold: float, j: int) -> dict[str, tuple[str, list[str], float]]:
    """Name: our call, RELION's command, goal."""
    handle = ["relion_image_handler", "--i", "run_half1.mrc", "--angpix", str(a)]
    mask = ["relion_mask_create", "--i", "run_half1.mrc", "--o", "theirs/mask.mrc", "--lowpass", "15", "--angpix", str(a), "--ini_threshold",
            str(threshold), "--j", str(j)]  # fmt: skip
    window = 'sampling=64 * pixel, mask_radius=12.5 * pixel, edge_width=25 * pixel' if n >= 128 else "sampling=25"
    step = ["--locres_sampling", str(64 * a), "--locres_maskrad", str(12.5 * a), "--locres_edgwidth", str(25 * a)] if n >= 128 else []
    post = ["relion_postprocess", "--i", "run_half1.mrc", "--angpix", str(a)]
    return {
        "postprocess": ("ctk.postprocess(one, two, mask, pixel_size=pixel, b_factor_lowres=20).save(folder)",
                        [*post, "--mask", "mask.mrc", "--auto_bfac", "--autob_lowres", "20", "--o", "theirs/postprocess"], 2),
        "mask, default": ("ctk.create_mask(one, threshold, pixel_size=pixel, extend_px=3, soft_edge_px=3).save(folder)",
                          [*mask, "--extend_inimask", "3", "--width_soft_edge", "3"], 5),
        "mask, wide (10, 15)": ("ctk.create_mask(one, threshold, pixel_size=pixel, extend_px=10, soft_edge_px=15).save(folder)",
                                [*mask, "--extend_inimask", "10", "--width_soft_edge", "15"], 50),
        "locres": (f"ctk.local_resolution(one, two, b_factor=-100, pixel_size=pixel, {window}, threads=threads, progress=False).save(folder)",
                   [*post, "--locres", "--adhoc_bfac", "-100", *step, "--o", "theirs/relion"], 8),
        "handle: low-pass": ("ctk.lowpass(one, 4 * pixel, pixel_size=pixel).cryo.write(folder + '.mrc')",
                             [*handle, "--lowpass", str(4 * a), "--o", "theirs/lp.mrc"], 2),
        "handle: rescale": ("ctk.rescale(ctk.open_volume(one, pixel), 1.6 * pixel).cryo.write(folder + '.mrc')",
                            [*handle, "--rescale_angpix", str(1.6 * a), "--o", "theirs/rs.mrc"], 2),
        "handle: D2": ("ctk.symmetrise(one, 'D2', pixel_size=pixel).cryo.write(folder + '.mrc')",
                       [*handle, "--sym", "D2", "--o", "theirs/sym.mrc"], 2),
        "handle: B-factor": ("ctk.apply_b_factor(one, -100, pixel_size=pixel).cryo.write(folder + '.mrc')",
                             [*handle, "--bfactor", "-100", "--o", "theirs/b.mrc"], 2),
    }  # fmt: skip


def make_maps(folder: Path, n: int, a: float) -> float:
    """Half-maps of a lumpy ball of a third of the box, and a soft mask; returns a threshold for it."""
    import scipy.fft

    from cryotk.data import write_volume

    rng = np.random.default_rng(0)
    k = np.arange(n, dtype=np.float32) - n // 2
    r = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    inside = 0.5 + 0.5 * np.cos(np.pi * np.clip((r - n / 6) / (n / 32), 0, 1), dtype=np.float32)
    f = scipy.fft.rfftn(rng.standard_normal((n, n, n), dtype=np.float32) * inside, workers=2)
    q = np.fft.fftfreq(n)
    s2 = (q[:, None, None] ** 2 + q[:, None] ** 2 + np.fft.rfftfreq(n) ** 2).astype(np.float32)
    f *= np.exp(-20 * s2) + 20 * np.exp(-((n / 8) ** 2) * s2 / 8)
    signal = scipy.fft.irfftn(f, s=(n, n, n), workers=2)
    signal = (signal / signal[n // 2 - 4 : n // 2 + 4].std() + 2) * inside
    for half in (1, 2):
        write_volume(signal + 0.8 * rng.standard_normal((n, n, n), dtype=np.float32), folder / f"run_half{half}.mrc", a)
    write_volume((0.5 + 0.5 * np.cos(np.pi * np.clip((r - n / 5) / (n / 20), 0, 1))).astype(np.float32), folder / "mask.mrc", a)
    return 1.0


def ours(folder: Path, call: str, a: float, threshold: float, threads: int, repeat: int) -> tuple[float, float, float]:
    code = CHILD.replace("{repeat}", str(repeat)).replace("{call}", call).replace("{threshold}", str(threshold)).replace("{pixel}", str(a))
    (folder / "ours/warm").mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, str(threads), "ours"], cwd=folder, capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(done.stderr)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def theirs(folder: Path, command: list[str]) -> tuple[float, float, float]:
    (folder / "theirs").mkdir(exist_ok=True)
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak, usage = 0, None
    while usage is None:  # the peak of its own memory: ru_maxrss would count what this process had when it started it
        try:
            lines = [line for line in Path(f"/proc/{child.pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
            peak = max(peak, int(lines[0].split()[1]) * 1024 if lines else 0)
        except OSError:
            pass
        done, _, found = os.wait4(child.pid, os.WNOHANG)
        usage = found if done else None
        time.sleep(0.002 if time.perf_counter() - start < 1 else 0.02)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--only", default="", help="parts of names, with commas")
    parser.add_argument("--threads", type=int, default=1, help="ours, and RELION's --j where it has it")
    parser.add_argument("--memory", type=int, default=0, help="peak of a post-process of this size, ours alone")
    parser.add_argument("--json", default="")
    args = parser.parse_args()
    rows = []
    print(f"{'case':>24} {'ours s':>9} {'CPU s':>8} {'volumes':>8} {'RELION s':>9} {'CPU s':>8} {'volumes':>8} {'ratio':>7} {'CPU ratio':>9}  goal")
    for n in [*args.sizes, *([args.memory] if args.memory else [])]:
        a = PIXEL.get(n, 1.0)
        with tempfile.TemporaryDirectory(prefix="bench-maps-") as name:
            folder = Path(name)
            threshold = make_maps(folder, n, a)
            for case, (call, command, goal) in cases(n, a, threshold, args.threads).items():
                if args.only and not any(part in case for part in args.only.split(",")):
                    continue
                if n == args.memory and n not in args.sizes:
                    if case != "postprocess":
                        continue
                    command = []
                repeat = 10 if "handle" in case and n <= 64 else 1
                mine = ours(folder, call, a, threshold, args.threads, repeat)
                runs = [theirs(folder, command) for _ in range(repeat)] if command and shutil.which(command[0]) else [(float("nan"),) * 3]
                other = tuple(np.mean(runs, axis=0))
                volume = 4.0 * n**3
                rows.append({"case": case, "n": n, "ours": mine, "relion": other, "goal": goal, "threads": args.threads})
                print(f"{case + f' {n}³':>24} {mine[0]:9.3f} {mine[1]:8.2f} {mine[2] / volume:8.1f} {other[0]:9.3f} {other[1]:8.2f} {other[2] / volume:8.1f} "
                      f"{other[0] / mine[0]:7.1f} {other[1] / mine[1]:9.1f}  {goal}", flush=True)  # fmt: skip
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
