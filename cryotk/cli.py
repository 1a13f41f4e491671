"""The command line: ``cryotk lab``, ``demo``, ``info``, ``warmup``.

Everything heavy is imported by the command that needs it, so that ``cryotk --help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib import import_module, util
from pathlib import Path

from cryotk.errors import CryotkError, FileFormatError, MissingFileError, SettingsError

__all__ = ["copy_course", "describe", "main"]

QUICKSTART = "00_quickstart.ipynb"
_PACKED = (".gz", ".bz2")
_MRC = (".mrc", ".mrcs", ".map", ".st", ".rec", ".ccp4")


def _notebooks() -> Path:
    """Folder of the course: inside the installed package, or of a checkout."""
    spec = util.find_spec("cryotk_widgets")
    if spec is None or spec.origin is None:
        raise SettingsError(
            "the package cryotk_widgets, which holds the notebooks, is missing; pip install 'cryotk[lab]' brings it"
        )
    package = Path(spec.origin).parent
    for folder in (package / "notebooks", package.parents[1] / "notebooks"):
        if (folder / QUICKSTART).is_file():
            return folder
    raise MissingFileError(f"no notebooks in {package / 'notebooks'}; install cryotk again: pip install 'cryotk[lab]'")


def _needs(*modules: str) -> None:
    missing = [m for m in modules if util.find_spec(m) is None]
    if missing:
        raise SettingsError(f"this command needs {', '.join(missing)}; install it with: pip install 'cryotk[lab]'")


def copy_course(folder: str | os.PathLike[str]) -> list[Path]:
    """Copy the notebooks into a folder; files that are there already stay as they are.

    Parameters
    ----------
    folder : path
        Made if need be.

    Returns
    -------
    list of Path
        The notebooks in the folder, in the course's order.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise SettingsError(f"{target} is a file; name a folder for the notebooks")
    target.mkdir(parents=True, exist_ok=True)
    out = []
    for source in sorted(_notebooks().glob("*.ipynb")):
        copy = target / source.name
        if not copy.exists():
            shutil.copyfile(source, copy)
        out.append(copy)
    return out


def lab(args: argparse.Namespace) -> int:
    """Copy the course and open JupyterLab on the quickstart."""
    _needs("jupyterlab")
    folder = Path(args.folder)
    files = copy_course(folder)
    print(f"{len(files)} notebooks in {folder.resolve()}; yours to change, another `cryotk lab` leaves them alone")
    command = [sys.executable, "-m", "jupyterlab", *args.jupyter, str(folder / QUICKSTART)]
    if getattr(os, "geteuid", lambda: 1)() == 0 and "--allow-root" not in command:
        # containers: JupyterLab would refuse, and its token protects it as anywhere
        command.insert(3, "--allow-root")
    try:
        return subprocess.call(command)
    except KeyboardInterrupt:
        return 0


def demo(args: argparse.Namespace) -> int:
    """Execute the quickstart without a browser and leave it as one page."""
    _needs("nbclient", "nbconvert", "ipykernel", "anywidget", "holoviews", "matplotlib")
    output = Path(args.output)
    if output.is_dir():
        output = output / "cryotk-quickstart.html"
    if not output.parent.is_dir():
        raise MissingFileError(f"{output.parent}: no such folder; make it, or write the page elsewhere")
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from tqdm import tqdm

    notebook = Path(args.notebook) if args.notebook else _notebooks() / QUICKSTART
    if not notebook.is_file():
        raise MissingFileError(f"{notebook}: no such notebook")
    nb = nbformat.read(str(notebook), as_version=4)
    cells = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in nb.cells)
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=cells, unit="cell", desc=notebook.stem, disable=args.quiet) as bar:
        client = NotebookClient(
            nb,
            timeout=1800,
            kernel_name="python3",
            store_widget_state=True,
            extra_arguments=["--log-level=ERROR"],  # its remarks are not the user's business
            # what the notebook writes goes away with the folder; relative paths still begin where the user stands
            resources={"metadata": {"path": scratch if not args.notebook else str(notebook.parent)}},
            on_cell_executed=lambda **_: bar.update(1),
        )
        try:
            client.execute()
        except CellExecutionError as error:
            raise SettingsError(f"{notebook.name} stopped at a cell:\n{error}") from None
    import_module("cryotk_widgets.export").export_html(nb, output, title=f"cryotk: {notebook.stem}")
    print(f"wrote {output.resolve()} ({output.stat().st_size / 1e6:.1f} MB): open it in any browser, no internet needed")
    return 0


