"""The coarse pass: which orientations and offsets of the coarse grid are worth a closer look."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from cryotk.data.refinement import RefinementModel
from cryotk.likelihood.parts import Run, one_by_one
from cryotk.likelihood.portions import TILE_BYTES, Portion, Scratch, cut_portions, cut_tiles, pays_in_portions
from cryotk.likelihood.prepare import Block
from cryotk.likelihood.priors import local_orientations
from cryotk.likelihood.sampling import Sampling
from cryotk.likelihood.tables import ExpectationOptions, GroupTables

__all__ = ["Significant", "coarse_global", "coarse_local"]


class Significant(NamedTuple):
    """Significant coarse samples of a block: each particle has parents (orientations), each parent offsets."""

    n_significant: np.ndarray
    """(B,) significant samples of each particle; a numpy array, the lists are the backend's."""
    parent_start: Any
    """(B + 1,)"""
    parents: Any
    """(n,) class * orientations + orientation."""
    parent_prior: Any
    """(n,) log prior of each parent."""
    offset_start: Any
    """(n + 1,)"""
    offsets: Any
    """(m,) coarse offsets of each parent, ascending."""


def coarse_global(
    block: Block,
    tables: GroupTables,
    sampling: Sampling,
    options: ExpectationOptions,
    log_prior_orientation: Any,
    log_prior_t: Any,
    run: Run = one_by_one,
) -> Significant:
    """Score a block at every coarse orientation and offset: two matrix products, then the selection; ``run`` does a few images each."""
    coarse, backend, xp = tables.coarse, tables.backend, tables.backend.xp
    assert coarse is not None
    images = xp.ascontiguousarray(block.score_image[:, :, tables.coarse_index])
    weights = xp.ascontiguousarray(block.score_weight[:, tables.coarse_index])
    n_offsets, n_columns, n_pixels = len(tables.coarse_ramps), len(coarse.real), images.shape[-1]
    per_image = n_offsets * n_columns * 4 * 4
    step = int(max(1, min(len(images), backend.coarse_bytes // per_image)))
    found: dict[int, Any] = {}

    def score(first: int, _ready: Callable[[], None]) -> None:
        some = slice(first, first + step)
        b = len(images[some])
        real = xp.empty((b, n_offsets, n_pixels), np.float32)
        imag = xp.empty_like(real)
        backend.shifted_rows(images[some], tables.coarse_ramps, real, imag)
        even = (real.reshape(-1, n_pixels) @ coarse.real.T).reshape(b, n_offsets, n_columns)
        odd = (imag.reshape(-1, n_pixels) @ coarse.imag.T).reshape(b, n_offsets, n_columns)
        if not coarse.halved:
            even += odd
        self_term = weights[some] @ coarse.half_power.T
        found[first] = backend.select_dense(
            even,
            odd,
            self_term,
            log_prior_orientation,
            log_prior_t[some],
            sampling.n_psi,
            coarse.halved,
            coarse.block_class,
            options.adaptive_fraction,
            options.max_significant,
        )

    run(score, range(0, len(images), step))
    parts = [found[first] for first in sorted(found)]
    parent_start, offset_start = [xp.zeros(1, np.int64)], [xp.zeros(1, np.int64)]
    n_parents = n_samples = 0
    for p in parts:
        parent_start.append(p[2][1:] + n_parents)
        offset_start.append(p[4][1:] + n_samples)
        n_parents += len(p[3])
        n_samples += len(p[5])
    parents = xp.concatenate([p[3] for p in parts])
    return Significant(
        backend.to_host(xp.concatenate([p[0] for p in parts])),
        xp.concatenate(parent_start),
        parents,
        log_prior_orientation[parents],
        xp.concatenate(offset_start),
        xp.concatenate([p[5] for p in parts]),
    )


def coarse_local(
    block: Block,
    tables: GroupTables,
    sampling: Sampling,
    options: ExpectationOptions,
    model: RefinementModel,
    operators: np.ndarray,
    poses: np.ndarray,
    log_prior_t: Any,
    relaxed: np.ndarray | None,
    scratch: Scratch,
) -> Significant:
    """Score each particle of a block around its own pose, and around its mates in a relaxed symmetry."""
    s, m, backend, there = sampling, model, tables.backend, tables.backend.to_device
    start, orientation, prior = local_orientations(
        poses, s.directions, s.psi, (m.sigma_rot, m.sigma_tilt, m.sigma_psi), operators, options.compat, relaxed
    )
    classes = np.nonzero(np.asarray(m.class_distribution) > 0)[0]
    n, xp = np.diff(start), backend.xp
    # every class repeats the particle's list: runs of parents (particle, class), each the particle's list
    parent_start = np.concatenate([[0], np.cumsum(n * len(classes))]).astype(np.int64)
    per, run_class = np.repeat(n, len(classes)), np.tile(classes, len(n))
    run = backend.repeat(np.arange(len(per)), per)
    within = there(np.repeat(start[:-1], len(classes)) - (np.cumsum(per) - per))[run] + xp.arange(len(run))
    parents = there(run_class * s.n_orientations, np.int32)[run] + there(orientation)[within]
    of_class = there(run_class, np.int32)[run]
    # relative to the mean over the particle's list, as the global prior is relative to its mean
    base = np.log(np.maximum(per, 1)).astype(np.float32)
    if options.compat != "relion" and len(classes) > 1:
        p = np.asarray(m.class_distribution, float)
        base += np.log(p[run_class] * len(p)).astype(np.float32)
    parent_prior = there(prior)[within] + there(base)[run]
    unique, slots = xp.unique(parents, return_inverse=True)
    unique = backend.to_host(unique)
    n_offsets = len(s.offsets)
    offset_start = xp.arange(len(parents) + 1, dtype=np.int64) * n_offsets
    offsets = xp.ascontiguousarray(xp.broadcast_to(xp.arange(n_offsets, dtype=np.int32), (len(parents), n_offsets)).reshape(-1))
    del run, within
    scores = xp.empty(len(offsets), np.float32)
    images = backend.xp.ascontiguousarray(block.score_image[:, :, tables.coarse_index])
    weights = backend.xp.ascontiguousarray(block.score_weight[:, tables.coarse_index])
    slot_class, inverse = unique // s.n_orientations, tables.maker.inverses(s.matrices(unique % s.n_orientations))
    n_pixels = len(tables.coarse_pixels)
    small = not backend.on_device and pays_in_portions(parent_start, len(unique), 8 * n_pixels, backend.slot_bytes)
    if small:
        portions: Iterable[Portion] = cut_portions(parent_start, slots, 8 * n_pixels)
    elif not backend.on_device and 8 * n_pixels * len(unique) > TILE_BYTES:
        tiles = cut_tiles(slots, max(1, TILE_BYTES // (8 * n_pixels)))
        portions = (Portion(slice(0, len(n)), chosen, some, slots[chosen] - some[0]) for some, chosen in tiles)
    else:
        portions = [Portion(slice(0, len(n)), slice(0, len(parents)), np.arange(len(unique)), slots)]
    by_parent = scores.reshape(-1, n_offsets)
    for part in portions:
        some, own = part.particles, part.parents
        shape = (len(part.slots), 2, n_pixels)
        room = backend.xp.empty(shape, np.float32) if backend.on_device else scratch.array("slices", shape)
        slices = tables.maker.slices_at(slot_class[part.slots], inverse[part.slots], room, tables.coarse_pixels)
        if isinstance(own, slice):
            start, out = parent_start[some.start : some.stop + 1] - own.start, by_parent[own]
        else:
            start, out = np.searchsorted(own, parent_start), np.empty((len(own), n_offsets), np.float32)
        backend.ragged_scores(
            images[some],
            weights[some],
            slices[:, None],
            tables.coarse_ramps,
            there(start),
            there(part.parent_slot, np.int64),
            parent_prior[own],
            of_class[own],
            offset_start[: len(out) + 1],
            offsets[: out.size],
            1,
            log_prior_t[some],
            out.reshape(-1),
        )
        if not isinstance(own, slice):
            by_parent[own] = out
    count, _best, new_start, new_parents, new_offset_start, new_offsets, source = backend.select_ragged(
        scores, there(parent_start), parents, n_offsets, options.adaptive_fraction, options.max_significant
    )
    return Significant(backend.to_host(count), new_start, new_parents, parent_prior[source], new_offset_start, new_offsets)
