"""Maps of past iterations, in files as soon as they are many: they are read again where somebody looks at them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cryotk.data import Iteration
from cryotk.errors import ExecutionError
from cryotk.projection import scratch_folder

__all__ = ["KEPT_BYTES", "bytes_in_memory", "shelve"]

KEPT_BYTES = 256_000_000
"""Maps of past iterations that stay in memory."""


def _maps(it: Iteration) -> list[np.ndarray]:
    """Maps of an iteration that are in memory."""
    all_ = [it.model.references, None if it.half2 is None else it.half2.references, it.half_maps]
    return [x for x in all_ if x is not None and not isinstance(x, np.memmap)]


def bytes_in_memory(iterations: Sequence[Iteration]) -> int:
    """What the maps of some iterations take."""
    return sum(x.nbytes for it in iterations for x in _maps(it))


def shelve(iterations: list[Iteration]) -> None:
    """Replace all but the last iteration, oldest first, by ones whose maps are in temporary files, until the others are few.

    Where the disk has no room they stay in memory. Files vanish with the iterations, or the process. The iterations themselves
    are not changed: branches of a job have the same ones, and may be at work on them.
    """
    total = bytes_in_memory(iterations[:-1])
    for i, it in enumerate(iterations[:-1]):
        if total <= KEPT_BYTES:
            return
        size = bytes_in_memory([it])
        shelved = _in_a_file(it, size) if size else None
        if shelved is not None:
            iterations[i] = shelved
            total -= size


def _in_a_file(it: Iteration, size: int) -> Iteration | None:
    with contextlib.suppress(OSError, ExecutionError):
        with tempfile.TemporaryFile(buffering=0, dir=scratch_folder(2 * size)) as file:
            start = 0

            def moved(x: Any) -> Any:
                nonlocal start
                if x is None or isinstance(x, np.memmap):
                    return x
                x = np.ascontiguousarray(x)
                x.tofile(file)
                # nothing of it is in memory before it is read
                there = np.memmap(file, x.dtype, "r", start, x.shape)
                start += x.nbytes
                return there

            model = it.model.copy(references=moved(it.model.references))
            half2 = None if it.half2 is None else it.half2.copy(references=moved(it.half2.references))
            return replace(it, model=model, half2=half2, half_maps=moved(it.half_maps))
    return None
