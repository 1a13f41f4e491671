"""Posterior weights of a block of particles, sparse over (class, orientation, offset)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from cryotk.kernels.backends import CPU, Backend

__all__ = ["BlockPosterior", "BlockResult"]


@dataclass
class BlockPosterior:
    """Ragged samples of a block: each particle has parents (coarse orientations), each parent coarse offsets.

    Every (parent, offset) stands for ``n_children * n_offset_children`` fine samples; ``weights`` holds them in the order
    (particle, parent, child, offset, child offset). Lists of parents and samples are arrays of ``backend``; what there is one
    of per particle or slot is numpy's.
    """

    particles: np.ndarray
    n_significant: np.ndarray
    parent_start: Any
    parent_class: Any
    parent_orientation: Any
    offset_start: Any
    offsets: Any
    n_children: int
    n_offset_children: int
    parent_direction: Any = field(default_factory=lambda: np.zeros(0, np.int64))
    parent_slot: Any = field(default_factory=lambda: np.zeros(0, np.int64))
    slices: Any = field(default_factory=lambda: np.zeros((0, 1, 2, 1), np.float32))
    """(n_slots, C, 2, P), or empty where they are made part by part."""
    slot_class: np.ndarray | None = None
    slot_orientation: np.ndarray | None = None
    slot_inverse: np.ndarray | None = None
    """(n_slots, C, 3, 3) inverse rotations of slices, where they are not those of ``slot_orientation``."""
    weights: Any = field(default_factory=lambda: np.zeros(0, np.float32))
    p_max: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    kept: np.ndarray = field(default_factory=lambda: np.zeros(0))
    best: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    log_likelihood: np.ndarray = field(default_factory=lambda: np.zeros(0))
    backend: Backend = CPU

    @property
    def sample_start(self) -> Any:
        """(B + 1,) first fine sample of each particle in ``weights``."""
        return self.offset_start[self.parent_start] * (self.n_children * self.n_offset_children)

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Parent, child and fine offset (coarse * n_offset_children + child) of positions in ``weights``."""
        per = self.n_children * self.n_offset_children
        if len(self.offsets) == 0:
            zero = np.zeros(len(positions), np.int64)
            return zero, zero, zero
        there, back = self.backend.to_device, self.backend.to_host
        parent = self.backend.xp.searchsorted(self.offset_start, there(positions // per), side="right") - 1
        first = back(self.offset_start[parent])
        count = back(self.offset_start[parent + 1]) - first
        child, rest = np.divmod(positions - first * per, count * self.n_offset_children)
        j, q = np.divmod(rest, self.n_offset_children)
        return back(parent), child, back(self.offsets[there(first + j)]) * self.n_offset_children + q

    def ragged(self) -> RaggedPart:
        """The lists of everything."""
        return RaggedPart(
            self.parent_start, self.parent_class, self.parent_direction, self.offset_start, self.offsets, self.weights
        )

    def part(self, particles: slice, parents: slice) -> RaggedPart:
        """Lists of consecutive particles and their parents, counted from the first of them."""
        parent_start = self.parent_start[particles.start : particles.stop + 1]
        offset_start = self.offset_start[parents.start : parents.stop + 1]
        first, last = int(offset_start[0]), int(offset_start[-1])
        per = self.n_children * self.n_offset_children
        return RaggedPart(
            parent_start - parent_start[0], self.parent_class[parents], self.parent_direction[parents], offset_start - first,
            self.offsets[first:last], self.weights[first * per : last * per],
        )  # fmt: skip

    def chosen(self, parents: Any) -> tuple[RaggedPart, Any]:
        """Lists of all particles with some of the parents, (n,) ascending, and which rows of ``weights_by_offset`` are theirs."""
        xp = self.backend.xp
        first, count = self.offset_start[parents], xp.diff(self.offset_start)[parents]
        offset_start = xp.concatenate([xp.zeros(1, np.int64), xp.cumsum(count)])
        n = int(offset_start[-1])
        # cupy's repeat takes no array of counts: the parent of each offset is found by its position
        of_parent = xp.searchsorted(offset_start, xp.arange(n), side="right") - 1
        rows = xp.arange(n) + (first - offset_start[:-1])[of_parent]
        weights = self.weights_by_offset[rows].reshape(-1) if len(self.weights) else self.weights
        parent_start = xp.searchsorted(parents, self.parent_start)
        lists = parent_start, self.parent_class[parents], self.parent_direction[parents], offset_start
        return RaggedPart(*lists, self.offsets[rows], weights), rows

    @property
    def weights_by_offset(self) -> Any:
        """``weights`` with as many in a row as each coarse offset of a parent stands for; a parent's rows are neighbours."""
        return self.weights.reshape(-1, self.n_children * self.n_offset_children)

    def drop(self, particles: np.ndarray) -> None:
        """Set the weights of flagged particles (B,) bool to zero."""
        start = self.backend.to_host(self.sample_start)
        for i in np.nonzero(particles)[0]:
            self.weights[int(start[i]) : int(start[i + 1])] = 0

    def on_host(self) -> BlockPosterior:
        """The same in numpy arrays."""
        if not self.backend.on_device:
            return self
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "backend"}
        there: dict[str, Any] = {k: self.backend.to_host(v) for k, v in values.items() if isinstance(v, self.backend.xp.ndarray)}
        return replace(self, backend=CPU, **there)


@dataclass(frozen=True)
class RaggedPart:
    """Lists of some particles and parents of a :class:`BlockPosterior`."""

    parent_start: Any
    parent_class: Any
    parent_direction: Any
    offset_start: Any
    offsets: Any
    weights: Any


@dataclass
class BlockResult:
    """What the expectation step says of each particle of a block."""

    particles: np.ndarray
    class_number: np.ndarray
    angles: np.ndarray
    shifts: np.ndarray
    p_max: np.ndarray
    n_significant: np.ndarray
    log_likelihood: np.ndarray
    flagged: np.ndarray
    norm_correction: np.ndarray = field(default_factory=lambda: np.zeros(0))
