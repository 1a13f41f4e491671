"""A bar for files that take longer than a second; nothing at all, not even an import, for the others."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["file_bar"]

_LONG = 30_000_000


class _Silent:
    def update(self, _n: int) -> None:
        """Count nothing."""


def file_bar(n_bytes: int, what: str) -> AbstractContextManager[Any]:
    """Return a context whose value has ``update(bytes)``; a bar appears after a second and goes away at the end.

    Parameters
    ----------
    n_bytes : int
        Expected.
    what : str
        Shown before the bar.
    """
    if n_bytes < _LONG:
        return nullcontext(_Silent())
    from tqdm.auto import tqdm

    bar: AbstractContextManager[Any] = tqdm(total=n_bytes, desc=what, unit="B", unit_scale=True, delay=1.0, leave=False)
    return bar
