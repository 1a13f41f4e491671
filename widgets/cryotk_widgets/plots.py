"""HoloViews figures of what refinements know: history, spectra, posteriors, CTFs. Each returns an object to restyle and overlay."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ctf", "data_vs_prior", "history", "noise_power", "posterior", "setup"]

COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#999999"]


def setup() -> Any:
    """Load HoloViews with its bokeh backend from this machine alone (no request leaves it); call in a cell of its own."""
    import holoviews as hv

    hv.extension("bokeh", inline=True, logo=False)
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


def history(job: Any, width: int = 320, height: int = 220) -> Any:
    """Resolution, P_max, changed classes and occupancy over iterations.

    Parameters
    ----------
    job : job or Dataset
        A job, or its ``history``.
    """
    hv = _hv()
    h = job.history if hasattr(job, "history") else job
    it = h["iteration"].values
    figures = []
    for name, label, scale in (
        ("resolution", "resolution (Å)", 1), ("average_p_max", "mean P_max", 1), ("changes_class", "changed class (%)", 100),
    ):
        if name in h:
            values = h[name].values * scale
            ok = np.isfinite(values)
            curve = hv.Curve((it[ok], values[ok]), "iteration", label)
            figures.append((curve * hv.Scatter(curve).opts(size=4)).opts(width=width, height=height, title=label))
    if "occupancy" in h:
        lines = {
            int(k): hv.Curve((it, 100 * h["occupancy"].sel(class_number=k).values), "iteration", "particles (%)").opts(
                color=COLOURS[i % len(COLOURS)]
            )
            for i, k in enumerate(h["class_number"].values)
        }
        figures.append(hv.NdOverlay(lines, "class").opts(width=width, height=height, title="occupancy (%)", show_legend=False))
    return hv.Layout(figures).cols(2).opts(shared_axes=False)


def _frequencies(model: Any) -> np.ndarray:
    return np.arange(model.noise_power.shape[-1]) / (model.box_size * model.pixel_size)


def noise_power(result: Any, width: int = 420, height: int = 260) -> Any:
    """Noise power of each optics group over spatial frequency (log scale)."""
    hv = _hv()
    m = _model(result)
    f = _frequencies(m)
    lines = {
        g + 1: hv.Curve((f[1:], np.maximum(s[1:], 1e-30)), "spatial frequency (1/Å)", "noise power").opts(color=COLOURS[g % len(COLOURS)])
        for g, s in enumerate(m.noise_power)
    }
    return hv.NdOverlay(lines, "optics group").opts(
        hv.opts.Curve(logy=True, width=width, height=height, tools=["hover"], title="noise power"),
    )


def data_vs_prior(result: Any, width: int = 420, height: int = 260) -> Any:
    """Signal-to-noise of every class over spatial frequency; a class's resolution is where it falls below 1."""
    hv = _hv()
    m = _model(result)
    f = _frequencies(m)
    lines = {}
    for k, s in enumerate(m.data_vs_prior):
        keep = s > 1e-3
        keep[0] = False
        if keep.any():
            lines[k + 1] = hv.Curve((f[keep], s[keep]), "spatial frequency (1/Å)", "data vs prior").opts(color=COLOURS[k % len(COLOURS)])
    if not lines:
        return hv.Text(0.5, 0.5, "No iteration yet").opts(width=width, height=height)
    one = hv.HLine(1.0).opts(color="#888888", line_dash="dashed", line_width=1)
    return (hv.NdOverlay(lines, "class").opts(hv.opts.Curve(logy=True, width=width, height=height, tools=["hover"])) * one).opts(
        title="data vs prior"
    )


def posterior(p: Any, width: int = 300, height: int = 240) -> Any:
    """Posterior of one particle: classes, in-plane angle, and offset.

    Parameters
    ----------
    p : Dataset
        What ``job.posterior(particle)`` returns.
    """
    hv = _hv()
    w = p["weight"].values.astype(float)
    classes = p["class_number"].values.astype(int)
    k = int(p.attrs.get("n_classes", classes.max() if len(classes) else 1))
    share = np.bincount(classes, w, minlength=k + 1)[1:]
    bars = hv.Bars([(i + 1, s) for i, s in enumerate(share)], "class", "probability").opts(
        width=width, height=height, color=COLOURS[0], title="class"
    )
    angle = hv.Spikes((p["angle_psi"].values, w), "in-plane angle (°)", "probability").opts(
        width=width, height=height, line_width=2, color=COLOURS[1], title="in-plane angle", xlim=(-180, 180)
    )
    xy, inverse = np.unique(np.stack([p["shift_x"].values, p["shift_y"].values], -1).round(3), axis=0, return_inverse=True)
    total = np.bincount(inverse.ravel(), w)
    shift = hv.Points((xy[:, 0], xy[:, 1], total), ["offset x (Å)", "offset y (Å)"], "probability").opts(
        width=width, height=height, color="probability", cmap="viridis", size=7, colorbar=True, title="offset", aspect="equal"
    )
    return hv.Layout([bars, angle, shift]).cols(3).opts(shared_axes=False)


def ctf(particles: Any, row: int = 0, size: int = 280) -> Any:
    """CTF of one particle as an image, and along the two defocus axes."""
    import cryotk

    hv = _hv()
    c = cryotk.ctf_image(particles, row)
    k = c["kx"].values
    image = hv.Image((k, c["ky"].values, c.values), ["kx (1/Å)", "ky (1/Å)"], "CTF").opts(
        cmap="gray", width=size + 40, height=size, clim=(-1, 1), title="CTF", colorbar=True
    )
    n = len(k)
    curve = hv.Curve((k[n // 2 :], c.values[n // 2, n // 2 :]), "kx (1/Å)", "CTF").opts(width=size + 80, height=size, color=COLOURS[0])
    return (image + curve).opts(shared_axes=False)
