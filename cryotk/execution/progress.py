"""Progress of long work: of jobs, one small value handed to whoever listens; of functions, steps that may be cancelled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

__all__ = ["Progress", "ProgressReporter", "Steps", "pulse"]


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


_here = threading.local()


class Steps:
    """Progress of one function call: a bar that appears after a second, a function that is told, or nothing.

    Inside the ``with`` block whatever the call runs through says :func:`pulse`, as often as several times a second; nobody hands
    the object down. A function that is told may raise, and the call ends there: that is how work is cancelled. A call inside
    another one's block shows nothing of its own, but can be cancelled in the same way.

    Parameters
    ----------
    progress : bool or callable
        A bar, nothing, or a function of (done, total), both in hundredths of a step.
    total : float
        Sum of all amounts; a little more or less does no harm.
    what : str
        Shown before the bar.
    """

    def __init__(self, progress: bool | Callable[[int, int], object], total: float, what: str) -> None:
        self._tell = progress if callable(progress) else None
        self._shown, self._what = progress is True, what
        self.total, self._done, self._bar = max(1, round(100 * total)), 0.0, None

    _bar: Any

    def __enter__(self) -> Steps:
        self._outer: Steps | None = getattr(_here, "steps", None)
        _here.steps = self
        if self._shown and self._outer is None:
            from tqdm.auto import tqdm

            form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
            self._bar = tqdm(total=self.total, desc=self._what, delay=1.0, leave=False, bar_format=form)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _here.steps = self._outer
        try:
            if kind is None:
                self.advance(0.01 * (self.total - self._done))
        finally:
            if self._bar is not None:
                self._bar.close()

    def reach(self, fraction: float) -> None:
        """Be this far, for work that counts by itself; from any thread, never backwards."""
        self.advance(max(0.0, fraction * self.total - self._done) / 100)

    def advance(self, amount: float) -> None:
        """Count, tell, and let whoever listens end it."""
        before = round(self._done)
        self._done = min(float(self.total), self._done + 100 * amount)
        if self._bar is not None and round(self._done) > before:
            self._bar.update(round(self._done) - before)
        if self._tell is not None:
            self._tell(round(self._done), self.total)
        if self._outer is not None:
            self._outer.advance(0.0)


def pulse(amount: float = 0.0) -> None:
    """Count something done of the call that is under way in this thread, if any; raises when it was cancelled.

    Parameters
    ----------
    amount : float
        In the steps of the call; 0 only gives the chance to cancel.
    """
    steps: Steps | None = getattr(_here, "steps", None)
    if steps is not None:
        steps.advance(amount)
