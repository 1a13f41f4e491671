"""Notebooks of the course, each run whole in JupyterLab: no cell fails, and every view draws something.

All of them together take minutes; by default the ones run whose views no other test sees in JupyterLab. ``CRYOTK_COURSE=all`` runs them all.
"""

from __future__ import annotations

import os
import time

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ALL = [
    "02_class2d", "03_initial_model", "04_class3d", "05_refine3d", "06_masks_and_postprocessing", "07_local_resolution", "08_napari",
]  # fmt: skip
USUAL = ["04_class3d", "07_local_resolution"]
CELLS = """() => jupyterapp.shell.currentWidget.content.widgets.map((w, i) => {
  const s = w.model.sharedModel, out = s.cell_type === 'code' ? s.getOutputs() : [];
  return { index: i, code: s.cell_type === 'code' && s.getSource().trim() !== '', ran: s.execution_count != null && s.execution_count !== 0,
    text: s.getSource().slice(0, 80),
    error: out.filter((o) => o.output_type === 'error').map((o) => `${o.ename}: ${o.evalue}`)[0] ?? null,
    stderr: out.filter((o) => o.output_type === 'stream' && o.name === 'stderr').map((o) => [].concat(o.text).join('')).join(''),
    view: out.some((o) => 'application/vnd.jupyter.widget-view+json' in (o.data ?? {}) && !/%\\|/.test([].concat(o.data['text/plain'] ?? '').join(''))),
    figure: !/plots\\.setup/.test(s.getSource()) && out.some((o) => Object.keys(o.data ?? {}).some((k) => /holoviews_exec|bokehjs_exec/.test(k))) };
})"""
# canvases (bokeh's in shadow roots, too) with more than one colour, and curves of SVG, in one cell's output
DRAWN = """(i) => { const cell = jupyterapp.shell.currentWidget.content.widgets[i].node; let canvases = 0, blank = 0, curves = 0;
  const walk = (root) => { for (const e of root.querySelectorAll('*')) {
    if (e.tagName === 'CANVAS' && e.width > 1 && e.height > 1 && e.getClientRects().length) {
      const c = e.getContext('2d'); if (!c) continue;
      const d = c.getImageData(0, 0, e.width, e.height).data; let same = true;
      for (let k = 4; k < d.length && same; k += 4) same = d[k] === d[0] && d[k + 1] === d[1] && d[k + 2] === d[2] && d[k + 3] === d[3];
      canvases++; if (same) blank++;
    }
    if (/^(polyline|path)$/i.test(e.tagName) && e.closest('svg') && !e.closest('button')) curves++;
    if (e.shadowRoot) walk(e.shadowRoot);
  } };
  const output = cell.querySelector('.jp-Cell-outputWrapper'); if (output) walk(output);
  return [canvases, blank, curves]; }"""


@pytest.mark.parametrize("name", ALL)
def test_notebook_in_jupyterlab(lab, page, name):
    if name not in USUAL and os.environ.get("CRYOTK_COURSE") != "all":
        pytest.skip("all with CRYOTK_COURSE=all")
    url, _ = lab
    page.open_notebook(url, f"{name}.ipynb")
    pg, begun = page.page, time.monotonic()
    page.run_all()
    while True:
        cells = pg.evaluate(CELLS)
        failed = [(c["text"], c["error"]) for c in cells if c["error"]]
        assert not failed
        if all(c["ran"] for c in cells if c["code"]) and page.ask("print(1)") == "1":
            break
        assert time.monotonic() - begun < 540, [c["text"] for c in cells if c["code"] and not c["ran"]]
        pg.wait_for_timeout(500)
    ran = time.monotonic() - begun
    cells = pg.evaluate(CELLS)
    assert not [c["stderr"] for c in cells if "Warning" in c["stderr"] or "Error" in c["stderr"]]
    shown = [c for c in cells if c["view"] or c["figure"]]
    for c in shown:
        # JupyterLab draws what is in sight
        pg.evaluate(f"jupyterapp.shell.currentWidget.content.activeCellIndex = {c['index']}")
        pg.evaluate(f"jupyterapp.shell.currentWidget.content.scrollToItem({c['index']}, 'start')")
        deadline = time.monotonic() + 30
        while True:
            canvases, blank, curves = pg.evaluate(DRAWN, c["index"])
            # bokeh lays an empty canvas over its own
            drawn = (canvases > blank and (blank == 0 or not c["view"])) or (canvases == 0 and curves > 0)
            if drawn or time.monotonic() > deadline:
                break
            pg.wait_for_timeout(200)
        assert drawn, (name, c["text"], canvases, blank, curves)
    print(f"{name}: {sum(c['code'] for c in cells)} cells in {ran:.0f} s, {len(shown)} views and figures drawn")
    assert shown or name == "08_napari"
    assert page.left_the_machine == []
