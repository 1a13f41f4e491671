"""Portions and tiles of a block whose slices and rows fit into the processor's caches.

Where hardly two particles of a block share an orientation, slices of a whole block would be written to memory and read
back twice; a portion's are made where they are used, and made again for the sums, which costs less. Where many share
them, a tile of orientations is made, and those particles pass by that use them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["TILE_BYTES", "Portion", "Scratch", "cut_portions", "cut_tiles", "pays_in_portions"]

PORTION_BYTES = 8_000_000
TILE_BYTES = 4_000_000
"""Slices (and rows) of orientations that particles of a block share, while they pass by."""


@dataclass(frozen=True)
class Portion:
    """Consecutive particles of a block, with their parents and their own list of slots."""

    particles: slice
    parents: slice | np.ndarray
    """Of the block; positions where they do not follow each other."""
    slots: np.ndarray
    """(n,) slots of the block that the portion's particles use, ascending."""
    parent_slot: np.ndarray
    """(m,) position in ``slots`` of each parent's."""


def pays_in_portions(parent_start: np.ndarray, n_slots: int, slot_bytes: int, most_bytes: int) -> bool:
    """Whether slices are better made for portions.

    Few are shared, all of them are more than a cache holds, and those of each particle are less than ``most_bytes``.
    """
    few = int(parent_start[-1]) < 2 * n_slots and n_slots * slot_bytes > PORTION_BYTES
    return few and int(np.diff(parent_start).max(initial=0)) * slot_bytes <= most_bytes


def cut_portions(
    parent_start: np.ndarray, parent_slot: np.ndarray, slot_bytes: int, used: np.ndarray | None = None,
    portion_bytes: float | None = None,
) -> Iterator[Portion]:
    """Cut a block.

    Parameters
    ----------
    parent_start : (B + 1,) int
        First parent of each particle.
    parent_slot : (n,) int
        Slot of each parent.
    slot_bytes : int
        What one slot's slices (and rows) take.
    used : (n,) bool, optional
        Parents that count; the others get the portion's first slot.
    portion_bytes : float, optional
        What a portion may take, were nothing shared in it; what a cache holds by default.
    """
    n = len(parent_start) - 1
    most = max(1, int((portion_bytes or PORTION_BYTES) // slot_bytes))
    first = 0
    while first < n:
        last = int(np.searchsorted(parent_start, parent_start[first] + most, side="right")) - 1
        last = min(max(last, first + 1), n)
        parents = slice(int(parent_start[first]), int(parent_start[last]))
        of_parent = parent_slot[parents]
        if used is None:
            slots, own = np.unique(of_parent, return_inverse=True)
        else:
            slots, some = np.unique(of_parent[used[parents]], return_inverse=True)
            own = np.zeros(len(of_parent), np.int64)
            own[used[parents]] = some
        if len(slots):
            yield Portion(slice(first, last), parents, slots, own.astype(np.int64, copy=False))
        first = last


def cut_tiles(slot: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut the slots that parents use: not more than ``most`` at a time, and the positions in ``slot`` (n,) of those that use them."""
    order = np.argsort(slot, kind="stable")
    different, start = np.unique(slot[order], return_index=True)
    start = np.append(start, len(order))
    for first in range(0, len(different), most):
        some = different[first : first + most]
        yield some, np.sort(order[start[first] : start[first + len(some)]])


class Scratch(threading.local):
    """Arrays of a thread that are used again and again: fresh memory costs more than what is done with it."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
        """An array of any content; it is the caller's until the next one of this name."""
        size = int(np.prod(shape))
        have = self._arrays.get(name)
        if have is None or have.size < size or have.dtype != dtype:
            have = self._arrays[name] = np.empty(size, dtype)
        return have[:size].reshape(shape)
