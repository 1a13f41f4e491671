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


def test_progress_bars_are_left_out_and_warnings_stay():
    new = nbformat.v4.new_output
    bar = {"text/plain": "windows:   0%|          | 00:00<?", "application/vnd.jupyter.widget-view+json": {"model_id": "a" * 32}}
    cell = nbformat.v4.new_code_cell("run()", outputs=[
        new("display_data", bar),
        new("stream", name="stderr", text="\r  0%|          | 0/3\r100%|██████████| 3/3"),
        new("stream", name="stderr", text="\r 50%|█████     | 1/2\nDataWarning: the mask is tight\n"),
        new("execute_result", {"text/plain": "'inside: 12 %| of the box'"}),
    ])  # fmt: skip
    page = export_html(nbformat.v4.new_notebook(cells=[cell]))
    assert "%|  " not in page and "██" not in page and "0/3" not in page
    assert "DataWarning: the mask is tight" in page and "of the box" in page
