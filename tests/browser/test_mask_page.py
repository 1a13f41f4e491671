"""MaskDesigner alone on a page."""

import numpy as np
import pytest
from cryotk_widgets import MaskDesigner

import cryotk as ctk

pytestmark = pytest.mark.browser


def inside(pg):
    """Percent of the box, as the page prints it."""
    return float(pg.locator(".ck-numbers").inner_text().split(" ")[1])


def blue(pg):
    """Share of the first slice that is under the mask."""
    values = pg.evaluate(
        """() => { const c = document.querySelector('.ck-slices canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let n = 0; for (let i = 0; i < d.length; i += 4) if (d[i + 2] - d[i] > 25) n++; return n / (d.length / 4); }"""
    )
    return float(values)


def test_sliders_move_the_mask_without_the_kernel(show):
    designer = MaskDesigner(ctk.simulate.volume(ctk.simulate.molecule(), 64, 3.5), preview_size=48)
    pg = show(designer)
    designer.make()
    assert inside(pg) == pytest.approx(100 * designer.result.fraction, rel=0.08)
    start, tinted = inside(pg), blue(pg)
    pg.get_by_label("Extend", exact=True).fill("10")
    pg.wait_for_timeout(600)
    assert inside(pg) > 1.5 * start and blue(pg) > 1.2 * tinted
    pg.get_by_label("Extend", exact=True).fill("-2")
    pg.wait_for_timeout(600)
    assert inside(pg) < 0.8 * start
    pg.get_by_label("Extend", exact=True).fill("3")
    pg.get_by_label("Soft edge", exact=True).fill("20")
    pg.wait_for_timeout(600)
    assert blue(pg) > tinted
    before = inside(pg)
    field = pg.get_by_label("Threshold, value")
    field.fill(f"{3 * designer.threshold:.5f}")
    field.press("Enter")
    pg.wait_for_timeout(600)
    assert inside(pg) < before and pg.locator(".ck-reason").inner_text() == ""
    pg.get_by_role("button", name="Take the suggested threshold").click()
    pg.wait_for_timeout(600)
    assert pg.locator(".ck-reason").inner_text().startswith("suggested: ")
    names = {m.get("name") for m in pg.evaluate("sent") if m["cmd"] == "set"}
    assert names == {"extend_px", "soft_edge_px", "threshold"}


def test_make_asks_python_with_the_numbers_of_the_page(show):
    designer = MaskDesigner(ctk.simulate.volume(ctk.simulate.molecule(), 48, 4.5))
    pg = show(designer)
    save = pg.get_by_role("button", name="Save the mask")
    assert save.is_disabled()
    pg.get_by_label("Soft edge", exact=True).fill("9")
    pg.get_by_label("largest piece only").check()
    pg.get_by_role("button", name="Make the mask at full size").click()
    said = pg.evaluate("sent.filter(m => m.cmd === 'make')")
    assert (
        len(said) == 1
        and said[0]["soft_edge_px"] == 9
        and said[0]["largest_only"] is True
        and said[0]["threshold"] == pytest.approx(designer.threshold)
    )
    pg.evaluate("model.update({ making: true })")
    assert pg.get_by_role("button", name="Make the mask at full size").inner_text() == "making…"
    pg.evaluate("model.update({ making: false, made: true, notice: 'mask made: 9.1 % of the box' })")
    assert not save.is_disabled() and pg.locator(".ck-notice").inner_text() == "mask made: 9.1 % of the box"
    save.click()
    assert pg.evaluate("sent.at(-1)") == {"cmd": "save", "path": "mask.mrc"}


def test_a_map_of_256_points_answers_soon(show):
    rng = np.random.default_rng(0)
    designer = MaskDesigner(rng.normal(size=(32, 32, 32)).astype(np.float32), pixel_size=3.5)
    big = MaskDesigner(ctk.simulate.volume(ctk.simulate.molecule(), 256, 0.9))
    assert len(big.data) == 80**3 and len(designer.data) == 32**3
    pg = show(big)
    pg.get_by_label("Extend", exact=True).fill("8")
    pg.wait_for_timeout(800)
    assert float(pg.evaluate("document.querySelector('.ck-mask').dataset.milliseconds")) > 0 and inside(pg) > 0
