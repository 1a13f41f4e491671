"""A place on disk for what is expensive to simulate again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["cache_dir"]


def cache_dir() -> Path:
    """Folder for simulated data; ``CRYOTK_CACHE`` overrides the platform's own."""
    chosen = os.environ.get("CRYOTK_CACHE")
    if chosen:
        return Path(chosen) / "simulate"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "cryotk" / "simulate"
