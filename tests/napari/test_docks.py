"""The plugin in a viewer under a screen in memory: docks at work, cancelled, given nonsense."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import cryotk as ctk

pytestmark = [
    pytest.mark.napari,
    pytest.mark.filterwarnings("ignore::FutureWarning:napari"),
    pytest.mark.filterwarnings("ignore:.*viewer.camera.*:FutureWarning"),
]


@pytest.fixture(scope="module")
def halves():
    from cryotk_widgets.napari.samples import noisy_half_maps

    return noisy_half_maps(64, 3.0, noise=0.35)


@pytest.fixture
def with_halves(viewer, halves):
    for h in halves:
        h.cryo.to_napari(viewer)
    return viewer


@pytest.fixture
def finish(qtbot):
    def wait(dock):
        qtbot.waitUntil(lambda: not dock.work.is_running, timeout=120_000)

    return wait


def test_files_open_through_the_plugin_and_are_saved(viewer, tmp_path, halves):
    ctk.write_volume(halves[0], tmp_path / "m.mrc")
    viewer.open(str(tmp_path / "m.mrc"), plugin="cryotk")
    [layer] = viewer.layers
    assert layer.scale.tolist() == [3.0] * 3 and layer.data.shape == (64,) * 3
    layer.save(str(tmp_path / "out.mrc"), plugin="cryotk")
    assert np.array_equal(ctk.open_volume(tmp_path / "out.mrc").values, halves[0].values)


def test_a_512_map_is_shown_by_reading_a_few_of_its_sections(viewer, tmp_path):
    path, section = tmp_path / "large.mrc", 4 * 512**2
    ctk.write_volume(np.zeros((2, 512, 512), np.float32), path, 1.0)
    raw = bytearray(path.read_bytes()[:1024])
    raw[0:12] = raw[28:40] = np.array([512, 512, 512], "<i4").tobytes()
    with open(path, "wb") as f:  # a hole of zeros on the disk
        f.write(raw)
        f.truncate(1024 + 512 * section)
    viewer.open(str(path), plugin="cryotk")
    [layer] = viewer.layers
    assert layer.data.shape == (512, 512, 512)
    opened = layer.data.bytes_read
    assert 3 * section < opened <= 8 * section  # of 512: three for the grey limits, the others to be seen
    viewer.dims.set_current_step(0, 100)
    assert layer.data.bytes_read - opened == section
    before = layer.data.bytes_read
    viewer.window.add_plugin_dock_widget("cryotk", "Post-process")
    assert layer.data.bytes_read == before  # a dock reads when it is told to


@pytest.mark.parametrize("key", ["half_maps", "particles", "micrograph"])
def test_sample_data(viewer, key):
    viewer.open_sample("cryotk", key)
    assert len(viewer.layers) == {"half_maps": 2, "particles": 1, "micrograph": 2}[key]
    low, high = viewer.layers[0].contrast_limits
    assert low < high


def test_to_napari_takes_a_viewer_and_options(viewer, halves, tmp_path):
    assert halves[0].cryo.to_napari(viewer, name="one", colormap="magma") is viewer
    layer = viewer.layers["one"]
    assert layer.colormap.name == "magma" and layer.scale.tolist() == [3.0] * 3 and layer.translate.tolist() == [-96.0] * 3
    ctk.write_stack(halves[0].values, tmp_path / "s.mrcs", 3.0)
    ctk.open_stack(tmp_path / "s.mrcs").cryo.to_napari(viewer)
    assert hasattr(viewer.layers[1].data, "dask") and viewer.layers[1].scale.tolist() == [1.0, 3.0, 3.0]


def test_postprocess_dock(with_halves, halves, finish, tmp_path):
    _, dock = with_halves.window.add_plugin_dock_widget("cryotk", "Post-process")
    assert dock.half1.value is not dock.half2.value
    dock.run_button.native.click()
    finish(dock)
    truth = ctk.postprocess(*halves)
    assert dock.result.resolution == truth.resolution and dock.result.b_factor == pytest.approx(truth.b_factor)
    assert np.array_equal(with_halves.layers["post-processed"].data, truth.volume.values)
    assert f"{truth.resolution:.2f} Å" in dock.work.status.text()
    assert [c.name for c in dock.fsc_plot.curves][:2] == ["corrected", "unmasked"]
    before = next(c.y for c in dock.guinier_plot.curves if c.name == "sharpened")
    dock.b_factor.value = truth.b_factor - 60
    assert dock.b_factor.value == pytest.approx(truth.b_factor - 60, abs=1)
    assert not np.array_equal(next(c.y for c in dock.guinier_plot.curves if c.name == "sharpened"), before, equal_nan=True)
    dock.again_button.native.click()
    finish(dock)
    assert np.allclose(with_halves.layers["post-processed"].data, truth.sharpened(dock.b_factor.value).values)
    assert len([layer for layer in with_halves.layers if layer.name.startswith("post-processed")]) == 1
    # what is saved is what is shown
    dock.save_to.value = tmp_path
    dock.save()
    finish(dock)
    saved = ctk.open_postprocess(tmp_path / "postprocess.star")
    assert saved.resolution == pytest.approx(truth.resolution, abs=1e-4)
    assert saved.b_factor == pytest.approx(dock.b_factor.value, abs=1e-3) and not saved.fitted
    assert np.array_equal(saved.volume.values, with_halves.layers["post-processed"].data)
    anew = truth.sharpened_amplitudes(dock.b_factor.value)
    assert np.allclose(saved.guinier["sharpened"].values, anew, atol=1e-3, equal_nan=True)


def test_sharpening_anew_follows_in_the_masked_map(with_halves, halves, finish):
    mask = ctk.create_mask(halves[0], lowpass=15)
    mask.mask.cryo.to_napari(with_halves, name="inside")
    _, dock = with_halves.window.add_plugin_dock_widget("cryotk", "Post-process")
    dock.half1.value, dock.half2.value, dock.mask.value = (with_halves.layers[n] for n in ("half-map 1", "half-map 2", "inside"))
    dock.run()
    finish(dock)
    dock.b_factor.value = -30
    dock.sharpen()
    finish(dock)
    expected = dock.result.sharpened(-30).values * mask.mask.values
    assert np.allclose(with_halves.layers["post-processed, masked"].data, expected, atol=1e-6)
    # and back again from the same run
    dock.b_factor.value = -90
    dock.sharpen()
    finish(dock)
    assert np.allclose(with_halves.layers["post-processed"].data, dock._run.sharpened(-90).values)


@pytest.fixture
def unscaled(tmp_path, halves):
    """Files of the half-maps whose headers have no pixel size."""
    paths = []
    for i, h in enumerate(halves, 1):
        paths.append(tmp_path / f"run_half{i}_class001_unfil.mrc")
        ctk.write_volume(h, paths[-1])
        raw = bytearray(paths[-1].read_bytes())
        raw[40:52] = bytes(12)
        paths[-1].write_bytes(raw)
    return paths


@pytest.mark.filterwarnings("ignore:.*no pixel size:cryotk.errors.DataWarning")
def test_a_pixel_size_that_nobody_knows_is_asked_for(viewer, unscaled, halves, finish):
    viewer.open([str(p) for p in unscaled], plugin="cryotk")
    _, dock = viewer.window.add_plugin_dock_widget("cryotk", "Post-process")
    assert "no pixel size, 1 Å is taken" in dock.work.status.text()
    dock.run()
    finish(dock)
    wrong = dock.result.resolution
    assert "no pixel size, 1 Å is taken" in dock.work.status.text() and f"{wrong:.2f} Å" in dock.work.status.text()
    dock.pixel_size.value = 3.0
    dock.run()
    finish(dock)
    truth = ctk.postprocess(*halves)
    assert dock.result.resolution == pytest.approx(truth.resolution) and wrong == pytest.approx(truth.resolution / 3)
    assert "pixel size" not in dock.work.status.text()
    # all of them lie over each other
    for name in (p.name for p in unscaled):
        assert viewer.layers[name].scale.tolist() == [3.0] * 3 and viewer.layers[name].translate.tolist() == [-96.0] * 3
    assert viewer.layers["post-processed"].translate.tolist() == [-96.0] * 3


def test_a_header_of_exactly_one_angstrom_is_doubted(viewer, halves, tmp_path, finish):
    ctk.write_volume(halves[0], tmp_path / "m.mrc", 1.0)
    viewer.open(str(tmp_path / "m.mrc"), plugin="cryotk")
    _, dock = viewer.window.add_plugin_dock_widget("cryotk", "Mask creation")
    dock.load()
    finish(dock)
    assert "exactly 1 Å" in dock.work.status.text()
    dock.pixel_size.value = 3.0
    dock.load()
    finish(dock)
    assert "Å" not in dock.work.status.text() and viewer.layers["m.mrc"].scale.tolist() == [3.0] * 3
    assert dock.threshold.value == pytest.approx(ctk.maps.suggest_threshold(halves[0], lowpass=15)[0], rel=1e-4)


def test_the_detector_s_pixels_may_be_others_than_the_maps(with_halves, halves, finish, tmp_path):
    from cryotk.io import StarBlock, write_star

    x = np.linspace(0, 0.5, 30)
    write_star(tmp_path / "mtf.star", {"": StarBlock("", {"rlnResolutionInversePixel": x, "rlnMtfValue": 1 - 1.6 * x})})
    _, dock = with_halves.window.add_plugin_dock_widget("cryotk", "Post-process")
    dock.mtf.value, dock.mtf_pixel_size.value = tmp_path / "mtf.star", 1.5
    dock.auto_b_factor.value, dock.b_factor.value = False, -50
    dock.run()
    finish(dock)
    mtf, b = tmp_path / "mtf.star", dock.b_factor.value
    truth = ctk.postprocess(*halves, b_factor=b, mtf=mtf, mtf_pixel_size=1.5)
    assert np.array_equal(with_halves.layers["post-processed"].data, truth.volume.values)
    assert not np.allclose(truth.volume.values, ctk.postprocess(*halves, b_factor=b, mtf=mtf).volume.values)


def test_errors_are_said_below_the_form(viewer, halves, finish):
    _, dock = viewer.window.add_plugin_dock_widget("cryotk", "Post-process")
    dock.run()
    finish(dock)
    assert "open two half-maps" in dock.work.status.text()
    halves[0].cryo.to_napari(viewer)
    halves[0][8:56, 8:56, 8:56].cryo.to_napari(viewer, name="smaller")
    dock.run()
    finish(dock)
    assert "half" in dock.work.status.text() and "48" in dock.work.status.text()
    assert dock.result is None and "post-processed" not in viewer.layers


def test_mask_dock_follows_the_threshold(viewer, halves, finish, qtbot):
    density = 0.5 * (halves[0] + halves[1])
    density.attrs.update(halves[0].attrs)
    density.cryo.to_napari(viewer, name="map")
    _, dock = viewer.window.add_plugin_dock_widget("cryotk", "Mask creation")
    dock.load()
    finish(dock)
    level, first = dock.threshold.value, dock.preview().mean()
    assert "suggested" in dock.reason.value
    qtbot.waitUntil(lambda: "mask (preview)" in viewer.layers, timeout=5000)
    shown = np.array(viewer.layers["mask (preview)"].data)
    dock.threshold.value = level + 0.3 * (dock.threshold.max - level)
    qtbot.waitUntil(lambda: not np.array_equal(viewer.layers["mask (preview)"].data, shown), timeout=5000)
    assert dock.preview().mean() < first
    dock.make_button.native.click()
    finish(dock)
    truth = ctk.create_mask(density, threshold=dock.threshold.value, lowpass=15, extend_px=3, soft_edge_px=3)
    assert np.array_equal(viewer.layers["mask"].data, truth.mask.values)
    assert np.allclose(viewer.layers["mask"].translate, viewer.layers["map"].translate)
    assert not viewer.layers["mask (preview)"].visible
    # the preview is what will be made, as far as a small copy can be
    assert dock.preview().mean() == pytest.approx(float(truth.mask.mean()), rel=0.02)


def test_local_resolution_dock(with_halves, halves, finish):
    _, dock = with_halves.window.add_plugin_dock_widget("cryotk", "Local resolution")
    dock.sampling.value = 45
    dock.run_button.native.click()
    finish(dock)
    truth = ctk.local_resolution(*halves, sampling=45, progress=False)
    assert np.array_equal(with_halves.layers["local resolution"].data, truth.resolution_map.values)
    assert np.array_equal(with_halves.layers["locally filtered"].data, truth.filtered.values)
    surface = with_halves.layers["surface by local resolution"]
    assert len(surface.data[0]) == len(surface.data[2]) > 100
    assert "median" in dock.work.status.text() and dock.plot.curves


DOCKS = {"Post-process": ("postprocess", "run"), "Mask creation": ("create_mask", "make"), "Local resolution": ("local_resolution", "run")}


@pytest.mark.filterwarnings("ignore::cryotk.errors.DataWarning")
@pytest.mark.parametrize("name", DOCKS)
def test_docks_show_progress_and_cancel_within_a_fraction_of_a_second(viewer, finish, monkeypatch, qtbot, name):
    from cryotk_widgets.napari.samples import noisy_half_maps

    import cryotk.maps

    for h in noisy_half_maps(128, 2.0):
        h.cryo.to_napari(viewer)
    function, start = DOCKS[name]
    half_way, gate, reports = threading.Event(), threading.Event(), []
    real = getattr(cryotk.maps, function)

    def watched(*args, progress, **kwargs):
        def step(done, total):
            reports.append((done, total))
            if 3 * done > total:
                half_way.set()
                gate.wait(60)
            progress(done, total)

        return real(*args, progress=step, **kwargs)

    monkeypatch.setattr(cryotk.maps, function, watched)
    _, dock = viewer.window.add_plugin_dock_widget("cryotk", name)
    finish(dock)
    getattr(dock, start)()
    assert dock.work.cancel_button.isEnabled()
    qtbot.waitUntil(half_way.is_set, timeout=120_000)
    # the bar follows what is done
    qtbot.waitUntil(lambda: dock.work._bar.total == reports[-1][1], timeout=5000)
    assert 0 < dock.work._bar.n <= reports[-1][0]
    dock.work.cancel_button.click()
    used = time.process_time()
    gate.set()
    finish(dock)
    used = time.process_time() - used
    assert dock.work.status.text() == "cancelled" and dock.result is None
    assert reports[-1][0] < reports[-1][1] and used < 0.6, used  # all threads' and the window's seconds
    assert dock.work.run("again", lambda step: 1, lambda result: None)
    finish(dock)


def test_work_without_reports_is_cancelled_at_its_next_pass_over_a_map(viewer, finish, halves):
    from cryotk_widgets.napari.work import Work

    class Dock:
        work = Work()

    begun, gate, passed = threading.Event(), threading.Event(), []

    def work(step):
        begun.set()
        gate.wait(60)
        ctk.lowpass(halves[0], 10)
        passed.append(1)

    Dock.work.run("filtering", work, passed.append)
    assert begun.wait(10)
    Dock.work.cancel()
    gate.set()
    finish(Dock)
    assert Dock.work.status.text() == "cancelled" and not passed


def test_class_dock(viewer, finish, shared, tmp_path):
    _, dock = viewer.window.add_plugin_dock_widget("cryotk", "Class viewer")
    dock.path.value = shared / "reference" / "class2d_em" / "run_it025_optimiser.star"
    finish(dock)
    it = ctk.open_iteration(dock.path.value)
    k = it.model.n_classes
    assert dock.tiles.count() == k
    best = int(np.argmax(it.model.class_distribution)) + 1
    assert dock.tiles.item(0).text().startswith(f"{best}:")
    dock.show_chosen()
    assert "choose classes" in dock.work.status.text()
    dock.selected = [best, 1 if best != 1 else 2]
    assert "2 chosen" in dock.work.status.text()
    dock.show_chosen()
    layer = viewer.layers["chosen classes"]
    assert np.array_equal(layer.data, it.model.references[np.array(dock.selected) - 1])
    dock.sort.value = "number"
    assert dock.tiles.item(0).text().startswith("1:") and best in dock.selected
    dock.save_to.value = tmp_path / "chosen.star"
    dock.save_particles()
    finish(dock)
    kept = int(np.isin(it.assignments["class_number"].values, dock.selected).sum())
    assert f"{kept} particles written" in dock.work.status.text(), dock.work.status.text()
    assert ctk.open_particles(tmp_path / "chosen.star", images=False).sizes["particle"] == kept


def test_iterations_are_stepped_through(viewer, finish, halves):
    from dataclasses import replace

    from cryotk_widgets.napari.classes import ClassDock

    rng = np.random.default_rng(0)
    from cryotk.data.refinement import Convergence, Iteration, RefinementModel, SamplingSettings

    z = np.zeros((3, 9))
    model = RefinementModel(
        rng.standard_normal((3, 16, 16)).astype(np.float32), 3.0, z[:1], np.array([0.2, 0.5, 0.3]), z, z, z, z, z, class_resolution=np.array([9.0, 8.0, 999.0])
    )
    import xarray as xr

    its = [Iteration(i, replace(model, references=model.references + i), SamplingSettings(), Convergence(), xr.Dataset(), {}) for i in (1, 2)]
    dock = ClassDock(viewer, its)
    viewer.window.add_dock_widget(dock)
    finish(dock)
    assert dock.tiles.count() == 3 and dock.iteration.value == 1 and dock.tiles.item(0).text() == "2: 50.0 %\n8.0 Å"
    dock.iteration.value = 0
    finish(dock)
    assert dock._shown is its[0] and "iteration 1" in dock.work.status.text()
    viewer.close()


def test_the_threshold_is_shown_with_the_decimals_it_needs(viewer, halves, finish):
    from qtpy.QtWidgets import QDoubleSpinBox

    faint = halves[0].copy(data=halves[0].values * 1e-2)
    faint.cryo.to_napari(viewer, name="map")
    _, dock = viewer.window.add_plugin_dock_widget("cryotk", "Mask creation")
    dock.load()
    finish(dock)
    level, _ = ctk.maps.suggest_threshold(faint, lowpass=15)
    shown = float(dock.threshold.native.findChild(QDoubleSpinBox).text().replace(",", "."))
    assert shown == pytest.approx(level, rel=0.01) and dock.threshold.value == pytest.approx(level, rel=0.002)
    assert f"{level:.4g}" in dock.reason.value
    viewer.window.resize(1000, 700) if hasattr(viewer.window, "resize") else None
    # its lines are not cut
    label = dock.reason.native
    assert label.height() >= label.heightForWidth(label.width())


def test_docks_scroll_where_the_window_is_low(viewer):
    docks = [viewer.window.add_plugin_dock_widget("cryotk", name)[1] for name in (*DOCKS, "Class viewer")]
    assert sum(d.native.minimumSizeHint().height() for d in docks) <= 4 * 160
    for dock in docks:
        form = dock.native.widget()
        assert form.minimumSizeHint().height() > 160 and dock.native.widgetResizable()
        assert dock.native.minimumSizeHint().width() > form.minimumSizeHint().width()
        # every field is in it, and so is the line below
        assert dock.work.parent() is form and dock.native.isAncestorOf(dock.work)


def test_numbers_and_name_of_an_axis_do_not_meet(screen, qtbot):
    from cryotk_widgets.napari.curves import Curve, CurvePlot
    from qtpy.QtGui import QFontMetrics

    plot = CurvePlot("local resolution (Å)", "voxels")
    qtbot.addWidget(plot)
    plot.resize(320, 240)
    plot.show_curves([Curve("inside", np.arange(9.0), 1e6 * np.arange(9.0) + 5e6, is_bars=True)])
    plot.grab()
    font = plot.font()
    font.setPointSizeF(8.5)
    widths = [QFontMetrics(font).horizontalAdvance(t) for t in ("voxels", "1.2e+07")]
    assert plot._left >= widths[1] + QFontMetrics(font).height()
    # nothing but the name is drawn in its own column
    image = plot.grab().toImage().convertToFormat(plot.grab().toImage().Format.Format_Grayscale8)
    line = QFontMetrics(font).height()
    ground = image.pixelColor(line + 3, 2).value()
    gap = [image.pixelColor(line + 3, y).value() for y in range(image.height())]
    assert all(v == ground for v in gap)
