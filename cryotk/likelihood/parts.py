"""A block's posterior in parts of as many orientations as memory holds at once.

What the fine pass and the sums need of each orientation (its slices, rows of weighted images, their weights) is far more than what
they need of each particle, and particles of a block share orientations. So a block that meets many orientations, as at low
resolution, is cut across orientations, not across particles: each is made and inserted once per block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cryotk.likelihood.posterior import BlockPosterior
from cryotk.likelihood.sampling import Sampling
from cryotk.likelihood.tables import GroupTables

__all__ = ["bytes_of_slot", "parts"]


def bytes_of_slot(n_children: int, n_pixels: int) -> int:
    """Memory of an orientation and its children: slices and rows, complex, and weights of rows."""
    return 20 * n_children * n_pixels


def parts(sampling: Sampling, tables: GroupTables, post: BlockPosterior) -> Iterator[tuple[BlockPosterior, Any, Any]]:
    """Cut a posterior; depends on nothing but the posterior and the backend.

    Parameters
    ----------
    sampling : Sampling
    tables : GroupTables
    post : BlockPosterior
        Its slices are made here where it has none: for all at once, and kept, when they fit.

    Yields
    ------
    part : BlockPosterior
    parents, samples : bool arrays or None
        What of the whole is in the part; None for all. Once there are weights, orientations without any are left out.
    """
    backend, xp = tables.backend, tables.backend.xp
    most = max(1, int(backend.slot_bytes // bytes_of_slot(post.n_children, len(tables.prepare.lattice))))
    own, weighted = len(post.slices) == 0, len(post.weights) > 0
    n_slots = len(post.parent_slot) if post.slot_class is None else len(post.slot_class)
    if n_slots <= most or not (own or weighted):
        if own:
            post.slices = _slices(sampling, tables, post)
        yield post, None, None
        return
    used = xp.ones(len(post.parent_slot), bool)
    if weighted:
        positive = xp.concatenate([xp.zeros(1, np.int64), xp.cumsum(post.weights > 0)])
        used = xp.diff(positive[post.offset_start * (post.n_children * post.n_offset_children)]) > 0
    slots = backend.to_host(xp.unique(post.parent_slot[used]))
    for first in range(0, len(slots), most):
        some = slots[first : first + most]
        chosen = used & (post.parent_slot >= int(some[0])) & (post.parent_slot <= int(some[-1]))
        if not own:
            part, samples = post.part(chosen, post.parent_slot)
        else:
            part, samples = post.part(chosen, xp.searchsorted(backend.to_device(some), post.parent_slot))
            assert post.slot_class is not None and post.slot_orientation is not None
            part.slot_class, part.slot_orientation = post.slot_class[some], post.slot_orientation[some]
            part.slices = _slices(sampling, tables, part)
        yield part, chosen, samples


def _slices(sampling: Sampling, tables: GroupTables, post: BlockPosterior) -> Any:
    assert post.slot_class is not None and post.slot_orientation is not None
    matrices = sampling.child_matrices(post.slot_orientation).reshape(-1, 3, 3)
    slices = tables.maker.slices(np.repeat(post.slot_class, sampling.n_children), matrices)
    return slices.reshape(-1, sampling.n_children, 2, len(tables.prepare.lattice))
