"""The notebook on masks in a real browser, and its page offline."""

import shutil

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NAME = "06_masks_and_postprocessing.ipynb"
INK = """(i) => { const c = document.querySelectorAll('canvas.ck-surface')[i], d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let n = 0, s = 0; for (let k = 0; k < d.length; k += 4) if (d[k + 3] > 0) { n++; s += d[k] + 2 * d[k + 1]; } return [n, s]; }"""


def _wait(page, code, wanted, seconds=180):
    import time

    deadline = time.monotonic() + seconds
    while True:
        answer = page.ask(code)
        if answer == wanted or time.monotonic() > deadline:
            return answer
        page.page.wait_for_timeout(300)


def test_the_threshold_slider_moves_the_picture_and_python_knows(lab, page, figures):
    url, _ = lab
    page.open_notebook(url, NAME)
    page.run_all()
    assert _wait(page, "print('again' in globals())", "True") == "True"
    pg = page.page
    assert pg.evaluate("document.querySelectorAll('.jp-RenderedText[data-mime-type*=stderr], .jp-OutputArea-error').length") == 0
    pg.evaluate("jupyterapp.shell.currentWidget.content.activeCellIndex = 4")
    histogram = pg.locator("canvas.ck-histogram").first
    histogram.scroll_into_view_if_needed()
    pg.wait_for_timeout(1500)
    before, level = pg.evaluate(INK, 0), float(page.ask("print(view.threshold)"))
    box = histogram.bounding_box()
    pg.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 20)
    pg.mouse.down()
    for i in range(5):
        pg.mouse.move(box["x"] + box["width"] * (0.4 + 0.08 * i), box["y"] + 20)
        pg.wait_for_timeout(40)
    pg.mouse.up()
    pg.wait_for_timeout(1500)
    after = pg.evaluate(INK, 0)
    assert before[0] > 5000 and after[0] < 0.9 * before[0] and after[1] != before[1]
    low, high = (float(v) for v in page.ask("print(*view.value_range)").split())
    assert _wait(page, f"print(abs(view.threshold - {low + 0.72 * (high - low)}) < 0.02 * {high - low})", "True", 10) == "True"
    # and Python sets it back
    page.ask(f"view.threshold = {level}")
    pg.wait_for_timeout(1500)
    assert abs(pg.evaluate(INK, 0)[0] / before[0] - 1) < 0.05
    pg.evaluate("document.querySelectorAll('.Toastify').forEach(e => e.remove())")
    pg.locator(".ck-volume").first.screenshot(path=figures / "volume_in_jupyter.png")
    assert page.left_the_machine == []


def test_exported_page_shows_curves_and_a_surface_offline(page, tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    from cryotk_widgets import export_html

    from cryotk.cli import copy_course

    course = {p.name: p for p in copy_course(tmp_path / "course")}
    nb = nbformat.read(shutil.copy(course[NAME], tmp_path / NAME), as_version=4)
    nbclient.NotebookClient(
        nb, timeout=400, kernel_name="python3", store_widget_state=True, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    export_html(nb, tmp_path / "page.html")
    pg, errors = page.page, []
    pg.on("pageerror", lambda e: errors.append(str(e)))
    pg.goto((tmp_path / "page.html").as_uri())
    pg.wait_for_function(
        "document.querySelectorAll('canvas.ck-surface').length >= 4 && Number(document.querySelector('canvas.ck-surface').dataset.frames) > 0",
        timeout=60_000,
    )
    pg.wait_for_timeout(2500)
    assert pg.evaluate(INK, 0)[0] > 5000
    before = pg.evaluate(INK, 0)
    histogram = pg.locator("canvas.ck-histogram").first
    box = histogram.bounding_box()
    histogram.click(position={"x": 0.7 * box["width"], "y": 20})
    pg.wait_for_timeout(1500)
    assert pg.evaluate(INK, 0)[0] < 0.9 * before[0]
    # three FSC figures and the Guinier plot, in bokeh's shadow roots
    count = """() => { let n = 0; const walk = (r) => { for (const e of r.querySelectorAll('*')) { if (e.classList.contains('bk-Figure')) n++;
      if (e.shadowRoot) walk(e.shadowRoot); } }; walk(document); return n; }"""
    assert pg.evaluate(count) == 4
    assert errors == [] and page.left_the_machine == []
