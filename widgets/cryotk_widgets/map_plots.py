"""Figures of maps: Fourier shell correlations, Guinier plot, mask over its map. HoloViews objects to restyle and overlay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import DataError
from cryotk.maps.curves import last_shell_above
from cryotk_widgets.curves import Curves, crossing, curves_of, fitted_points, named_jobs
from cryotk_widgets.plots import COLOURS, FREQUENCY, _hv

__all__ = ["FSCPlot", "GuinierPlot", "crossing", "local_resolution", "mask", "postprocess"]

# the meanings of RELION's PDF, in Okabe and Ito's colours; corrected is black or white by theme
_CURVES = {"unmasked": "#009e73", "masked": "#0072b2", "randomised": "#d55e00", "corrected": ""}
_NAMES = {"unmasked": "unmasked", "masked": "masked", "randomised": "phase-randomised", "corrected": "corrected"}
_SQUARE = "1 / d² (1/Å²)"


def _ink() -> str:
    theme = _hv().renderer("bokeh").theme
    return "#ececf0" if isinstance(theme, str) and "dark" in theme else "#1b1b1f"


def _angstrom_axis(formula: str) -> Any:
    """Hook that adds a second axis in Å on top."""

    def hook(plot: Any, _element: Any) -> None:
        from bokeh.models import CustomJSTickFormatter, LinearAxis

        figure = plot.state
        if any(getattr(a, "name", None) == "angstrom" for a in figure.above):
            return
        below = figure.below[0]
        formatter: Any = CustomJSTickFormatter(code=f"return tick > 0 ? ({formula}).toFixed(1) + ' Å' : ''")
        axis = LinearAxis(
            name="angstrom", formatter=formatter,
            ticker=below.ticker, major_label_text_font_size="8pt", minor_tick_line_color=None,
            axis_line_color=below.axis_line_color, major_tick_line_color=below.major_tick_line_color,
            major_label_text_color=below.major_label_text_color,
        )  # fmt: skip
        figure.add_layout(axis, "above")

    return hook


def _line(
    x: np.ndarray, y: np.ndarray, x_name: str, y_name: str, resolution: np.ndarray, colour: str, width: float, dash: str = "solid"
) -> Any:
    from bokeh.models import HoverTool

    hv = _hv()
    data = {x_name: x, y_name: y, "resolution": [f"{d:.1f} Å" if np.isfinite(d) else "" for d in resolution]}
    hover = HoverTool(tooltips=[("resolution", "@resolution"), (y_name, "$y{0.000}")], mode="mouse")
    return hv.Curve(data, x_name, [y_name, "resolution"]).opts(color=colour, line_width=width, line_dash=dash, tools=[hover])


# a label over a threshold's line, as shares of the axes' lengths
_LABEL_WIDTH, _LABEL_HEIGHT = 0.24, 0.085


def _free_place(c: Curves, level: float, highest: float) -> float:
    """Where over a threshold's line a label covers no curve: at the left, where all are high still, or further on."""
    best, least = 0.01, np.inf
    for start in np.linspace(0.01, 0.99 - _LABEL_WIDTH, 75):
        x = np.linspace(start, start + _LABEL_WIDTH, 60) * highest
        curves = [np.interp(x, c.frequency, values) for values in c.curves.values()]
        covered = sum(float(np.mean((y > level - 0.01) & (y < level + 0.02 + _LABEL_HEIGHT))) for y in curves)
        if covered < least:
            best, least = float(start), covered
    return best * highest


