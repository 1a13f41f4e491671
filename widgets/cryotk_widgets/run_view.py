"""What views of a refinement share: its iterations, following a job, run and stop."""

from __future__ import annotations

import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from cryotk.errors import DataError, DataWarning
from cryotk_widgets.sources import iterations_of
from cryotk_widgets.view_base import View

if TYPE_CHECKING:
    from cryotk.data import Iteration

__all__ = ["RunView", "known", "map_of"]

_UNKNOWN = 900.0


def known(value: Any) -> float | None:
    """A finite number that means something, or None."""
    v = float(value) if value is not None else np.nan
    return v if np.isfinite(v) and abs(v) < _UNKNOWN else None


def map_of(it: Iteration, k: int = 0) -> np.ndarray:
    """Map of a class; where RELION's files hold half-maps alone, their mean."""
    volume = np.asarray(it.model.references[k], np.float32)
    if volume.any() or not it.source:
        return volume
    import cryotk

    folder = Path(it.source).parent
    halves = [p for h in (1, 2) for p in sorted(folder.glob(f"*half{h}*class{k + 1:03d}*.mrc"))[:1]]
    maps = [np.asarray(cryotk.open_volume(p, it.model.pixel_size).values) for p in halves]
    return np.asarray(np.mean(maps, axis=0, dtype=np.float32)) if maps and all(m.shape == volume.shape for m in maps) else volume


class RunView(View):
    """Base of views of a 3D refinement: a job that is followed, or iterations that are there."""

    iteration = traitlets.Int(0).tag(sync=True)
    position = traitlets.Int(0, min=0).tag(sync=True)
    n_iterations = traitlets.Int(0).tag(sync=True)
    progress: Any = traitlets.Dict().tag(sync=True)
    summary = traitlets.Unicode("").tag(sync=True)
    empty_text = traitlets.Unicode("").tag(sync=True)
    history: Any = traitlets.List().tag(sync=True)

    def __init__(self, source: Any, **traits: Any) -> None:
        self._job: Any = None
        self._follow = True
        self._lock = threading.RLock()
        self._last = 0.0
        self._unsubscribe: Any = None
        self._rows: dict[int, dict[str, Any]] = {}
        if hasattr(source, "iterate"):
            self._job, self._iterations = source, source.iterations
        else:
            with warnings.catch_warnings():
                # maps that are not there are shown as missing
                warnings.simplefilter("ignore", DataWarning)
                self._iterations = iterations_of(source)
        for it in self._iterations[:1]:
            if not it.model.is_3d:
                raise DataError(f"{type(self).__name__} shows 3D refinements; 2D classes are shown by ClassGallery")
        super().__init__(**traits)
        self.empty_text = "No iteration yet: press Run, or call job.start()." if self._job is not None else "No iterations."
        self._show(len(self._iterations) - 1)
        self.observe(self._on_position, "position")
        if self._job is not None:
            self._unsubscribe = self._job.on_progress(self._on_progress)
            self._set_progress(bool(self._job.running))

    def close(self) -> None:
        """Take the view away; the job goes on."""
        if callable(self._unsubscribe):
            self._unsubscribe()
        super().close()

    @property
    def shown(self) -> Iteration | None:
        """The iteration on screen."""
        return self._at(min(self.position, len(self._iterations) - 1)) if len(self._iterations) else None

    def _at(self, position: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            return self._iterations[position]

    def _row(self, it: Iteration) -> dict[str, Any]:
        """What the history keeps of an iteration."""
        raise NotImplementedError  # pragma: no cover

    def _draw(self, it: Iteration) -> None:
        """Set the traits that show an iteration."""
        raise NotImplementedError  # pragma: no cover

    def _show(self, position: int) -> None:
        with self._lock:
            if not len(self._iterations):
                return
            position = int(np.clip(position, 0, len(self._iterations) - 1))
            for i in range(len(self._iterations)):
                if i not in self._rows:
                    self._rows[i] = self._row(self._at(i))
            it = self._at(position)
            with self.hold_sync():
                self.history = [self._rows[i] for i in range(len(self._iterations))]
                self._draw(it)
                self.iteration, self.n_iterations, self.position = int(it.number), len(self._iterations), position

    def _on_position(self, change: Any) -> None:
        self._follow = change["new"] >= len(self._iterations) - 1
        with self._lock:
            if self.shown is not None and self.shown.number != self.iteration:
                self._show(change["new"])

    def _set_progress(self, running: bool, **values: Any) -> None:
        self.progress = {"running": running, "can_run": self._job is not None, **values}

    def _on_progress(self, p: Any) -> None:
        """Called by the job, in its thread, at most ten times a second."""
        now = time.monotonic()
        if p.phase == "expectation" and 0 < p.fraction < 1 and now - self._last < 0.12:
            return
        self._last = now
        ended = p.phase in ("stopped", "failed")
        if self.n_iterations < len(self._iterations) or ended:
            self._show(len(self._iterations) - 1 if self._follow else self.position)
        target = getattr(self._job, "target", None)
        goes_on = p.phase == "finished" and target is not None and p.iteration < target and not getattr(self._job, "_ended", False)
        message = (
            f"stopped: iteration {self._job.iteration} stands"
            if p.phase == "stopped"
            else f"failed: {p.message}"
            if p.phase == "failed"
            else ""
        )
        fraction = 1.0 if p.phase == "maximization" else p.fraction
        self._set_progress(
            p.phase in ("expectation", "maximization") or goes_on,
            iteration=p.iteration, fraction=fraction, seconds_left=p.seconds_left, phase=p.phase, message=message,
        )  # fmt: skip

    def _command(self, command: str, content: dict[str, Any]) -> None:
        if command == "stop" and self._job is not None:
            self._job.stop()
        elif command == "run" and self._job is not None and not self._job.running:
            self._job.start()
