"""The coarse pass: which orientations and offsets of the coarse grid are worth a closer look."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cryotk.data.refinement import RefinementModel
from cryotk.kernels.coarse_rows import shifted_rows
from cryotk.kernels.fine_scores import ragged_scores
from cryotk.kernels.selection import select_dense, select_ragged
from cryotk.likelihood.prepare import Block
from cryotk.likelihood.priors import local_orientations
from cryotk.likelihood.sampling import Sampling
from cryotk.likelihood.tables import ExpectationOptions, GroupTables

__all__ = ["Significant", "coarse_global", "coarse_local"]

COARSE_BYTES = 48_000_000
"""Scores of the coarse pass held at once."""


class Significant(NamedTuple):
    """Significant coarse samples of a block: each particle has parents (orientations), each parent offsets."""

    count: np.ndarray
    """(B,) significant samples of each particle."""
    parent_start: np.ndarray
    """(B + 1,)"""
    parents: np.ndarray
    """(n,) class * orientations + orientation."""
    parent_prior: np.ndarray
    """(n,) log prior of each parent."""
    offset_start: np.ndarray
    """(n + 1,)"""
    offsets: np.ndarray
    """(m,) coarse offsets of each parent, ascending."""


def coarse_global(
    block: Block,
    tables: GroupTables,
    sampling: Sampling,
    options: ExpectationOptions,
    log_prior_orientation: np.ndarray,
    log_prior_t: np.ndarray,
) -> Significant:
    """Score a block at every coarse orientation and offset: two matrix products, then the selection."""
    coarse = tables.coarse
    assert coarse is not None
    images = np.ascontiguousarray(block.score_image[:, :, tables.coarse_pixels])
    weights = np.ascontiguousarray(block.score_weight[:, tables.coarse_pixels])
    n_offsets, n_columns, n_pixels = len(tables.coarse_ramps), len(coarse.real), images.shape[-1]
    per_image = n_offsets * n_columns * 4 * 4
    step = int(max(1, min(len(images), COARSE_BYTES // per_image)))
    parts = []
    for first in range(0, len(images), step):
        some = slice(first, first + step)
        b = len(images[some])
        real = np.empty((b, n_offsets, n_pixels), np.float32)
        imag = np.empty_like(real)
        shifted_rows(images[some], tables.coarse_ramps, real, imag)
        even = (real.reshape(-1, n_pixels) @ coarse.real.T).reshape(b, n_offsets, n_columns)
        odd = (imag.reshape(-1, n_pixels) @ coarse.imag.T).reshape(b, n_offsets, n_columns)
        if not coarse.halved:
            even += odd
        self_term = weights[some] @ coarse.half_power.T
        parts.append(
            select_dense(
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
        )
    count = np.concatenate([p[0] for p in parts])
    parent_start, offset_start = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
    n_parents = n_samples = 0
    for p in parts:
        parent_start.append(p[2][1:] + n_parents)
        offset_start.append(p[4][1:] + n_samples)
        n_parents += len(p[3])
        n_samples += len(p[5])
    parents = np.concatenate([p[3] for p in parts])
    return Significant(
        count,
        np.concatenate(parent_start),
        parents,
        log_prior_orientation[parents],
        np.concatenate(offset_start),
        np.concatenate([p[5] for p in parts]),
    )


def coarse_local(
    block: Block,
    tables: GroupTables,
    sampling: Sampling,
    options: ExpectationOptions,
    model: RefinementModel,
    operators: np.ndarray,
    poses: np.ndarray,
    log_prior_t: np.ndarray,
) -> Significant:
    """Score each particle of a block around its own pose."""
    s, m = sampling, model
    start, orientation, prior = local_orientations(
        poses, s.directions, s.psi, (m.sigma_rot, m.sigma_tilt, m.sigma_psi), operators, options.compat
    )
    classes = np.nonzero(np.asarray(m.class_distribution) > 0)[0]
    n = np.diff(start)
    # every class repeats the particle's list
    parent_start = np.concatenate([[0], np.cumsum(n * len(classes))]).astype(np.int64)
    within = np.concatenate([np.tile(np.arange(a, b), len(classes)) for a, b in zip(start[:-1], start[1:], strict=True)])
    of_class = np.concatenate([np.repeat(classes, k) for k in n])
    parents = (of_class * s.n_orientations + orientation[within]).astype(np.int32)
    # relative to the mean over the particle's list, as the global prior is relative to its mean
    parent_prior = prior[within] + np.repeat(np.log(np.maximum(n, 1)), n * len(classes)).astype(np.float32)
    if options.compat != "relion" and len(classes) > 1:
        p = np.asarray(m.class_distribution, float)
        parent_prior = parent_prior + np.log(p[of_class] * len(p)).astype(np.float32)
    unique, slots = np.unique(parents, return_inverse=True)
    slices = tables.maker.slices(
        unique // s.n_orientations, s.matrices(unique % s.n_orientations), tables.coarse_pixels
    )[:, None]
    n_offsets = len(s.offsets)
    offset_start = np.arange(len(parents) + 1, dtype=np.int64) * n_offsets
    offsets = np.tile(np.arange(n_offsets, dtype=np.int32), len(parents))
    scores = np.empty(len(offsets), np.float32)
    ragged_scores(
        np.ascontiguousarray(block.score_image[:, :, tables.coarse_pixels]),
        np.ascontiguousarray(block.score_weight[:, tables.coarse_pixels]),
        slices,
        tables.coarse_ramps,
        parent_start,
        slots.astype(np.int64),
        parent_prior,
        of_class.astype(np.int32),
        offset_start,
        offsets,
        1,
        log_prior_t,
        scores,
    )
    count, _best, new_start, new_parents, offset_start, offsets, source = select_ragged(
        scores, parent_start, parents, n_offsets, options.adaptive_fraction, options.max_significant
    )
    return Significant(count, new_start, new_parents, parent_prior[source], offset_start, offsets)
