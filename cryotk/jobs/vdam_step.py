"""The expectation step of a mini-batch: some of the particles, residual images, two pseudo halves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from cryotk.data import Convergence
from cryotk.execution.lanes import cut_lanes, run_lanes, tree_sum
from cryotk.jobs.step import MAX_LANES_2D, MAX_LANES_3D, Expectation, StepContext, block_size, run_lane
from cryotk.likelihood import ExpectationStep
from cryotk.likelihood.posterior import BlockPosterior
from cryotk.likelihood.sums import Sums
from cryotk.likelihood.tables import GroupTables

__all__ = ["BatchContext", "BatchExpectation", "ResidualStep", "pseudo_half", "run_batch"]


class ResidualStep(ExpectationStep):
    """An expectation step that inserts what the model does not explain: images minus their predictions."""

    def _insert(self, sums: Sums, tables: GroupTables, post: BlockPosterior, slot_used: np.ndarray, rows: np.ndarray,
                row_weights: np.ndarray) -> None:
        # sum w C s (X - s C V) / sigma2 is the data minus V times its weight, one subtraction per orientation
        slices = post.slices if len(slot_used) == len(post.slices) else post.slices[slot_used]
        rows -= row_weights[:, :, None, :] * slices
        super()._insert(sums, tables, post, slot_used, rows, row_weights)


@dataclass
class BatchContext(StepContext):
    """What the lanes of a mini-batch share."""

    convergence: Convergence | None = None
    """Counters after the sampling was reconsidered; those of the last iteration otherwise."""
    step_type: ClassVar[type[ExpectationStep]] = ResidualStep


@dataclass
class BatchExpectation(Expectation):
    """An expectation over a mini-batch; poses of the other particles are the old ones."""

    batch: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(B,) rows of the particles compared."""
    halves: tuple[Sums, ...] = ()
    """Sums of the two pseudo halves; ``sums`` is both, without accumulators."""


def pseudo_half(micrograph_order: np.ndarray) -> np.ndarray:
    """(n,) 0 or 1: the parity of each particle's rank in the table sorted by micrograph, fixed for a run."""
    half = np.empty(len(micrograph_order), np.int64)
    half[micrograph_order] = np.arange(len(micrograph_order)) % 2
    return half


def _cut(context: StepContext, batch: np.ndarray) -> list[np.ndarray]:
    """Blocks of one optics group and one pseudo half."""
    group, half = context.data.group_of_particle(), pseudo_half(context.data.micrograph_order)
    per = block_size(len(batch), int(0.4 * context.size * context.size) + 1)
    out = []
    for h in range(2):
        for g in range(len(context.data.optics)):
            rows = batch[(group[batch] == g) & (half[batch] == h)]
            out += [rows[i : i + per] for i in range(0, len(rows), per)]
    return out


def run_batch(
    context: StepContext,
    batch: np.ndarray,
    *,
    threads: int | None = None,
    stop: threading.Event | None = None,
    on_block: Callable[[int], None] | None = None,
) -> BatchExpectation:
    """Run the expectation step over a mini-batch.

    Parameters
    ----------
    context : StepContext
        A :class:`BatchContext` for gradients.
    batch : (B,) int
        Rows, ascending.
    threads, stop, on_block
        As for ``run_expectation``.
    """
    half = pseudo_half(context.data.micrograph_order)
    blocks = _cut(context, batch)
    most = MAX_LANES_3D if context.model.is_3d else MAX_LANES_2D
    lanes, of_half = [], []
    for h in range(2):
        mine = [b for b in blocks if half[b[0]] == h]
        for lane in cut_lanes(len(mine), max(1, most // 2)) if mine else []:
            lanes.append([mine[i] for i in lane])
            of_half.append(h)
    parts = run_lanes(run_lane, context, lanes, threads=threads, stop=stop, on_block=on_block)
    n_scales = len(context.data.group_names)
    halves = tuple(
        tree_sum([p[0] for p, o in zip(parts, of_half, strict=True) if o == h] or [context.step.empty_sums(n_scales)])
        for h in range(2)
    )
    n = context.data.n
    out = BatchExpectation(
        _without_accumulators(halves[0]) + _without_accumulators(halves[1]), np.zeros(n, int), context.state.poses.copy(),
        context.state.shifts.copy(), np.zeros(n), np.zeros(n, int), np.zeros(n), context.state.norm.copy(), np.zeros(n, bool), {},
        context, batch=batch, halves=halves,
    )  # fmt: skip
    for _sums, results in parts:
        for r, images in results:
            _take(out, r, images)
    if "step" in context.__dict__:
        out.seconds = dict(context.step.seconds)
    return out


def _take(out: Expectation, r: Any, images: np.ndarray) -> None:
    p = r.particles
    out.class_number[p], out.poses[p] = r.class_number, r.angles
    known = np.isfinite(r.shifts).all(1)
    out.shifts[p[known]] = r.shifts[known]
    out.p_max[p], out.n_significant[p] = r.p_max, r.n_significant
    out.log_likelihood[p], out.flagged[p] = r.log_likelihood, r.flagged
    out.norm[images] = r.norm_correction


def _without_accumulators(sums: Sums) -> Sums:
    values = {f.name: getattr(sums, f.name) for f in fields(sums)}
    return Sums(**(values | {"accumulators": []}))