def FSCPlot(*results: Any, width: int = 640, height: int = 320, **named: Any) -> Any:
    """Fourier shell correlation of one job, or of several laid over each other.

    One job shows its curves (corrected black or white, unmasked green, masked blue, phase-randomised red); of several jobs the
    corrected ones are shown. The resolutions at 0.143 and 0.5 are printed, counted as RELION does: the last shell before the
    curve falls below.

    Parameters
    ----------
    *results : PostprocessResult, Iteration, RefinementModel, DataArray, Dataset or path
        A path is RELION's ``postprocess.star`` or ``_model.star``, the ``fsc.star`` of a saved curve, or a job folder with one;
        it is named by its folder. A dict names several.
    width, height : int
        Pixels.
    **named
        Further results under their names.

    Returns
    -------
    holoviews.Overlay

    Raises
    ------
    DataError
        For things that hold no FSC, such as a refinement without half-sets.
    SettingsError
        When two results are given one name.

    Examples
    --------
    >>> FSCPlot("PostProcess/job021/postprocess.star")  # doctest: +SKIP
    >>> FSCPlot(tight=first, wide=second)  # doctest: +SKIP
    """
    hv = _hv()
    jobs = named_jobs(results, named)
    if not jobs:
        raise DataError("FSCPlot needs a result: a post-process result, postprocess.star, or _model.star")
    found = {name: curves_of(source) for name, source in jobs.items()}
    one = len(found) == 1
    parts, ink, highest = [], _ink(), 0.0
    marks = []
    for j, (name, c) in enumerate(found.items()):
        with np.errstate(divide="ignore"):
            resolution = np.where(c.frequency > 0, 1 / np.where(c.frequency > 0, c.frequency, 1), np.inf)
        highest = max(highest, float(c.frequency[-1]))
        shown = {k: c.curves[k] for k in (*_CURVES, *c.curves) if k in c.curves} if one else {c.best: c.curves[c.best]}
        for i, (key, values) in enumerate(shown.items()):
            final = key == c.best
            own = _CURVES.get(key) or (ink if one and (final or key == "corrected") else COLOURS[(i if one else j) % len(COLOURS)])
            colour = own if one else COLOURS[j % len(COLOURS)]
            d = crossing(values, c.frequency)
            text = _NAMES.get(key, key) if one else name
            if (final or key not in _CURVES) and np.isfinite(d):
                text += f" · {d:.1f} Å"
                half = crossing(values, c.frequency, 0.5)
                if not one and np.isfinite(half):
                    text += f" (0.5: {half:.1f} Å)"
            parts.append(_line(c.frequency, values, FREQUENCY, "FSC", resolution, colour, 2.4 if final else 1.6).relabel(text))
        best = c.curves[c.best]
        for level in (0.143, 0.5):
            d = crossing(best, c.frequency, level)
            if np.isfinite(d) and last_shell_above(best, level) < len(best) - 1:
                marks.append((1 / d, level, d, ink if one else COLOURS[j % len(COLOURS)]))
    thresholds = [hv.HLine(level).opts(color="#888888", line_dash="dashed", line_width=1) for level in (0.143, 0.5)]
    words = []
    for _, level, d, colour in marks if one else []:
        at = _free_place(next(iter(found.values())), level, highest)
        text = hv.Text(at, level + 0.015, f"{level:g}: {d:.1f} Å", halign="left", fontsize=9)
        words.append(text.opts(text_color=colour, text_baseline="bottom"))
    dots = [hv.Points([(x, level)]).opts(color=colour, size=6) for x, level, _, colour in marks]
    return hv.Overlay([*thresholds, *parts, *dots, *words]).opts(
        width=width, height=height, xlim=(0, highest), ylim=(-0.1, 1.05), xlabel=FREQUENCY, ylabel="Fourier shell correlation", show_legend=True,
        legend_position="right", legend_opts={"border_line_color": None}, hooks=[_angstrom_axis("1 / tick")],
    )  # fmt: skip


def GuinierPlot(result: Any, width: int = 640, height: int = 320) -> Any:
    """Logarithm of the mean amplitude over 1/d^2: as it was, corrected for the detector, weighted by the FSC, sharpened, and the fitted line.

    Parameters
    ----------
    result : PostprocessResult or path
        A path is RELION's ``postprocess.star``, or its folder.
    width, height : int
        Pixels.

    Returns
    -------
    holoviews.Overlay
        The B-factor is printed, and the range of resolutions of the points that it was fitted to, where the result says it. The
        dashed line spans these points; of RELION's files, which do not say, all points weighted by the FSC.

    Raises
    ------
    DataError
        When the result has no Guinier table.
    """
    hv = _hv()
    if isinstance(result, (str, Path)):
        from cryotk.maps import open_postprocess

        result = open_postprocess(Path(result).expanduser())
    table = getattr(result, "guinier", None)
    if table is None or "inverse_resolution_squared" not in table.coords:
        raise DataError("a Guinier plot is drawn of a post-process result or its postprocess.star")
    x = np.asarray(table["inverse_resolution_squared"].values, float)
    styles = {
        "original": ("original", "#009e73", 1.6), "mtf": ("detector corrected", "#d55e00", 1.6), "weighted": ("FSC-weighted", "#0072b2", 2.0),
        "sharpened": ("sharpened", _ink(), 2.4),
    }  # fmt: skip
    parts, lows, highs = [], [], []
    for key, (text, colour, thick) in styles.items():
        if key not in table:
            continue
        y = np.asarray(table[key].values, float)
        ok = np.isfinite(y) & (y > -90) & (x > 0)
        if not ok.any() or (
            key == "mtf" and "original" in table and np.allclose(y[ok], np.asarray(table["original"].values, float)[ok])
        ):
            continue
        parts.append(_line(x[ok], y[ok], _SQUARE, "ln(amplitude)", 1 / np.sqrt(x[ok]), colour, thick).relabel(text))
        lows.append(np.quantile(y[ok], 0.02))
        highs.append(y[ok].max())
    if not parts:
        raise DataError("the Guinier table of this result is empty")
    title = f"B = {result.b_factor:.1f} Å²"
    slope, intercept = table.attrs.get("slope"), table.attrs.get("intercept")
    if slope is not None and intercept is not None:
        points = fitted_points(table)
        ends = np.array([points.min(), points.max()]) if points.size else np.array([0.0, x.max()])
        with np.errstate(divide="ignore"):
            line = _line(ends, intercept + slope * ends, _SQUARE, "ln(amplitude)", 1 / np.sqrt(ends), "#cc79a7", 2.4, "dashed")
        parts.append(line.relabel("fit"))
        worst, best = table.attrs.get("fit_from"), table.attrs.get("fit_to")
        # files do not say which points were used
        title += ", fitted" + (f" from {float(worst):.1f} to {float(best):.1f} Å" if worst and best else "")
        if table.attrs.get("correlation") is not None:
            title += f", r² = {table.attrs['correlation']:.2f}"
    low, high = min(lows), max(highs)
    return hv.Overlay(parts).opts(
        width=width, height=height, xlabel=_SQUARE, ylabel="ln of the mean amplitude", title=title, xlim=(0, float(x.max())),
        ylim=(low - 0.08 * (high - low), high + 0.08 * (high - low)), legend_position="right", show_legend=True,
        legend_opts={"border_line_color": None}, hooks=[_angstrom_axis("1 / Math.sqrt(tick)")],
    )  # fmt: skip


