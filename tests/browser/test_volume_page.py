"""VolumeView alone on a page: every promise that needs no kernel."""

import io

import numpy as np
import pytest
import xarray as xr
from cryotk_widgets import SliceView, VolumeView

pytestmark = pytest.mark.browser


def bumps(n=48, pixel_size=2.0):
    """A large ball and a small faint one up and to the right: none of its views is that of another hand."""
    z, y, x = np.meshgrid(*[np.arange(n) - n // 2] * 3, indexing="ij")

    def ball(cx, cy, cz, r):
        return np.clip((r - np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)) / 3 + 0.5, 0, 1)

    v = ball(-4, -6, 0, 9) + 0.6 * ball(9, 10, 6, 5)
    return xr.DataArray(v.astype(np.float32), dims=("z", "y", "x"), attrs={"pixel_size": pixel_size, "source": "bumps.mrc"})


def rest(pg):
    """Wait until the pictures stand still: what was asked for has begun, and the last of the passes that smooth it is drawn."""
    pg.wait_for_timeout(300)
    pg.wait_for_function("[...document.querySelectorAll('canvas.ck-surface')].every((c) => c.dataset.still === 'yes')", timeout=60_000)


def picture(pg, selector="canvas.ck-surface", index=0):
    from PIL import Image

    data = pg.evaluate("([s, i]) => document.querySelectorAll(s)[i].toDataURL().split(',')[1]", [selector, index])
    import base64

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")).astype(int)


def warm(image):
    """Pixels of the first map's colour: yellow, not grey."""
    return (image[..., 3] > 0) & (image[..., 0] - image[..., 2] > 30)


def centre(mask):
    rows, columns = np.nonzero(mask)
    n = mask.shape[0]
    return columns.mean() - n / 2, n / 2 - rows.mean()


def test_surface_has_the_right_hand_and_the_threshold_moves_it(show):
    view = VolumeView(bumps(), threshold=0.3)
    pg = show(view)
    both = warm(picture(pg))
    scale = both.shape[0] / view.extent * view.start["zoom"]
    # the large ball is left and below of the middle; the small one right and above
    x, y = centre(both & (np.arange(both.shape[1]) < both.shape[1] / 2 + 3 * scale))
    assert x < -4 * scale and y < -6 * scale
    right = both & (np.arange(both.shape[1]) > both.shape[1] / 2 + 10 * scale)
    x, y = centre(right)
    assert abs(x - 18 * scale) < 5 * scale and abs(y - 20 * scale) < 5 * scale
    # above 0.6 the small one is gone: by the number, then by the histogram, and Python hears of it
    field = pg.get_by_label("Threshold, value")
    field.fill("0.8")
    field.press("Enter")
    rest(pg)
    assert not (warm(picture(pg)) & right).any() and warm(picture(pg)).any()
    assert pg.evaluate("sent.filter(m => m.name === 'threshold').at(-1).value") == 0.8
    box = pg.locator("canvas.ck-histogram").first.bounding_box()
    pg.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + 20)
    rest(pg)
    assert (warm(picture(pg)) & right).any()
    low, high = view.value_range
    assert pg.evaluate("model.get('threshold')") == pytest.approx(low + 0.3 * (high - low), abs=0.01)
    # arrow keys: a step of the histogram
    before = pg.evaluate("model.get('threshold')")
    pg.locator("canvas.ck-histogram").first.press("ArrowRight")
    assert pg.evaluate("model.get('threshold')") == pytest.approx(before + (high - low) / 255)
    # Python sets it, even while the hand has hardly left
    pg.evaluate("model.update({ threshold: 0.95 })")
    pg.wait_for_timeout(500)
    rest(pg)
    assert not (warm(picture(pg)) & right).any() and field.input_value() == "0.950"


def test_at_rest_the_picture_grows_smooth_and_a_drag_ends_that(show):
    pg = show(VolumeView(bumps(), threshold=0.3))
    canvas = pg.locator("canvas.ck-surface").first
    pg.wait_for_function("Number(document.querySelector('canvas.ck-surface').dataset.passes) >= 4", timeout=30_000)
    pg.wait_for_timeout(500)
    smooth = picture(pg)
    # the mean of passes: edges cover parts of pixels, the inside stays opaque and bright, outside nothing
    part = (smooth[..., 3] > 10) & (smooth[..., 3] < 245)
    solid = smooth[..., 3] >= 245
    assert 100 < part.sum() < 0.2 * solid.sum() and smooth[0, 0, 3] == 0
    assert smooth[solid][:, 0].max() > 190
    box = canvas.bounding_box()
    pg.mouse.move(box["x"] + 50, box["y"] + 50)
    pg.mouse.down()
    pg.mouse.move(box["x"] + 90, box["y"] + 50)
    pg.wait_for_function("document.querySelector('canvas.ck-surface').dataset.passes === '0'", timeout=5000)
    pg.mouse.up()
    pg.wait_for_function("Number(document.querySelector('canvas.ck-surface').dataset.passes) >= 4", timeout=30_000)


