"""3D classes seen side by side, and selected."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from cryotk.errors import SettingsError
from cryotk_widgets.gallery import ClassGallery, _accuracy, _counts, _per_class
from cryotk_widgets.pictures import png_of
from cryotk_widgets.refine import headline
from cryotk_widgets.run_view import RunView, known, map_of
from cryotk_widgets.view_base import page_text
from cryotk_widgets.volume_pictures import COOL, WARM, cropped, fitting_zoom, suggested_threshold, surface_image, to_byte_map

if TYPE_CHECKING:
    from cryotk.data import Iteration

__all__ = ["ClassView3D"]

_BUDGET = 2_000_000


class ClassView3D(RunView):
    """Maps of all classes, turned together, with their slices, shares over iterations, and a selection.

    A click on a class's title selects (again: no longer), shift-click extends; ``a`` all, ``n`` none, ``i`` invert, arrows move,
    space toggles. One threshold serves all classes, so that a weak map looks weak.

    Parameters
    ----------
    source : job, Iteration, sequence of Iteration, or path
        A job is followed while it runs. A path is RELION's ``_optimiser.star`` or ``_model.star``, or a job folder.
    selected : sequence of int, optional
        Class numbers, from 1.
    **traits
        Start values of the attributes below.

    Attributes
    ----------
    selected : list of int
        Class numbers, from 1. Set it here or in the page.
    position : int
        Which iteration is shown, from 0.
    threshold, camera, cursor, theme
        As in :class:`VolumeView`.

    Notes
    -----
    To the page go at most 2 MB: two maps of 100 points a side, or eight of 62.

    .. image:: ../figures/class3d_light.png

    Examples
    --------
    >>> view = ClassView3D("Class3D/job016")  # doctest: +SKIP
    >>> good = view.selected_particles()  # doctest: +SKIP
    """

    _esm = page_text(
        "gallery_core.js", "volume_core.js", "view_core.js", "volume_gl.js", "surface.js", "slices.js", "charts.js", "run_bar.js", "class3d.js",
    )  # fmt: skip
    _css = page_text("tokens.css", "views.css", "charts.css", "class3d.css")
    _settable = ("position", "threshold", "camera", "cursor")

    data = traitlets.Bytes(b"").tag(sync=True)
    n_classes = traitlets.Int(0).tag(sync=True)
    shape: Any = traitlets.List([1, 1, 1]).tag(sync=True)
    voxel = traitlets.Float(1.0).tag(sync=True)
    value_range: Any = traitlets.List([0.0, 1.0]).tag(sync=True)
    limits: Any = traitlets.List([0.0, 1.0]).tag(sync=True)
    extent = traitlets.Float(1.0).tag(sync=True)
    radius = traitlets.Float(1.0).tag(sync=True)
    start: Any = traitlets.Dict().tag(sync=True)
    suggested = traitlets.Float(0.0).tag(sync=True)
    occupancy: Any = traitlets.List().tag(sync=True)
    resolution: Any = traitlets.List().tag(sync=True)
    counts: Any = traitlets.List().tag(sync=True)
    details: Any = traitlets.List().tag(sync=True)
    can_save = traitlets.Bool(False).tag(sync=True)

    selected = traitlets.List(traitlets.Int()).tag(sync=True)
    threshold = traitlets.Float(0.0).tag(sync=True)
    camera: Any = traitlets.Dict({"rotation": [0.0, 0.0, 0.0, 1.0], "zoom": 1.0, "pan": [0.0, 0.0]}).tag(sync=True)
    cursor: Any = traitlets.List([0.0, 0.0, 0.0]).tag(sync=True)

    def __init__(self, source: Any, selected: Any = (), **traits: Any) -> None:
        super().__init__(source, **traits)
        self.selected = [int(k) for k in selected]

    @traitlets.validate("selected")
    def _valid_selected(self, proposal: Any) -> list[int]:
        wanted = sorted({int(k) for k in proposal["value"]})
        if self.n_classes and wanted and not (1 <= wanted[0] and wanted[-1] <= self.n_classes):
            raise SettingsError(f"selected = {wanted}: classes are numbered from 1 to {self.n_classes}")
        return wanted

    def __repr__(self) -> str:
        if self.shown is None:
            return f"<ClassView3D: {self.empty_text}>"
        return f"<ClassView3D: iteration {self.iteration}, {self.n_classes} classes, selected {self.selected}>"

    def _row(self, it: Iteration) -> dict[str, Any]:
        return {"iteration": int(it.number), "occupancy": [round(float(s), 4) for s in np.nan_to_num(it.model.class_distribution)]}

    def _draw(self, it: Iteration) -> None:
        k, a = it.model.n_classes, float(it.model.pixel_size)
        most = int(min(128, (_BUDGET / k) ** (1 / 3)))
        maps = np.stack([cropped(map_of(it, i), most) for i in range(k)])
        occupied = np.nonzero(np.nan_to_num(it.model.class_distribution) > 0)[0]
        judged = maps[occupied] if len(occupied) else maps
        span = float(np.quantile(judged[:, ::2, ::2, ::2], 1e-4)), float(judged.max())
        pixels, span = to_byte_map(maps, span if span[1] > span[0] else (span[0], span[0] + 1.0))
        suggestion = float(np.median([suggested_threshold(m) for m in judged]))
        untouched = self.threshold in (0.0, self.suggested)
        n = maps.shape[1:]
        inner = judged[(slice(None), *(slice(s // 4, s - s // 4) for s in n))]
        low, high = (float(v) for v in np.quantile(inner, (0.01, 0.998)))
        low = min(low, float(np.median(judged[:, 0])))
        self.n_classes, self.shape, self.voxel, self.value_range = k, list(n), a * it.model.box_size / n[0], list(span)
        self.limits = [low, high if high > low else low + 1.0]
        self.suggested = suggestion
        if untouched:
            self.threshold = suggestion
        self.extent = it.model.box_size * a
        if not self.data:
            found = [fitting_zoom(m, suggestion) for m in judged]
            self.radius = max(r for _, r in found) * self.extent / 2
            self.start = {"rotation": [0.0, 0.0, 0.0, 1.0], "zoom": min(z for z, _ in found), "pan": [0.0, 0.0]}
            if self.camera["zoom"] == 1.0:
                self.camera = dict(self.start)
        self.data = pixels.tobytes()
        self.occupancy = [float(s) for s in np.nan_to_num(it.model.class_distribution)]
        self.resolution = _per_class(it.model.class_resolution, k)
        self.counts, self.details = _counts(it), _accuracy(it)
        self.can_save = it.assignments.sizes.get("particle", 0) > 0
        self.summary = headline(it, known(it.model.current_resolution))

    selected_particles = ClassGallery.selected_particles
    save_selection = ClassGallery.save_selection
    _save_from_page = ClassGallery._save_from_page

    def _command(self, command: str, content: dict[str, Any]) -> None:
        if command == "select":
            try:
                self.selected = content["classes"]
            finally:
                self.send({"selected": content["serial"]})
        elif command == "save":
            threading.Thread(target=self._save_from_page, args=(content["path"], content["classes"]), daemon=True).start()
        else:
            super()._command(command, content)

    def to_png(self, edge: int = 200) -> bytes:
        """Return the maps with their shares as one PNG, drawn without a browser."""
        from PIL import Image, ImageDraw

        from cryotk_widgets.pictures import font_of_size

        it = self.shown
        if it is None:
            return b""
        dark = self.theme == "dark"
        paper, ink = ((22, 22, 26), (236, 236, 240)) if dark else ((255, 255, 255), (27, 27, 31))
        columns = min(4, self.n_classes)
        sheet = Image.new("RGB", (columns * (edge + 8) - 8, -(-self.n_classes // columns) * (edge + 24)), paper)
        draw = ImageDraw.Draw(sheet)
        for i in range(self.n_classes):
            x, y = i % columns * (edge + 8), i // columns * (edge + 24)
            colour = (WARM, COOL)[i] if i < 2 else (0x66, 0xC2, 0xA5)
            picture = surface_image(
                map_of(it, i), self.threshold, self.camera["rotation"], self.camera["zoom"], edge, colour=colour, background=paper
            )
            sheet.paste(Image.fromarray(picture), (x, y))
            resolution = f" · {self.resolution[i]:.1f} Å" if self.resolution[i] > 0 else ""
            draw.text(
                (x + 4, y + edge + 4), f"class {i + 1} · {100 * self.occupancy[i]:.1f} %{resolution}", fill=ink, font=font_of_size(12)
            )
        return png_of(sheet)
