"""Warnings that point at the line of the user who called, however deep inside they arise."""

from __future__ import annotations

import sys
import warnings

from cryotk.errors import CryotkWarning, DataWarning

__all__ = ["warn_caller"]

_OURS = ("cryotk", "cryotk_widgets", "contextlib")


def warn_caller(text: str, category: type[CryotkWarning] = DataWarning) -> None:
    """Warn as from the first frame outside of this package."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] in _OURS:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level + 1)