def test_a_crevice_is_darker_than_what_lies_open(show):
    z, y, x = np.meshgrid(*[np.arange(48) - 24] * 3, indexing="ij")
    # a plate that faces the viewer, with a narrow trench down its middle
    plate = ((abs(z) < 10) & (abs(x) < 18) & (abs(y) < 18) & ~((abs(x) < 3) & (z > -4))).astype(np.float32)
    pg = show(VolumeView(plate, pixel_size=2.0, threshold=0.5))
    pg.wait_for_function("Number(document.querySelector('canvas.ck-surface').dataset.passes) >= 4", timeout=30_000)
    image = picture(pg)
    n = image.shape[0]
    row = image[n // 2 - 10 : n // 2 + 10, :, 0].mean(0)
    floor, face = row[n // 2 - 3 : n // 2 + 3].mean(), row[np.nonzero(row)[0][0] + n // 10 : n // 2 - n // 10].mean()
    assert floor < 0.75 * face, (floor, face)


def test_drag_turns_shift_pans_wheel_zooms_double_click_resets(show):
    pg = show(VolumeView(bumps(), threshold=0.3))
    canvas = pg.locator("canvas.ck-surface").first
    box = canvas.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    start = pg.evaluate("model.get('camera')")
    first = picture(pg)

    def drag(dx, dy):
        pg.mouse.move(*middle)
        pg.mouse.down()
        for i in range(1, 5):
            pg.mouse.move(middle[0] + dx * i / 4, middle[1] + dy * i / 4)
        pg.mouse.up()
        rest(pg)

    # half a turn about the vertical: the small ball comes to the left, behind
    drag(box["width"], 0)
    q = pg.evaluate("model.get('camera').rotation")
    assert abs(abs(q[1]) - 1) < 0.02
    x, _ = centre(warm(picture(pg)) & (np.arange(first.shape[0])[:, None] < first.shape[0] * 0.35))
    assert x < 0
    assert pg.evaluate("sent.filter(m => m.name === 'camera').length") >= 1
    pg.keyboard.down("Shift")
    drag(60, 30)
    pg.keyboard.up("Shift")
    pan = pg.evaluate("model.get('camera').pan")
    per_pixel = 96 / start["zoom"] / box["height"]
    assert pan == pytest.approx([60 * per_pixel, -30 * per_pixel], rel=0.05)
    pg.mouse.move(*middle)
    pg.mouse.wheel(0, -200)
    rest(pg)
    assert pg.evaluate("model.get('camera').zoom") == pytest.approx(start["zoom"] * np.exp(0.4), rel=0.01)
    canvas.dblclick()
    rest(pg)
    assert pg.evaluate("model.get('camera')") == start
    # the smooth picture is the first one again
    assert np.abs(picture(pg)[..., :3] - first[..., :3]).mean() < 3
    canvas.press("ArrowLeft")
    assert pg.evaluate("model.get('camera').rotation[1]") < 0
    pg.get_by_label("Look along x").click()
    assert pg.evaluate("model.get('camera').rotation.map(v => Math.round(1000 * v))") == [0, -707, 0, 707]


def test_clipping_opens_the_map(show):
    v = bumps()
    v.values[20:28, 14:22, 16:24] = 0
    pg = show(VolumeView(v, threshold=0.3))
    whole = picture(pg)
    pg.get_by_label("Clipping plane").fill("0.5")
    rest(pg)
    cut = picture(pg)
    assert pg.evaluate("model.get('clip')") == 0.5
    # the outline stays, the inside changes
    assert abs(warm(whole).sum() / warm(cut).sum() - 1) < 0.4
    assert np.abs(whole[..., :3] - cut[..., :3])[warm(cut) & warm(whole)].mean() > 10


def test_slices_and_their_cross_hair(show):
    view = VolumeView(bumps(), threshold=0.3)
    pg = show(view)
    xy, xz = pg.get_by_label("Slice xy"), pg.get_by_label("Slice xz")
    box = xy.bounding_box()
    # the small ball: x = 9, y = 10 voxels from the centre of 48; y points up
    pg.mouse.click(box["x"] + (24 + 9.5) / 48 * box["width"], box["y"] + (24 - 10.5) / 48 * box["height"])
    assert pg.evaluate("model.get('cursor')") == [18.0, 20.0, 0.0]
    # its plane z = 6 is six steps of the wheel away
    xy.hover()
    for _ in range(6):
        pg.mouse.wheel(0, -50)
        pg.wait_for_timeout(20)
    assert pg.evaluate("model.get('cursor')") == [18.0, 20.0, 12.0]
    assert pg.locator(".ck-slices .ck-cap").first.inner_text() == "xy · z = 12.0 Å"
    xz.press("ArrowLeft")
    xz.press("PageUp")
    assert pg.evaluate("model.get('cursor')") == [16.0, 22.0, 12.0]
    grey = picture(pg, ".ck-slices canvas", 0)
    n = grey.shape[0]
    row, column = int((24 - 6 - 10) / 48 * n), int((24 + 9.5) / 48 * n)
    assert grey[row, int((24 - 20) / 48 * n), 0] < 20 < 60 < grey[int((24 - 8) / 48 * n), column, 0]
    pg.wait_for_timeout(500)
    pg.evaluate("model.update({ cursor: [0, 0, 0] })")
    assert pg.locator(".ck-slices .ck-cap").first.inner_text() == "xy · z = 0 Å"


def test_colours_and_legend(show):
    v = bumps()
    local = np.where(v.values > 0.02, 5.0 + 4.0 * (np.arange(48) >= 28), 0).astype(np.float32)
    pg = show(VolumeView(v, threshold=0.3, colour_by=local, colour_range=(5.0, 9.0)))
    image = picture(pg)
    n = image.shape[1]
    inside = image[..., 3] > 0
    left, right = image[:, : n // 2 - 20][inside[:, : n // 2 - 20]], image[:, n // 2 + 60 :][inside[:, n // 2 + 60 :]]
    assert (left[:, 2] > left[:, 0] + 20).mean() > 0.7 and (right[:, 0] > right[:, 2] + 20).mean() > 0.7
    legend = pg.locator(".ck-legend")
    assert legend.inner_text().split() == ["local", "resolution", "(Å)", "5.0", "6.0", "7.0", "8.0", "9.0"]
    pg.get_by_label("colour").uncheck()
    rest(pg)
    assert not legend.is_visible() and warm(picture(pg))[:, : n // 2].sum() > 1000


def test_two_maps_turn_together(show):
    pg = show(VolumeView(bumps(), bumps(), threshold=0.3, threshold_2=0.3))
    assert pg.locator("canvas.ck-surface").count() == 2
    first, second = picture(pg, index=0), picture(pg, index=1)
    assert np.abs((first[..., 3] > 0) ^ (second[..., 3] > 0)).mean() < 0.02
    blue = (second[..., 3] > 0) & (second[..., 2] > second[..., 0] + 20)
    assert blue.sum() > 1000
    pg.locator("canvas.ck-surface").nth(1).press("ArrowUp")
    rest(pg)
    after = picture(pg, index=0)
    assert (np.abs(after - first).sum(-1) > 30).mean() > 0.005


def test_full_size_is_asked_for_and_drawn(show):
    view = VolumeView(bumps(48), max_size=32, threshold=0.3)
    said = []
    view.send = lambda content, buffers=None: said.append((content, buffers))
    view._send_full()
    pg = show(view)
    before = picture(pg)
    pg.get_by_role("button", name="Full size").click()
    assert pg.evaluate("sent.at(-1)") == {"cmd": "full"}
    content, buffers = said[0]
    pg.evaluate("([m, b]) => model.receive(m, [new DataView(new Uint8Array(b).buffer)])", [content, list(buffers[0])])
    rest(pg)
    assert not pg.get_by_role("button", name="Full size").is_visible()
    after = picture(pg)
    assert abs(warm(after).sum() / warm(before).sum() - 1) < 0.1 and (np.abs(after - before).sum(-1) > 10).any()


def test_slices_alone_and_a_mask_over_them(show):
    mask = (bumps().values > 0.01).astype(np.float32)
    pg = show(SliceView(bumps(), mask=mask))
    assert not pg.locator("canvas.ck-surface").first.is_visible()
    image = picture(pg, ".ck-slices canvas", 0)
    # blue over the ball, grey outside
    tint = image[..., 2] - image[..., 0]
    assert (tint > 25).mean() > 0.05 and np.median(tint) == 0


def test_theme_changes_ink_and_depth(show):
    pg = show(VolumeView(bumps(), threshold=0.3, theme="dark"))
    rest(pg)
    dark = picture(pg)
    pg.evaluate("model.update({ theme: 'light' })")
    rest(pg)
    light = picture(pg)
    # the scale bar, and what is far fades into the background
    assert dark[-12, 30, :3].min() > 180 and light[-12, 30, :3].max() < 80
    # the rim of the surface, half transparent, is not of it
    surface = warm(dark) & (dark[..., 3] == 255) & (light[..., 3] == 255)
    assert surface.sum() > 10_000 and light[surface][:, :3].mean() > dark[surface][:, :3].mean()


def test_symmetry_axes_come_and_go(show):
    pg = show(VolumeView(bumps(), threshold=0.3, symmetry="C3", show_axes=True))

    def purple(image):  # the colour of three-fold axes
        return (abs(image[..., :3] - [0xCC, 0x79, 0xA7]).max(-1) < 40) & (image[..., 3] > 100)

    pg.get_by_role("button", name="Look along x").click()
    rest(pg)
    shown = purple(picture(pg))
    n = shown.shape[0]
    # seen along x, the axis z lies level: marks at both ends of the middle row
    rows, columns = np.nonzero(shown)
    assert len(rows) > 50 and np.ptp(columns) > 0.5 * n and np.ptp(rows) < 0.06 * n and abs(rows.mean() - n / 2) < 0.03 * n
    pg.get_by_label("symmetry axes").uncheck()
    rest(pg)
    assert purple(picture(pg)).sum() == 0 and pg.evaluate("sent.at(-1)") == {"cmd": "set", "name": "show_axes", "value": False}


def test_the_scale_bar_is_as_long_as_it_says(show):
    view = VolumeView(bumps(), threshold=0.3)
    pg = show(view)

    def bar():
        image = picture(pg)
        return int(((image[-12, :, :3].max(-1) < 80) & (image[-12, :, 3] > 200)).sum()), image.shape[0]

    length, n = bar()
    across = view.extent / pg.evaluate("model.get('camera').zoom")  # Å from left to right
    angstrom = length / n * across
    round_ones = [m * 10**k for k in range(3) for m in (1, 2, 5)]
    assert min(abs(angstrom / r - 1) for r in round_ones) < 0.03 and 0.08 < length / n < 0.25
    pg.evaluate("model.update({ camera: { ...model.get('camera'), zoom: 2 * model.get('camera').zoom } })")
    pg.wait_for_timeout(500)
    rest(pg)
    longer, _ = bar()
    assert min(abs(longer / n * across / 2 / r - 1) for r in round_ones) < 0.03


def test_a_picture_is_saved_with_both_maps_and_the_page_s_background(show, tmp_path):
    from PIL import Image

    a = bumps()
    pg = show(VolumeView(a, a.copy(data=a.values[::-1]), threshold=0.3, theme="dark"))
    with pg.expect_download() as download:
        pg.get_by_role("button", name="Save picture").click()
    assert download.value.suggested_filename == "map.png"
    download.value.save_as(tmp_path / "map.png")
    image = np.asarray(Image.open(tmp_path / "map.png").convert("RGBA")).astype(int)
    width = picture(pg).shape[1]
    assert image.shape[1] >= 2 * width - 2 and (image[..., 3] == 255).all() and image[2, 2, :3].max() < 40
    left, right = image[:, : image.shape[1] // 2], image[:, image.shape[1] // 2 :]
    assert (left[..., 0] - left[..., 2] > 60).sum() > 2000 and (right[..., 2] - right[..., 0] > 40).sum() > 2000


def test_half_resolution_while_dragging_and_the_kernel_is_not_asked(show):
    pg = show(VolumeView(bumps(), threshold=0.3))
    canvas = pg.locator("canvas.ck-surface").first
    pg.wait_for_function("Number(document.querySelector('canvas.ck-surface').dataset.passes) >= 4", timeout=30_000)
    whole = pg.evaluate("__cryotk_gl.canvas.width")
    box = canvas.bounding_box()
    pg.mouse.move(box["x"] + 50, box["y"] + 50)
    pg.mouse.down()
    for i in range(6):
        pg.mouse.move(box["x"] + 50 + 8 * i, box["y"] + 50)
    pg.wait_for_function("document.querySelector('canvas.ck-surface').dataset.passes === '0'", timeout=5000)
    assert pg.evaluate("__cryotk_gl.canvas.width") <= 0.51 * whole
    pg.mouse.up()
    histogram = pg.locator("canvas.ck-histogram").first.bounding_box()
    pg.mouse.click(histogram["x"] + 0.5 * histogram["width"], histogram["y"] + 20)
    rest(pg)
    # Python is told, and asked nothing
    assert {(m["cmd"], m["name"]) for m in pg.evaluate("sent")} == {("set", "camera"), ("set", "threshold")}
    pg.wait_for_function("Number(document.querySelector('canvas.ck-surface').dataset.passes) >= 1", timeout=5000)
    assert pg.evaluate("__cryotk_gl.canvas.width") == whole


def test_a_view_taken_away_leaves_nothing(show):
    pg = show(VolumeView(bumps(24)))
    pg.evaluate("leave()")
    pg.evaluate("model.update({ threshold: 0.1 })")
    rest(pg)


def graded(low=5.0, high=9.0):
    """Bumps and a resolution that differs between its halves."""
    v = bumps()
    return v, np.where(v.values > 0.02, low + (high - low) * (np.arange(48) >= 28), 0).astype(np.float32)


def saved(pg, path):
    from PIL import Image

    with pg.expect_download() as download:
        pg.get_by_role("button", name="Save picture").click()
    download.value.save_as(path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def colourful(image):
    return np.ptp(image[..., :3], axis=-1) > 60


def test_the_legend_parts_values_that_lie_close(show):
    v, local = graded(7.1, 7.24)
    pg = show(VolumeView(v, threshold=0.3, colour_by=local, colour_range=(7.1, 7.24)))
    assert pg.locator(".ck-legend-text span").all_inner_texts() == ["7.10", "7.13", "7.17", "7.21", "7.24"]
    pg.evaluate("model.update({ colour_range: [7, 9] })")
    assert pg.locator(".ck-legend-text span").all_inner_texts() == ["7.0", "7.5", "8.0", "8.5", "9.0"]


def test_the_saved_picture_holds_what_is_seen(show, tmp_path, figures):
    v, local = graded()
    pg = show(VolumeView(v, threshold=0.3, colour_by=local, colour_range=(5.0, 9.0)))
    surface = picture(pg)
    image = saved(pg, figures / "saved_volume.png")
    # surface, slices below each other, legend
    assert image.shape[0] == surface.shape[0] and image.shape[1] > 1.5 * surface.shape[1]
    legend = image[:, -110:]
    assert colourful(legend).any(1).sum() > 120 and (legend.max(-1) < 90).sum() > 100
    middle = image[:, surface.shape[1] + 8 : surface.shape[1] + 8 + surface.shape[0] // 3 - 10]
    assert (middle.max(-1) == 0).mean() > 0.02
    bare = show(VolumeView(v, threshold=0.3, layout_mode="surface"))
    assert saved(bare, tmp_path / "bare.png").shape[:2] == picture(bare).shape[:2]


def test_slices_are_saved_with_their_legend_and_offer_nothing_for_a_surface(show, figures):
    v, local = graded()
    pg = show(SliceView(v, colour_by=local, colour_range=(5.0, 9.0)))
    legend = pg.locator(".ck-legend")
    assert legend.is_visible() and legend.inner_text().split()[-5:] == ["5.0", "6.0", "7.0", "8.0", "9.0"]
    for name in ("Look along x", "Reset the view", "Clipping plane"):
        assert not pg.get_by_label(name).is_visible()
    box, plane = legend.bounding_box(), pg.get_by_label("Slice yz").bounding_box()
    assert box["x"] >= plane["x"] + plane["width"]
    image = saved(pg, figures / "saved_slices.png")
    planes = [picture(pg, ".ck-slices canvas", i) for i in range(3)]
    assert np.array_equal(image[: planes[0].shape[0], : planes[0].shape[1]], planes[0][..., :3])
    assert image.shape[1] > sum(p.shape[1] for p in planes) + 50 and colourful(image[:, -110:]).any(1).sum() > 100
    # a view of the surface offers them again
    pg.evaluate("model.update({ layout_mode: 'both' })")
    assert pg.get_by_label("Look along x").is_visible() and legend.is_visible()


def test_maps_stand_under_their_names_and_files(show):
    a, b = bumps(), bumps()
    a.attrs["source"], b.attrs["history"] = "Refine3D/job020/run_half1_class001_unfil.mrc", "locally filtered"
    pg = show(VolumeView(a, b, threshold=0.3, names=["before"]))
    assert pg.locator(".ck-name").all_inner_texts() == ["before", "locally filtered"]
    assert pg.locator(".ck-source").all_inner_texts() == ["run_half1_class001_unfil.mrc", "bumps.mrc"]
    assert pg.locator(".ck-name").first.get_attribute("title") == "before\nrun_half1_class001_unfil.mrc"
    tops = [pg.locator("canvas.ck-surface").nth(i).bounding_box()["y"] for i in range(2)]
    assert tops[0] == tops[1]
