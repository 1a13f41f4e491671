"""Class averages seen, compared over iterations, and selected."""

from __future__ import annotations

import base64
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets

from cryotk.errors import CryotkError, SettingsError
from cryotk_widgets.pictures import contact_sheet, flat_images, png_of, sprite_of, to_tile_bytes
from cryotk_widgets.sources import iterations_of

if TYPE_CHECKING:
    import xarray as xr

    from cryotk.data import Iteration

__all__ = ["ClassGallery"]

_STATIC = Path(__file__).parent / "static"
_SETTABLE = ("position", "sort", "tile_size", "contrast", "lowpass", "per_tile", "fade")
_UNKNOWN = 900.0


def _source_text(*names: str) -> str:
    return "\n".join((_STATIC / name).read_text() for name in names)


class ClassGallery(anywidget.AnyWidget):
    """Class averages as tiles to look at, compare and select.

    Click selects (again: no longer), shift-click extends; ``a`` all, ``n`` none, ``i`` invert, arrows move, space toggles, Enter or a
    double click shows a class large, ``/`` selects by number, share (``> 2 %``) or resolution (``< 12 Å``), Esc leaves.

    Parameters
    ----------
    source : job, Iteration, sequence of Iteration, or path
        A job is followed while it runs. A path is RELION's ``_optimiser.star`` or ``_model.star``, or a job folder with
        several of them to step through.
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
    sort : {"number", "particles", "resolution"}
    contrast, lowpass, tile_size : float, float, int
        Gain; Å at half amplitude (0: off); edge in pixels of the screen.
    per_tile : bool
        Grey limits of each tile by itself; otherwise of the whole set, so that weak classes look weak.
    fade : bool
        Fade what is not selected.
    theme : {"auto", "light", "dark"}

    Raises
    ------
    SettingsError
        For classes that do not exist, and for particles before the first iteration.

    Notes
    -----
    To the page go at most 4 MB: one sprite of 8-bit tiles of at most 160 pixels (141 for 200 classes); a class is sent whole when it is
    shown large. Selecting, sorting, contrast and low-pass need no kernel.

    .. image:: ../figures/gallery.png

    Examples
    --------
    >>> gallery = ClassGallery(job)  # doctest: +SKIP
    >>> gallery.selected = [1, 4]  # doctest: +SKIP
    >>> good = gallery.selected_particles()  # doctest: +SKIP
    """

    _esm = _source_text("gallery_core.js", "gallery_loupe.js", "gallery.js")
    _css = _source_text("tokens.css", "gallery.css")

    # the picture: uint8 tiles one after the other, each over its own range of values
    sprite = traitlets.Bytes(b"").tag(sync=True)
    tile_pixels = traitlets.Int(1).tag(sync=True)
    tile_ranges: Any = traitlets.List().tag(sync=True)
    limits = traitlets.List([0.0, 1.0]).tag(sync=True)
    pixel_size = traitlets.Float(1.0).tag(sync=True)
    # what is known of each class
    n_classes = traitlets.Int(0).tag(sync=True)
    occupancy: Any = traitlets.List().tag(sync=True)
    resolution: Any = traitlets.List().tag(sync=True)
    counts: Any = traitlets.List().tag(sync=True)
    details: Any = traitlets.List().tag(sync=True)
    # where we are
    iteration = traitlets.Int(0).tag(sync=True)
    position = traitlets.Int(0, min=0).tag(sync=True)
    n_iterations = traitlets.Int(0).tag(sync=True)
    progress: Any = traitlets.Dict().tag(sync=True)
    summary = traitlets.Unicode("").tag(sync=True)
    notice = traitlets.Unicode("").tag(sync=True)
    empty_text = traitlets.Unicode("").tag(sync=True)
    can_save = traitlets.Bool(False).tag(sync=True)
    # what is chosen
    selected = traitlets.List(traitlets.Int()).tag(sync=True)
    sort = traitlets.Enum(["number", "particles", "resolution"], "number").tag(sync=True)
    tile_size = traitlets.Int(112, min=32, max=512).tag(sync=True)
    contrast = traitlets.Float(1.0, min=0.05, max=20.0).tag(sync=True)
    lowpass = traitlets.Float(0.0, min=0.0).tag(sync=True)
    per_tile = traitlets.Bool(False).tag(sync=True)
    fade = traitlets.Bool(False).tag(sync=True)
    theme = traitlets.Enum(["auto", "light", "dark"], "auto").tag(sync=True)

    def __init__(self, source: Any, selected: Any = (), **traits: Any) -> None:
        self._job: Any = None
        self._iterations: Any = []
        self._follow = True
        self._lock = threading.RLock()
        self._last = 0.0
        self._unsubscribe: Any = None
        if hasattr(source, "iterate"):
            self._job, self._iterations = source, source.iterations
            if len(source.iterations) > 1 and not source.running:
                traits.setdefault("sort", "particles")
        else:
            self._iterations = iterations_of(source)
            traits.setdefault("sort", "particles")
        super().__init__(**traits)
        self.empty_text = "No iteration yet: press Run, or call job.start()." if self._job is not None else "No classes."
        self._show(len(self._iterations) - 1)
        self.observe(self._on_position, "position")
        self.on_msg(self._on_message)
        if self._job is not None:
            self._unsubscribe = self._job.on_progress(self._on_progress)
            self._set_progress(bool(self._job.running))
        self.selected = [int(k) for k in selected]

    def close(self) -> None:
        """Take the view away; the job goes on."""
        if callable(self._unsubscribe):
            self._unsubscribe()
        super().close()

    @traitlets.validate("selected")
    def _valid_selected(self, proposal: Any) -> list[int]:
        wanted = sorted({int(k) for k in proposal["value"]})
        if self.n_classes and wanted and not (1 <= wanted[0] and wanted[-1] <= self.n_classes):
            raise SettingsError(f"selected = {wanted}: classes are numbered from 1 to {self.n_classes}")
        return wanted

    def __repr__(self) -> str:
        if self.shown is None:
            return f"<ClassGallery: {self.empty_text}>"
        return f"<ClassGallery: iteration {self.iteration}, {self.n_classes} classes, selected {self.selected}>"

    # -- what is shown -------------------------------------------------------------------------------------------

    @property
    def shown(self) -> Iteration | None:
        """The iteration on screen."""
        return self._iterations[min(self.position, len(self._iterations) - 1)] if len(self._iterations) else None

    def _show(self, position: int) -> None:
        with self._lock:
            if not len(self._iterations):
                return
            position = int(np.clip(position, 0, len(self._iterations) - 1))
            it = self._iterations[position]
            sprite = sprite_of(it.model.references, it.model.class_distribution)
            with self.hold_sync():
                self.sprite, self.tile_pixels = sprite.pixels, sprite.edge
                self.tile_ranges, self.limits = sprite.ranges, list(sprite.limits)
                self.pixel_size = float(it.model.pixel_size) * it.model.box_size / sprite.edge
                self.n_classes = it.model.n_classes
                self.occupancy = [float(s) for s in np.nan_to_num(it.model.class_distribution)]
                self.resolution = _per_class(it.model.class_resolution, it.model.n_classes)
                self.counts = _counts(it)
                self.details = _accuracy(it)
                self.iteration = int(it.number)
                self.n_iterations = len(self._iterations)
                self.position = position
                self.can_save = it.assignments.sizes.get("particle", 0) > 0
                self.summary = _summary(it)

    def _on_position(self, change: Any) -> None:
        self._follow = change["new"] >= len(self._iterations) - 1
        with self._lock:
            if self.shown is not None and self.shown.number != self.iteration:
                self._show(change["new"])

    # -- following a job -----------------------------------------------------------------------------------------

    def _set_progress(self, running: bool, **values: Any) -> None:
        self.progress = {"running": running, "can_run": self._job is not None, **values}

    def _on_progress(self, p: Any) -> None:
        """Called by the job, in its thread, at most ten times a second."""
        ended = p.phase in ("stopped", "failed")
        now = time.monotonic()
        if p.phase == "expectation" and 0 < p.fraction < 1 and now - self._last < 0.12:
            return
        self._last = now
        if self.n_iterations < len(self._iterations) or ended:
            self._show(len(self._iterations) - 1 if self._follow else self.position)
        target = getattr(self._job, "target", None)
        goes_on = p.phase == "finished" and target is not None and p.iteration < target
        message = ""
        if p.phase == "stopped":
            message = f"stopped: iteration {self._job.iteration} stands"
        elif p.phase == "failed":
            message = f"failed: {p.message}"
        fraction = 1.0 if p.phase == "maximization" else p.fraction
        self._set_progress(
            p.phase in ("expectation", "maximization") or goes_on,
            iteration=p.iteration, fraction=fraction, seconds_left=p.seconds_left, phase=p.phase, message=message,
        )  # fmt: skip

    def _on_message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """Commands from the page. They may come on any thread, so they only set values and start threads."""
        command = content.get("cmd") if isinstance(content, dict) else None
        if command == "select":
            try:
                self.selected = content["classes"]
            finally:
                self.send({"selected": content["serial"]})
        elif command == "set" and content.get("name") in _SETTABLE:
            setattr(self, content["name"], content["value"])
        elif command == "stop" and self._job is not None:
            self._job.stop()
        elif command == "run" and self._job is not None and not self._job.running:
            self._job.start()
        elif command == "full":
            self._send_full(int(content["index"]))
        elif command == "save":
            threading.Thread(target=self._save_from_page, args=(content["path"], content["classes"]), daemon=True).start()

    def _send_full(self, index: int) -> None:
        it = self.shown
        if it is None or not 0 <= index < it.model.n_classes:
            return
        image = flat_images(it.model.references[index : index + 1])
        pixels, ranges = to_tile_bytes(image)
        curve = np.nan_to_num(it.model.data_vs_prior[index], posinf=1e9) if len(it.model.data_vs_prior) > index else np.zeros(0)
        self.send(
            {
                "full": index, "n": image.shape[-1], "range": ranges[0], "curve": [float(v) for v in curve],
                "pixel_size": float(it.model.pixel_size), "box": it.model.box_size, "resolution": self.resolution[index],
            },
            buffers=[pixels.tobytes()],
        )  # fmt: skip

    # -- selection -----------------------------------------------------------------------------------------------

    def selected_particles(self) -> xr.Dataset:
        """Particles of the selected classes in the iteration on screen, with their assignments.

        Returns
        -------
        Dataset
            Over ``particle``, images included when the source knows its particles; otherwise the assignments alone.
        """
        it = self.shown
        if it is None:
            raise SettingsError("there is no iteration yet: run the job first")
        if self._job is not None:
            return self._job.select(list(self.selected), iteration=it.number)
        keep = np.nonzero(np.isin(it.assignments["class_number"].values, list(self.selected)))[0]
        if it.particles is None:
            return it.assignments.isel(particle=keep)
        from cryotk.data import select_particles

        out = select_particles(it.particles, keep)
        for name, values in it.assignments.isel(particle=keep).data_vars.items():
            out[name] = ("particle", values.values, dict(out[name].attrs) if name in out else dict(values.attrs))
        return out

    def save_selection(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the selected particles as a STAR file.

        Parameters
        ----------
        path : path
        overwrite : bool
            Otherwise a file that is there already stays, and this fails.
        """
        import cryotk

        target = Path(path).expanduser()
        if target.suffix != ".star":
            raise SettingsError(f"{target}: particles are written as a .star file")
        if target.exists() and not overwrite:
            raise SettingsError(f"{target} exists already; choose another name")
        particles = self.selected_particles()
        if "optics" not in particles.dims:
            raise SettingsError("this view knows the assignments only: open the particle file and select by class_number")
        target.parent.mkdir(parents=True, exist_ok=True)
        cryotk.write_particles(particles, target)
        return target

    def _save_from_page(self, path: str, classes: list[int]) -> None:
        try:
            self.selected = classes
            target = self.save_selection(path)
            kept = sum(self.counts[k - 1] for k in self.selected)
            self.notice = f"{kept} particles written to {target.resolve()}"
        except (CryotkError, OSError) as error:
            self.notice = f"not written: {error}"

    # -- a picture where widgets do not run ----------------------------------------------------------------------

    def to_png(self, tile: int = 96) -> bytes:
        """Return the tiles on screen with their captions as one PNG."""
        it = self.shown
        if it is None:
            return b""
        sheet = contact_sheet(
            it.model.references, it.model.class_distribution, np.array(self.resolution), tile, selected=set(self.selected), sort=self.sort,
        )  # fmt: skip
        return png_of(sheet)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, meta = bundle if isinstance(bundle, tuple) else (bundle, {})
        if data is None:
            return data, meta
        data = dict(data) | {"text/plain": repr(self)}
        png = self.to_png()
        if png:
            data["image/png"] = base64.b64encode(png).decode()
        return data, meta


def _per_class(values: Any, k: int) -> list[float]:
    """One finite number per class; 0 where it is not known."""
    out = np.zeros(k)
    given = np.asarray(values, float)[:k]
    out[: len(given)] = np.where(np.isfinite(given) & (given < _UNKNOWN), given, 0.0)
    return [float(v) for v in out]


def _counts(it: Iteration) -> list[int]:
    k = it.model.n_classes
    n = it.assignments.sizes.get("particle", 0)
    numbers = np.asarray(it.assignments["class_number"].values, int) if "class_number" in it.assignments else np.zeros(0, int)
    counts = np.bincount(numbers[numbers > 0], minlength=k + 1)[1 : k + 1]
    if not counts.any():
        # nobody is assigned yet
        ends = np.rint(np.cumsum(np.nan_to_num(it.model.class_distribution)) * n)
        counts = np.diff(ends, prepend=0).astype(int)
    return [int(c) for c in counts]


def _accuracy(it: Iteration) -> list[str]:
    rotation, translation = np.asarray(it.model.accuracy_rotation, float), np.asarray(it.model.accuracy_translation, float)
    out = []
    for k in range(it.model.n_classes):
        known = k < min(len(rotation), len(translation)) and 0 < rotation[k] < _UNKNOWN and translation[k] < _UNKNOWN
        out.append(f"accuracy {rotation[k]:.1f}° / {translation[k]:.1f} Å" if known else "")
    return out


def _summary(it: Iteration) -> str:
    if it.number == 0:
        return "start: random particles, averaged"
    parts = []
    resolution = it.numbers.get("resolution", it.model.current_resolution)
    if np.isfinite(resolution) and 0 < resolution < _UNKNOWN:
        parts.append(f"{resolution:.1f} Å")
    p_max = it.numbers.get("average_p_max", it.model.average_p_max)
    if p_max > 0:
        parts.append(f"P_max {p_max:.2f}")
    moved = it.numbers.get("changes_class", np.nan)
    if np.isfinite(moved) and 0 <= moved <= 1:
        parts.append(f"{100 * moved:.0f} % changed class")
    return " · ".join(parts)
