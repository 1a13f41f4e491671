"""Exported pages: formulas are pictures, since no program that sets TeX is loaded from the internet."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from cryotk_widgets.export import export_html, formulas_as_pictures


def test_formulas_become_pictures():
    out = formulas_as_pictures("as $\\Delta F$ grows,\n\n$$\\tfrac{1}{2}\\lambda\n^3 k$$\n\nit costs $5 or `$x$`.")
    assert out.count("<img") == 2 and out.count("data:image/svg+xml;base64,") == 2
    assert 'alt="\\Delta F"' in out and "costs $5 or `$x$`." in out


def test_unknown_tex_stays_readable():
    assert formulas_as_pictures("$\\nosuchmacro{x}$") == "<code>\\nosuchmacro{x}</code>"


@pytest.mark.parametrize("name", ["00_quickstart", "01_images_and_ctf", "02_class2d"])
def test_every_formula_of_the_course_is_set(name):
    nb = nbformat.read(Path(__file__).parents[2] / "notebooks" / f"{name}.ipynb", as_version=4)
    formulas = sum(c.source.count("$") for c in nb.cells if c.cell_type == "markdown")
    page = export_html(nb)
    body = page[page.index("<body") :]
    assert ("data:image/svg+xml" in body) == (formulas > 0)
    assert "<code>\\" not in body and "$$" not in body
