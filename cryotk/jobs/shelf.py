"""Maps of past iterations, in files as soon as they are many: they are read again where somebody looks at them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
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


def shelve(iterations: Sequence[Iteration]) -> None:
    """Move maps of all but the last iteration to temporary files, oldest first, until the others are few.

    Where the disk has no room they stay in memory. Files vanish with the iterations, or the process.
    """
    past = list(iterations[:-1])
    total = bytes_in_memory(past)
    for it in past:
        if total <= KEPT_BYTES:
            return
        size = bytes_in_memory([it])
        if size and _to_file(it, size):
            total -= size


def _to_file(it: Iteration, size: int) -> bool:
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

            references, half_maps = moved(it.model.references), moved(it.half_maps)
            second = None if it.half2 is None else moved(it.half2.references)
        it.model, it.half_maps = it.model.copy(references=references), half_maps
        if it.half2 is not None:
            it.half2 = it.half2.copy(references=second)
        return True
    return False
