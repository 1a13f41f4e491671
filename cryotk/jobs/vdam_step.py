"""The expectation step of a mini-batch: some of the particles, residual images, two pseudo halves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from cryotk.data import Convergence
from cryotk.execution.device import on_devices
from cryotk.execution.lanes import cut_lanes, run_lanes, tree_sum
from cryotk.jobs.blocks import MAX_LANES_2D, MAX_LANES_3D, block_size
from cryotk.jobs.step import Expectation, StepContext, run_lane
from cryotk.likelihood import ExpectationStep
from cryotk.likelihood.posterior import BlockPosterior
from cryotk.likelihood.sums import Sums
from cryotk.likelihood.tables import GroupTables

__all__ = ["BatchContext", "BatchExpectation", "ResidualStep", "pseudo_half", "run_batch"]

LANE_PARTICLES = 250
"""A pseudo half of more is worth a second lane of volumes, which inserts all its orientations again."""
SLOT_BYTES = 400_000_000
"""Slices and rows of a block's orientations."""


class ResidualStep(ExpectationStep):
    """An expectation step that inserts what the model does not explain: images minus their predictions."""

    def _insert(
        self, sums: Sums, tables: GroupTables, post: BlockPosterior, slots: np.ndarray, slices: Any, rows: Any, row_weights: Any
    ) -> None:
        # sum w C s (X - s C V) / sigma2 is the data minus V times its weight, one subtraction per orientation
        rows -= row_weights[:, :, None, :] * slices
        super()._insert(sums, tables, post, slots, slices, rows, row_weights)


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


def _cut(context: StepContext, batch: np.ndarray, significant: float) -> list[list[list[np.ndarray]]]:
    """Blocks of one optics group, in lanes, of each pseudo half; depends on nothing but batch and model.

    What a block costs apart from its particles (slices, insertion) is paid once per block: a lane of volumes is one
    block as long as the orientations its particles share fit into memory.
    """
    group, half = context.data.group_of_particle(), pseudo_half(context.data.micrograph_order)
    backend, pixels = context.backend, int(0.4 * context.size * context.size) + 1
    most = block_size(4 * len(batch), pixels, backend)
    if context.model.is_3d:
        s = context.sampling
        slots = max(1, SLOT_BYTES // (s.n_children * 5 * pixels * 4))
        if slots < s.n_orientations * context.model.n_classes:
            most = min(most, max(8, int(slots / max(significant, 1.0))))
    out = []
    for h in range(2):
        rows = batch[half[batch] == h]
        lanes_wanted = MAX_LANES_2D // 2
        if context.model.is_3d:
            lanes_wanted = int(np.clip(-(-len(rows) // LANE_PARTICLES), 1, MAX_LANES_3D // 2))
        if backend.lanes:
            lanes_wanted = max(1, min(lanes_wanted, backend.lanes // 2))
        per = max(1, min(most, -(-len(rows) // lanes_wanted)))
        blocks = []
        for g in range(len(context.data.optics)):
            some = rows[group[rows] == g]
            blocks += [some[i : i + per] for i in range(0, len(some), per)]
        out.append([[blocks[i] for i in lane] for lane in cut_lanes(len(blocks), lanes_wanted)] if blocks else [])
    return out


def run_batch(
    context: StepContext,
    batch: np.ndarray,
    *,
    significant: float = 1.0,
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
    significant : float
        Coarse samples per particle to expect, which bounds the size of blocks.
    threads, stop, on_block
        As for ``run_expectation``.
    """
    by_half = _cut(context, batch, significant)
    lanes = [lane for part in by_half for lane in part]
    of_half = [h for h, part in enumerate(by_half) for _ in part]
    parts = run_lanes(run_lane, context, on_devices(lanes, context.devices), threads=threads, stop=stop, on_block=on_block)
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
    out.seconds = context.seconds
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
