"""The command line: ``cryotk lab``, ``demo``, ``info``, ``warmup``."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from importlib import import_module, util
from pathlib import Path
from typing import Any

__all__ = ["main"]


def _notebooks() -> Path:
    spec = util.find_spec("cryotk_widgets")
    if spec is None or spec.origin is None:
        raise SystemExit("the notebooks are part of cryotk's wheel; install it with: pip install 'cryotk[lab]'")
    inside = Path(spec.origin).parent / "notebooks"
    if inside.is_dir():
        return inside
    return Path(spec.origin).parents[2] / "notebooks"


def _needs_lab(module: str) -> None:
    if util.find_spec(module) is None:
        raise SystemExit(f"this command needs {module}: pip install 'cryotk[lab]'")


def copy_course(folder: Path) -> list[Path]:
    """Copy the notebooks into a folder; files that are there already stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for source in sorted(_notebooks().glob("*.ipynb")):
        target = folder / source.name
        if not target.exists():
            shutil.copyfile(source, target)
        out.append(target)
    return out


def lab(args: argparse.Namespace) -> int:
    """Copy the course and open JupyterLab on the quickstart."""
    _needs_lab("jupyterlab")
    folder = Path(args.folder)
    files = copy_course(folder)
    print(f"{len(files)} notebooks in {folder.resolve()}")
    command = [sys.executable, "-m", "jupyterlab", str(folder / "00_quickstart.ipynb"), *args.rest]
    return subprocess.call(command)


def demo(args: argparse.Namespace) -> int:
    """Execute the quickstart without a browser and leave it as one page."""
    for module in ("nbclient", "nbconvert", "cryotk_widgets"):
        _needs_lab(module)
    import nbformat
    from nbclient import NotebookClient
    from tqdm import tqdm

    nb = nbformat.read(str(_notebooks() / "00_quickstart.ipynb"), as_version=4)
    code = sum(cell.cell_type == "code" for cell in nb.cells)
    with tqdm(total=code, unit="cell", desc="quickstart") as bar:
        client = NotebookClient(
            nb, timeout=600, kernel_name="python3", store_widget_state=True, on_cell_executed=lambda **_: bar.update(1)
        )
        client.execute()
    output = Path(args.output)
    import_module("cryotk_widgets.export").export_html(nb, output, title="cryotk quickstart")
    print(f"wrote {output.resolve()} ({output.stat().st_size / 1e6:.1f} MB): open it in a browser")
    return 0


def describe(path: Path) -> list[str]:
    """Say in a few lines what a file or job folder is."""
    from cryotk.errors import CryotkError

    if path.is_dir():
        return _describe_folder(path)
    if path.suffix == ".star":
        return _describe_star(path)
    try:
        from cryotk.io.mrc import read_header

        h = read_header(path)
    except CryotkError as error:
        raise SystemExit(f"error: {error}") from None
    kind = "volume" if len(set(h.shape)) == 1 else ("stack or volume" if h.shape[0] > 1 else "image")
    lines = [f"{path}: MRC {kind}, {h.shape[2]} x {h.shape[1]} x {h.shape[0]}, {h.dtype.name}, {h.pixel_size:.4g} Å"]
    if h.images_present < h.shape[0]:
        lines.append(f"warning: the file is cut short, {h.images_present} of {h.shape[0]} sections are there")
    if not h.pixel_size > 0:
        lines.append("warning: the header has no pixel size")
    return lines


def _describe_star(path: Path) -> list[str]:
    from cryotk.errors import CryotkError
    from cryotk.io.star import read_star

    try:
        blocks = read_star(path)
    except CryotkError as error:
        raise SystemExit(f"error: {error}") from None
    lines = [f"{path}: STAR file"]
    for name, block in blocks.items():
        size = f"{len(block)} rows x {len(block.columns)} columns" if block.is_loop else f"list of {len(block.columns)}"
        lines.append(f"  data_{name}: {size}")
    if any("rlnImageName" in b for b in blocks.values() if b.is_loop):
        import warnings

        from cryotk.data import open_particles

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                p = open_particles(path, images=False)
        except CryotkError as error:
            return [*lines, f"error: {error}"]
        lines.append(f"particles: {p.sizes['particle']}, optics groups: {p.sizes['optics']}")
        for i, g in enumerate(p["optics"].values):
            box = f", {int(p['box_size'].values[i])} px" if "box_size" in p else ""
            kv = f", {float(p['voltage'].values[i]):g} kV" if "voltage" in p else ""
            lines.append(f"  group {g}: {float(p['pixel_size'].values[i]):.4g} Å/px{box}{kv}")
        try:
            lines += repr(open_particles(path).cryo.validate()).splitlines()
        except CryotkError as error:
            lines.append(f"error: {error}")
    return lines


def _describe_folder(path: Path) -> list[str]:
    from cryotk.io.star import read_star

    lines = [f"{path}: folder"]
    job = path / "job.star"
    if job.exists():
        entry = read_star(job).get("job")
        if entry is not None:
            lines[0] = f"{path}: RELION job {entry.get('rlnJobTypeLabel', entry.get('rlnJobType', '?'))}"
    optimisers = sorted(path.glob("*_optimiser.star"))
    if optimisers:
        import warnings

        from cryotk.io.relion_refinement import open_iteration

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            it = open_iteration(optimisers[-1])
        m = it.model
        what = "3D" if m.is_3d else "2D"
        lines.append(f"  {what} refinement, iteration {it.number}: {m.n_classes} classes of {m.box_size} px, {m.current_resolution:.1f} Å")
    checkpoints = sorted(path.glob("*.checkpoint"))
    if checkpoints:
        lines.append(f"  cryotk checkpoints: {len(checkpoints)}, last {checkpoints[-1].name} (Class2D.resume({str(path)!r}) goes on)")
    for pattern in ("*.star", "*.mrc*"):
        lines.append(f"  {len(list(path.glob(pattern)))} files {pattern}")
    return lines


def info(args: argparse.Namespace) -> int:
    """Print what a file or folder is."""
    for name in args.files:
        path = Path(name)
        if not path.exists():
            raise SystemExit(f"error: {path}: no such file or folder")
        print("\n".join(describe(path)))
    return 0


def warmup(_args: argparse.Namespace) -> int:
    """Compile all kernels ahead of their first use."""
    from cryotk.kernels import warmup as run

    print(f"kernels compiled in {run():.1f} s")
    return 0


def main(argv: list[str] | None = None) -> Any:
    """Entry point of the ``cryotk`` command."""
    parser = argparse.ArgumentParser(prog="cryotk", description="Cryo-EM single-particle analysis in a notebook")
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("lab", help="copy the course to a folder and open JupyterLab on it")
    p.add_argument("folder", nargs="?", default="cryotk-course")
    p.add_argument("rest", nargs=argparse.REMAINDER, help="handed to JupyterLab")
    p.set_defaults(run=lab)
    p = commands.add_parser("demo", help="run the quickstart without a browser and write it as one HTML page")
    p.add_argument("output", nargs="?", default="cryotk-quickstart.html")
    p.set_defaults(run=demo)
    p = commands.add_parser("info", help="say what a STAR file, MRC file or job folder is")
    p.add_argument("files", nargs="+")
    p.set_defaults(run=info)
    p = commands.add_parser("warmup", help="compile the kernels ahead of their first use")
    p.set_defaults(run=warmup)
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    raise SystemExit(main())
