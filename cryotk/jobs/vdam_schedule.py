"""VDAM's schedules: how many particles, how large a step and how strong a prior at each mini-batch.

A run of n mini-batches has three phases: many small batches with large steps, a transition in which batches grow while
steps shrink, and large batches with small steps. The numbers are those of RELION 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["BatchSizes", "Phases", "Schedule", "batch_sizes", "mini_batch"]

Kind = Literal["class2d", "initial_model", "class3d"]

INITIAL_STEP = 0.9
FINAL_STEP: dict[str, float] = {"class2d": 0.3, "initial_model": 0.5, "class3d": 0.3}
SIGNIFICANT_PER_CLASS = {"class2d": 5, "initial_model": 100, "class3d": 100}
REPORT_EVERY = 10
"""Accuracies are estimated, and angular sampling reconsidered, at mini-batches 1, n and multiples of this."""


@dataclass(frozen=True)
class Phases:
    """Numbers of mini-batches of the three phases."""

    initial: int
    between: int
    final: int

    @classmethod
    def of(cls, n_batches: int, initial: float = 0.3, final: float = 0.2) -> Phases:
        """Divide a run; fractions that leave no room for the transition are scaled down."""
        if initial + final > 0.9:
            total = initial + final + 0.1
            initial, final = initial / total, final / total
        first, last = int(n_batches * initial + 1e-9), int(n_batches * final + 1e-9)
        return cls(first, n_batches - first - last, last)


@dataclass(frozen=True)
class BatchSizes:
    """Particles per mini-batch in the first and in the last phase."""

    initial: int
    final: int


def batch_sizes(kind: Kind, n_particles: int) -> BatchSizes:
    """Default sizes of mini-batches.

    Parameters
    ----------
    kind : {"class2d", "initial_model", "class3d"}
    n_particles : int

    Returns
    -------
    BatchSizes
        They may exceed the number of particles: then every batch is the whole set.
    """
    n = n_particles
    if kind == "class2d":
        return BatchSizes(int(max(min(0.005 * n, 10_000), 200)), int(max(min(0.05 * n, 100_000), 1000)))
    if kind == "initial_model":
        return BatchSizes(int(max(min(0.005 * n, 5000), 200)), int(max(min(0.1 * n, 50_000), 1000)))
    return BatchSizes(int(max(min(0.1 * n, 100_000), 200)), int(max(min(0.1 * n, 100_000), 1000)))


def _sigmoid(x: float, start: float, width: float) -> float:
    """From 1 to 0 as x passes ``start + width / 2``."""
    if width <= 0:
        return 1.0 if x < start else 0.0
    exponent = np.clip((x - start - width / 2) / (width / 4), -300, 300)
    return float(1.0 / (10.0**exponent + 1.0))


@dataclass(frozen=True)
class Schedule:
    """What changes from one mini-batch to the next, as functions of its number (from 1; 0 is the start).

    Parameters
    ----------
    kind : {"class2d", "initial_model", "class3d"}
    n_batches : int
    n_particles : int
    tau2_fudge : float
        Final weight of the data against the prior.
    n_classes : int
    report_every : int
        Mini-batches between looks at accuracies and sampling.
    """

    kind: Kind
    n_batches: int
    n_particles: int
    tau2_fudge: float
    n_classes: int = 1
    report_every: int = REPORT_EVERY

    @property
    def phases(self) -> Phases:
        """Lengths of the three phases."""
        return Phases.of(self.n_batches)

    @property
    def batch_sizes(self) -> BatchSizes:
        """Particles per mini-batch in the first and in the last phase."""
        return batch_sizes(self.kind, self.n_particles)

    def subset_size(self, iteration: int) -> int:
        """Particles of a mini-batch; -1 for all of them, whose order then does not matter."""
        p, b = self.phases, self.batch_sizes
        if iteration < p.initial:
            size = b.initial
        elif iteration < p.initial + p.between:
            size = b.initial + int(np.floor((iteration - p.initial) / p.between * (b.final - b.initial) + 0.5))
        else:
            size = b.final
        # in the end every particle gets a class
        last = iteration >= self.n_batches and self.n_classes > 1
        return -1 if size >= self.n_particles or last else size

    def step_size(self, iteration: int) -> float:
        """How far a map moves along its momentum."""
        if self.kind == "class3d":
            return FINAL_STEP[self.kind]
        p, final = self.phases, FINAL_STEP[self.kind]
        s = _sigmoid(iteration, p.initial, p.between // 2)
        return INITIAL_STEP * s + final * (1 - s)

    def tau2(self, iteration: int) -> float:
        """Weight of the data against the prior: from 1 to its final value."""
        if self.kind == "class3d":
            return self.tau2_fudge
        p = self.phases
        s = _sigmoid(iteration, p.initial, p.between // 4)
        return s + self.tau2_fudge * (1 - s)

    def reports(self, iteration: int) -> bool:
        """Whether accuracies and sampling are looked at in this mini-batch."""
        return iteration in (1, self.n_batches) or iteration % self.report_every == 0

    def in_transition(self, iteration: int) -> bool:
        """Whether inactive classes are replaced at this mini-batch."""
        p = self.phases
        return p.initial < iteration < p.initial + p.between

    def moves_classes(self, iteration: int) -> bool:
        """Whether maps far from their centre of mass are moved there, with their momenta."""
        return iteration < self.phases.initial + self.phases.between

    @property
    def max_significant(self) -> int:
        """Coarse samples of a particle that are looked at closely."""
        return SIGNIFICANT_PER_CLASS[self.kind] * self.n_classes


def mini_batch(n_particles: int, size: int, seed: int, iteration: int) -> np.ndarray:
    """Rows of a mini-batch, ascending: the first of a fresh shuffle for every iteration.

    Parameters
    ----------
    n_particles, size : int
        ``size`` < 0 takes all.
    seed, iteration : int
        The batch depends on these alone.

    Returns
    -------
    (size,) int64
    """
    if size < 0 or size >= n_particles:
        return np.arange(n_particles)
    return np.sort(np.random.default_rng([seed, iteration, 11]).permutation(n_particles)[:size])
