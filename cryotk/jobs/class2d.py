"""2D classification by expectation-maximisation or by VDAM, one step at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from cryotk.data import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.data.notices import warn_caller
from cryotk.errors import SettingsError
from cryotk.execution.lanes import default_threads
from cryotk.jobs.bookkeeping import advance, changes, estimate_model_accuracy, next_perturbation
from cryotk.jobs.maximization import MaximizationSettings, maximize
from cryotk.jobs.parameters import describe
from cryotk.jobs.resources import Work, offsets_in
from cryotk.jobs.settings import RefinementSettings, draw_seed
from cryotk.jobs.start import initial_averages, initial_noise, initial_resolution_shell
from cryotk.jobs.step import Expectation, StepContext, StepSettings
from cryotk.jobs.updates import coarse_window, next_image_size, round_int
from cryotk.jobs.vdam import GradientJob
from cryotk.jobs.vdam_maximization import BatchSettings
from cryotk.jobs.vdam_schedule import Schedule
from cryotk.jobs.vdam_start import random_references
from cryotk.jobs.vdam_step import BatchExpectation

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Class2D", "Class2DSettings"]

ITERATION_0 = 0


class Class2DSettings(RefinementSettings):
    """Settings of :class:`Class2D`, checked at once. Defaults are those of RELION's window."""

    n_classes: int = Field(ge=1, le=100_000)
    tau2_fudge: float = Field(2.0, gt=0)
    n_iterations: int = Field(25, ge=1)
    psi_step: float = Field(6.0, gt=0, le=90)
    resolution_limit: float | None = Field(None, gt=0)
    center_classes: bool = True
    align: bool = True
    algorithm: Literal["em", "vdam"] = "em"
    n_batches: int = Field(200, ge=1)
    inactivity_threshold: float = Field(0.1, ge=0, lt=1)


