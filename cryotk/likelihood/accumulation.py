"""The second half of the expectation step: what the posterior of a block adds to the sums of the maximisation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cryotk.data.refinement import RefinementModel
from cryotk.kernels.backends import Backend
from cryotk.likelihood.half_turns import fold_half_turns, half_turns
from cryotk.likelihood.parts import Part, Run, one_by_one, parts
from cryotk.likelihood.portions import Scratch
from cryotk.likelihood.posterior import BlockPosterior, BlockResult
from cryotk.likelihood.prepare import Block
from cryotk.likelihood.sampling import Sampling
from cryotk.likelihood.sums import Sums
from cryotk.likelihood.tables import ExpectationOptions, GroupTables

__all__ = ["Accumulation"]

class Accumulation:
    """Methods of :class:`cryotk.likelihood.expectation.ExpectationStep` that add to :class:`Sums`."""

    model: RefinementModel
    sampling: Sampling
    options: ExpectationOptions
    backend: Backend
    tables: list[GroupTables]
    signal_shell: np.ndarray
    is_3d: bool
    local: bool
    n_classes: int
    n_shells: int
    seconds: dict[str, float]
    timed = False
    """Wait for the device at the end of each pass, so that ``seconds`` are those of the passes."""
    scratch: Scratch

    def _lap(self, name: str, since: float) -> float:
        if self.timed:
            self.backend.synchronize()
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - since
        return now

    def accumulate(
        self,
        sums: Sums,
        block: Block,
        post: BlockPosterior,
        result: BlockResult,
        norm_old: np.ndarray,
        norm_average: float,
        scale_group: np.ndarray,
        ready: Callable[[], None] | None = None,
        run: Run = one_by_one,
    ) -> None:
        """Add a block's contribution to ``sums`` and set ``result.norm_correction``.

        Parameters
        ----------
        norm_old : (I,) float
            Normalisation factors the images were divided by.
        norm_average : float
            Their average, which the images were multiplied by.
        scale_group : (I,) int
        ready : callable, optional
            Called before anything is added to ``sums``; returns when it is this block's turn.
        run : callable, optional
            Does the parts of the block.
        """
        tables = self.tables[block.optics_group]
        m, s = self.model, self.sampling
        if result.flagged.any():
            post.drop(result.flagged)
        backend, xp, there = self.backend, self.backend.xp, self.backend.to_device
        noise = xp.zeros((len(block.images), tables.prepare.optics.box_size // 2 + 1))
        blank = there(np.stack([block.scale, 0 * block.scale, 0 * block.scale], -1))
        per_image = blank.copy()
        per_particle = xp.zeros((len(block.particles), 2))
        of_class = xp.zeros(sums.class_weight.shape), xp.zeros(sums.class_offset.shape), xp.zeros(sums.direction_weight.shape)
        prior = np.zeros((self.n_classes, 2)) if m.prior_offset is None else np.asarray(m.prior_offset, float)
        a = tables.prepare.optics.pixel_size
        # RELION compares pixels with an Å prior in 2D
        prior_a = there(prior * a if (self.options.compat == "relion" and not self.is_3d) else prior)
        offset_xy = there(s.fine_offsets if self.options.align else np.zeros((1, 2)), np.float64)
        old_offset = there((block.old_offset_px + block.rest_px) * a)
        signal = there(self.signal_shell[:, np.clip(tables.model_shell, 0, self.n_shells - 1)])

        def add(make: Callable[[], Part], turn: Callable[[], None]) -> None:
            clock = time.perf_counter()
            part = make()
            lists, some = part.lists, part.particles
            images = slice(int(block.image_start[some.start]), int(block.image_start[some.stop]))
            slots, compact = self._slots_in_use(part.parent_slot, len(part.slices))
            slices = part.slices if len(slots) == len(part.slices) else part.slices[slots]
            of_block = backend.to_host(slots)
            if part.slots is not None:
                of_block = part.slots[of_block]
            rows = self._zeros("rows", (*slices.shape[:2], 2, slices.shape[-1]))
            row_weights = self._zeros("row weights", (*slices.shape[:2], slices.shape[-1]))
            # sums of the part alone: parts may be done side by side, and are added in their order
            own_noise, own_image, own_particle = xp.zeros_like(noise[images]), blank[images].copy(), xp.zeros_like(per_particle[some])
            own_class = [xp.zeros_like(v) for v in of_class]
            clock = self._lap("slices", clock)
            backend.accumulate(
                block.data[some],
                block.data_weight[some],
                block.masked[images],
                block.model_ctf[images],
                there(block.image_start[some.start : some.stop + 1] - images.start),
                slices,
                tables.fine_ramps,
                lists.parent_start,
                compact,
                lists.parent_class,
                lists.parent_direction,
                lists.offset_start,
                lists.offsets,
                post.n_offset_children,
                lists.weights,
                tables.prepare.shell,
                signal,
                offset_xy,
                old_offset[some],
                prior_a,
                rows,
                row_weights,
                own_noise,
                own_image,
                own_particle,
                *own_class,
                tables.fine_grid,
            )
            clock = self._lap("accumulate", clock)
            turn()
            if ready is not None:
                ready()
            clock = self._lap("turn", clock)
            per_particle[some] += own_particle
            noise[images] += own_noise
            per_image[images, 1:] += own_image[:, 1:]
            for total, own in zip(of_class, own_class, strict=True):
                total += own
            # on a device nothing is added to the sums before all that can run out of memory is done: there is one part
            self._insert(sums, tables, post, of_block, slices, rows, row_weights)
            self._lap("insert", clock)

        run(add, parts(s, tables, post, self.scratch))
        clock = time.perf_counter()
        noise, per_image, per_particle = (backend.to_host(v) for v in (noise, per_image, per_particle))
        class_weight, class_offset, direction_weight = (backend.to_host(v) for v in of_class)
        sums.class_weight += class_weight
        sums.class_offset += class_offset
        sums.direction_weight += direction_weight
        self._add_noise(sums, block, tables, noise, per_image, per_particle, result, norm_old, norm_average, scale_group)
        self._lap("noise", clock)

    def _slots_in_use(self, parent_slot: Any, n_slots: int) -> tuple[Any, Any]:
        """Slots that parents use, ascending, and the position among them of each parent's."""
        xp = self.backend.xp
        used = xp.zeros(n_slots, bool)
        used[parent_slot] = True
        if bool(used.all()):
            return xp.arange(n_slots), parent_slot.astype(np.int64, copy=False)
        return xp.flatnonzero(used), (xp.cumsum(used) - 1)[parent_slot]

    def _zeros(self, name: str, shape: tuple[int, ...]) -> Any:
        """Zeros of float32, in memory that is used again where the step runs on the CPU."""
        if self.backend.on_device:
            return self.backend.xp.zeros(shape, np.float32)
        out = self.scratch.array(name, shape)
        out[:] = 0
        return out

    def _insert(
        self, sums: Sums, tables: GroupTables, post: BlockPosterior, slots: np.ndarray, slices: Any, rows: Any, row_weights: Any
    ) -> None:
        """Insert rows of the block's ``slots``; ``slices`` are the references' there."""
        s, backend = self.sampling, self.backend
        n_children = rows.shape[1]
        classes, orientation = np.divmod(slots, s.n_orientations)
        if post.slot_class is not None:
            classes = post.slot_class[slots]
        if post.slot_orientation is not None:
            orientation = post.slot_orientation[slots]
        if self.is_3d and self.options.align and not self.local and s.n_psi % 2 == 0:
            upper, partner, _ = half_turns(classes * np.int64(s.n_orientations) + orientation, s.n_psi)
            if len(upper):
                fold_half_turns(rows, row_weights, upper, partner, backend)
        rows = rows.reshape(-1, *rows.shape[2:])
        row_weights = row_weights.reshape(-1, row_weights.shape[-1])
        used = np.nonzero(backend.to_host(row_weights[:, 0] > 0))[0]
        slot, child = np.divmod(used, n_children)
        if post.slot_inverse is not None:
            inverse = post.slot_inverse[slots[slot], child]
        else:
            different, at = np.unique(slot, return_inverse=True)
            inverse = tables.maker.inverses(s.child_matrices(orientation[different])).reshape(-1, n_children, 3, 3)[at, child]
        tables.maker.insert_at(sums.accumulators, classes[slot], inverse, rows, row_weights, used)

    def _add_noise(self, sums: Sums, block: Block, tables: GroupTables, noise: np.ndarray, per_image: np.ndarray,
                   per_particle: np.ndarray, result: BlockResult, norm_old: np.ndarray, norm_average: float,
                   scale_group: np.ndarray) -> None:
        half = tables.prepare.lattice.window // 2
        of_image = np.repeat(np.arange(len(block.particles)), np.diff(block.image_start))
        weight = per_particle[of_image, 0]
        good = ~result.flagged
        outside = block.outside_power * good[of_image, None]
        outside[:, half] *= weight
        noise += outside
        # the norm sum runs over all image shells
        residual = noise.sum(1)
        with np.errstate(invalid="ignore"):
            norm = np.asarray(norm_old, float) / norm_average * np.sqrt(2 * residual)
        result.norm_correction = np.where(good[of_image], norm, norm_old)
        g = block.optics_group
        model_shell = tables.model_shell
        inside = model_shell < self.n_shells
        np.add.at(sums.noise[g], model_shell[inside], noise[:, inside].sum(0))
        sums.noise_weight[g] += weight.sum()
        sums.norm += float(norm[good[of_image]].sum())
        np.add.at(sums.scale_cross, scale_group, per_image[:, 1])
        np.add.at(sums.scale_self, scale_group, per_image[:, 2])
        sums.weight += float(per_particle[:, 0].sum())
        sums.offset_squared += float(per_particle[:, 1].sum())
        sums.log_likelihood += float(result.log_likelihood[good].sum())
        sums.p_max += float(result.p_max[good].sum())
        sums.n_particles += int(good.sum())
        if tables.prepare.optics.premultiplied:
            power = np.bincount(tables.prepare.lattice.shell, self.backend.to_host(block.model_ctf.sum(0)), minlength=self.n_shells)
            sums.ctf_power += power[: self.n_shells]

