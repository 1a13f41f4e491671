"""Where files that RELION names are: relative to a project, which is some folder above."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["folders_above"]


def folders_above(start: str | os.PathLike[str]) -> list[Path]:
    """A folder and all above it: as it was named first, then, where links lead elsewhere, as it is."""
    named, real = Path(os.path.abspath(start)), Path(start).resolve()
    found = [named, *named.parents]
    return found if real == named else found + [p for p in (real, *real.parents) if p not in found]
