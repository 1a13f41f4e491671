"""The walls of the house, and what must not be written on them."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [Path(find_spec(name).origin).parent for name in ("cryotk", "cryotk_widgets")]
TEXT = {".py", ".pyi", ".js", ".css", ".md", ".toml", ".cff", ".yaml", ".yml", ".txt", ".ipynb", ".sh", ".star", ""}


def files() -> list[Path]:
    """Text files of the installed packages and of what lies beside the tests."""
    found = [p for package in PACKAGES for p in package.rglob("*")]
    for name in ("tests", "docs", "notebooks", "benchmarks", "binder", ".ci"):
        found += (ROOT / name).rglob("*")
    found += ROOT.glob("*")
    skip = ("__pycache__", ".ipynb_checkpoints")
    return sorted({p for p in found if p.is_file() and p.suffix in TEXT and not any(s in p.parts for s in skip)})


def test_layers(capsys):
    pytest.importorskip("importlinter", reason="needs import-linter (extra: dev)")
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0, capsys.readouterr().out


def test_every_room_says_what_it_is_for_and_names_what_it_gives():
    silent = []
    for init in sorted(PACKAGES[0].glob("*/__init__.py")):
        tree = ast.parse(init.read_text())
        doc = ast.get_docstring(tree) or ""
        names = {t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)}
        if len(doc) < 60 or "__all__" not in names:
            silent.append(init.parent.name)
    assert silent == []


# one pattern is put together, so that this file does not find itself
PATHS = re.compile("|".join([r"/wo" r"rk/", r"/tmp/d" r"ev\b", r"(?<![\w.~])/ro" r"ot/", r"/home/(?!jovyan)\w+/", r"/Users/\w+/"]))


def test_no_path_of_a_machine():
    found = []
    for path in files():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if PATHS.search(line):
                found.append(f"{path.name}:{number}: {line.strip()[:120]}")
    assert found == []


def test_notebooks_travel_with_the_wheel_and_are_clean():
    import json

    from cryotk.cli import _notebooks

    names = sorted(p.name for p in _notebooks().glob("*.ipynb"))
    assert names[0] == "00_quickstart.ipynb"
    for name in names:
        nb = json.loads((_notebooks() / name).read_text())
        assert nb["metadata"]["kernelspec"]["name"] == "python3", f"{name}: without it JupyterLab asks for a kernel first"
        assert all(not cell.get("outputs") for cell in nb["cells"]), f"{name}: outputs are made by running, not kept"


def test_widgets_bring_their_scripts():
    static = PACKAGES[1] / "static"
    modules = {path.stem for path in static.glob("*.js")}
    assert "gallery" in modules
    for path in static.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org)", text), f"{path.name} loads something from elsewhere"


def test_every_difference_from_relion_names_a_test_that_is_there():
    rows = [t for t in (ROOT / "docs/relion_differences.md").read_text().splitlines() if t.startswith("| ") and "---" not in t]
    rows = [t for t in rows if not t.startswith("| what")]
    assert len(rows) > 25
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row.split("|")[-2])
        assert named, row
        for file, function in named:
            text = (ROOT / file).read_text()
            assert not function or f"def {function}(" in text, f"{file} has no {function}"


def test_lists_of_exceptions_only_get_shorter():
    import tomllib

    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    untyped = {m for o in tool["mypy"]["overrides"] if o.get("ignore_errors") for m in o["module"]}
    assert untyped <= {"cryotk.kernels.*", "cryotk.jobs.updates", "cryotk.likelihood.sums", "cryotk_widgets.plots"}
    long_lines = {k for k, v in tool["ruff"]["lint"]["per-file-ignores"].items() if "E501" in v}
    rooms = {f"cryotk/{room}/**" for room in ("execution", "jobs", "kernels", "likelihood", "maps")}
    assert long_lines <= rooms | {"widgets/**", "docs/**", "tests/**", "benchmarks/**"}


def test_files_stay_short():
    long = {}
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            n = len(path.read_text().splitlines())
            if n > 450:
                long[path.name] = n
    assert long == {}, "when a file grows past about 400 lines it is two things"
