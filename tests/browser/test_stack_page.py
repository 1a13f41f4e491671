"""StackView alone on a page."""

import numpy as np
import pytest
import xarray as xr
from cryotk_widgets import StackView

pytestmark = pytest.mark.browser


def rings(k=50, n=48):
    r = np.hypot(*np.mgrid[-(n // 2) : n - n // 2, -(n // 2) : n - n // 2])
    images = np.exp(-(((r - 4 - np.arange(k)[:, None, None] * 0.3) / 2) ** 2)) + 0.3 * np.random.default_rng(0).normal(
        size=(k, n, n)
    )
    return xr.DataArray(images.astype(np.float32), dims=("image", "y", "x"), attrs={"pixel_size": 2.0})


def grey(pg, tile):
    return np.array(
        pg.evaluate(
            """(i) => { const c = document.querySelectorAll('.ck-tile canvas')[i];
            return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, j) => j % 4 === 0); }""",
            tile,
        )
    )


def test_pages_are_asked_for_and_shown(show):
    view = StackView(rings(), per_page=20)
    pg = show(view)
    at = pg.locator(".ck-count")
    assert at.inner_text() == "1 to 20 of 50 images" and pg.locator(".ck-tile").count() == 20
    assert pg.get_by_label("Previous page").is_disabled()
    pg.get_by_label("Next page").click()
    pg.wait_for_timeout(100)
    assert pg.evaluate("sent.at(-1)") == {"cmd": "page", "first": 20} and at.inner_text() == "21 to 40 of 50 images"
    # the kernel answers with the last page
    view.show(40)
    state = {k: getattr(view, k) for k in ("first", "rows", "captions", "details", "tile_ranges", "limits")}
    pg.evaluate("([s, b]) => model.update({ ...s, sprite: new DataView(new Uint8Array(b).buffer) })", [state, list(view.sprite)])
    assert (
        pg.locator(".ck-tile").count() == 10
        and at.inner_text() == "41 to 50 of 50 images"
        and pg.get_by_label("Next page").is_disabled()
    )
    assert pg.locator(".ck-cap").first.inner_text() == "image 41"


def test_selection_stays_over_pages(show):
    pg = show(StackView(rings(), per_page=20, selected=[45]))
    tiles, grid = pg.locator(".ck-tile"), pg.locator(".ck-grid")
    tiles.nth(2).click()
    tiles.nth(5).click(modifiers=["Shift"])
    assert pg.evaluate("model.get('selected')") == [3, 4, 5, 6, 45]
    grid.press("Home")
    grid.press(" ")
    assert pg.evaluate("model.get('selected')") == [1, 3, 4, 5, 6, 45]
    grid.press("i")
    assert pg.evaluate("model.get('selected')") == [2, *range(7, 21), 45]
    grid.press("a")
    assert pg.locator(".ck-about").inner_text() == "21 selected"
    grid.press("n")
    assert pg.evaluate("sent.at(-1)")["rows"] == []


def test_sliders_need_no_kernel(show):
    pg = show(StackView(rings(), per_page=8))
    before = grey(pg, 3).reshape(48, 48).astype(float)
    pg.get_by_label("Low-pass", exact=True).fill("20")
    pg.wait_for_timeout(150)
    after = grey(pg, 3).reshape(48, 48).astype(float)
    rough = lambda a: np.abs(np.diff(a, axis=0)).mean() / a.std()  # noqa: E731
    assert rough(after) < 0.6 * rough(before) and pg.locator("output").inner_text() == "20 Å"
    pg.get_by_label("Contrast", exact=True).fill("3")
    pg.wait_for_timeout(150)
    assert np.isin(grey(pg, 3), [0, 255]).mean() > 0.3
    pg.get_by_label("Size", exact=True).fill("200")
    assert pg.locator(".ck-tile canvas").first.bounding_box()["width"] == 200
    pg.evaluate("model.receive({ failed: 'particles.mrcs is not there' })")
    assert pg.locator(".ck-notice").inner_text() == "particles.mrcs is not there"
