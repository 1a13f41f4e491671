"""PosteriorView alone on a page."""

import numpy as np
import pytest
import xarray as xr
from cryotk_widgets import PosteriorView

pytestmark = pytest.mark.browser


def test_bars_dots_and_walking(page, page_of, tmp_path):
    rng = np.random.default_rng(0)
    n = 60
    w = rng.uniform(size=n)
    p = xr.Dataset(
        {
            "weight": ("sample", w / w.sum()), "class_number": ("sample", rng.integers(1, 4, n)), "angle_rot": ("sample", rng.choice([10.0, 40.0], n)),
            "angle_tilt": ("sample", rng.choice([30.0, 80.0], n)), "angle_psi": ("sample", rng.choice([-60.0, 0.0, 60.0], n)),
            "shift_x": ("sample", rng.choice([-3.0, 3.0], n)), "shift_y": ("sample", rng.choice([0.0, 3.0], n)),
        },
        attrs={"p_max": 0.3, "n_significant": 12, "n_classes": 3, "particle": 4},
    )  # fmt: skip
    view = PosteriorView(p)
    view.can_walk, view.n_particles = True, 100
    (tmp_path / "w.html").write_text(page_of(view, 980))
    errors = []
    page.page.on("pageerror", lambda e: errors.append(str(e)))
    page.page.goto((tmp_path / "w.html").as_uri())
    page.page.wait_for_function("window.ready === true")
    pg = page.page
    charts = pg.locator(".ck-chart svg")
    assert [charts.nth(i).locator("rect").count() for i in range(2)] == [3, 3] and charts.nth(2).locator("circle").count() == 4
    assert pg.locator(".ck-text").inner_text() == view.summary
    assert "class 1: " in charts.nth(0).locator("title").first.text_content()
    pg.locator(".ck-posterior").press("ArrowRight")
    assert pg.evaluate("sent.at(-1)") == {"cmd": "particle", "index": 5}
    field = pg.get_by_label("Particle", exact=True)
    field.fill("77")
    field.press("Enter")
    assert pg.evaluate("sent.at(-1)") == {"cmd": "particle", "index": 77}
    pg.evaluate("model.update({ shifts: [], notice: 'particle 77 is flagged: zero pixels' })")
    pg.wait_for_timeout(100)
    assert pg.locator(".ck-none").inner_text() == "particle 77 is flagged: zero pixels"
    assert errors == [] and page.left_the_machine == []
