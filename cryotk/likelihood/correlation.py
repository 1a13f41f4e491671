"""Alignment by normalised cross-correlation, for references whose grey scale is not that of the images.

The probability of a pose needs a reference on the absolute scale of the data. Where it is not known, the first iteration takes
the best correlating pose of each particle with weight 1; its map then has the scale.
"""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np

from cryotk.kernels.coarse_rows import shifted_rows
from cryotk.likelihood.expectation import ExpectationStep
from cryotk.likelihood.parts import Run, one_by_one
from cryotk.likelihood.posterior import BlockPosterior
from cryotk.likelihood.prepare import Block
from cryotk.likelihood.priors import local_orientations
from cryotk.likelihood.tables import GroupTables

__all__ = ["CorrelationStep"]


class CorrelationStep(ExpectationStep):
    """An expectation step whose posterior is the best correlating pose alone.

    ``log_likelihood`` of the posterior is the correlation, between -1 and 1, over the window without its origin, unweighted by
    the noise. It is done once in a run, and on the CPU.
    """

    any_backend: ClassVar[bool] = False

    def posterior(
        self, block: Block, poses: np.ndarray, prior_xy: np.ndarray | None = None, run: Run = one_by_one
    ) -> BlockPosterior:
        """Best pose of each particle of a block; see :meth:`ExpectationStep.posterior`."""
        tables, s = self.tables[block.optics_group], self.sampling
        clock = time.perf_counter()
        inverse = tables.prepare.score_inverse_noise
        noise = np.where(inverse > 0, 1 / np.where(inverse > 0, inverse, 1), 0).astype(np.float32)
        images, weights = block.score_image * noise, block.score_weight * noise
        power = np.maximum(np.einsum("icp,icp->i", images, images, dtype=np.float64), 1e-300)
        if not self.options.align:
            return self._best_class(self._posterior_fixed(block, tables, poses, prior_xy), images, weights, power)
        if self.local:
            parents, offsets = self._best_local(tables, images, weights, poses)
        else:
            parents, offsets = self._best_coarse(tables, images, weights)
        clock = self._lap("coarse", clock)
        n = len(parents)
        post = BlockPosterior(
            particles=block.particles, n_significant=np.ones(n, np.int32), parent_start=np.arange(n + 1, dtype=np.int64),
            parent_class=(parents // s.n_orientations).astype(np.int32), parent_orientation=parents % s.n_orientations,
            offset_start=np.arange(n + 1, dtype=np.int64), offsets=offsets.astype(np.int32), n_children=s.n_children,
            n_offset_children=s.n_offset_children,
        )
        post.parent_direction = (post.parent_orientation // s.n_psi).astype(np.int64)
        unique, slots = np.unique(parents, return_inverse=True)
        post.slot_class, post.slot_orientation = unique // s.n_orientations, unique % s.n_orientations
        matrices = s.child_matrices(post.slot_orientation).reshape(-1, 3, 3)
        slices = tables.maker.slices(np.repeat(post.slot_class, s.n_children), matrices)
        post.slices = slices.reshape(-1, s.n_children, 2, len(tables.prepare.lattice))
        post.parent_slot = slots.astype(np.int64)
        clock = self._lap("slices", clock)
        over = s.n_offset_children
        score = np.empty((n, s.n_children, over), np.float32)
        ramps = tables.fine_ramps.reshape(-1, over, *tables.fine_ramps.shape[1:])
        for i in range(n):
            v = post.slices[post.parent_slot[i]]
            product = (v[:, 0] + 1j * v[:, 1]) * (images[i, 0] - 1j * images[i, 1])
            e = ramps[offsets[i]]
            cross = product.real @ e[:, 0].T + product.imag @ e[:, 1].T
            own = ((v**2).sum(1) * weights[i]).sum(1)
            score[i] = cross / np.sqrt(np.maximum(own, 1e-30))[:, None]
        best = score.reshape(n, -1).argmax(1)
        value = score.reshape(n, -1)[np.arange(n), best]
        per = s.n_children * over
        post.weights = np.zeros(n * per, np.float32)
        post.best = np.arange(n, dtype=np.int64) * per + best
        post.weights[post.best] = 1.0
        post.p_max, post.kept = np.ones(n, np.float32), np.ones(n)
        # |C X| stands for |X|: the same for all poses of a particle
        post.log_likelihood = value / np.sqrt(power)
        self._lap("fine", clock)
        return post

    def _best_class(self, post: BlockPosterior, images: np.ndarray, weights: np.ndarray, power: np.ndarray) -> BlockPosterior:
        """Keep the best correlating class of particles whose poses stay."""
        n = len(images)
        v = post.slices.reshape(n, -1, 2, images.shape[-1])
        own = np.maximum(np.einsum("nkcp,nkcp,np->nk", v, v, weights), 1e-30)
        score = np.einsum("nkcp,ncp->nk", v, images) / np.sqrt(own)
        best = score.argmax(1)
        post.best = np.arange(n, dtype=np.int64) * v.shape[1] + best
        post.weights = np.zeros(n * v.shape[1], np.float32)
        post.weights[post.best] = 1.0
        post.n_significant = np.ones(n, np.int32)
        post.p_max, post.kept = np.ones(n, np.float32), np.ones(n)
        post.log_likelihood = score[np.arange(n), best] / np.sqrt(power)
        return post

    def _best_coarse(self, tables: GroupTables, images: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Best (class, orientation) and offset of each image on the coarse grid."""
        coarse, n_psi = tables.coarse, self.sampling.n_psi
        assert coarse is not None
        images = np.ascontiguousarray(images[:, :, tables.coarse_pixels])
        weights = np.ascontiguousarray(weights[:, tables.coarse_pixels])
        n_offsets, n_columns, n_pixels = len(tables.coarse_ramps), len(coarse.real), images.shape[-1]
        allowed = self.active[coarse.block_class].repeat(n_columns // len(coarse.block_class))
        step = int(max(1, min(len(images), tables.backend.coarse_bytes // (n_offsets * n_columns * 16))))
        parents, offsets = np.empty(len(images), np.int64), np.empty(len(images), np.int64)
        width = n_psi // 2 if coarse.halved else n_psi
        for first in range(0, len(images), step):
            some = slice(first, first + step)
            b = len(images[some])
            real = np.empty((b, n_offsets, n_pixels), np.float32)
            imag = np.empty_like(real)
            shifted_rows(images[some], tables.coarse_ramps, real, imag)
            even = (real.reshape(-1, n_pixels) @ coarse.real.T).reshape(b, n_offsets, n_columns)
            odd = (imag.reshape(-1, n_pixels) @ coarse.imag.T).reshape(b, n_offsets, n_columns)
            own = np.sqrt(np.maximum(weights[some] @ coarse.half_power.T, 1e-30))[:, None, :]
            # psi + 180 is the conjugate slice: even - odd
            score = even + (np.abs(odd) if coarse.halved else odd)
            score /= own
            score[:, :, ~allowed] = -np.inf
            flat = score.reshape(b, -1).argmax(1)
            t, column = np.divmod(flat, n_columns)
            turned = coarse.halved & (odd.reshape(b, -1)[np.arange(b), flat] < 0)
            block, psi = np.divmod(column, width)
            parents[some] = block * n_psi + psi + np.where(turned, width, 0)
            offsets[some] = t
        return parents, offsets

    def _best_local(
        self, tables: GroupTables, images: np.ndarray, weights: np.ndarray, poses: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Best (class, orientation) around each particle's pose, and offset, on the coarse grid."""
        s, m = self.sampling, self.model
        sigmas = (m.sigma_rot, m.sigma_tilt, m.sigma_psi)
        start, near, _ = local_orientations(poses, s.directions, s.psi, sigmas, self.operators, self.options.compat, self.relaxed)
        classes = np.nonzero(self.active)[0]
        pixels, ramps = tables.coarse_pixels, tables.coarse_ramps
        turned = ramps[:, 0] - 1j * ramps[:, 1]
        parents, offsets = np.empty(len(images), np.int64), np.empty(len(images), np.int64)
        for i in range(len(images)):
            o = near[start[i] : start[i + 1]].astype(np.int64)
            of_class = np.repeat(classes, len(o))
            v = tables.maker.slices(of_class, np.tile(s.matrices(o), (len(classes), 1, 1)), pixels)
            product = (v[:, 0] + 1j * v[:, 1]) * (images[i, 0, pixels] - 1j * images[i, 1, pixels])
            own = np.maximum(((v**2).sum(1) * weights[i, pixels]).sum(1), 1e-30)
            score = (product @ turned.T).real / np.sqrt(own)[:, None]
            best, offsets[i] = np.divmod(int(score.argmax()), len(ramps))
            parents[i] = of_class[best] * s.n_orientations + np.tile(o, len(classes))[best]
        return parents, offsets
