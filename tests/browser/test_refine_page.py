"""RefineView and ClassView3D alone on a page."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from cryotk_widgets import ClassView3D, RefineView

pytestmark = pytest.mark.browser

_spec = importlib.util.spec_from_file_location("cryotk_test_volumes", Path(__file__).parents[1] / "widgets" / "volumes.py")
volumes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(volumes)
iteration = volumes.iteration


def state(view, *names):
    """What a change in Python sends to the page."""
    return {k: getattr(view, k) for k in names}


def ink(pg, index=0):
    return pg.evaluate(
        """(i) => { const c = document.querySelectorAll('canvas.ck-surface')[i], d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let n = 0; for (let k = 3; k < d.length; k += 4) if (d[k] > 0) n++; return n; }""",
        index,
    )


def test_curves_marks_directions_and_table(show):
    view = RefineView([iteration(i) for i in range(4)])
    pg = show(view)
    assert pg.locator(".ck-chart polyline").count() == 4
    widths = [float(w) for w in pg.evaluate("[...document.querySelectorAll('.ck-chart polyline')].map(e => e.style.strokeWidth)")]
    assert widths[-1] > 2 * max(widths[:-1])
    resolution = view.history[3]["resolution"]
    assert pg.locator(".ck-mark").text_content() == f"{resolution:.1f} Å" and pg.locator(".ck-text").inner_text() == view.summary
    rows = pg.locator(".ck-table tr")
    assert rows.count() == 5 and rows.nth(1).inner_text().split()[0] == "3" and rows.nth(1).get_attribute("class") == "now"
    assert "with the mates of D2" in pg.locator(".ck-title").first.inner_text()
    coloured = pg.evaluate(
        """() => { const c = document.querySelector('.ck-sphere'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return [c.width, d[3], d[4 * (c.width * (c.height / 2) + c.width / 2) + 3]]; }"""
    )
    assert coloured == [480, 0, 255]
    box = pg.locator(".ck-chart svg").bounding_box()
    pg.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 50)
    assert " Å: " in pg.locator(".ck-readout").first.inner_text()
    assert ink(pg) > 5000


def test_a_start_without_half_sets_is_not_drawn_as_an_fsc(show):
    pg = show(RefineView([iteration(0, halves=False), iteration(1), iteration(2)]))
    assert pg.locator(".ck-chart polyline").count() == 2 and pg.locator(".ck-table tr").count() == 4


def test_stepping_through_iterations(show):
    view = RefineView([iteration(i) for i in range(4)])
    pg = show(view)
    pg.get_by_label("Previous iteration").click()
    pg.wait_for_timeout(200)
    assert pg.evaluate("sent.at(-1)") == {"cmd": "set", "name": "position", "value": 2}
    view.position = 2
    pg.evaluate(
        "([s, b]) => model.update({ ...s, data: new DataView(new Uint8Array(b).buffer) })",
        [state(view, "position", "iteration", "summary", "history", "value_range", "threshold"), list(view.data)],
    )
    pg.wait_for_timeout(400)
    assert (
        pg.locator(".ck-iter b").inner_text() == "2"
        and pg.locator(".ck-mark").text_content() == f"{view.history[2]['resolution']:.1f} Å"
    )
    assert pg.locator(".ck-table tr.now").inner_text().split()[0] == "2"


def test_run_stop_and_progress(show):
    view = RefineView([iteration(1)])
    view.progress = {"running": False, "can_run": True}
    pg = show(view)
    pg.get_by_role("button", name="Run").click()
    pg.evaluate(
        "model.update({ progress: { running: true, can_run: true, iteration: 7, fraction: 0.63, seconds_left: 12.2, phase: 'expectation' } })"
    )
    assert pg.locator(".ck-text").inner_text().endswith("iteration 7 · 63 % of particles · 12 s left")
    assert (
        pg.get_by_role("progressbar").get_attribute("aria-valuenow") == "63"
        and not pg.get_by_role("button", name="Run").is_visible()
    )
    pg.get_by_role("button", name="Stop").click()
    assert [m["cmd"] for m in pg.evaluate("sent")] == ["run", "stop"]
    pg.evaluate("model.update({ progress: { running: false, can_run: true, message: 'stopped: iteration 6 stands' } })")
    assert pg.locator(".ck-text").inner_text() == "stopped: iteration 6 stands"


def test_nothing_yet_says_what_to_do(show):
    class Job:
        iterations, running = [], False

        def iterate(self):
            pass

        def on_progress(self, f):
            return lambda: None

    pg = show(RefineView(Job()))
    assert pg.locator(".ck-none").inner_text() == "No iteration yet: press Run, or call job.start()."
    assert pg.get_by_role("button", name="Run").is_visible() and not pg.locator("canvas.ck-surface").is_visible()


def test_classes_turn_together_and_are_selected(show):
    view = ClassView3D([iteration(i, k=3) for i in range(3)])
    pg = show(view)
    heads, grid = pg.locator(".ck-head"), pg.locator(".ck-grid")
    assert heads.count() == 3 and heads.first.inner_text().startswith("class 1 · 60.0 % · ")
    heads.nth(0).click()
    heads.nth(1).click(modifiers=["Shift"])
    assert pg.evaluate("model.get('selected')") == [1, 2]
    assert pg.locator(".ck-about").inner_text() == "2 of 3 classes · 200 of 200 particles"
    for key, expected in (("n", []), ("a", [1, 2]), ("i", []), ("Home", []), (" ", [1]), ("ArrowRight", [1]), (" ", [1, 2])):
        grid.press(key)
        assert pg.evaluate("model.get('selected')") == expected, key
    before = [ink(pg, i) for i in range(2)]
    pg.locator("canvas.ck-surface").nth(1).press("+")
    pg.wait_for_timeout(600)
    assert all(ink(pg, i) > 1.2 * b for i, b in enumerate(before))
    field = pg.get_by_label("Threshold of all classes, value")
    field.fill("0.9")
    field.press("Enter")
    pg.wait_for_timeout(600)
    assert ink(pg, 0) < 1.4 * before[0] and pg.evaluate("sent.filter(m => m.name === 'threshold').at(-1).value") == 0.9
    assert pg.locator(".ck-chart polyline").count() == 3
    pg.get_by_role("button", name="Save selection").click()
    pg.get_by_label("File for the selected particles").press("Enter")
    assert pg.evaluate("sent.at(-1)") == {"cmd": "save", "path": "selected_particles.star", "classes": [1, 2]}
    # Python's word is shown
    pg.evaluate("model.receive({ selected: 99 }); model.update({ selected: [2] })")
    pg.wait_for_timeout(100)
    assert pg.locator(".ck-card.sel").count() == 1 and np.array_equal(pg.evaluate("model.get('selected')"), [2])
