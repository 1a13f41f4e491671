"""A first map from particles alone: VDAM from random blobs, then the axes of the point group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from cryotk.data import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.errors import SettingsError
from cryotk.execution.lanes import default_threads
from cryotk.geometry import directions
from cryotk.jobs.auto_sampling import angular_step
from cryotk.jobs.bookkeeping import estimate_model_accuracy, next_perturbation
from cryotk.jobs.initial_model_schedule import (
    InitialModelSettings,
    flat_directions,
    next_sampling,
    with_directions,
)
from cryotk.jobs.parameters import describe
from cryotk.jobs.resources import Work, offsets_in
from cryotk.jobs.settings import RefinementSettings, draw_seed
from cryotk.jobs.start import initial_noise, initial_resolution_shell
from cryotk.jobs.step import Expectation, StepContext, StepSettings
from cryotk.jobs.updates import coarse_window, next_image_size, round_int
from cryotk.jobs.vdam import GradientJob
from cryotk.jobs.vdam_maximization import BatchSettings
from cryotk.jobs.vdam_schedule import REPORT_EVERY, Schedule
from cryotk.jobs.vdam_start import random_references
from cryotk.jobs.vdam_step import BatchContext, BatchExpectation
from cryotk.projection.symmetry_search import SymmetryAxes, find_symmetry_axes, place_on_axes

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["InitialModel", "InitialModelSettings"]

SIGMA_OFFSET = 5.0
"""Å; expected width of offsets at the start. RELION's 10 Å act as 10 / pixel size, which is narrower still."""


