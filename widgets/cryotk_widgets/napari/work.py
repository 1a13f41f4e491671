"""Long work beside the window: napari's threads and progress, a cancel button, and a line that says how it went."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker
from napari.utils import progress
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QWidget

from cryotk.errors import CryotkError
from cryotk.execution import Steps

__all__ = ["Cancelled", "Work"]

Step = Callable[[int, int], None]
"""What work calls with (done, total); raises :class:`Cancelled` when it is to stop."""


class Cancelled(Exception):
    """Raised inside work that was cancelled."""


class Work(QWidget):
    """One piece of work at a time: a status line and a cancel button.

    Cancelling ends it at its next report of progress, or at the next pass of cryotk's functions over a map; the result is dropped.
    """

    _stepped = Signal(int, int)

    def __init__(self) -> None:
        super().__init__()
        self.status, self.cancel_button = QLabel(""), QPushButton("Cancel")
        self.status.setWordWrap(True)
        self.cancel_button.setVisible(False)
        self.cancel_button.setMaximumWidth(90)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.status, 1)
        row.addWidget(self.cancel_button)
        self._stop: threading.Event = threading.Event()
        self._worker: Any = None
        self._bar: Any = None
        self._then: Callable[[Any], None] = lambda result: None
        self.cancel_button.clicked.connect(self.cancel)
        self._stepped.connect(self._on_step)

    @property
    def is_running(self) -> bool:
        """Whether something runs."""
        return self._worker is not None

    def say(self, text: str, *, error: bool = False) -> None:
        """Show a line of text."""
        self.status.setStyleSheet("color: #d55e00;" if error else "")
        self.status.setText(text)

    def run(self, title: str, function: Callable[[Step], Any], then: Callable[[Any], None]) -> bool:
        """Run ``function(step)`` in a thread of napari, then ``then(result)`` in the window's.

        Parameters
        ----------
        title : str
            For the status and napari's activity list.
        function : callable
            Touches no layer and no widget; calls ``step(done, total)`` when it can.
        then : callable

        Returns
        -------
        bool
            False when something runs already.
        """
        if self.is_running:
            return False
        stop = self._stop = threading.Event()

        def step(done: int, total: int) -> None:
            if stop.is_set():
                raise Cancelled
            self._stepped.emit(int(done), int(total))

        def guarded() -> tuple[Any, BaseException | None]:
            def check(*_: int) -> None:
                if stop.is_set():
                    raise Cancelled

            try:
                with Steps(check, 1, title):
                    return function(step), None
            except Exception as error:
                return None, error

        self._then = then
        self._bar = progress(total=0, desc=title)
        self.say(f"{title} …")
        self.cancel_button.setVisible(True)
        self.cancel_button.setEnabled(True)
        self._worker = create_worker(guarded, _connect={"returned": self._on_return})
        return True

    def cancel(self) -> None:
        """Stop at the next report of progress or pass over a map, and drop the result in any case."""
        if self.is_running:
            self._stop.set()
            self.cancel_button.setEnabled(False)
            self.say("stopping …")

    def _on_step(self, done: int, total: int) -> None:
        if self._bar is None:
            return
        if self._bar.total != total:
            self._bar.total = total
            self._bar.events.total(value=total)
        self._bar.update(done - self._bar.n)

    def _on_return(self, outcome: tuple[Any, BaseException | None]) -> None:
        result, error = outcome
        self._worker = None
        self._bar.close()
        self._bar = None
        self.cancel_button.setVisible(False)
        if self._stop.is_set() or isinstance(error, Cancelled):
            self.say("cancelled")
        elif isinstance(error, (CryotkError, OSError, MemoryError)):
            self.say(str(error) or type(error).__name__, error=True)
        elif error is not None:
            self.say(f"{type(error).__name__}: {error}", error=True)
            raise error
        else:
            self.say("")
            self._then(result)
