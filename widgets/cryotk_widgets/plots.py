"""HoloViews figures of what refinements know: history, spectra, posteriors, CTFs. Each returns an object to restyle and overlay."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ctf", "data_vs_prior", "history", "noise_power", "posterior", "setup"]

FREQUENCY = "spatial frequency (1/Å)"
# Okabe and Ito's, told apart by everybody
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#999999"]


def setup(theme: str = "light") -> Any:
    """Load HoloViews with its bokeh backend from this machine alone (no request leaves it); call in a cell of its own.

    Parameters
    ----------
    theme : {"light", "dark"}
        Of all figures from now on; "dark" suits JupyterLab's dark theme.
    """
    import holoviews as hv

    hv.extension("bokeh", inline=True, logo=False)
    hv.renderer("bokeh").theme = {"light": None, "dark": "dark_minimal"}[theme]
    _inline_style_sheets()
    return hv


def _inline_style_sheets() -> None:
    """Carry panel's style sheets in the page: HoloViews' display path leaves them as links to a public host."""
    from functools import wraps

    import panel
    from bokeh.models import UIElement
    from holoviews.plotting import renderer
    from panel.io.notebook import patch_inline_stylesheets

    panel.config.inline = True

    def inlining(original: Any) -> Any:
        @wraps(original)
        def inlined(model: Any, *args: Any, **kwargs: Any) -> Any:
            for part in model.select({"type": UIElement}):
                patch_inline_stylesheets(part)
            return original(model, *args, **kwargs)

        inlined._cryotk_inline = True  # type: ignore[attr-defined]
        return inlined

    for name in ("render_model", "render_mimebundle"):
        original = getattr(renderer, name, None)
        if original is not None and not getattr(original, "_cryotk_inline", False):
            setattr(renderer, name, inlining(original))


def _hv() -> Any:
    import holoviews as hv

    if not hv.Store.current_backend or "bokeh" not in hv.Store.loaded_backends():
        setup()
    return hv


def _model(result: Any) -> Any:
    return (result.current if hasattr(result, "iterate") else result).model


def _hover(*lines: tuple[str, str]) -> Any:
    from bokeh.models import HoverTool

    return HoverTool(tooltips=list(lines))


def _angstrom(frequency: np.ndarray) -> list[str]:
    return [f"{1 / f:.1f} Å" if f > 0 else "" for f in frequency]


def _spectrum(frequency: np.ndarray, values: np.ndarray, label: str, colour: str) -> Any:
    """Curve over spatial frequency whose hover says the resolution in Å."""
    hv = _hv()
    data = {FREQUENCY: frequency, label: values, "resolution": _angstrom(frequency)}
    return hv.Curve(data, FREQUENCY, [label, "resolution"]).opts(
        color=colour, line_width=1.8, tools=[_hover(("resolution", "@resolution"), (label, "$y{0.000a}"))]
    )


def history(job: Any, width: int = 330, height: int = 220) -> Any:
    """Resolution, P_max, changed classes and occupancy over iterations.

    Parameters
    ----------
    job : job or Dataset
        A job, or its ``history``.
    width, height : int
        Of each panel, in pixels.

    Returns
    -------
    holoviews.Layout
    """
    hv = _hv()
    h = job.history if hasattr(job, "history") else job
    it = h["iteration"].values
    figures = []
    for name, title, unit, scale in (
        ("resolution", "Resolution", "Å", 1), ("average_p_max", "Mean P_max", "", 1), ("changes_class", "Changed class", "%", 100),
    ):  # fmt: skip
        if name in h:
            values = h[name].values * scale
            ok = np.isfinite(values) & (values < 900)
            label = f"{title} ({unit})" if unit else title
            curve = hv.Curve((it[ok], values[ok]), "iteration", label).opts(color=COLOURS[0], line_width=1.8)
            dots = hv.Scatter(curve).opts(size=5, color=COLOURS[0], tools=["hover"])
            figures.append((curve * dots).opts(width=width, height=height, title=title, ylabel=label))
    if "occupancy" in h:
        lines = {
            int(k): hv.Curve((it, 100 * h["occupancy"].sel(class_number=k).values), "iteration", "particles (%)").opts(
                color=COLOURS[i % len(COLOURS)], line_width=1.5, tools=["hover"]
            )
            for i, k in enumerate(h["class_number"].values)
        }
        figures.append(hv.NdOverlay(lines, "class").opts(width=width, height=height, title="Share of each class", show_legend=False))
    return hv.Layout(figures).cols(2).opts(shared_axes=False)


def _frequencies(model: Any) -> np.ndarray:
    return np.arange(model.noise_power.shape[-1]) / (model.box_size * model.pixel_size)


def noise_power(result: Any, width: int = 420, height: int = 260) -> Any:
    """Noise power of each optics group over spatial frequency (log scale).

    Parameters
    ----------
    result : job or Iteration
    width, height : int

    Returns
    -------
    holoviews.NdOverlay
    """
    hv = _hv()
    m = _model(result)
    f = _frequencies(m)
    lines = {
        g + 1: _spectrum(f[1:], np.maximum(s[1:], 1e-30), "noise power", COLOURS[g % len(COLOURS)]) for g, s in enumerate(m.noise_power)
    }
    return hv.NdOverlay(lines, "optics group").opts(
        hv.opts.Curve(logy=True), hv.opts.NdOverlay(width=width, height=height, title="Noise power", show_legend=len(lines) > 1)
    )


def data_vs_prior(result: Any, classes: Any = None, width: int = 560, height: int = 300) -> Any:
    """Signal-to-noise of classes over spatial frequency; a class's resolution is where it falls below 1.

    Parameters
    ----------
    result : job or Iteration
    classes : sequence of int, optional
        Class numbers, from 1; by default the eight with most particles.
    width, height : int

    Returns
    -------
    holoviews.Overlay
    """
    hv = _hv()
    m = _model(result)
    f = _frequencies(m)
    if classes is None:
        classes = sorted(int(k) + 1 for k in np.argsort(-m.class_distribution, kind="stable")[: len(COLOURS)])
    lines = {}
    for j, k in enumerate(classes):
        s = m.data_vs_prior[k - 1]
        keep = np.nonzero(s[1:] > 1e-2)[0] + 1
        if len(keep):
            lines[f"class {k}"] = _spectrum(f[keep], s[keep], "data vs prior", COLOURS[j % len(COLOURS)])
    if not lines:
        return hv.Text(0.5, 0.5, "No iteration yet: call job.iterate()").opts(width=width, height=height)
    one = hv.HLine(1.0).opts(color="#888888", line_dash="dashed", line_width=1)
    return (
        hv.NdOverlay(lines, "class").opts(
            hv.opts.Curve(logy=True, ylim=(1e-2, None)), hv.opts.NdOverlay(width=width, height=height, legend_position="right")
        )
        * one
    ).opts(title="Data vs prior", legend_position="right")


def posterior(p: Any, width: int = 260, height: int = 240, reach: float | None = None) -> Any:
    """Posterior of one particle: classes, in-plane angle, and offset.

    Parameters
    ----------
    p : Dataset
        What ``job.posterior(particle)`` returns.
    width, height : int
        Of each panel, in pixels.
    reach : float, optional
        Å; half width of the offset map. By default all offsets that have weight.

    Returns
    -------
    holoviews.Layout
    """
    hv = _hv()
    w = p["weight"].values.astype(float)
    classes = p["class_number"].values.astype(int)
    k = int(p.attrs.get("n_classes", classes.max() if len(classes) else 1))
    share = np.bincount(classes, w, minlength=k + 1)[1:]
    size = {"width": width, "height": height}
    bars = hv.Bars([(i + 1, s) for i, s in enumerate(share)], "class", "probability").opts(
        **size, color=COLOURS[0], line_color=None, title="Class", ylim=(0, 1), tools=["hover"]
    )
    psi = (p["angle_psi"].values + 180.0) % 360.0 - 180.0
    angles, where = np.unique(psi.round(2), return_inverse=True)
    heights = np.bincount(where.ravel(), w)
    angle = hv.Spikes((angles, heights), "in-plane angle (°)", "probability").opts(
        **size, line_width=2, color=COLOURS[1], title="In-plane angle", xlim=(-180, 180), xticks=[-180, -90, 0, 90, 180], ylim=(0, 1.1 * float(heights.max(initial=1e-9))),
        tools=["hover"],
    )  # fmt: skip
    shifts = np.stack([p["shift_x"].values, p["shift_y"].values], -1).round(3)
    xy, where = np.unique(shifts, axis=0, return_inverse=True)
    total = np.bincount(where.ravel(), w)
    reach = reach if reach is not None else max(8.0, 1.15 * float(np.abs(xy).max(initial=0.0)))
    shift = hv.Points((xy[:, 0], xy[:, 1], total), ["x (Å)", "y (Å)"], "probability").opts(
        width=width + 50, height=height, color="probability", cmap="viridis", size=8, colorbar=True, title="Offset", tools=["hover"],
        xlim=(-reach, reach), ylim=(-reach, reach), xticks=5, yticks=5, clim=(0.0, float(total.max(initial=1e-9))), colorbar_opts={"title": ""},
    )  # fmt: skip
    return hv.Layout([bars, angle, shift]).cols(3).opts(shared_axes=False)


def ctf(particles: Any, row: int = 0, size: int = 260) -> Any:
    """CTF of one particle as an image, and along its two defocus axes.

    Parameters
    ----------
    particles : Dataset or path
    row : int
        Of the particle set, from 0.
    size : int
        Height in pixels.

    Returns
    -------
    holoviews.Layout
    """
    from scipy.ndimage import map_coordinates

    import cryotk

    hv = _hv()
    n = 512
    c = cryotk.ctf_image(particles, row, box_size=n)
    k = c["kx"].values
    image = hv.Image((k, c["ky"].values, c.values), ["kx (1/Å)", "ky (1/Å)"], "CTF").opts(
        cmap="gray", frame_width=size - 60, frame_height=size - 60, clim=(-1, 1), title=f"CTF of particle {row}", colorbar=True
    )
    azimuth = np.deg2rad(float(particles["defocus_angle"].values[row])) if "defocus_angle" in particles else 0.0
    radius = np.arange(n // 2)
    lines = {}
    for j, (name, angle) in enumerate((("defocus U", azimuth), ("defocus V", azimuth + np.pi / 2))):
        place = np.stack([n // 2 + radius * np.sin(angle), n // 2 + radius * np.cos(angle)])
        lines[name] = _spectrum(k[n // 2 :], map_coordinates(c.values, place, order=1, mode="nearest"), "CTF", COLOURS[j])
    curves = hv.NdOverlay(lines, "axis").opts(width=2 * size, height=size, title="Along the defocus axes", legend_position="right")
    return (image + curves).opts(shared_axes=False)


_OF_MAPS = {"fsc": "FSCPlot", "guinier": "GuinierPlot", "mask": "mask", "postprocess": "postprocess", "local_resolution": "local_resolution"}


def __getattr__(name: str) -> Any:
    """Figures of maps live in ``map_plots``."""
    if name in _OF_MAPS:
        from cryotk_widgets import map_plots

        return getattr(map_plots, _OF_MAPS[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
