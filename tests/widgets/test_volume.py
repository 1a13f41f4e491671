"""VolumeView in Python: what goes to the page, what comes back, the picture where widgets do not run."""

import io

import numpy as np
import pytest
import xarray as xr
from cryotk_widgets import MaskDesigner, SliceView, VolumeView
from cryotk_widgets.volume import symmetry_axes
from cryotk_widgets.volume_pictures import cropped, legend_texts, on_grid, resolution_colours, suggested_threshold, surface_image

import cryotk as ctk
from cryotk.errors import DataError, SettingsError
from cryotk.maps.local_result import LocalResolutionResult
from cryotk.maps.mask import MaskResult


def ball(n=40, radius=10.0, centre=(0, 0, 0), noise=0.0):
    """A ball with an edge of two voxels; centre z, y, x from n // 2."""
    at = np.stack(np.meshgrid(*[np.arange(n) - n // 2 - c for c in centre], indexing="ij"))
    v = np.clip((radius - np.linalg.norm(at, axis=0)) / 2 + 0.5, 0, 1).astype(np.float32)
    return v + noise * np.random.default_rng(0).normal(size=v.shape).astype(np.float32)


def volume(n=40, pixel_size=2.0, **kwargs):
    return xr.DataArray(ball(n, **kwargs), dims=("z", "y", "x"), attrs={"pixel_size": pixel_size, "source": "folder/ball.mrc"})


def test_what_goes_to_the_page():
    view = VolumeView(volume(40))
    assert view.shape == [40, 40, 40] and view.voxel == 2.0 and view.extent == 80.0 and view.names[0] == "ball.mrc"
    pixels = np.frombuffer(view.data, np.uint8).reshape(40, 40, 40)
    low, high = view.value_range
    # a step of 8 bits is the only loss
    assert np.abs(low + pixels / 255.0 * (high - low) - ball(40)).max() <= 0.5001 * (high - low) / 255
    assert 0.2 < view.threshold < 0.9 and view.threshold == view.suggested[0] and not view.can_enlarge


def test_large_maps_stay_within_the_budget_and_come_whole_when_asked():
    view = VolumeView(volume(144, radius=40))
    assert (
        view.shape == [128, 128, 128]
        and len(view.data) <= 2.1e6
        and view.can_enlarge
        and view.voxel == pytest.approx(2.0 * 144 / 128)
    )
    said = []
    view.send = lambda content, buffers=None: said.append((content, buffers))
    view._send_full()
    content, buffers = said[0]
    assert content["shape"] == [144, 144, 144] and content["voxel"] == 2.0
    pixels = np.frombuffer(buffers[0], np.uint8).reshape(144, 144, 144)
    low, high = view.value_range
    assert np.abs(low + pixels / 255.0 * (high - low) - ball(144, 40)).max() < 0.1


@pytest.mark.parametrize(("n", "m"), [(60, 40), (61, 40), (60, 41), (61, 41)])
def test_cropping_keeps_the_centre_at_half(n, m):
    small = cropped(ball(n, n * 0.2), m)
    assert small.shape == (m,) * 3
    expected = ball(m, m * 0.2)
    assert np.corrcoef(small.ravel(), expected.ravel())[0, 1] > 0.995
    centre = [(np.arange(m) - m // 2) @ small.sum(tuple({0, 1, 2} - {i})) / small.sum() for i in range(3)]
    assert np.abs(centre).max() < 0.02
    assert on_grid(ball(n, n * 0.2), (m,) * 3)[m // 2, m // 2, m // 2] == 1


def test_python_and_the_page_set_the_same_traits():
    view = VolumeView(volume())
    camera = {"rotation": [0.0, 1.0, 0.0, 0.0], "zoom": 2.0, "pan": [3.0, 0.0]}
    for name, value in (("threshold", 0.4), ("camera", camera), ("clip", 0.5), ("cursor", [2.0, 4.0, -6.0]), ("show_axes", True)):
        view._on_message(view, {"cmd": "set", "name": name, "value": value}, [])
        assert getattr(view, name) == value
    view._on_message(view, {"cmd": "set", "name": "theme", "value": "dark"}, [])
    view._on_message(view, {"cmd": "set", "name": "data", "value": b""}, [])
    assert view.theme == "auto" and view.data
    # another map, same view
    view.set_volume(volume(36), keep=True)
    assert view.threshold == 0.4 and view.camera == camera and view.shape == [36, 36, 36]
    view.set_volume(volume(36))
    assert view.threshold != 0.4 and view.clip == 0


def test_slices_follow_the_cursor():
    view = VolumeView(volume(40, centre=(2, 4, 6)), cursor=[12.0, 8.0, 4.0])
    xy, xz, yz = view.slices()
    array = ball(40, centre=(2, 4, 6))
    assert (
        np.array_equal(xy, array[22][::-1]) and np.array_equal(xz, array[:, 24][::-1]) and np.array_equal(yz, array[:, :, 26][::-1])
    )


def test_colours_span_the_values_and_leave_the_rest_grey():
    local = np.where(ball() > 0.1, 4.0 + np.arange(40)[:, None, None] / 10, 0).astype(np.float32)
    view = VolumeView(volume(), colour_by=local, colour_range=(4.5, 7.0), colour_label="resolution (Å)")
    colours = np.frombuffer(view.colour_data, np.uint8).reshape(40, 40, 40)
    low, high = view.colour_span
    inside = local > 0
    assert np.abs(low + (colours[inside] - 1) / 254 * (high - low) - local[inside]).max() < 0.51 * (high - low) / 254
    assert colours[0, 0, 0] == 0 and (colours > 0).sum() > inside.sum() and view.colour_range == [4.5, 7.0]
    with pytest.raises(DataError, match="one grid"):
        VolumeView(volume(), colour_by=local[1:])


def test_mask_over_the_slices():
    view = SliceView(volume(), mask=ball(radius=14))
    assert view.layout_mode == "slices"
    mask = np.frombuffer(view.mask_data, np.uint8).reshape(40, 40, 40)
    assert mask[0, 0, 0] == 0 and np.abs(mask / 255.0 - ball(radius=14)).max() <= 0.5001 / 255
    view.set_mask(None)
    assert view.mask_data == b""
    with pytest.raises(DataError, match="one grid"):
        view.set_mask(np.zeros((10, 10, 10)))


def test_two_maps_share_the_camera():
    view = VolumeView(volume(40, pixel_size=2.0), volume(60, pixel_size=2.0, radius=20))
    assert view.shape_2 == [60, 60, 60] and view.extent == 120.0 and len(view.data_2) == 60**3
    width = view.to_image(100).width
    assert width == 100 + 8 + 100


def test_surface_without_a_browser_knows_up_from_down():
    # a ball up (y) and to the right (x), in front (z) of a large one
    array = ball(48, 6, (0, 10, 14))
    picture = surface_image(array, 0.5, edge=120)
    rows, columns = np.nonzero((picture != 255).any(-1))
    assert abs(columns.mean() - (60 + 14 * 2.5)) < 2 and abs(rows.mean() - (60 - 10 * 2.5)) < 2
    assert abs(np.ptp(rows) - 12 * 2.5) < 4
    # half a turn about y takes right to left
    turned = surface_image(array, 0.5, (0, 1, 0, 0), edge=120)
    assert abs(np.nonzero((turned != 255).any(-1))[1].mean() - (60 - 14 * 2.5)) < 4
    # clipping takes the front away: the cut is flat
    whole, cut = surface_image(ball(48, 16), 0.5, edge=120), surface_image(ball(48, 16), 0.5, edge=120, clip=0.5)
    assert np.std(cut[50:70, 50:70, 0].astype(float)) < 1 < np.std(whole[50:70, 50:70, 0].astype(float))
    # and nothing above the threshold leaves the paper white
    assert (surface_image(array, 2.0, edge=60) == 255).all()


def test_fallback_picture_and_text():
    from PIL import Image

    view = VolumeView(volume(), symmetry="D2", theme="dark")
    assert len(view.axes) == 3 and view.show_axes
    image = Image.open(io.BytesIO(view.to_png()))
    assert image.size == (300 + 8 + 97, 300) and len(image.convert("RGB").getcolors(100_000)) > 100
    data, _ = view._repr_mimebundle_()
    assert {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"} <= set(data)
    assert "40 × 40 × 40 voxels of 2 Å" in data["text/plain"]


@pytest.mark.parametrize(
    ("name", "orders"),
    [
        ("C1", []),
        ("C4", [4]),
        ("D2", [2, 2, 2]),
        ("D3", [2, 2, 2, 3]),
        ("T", [2] * 3 + [3] * 4),
        ("O", [2] * 6 + [3] * 4 + [4] * 3),
    ],
)
def test_axes_of_point_groups(name, orders):
    assert sorted(order for *_, order in symmetry_axes(name)) == orders


def test_five_fold_axes():
    assert sorted(order for *_, order in symmetry_axes("I2")) == [2] * 15 + [3] * 10 + [5] * 6


def test_colours_are_even_from_blue_to_red():
    c = resolution_colours().astype(float)
    assert c.shape == (256, 3) and c[0, 2] > c[0, 0] + 80 and c[-1, 0] > c[-1, 2] + 80
    assert np.abs(np.diff(c, axis=0)).max() < 12


def test_bad_maps_are_named(tmp_path):
    with pytest.raises(DataError, match="three dimensions"):
        VolumeView(np.zeros((4, 4)))
    with pytest.raises(DataError, match="no finite value"):
        VolumeView(np.full((4, 4, 4), np.nan))
    with pytest.raises(SettingsError, match="no treshold"):
        VolumeView(volume(), treshold=1)
    flat = VolumeView(np.zeros((16, 16, 16), np.float32))
    assert flat.to_png() and suggested_threshold(np.zeros((8, 8, 8))) == 0
    # a path and the accessor
    ctk.write_volume(volume(), tmp_path / "v.mrc")
    assert VolumeView(tmp_path / "v.mrc").names[0] == "v.mrc"
    v = ctk.open_volume(tmp_path / "v.mrc")
    assert isinstance(v.cryo.view(threshold=0.3), VolumeView) and isinstance(v.cryo.slices(), SliceView)
    with pytest.raises(DataError, match="stack"):
        xr.DataArray(np.zeros((2, 4, 4)), dims=("image", "y", "x")).cryo.slices()


def result_with(**parts):
    """A post-process as it is read of a file."""
    empty = xr.Dataset()
    return ctk.maps.PostprocessResult(resolution=7.0, b_factor=-100.0, fsc=empty, guinier=empty, pixel_size=2.0, box_size=40, **parts)


def test_results_are_shown_by_their_map_and_their_mask():
    m = MaskResult(mask=volume(radius=14), threshold=0.1, reason="given", fraction=0.1, volume_inside=1.0)
    p = result_with(volume=volume(), mask=m.mask)
    local = LocalResolutionResult(volume() * 0 + 7.0, volume(), xr.Dataset(), mask=m.mask)
    plain = VolumeView(volume(), mask=m.mask, colour_by=np.full((40,) * 3, 7.0))
    for view in (VolumeView(p, mask=m, colour_by=local), VolumeView(local, mask=p, colour_by=local), SliceView(p, mask=m, colour_by=local)):
        assert view.data == plain.data and view.mask_data == plain.mask_data and view.colour_data == plain.colour_data
    assert VolumeView(m).data == VolumeView(m.mask).data
    with pytest.raises(DataError, match="PostprocessResult has no volume; its map was not found"):
        VolumeView(result_with())
    with pytest.raises(DataError, match="has no mask; it was made without"):
        VolumeView(p, mask=result_with(volume=volume()))
    for nothing in (object(), {"a": 1}, None):
        with pytest.raises(DataError, match=r"result that holds one"):
            VolumeView(nothing)


def test_stacks_are_no_maps(tmp_path):
    images = ball()[10:15]
    ctk.write_stack(images, tmp_path / "classes.mrcs", 2.0)
    ctk.write_stack(images, tmp_path / "classes.mrc", 2.0)
    ctk.write_stack(ball(), tmp_path / "cube.mrcs", 2.0)
    for given in ("classes.mrcs", "classes.mrc", "cube.mrcs"):
        with pytest.raises(DataError, match=rf"{given} is a stack of \d+ images, not a map.*cryo.view"):
            VolumeView(tmp_path / given, pixel_size=2.0)
    stack = ctk.open_stack(tmp_path / "classes.mrcs")
    for show in (VolumeView, MaskDesigner):
        with pytest.raises(DataError, match=r"stack of 5 images"):
            show(stack)
        # without a pixel size the remedy is the same
        with pytest.raises(DataError, match=r"stack of 5 images"):
            show(tmp_path / "classes.mrcs")
    # volumes that RELION writes call themselves stacks, too
    ctk.write_volume(ball()[:20, :, 3:33], tmp_path / "slab.mrc", 2.0)
    raw = bytearray((tmp_path / "slab.mrc").read_bytes())
    raw[88:92], raw[224:230] = bytes(4), b"Relion"
    (tmp_path / "slab.mrc").write_bytes(raw)
    assert VolumeView(tmp_path / "slab.mrc").shape == [20, 40, 30]


def test_the_scale_is_that_of_the_coordinates():
    v = ctk.data.as_volume(ball(), 2.0)
    half = VolumeView(v[::2, ::2, ::2])
    assert half.voxel == 4.0 and half.extent == 80.0 and "20 × 20 × 20 voxels of 4 Å" in repr(half)
    with pytest.raises(DataError, match=r"no cubes.*4 Å along x"):
        VolumeView(v[:, :, ::2])
    # axes in another order are turned by their names
    assert VolumeView(v[3:].transpose("x", "y", "z")).data == VolumeView(v[3:]).data
    nobody = VolumeView(ball())
    assert "unknown size, drawn as 1 Å: give pixel_size=" in nobody.about and "of 3 Å" in VolumeView(ball(), pixel_size=3.0).about
    with pytest.raises(DataError, match="give pixel_size= in Å"):
        MaskDesigner(ball())
    with pytest.raises(DataError, match="larger than 0"):
        VolumeView(ball(), pixel_size=-1)


def test_maps_are_called_what_they_are(tmp_path):
    v = ctk.data.as_volume(ball(), 2.0, "Refine3D/job020/run_half2_class001_unfil.mrc")
    made = ctk.lowpass(v, 10)
    view = VolumeView(v, made)
    assert view.names == ["half-map 2", "half-map 2, low-pass 10 Å"] and view.sources == ["run_half2_class001_unfil.mrc"] * 2
    made.attrs["history"] = "post-processed, B=-120.0 Å^2, 6.60 Å"
    assert VolumeView(made).names[0] == "post-processed, B=-120.0 Å², 6.60 Å"
    made.attrs["history"] = "locally filtered; low-pass 8 Å"
    assert VolumeView(made).names[0] == "locally filtered, low-pass 8 Å"
    assert VolumeView(made.rename("mine")).names[0] == "mine"
    view = VolumeView(v, made, names=("before", "after"))
    assert view.names == ["before", "after"] and view.sources[1] == "run_half2_class001_unfil.mrc"
    assert VolumeView(v, made, names="before").names == ["before", "locally filtered, low-pass 8 Å"]
    view.set_volume(made, names="again")
    assert view.names == ["again", ""] and view.sources[1] == ""
    with pytest.raises(SettingsError, match="2 names for 1 map"):
        VolumeView(v, names=("a", "b"))


def test_colours_that_hardly_differ_do_not_span_blue_to_red():
    local = np.full((40,) * 3, 7.1)
    local[:, :, 20:] = 7.24
    low, high = VolumeView(volume(), colour_by=local).colour_range
    assert high - low == pytest.approx(0.717, abs=0.01) and (low + high) / 2 == pytest.approx(7.17, abs=0.01)
    assert VolumeView(volume(), colour_by=local, colour_range=(7.1, 7.24)).colour_range == [7.1, 7.24]
    wide = np.where(local > 7.2, 12.0, 7.0)
    assert VolumeView(volume(), colour_by=wide).colour_range == [7.0, 12.0]


def test_pictures_without_a_browser_hold_colours_mask_and_legend():
    local = np.where(ball() > 0.1, 7.1 + 0.14 * (np.arange(40) >= 20), 0).astype(np.float32)
    options = {"colour_by": local, "colour_range": (7.1, 7.24)}
    plain, coloured = (np.asarray(VolumeView(volume(), **o).to_image(200).convert("RGB")).astype(int) for o in ({}, options))
    extra = coloured[:, plain.shape[1] :]
    # the bar from blue to red, with numbers in ink
    bar = extra[24:180, 10:18].mean(1)
    assert bar[0, 2] > bar[0, 0] + 80 and bar[-12, 0] > bar[-12, 2] + 80 and (extra[:, 26:].max(-1) < 100).sum() > 30
    assert legend_texts((7.1, 7.24)) == ["7.10", "7.13", "7.17", "7.21", "7.24"] and legend_texts((5, 9)) == ["5.0", "6.0", "7.0", "8.0", "9.0"]
    planes, tinted = (np.asarray(SliceView(volume(), **o).to_image(100).convert("RGB")).astype(int) for o in ({}, options))
    assert tinted.shape[1] > planes.shape[1] + 40 and (np.ptp(planes, axis=-1) == 0).all()
    # left of x = 0 blue, right of it red, outside grey
    assert tinted[50, 40, 2] > tinted[50, 40, 0] + 50 and tinted[50, 60, 0] > tinted[50, 60, 2] + 50 and np.ptp(tinted[5, 5]) == 0
    masked = np.asarray(SliceView(volume(), mask=ball(radius=16)).to_image(100).convert("RGB")).astype(int)
    assert masked[50, 12, 2] > masked[50, 12, 0] + 30 and np.ptp(masked[3, 3]) == 0
