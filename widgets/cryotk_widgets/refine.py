"""A 3D refinement seen: map, FSC of every iteration, directions, accuracy and sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from cryotk_widgets.directions import direction_map, viridis
from cryotk_widgets.pictures import png_of
from cryotk_widgets.run_view import RunView, known, map_of
from cryotk_widgets.view_base import page_text
from cryotk_widgets.volume_pictures import fitting_zoom, page_map, suggested_threshold, surface_image

if TYPE_CHECKING:
    from cryotk.data import Iteration

__all__ = ["RefineView", "headline", "iteration_words", "view_job"]

_WIDTH = 240


class RefineView(RunView):
    """Follow a refinement, or step through one that is finished.

    Parameters
    ----------
    source : job, Iteration, sequence of Iteration, or path
        A job is followed while it runs. A path is RELION's ``_optimiser.star`` or ``_model.star``, or a job folder with several
        of them to step through.
    class_number : int
        Which map, from 1, where there are several.
    **traits
        Start values of the attributes below.

    Attributes
    ----------
    position : int
        Which iteration is shown, from 0.
    threshold : float
        Follows the maps until it is set, here or in the page.
    camera, cursor, theme
        As in :class:`VolumeView`.

    Notes
    -----
    To the page goes one map of at most 128 points a side (2 MB), and the curves. Where there are no half-sets (initial models) the
    curves are the signal-to-noise ratios of the map, and the resolution is where they fall below one.

    .. image:: ../figures/refine_light.png

    Examples
    --------
    >>> job = ctk.Refine3D(particles, "initial_model.mrc")  # doctest: +SKIP
    >>> RefineView(job)  # doctest: +SKIP
    """

    _esm = page_text(
        "gallery_core.js", "volume_core.js", "view_core.js", "volume_gl.js", "surface.js", "slices.js", "charts.js", "run_bar.js", "refine.js",
    )  # fmt: skip
    _css = page_text("tokens.css", "views.css", "charts.css")
    _settable = ("position", "threshold", "camera", "cursor")

    data = traitlets.Bytes(b"").tag(sync=True)
    shape: Any = traitlets.List([1, 1, 1]).tag(sync=True)
    voxel = traitlets.Float(1.0).tag(sync=True)
    value_range: Any = traitlets.List([0.0, 1.0]).tag(sync=True)
    limits: Any = traitlets.List([0.0, 1.0]).tag(sync=True)
    extent = traitlets.Float(1.0).tag(sync=True)
    radius = traitlets.Float(1.0).tag(sync=True)
    start: Any = traitlets.Dict().tag(sync=True)
    suggested = traitlets.Float(0.0).tag(sync=True)
    frequency: Any = traitlets.List().tag(sync=True)
    curve_kind = traitlets.Unicode("FSC").tag(sync=True)
    directions = traitlets.Bytes(b"").tag(sync=True)
    directions_width = traitlets.Int(_WIDTH).tag(sync=True)
    directions_text = traitlets.Unicode("").tag(sync=True)
    direction_colours = traitlets.Bytes(b"").tag(sync=True)

    threshold = traitlets.Float(0.0).tag(sync=True)
    camera: Any = traitlets.Dict({"rotation": [0.0, 0.0, 0.0, 1.0], "zoom": 1.0, "pan": [0.0, 0.0]}).tag(sync=True)
    cursor: Any = traitlets.List([0.0, 0.0, 0.0]).tag(sync=True)

    def __init__(self, source: Any, class_number: int = 1, **traits: Any) -> None:
        self._class = class_number - 1
        super().__init__(source, direction_colours=viridis().tobytes(), **traits)

    def __repr__(self) -> str:
        if self.shown is None:
            return f"<RefineView: {self.empty_text}>"
        return f"<RefineView: iteration {self.iteration}, {self.summary}>"

    def _curve(self, it: Iteration) -> tuple[str, np.ndarray]:
        fsc = np.asarray(it.model.gold_standard_fsc, float)
        if fsc.size and fsc.any():
            return "FSC", fsc[min(self._class, len(fsc) - 1)]
        snr = np.asarray(it.model.data_vs_prior, float)
        return "data vs prior", snr[self._class] if len(snr) > self._class else np.zeros(0)

    def _row(self, it: Iteration) -> dict[str, Any]:
        kind, curve = self._curve(it)
        resolution = known(it.model.current_resolution)
        if kind == "FSC":
            from cryotk_widgets.map_plots import crossing

            resolution = known(crossing(curve, np.arange(len(curve)) / (it.model.box_size * it.model.pixel_size)))
        curve = curve if kind == "FSC" else np.clip(np.nan_to_num(curve, posinf=1e6), 0, 1e6)
        words = iteration_words(it)
        if resolution:
            words["resolution"] = f"{resolution:.1f}"
        return {
            "iteration": int(it.number), "name": f"iteration {it.number}", "kind": kind,
            "curve": [round(float(v), 4) for v in curve] if curve.any() else [],
            "resolution": resolution, "words": words,
        }  # fmt: skip

    def _draw(self, it: Iteration) -> None:
        volume = map_of(it, self._class)
        a = float(it.model.pixel_size)
        p = page_map(volume, a)
        suggestion = suggested_threshold(volume)
        untouched = self.threshold in (0.0, self.suggested)
        self.shape, self.voxel, self.value_range, self.limits = p.shape, p.voxel, p.span, p.limits
        self.suggested = float(suggestion)
        if untouched:
            self.threshold = float(suggestion)
        first = not self.data
        self.extent = volume.shape[-1] * a
        if first:
            zoom, r = fitting_zoom(volume, suggestion)
            self.radius = r * self.extent / 2
            self.start = {"rotation": [0.0, 0.0, 0.0, 1.0], "zoom": zoom, "pan": [0.0, 0.0]}
            if self.camera["zoom"] == 1.0:
                self.camera = dict(self.start)
        self.data = p.data
        self.curve_kind, curve = self._curve(it)
        self.frequency = [float(f) for f in np.arange(len(curve)) / (it.model.box_size * a)]
        self._draw_directions(it)
        self.summary = headline(it, self._row(it)["resolution"])

    def _draw_directions(self, it: Iteration) -> None:
        table, symmetry = it.assignments, it.sampling.symmetry
        if not table.sizes.get("particle") or "angle_rot" not in table or not np.asarray(table["angle_rot"].values).any():
            self.directions, self.directions_text = b"", "directions: not assigned yet"
            return
        mine = slice(None)
        if it.model.n_classes > 1 and "class_number" in table:
            mine = np.asarray(table["class_number"].values) == self._class + 1
        image, most = direction_map(table["angle_rot"].values[mine], table["angle_tilt"].values[mine], symmetry, width=_WIDTH)
        self.directions = image.tobytes()
        mates = "" if symmetry.upper() == "C1" else f", with the mates of {symmetry}"
        self.directions_text = f"directions{mates} · brightest {most:.1f} times the mean"

    def to_png(self, edge: int = 300) -> bytes:
        """Return the map and the curves as a PNG, drawn without a browser."""
        from PIL import Image, ImageDraw

        it = self.shown
        if it is None:
            return b""
        volume = map_of(it, self._class)
        dark = self.theme == "dark"
        paper, ink = ((22, 22, 26), (236, 236, 240)) if dark else ((255, 255, 255), (27, 27, 31))
        picture = surface_image(volume, self.threshold, self.camera["rotation"], self.camera["zoom"], edge, background=paper)
        sheet = Image.new("RGB", (2 * edge + 60, edge), paper)
        sheet.paste(Image.fromarray(picture), (0, 0))
        draw = ImageDraw.Draw(sheet)
        left, top, w, h = edge + 30, 20, edge, edge - 60
        draw.rectangle((left, top, left + w, top + h), outline=(150, 150, 150))
        if self.curve_kind == "FSC":
            for row in (r for r in self.history if r["kind"] == "FSC"):
                n = len(row["curve"])
                points = [(left + w * i / max(1, n - 1), top + h * (1 - min(max(v, 0), 1))) for i, v in enumerate(row["curve"])]
                if len(points) > 1:
                    now = row["iteration"] == self.iteration
                    draw.line(points, fill=ink if now else (120, 160, 200), width=3 if now else 1)
            draw.line((left, top + h * (1 - 0.143), left + w, top + h * (1 - 0.143)), fill=(150, 150, 150))
        from cryotk_widgets.pictures import font_of_size

        draw.text((left, top + h + 8), f"iteration {self.iteration}", fill=ink, font=font_of_size(12))
        draw.text((left, top + h + 24), self.summary, fill=ink, font=font_of_size(12))
        return png_of(sheet)


def _step(it: Iteration) -> float | None:
    """Angular step in degrees after oversampling by two."""
    return known(it.sampling.psi_step / 2) if it.sampling.psi_step > 0 else None


def iteration_words(it: Iteration) -> dict[str, str]:
    """Numbers of an iteration as the table has them; what is not known is left out."""
    n, m = it.numbers, it.model
    local = m.orientational_prior_mode > 0 and m.sigma_rot > 0
    step = _step(it)
    accuracy = known(n.get("accuracy_rotation", m.accuracy_rotation[0] if len(m.accuracy_rotation) else np.nan))
    offset = known(n.get("accuracy_translation", m.accuracy_translation[0] if len(m.accuracy_translation) else np.nan))
    changes = known(n.get("changes_orientation"))
    resolution, p_max = known(m.current_resolution), known(n.get("average_p_max", m.average_p_max))
    values = {
        "iteration": str(it.number) if it.number >= 0 else "last",
        "resolution": f"{resolution:.1f}" if resolution else None,
        "step": None if step is None else f"{step:.3g}°{' local' if local else ''}",
        "size": f"{m.current_size} px" if m.current_size else None,
        "accuracy": f"{accuracy:.2f}°" if accuracy else None,
        "offset": f"{offset:.2f} Å" if offset else None,
        "p_max": f"{p_max:.2f}" if p_max else None,
        "changes": f"{changes:.1f}°" if changes is not None else None,
    }  # fmt: skip
    return {k: v for k, v in values.items() if v is not None}


def headline(it: Iteration, resolution: float | None) -> str:
    """What the line above a refinement says: step, offset step, mean P_max, resolution."""
    words = iteration_words(it)
    parts = []
    if it.number == 0:
        parts.append("start")
    if "step" in words:
        parts.append(words["step"])
    if it.sampling.offset_step > 0:
        parts.append(f"{it.sampling.offset_step / 2 / it.model.pixel_size:.1f} px")
    if "p_max" in words:
        parts.append(f"P_max {words['p_max']}")
    if resolution:
        parts.append(f"{resolution:.1f} Å")
    return " · ".join(parts)


def view_job(job: Any) -> Any:
    """View that fits a job: classes of images, one map, or several; what ``job.view()`` calls."""
    if not hasattr(getattr(job, "settings", None), "symmetry"):
        from cryotk_widgets.gallery import ClassGallery

        return ClassGallery(job)
    if int(getattr(job.settings, "n_classes", 1) or 1) > 1:
        from cryotk_widgets.class3d import ClassView3D

        return ClassView3D(job)
    return RefineView(job)