@describe
class InitialModel(GradientJob):
    """A first map, from particles without poses, by VDAM: mini-batches with momenta (Kimanius et al. 2024).

    The start is random and so is the way: other seeds give other maps, some better than others. **The hand of the map is
    arbitrary**: projections do not tell a molecule from its mirror image, and every second run ends with the wrong one. Turn it
    (``volume[..., ::-1]``) when helices or a known structure say so.

    Parameters
    ----------
    particles : Dataset or path
        What :func:`cryotk.open_particles` gives, or its path. Poses and offsets in it are where the search begins.
    n_classes : int
        More than one sorts junk away; :attr:`volume` is the largest class.
    symmetry : str
        Point group of the particle.
    run_in_c1 : bool
        Work without symmetry, which finds the way more easily, and look for the axes in the end. Otherwise impose it from the
        first mini-batch.
    {mask_diameter}
    tau2_fudge : float
        Final weight of the data against the prior (T); it begins at 1.
    n_batches : int
        Mini-batches: 30 % small ones with large steps, 50 % growing, 20 % large ones with small steps.
    initial_sampling : float
        Angular sampling of the start in degrees, after oversampling; it gets finer as the map does.
    offset_range_px, offset_step_px : float
        Search range and step of offsets in pixels at the start, step after oversampling.
    resolution_limit : float, optional
        Å; images are compared no finer. An initial model needs no more, and what few particles seem to show beyond is mostly
        their noise: RELION, which has no such limit here, takes it in. None (with ``compat="relion"``) for its way.
    flatten_solvent : bool
        Set the map to 0 outside the mask after every mini-batch.
    {zero_mask}
    {do_ctf}
    {ctf_intact_first_peak}
    {seed}
    {compat}
    {device}
    {expert}

    Examples
    --------
    >>> job = InitialModel(particles, symmetry="D2")  # doctest: +SKIP
    >>> job.run().number  # doctest: +SKIP
    200
    >>> job.volume  # doctest: +SKIP

    References
    ----------
    Kimanius, D. et al. (2024) IUCrJ 11, 140-156.
    """

    settings_type: ClassVar[type[RefinementSettings]] = InitialModelSettings
    settings: InitialModelSettings
    of_the_start = frozenset({"initial_sampling", "offset_range_px", "offset_step_px", "initial_sigma_offset"})

    def __init__(
        self,
        particles: xr.Dataset | str | Path,
        n_classes: int = 1,
        symmetry: str = "C1",
        run_in_c1: bool = True,
        mask_diameter: float = 200.0,
        tau2_fudge: float = 4.0,
        n_batches: int = 200,
        initial_sampling: float = 15.0,
        offset_range_px: float = 6.0,
        offset_step_px: float = 1.0,
        resolution_limit: float | None = 15.0,
        flatten_solvent: bool = True,
        zero_mask: bool = True,
        do_ctf: bool = True,
        ctf_intact_first_peak: bool = False,
        seed: int | None = None,
        compat: Literal["relion"] | None = None,
        device: str = "auto",
        **expert: Any,
    ) -> None:
        seed = draw_seed(seed)
        values = {k: v for k, v in locals().items() if k in InitialModelSettings.model_fields} | expert
        super().__init__(particles, **values)
        self._axes: tuple[RefinementModel, SymmetryAxes] | None = None
        self._planned: tuple[RefinementModel, StepContext] | None = None

    @property
    def n_iterations(self) -> int:
        """Mini-batches that a run does."""
        return self.settings.n_batches

    @property
    def working_symmetry(self) -> str:
        """Point group imposed on the way."""
        return "C1" if self.settings.run_in_c1 else self.settings.symmetry

    @property
    def schedule(self) -> Schedule:
        """Batches, steps and prior at each mini-batch."""
        s = self.settings
        # short runs look as often as long ones, relative to their length
        every = REPORT_EVERY if s.compat == "relion" else int(np.clip(s.n_batches // 20, 1, REPORT_EVERY))
        return Schedule("initial_model", s.n_batches, self.data.n, s.tau2_fudge, s.n_classes, every)

    # -- start ---------------------------------------------------------------------------------------------------

    def _first_sampling(self, a: float) -> SamplingSettings:
        s = self.settings
        order = max(0, round(np.log2(30.0 / s.initial_sampling)))
        step = angular_step(order, 0)
        reach, offset_step = s.offset_range_px * a, 2 * s.offset_step_px * a
        return with_directions(SamplingSettings(
            is_3d=True, healpix_order=order, symmetry=self.working_symmetry, psi_step=step, offset_range=reach,
            offset_step=offset_step, perturbation_factor=s.perturbation_factor, healpix_order_original=order,
            psi_step_original=step, offset_range_original=reach, offset_step_original=offset_step,
        ))  # fmt: skip

    def _initialise(self) -> Iteration:
        s, data = self.settings, self.data
        optics = data.optics[0]
        box, a, k = optics.box_size, optics.pixel_size, s.n_classes
        noise = initial_noise(data, box, a, s.mask_diameter, s.zero_mask)
        references = random_references(
            data, k, box, a, noise, s.mask_diameter, np.random.default_rng([s.seed, 0]), padding=s.padding, do_ctf=s.do_ctf,
            intact_first_peak=s.ctf_intact_first_peak, symmetry=self.working_symmetry,
        )
        sampling = self._first_sampling(a)
        assert sampling.directions is not None
        zeros, shell = np.zeros((k, box // 2 + 1)), initial_resolution_shell(box)
        model = RefinementModel(
            references=references, pixel_size=a, noise_power=noise, class_distribution=np.full(k, 1 / k), prior_power=zeros,
            data_vs_prior=zeros, reference_noise=zeros, fourier_completeness=zeros, gold_standard_fsc=zeros,
            group_names=data.group_names, group_counts=data.group_counts, group_scales=np.ones(len(data.group_names)),
            direction_distribution=flat_directions(k, sampling), current_resolution=box * a / shell, current_size=0,
            padding=s.padding, tau2_fudge=1.0, accuracy_rotation=np.full(k, 999.0), accuracy_translation=np.full(k, 999.0),
            class_resolution=np.full(k, box * a / shell), class_completeness=np.zeros(k), norm_average=1.0,
            sigma_offset=s.initial_sigma_offset or (10.0 if s.compat == "relion" else SIGMA_OFFSET),
        )  # fmt: skip
        return self._start_iteration(model, sampling)

    # -- one mini-batch ------------------------------------------------------------------------------------------

    def step_settings(self) -> StepSettings:
        """How images are compared with references."""
        # the limit is one of the whole step here, see _window
        return replace(
            super().step_settings(), do_norm=False, do_scale=False, resolution_limit=None,
            max_significant=self.schedule.max_significant,
        )

    def _context(self) -> StepContext:
        """Everything the next expectation needs; the same for the same iteration."""
        current = self.current
        if self._planned is None or self._planned[0] is not current.model:
            self._planned = current.model, self._plan(current)
        return self._planned[1]

    def _window(self, current: Iteration) -> int:
        """Image window of the next mini-batch in pixels."""
        m, c, limit = current.model, current.convergence, self.settings.resolution_limit
        shell = round_int(m.box_size * m.pixel_size / m.current_resolution)
        size = next_image_size(shell, m.box_size, c.increment_size, m.average_p_max, c.has_high_fsc_at_limit)
        return min(size, 2 * int(np.ceil(m.box_size * m.pixel_size / limit - 1e-9))) if limit else size

    def _plan(self, current: Iteration) -> BatchContext:
        s, m, c = self.settings, current.model, current.convergence
        number = current.number + 1
        size = self._window(current)
        old = current.sampling
        sampling = replace(old, perturbation=0.0)
        if s.perturbation_factor > 0:
            sampling = replace(old, perturbation=next_perturbation(old.perturbation, s.perturbation_factor, s.seed, number))
        # sizes are those of the last sampling, also when it changes now
        context = BatchContext(m, sampling, self.step_settings(), self.data, self._state, size, old.psi_step)
        if not self.schedule.reports(number):
            return context
        seen = np.nonzero(current.assignments["class_number"].values > 0)[0]
        accuracy = estimate_model_accuracy(
            context, self._state.poses, np.random.default_rng([s.seed, number, 1]), seen if len(seen) else None
        )
        model = m.copy(accuracy_rotation=accuracy[0], accuracy_translation=accuracy[1])
        sampling, c = next_sampling(sampling, c, model, s)
        if sampling.healpix_order != old.healpix_order:
            model.direction_distribution = flat_directions(m.n_classes, sampling)
        return BatchContext(
            model, sampling, context.settings, self.data, self._state, size, old.psi_step, context.references, origin=m,
            convergence=c,
        )

    def _batch_settings(self, schedule: Schedule, number: int) -> BatchSettings:
        s = self.settings
        return replace(
            super()._batch_settings(schedule, number), do_norm=False, do_scale=False, flatten_solvent=s.flatten_solvent,
            inactivity_threshold=s.inactivity_threshold if schedule.in_transition(number) else 0.0,
        )  # fmt: skip

    def _set_accuracies(self, e: BatchExpectation, model: RefinementModel, number: int) -> None:
        """They were estimated before the expectation, which samples as they say."""

    def _maximize(self, e: Expectation) -> tuple[RefinementModel, np.ndarray, Convergence, dict[str, float]]:
        assert isinstance(e, BatchExpectation)
        model, _norm, convergence, numbers = self._batch_step(e)
        numbers |= {
            "angular_step": angular_step(e.context.sampling_settings.healpix_order),
            "offset_step": e.context.sampling_settings.offset_step / 2,
        }
        return model, np.array(e.context.state.norm), convergence, numbers

    def _maximization(self, e: Expectation) -> Iteration:
        new = super()._maximization(e)
        if new.number >= self.n_iterations:
            self._find_axes(new.model)
        return new

    # -- result --------------------------------------------------------------------------------------------------

    @property
    def largest_class(self) -> int:
        """Number of the class with most particles, from 1."""
        return int(np.argmax(self.current.model.class_distribution)) + 1

    def _find_axes(self, model: RefinementModel) -> SymmetryAxes:
        s = self.settings
        k = int(np.argmax(model.class_distribution))
        if self._axes is None or self._axes[0] is not model:
            if s.run_in_c1:
                axes = find_symmetry_axes(model.references[k], s.symmetry)
            else:
                axes = SymmetryAxes(s.symmetry, np.eye(3), np.zeros(3), 1.0)
            self._axes = model, axes
        return self._axes[1]

    def align_symmetry(self) -> xr.DataArray:
        """The largest class on the axes of ``settings.symmetry``, and symmetrised.

        Returns
        -------
        xarray.DataArray
            (z, y, x) with the search's result in its attributes: ``symmetry_correlation`` is the mean correlation of the map
            with its mates before (1 for a symmetric map; low values say that the symmetry, or the map, is wrong).
        """
        axes = self._find_axes(self.current.model)
        out = self.current.classes.sel(class_number=self.largest_class, drop=True)
        if self.settings.symmetry != "C1" and self.settings.run_in_c1:
            out = out.copy(data=place_on_axes(out.values, axes))
        out.attrs |= {
            "symmetry": axes.symmetry, "symmetry_correlation": axes.correlation, "symmetry_rotation": axes.rotation.tolist(),
            "symmetry_shift": axes.shift.tolist(), "long_name": "initial model",
        }  # fmt: skip
        out.name = "initial_model"
        return out

    @property
    def volume(self) -> xr.DataArray:
        """The map of the largest class; on its symmetry axes once the run is complete. Its hand is arbitrary."""
        if self.iteration >= self.n_iterations or (self._axes is not None and self._axes[0] is self.current.model):
            return self.align_symmetry()
        out = self.current.classes.sel(class_number=self.largest_class, drop=True)
        out.name = "initial_model"
        return out

    def _work(self) -> Work:
        s, optics, schedule = self.settings, self.data.optics[0], self.schedule
        box, a = optics.box_size, optics.pixel_size
        batch = schedule.subset_size(self.iteration + 1)
        size, sampling = min(box, 2 * (initial_resolution_shell(box) + 10)), self._first_sampling(a)
        significant = float(schedule.max_significant)
        if self.iterations:
            size, sampling = self._window(self.current), self.current.sampling
            significant = self.current.numbers.get("mean_significant", significant)
        order = sampling.healpix_order
        window = coarse_window(box, a, sampling.psi_step, s.mask_diameter, size, True)
        return Work(
            n_particles=self.data.n if batch < 0 else batch, n_rows=self.data.n, box=box, size=size, padding=s.padding,
            n_classes=s.n_classes, is_3d=True, orientations=len(directions(order, sampling.symmetry)[0]) * 6 * 2**order, n_children=8,
            n_offsets=offsets_in(sampling.offset_range / sampling.offset_step) if sampling.offset_step > 0 else 1,
            coarse_pixels=np.pi / 8 * window**2 + window, significant=significant, threads=self.threads or default_threads(),
            batch=True,
        )  # fmt: skip

    # -- files ---------------------------------------------------------------------------------------------------

    def _write(self, directory: Path, iteration: Iteration) -> None:
        if iteration.number >= self.n_iterations and iteration is self.current:
            from cryotk.io import write_mrc

            write_mrc(directory / "initial_model.mrc", self.align_symmetry().values, iteration.model.pixel_size)
        super()._write(directory, iteration)

    def _extra_state(self) -> dict[str, Any]:
        out = super()._extra_state()
        if self._axes is not None and self.iterations and self._axes[0] is self.iterations[-1].model:
            axes = self._axes[1]
            out["axes"] = {
                "symmetry": axes.symmetry, "rotation": axes.rotation, "shift": axes.shift, "correlation": float(axes.correlation),
            }
        return out

    def _restore_extra(self, extra: dict[str, Any]) -> None:
        super()._restore_extra(extra)
        axes = extra.get("axes")
        # axes of another point group do not serve
        if axes and self.iterations and axes.get("symmetry", self.settings.symmetry) == self.settings.symmetry:
            found = SymmetryAxes(self.settings.symmetry, axes["rotation"], axes["shift"], axes["correlation"])
            self._axes = self.iterations[-1].model, found

    def _optimiser_entries(self) -> dict[str, Any]:
        s = self.settings
        return self._common_entries() | {
            "rlnNumberOfIterations": s.n_batches, "rlnHighresLimitExpectation": float(s.resolution_limit or -1.0),
            "rlnTau2FudgeArg": float(s.tau2_fudge), "rlnDoSolventFlattening": s.flatten_solvent, "rlnDoAutoSampling": True,
            "rlnDoCorrectNorm": False, "rlnDoCorrectScale": False, "rlnSgdClassInactivityThreshold": s.inactivity_threshold,
        } | self._gradient_entries()  # fmt: skip

    @classmethod
    def _settings_from_relion(cls, path: Path, it: Iteration) -> dict[str, Any]:
        if not it.model.is_3d:
            raise SettingsError(f"{path} is a 2D classification; InitialModel goes on from initial models")
        o, a, sampling = it.optimiser, it.model.pixel_size, it.sampling
        if not int(o.get("rlnDoGradientRefine", 0)):
            raise SettingsError(f"{path} is no VDAM run; go on from it with Class3D or Refine3D")
        return cls._common_settings(it) | {
            "n_classes": it.model.n_classes,
            "symmetry": sampling.symmetry,
            "run_in_c1": sampling.symmetry == "C1",
            "tau2_fudge": float(o.get("rlnTau2FudgeArg", 4)),
            "n_batches": int(o.get("rlnNumberOfIterations", 200)),
            "initial_sampling": angular_step(sampling.healpix_order_original),
            "offset_range_px": (sampling.offset_range_original or 6 * a) / a,
            "offset_step_px": (sampling.offset_step_original or 2 * a) / a / 2,
            "flatten_solvent": bool(int(o.get("rlnDoSolventFlattening", 1))),
            "inactivity_threshold": float(o.get("rlnSgdClassInactivityThreshold", 0)),
            "resolution_limit": cls._resolution_limit(it),
        }

    def __repr__(self) -> str:
        s = self.settings
        classes = f"{s.n_classes} classes, " if s.n_classes > 1 else ""
        return f"<InitialModel: {self.data.n} particles, {classes}{s.symmetry}, {self._status} of {s.n_batches}>"
