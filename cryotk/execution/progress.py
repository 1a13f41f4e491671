"""Progress of long work: one small value, handed to whoever listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "ProgressReporter"]


@dataclass(frozen=True)
class Progress:
    """Where a run is."""

    iteration: int
    """The iteration under way, from 1."""
    fraction: float
    """Of its particles, 0 to 1."""
    phase: str
    """``expectation``, ``maximization``, ``finished``, ``stopped`` or ``failed``."""
    seconds_left: float | None = None
    """Of this iteration's expectation; None when unknown."""
    message: str = ""


class ProgressReporter:
    """Counts finished particles from any thread and tells listeners at most ten times a second."""

    def __init__(self, listeners: list[Callable[[Progress], None]], iteration: int, total: int) -> None:
        self._listeners, self._iteration, self._total = listeners, iteration, max(total, 1)
        self._done, self._last = 0, 0.0
        self._lock = threading.Lock()
        self._start = time.monotonic()

    def add(self, particles: int) -> None:
        """Report finished particles."""
        with self._lock:
            self._done += particles
            now = time.monotonic()
            if now - self._last < 0.1 and self._done < self._total:
                return
            self._last = now
            fraction = self._done / self._total
        elapsed = now - self._start
        self.tell("expectation", fraction, elapsed * (1 - fraction) / fraction if fraction > 0 else None)

    def tell(self, phase: str, fraction: float, seconds_left: float | None = None, message: str = "") -> None:
        """Call all listeners; one that fails does not stop the run."""
        p = Progress(self._iteration, fraction, phase, seconds_left, message)
        for listener in list(self._listeners):
            try:
                listener(p)
            except Exception:
                continue
