"""What a refinement in two half-sets is made of: which particles are whose, a model of each, results of both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cryotk.data import Convergence, Iteration, RefinementModel, as_volume
from cryotk.errors import SettingsError
from cryotk.jobs.half_sets import split_halves
from cryotk.jobs.step import Expectation, StepContext, merge_expectations, run_expectation
from cryotk.jobs.volume_job import CorrelationContext, VolumeJob

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["HalfSetJob"]


class HalfSetJob(VolumeJob):
    """A refinement of one map whose particles are two half-sets, each compared with a model of its own.

    An iteration's ``model`` is the first half's, its ``half2`` the second's. A job defines what :class:`VolumeJob` asks for, with
    two models in each plan.
    """

    half_sets: np.ndarray
    """(n,) half-set of each particle, 1 or 2."""
    _made_half2: RefinementModel | None = None
    _made_half_maps: np.ndarray | None = None

    def _set_half_sets(self, half_sets: np.ndarray) -> None:
        self.half_sets = half_sets
        attrs = dict(self.input_particles["random_subset"].attrs) if "random_subset" in self.input_particles else {}
        self.input_particles = self.input_particles.assign(
            random_subset=("particle", half_sets, attrs or {"relion_label": "rlnRandomSubset"})
        )

    def _refuse_when_finished(self) -> None:
        if self._ended:
            raise SettingsError(
                "the refinement has converged, and has no half-sets to go on with: start a new Refine3D from job.volume and "
                "job.particles, or resume an earlier iteration (its checkpoint) with other settings"
            )

    def _rows(self, half: int) -> np.ndarray:
        return np.nonzero(self.half_sets == half)[0]

    def _group_counts(self, half: int) -> np.ndarray:
        groups = self.data.columns.scale_group[self.data.image_start[:-1]]
        return np.bincount(groups[self._rows(half)], minlength=len(self.data.group_names))

    # -- results -------------------------------------------------------------------------------------------------

    @property
    def volume(self) -> xr.DataArray:
        """Map of the last iteration: of all particles after convergence, before that the mean of the half-maps."""
        it = self.current
        m = it.model
        x = m.references[0] if it.half2 is None else (m.references[0] + it.half2.references[0]) / 2
        return as_volume(x, m.pixel_size, self.source)

    @property
    def half_maps(self) -> tuple[xr.DataArray, xr.DataArray]:
        """Half-maps: unfiltered where the iteration made them (the final one), else as the iteration left them."""
        it = self.current
        if it.half_maps is not None:
            pair = it.half_maps
        else:
            second = it.model if it.half2 is None else it.half2
            pair = np.stack([it.model.references[0], second.references[0]])
        first, second_ = (as_volume(x, it.model.pixel_size, self.source) for x in pair)
        return first, second_

    @property
    def resolution(self) -> float:
        """Å, of the last iteration."""
        return float(self.current.model.current_resolution)

    @property
    def fsc(self) -> xr.DataArray:
        """Correlation of the half-sets (iteration, shell), after they are joined at low resolution."""
        import xarray as xr

        its = [it for it in self.iterations if it.number > 0] or [self.current]
        m = its[-1].model
        shells = np.arange(m.box_size // 2 + 1)
        return xr.DataArray(
            np.stack([it.model.gold_standard_fsc[0] for it in its]), dims=("iteration", "shell"), name="fsc",
            coords={
                "iteration": [it.number for it in its], "shell": shells,
                "frequency": ("shell", shells / (m.box_size * m.pixel_size), {"units": "1/Å"}),
            },
            attrs={"joined_below": self.settings.join_below},
        )  # fmt: skip

    # -- one iteration -------------------------------------------------------------------------------------------

    def _context_of(self, half: int) -> StepContext:
        plan = self.plan()
        kind = CorrelationContext if plan.correlation else StepContext
        return kind(
            plan.models[half - 1], plan.sampling, self.step_settings(), self.data, self._state, plan.size, plan.coarse_step,
            list(plan.references) if half == 1 else [], rows=self._rows(half), origin=self.current.model,
        )  # fmt: skip

    def _contexts(self) -> list[StepContext]:
        """One context for each half-set."""
        return [self._context_of(1), self._context_of(2)]

    def _context(self) -> StepContext:
        return self._context_of(1)

    def _expectation(self, on_block: Callable[[int], None]) -> Expectation:
        clock = time.perf_counter()
        parts = []
        self._refuse_when_finished()
        for half in (1, 2):
            # one after the other: the transforms and tables of one half are in memory at a time
            context = self._context_of(half)
            self._forget_references()
            parts.append(run_expectation(context, threads=self.threads, stop=self._stop, on_block=on_block))
            context.release()
        e = merge_expectations(parts, parts[0].sums, parts[0].context)
        e.parts = parts
        e.seconds["total"] = time.perf_counter() - clock
        return e

    def _make_iteration(
        self, e: Expectation, model: RefinementModel, convergence: Convergence, table: xr.Dataset, numbers: dict[str, float]
    ) -> Iteration:
        new = super()._make_iteration(e, model, convergence, table, numbers)
        new.half2, new.half_maps = self._made_half2, self._made_half_maps
        self._made_half2 = self._made_half_maps = None
        return new

    # -- files ---------------------------------------------------------------------------------------------------

    def _adopt(self, iteration: Iteration) -> None:
        a = self._matched(iteration)
        if "random_subset" in a and np.any(a["random_subset"].values):
            # the halves that RELION refined apart stay apart
            self._set_half_sets(split_halves(self.data.n, a["random_subset"].values, self.settings.seed))
        super()._adopt(iteration)
        iteration.particles = self.input_particles
        iteration.assignments["random_subset"] = ("particle", self.half_sets)
        if iteration.half2 is not None:
            iteration.model.group_counts, iteration.half2.group_counts = self._group_counts(1), self._group_counts(2)

    def _table(self, e: Expectation, norm: np.ndarray) -> xr.Dataset:
        return super()._table(e, norm).assign(random_subset=("particle", self.half_sets))

    def _start_table(self) -> xr.Dataset:
        return super()._start_table().assign(random_subset=("particle", self.half_sets))
