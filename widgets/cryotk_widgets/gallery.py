"""Class averages seen, compared over iterations, and selected."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets

from cryotk_widgets.pictures import contact_sheet, contrast_limits, to_bytes

if TYPE_CHECKING:
    import xarray as xr

    from cryotk.data import Iteration

__all__ = ["ClassGallery"]

_STATIC = Path(__file__).parent / "static"
_MAX_TILE = 160


class ClassGallery(anywidget.AnyWidget):
    """Class averages as tiles to look at and select.

    Click toggles a class, shift-click extends; ``a`` all, ``n`` none, ``i`` invert, arrows move, space toggles, ``/`` selects by
    number, share (``>2%``) or resolution (``<12A``).

    Parameters
    ----------
    source : Iteration, job, or path
        A job is followed while it runs and its iterations can be stepped through. A path is RELION's ``_optimiser.star`` or
        ``_model.star``.
    selected : sequence of int, optional
        Class numbers, from 1.
    theme : {"auto", "light", "dark"}

    Attributes
    ----------
    selected : list of int
        Class numbers; set it from Python, or in the page.

    Examples
    --------
    >>> gallery = ClassGallery(job)  # doctest: +SKIP
    >>> gallery.selected  # doctest: +SKIP
    [1, 4]
    >>> good = gallery.selected_particles()  # doctest: +SKIP
    """

    _esm = _STATIC / "gallery.js"
    _css = (_STATIC / "tokens.css").read_text() + (_STATIC / "gallery.css").read_text()

    sprite = traitlets.Bytes(b"").tag(sync=True)
    tile_pixels = traitlets.Int(1).tag(sync=True)
    n_classes = traitlets.Int(0).tag(sync=True)
    occupancy = traitlets.List().tag(sync=True)
    resolution = traitlets.List().tag(sync=True)
    counts = traitlets.List().tag(sync=True)
    details = traitlets.List().tag(sync=True)
    selected = traitlets.List(traitlets.Int()).tag(sync=True)
    iteration = traitlets.Int(0).tag(sync=True)
    position = traitlets.Int(0).tag(sync=True)
    n_iterations = traitlets.Int(0).tag(sync=True)
    progress = traitlets.Dict().tag(sync=True)
    summary = traitlets.Unicode("").tag(sync=True)
    empty_text = traitlets.Unicode("").tag(sync=True)
    tile_size = traitlets.Int(112).tag(sync=True)
    contrast = traitlets.Float(1.0).tag(sync=True)
    theme = traitlets.Enum(["auto", "light", "dark"], "auto").tag(sync=True)

    def __init__(self, source: Any, selected: Any = (), theme: str = "auto", **kwargs: Any) -> None:
        self._job: Any = None
        self._iterations: list[Any] = []
        self._follow = True
        self._last = 0.0
        if isinstance(source, (str, Path)):
            from cryotk.io.relion_refinement import open_iteration

            source = open_iteration(source)
        super().__init__(theme=theme, **kwargs)
        if hasattr(source, "iterate"):
            self._job = source
            self._iterations = source.iterations
            self.empty_text = "No iteration yet: call job.iterate() or press Run."
            source.on_progress(self._on_progress)
        else:
            self._iterations = list(source) if isinstance(source, (list, tuple)) else [source]
            self.empty_text = "Nothing to show."
        self.observe(self._on_position, "position")
        self.on_msg(self._on_message)
        self._show(len(self._iterations) - 1)
        self._set_progress(bool(self._job is not None and self._job.running))
        self.selected = [int(k) for k in selected]

    # -- what is shown -------------------------------------------------------------------------------------------

    @property
    def shown(self) -> Iteration | None:
        """The iteration on screen."""
        return self._iterations[self.position] if self._iterations else None

    def _show(self, position: int) -> None:
        if not self._iterations:
            return
        position = int(np.clip(position, 0, len(self._iterations) - 1))
        it = self._iterations[position]
        sprite, n = sprite_of(it.model.references, it.model.class_distribution, it.model.pixel_size)
        share = np.asarray(it.model.class_distribution, float)
        resolution = np.asarray(it.model.class_resolution, float)
        numbers = np.asarray(it.assignments["class_number"].values, int) if "class_number" in it.assignments else np.zeros(0, int)
        counts = np.bincount(numbers[numbers > 0], minlength=len(share) + 1)[1 : len(share) + 1]
        if not counts.any() and it.assignments.sizes.get("particle", 0):
            counts = np.rint(share * it.assignments.sizes["particle"]).astype(int)
        accuracy = []
        rot, trans = np.asarray(it.model.accuracy_rotation, float), np.asarray(it.model.accuracy_translation, float)
        for k in range(len(share)):
            known = k < len(rot) and 0 < rot[k] < 900
            accuracy.append(f"accuracy {rot[k]:.1f}° / {trans[k]:.1f} Å" if known else "")
        with self.hold_sync():
            self.tile_pixels, self.n_classes, self.sprite = n, len(share), sprite
            self.occupancy = [float(s) for s in share]
            self.resolution = [float(r) if np.isfinite(r) else 0.0 for r in resolution]
            self.counts = [int(c) for c in counts]
            self.details = accuracy
            self.iteration = int(it.number)
            self.n_iterations = len(self._iterations)
            self.position = position
            best = it.numbers.get("resolution", float("nan"))
            p_max = it.numbers.get("average_p_max", it.model.average_p_max)
            self.summary = f"iteration {it.number} · {best:.1f} Å · P_max {p_max:.2f}"

    def _on_position(self, change: Any) -> None:
        self._follow = change["new"] >= len(self._iterations) - 1
        if self.shown is not None and self.shown.number != self.iteration:
            self._show(change["new"])

    # -- following a job -----------------------------------------------------------------------------------------

    def _set_progress(self, running: bool, **values: Any) -> None:
        self.progress = {"running": running, "can_run": self._job is not None, **values}

    def _on_progress(self, p: Any) -> None:
        now = time.monotonic()
        if p.phase == "expectation" and now - self._last < 0.12 and p.fraction < 1:
            return
        self._last = now
        if p.phase in ("finished", "stopped", "failed") or self.n_iterations < len(self._iterations):
            self._show(len(self._iterations) - 1 if self._follow else self.position)
            self.n_iterations = len(self._iterations)
        running = p.phase in ("expectation", "maximization") or (
            p.phase == "finished" and self._job.running and self._job.iteration < self._job.n_iterations
        )
        message = {"stopped": f"stopped after iteration {p.iteration}", "failed": f"failed: {p.message}"}.get(p.phase, "")
        self._set_progress(running, iteration=p.iteration, fraction=p.fraction, seconds_left=p.seconds_left, message=message)

    def _on_message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        command = content.get("cmd") if isinstance(content, dict) else None
        if command == "stop" and self._job is not None:
            self._job.stop()
        elif command == "run" and self._job is not None and not self._job.running:
            self._job.start()

    # -- selection -----------------------------------------------------------------------------------------------

    def selected_particles(self) -> xr.Dataset:
        """Particles of the selected classes in the iteration on screen, with their assignments."""
        it = self.shown
        if it is None:
            raise ValueError("there is no iteration yet: run the job first")
        if self._job is not None:
            return self._job.select(list(self.selected), iteration=it.number)
        from cryotk.data import select_particles

        keep = np.nonzero(np.isin(it.assignments["class_number"].values, list(self.selected)))[0]
        if it.particles is not None:
            out = select_particles(it.particles, keep)
            return out.assign(it.assignments.isel(particle=keep).data_vars)
        return it.assignments.isel(particle=keep)

    # -- a picture where widgets do not run ----------------------------------------------------------------------

    def to_png(self, tile: int = 96) -> bytes:
        """Return the tiles on screen, by share, as one PNG."""
        it = self.shown
        if it is None:
            return b""
        sheet = contact_sheet(it.model.references, it.model.class_distribution, it.model.class_resolution, tile, it.model.pixel_size,
                              set(self.selected))
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG")
        return buffer.getvalue()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, meta = bundle if isinstance(bundle, tuple) else (bundle, {})
        png = self.to_png()
        if data is not None and png:
            import base64

            data = dict(data)
            data["image/png"] = base64.b64encode(png).decode()
        return data, meta


def sprite_of(references: np.ndarray, share: np.ndarray, pixel_size: float) -> tuple[bytes, int]:
    """8-bit tiles one after the other, and their edge in pixels; volumes show their projection."""
    images = np.asarray(references, np.float32)
    if images.ndim == 4:
        images = images.sum(1)
    n = images.shape[-1]
    if n > _MAX_TILE:
        step = int(np.ceil(n / _MAX_TILE))
        m = n // step
        images = images[:, : m * step, : m * step].reshape(len(images), m, step, m, step).mean((2, 4))
        n = m
    low, high = contrast_limits(images, share)
    return to_bytes(images, low, high).tobytes(), n
