"""A block's posterior in parts whose slices memory, or the processor's caches, hold at once.

What the fine pass and the sums need of each orientation (its slices, rows of weighted images, their weights) is far more
than what they need of each particle. Where particles share orientations, as at low resolution, a block is cut across
orientations: each is made and inserted once per block, and stays in a cache while all particles pass by. Where they hardly
do, as in local searches, the block is cut across particles, and a portion's slices are made where they are used. Either way
slices are made again for the sums: that costs less than writing them to memory and reading them back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np

from cryotk.kernels.half_turns import conjugate_slices
from cryotk.likelihood.half_turns import half_turns
from cryotk.likelihood.portions import TILE_BYTES, Portion, Scratch, cut_portions, cut_tiles, pays_in_portions
from cryotk.likelihood.posterior import BlockPosterior, RaggedPart
from cryotk.likelihood.sampling import Sampling
from cryotk.likelihood.tables import GroupTables

__all__ = ["Part", "Run", "bytes_of_slot", "one_by_one", "parts"]

T = TypeVar("T")

SHARED_BYTES = 64_000_000
MANY_SHIFTS = 32
"""Of an orientation; with more, what is done with a slice takes longer than to fetch it."""


@dataclass(frozen=True)
class Part:
    """Particles, parents and samples of a block that are done together."""

    particles: slice
    parents: Any
    """Parents of the block: a slice, or (n,) indices."""
    samples: Any
    """Where the part's weights are copies: rows of the block's ``weights_by_offset`` that they are; None for views."""
    lists: RaggedPart
    parent_slot: Any
    """Position in ``slices`` of each parent's."""
    slices: Any
    slots: np.ndarray | None
    """Slot of the block of each of ``slices``; None where they are numbered alike."""


class Run(Protocol):
    """Runs ``work(item, ready)`` for every item, in one thread or several; ``ready()`` returns when all items before are done."""

    def __call__(self, work: Callable[[T, Callable[[], None]], None], items: Iterable[T], /) -> object:
        """Do all items."""


def one_by_one(work: Callable[[T, Callable[[], None]], None], items: Iterable[T], /) -> None:
    """Do items one after the other."""
    for item in items:
        work(item, lambda: None)


def bytes_of_slot(n_children: int, n_pixels: int) -> int:
    """Memory of an orientation and its children: slices and rows, complex, and weights of rows."""
    return 20 * n_children * n_pixels