def describe(path: str | os.PathLike[str]) -> list[str]:
    """Say in a few lines what a file or folder is.

    Parameters
    ----------
    path : path
        STAR file, MRC file (also packed: .gz, .bz2), cryoSPARC's .cs, or folder of a job (RELION's or ours).

    Returns
    -------
    list of str
        Lines; those that begin with ``warning:`` or ``error:`` say what is wrong inside.

    Raises
    ------
    MissingFileError
        Nothing is there.
    FileFormatError
        Neither a STAR nor an MRC file.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path}: no such file or folder")
    if path.is_dir():
        return _describe_folder(path)
    suffixes = [v.lower() for v in path.suffixes]
    suffix = suffixes[-1] if suffixes else ""
    if suffix == ".cs":
        return [f"{path}: cryoSPARC particles, {path.stat().st_size / 1e6:.1f} MB", *_describe_particles(path)]
    if suffix == ".star" or (suffix not in _MRC and _looks_like_star(path)):
        return _describe_star(path)
    if suffix in _PACKED and (len(suffixes) < 2 or suffixes[-2] not in _MRC):
        raise FileFormatError(f"{path} is packed and its name does not end in .mrc{suffix} or .map{suffix}; unpack it first")
    if suffix not in (*_MRC, *_PACKED):
        try:
            return _describe_mrc(path)
        except FileFormatError:
            raise FileFormatError(f"{path} is neither a STAR file nor an MRC file, by its name and by its content") from None
    return _describe_mrc(path)


def _looks_like_star(path: Path) -> bool:
    with open(path, "rb") as f:
        head = f.read(4096)
    return b"\0" not in head and b"data_" in head


def _describe_mrc(path: Path) -> list[str]:
    from cryotk.io.mrc import read_header, read_mrc

    packed = path.suffix.lower() in _PACKED
    h = read_mrc(path)[1] if packed else read_header(path)
    z, y, x = h.shape
    if packed:
        path = path.with_suffix("")
    if z == 1:
        kind = "image"
    elif path.suffix.lower() in (".mrcs", ".st") or (h.space_group == 0 and not z == y == x):
        kind = f"stack of {z} images"
    else:
        kind = "volume"
    size = f"{x} x {y}" if kind != "volume" else f"{x} x {y} x {z}"
    scale = f"{h.pixel_size:.4g} Å/px" if h.pixel_size > 0 else "pixel size unknown"
    lines = [f"{path}: MRC {kind}, {size} px, {h.dtype.name}, {scale}, {h.file_size / 1e6:.1f} MB"]
    if h.images_present < z:
        lines.append(f"warning: the file is cut short: {h.images_present} of {z} sections are there; copy it again")
    if not h.pixel_size > 0:
        lines.append("warning: the header has no pixel size; give pixel_size= when you open it")
    if kind == "volume" and any(h.origin):
        lines.append(f"origin: {', '.join(f'{v:g}' for v in h.origin)} Å")
    return lines


def _describe_star(path: Path) -> list[str]:
    from cryotk.io.star import read_star

    blocks = read_star(path)
    lines = [f"{path}: STAR file, {path.stat().st_size / 1e6:.1f} MB"]
    for name, block in blocks.items():
        size = f"{len(block)} rows x {len(block.columns)} columns" if block.is_loop else f"list of {len(block.columns)} values"
        version = f", version {block.version}" if block.version else ""
        lines.append(f"  data_{name}: {size}{version}")
    # a table that cannot be used can be described all the same
    try:
        if any((block.is_loop and "rlnImageName" in block) or "rlnTomoParticlesFile" in block for block in blocks.values()):
            lines += _describe_particles(path)
        elif "optimiser_general" in blocks:
            lines += _describe_optimiser(path)
    except CryotkError as error:
        lines.append(f"error: {error}")
    return lines


def _describe_particles(path: Path) -> list[str]:
    from cryotk.data import open_particles

    p = open_particles(path, images=False)
    lines = [f"particles: {p.sizes['particle']}, optics groups: {p.sizes['optics']}"]
    for i, group in enumerate(p["optics"].values):
        parts = [f"{float(p['pixel_size'].values[i]):.4g} Å/px"]
        for name, text in (("box_size", "{:.0f} px"), ("voltage", "{:g} kV"), ("spherical_aberration", "Cs {:g} mm")):
            if name in p:
                parts.append(text.format(float(p[name].values[i])))
        count = int((p["optics_group"].values == group).sum()) if "optics_group" in p else p.sizes["particle"]
        label = f" ({p['optics_name'].values[i]})" if "optics_name" in p else ""
        lines.append(f"  group {group}{label}: {count} particles, {', '.join(parts)}")
    has = [text for name, text in (("defocus_u", "CTF"), ("angle_rot", "poses"), ("class_number", "classes"),
                                   ("random_subset", "half-sets"), ("coordinate_x", "coordinates")) if name in p]  # fmt: skip
    lines.append(f"  columns for: {', '.join(has) if has else 'images only'}")
    if "tilt_angle" in p:
        tilt, dose = p["tilt_angle"].values, p["dose"].values
        lines.append(
            f"  {p.sizes['image']} tilt images of {len(set(p['rlnTomoName'].values))} tilt series, "
            f"{tilt.min():.0f}° to {tilt.max():.0f}°, {dose.min():.0f} to {dose.max():.0f} e/Å^2"
        )
    try:
        report = open_particles(path).cryo.validate()
    except CryotkError as error:
        # e.g. no stack is here: the table can be described all the same
        return [*lines, f"error: {error}"]
    return [*lines, *_first_ones("error", report.errors), *_first_ones("warning", report.warnings)]


def _first_ones(kind: str, messages: list[str], most: int = 5) -> list[str]:
    """Lines of messages; of very many (each stack of a project that is elsewhere) the first ones and their number."""
    more = [f"{kind}: ... and {len(messages) - most} more like these"] if len(messages) > most else []
    return [f"{kind}: {m}" for m in messages[:most]] + more


def _describe_optimiser(path: Path) -> list[str]:
    from cryotk.io.relion_refinement import open_iteration

    it = open_iteration(path)
    m = it.model
    what = f"{'3D' if m.is_3d else '2D'} refinement, iteration {it.number}"
    return [f"  {what}: {m.n_classes} classes of {m.box_size} px, resolution {m.current_resolution:.1f} Å"]


def _describe_folder(path: Path) -> list[str]:
    from cryotk.io.star import read_star

    lines = [f"{path}: folder"]
    job = path / "job.star"
    if job.exists():
        try:
            entry = read_star(job).get("job")
        except CryotkError as error:
            lines.append(f"warning: {error}")
            entry = None
        if entry is not None:
            lines[0] = f"{path}: RELION job, {entry.get('rlnJobTypeLabel', entry.get('rlnJobType', 'type unknown'))}"
    for mark, text in (("RELION_JOB_EXIT_SUCCESS", "finished"), ("RELION_JOB_EXIT_FAILURE", "failed"),
                       ("RELION_JOB_EXIT_ABORTED", "aborted")):  # fmt: skip
        if (path / mark).exists():
            lines.append(f"  {text}")
    optimisers = sorted(path.glob("*_optimiser.star"), key=_iteration_of)
    if optimisers:
        try:
            lines += _describe_optimiser(optimisers[-1])
        except CryotkError as error:
            lines.append(f"warning: {error}")
    if any(path.glob("*.checkpoint")):
        from cryotk.execution.checkpoint import checkpoints

        ours = checkpoints(path)
        lines.append(f"  cryotk checkpoints: {len(ours)}, last {ours[-1].name} (goes on with Class2D.resume)")
    counts = [(len(list(path.glob(pattern))), pattern) for pattern in ("*.star", "*.mrc", "*.mrcs")]
    lines.append("  files: " + (", ".join(f"{n} {pattern}" for n, pattern in counts if n) or "no STAR or MRC files"))
    return lines


def _iteration_of(path: Path) -> tuple[float, str]:
    """By the number of the iteration; a file without one is the end of an auto-refinement."""
    found = re.search(r"_it(\d+)", path.name)
    return (int(found[1]) if found else float("inf")), path.name


def info(args: argparse.Namespace) -> int:
    """Print what files and folders are; 1 if one of them cannot be used."""
    failed = False
    for name in args.files:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                lines = describe(name)
            lines += [f"warning: {w.message}" for w in caught if issubclass(w.category, UserWarning)]
        except CryotkError as error:
            lines = [f"error: {error}"]
        print("\n".join(lines))
        failed |= any(line.startswith("error:") for line in lines)
    return int(failed)


def warmup(_args: argparse.Namespace) -> int:
    """Compile all kernels, and the loops of other rooms, ahead of their first use."""
    import time

    import numpy as np

    from cryotk.execution.device import resolve_device
    from cryotk.io.star_scan import scan_rows
    from cryotk.jobs.warmup import warm_up
    from cryotk.kernels import warmup as run
    from cryotk.optics import OpticsGroup, ctf

    print("compiling the kernels (once per machine; a quarter of a minute) ...", flush=True)
    start = time.perf_counter()
    run()
    ctf(OpticsGroup(2.0), np.zeros((2, 2)), 1e4, 1e4, 0.0)
    scan_rows(b"1 a\n", 2, {1})
    device = resolve_device("auto")
    if device != "cpu":
        print(f"and those of {device} (once; a minute) ...", flush=True)
        warm_up(device)
    print(f"ready after {time.perf_counter() - start:.1f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    from cryotk import __version__

    parser = argparse.ArgumentParser(prog="cryotk", description="Cryo-EM single-particle analysis in a notebook, step by step.")
    parser.add_argument("--version", action="version", version=f"cryotk {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    p = commands.add_parser(
        "lab", help="copy the course to a folder and open JupyterLab on it",
        epilog="Options after the folder go to JupyterLab, e.g. cryotk lab course --no-browser --port 8890",
    )  # fmt: skip
    p.add_argument("folder", nargs="?", default="cryotk-course", help="made if need be (default: %(default)s)")
    p.set_defaults(run=lab)
    p = commands.add_parser("demo", help="run the quickstart without a browser and write it as one HTML page")
    p.add_argument("output", nargs="?", default="cryotk-quickstart.html", help="page to write (default: %(default)s)")
    p.add_argument("--notebook", help="another notebook to run instead of the quickstart")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    p.set_defaults(run=demo)
    p = commands.add_parser("info", help="say what STAR files, MRC files or job folders are, and what is wrong with them")
    p.add_argument("files", nargs="+", metavar="FILE")
    p.set_defaults(run=info)
    p = commands.add_parser("warmup", help="compile the kernels ahead of their first use")
    p.set_defaults(run=warmup)
    return parser


def _of_jupyter(words: list[str]) -> tuple[list[str], list[str]]:
    """Split off what JupyterLab is to get: for ``lab``, everything from the first option on, values of options included."""
    first = next((i for i, w in enumerate(words) if i and w.startswith("-") and w not in ("-h", "--help")), len(words))
    return (words[:first], words[first:]) if words[:1] == ["lab"] else (words, [])


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the ``cryotk`` command; returns the exit status."""
    words, jupyter = _of_jupyter(list(sys.argv[1:] if argv is None else argv))
    args = _parser().parse_args(words)
    args.jupyter = jupyter
    try:
        return int(args.run(args))
    except CryotkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
