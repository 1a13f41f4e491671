"""How long a fresh process takes to its first results, numba's compilation included and not.

    python benchmarks/bench_start.py [--particles particles.star] [--repeats 3] [--scenes 3]

Each figure is the wall time of a new Python process from its start, so interpreter, imports, reading and computing
are all in it; the file system's cache is warm. "Compiled before" uses numba's cache on disk as a second session does,
"compiling" begins with an empty one. The best of the repeats is printed, and the slowest beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PREPARE = """
import sys, cryotk as ctk
folder = sys.argv[1]
p = ctk.simulate.example()
ctk.write_stack(p.images.values, f"{folder}/particles.mrcs", pixel_size=float(p.pixel_size[0]))
p = p.assign(image_name=("particle", [f"{i + 1}@particles.mrcs" for i in range(p.sizes["particle"])]))
ctk.write_particles(p, f"{folder}/particles.star")
"""

SCENES = {
    "import cryotk": "import cryotk",
    "open_particles": "import sys, cryotk as ctk; p = ctk.open_particles(sys.argv[1]); repr(p)",
    "one image on screen": "import sys, cryotk as ctk; p = ctk.open_particles(sys.argv[1]); p.images[0].values",
    "first class averages": """
import sys, cryotk as ctk
p = ctk.open_particles(sys.argv[1])
job = ctk.Class2D(p, n_classes=12, mask_diameter=190, n_iterations=1, seed=1)
job.iterate()
assert job.classes.values.std() > 0
""",
    "gallery of them": """
import sys, cryotk as ctk
p = ctk.open_particles(sys.argv[1])
job = ctk.Class2D(p, n_classes=12, mask_diameter=190, n_iterations=1, seed=1)
gallery = job.view()
job.iterate()
""",
}

MACHINE = """
import os, platform, numba, numpy, threadpoolctl
import cryotk.execution
blas = [f"{i['internal_api']} {i.get('version')} {i.get('architecture')}" for i in threadpoolctl.threadpool_info() if i["user_api"] == "blas"]
print(f"python {platform.python_version()}, numpy {numpy.__version__}, numba {numba.__version__}, BLAS {'; '.join(blas)}")
print(f"cores {os.cpu_count()}, threads {cryotk.execution.default_threads()}, "
      f"OPENBLAS_CORETYPE {os.environ.get('OPENBLAS_CORETYPE', 'unset')}")
"""


def seconds(code: str, argument: str, environment: dict[str, str]) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, argument], env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", help="a STAR file; without it the embedded data (1500 particles of 64 px)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=len(SCENES), help="only the first so many")
    args = parser.parse_args()
    subprocess.run([sys.executable, "-c", MACHINE], check=True)
    with tempfile.TemporaryDirectory() as folder:
        # users' installers leave compiled modules; without them (this variable, and uv) every start compiles pandas anew
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        if args.particles:
            star = str(Path(args.particles).resolve())
        else:
            subprocess.run([sys.executable, "-c", PREPARE, folder], check=True)
            star = f"{folder}/particles.star"
        print(f"particles: {args.particles or 'embedded, 1500 x 64 px'}\n")
        print(f"{'cold process to':<24}{'compiled before':>18}{'(slowest)':>12}{'compiling':>12}")
        for name, code in list(SCENES.items())[: args.scenes]:
            compiling = ""
            environment["NUMBA_CACHE_DIR"] = f"{folder}/warm"
            if "Class2D" in code:
                empty = tempfile.mkdtemp(dir=folder)
                compiling = f"{seconds(code, star, environment | {'NUMBA_CACHE_DIR': empty}):10.2f} s"
            seconds(code, star, environment)  # fills both caches
            times = [seconds(code, star, environment) for _ in range(args.repeats)]
            print(f"{name:<24}{min(times):16.2f} s{max(times):10.2f} s{compiling:>12}", flush=True)


if __name__ == "__main__":
    main()
