"""The gallery alone on a page: every promise that needs no kernel."""

import numpy as np
import pytest
import xarray as xr
from cryotk_widgets import ClassGallery

from cryotk.data import Convergence, Iteration, RefinementModel, SamplingSettings

pytestmark = pytest.mark.browser


def blobs(k, n, seed=0, pixel_size=2.0):
    """An iteration of made-up classes: class i is a ring of its own radius; every fifth is empty."""
    rng = np.random.default_rng(seed)
    radius = np.hypot(*np.mgrid[-(n // 2) : n - n // 2, -(n // 2) : n - n // 2]).astype(np.float32)
    r0 = n * (0.08 + 0.25 * np.arange(k) / k)
    references = np.exp(-(((radius - r0[:, None, None]) / (0.06 * n)) ** 2)).astype(np.float32)
    references += 0.1 * rng.normal(size=references.shape).astype(np.float32)
    share = rng.uniform(0.2, 1, k)
    share[4::5] = 0
    share /= share.sum()
    shells = np.zeros((k, n // 2 + 1))
    model = RefinementModel(
        references=references, pixel_size=pixel_size, noise_power=np.ones((1, n // 2 + 1)), class_distribution=share, prior_power=shells,
        data_vs_prior=np.geomspace(300, 0.1, n // 2 + 1) * np.ones((k, 1)), reference_noise=shells, fourier_completeness=shells,
        gold_standard_fsc=shells, current_resolution=9.0, average_p_max=0.4, class_resolution=rng.uniform(8, 25, k),
        accuracy_rotation=np.full(k, 2.1), accuracy_translation=np.full(k, 1.3),
    )  # fmt: skip
    numbers = rng.choice(np.arange(1, k + 1), 5000, p=share)
    table = xr.Dataset({"class_number": ("particle", numbers)})
    return Iteration(9, model, SamplingSettings(), Convergence(), table, {"resolution": 9.0, "average_p_max": 0.4})


def chosen(pg):
    return pg.evaluate("model.get('selected')")


def grey(pg, tile):
    """Pixels of a tile as drawn, red channel."""
    return np.array(
        pg.evaluate(
            """(i) => { const c = document.querySelectorAll('.ck-tile canvas')[i];
            return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, j) => j % 4 === 0); }""",
            tile,
        )
    )


def test_mouse_and_keyboard(show):
    pg = show(ClassGallery(blobs(12, 48), sort="number"))
    tiles, grid = pg.locator(".ck-tile"), pg.locator(".ck-grid")
    tiles.nth(2).click()
    tiles.nth(6).click(modifiers=["Control"])
    assert chosen(pg) == [3, 7]
    tiles.nth(2).click()
    assert chosen(pg) == [7]
    tiles.nth(1).click()
    tiles.nth(3).click(modifiers=["Shift"])
    assert chosen(pg) == [2, 3, 4, 7]
    assert pg.locator(".ck-count").inner_text().startswith("4 of 12 classes · ")
    for key, expected in (
        ("n", []), ("a", [1, 2, 3, 4, 6, 7, 8, 9, 11, 12]), ("n", []), ("Home", []), (" ", [1]), ("ArrowRight", [1]), (" ", [1, 2]),
        ("Shift+ArrowRight", [1, 2, 3]), ("i", [4, 6, 7, 8, 9, 11, 12]), ("End", [4, 6, 7, 8, 9, 11, 12]), (" ", [4, 6, 7, 8, 9, 11]),
        ("Home", [4, 6, 7, 8, 9, 11]), ("ArrowDown", [4, 6, 7, 8, 9, 11]), (" ", [4, 6, 7, 9, 11]),
    ):  # fmt: skip
        grid.press(key)
        assert chosen(pg) == expected, key
    # 980 px hold eight tiles of 112 px less one: down moved by seven
    assert tiles.nth(7).get_attribute("class").split() == ["ck-tile", "cur"]
    grid.press("/")
    pg.keyboard.type("> 5 % < 20 Å")
    pg.keyboard.press("Enter")
    share, resolution = pg.evaluate("model.get('occupancy')"), pg.evaluate("model.get('resolution')")
    assert chosen(pg) == [i + 1 for i in range(12) if share[i] > 0.05 and resolution[i] < 20]
    pg.keyboard.press("Escape")
    assert pg.evaluate("document.activeElement.className") == "ck-grid"
    grid.press("Escape")
    assert pg.evaluate("document.activeElement === document.body")
    said = pg.evaluate("sent.filter(m => m.cmd === 'select')")
    assert [m["serial"] for m in said] == list(range(1, len(said) + 1)) and said[-1]["classes"] == chosen(pg)


def test_python_and_page_agree_when_messages_cross(show):
    pg = show(ClassGallery(blobs(6, 32), sort="number"))
    tiles = pg.locator(".ck-tile")
    tiles.nth(0).click()
    tiles.nth(1).click()
    # the kernel's echo of the first click arrives after the second
    pg.evaluate("model.update({ selected: [1] }); model.receive({ selected: 1 })")
    assert pg.locator(".ck-tile.sel").count() == 2
    pg.evaluate("model.update({ selected: [1, 2] }); model.receive({ selected: 2 })")
    assert pg.locator(".ck-tile.sel").count() == 2
    # and Python sets its own
    pg.evaluate("model.update({ selected: [4] })")
    assert pg.locator(".ck-tile.sel").count() == 1 and pg.locator(".ck-count").inner_text().startswith("1 of 6")


def test_sorting_and_places_that_stay(show):
    it = blobs(10, 32)
    pg = show(ClassGallery(it, sort="number"))
    first = lambda: pg.locator(".ck-tile").first.get_attribute("aria-label")  # noqa: E731
    assert first().startswith("class 1,")
    pg.get_by_label("Sort by").select_option("particles")
    best = int(np.argmax(it.model.class_distribution)) + 1
    assert first().startswith(f"class {best},")
    assert "empty" in pg.locator(".ck-tile").last.get_attribute("aria-label")
    # a running job changes shares: tiles stay, and the page offers to sort again
    again = pg.get_by_label("Sort again")
    assert not again.is_visible()
    pg.evaluate("model.update({ occupancy: model.get('occupancy').map((s, i) => (i + 1) / 55) })")
    assert first().startswith(f"class {best},")
    again.click()
    assert first().startswith("class 10,") and not again.is_visible()


def test_sliders_answer_in_the_page(show):
    pg = show(ClassGallery(blobs(4, 64), sort="number"))
    pg.wait_for_timeout(50)
    before = grey(pg, 0)
    assert np.ptp(before) > 150
    slide = lambda name, value: pg.get_by_label(name, exact=True).fill(str(value))  # noqa: E731
    slide("Contrast", 3)
    pg.wait_for_timeout(50)
    assert np.isin(grey(pg, 0), [0, 255]).mean() > np.isin(before, [0, 255]).mean() + 0.2
    slide("Contrast", 1)
    slide("Low-pass", 40)
    pg.wait_for_timeout(50)
    smooth = grey(pg, 0).reshape(64, 64).astype(float)
    rough = lambda a: np.abs(np.diff(a, axis=0)).mean()  # noqa: E731
    assert rough(smooth) < 0.4 * rough(before.reshape(64, 64).astype(float))
    assert pg.locator("output").inner_text() == "40 Å"
    slide("Size", 200)
    assert pg.locator(".ck-tile canvas").first.bounding_box()["width"] == 200
    names = {m["name"] for m in pg.evaluate("sent") if m["cmd"] == "set"}
    assert names == {"contrast", "lowpass", "tile_size"}


def test_run_stop_and_progress(show):
    widget = ClassGallery(blobs(4, 32))
    widget.progress = {"running": False, "can_run": True}
    pg = show(widget)
    run, stop, text = pg.get_by_role("button", name="Run"), pg.get_by_role("button", name="Stop"), pg.locator(".ck-text")
    assert run.is_visible() and not stop.is_visible() and "9.0 Å" in text.inner_text()
    run.click()
    pg.evaluate("model.update({ progress: { running: true, iteration: 7, fraction: 0.63, seconds_left: 12.2 } })")
    assert text.inner_text() == "iteration 7 · 63 % of particles · 12 s left" and not run.is_visible()
    assert pg.get_by_role("progressbar").get_attribute("aria-valuenow") == "63"
    stop.click()
    assert [m["cmd"] for m in pg.evaluate("sent")] == ["run", "stop"] and stop.is_disabled()
    pg.evaluate("model.update({ progress: { running: false, can_run: true, message: 'stopped: iteration 6 stands' } })")
    assert text.inner_text() == "stopped: iteration 6 stands" and run.is_visible()


def test_a_class_large(show, figures):
    pg = show(ClassGallery(blobs(6, 64), sort="number"))
    pg.locator(".ck-tile").nth(1).dblclick()
    assert chosen(pg) == [] and pg.locator(".ck-loupe").is_visible()
    assert pg.evaluate("sent.at(-1)") == {"cmd": "full", "index": 1}
    pg.evaluate(
        """model.receive({ full: 1, n: 256, range: [0, 1], curve: Array.from({ length: 33 }, (_, i) => 300 * 0.8 ** i), pixel_size: 2,
        box: 64, resolution: 9 }, [new DataView(new Uint8Array(256 * 256).fill(200).buffer)])"""
    )
    assert pg.evaluate("document.querySelector('.ck-big canvas').width") == 256
    assert "9.0 Å" in pg.locator("svg").text_content()
    box = pg.locator(".ck-big").bounding_box()
    pg.mouse.move(box["x"] + 100, box["y"] + 100)
    pg.mouse.wheel(0, -300)
    assert "scale(2.7" in pg.locator(".ck-big canvas").get_attribute("style")
    pg.locator(".ck-gallery").screenshot(path=figures / "gallery_loupe.png")
    pg.get_by_label("Next class").click()
    assert pg.locator(".ck-title").inner_text().startswith("class 3 ·")
    pg.keyboard.press("Escape")
    pg.get_by_label("Close").click()
    assert not pg.locator(".ck-loupe").is_visible()


def test_everything_has_a_name_and_views_leave_nothing_behind(show):
    pg = show(ClassGallery(blobs(4, 32), selected=[2]))
    unnamed = pg.evaluate(
        "[...document.querySelectorAll('button, input, select')].filter(e => !(e.getAttribute('aria-label') || e.textContent || e.closest('label'))).length"
    )
    assert unnamed == 0
    options = pg.locator(".ck-grid").get_by_role("option", selected=True)
    assert options.count() == 1 and options.first.get_attribute("aria-label").startswith("class 2,")
    assert pg.get_by_role("listbox", name="Class averages").count() == 1
    pg.get_by_role("button", name="Save selection").click()
    pg.get_by_label("File for the selected particles").fill("x/good.star")
    pg.get_by_role("button", name="Write").click()
    assert pg.evaluate("sent.at(-1)") == {"cmd": "save", "path": "x/good.star", "classes": [2]}
    pg.evaluate("leave(); model.update({ selected: [1, 3] })")
    assert pg.locator(".ck-tile.sel").count() == 1


def test_two_hundred_classes_of_256_pixels_stay_fluid(show):
    widget = ClassGallery(blobs(200, 256))
    assert len(widget.sprite) <= 4_000_000
    pg = show(widget)
    pg.wait_for_timeout(300)
    times = pg.evaluate(
        """async () => {
        const frame = () => new Promise((r) => requestAnimationFrame(r)), tiles = document.querySelectorAll('.ck-tile'), out = {};
        const timed = async (name, f) => { await frame(); const t = performance.now(); f(); out[name] = performance.now() - t; };
        for (let i = 0; i < 5; i++) await timed('select', () => tiles[i].click());
        await timed('contrast', () => model.set('contrast', 1.5));
        await timed('update', () => model.update({ sprite: model.get('sprite'), occupancy: model.get('occupancy').map((s) => s) }));
        out.render = renderTime; return out; }"""
    )
    print({k: round(v, 1) for k, v in times.items()})
    # budgets are 16 and 200 ms; a machine that does other things gets four times as much
    assert times["select"] < 64 and times["update"] < 800 and times["contrast"] < 200
