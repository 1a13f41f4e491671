"""A refinement that is followed and stopped in JupyterLab, while a cell waits for it."""

import json
import time

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELLS = [
    "import numpy as np\nimport cryotk as ctk\nparticles = ctk.simulate.example().cryo.select(np.arange(300))\n"
    "reference = ctk.simulate.volume(ctk.simulate.molecule(), 64, 3.5)\n"
    "job = ctk.Refine3D(particles, reference, symmetry='D2', initial_lowpass=40, mask_diameter=190, seed=1)",
    "view = job.view()\nview",
    "job.start()\nawait job",
]


def _wait(page, code, wanted, seconds):
    deadline = time.monotonic() + seconds
    while True:
        answer = page.ask(code)
        if answer == wanted or time.monotonic() > deadline:
            return answer
        page.page.wait_for_timeout(300)


def test_maps_appear_and_stop_keeps_the_last_iteration(lab, page, figures):
    url, folder = lab
    cells = [{"cell_type": "code", "id": f"r{i}", "metadata": {}, "execution_count": None, "outputs": [], "source": s} for i, s in enumerate(CELLS)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (folder / "refine.ipynb").write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    page.open_notebook(url, "refine.ipynb")
    page.run_all()
    pg = page.page
    # two iterations have come: their curves stand in the figure, the map is drawn
    pg.wait_for_function("document.querySelectorAll('.ck-refine .ck-table tr').length >= 4", timeout=180_000)
    assert pg.locator(".ck-refine .ck-chart polyline").count() >= 2
    assert pg.evaluate("Number(document.querySelector('canvas.ck-surface').dataset.frames)") >= 2
    pg.locator(".ck-stop").first.wait_for(state="visible", timeout=60_000)
    assert "iteration" in pg.locator(".ck-text").first.inner_text()
    pg.locator(".ck-stop").first.click()
    assert _wait(page, "print(job.running)", "False", 60) == "False"
    assert page.ask("print(len(job.iterations) == job.iteration + 1 == view.n_iterations)") == "True"
    pg.locator(".ck-run").first.wait_for(state="visible", timeout=20_000)
    assert "stopped: iteration" in pg.locator(".ck-text").first.inner_text()
    # the threshold of the page is Python's
    pg.locator("canvas.ck-histogram").first.press("ArrowRight")
    assert _wait(page, "print(view.threshold > view.suggested)", "True", 10) == "True"
    pg.evaluate("document.querySelectorAll('.Toastify').forEach(e => e.remove())")
    pg.locator(".ck-refine").first.screenshot(path=figures / "refine_in_jupyter.png")
    assert page.left_the_machine == []
