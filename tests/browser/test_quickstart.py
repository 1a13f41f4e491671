"""What the quickstart promises, in a real browser."""

import json

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def _wait(page, code: str, wanted: str, seconds: float = 120) -> str:
    import time

    deadline = time.monotonic() + seconds
    while True:
        answer = page.ask(code)
        if answer == wanted or time.monotonic() > deadline:
            return answer
        page.page.wait_for_timeout(300)


def test_quickstart_runs_and_clicks_reach_the_kernel(lab, page, figures):
    url, _ = lab
    page.open_notebook(url, "00_quickstart.ipynb")
    page.run_all()
    page.page.wait_for_selector(".ck-tile canvas", timeout=120_000)
    assert _wait(page, "print(job.iteration if 'job' in globals() else -1, 'kept' in globals())", "15 True") == "15 True"
    errors = page.page.evaluate("[...document.querySelectorAll('.jp-RenderedText[data-mime-type*=stderr], .jp-OutputArea-error')].length")
    assert errors == 0
    page.ask("gallery.selected = []")
    page.page.evaluate("jupyterapp.shell.currentWidget.content.activeCellIndex = 6")
    gallery = page.page.locator(".ck-gallery").first
    gallery.scroll_into_view_if_needed()
    page.page.wait_for_timeout(500)
    tiles = gallery.locator(".ck-tile")
    assert tiles.count() == 12
    gallery.get_by_label("Sort by").select_option("particles")
    tiles.nth(0).click()
    tiles.nth(2).click()
    selected = json.loads(_wait(page, "import json; print(json.dumps(gallery.selected))", "", 1.0))
    assert len(selected) == 2
    assert gallery.locator(".ck-count").inner_text().startswith("2 of 12 classes")
    expected = page.ask("import numpy as np; print(int(np.isin(job.assignments.class_number, gallery.selected).sum()))")
    assert page.ask("print(gallery.selected_particles().sizes['particle'])") == expected
    # Jupyter's question about news lies over the picture
    page.page.evaluate("document.querySelectorAll('.Toastify').forEach(e => e.remove())")
    page.page.mouse.move(5, 5)
    page.page.wait_for_timeout(200)
    gallery.screenshot(path=figures / "gallery.png")
    # a class, large: its pixels come from the kernel
    tiles.nth(0).dblclick()
    page.page.wait_for_function("document.querySelector('.ck-loupe svg polyline') !== null", timeout=10_000)
    page.page.mouse.move(5, 5)
    gallery.screenshot(path=figures / "gallery_large.png")
    gallery.get_by_label("Close").click()
    # the selection as a file
    gallery.get_by_role("button", name="Save selection").click()
    gallery.get_by_label("File for the selected particles").press("Enter")
    page.page.wait_for_function("document.querySelector('.ck-notice').textContent.includes('particles written to')", timeout=20_000)
    assert page.ask("print(ctk.open_particles('selected_particles.star', images=False).sizes['particle'])") == expected
    # keyboard: all that hold particles, then none
    gallery.locator(".ck-grid").press("a")
    assert int(page.ask("print(len(gallery.selected))")) >= 6
    gallery.locator(".ck-grid").press("n")
    assert page.ask("print(gallery.selected)") == "[]"
    # an earlier iteration, from the page
    gallery.get_by_label("Previous iteration").click()
    assert _wait(page, "print(gallery.iteration)", "14", 5) == "14"
    page.ask("gallery.theme = 'dark'; gallery.selected = [1, 2]")
    page.page.wait_for_timeout(300)
    gallery.screenshot(path=figures / "gallery_dark.png")
    assert page.left_the_machine == []


def test_stop_ends_a_run_and_keeps_the_last_iteration(lab, page):
    url, folder = lab
    nb = {
        "cells": [
            {"cell_type": "code", "id": f"c{i}", "metadata": {}, "execution_count": None, "outputs": [], "source": s}
            for i, s in enumerate(
                [
                    "import cryotk as ctk\nps = ctk.simulate.example()\njob = ctk.Class2D(ps, 30, mask_diameter=190, n_iterations=500, seed=1)",
                    "gallery = job.view()\ngallery",
                    "job.start()\nawait job",
                ]
            )
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (folder / "stop.ipynb").write_text(json.dumps(nb))
    page.open_notebook(url, "stop.ipynb")
    page.run_all()
    page.page.wait_for_selector(".ck-tile canvas", timeout=120_000)
    page.page.locator(".ck-stop").first.wait_for(state="visible", timeout=60_000)
    assert "% of particles" in page.page.locator(".ck-text").first.inner_text()
    # a click while a cell waits reaches the kernel, too
    page.page.locator(".ck-tile").nth(3).click()
    page.page.locator(".ck-tile").nth(1).click()
    page.page.locator(".ck-stop").first.click()
    assert _wait(page, "print(gallery.selected)", "[2, 4]", 30) == "[2, 4]"
    assert _wait(page, "print(job.running)", "False", 30) == "False"
    assert page.ask("print(job.iteration < 500 and len(job.iterations) == job.iteration + 1)") == "True"
    page.page.locator(".ck-run").first.wait_for(state="visible", timeout=10_000)
    assert page.left_the_machine == []


def test_exported_page_shows_the_gallery_offline(page, tmp_path, figures):
    import nbformat
    from cryotk_widgets.export import export_html
    from nbclient import NotebookClient

    code = (
        "import cryotk as ctk\nps = ctk.simulate.particles(120, 32, 6.0, seed=1)\njob = ctk.Class2D(ps, 3, mask_diameter=170, seed=1)\n"
        "job.run(3, progress=False)\njob.view()"
    )
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(nb, timeout=300, kernel_name="python3", store_widget_state=True).execute()
    export_html(nb, tmp_path / "page.html")
    page.page.goto((tmp_path / "page.html").as_uri())
    page.page.wait_for_selector(".ck-tile canvas", timeout=30_000)
    assert page.page.locator(".ck-tile").count() == 3
    page.page.locator(".ck-tile").nth(1).click()
    assert page.page.locator(".ck-count").inner_text().startswith("1 of 3 classes")
    spread = page.page.evaluate(
        """() => { const c = document.querySelector('.ck-tile canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let lo = 255, hi = 0; for (let i = 0; i < d.length; i += 4) { lo = Math.min(lo, d[i]); hi = Math.max(hi, d[i]); } return hi - lo; }"""
    )
    assert spread > 100
    page.page.screenshot(path=figures / "exported.png")
    assert page.left_the_machine == []
