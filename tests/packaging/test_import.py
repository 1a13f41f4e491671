"""What importing costs, and that every public name is there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["numpy", "pandas", "xarray", "dask", "numba", "scipy", "pydantic", "cupy", "mrcfile", "starfile", "tqdm", "matplotlib"]
GUI = ["jupyterlab", "ipywidgets", "anywidget", "holoviews", "bokeh", "matplotlib", "napari", "IPython"]


def run(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("package", ["cryotk", "cryotk_widgets"])
def test_import_loads_the_standard_library_only(package, tmp_path):
    code = f"""
import sys
before = set(sys.modules)
import {package}
new = {{m.split('.')[0] for m in set(sys.modules) - before}}
print(sorted(new - set(sys.stdlib_module_names) - {{'cryotk', 'cryotk_widgets', 'lazy_loader'}}))
"""
    assert run(code, tmp_path) == "[]"


def test_heavy_packages_are_not_loaded_by_import(tmp_path):
    assert run(f"import sys, cryotk; print([m for m in {HEAVY} if m in sys.modules])", tmp_path) == "[]"


def test_command_line_answers_before_anything_heavy_is_loaded(tmp_path):
    code = f"""
import sys
from cryotk.cli import main
try:
    main(['--help'])
except SystemExit:
    pass
print([m for m in {HEAVY} if m in sys.modules])
"""
    assert run(code, tmp_path).splitlines()[-1] == "[]"


def test_opening_particles_loads_no_screens_and_no_compiler(tmp_path):
    code = f"""
import sys, numpy as np, cryotk as ctk
ctk.write_stack(np.ones((2, 8, 8), 'f4'), 'a.mrcs', pixel_size=2.0)
open('a.star', 'w').write('data_optics\\n\\nloop_\\n_rlnOpticsGroup #1\\n_rlnImagePixelSize #2\\n_rlnImageSize #3\\n1 2.0 8\\n\\n'
    'data_particles\\n\\nloop_\\n_rlnImageName #1\\n_rlnOpticsGroup #2\\n1@a.mrcs 1\\n2@a.mrcs 1\\n')
p = ctk.open_particles('a.star')
repr(p), p._repr_html_()
print([m for m in {[*GUI, 'numba']} if m in sys.modules])
"""
    assert run(code, tmp_path) == "[]"


def test_every_public_name_resolves(tmp_path):
    import cryotk

    assert "open_particles" in cryotk.__all__ and "Class2D" in cryotk.__all__
    missing = []
    for name in cryotk.__all__:
        try:
            getattr(cryotk, name)
        except Exception as error:
            missing.append(f"{name}: {error!r}")
    assert missing == []
    assert set(cryotk.__all__) <= set(dir(cryotk))


def test_stub_and_package_say_the_same():
    import cryotk

    stub = Path(cryotk.__file__).with_suffix(".pyi")
    names = {
        alias.asname or alias.name
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert names == set(cryotk.__all__)
    assert (stub.parent / "py.typed").exists()


def test_public_functions_have_docstrings_that_say_what_goes_in():
    import inspect

    import cryotk

    bare = []
    for name in cryotk.__all__:
        thing = getattr(cryotk, name)
        doc = inspect.getdoc(thing) or ""
        if not doc:
            bare.append(name)
        elif inspect.isfunction(thing) and inspect.signature(thing).parameters and "Parameters\n---" not in doc:
            bare.append(name)
    assert bare == []


def test_names_that_are_not_there_are_attribute_errors():
    import cryotk

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = cryotk.no_such_name
