"""FSC and Guinier plots: numbers on them, from our results and RELION's files alike."""

import numpy as np
import pytest
import xarray as xr

hv = pytest.importorskip("holoviews")

from cryotk_widgets import FSCPlot, GuinierPlot, plots  # noqa: E402
from cryotk_widgets.map_plots import crossing  # noqa: E402

import cryotk as ctk  # noqa: E402
from cryotk.errors import DataError, DataWarning, FileFormatError, MissingFileError, SettingsError  # noqa: E402
from cryotk.maps import create_mask, open_postprocess  # noqa: E402


def words(overlay):
    """Everything that is written in a figure: legends and texts."""
    return [e.data[2] if isinstance(e, hv.Text) else e.label for e in overlay]


def curve(overlay, start):
    found = [e for e in overlay if isinstance(e, hv.Curve) and e.label.startswith(start)]
    assert len(found) == 1, [e.label for e in overlay]
    return found[0]


def test_curves_and_crossings_of_relion_s_file(shared):
    path = shared / "reference" / "postprocess" / "mtf.star"
    figure, read = FSCPlot(path), open_postprocess(path)
    for name, start in (
        ("corrected", "corrected"),
        ("unmasked", "unmasked"),
        ("masked", "masked"),
        ("randomised", "phase-randomised"),
    ):
        assert np.array_equal(curve(figure, start).dimension_values(1), read.fsc[name].values)
        assert np.allclose(curve(figure, start).dimension_values(0), read.fsc.frequency.values)
    # RELION's final resolution is the number that is printed
    assert f"0.143: {read.resolution:.1f} Å" in words(figure) and f"corrected · {read.resolution:.1f} Å" in words(figure)
    assert any(w.startswith("0.5: ") for w in words(figure))
    colours = {e.label.split(" ")[0]: e.opts.get().kwargs["color"] for e in figure if isinstance(e, hv.Curve)}
    assert colours["unmasked"] == "#009e73" and colours["masked"] == "#0072b2" and colours["phase-randomised"] == "#d55e00"
    hover = curve(figure, "corrected")
    assert hover.dimension_values("resolution")[6] == f"{float(read.fsc.resolution[6]):.1f} Å"
    hv.render(figure, backend="bokeh")


def test_guinier_plot_prints_relion_s_b_factor(shared):
    path = shared / "reference" / "postprocess" / "mtf.star"
    read = open_postprocess(path)
    figure = GuinierPlot(path)
    # the file does not say which points were fitted: no range is printed, the line spans the points that have a weight
    assert figure.opts.get().kwargs["title"].startswith("B = -779.1 Å², fitted, r² = ")
    fit = curve(figure, "fit")
    x, y = fit.dimension_values(0), fit.dimension_values(1)
    weighted = np.isfinite(read.guinier["weighted"].values) & (read.guinier.inverse_resolution_squared.values > 0)
    span = read.guinier.inverse_resolution_squared.values[weighted]
    assert x.tolist() == [span.min(), span.max()] and len(span) < read.guinier.sizes["shell"] - 1
    assert np.diff(y)[0] / np.diff(x)[0] == pytest.approx(read.guinier.attrs["slope"])
    sharpened = curve(figure, "sharpened")
    expected = read.guinier["sharpened"].values
    assert np.allclose(
        sharpened.dimension_values(1),
        expected[np.isfinite(expected) & (expected > -90) & (read.guinier.inverse_resolution_squared.values > 0)],
    )
    assert len(plots.postprocess(read)) == 2
    # nothing was fitted: no line
    assert not [e for e in GuinierPlot(shared / "reference" / "postprocess" / "adhoc.star") if e.label == "fit"]


def test_several_jobs_and_a_refinement(shared):
    r = shared / "reference"
    figure = FSCPlot(
        {"masked": r / "postprocess" / "auto.star"},
        bare=r / "postprocess" / "nomask.star",
        refinement=r / "refine3d" / "run_model.star",
    )
    labels = [w for w in words(figure) if "·" in w]
    read = open_postprocess(r / "postprocess" / "auto.star").fsc
    half = float(read.resolution[np.nonzero(read.corrected.values < 0.5)[0][0] - 1])
    assert labels[0] == f"masked · 9.1 Å (0.5: {half:.1f} Å)"
    assert [w.split(" (0.5: ")[0] for w in labels] == ["masked · 9.1 Å", "bare · 10.8 Å", "refinement · 10.8 Å"]
    with pytest.warns(DataWarning, match="maps are not there"):
        it = ctk.open_iteration(r / "refine3d" / "run_model.star")
    assert np.array_equal(curve(FSCPlot(it), "gold standard").dimension_values(1), it.model.gold_standard_fsc[0])
    with pytest.raises(DataError, match="no half-sets"):
        FSCPlot(r / "class3d" / "alignment" / "run_it025_model.star")


def test_an_fsc_of_two_maps():
    a = ctk.simulate.volume(ctk.simulate.molecule(), 32, 6.0)
    noise = np.random.default_rng(1).normal(size=(2, 32, 32, 32)) * float(a.std()) * 2
    fsc = ctk.fsc(a.copy(data=a.values + noise[0]), a.copy(data=a.values + noise[1]))
    figure = FSCPlot(fsc)
    assert f"FSC · {fsc.attrs['resolution_0143']:.1f} Å" in words(figure)
    assert crossing(np.array([1, 0.9, 0.3, 0.1]), np.arange(4) / 60.0) == 30.0 and crossing(np.zeros(3), np.arange(3) / 9) == np.inf


