"""Posterior weights of a block of particles, sparse over (class, orientation, offset)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["BlockPosterior", "BlockResult"]


@dataclass
class BlockPosterior:
    """Ragged samples of a block: each particle has parents (coarse orientations), each parent coarse offsets.

    Every (parent, offset) stands for ``n_children * n_offset_children`` fine samples; ``weights`` holds them in the order
    (particle, parent, child, offset, child offset).
    """

    particles: np.ndarray
    n_significant: np.ndarray
    parent_start: np.ndarray
    parent_class: np.ndarray
    parent_orientation: np.ndarray
    offset_start: np.ndarray
    offsets: np.ndarray
    n_children: int
    n_offset_children: int
    parent_direction: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    parent_slot: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    slices: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 2, 1), np.float32))
    slot_class: np.ndarray | None = None
    slot_orientation: np.ndarray | None = None
    slot_matrices: np.ndarray | None = None
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    p_max: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    kept: np.ndarray = field(default_factory=lambda: np.zeros(0))
    best: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    log_likelihood: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def sample_start(self) -> np.ndarray:
        """(B + 1,) first fine sample of each particle in ``weights``."""
        return self.offset_start[self.parent_start] * (self.n_children * self.n_offset_children)

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Parent, child and fine offset (coarse * n_offset_children + child) of positions in ``weights``."""
        per = self.n_children * self.n_offset_children
        if len(self.offsets) == 0:
            zero = np.zeros(len(positions), np.int64)
            return zero, zero, zero
        parent = np.searchsorted(self.offset_start, positions // per, side="right") - 1
        first = self.offset_start[parent]
        count = self.offset_start[parent + 1] - first
        child, rest = np.divmod(positions - first * per, count * self.n_offset_children)
        j, q = np.divmod(rest, self.n_offset_children)
        return parent, child, self.offsets[first + j] * self.n_offset_children + q

    def drop(self, particles: np.ndarray) -> None:
        """Set the weights of flagged particles (B,) bool to zero."""
        start = self.sample_start
        for i in np.nonzero(particles)[0]:
            self.weights[start[i] : start[i + 1]] = 0


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