def postprocess(result: Any, width: int = 520, height: int = 300) -> Any:
    """FSC curves and Guinier plot of a post-process result beside each other."""
    hv = _hv()
    panels = [FSCPlot(result, width=width, height=height)]
    try:
        panels.append(GuinierPlot(result, width=width, height=height))
    except DataError:
        # results read from files that have no Guinier table
        pass
    return hv.Layout(panels).opts(shared_axes=False)


def mask(result: Any, size: int = 260) -> Any:
    """Central planes of a map with its mask: full line where it is one, dashed where it ends.

    Parameters
    ----------
    result : MaskResult
    size : int
        Pixels of a plane.

    Returns
    -------
    holoviews.Layout
    """
    hv = _hv()
    m = np.asarray(getattr(result.mask.data, "get", lambda: result.mask.data)(), float)
    low = result.lowpassed
    v = m if low is None else np.asarray(getattr(low.data, "get", lambda: low.data)(), float)
    a = float(result.mask.attrs.get("pixel_size", 1.0))
    lo, hi = np.quantile(v, (0.01, 0.998))
    panels = []
    for axis, (across, up) in {0: ("x", "y"), 1: ("x", "z"), 2: ("y", "z")}.items():
        middle = m.shape[axis] // 2
        plane, inside = np.take(v, middle, axis), np.take(m, middle, axis)
        xs, ys = ((np.arange(n) - n // 2) * a for n in plane.shape[::-1])
        dims = [f"{across} (Å)", f"{up} (Å)"]
        image = hv.Image((xs, ys, plane), dims, "density").opts(cmap="gray", clim=(lo, hi if hi > lo else lo + 1))
        picture = image
        for level, dash in ((0.995, "solid"), (0.005, "dashed")):
            if inside.min() < level < inside.max():
                lines = _contours(xs, ys, inside, level)
                picture = picture * hv.Path(lines, dims).opts(color="#56b4e9", line_width=1.4, line_dash=dash)
        panels.append(picture.opts(frame_width=size, frame_height=size, data_aspect=1, title=f"{across}{up}"))
    return hv.Layout(panels).opts(shared_axes=False)


def local_resolution(result: Any, width: int = 380, height: int = 280) -> Any:
    """Histogram of local resolutions inside the mask, and the central plane of the resolution map.

    Parameters
    ----------
    result : LocalResolutionResult
    width, height : int
        Pixels of a panel.

    Returns
    -------
    holoviews.Layout
    """
    from cryotk_widgets.volume_pictures import colour_limits, resolution_colours

    hv = _hv()
    palette = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in resolution_colours()]
    volume = result.resolution_map
    values = np.asarray(getattr(volume.data, "get", lambda: volume.data)(), float)
    a = float(volume.attrs.get("pixel_size", result.pixel_size))
    known = values > 0
    low, high = colour_limits(values[known])
    panels = []
    h = result.histogram
    if h is not None and h.sizes["bin"]:
        low, high = colour_limits(np.repeat(h["resolution"].values, h["count"].values.astype(int)))
        centres, counts = h["resolution"].values, h["count"].values
        edge = np.diff(centres).mean() / 2 if len(centres) > 1 else 0.5
        edges = np.append(centres - edge, centres[-1] + edge)
        bars = hv.Histogram((edges, counts), kdims="local resolution (Å)", vdims="voxels").opts(
            color=COLOURS[0], line_color=None, tools=["hover"]
        )
        median = hv.VLine(float(h.attrs["median"])).opts(color=_ink(), line_dash="dashed", line_width=1.5)
        panels.append((bars * median).opts(width=width, height=height, title=f"inside the mask: median {h.attrs['median']:.1f} Å"))
    plane = np.where(known, values, np.nan)[values.shape[0] // 2]
    xs, ys = ((np.arange(n) - n // 2) * a for n in plane.shape[::-1])
    image = hv.Image((xs, ys, plane), ["x (Å)", "y (Å)"], "local resolution (Å)").opts(
        cmap=palette, clim=(low, high), colorbar=True, frame_width=height - 60, frame_height=height - 60, title="central plane (Å)", tools=["hover"],
        clipping_colors={"NaN": "#888888"},
    )  # fmt: skip
    return hv.Layout([*panels, image]).opts(shared_axes=False)


def _contours(x: np.ndarray, y: np.ndarray, values: np.ndarray, level: float) -> Any:
    from contourpy import contour_generator

    return contour_generator(x, y, values).lines(level)
