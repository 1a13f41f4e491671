"""The expectation step for blocks of particles: coarse scores, significant samples, fine scores, posterior, sums.

Everything that is the same for all particles of an iteration (slices, phase ramps, priors) is made once, in
:class:`ExpectationStep`; its methods then do one block of particles of one optics group. It knows
no files, threads or schedules.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from cryotk.data.refinement import RefinementModel
from cryotk.geometry import euler_to_matrix, relaxation_operators, symmetry_operators
from cryotk.kernels.backends import Backend
from cryotk.likelihood.accumulation import Accumulation
from cryotk.likelihood.coarse import coarse_global, coarse_local
from cryotk.likelihood.parts import Part, Run, one_by_one, parts
from cryotk.likelihood.portions import Scratch
from cryotk.likelihood.posterior import BlockPosterior, BlockResult
from cryotk.likelihood.prepare import Block, ImagePreparation
from cryotk.likelihood.priors import log_prior_offsets, log_prior_orientations, mean_offset_prior
from cryotk.likelihood.sampling import Sampling
from cryotk.likelihood.sums import Sums
from cryotk.likelihood.tables import ExpectationOptions, GroupTables, make_group_tables
from cryotk.projection import Accumulator, FourierReference

__all__ = ["ExpectationOptions", "ExpectationStep"]


class ExpectationStep(Accumulation):
    """All that blocks of one iteration share.

    Parameters
    ----------
    model : RefinementModel
        The model the images are compared with; ``current_size`` is the size of this iteration.
    sampling : Sampling
    references : list of FourierReference
        Of ``model.references`` at the current size.
    preparations : list of ImagePreparation
        One per optics group, all of one backend: where the step runs.
    options : ExpectationOptions
    """

    any_backend: ClassVar[bool] = True
    """Whether the step is written over the arrays of its backend; else it runs on the CPU."""

    def __init__(
        self,
        model: RefinementModel,
        sampling: Sampling,
        references: list[FourierReference],
        preparations: list[ImagePreparation],
        options: ExpectationOptions,
    ) -> None:
        self.model, self.sampling, self.references, self.options = model, sampling, references, options
        self.backend: Backend = preparations[0].backend
        self.n_classes = len(references)
        self.is_3d = model.is_3d
        self.operators = symmetry_operators(sampling.settings.symmetry) if self.is_3d else np.eye(3)[None]
        self.local = options.align and model.orientational_prior_mode > 0 and model.sigma_psi > 0 and self.is_3d
        relaxed = options.relax_symmetry
        self.relaxed = relaxation_operators(sampling.settings.symmetry, relaxed) if relaxed and self.local else None
        self.active = np.asarray(model.class_distribution) > 0
        n_shells = model.box_size // 2 + 1
        self.n_shells = n_shells
        self.signal_shell = (np.asarray(model.data_vs_prior)[:, :n_shells] > options.signal_limit).astype(np.float32)
        if options.align and not self.local:
            distribution = model.direction_distribution
            if distribution is None:
                distribution = np.asarray(model.class_distribution, float)[:, None]
            self.log_prior_orientation = self.backend.to_device(
                log_prior_orientations(np.asarray(distribution, float), sampling.n_psi)
            )
        n_dirs = sampling.n_directions if options.align else 1
        self.n_directions = n_dirs
        self.seconds: dict[str, float] = {}
        self.scratch = Scratch()
        self.tables = [make_group_tables(p, model, sampling, references, options, self.local) for p in preparations]

    def empty_sums(self, n_scales: int) -> Sums:
        """Sums over no particles, of the shapes of this iteration; the accumulators are where the step runs."""
        m = self.model

        def make() -> Accumulator:
            accumulator = Accumulator(m.box_size, m.current_size, m.padding, self.is_3d)
            accumulator.data, accumulator.weight = (self.backend.to_device(v) for v in (accumulator.data, accumulator.weight))
            return accumulator

        return Sums.empty(self.n_classes, len(self.tables), self.n_shells, n_scales, self.n_directions, make)

    def on_host(self, sums: Sums) -> Sums:
        """The same sums with their accumulators in numpy arrays."""
        for a in sums.accumulators:
            a.data, a.weight = self.backend.to_host(a.data), self.backend.to_host(a.weight)
        return sums

    # -- one block ---------------------------------------------------------------------------------------------

    def posterior(
        self, block: Block, poses: np.ndarray, prior_xy: np.ndarray | None = None, run: Run = one_by_one
    ) -> BlockPosterior:
        """Posterior of the particles of a block.

        Parameters
        ----------
        block : Block
        poses : (B, 3) float
            Current angles, the centre of local searches and the pose when nothing is aligned.
        prior_xy : (B, 2) float, optional
            Offset prior of each particle in Å (3D; 0 when absent).
        run : callable, optional
            Does the parts of the block.
        """
        tables = self.tables[block.optics_group]
        if not self.options.align:
            return self._posterior_fixed(block, tables, poses, prior_xy)
        clock = time.perf_counter()
        log_prior_t = self._log_prior_offsets(block, tables, prior_xy)
        if self.local:
            selected = coarse_local(
                block, tables, self.sampling, self.options, self.model, self.operators, poses, log_prior_t, self.relaxed, self.scratch
            )
        else:
            selected = coarse_global(block, tables, self.sampling, self.options, self.log_prior_orientation, log_prior_t, run)
        count, parent_start, parents, parent_prior, offset_start, offsets = selected
        clock = self._lap("coarse", clock)
        s = self.sampling
        post = BlockPosterior(
            particles=block.particles,
            n_significant=count,
            parent_start=parent_start,
            parent_class=(parents // s.n_orientations).astype(np.int32),
            parent_orientation=parents % s.n_orientations,
            offset_start=offset_start,
            offsets=offsets,
            n_children=s.n_children,
            n_offset_children=s.n_offset_children,
            backend=self.backend,
        )
        post.parent_direction = (post.parent_orientation // s.n_psi).astype(np.int64)
        xp = self.backend.xp
        if tables.fine is not None:
            post.parent_slot, post.slices = parents.astype(np.int64), tables.fine
            post.slot_class, post.slot_orientation = None, None
        else:
            different, slots = xp.unique(parents, return_inverse=True)
            post.parent_slot, unique = slots.astype(np.int64), self.backend.to_host(different)
            post.slot_class = unique // s.n_orientations
            post.slot_orientation = unique % s.n_orientations
        per = s.n_children * s.n_offset_children
        scores = xp.empty(len(offsets) * per, np.float32)

        def score(make: Callable[[], Part], _ready: Callable[[], None]) -> None:
            clock = time.perf_counter()
            part = make()
            clock = self._lap("slices", clock)
            lists, some = part.lists, part.particles
            if part.samples is None:
                first = int(offset_start[part.parents.start or 0]) * per
                out = scores[first : first + len(lists.offsets) * per]
            else:
                out = xp.empty(len(lists.offsets) * per, np.float32)
            self.backend.ragged_scores(
                block.score_image[some],
                block.score_weight[some],
                part.slices,
                tables.fine_ramps,
                lists.parent_start,
                part.parent_slot,
                parent_prior[part.parents],
                lists.parent_class,
                lists.offset_start,
                lists.offsets,
                s.n_offset_children,
                log_prior_t[some],
                out,
                tables.fine_grid,
            )
            if part.samples is not None:
                scores.reshape(-1, per)[part.samples] = out.reshape(-1, per)
            self._lap("fine", clock)

        run(score, parts(s, tables, post, self.scratch))
        clock = time.perf_counter()
        self._finish(block, post, scores, log_prior_t)
        self._lap("posterior", clock)
        return post

    def _log_prior_offsets(self, block: Block, tables: GroupTables, prior_xy: np.ndarray | None) -> Any:
        m, there = self.model, self.backend.to_device
        if self.is_3d:
            prior = np.zeros((len(block.particles), 1, 2)) if prior_xy is None else np.asarray(prior_xy)[:, None, :]
        else:
            prior = np.zeros((1, self.n_classes, 2)) if m.prior_offset is None else np.asarray(m.prior_offset)[None]
        offsets = self.sampling.offsets if self.options.align else np.zeros((1, 2))
        out = log_prior_offsets(
            there(block.old_offset_px + block.rest_px),
            there(offsets),
            there(prior),
            m.sigma_offset,
            tables.prepare.optics.pixel_size,
            self.is_3d,
            self.options.compat,
        )
        return self.backend.xp.ascontiguousarray(out)

    def _posterior_fixed(
        self, block: Block, tables: GroupTables, poses: np.ndarray, prior_xy: np.ndarray | None
    ) -> BlockPosterior:
        """Classes only: every particle at its own pose (the fractional offset is in the images already)."""
        b = len(block.particles)
        classes = np.nonzero(self.active)[0]
        k = len(classes)
        rot, tilt, psi = (poses[:, 0], poses[:, 1], poses[:, 2]) if self.is_3d else (0 * poses[:, 2], 0 * poses[:, 2], poses[:, 2])
        matrices = np.repeat(euler_to_matrix(rot, tilt, psi), k, 0)
        parent_class = np.tile(classes, b).astype(np.int32)
        backend, there = self.backend, self.backend.to_device
        post = BlockPosterior(
            particles=block.particles,
            n_significant=np.full(b, k, np.int32),
            parent_start=there(np.arange(b + 1, dtype=np.int64) * k),
            parent_class=there(parent_class),
            parent_orientation=there(np.zeros(b * k, np.int64)),
            offset_start=there(np.arange(b * k + 1, dtype=np.int64)),
            offsets=there(np.zeros(b * k, np.int32)),
            n_children=1,
            n_offset_children=1,
            backend=backend,
        )
        post.parent_direction = there(np.zeros(b * k, np.int64))
        post.parent_slot = there(np.arange(b * k))
        post.slot_class = parent_class
        inverse = tables.maker.inverses(matrices)
        post.slot_inverse = inverse[:, None]
        shape = (b * k, 2, len(tables.prepare.lattice))
        out = backend.xp.empty(shape, np.float32) if backend.on_device else self.scratch.array("fixed slices", shape)
        post.slices = tables.maker.slices_at(parent_class, inverse, out)[:, None]
        p = np.asarray(self.model.class_distribution, float)
        prior = np.log(np.maximum(p, 1e-300) / p.mean())[parent_class]
        log_prior_t = self._log_prior_offsets(block, tables, prior_xy)
        scores = backend.xp.empty(b * k, np.float32)
        backend.ragged_scores(
            block.score_image,
            block.score_weight,
            post.slices,
            tables.fine_ramps,
            post.parent_start,
            post.parent_slot,
            there(prior, np.float32),
            post.parent_class,
            post.offset_start,
            post.offsets,
            1,
            log_prior_t,
            scores,
        )
        self._finish(block, post, scores, log_prior_t)
        post.n_significant = (backend.to_host(post.weights).reshape(b, k) > 0).sum(1).astype(np.int32)
        return post

    def _finish(self, block: Block, post: BlockPosterior, scores: Any, log_prior_t: Any) -> None:
        post.weights = scores
        found = self.backend.posterior_weights(scores, post.sample_start, self.options.adaptive_fraction)
        post.p_max, log_sum, post.kept, post.best = (self.backend.to_host(v) for v in found)
        constant = self.backend.to_host(mean_offset_prior(log_prior_t, self.backend.xp))
        post.log_likelihood = log_sum - constant + block.constant

    def result(self, block: Block, post: BlockPosterior, poses: np.ndarray) -> BlockResult:
        """Best pose and numbers of each particle of a block."""
        s = self.sampling
        good = block.usable & (post.best >= 0)
        parent, child, offset = post.locate(np.where(post.best >= 0, post.best, 0))
        at = self.backend.to_device(parent)
        parent_class, orientation = (self.backend.to_host(v[at]) for v in (post.parent_class, post.parent_orientation))
        a = self.tables[block.optics_group].prepare.optics.pixel_size
        old = block.old_offset_px * a
        if self.options.align:
            angles = s.pose(orientation, child) if len(parent) else np.zeros((0, 3))
            shift = old + s.fine_offsets[offset]
        else:
            angles, shift = poses.copy(), np.full_like(old, np.nan)
        if not self.is_3d:
            angles = np.concatenate([poses[:, :2], angles[:, 2:]], 1)
        return BlockResult(
            particles=block.particles,
            class_number=np.where(good, parent_class + 1, 0),
            angles=np.where(good[:, None], angles, poses),
            shifts=np.where(good[:, None], shift, np.nan),
            p_max=np.where(good, post.p_max, 0.0),
            n_significant=np.where(good, post.n_significant, 0),
            log_likelihood=np.where(good, post.log_likelihood, 0.0),
            flagged=~good,
        )