def parts(sampling: Sampling, tables: GroupTables, post: BlockPosterior, scratch: Scratch) -> Iterator[Callable[[], Part]]:
    """Cut a posterior; depends on nothing but the posterior and the backend. What is given makes a part, in the thread that needs it.

    Parameters
    ----------
    sampling : Sampling
    tables : GroupTables
    post : BlockPosterior
        Its slices are made here where it has none: for all at once, and kept, when they fit. Once it has weights,
        orientations without any are left out.
    scratch : Scratch
        Slices of portions and tiles are in it, in that of the thread: they last until its next one.
    """
    backend, xp = tables.backend, tables.backend.xp
    per_slot = bytes_of_slot(post.n_children, len(tables.prepare.lattice))
    most = max(1, int(backend.slot_bytes // per_slot))
    own, weighted = len(post.slices) == 0, len(post.weights) > 0
    # slices that all blocks share are rows of this block as often as they are slots, however many parents use them
    n_slots = min(len(post.parent_slot), len(post.slices)) if post.slot_class is None else len(post.slot_class)
    if own and not backend.on_device and pays_in_portions(post.parent_start, n_slots, per_slot, backend.slot_bytes):
        yield from _portions(sampling, tables, post, scratch)
        return
    if not backend.on_device and post.slot_inverse is None and (own or _far_apart(post, n_slots * per_slot)):
        most = min(most, max(1, int(TILE_BYTES // per_slot)))
    if n_slots <= most:
        yield partial(_whole, sampling, tables, post)
        return
    if weighted:
        positive = xp.concatenate([xp.zeros(1, np.int64), xp.cumsum((post.weights_by_offset > 0).any(1))])
        parents = xp.flatnonzero(xp.diff(positive[post.offset_start]) > 0)
    else:
        parents = xp.arange(len(post.parent_slot))
    for some, positions in cut_tiles(backend.to_host(post.parent_slot[parents]), most):
        yield partial(_tile, sampling, tables, post, some, parents[backend.to_device(positions)], own, scratch)


def _whole(sampling: Sampling, tables: GroupTables, post: BlockPosterior) -> Part:
    """All particles and orientations at once."""
    if len(post.slices) == 0:
        assert post.slot_class is not None and post.slot_orientation is not None
        if tables.backend.on_device and post.slot_inverse is None:
            # the insertion wants them again
            inverse = tables.maker.inverses(sampling.child_matrices(post.slot_orientation))
            post.slot_inverse = inverse.reshape(len(post.slot_class), -1, 3, 3)
        post.slices = _slices(sampling, tables, post, np.arange(len(post.slot_class)))
    return Part(slice(0, len(post.particles)), slice(None), None, post.ragged(), post.parent_slot, post.slices, None)


def _tile(
    sampling: Sampling, tables: GroupTables, post: BlockPosterior, some: np.ndarray, chosen: Any, own: bool, scratch: Scratch
) -> Part:
    """All particles, and some of the orientations: those parents that use them."""
    backend = tables.backend
    lists, samples = post.chosen(chosen)
    if own:
        slices = _slices(sampling, tables, post, some, None if backend.on_device else scratch)
    else:
        slices, some = post.slices[int(some[0]) : int(some[-1]) + 1], np.arange(some[0], some[-1] + 1)
    position = backend.xp.searchsorted(backend.to_device(some), post.parent_slot[chosen])
    return Part(slice(0, len(post.particles)), chosen, samples, lists, position, slices, some)


def _far_apart(post: BlockPosterior, n_bytes: int) -> bool:
    """Whether slices that all blocks share are more than caches hold, and read for a few shifts each: tiles then pay."""
    n_samples = len(post.offsets) * post.n_offset_children
    return n_bytes > SHARED_BYTES and n_samples < MANY_SHIFTS * len(post.parent_slot)


def _slices(sampling: Sampling, tables: GroupTables, post: BlockPosterior, slots: np.ndarray, scratch: Scratch | None = None) -> Any:
    """(n, C, 2, P) of some slots."""
    assert post.slot_class is not None and post.slot_orientation is not None
    n_children, n_pixels = post.n_children, len(tables.prepare.lattice)
    shape = (len(slots), n_children, 2, n_pixels)
    out = tables.backend.xp.empty(shape, np.float32) if scratch is None else scratch.array("slices", shape)
    flat = out.reshape(-1, 2, n_pixels)
    classes = post.slot_class[slots]
    if post.slot_inverse is not None:
        inverse = post.slot_inverse[slots].reshape(-1, 3, 3)
        tables.maker.slices_at(np.repeat(classes, n_children), inverse, flat)
        return out
    orientation = post.slot_orientation[slots]
    left, upper, partner = np.arange(len(slots)), np.zeros(0, np.int64), np.zeros(0, np.int64)
    if scratch is not None and sampling.settings.is_3d and sampling.n_psi % 2 == 0:
        # of two that are half a turn apart one is made, the other is its conjugate
        upper, partner, left = half_turns(classes * np.int64(sampling.n_orientations) + orientation, sampling.n_psi)
    inverse = tables.maker.inverses(sampling.child_matrices(orientation[left]))
    places = (left[:, None] * n_children + np.arange(n_children)).ravel()
    tables.maker.slices_at(np.repeat(classes[left], n_children), inverse, flat, places=places)
    if len(upper):
        conjugate_slices(out, upper, partner)
    return out


def _portions(sampling: Sampling, tables: GroupTables, post: BlockPosterior, scratch: Scratch) -> Iterator[Callable[[], Part]]:
    assert post.slot_orientation is not None
    n_children, used = post.n_children, None
    if post.slot_inverse is None:
        inverse = tables.maker.inverses(sampling.child_matrices(post.slot_orientation))
        post.slot_inverse = inverse.reshape(-1, n_children, 3, 3)
    if len(post.weights):
        used = np.maximum.reduceat(post.weights, post.offset_start[:-1] * (n_children * post.n_offset_children)) > 0
    for part in cut_portions(post.parent_start, post.parent_slot, bytes_of_slot(n_children, len(tables.prepare.lattice)), used):
        yield partial(_portion, sampling, tables, post, part, scratch)


def _portion(sampling: Sampling, tables: GroupTables, post: BlockPosterior, part: Portion, scratch: Scratch) -> Part:
    """Some of the particles, with all orientations of theirs."""
    slices = _slices(sampling, tables, post, part.slots, scratch)
    assert isinstance(part.parents, slice)
    return Part(part.particles, part.parents, None, post.part(part.particles, part.parents), part.parent_slot, slices, part.slots)