@describe
class Class2D(GradientJob):
    """2D class averages by expectation-maximisation or by VDAM.

    Parameters
    ----------
    {particles}
    n_classes : int
    {mask_diameter}
    {tau2_fudge}
    n_iterations : int
        Of expectation-maximisation.
    algorithm : {"em", "vdam"}
        Full iterations over all particles, or mini-batches with momenta, which need few passes over large sets.
    n_batches : int
        Mini-batches of VDAM.
    psi_step : float
        In-plane sampling in degrees, after oversampling.
    {offset_range_px, offset_step_px}
    {resolution_limit}
    {zero_mask}
    center_classes : bool
        Move averages to their centre of mass.
    align : bool
        False keeps every particle's pose and only sorts.
    {do_ctf}
    {ctf_intact_first_peak}
    {seed}
    {compat}
    {device}
    {expert}

    Examples
    --------
    >>> job = Class2D(particles, n_classes=50)  # doctest: +SKIP
    >>> step = job.iterate()  # doctest: +SKIP

    References
    ----------
    Scheres, S.H.W. (2012) J. Mol. Biol. 415, 406-418; J. Struct. Biol. 180, 519-530.
    """

    settings_type: ClassVar[type[RefinementSettings]] = Class2DSettings
    settings: Class2DSettings

    def __init__(
        self,
        particles: xr.Dataset | str | Path,
        n_classes: int,
        mask_diameter: float = 200.0,
        tau2_fudge: float = 2.0,
        n_iterations: int = 25,
        psi_step: float = 6.0,
        offset_range_px: float = 5.0,
        offset_step_px: float = 1.0,
        resolution_limit: float | None = None,
        zero_mask: bool = True,
        center_classes: bool = True,
        align: bool = True,
        do_ctf: bool = True,
        ctf_intact_first_peak: bool = False,
        seed: int | None = None,
        compat: Literal["relion"] | None = None,
        device: str = "auto",
        algorithm: Literal["em", "vdam"] = "em",
        n_batches: int = 200,
        **expert: Any,
    ) -> None:
        seed = draw_seed(seed)
        values = {k: v for k, v in locals().items() if k in Class2DSettings.model_fields} | expert
        super().__init__(particles, **values)
        idle, used = ("n_batches", "n_iterations") if algorithm == "em" else ("n_iterations", "n_batches")
        if values[idle] != Class2DSettings.model_fields[idle].default:
            warn_caller(f"{idle} = {values[idle]} has no part in algorithm={algorithm!r}: the length of its runs is {used}")

    @property
    def n_iterations(self) -> int:
        """Iterations, or mini-batches, that a run does."""
        return self.settings.n_batches if self.settings.algorithm == "vdam" else self.settings.n_iterations

    @property
    def schedule(self) -> Schedule | None:
        """Batches, steps and prior of a VDAM run; None for expectation-maximisation."""
        s = self.settings
        return Schedule("class2d", s.n_batches, self.data.n, s.tau2_fudge, s.n_classes) if s.algorithm == "vdam" else None

    def _batch_settings(self, schedule: Schedule, number: int) -> BatchSettings:
        s = self.settings
        return replace(
            super()._batch_settings(schedule, number),
            center_classes=s.center_classes and schedule.moves_classes(number), center_limit_px=s.offset_range_px,
            inactivity_threshold=s.inactivity_threshold if schedule.in_transition(number) else 0.0,
        )  # fmt: skip

    # -- schedule ------------------------------------------------------------------------------------------------

    def _sampling(self, iteration: int, previous: float) -> SamplingSettings:
        s = self.settings
        a = self.data.optics[0].pixel_size
        step = 2 * s.psi_step
        n_psi = int(np.ceil(360.0 / step - 1e-9))
        perturbation = 0.0
        if s.align and s.perturbation_factor > 0:
            perturbation = next_perturbation(previous, s.perturbation_factor, s.seed, iteration)
        return SamplingSettings(
            is_3d=False, psi_step=360.0 / n_psi, offset_range=s.offset_range_px * a, offset_step=2 * s.offset_step_px * a,
            perturbation=perturbation, perturbation_factor=s.perturbation_factor, psi_step_original=360.0 / n_psi,
            offset_range_original=s.offset_range_px * a, offset_step_original=2 * s.offset_step_px * a,
        )

    def _initialise(self) -> Iteration:
        s, data = self.settings, self.data
        optics = data.optics[0]
        box, a, n_shells = optics.box_size, optics.pixel_size, optics.box_size // 2 + 1
        noise = initial_noise(data, box, a, s.mask_diameter, s.zero_mask)
        rng = np.random.default_rng([s.seed, ITERATION_0])
        make = initial_averages if self.schedule is None else random_references
        references = make(
            data, s.n_classes, box, a, noise, s.mask_diameter, rng, padding=s.padding, do_ctf=s.do_ctf,
            intact_first_peak=s.ctf_intact_first_peak,
        )
        k = s.n_classes
        shell = initial_resolution_shell(box)
        zeros = np.zeros((k, n_shells))
        model = RefinementModel(
            references=references, pixel_size=a, noise_power=noise, class_distribution=np.full(k, 1 / k), prior_power=zeros,
            data_vs_prior=zeros, reference_noise=zeros, fourier_completeness=zeros, gold_standard_fsc=zeros,
            group_names=data.group_names, group_counts=data.group_counts, group_scales=np.ones(len(data.group_names)),
            prior_offset=np.zeros((k, 2)), current_resolution=box * a / shell, current_size=0, padding=s.padding,
            tau2_fudge=s.tau2_fudge if self.schedule is None else 1.0, accuracy_rotation=np.full(k, 999.0), accuracy_translation=np.full(k, 999.0),
            class_resolution=np.full(k, box * a / shell), class_completeness=np.zeros(k),
            # images that carry norms of an earlier run start at their mean
            norm_average=1.0 if s.compat == "relion" else float(data.norm.mean()),
        )
        return self._start_iteration(model, self._sampling(0, 0.0))

    def _work(self) -> Work:
        s, data = self.settings, self.data
        box, schedule = data.optics[0].box_size, self.schedule
        size, significant = min(box, int(0.14 * box) + 20), 10.0
        n_psi = int(np.ceil(360.0 / (2 * s.psi_step) - 1e-9))
        n_offsets = offsets_in(s.offset_range_px / (2 * s.offset_step_px))
        if self.iterations:
            c, m = self.iterations[-1].convergence, self.iterations[-1].model
            shell = round_int(m.box_size * m.pixel_size / m.current_resolution) if np.isfinite(m.current_resolution) else 1
            size = next_image_size(shell, m.box_size, c.increment_size, m.average_p_max, c.has_high_fsc_at_limit)
            significant = self.iterations[-1].numbers.get("mean_significant", significant)
            if significant > 100:
                # while averages sharpen, each iteration leaves fewer open than the last
                significant *= 0.75
        if self.iteration == 0:
            # averages of random particles tell hardly anything apart
            significant = 0.5 * s.n_classes * n_psi * n_offsets
        step = 2 * s.psi_step
        window = coarse_window(box, data.optics[0].pixel_size, step, s.mask_diameter, size, False)
        batch = data.n if schedule is None else schedule.subset_size(self.iteration + 1)
        return Work(
            n_particles=data.n if batch < 0 else batch, n_rows=data.n, box=box, size=size, padding=s.padding, n_classes=s.n_classes,
            is_3d=False, orientations=n_psi if s.align else 1, n_children=2 if s.align else 1, n_offsets=n_offsets if s.align else 1,
            coarse_pixels=np.pi / 8 * window**2 + window, significant=significant if s.align else s.n_classes,
            threads=self.threads or default_threads(), align=s.align, batch=schedule is not None,
        )  # fmt: skip

    def step_settings(self) -> StepSettings:
        """How images are compared with references."""
        return replace(super().step_settings(), max_significant=0 if self.schedule is None else self.schedule.max_significant)

    def _context(self) -> StepContext:
        """Everything the next expectation needs."""
        current = self.current
        m, c = current.model, current.convergence
        box = m.box_size * m.pixel_size
        shell = round_int(box / m.current_resolution) if np.isfinite(m.current_resolution) else 1
        size = next_image_size(shell, m.box_size, c.increment_size, m.average_p_max, c.has_high_fsc_at_limit)
        sampling = self._sampling(current.number + 1, current.sampling.perturbation)
        step = current.sampling.psi_step / 2
        return self._make_context(m, sampling, self.step_settings(), self.data, self._state, size, 2 * step)

    def _maximize(self, e: Expectation) -> tuple[RefinementModel, np.ndarray, Convergence, dict[str, float]]:
        s, previous = self.settings, self.current
        if isinstance(e, BatchExpectation):
            return self._batch_step(e)
        model, norm = maximize(
            e,
            MaximizationSettings(
                tau2_fudge=s.tau2_fudge, mask_diameter=s.mask_diameter, center_classes=s.center_classes,
                center_limit_px=s.offset_range_px, align=s.align, compat=s.compat,
            ),
            threads=self.threads,
        )
        accuracy = estimate_model_accuracy(e.context, e.poses, np.random.default_rng([s.seed, previous.number + 1, 1]))
        model.accuracy_rotation, model.accuracy_translation = accuracy
        old = self._state
        moved = changes(previous.assignments["class_number"].values, e.class_number, old.poses, e.poses, old.shifts, e.shifts)
        return model, norm, advance(previous, model, moved), {}

    # -- files ---------------------------------------------------------------------------------------------------

    def _optimiser_entries(self) -> dict[str, Any]:
        s = self.settings
        return self._common_entries() | {
            "rlnNumberOfIterations": self.n_iterations, "rlnHighresLimitExpectation": float(s.resolution_limit or -1.0),
            "rlnTau2FudgeArg": float(s.tau2_fudge), "rlnDoSkipAlign": not s.align, "rlnDoCenterClasses": s.center_classes,
            "rlnSgdClassInactivityThreshold": s.inactivity_threshold if s.algorithm == "vdam" else 0.0,
        } | self._gradient_entries()  # fmt: skip

    @classmethod
    def _settings_from_relion(cls, path: Path, it: Iteration) -> dict[str, Any]:
        if it.model.is_3d:
            raise SettingsError(f"{path} is a 3D refinement; Class2D goes on from 2D classifications")
        optimiser, a = it.optimiser, it.model.pixel_size
        values = cls._common_settings(it) | {
            "n_classes": it.model.n_classes,
            "tau2_fudge": it.model.tau2_fudge,
            "n_iterations": int(optimiser.get("rlnNumberOfIterations", 25)),
            "psi_step": it.sampling.psi_step / 2,
            "offset_range_px": it.sampling.offset_range / a,
            "offset_step_px": it.sampling.offset_step / a / 2,
            "center_classes": bool(int(optimiser.get("rlnDoCenterClasses", 0))),
            "align": not bool(int(optimiser.get("rlnDoSkipAlign", 0))),
            "resolution_limit": cls._resolution_limit(it),
        }
        if int(optimiser.get("rlnDoGradientRefine", 0)):
            values |= {
                "algorithm": "vdam", "n_batches": values.pop("n_iterations"),
                "tau2_fudge": float(optimiser.get("rlnTau2FudgeArg", 2)),
                "inactivity_threshold": float(optimiser.get("rlnSgdClassInactivityThreshold", 0.1)),
            }  # fmt: skip
        return values

    def __repr__(self) -> str:
        s = self.settings
        return f"<Class2D: {self.data.n} particles, {s.n_classes} classes, T = {s.tau2_fudge:g}, {self._status} of {self.n_iterations}>"