def test_mask_over_its_map():
    result = create_mask(ctk.simulate.volume(ctk.simulate.molecule(), 48, 5.0), extend_px=2, soft_edge_px=4)
    figure = result.plot(size=150)
    assert len(figure) == 3
    image = next(e for e in figure[0, 0] if isinstance(e, hv.Image))
    assert np.array_equal(image.dimension_values(2, flat=False), result.lowpassed.values[24])
    assert sum(isinstance(e, hv.Path) for e in figure[0, 0]) == 2
    hv.render(figure, backend="bokeh")


def test_bad_input(tmp_path):
    with pytest.raises(DataError, match="not of int"):
        FSCPlot(3)
    with pytest.raises(DataError, match="needs a result"):
        FSCPlot()
    with pytest.raises(MissingFileError, match="neither"):
        FSCPlot(tmp_path)
    with pytest.raises(FileFormatError, match=r"\.star"):
        FSCPlot(tmp_path / "x.mrc")
    with pytest.raises(DataError, match="Guinier"):
        GuinierPlot(xr.Dataset())


def test_local_resolution_figure():
    rng = np.random.default_rng(0)
    signal = ctk.simulate.volume(ctk.simulate.molecule(), 32, 5.0)
    halves = [
        signal.copy(data=(signal.values + rng.normal(size=signal.shape) * float(signal.std())).astype(np.float32)) for _ in range(2)
    ]
    mask = create_mask(halves[0], lowpass=25, extend_px=2, soft_edge_px=3).mask
    result = ctk.local_resolution(*halves, mask=mask, sampling=40, progress=False)
    figure = plots.local_resolution(result)
    assert len(figure) == 2
    bars = next(e for e in figure[0, 0] if isinstance(e, hv.Histogram))
    assert bars.dimension_values(1).sum() == result.histogram["count"].values.sum()
    assert f"median {result.histogram.attrs['median']:.1f} Å" in figure[0, 0].opts.get().kwargs["title"]
    hv.render(figure, backend="bokeh")


def test_the_fitted_line_spans_the_points_that_were_used(shared):
    read = open_postprocess(shared / "reference" / "postprocess" / "auto.star")
    read.guinier.attrs |= {"fit_from": 20.0, "fit_to": 8.0}
    figure = GuinierPlot(read)
    assert ", fitted from 20.0 to 8.0 Å, r²" in figure.opts.get().kwargs["title"]
    assert np.allclose(curve(figure, "fit").dimension_values(0), [1 / 400, 1 / 64])


def test_every_job_is_drawn_under_a_name_of_its_own(shared, tmp_path):
    r = shared / "reference" / "postprocess"
    other = open_postprocess(r / "nomask.star")

    def names(*args, **kwargs):
        return [w.split(" · ")[0] for w in words(FSCPlot(*args, **kwargs)) if "·" in w]

    # a name that the user gave stays, the others make way
    fsc = xr.DataArray(np.linspace(1, -0.1, 33), dims="shell", coords={"frequency": ("shell", np.arange(33) / 300)})
    assert names(fsc, {"job 1": other}) == ["job 1 (2)", "job 1"]
    assert names(fsc, fsc) == ["job 1", "job 2"]
    # files are named by their folder, and by themselves where that is not enough
    for job in ("job021", "job022"):
        (tmp_path / job).mkdir()
        (tmp_path / job / "postprocess.star").write_bytes((r / "nomask.star").read_bytes())
    assert names(tmp_path / "job021", str(tmp_path / "job022" / "postprocess.star")) == ["job021", "job022"]
    assert names(r / "auto.star", r / "nomask.star", r / "auto.star") == ["postprocess/auto", "postprocess/nomask", "postprocess/auto (2)"]
    with pytest.raises(SettingsError, match="two results are called 'a'"):
        FSCPlot({"a": fsc}, a=other)


def test_the_curve_that_was_saved_is_drawn_again(tmp_path):
    shells = np.arange(40)
    fsc = xr.DataArray(1 / (1 + np.exp((shells - 20) / 3)), dims="shell", coords={"shell": shells, "frequency": ("shell", shells / 240.0)})
    path = fsc.cryo.save(tmp_path)
    for source in (path, tmp_path):
        again = curve(FSCPlot(source), "FSC")
        assert np.allclose(again.dimension_values(0), shells / 240.0, atol=1e-6) and np.allclose(again.dimension_values(1), fsc, atol=1e-5)
    assert crossing(again.dimension_values(1), again.dimension_values(0)) == pytest.approx(240 / 25, rel=1e-4)
    text = path.read_text()
    path.write_text(text.replace("_rlnFourierShellCorrelation", "_rlnAmplitude"))
    with pytest.raises(FileFormatError, match=r"no columns rlnFourierShellCorrelation.*rlnAmplitude"):
        FSCPlot(path)


@pytest.mark.parametrize("name", ["mtf", "auto", "nomask"])
def test_labels_of_crossings_lie_beside_the_curves(shared, name):
    figure = FSCPlot(shared / "reference" / "postprocess" / f"{name}.star")
    highest = figure.opts.get().kwargs["xlim"][1]
    texts = [e for e in figure if isinstance(e, hv.Text)]
    assert len(texts) >= 1
    for t in texts:
        x, level = t.data[0], float(t.data[2].split(":")[0])
        for c in (e for e in figure if isinstance(e, hv.Curve)):
            y = np.interp(np.linspace(x, x + 0.2 * highest, 50), c.dimension_values(0), c.dimension_values(1))
            assert not ((y > level + 0.01) & (y < level + 0.09)).any(), (t.data[2], c.label)
