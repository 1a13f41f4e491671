"""3D classification, one step at a time: with alignment over all orientations, around given ones, or none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from cryotk.data import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.errors import SettingsError
from cryotk.geometry import symmetry_operators
from cryotk.jobs.auto_sampling import angular_step
from cryotk.jobs.bookkeeping import advance, changes
from cryotk.jobs.maximization import MaximizationSettings, maximize
from cryotk.jobs.parameters import describe
from cryotk.jobs.resources import Work
from cryotk.jobs.settings import RefinementSettings, draw_seed
from cryotk.jobs.step import Expectation, StepContext, merge_expectations, run_expectation
from cryotk.jobs.volume_job import CorrelationContext, Plan, VolumeJob, VolumeSettings
from cryotk.likelihood.sums import stack_classes
from cryotk.projection import FourierReference

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Class3D", "Class3DSettings"]


class Class3DSettings(VolumeSettings):
    """Settings of :class:`Class3D`, checked at once. Defaults are those of RELION's window."""

    n_classes: int = Field(1, ge=1, le=10_000)
    tau2_fudge: float = Field(4.0, gt=0)
    n_iterations: int = Field(25, ge=1)
    align: bool = True
    local_search_range: float | None = Field(None, gt=0)
    resolution_limit: float | None = Field(None, gt=0)


@describe
class Class3D(VolumeJob):
    """3D classification by expectation-maximisation.

    Parameters
    ----------
    {particles}
    references : DataArray or path, or a list of them
        One map, from which classes differ by the random particles they start with, or one per class.
    n_classes : int, optional
        As many as there are references by default.
    {tau2_fudge}
    n_iterations : int
    align : bool
        False keeps every particle's pose and only sorts.
    local_search_range : float, optional
        Degrees: searches around each particle's pose, a Gaussian of a third of it wide. All orientations by default.
    {resolution_limit}
    {ctf_intact_first_peak}
    {mask}
    {initial_lowpass}
    {symmetry}
    {mask_diameter}
    {initial_sampling}
    {offset_range_px, offset_step_px}
    {absolute_greyscale}
    {relax_symmetry}
    {seed}
    {compat}
    {device}
    {expert}

    Examples
    --------
    >>> job = Class3D(particles, "map.mrc", n_classes=4)  # doctest: +SKIP
    >>> step = job.iterate()  # doctest: +SKIP

    References
    ----------
    Scheres, S.H.W. (2012) J. Mol. Biol. 415, 406-418; J. Struct. Biol. 180, 519-530.
    """

    settings_type: ClassVar[type[RefinementSettings]] = Class3DSettings
    settings: Class3DSettings

    def __init__(
        self,
        particles: xr.Dataset | str | Path,
        references: Any,
        n_classes: int | None = None,
        tau2_fudge: float = 4.0,
        n_iterations: int = 25,
        align: bool = True,
        local_search_range: float | None = None,
        resolution_limit: float | None = None,
        ctf_intact_first_peak: bool = False,
        mask: Any = None,
        initial_lowpass: float | None = 60.0,
        symmetry: str = "C1",
        mask_diameter: float = 200.0,
        initial_sampling: float = 7.5,
        offset_range_px: float = 5.0,
        offset_step_px: float = 1.0,
        absolute_greyscale: bool = False,
        relax_symmetry: str | None = None,
        seed: int | None = None,
        compat: Literal["relion"] | None = None,
        device: str = "auto",
        **expert: Any,
    ) -> None:
        seed = draw_seed(seed)
        if n_classes is None:
            n_classes = _count(references)
        values = {k: v for k, v in locals().items() if k in Class3DSettings.model_fields} | expert
        super().__init__(particles, references, mask, **values)
        given = _count(references)
        if given not in (1, n_classes):
            raise SettingsError(f"{given} references for {n_classes} classes: give one map, or one per class")
        if local_search_range is not None and not align:
            raise SettingsError("local_search_range without alignment: leave one of local_search_range and align=False out")
        if relax_symmetry is not None and local_search_range is None:
            raise SettingsError(
                f"relax_symmetry = {relax_symmetry!r} is about local searches: give local_search_range, or leave it out (a search over "
                "all orientations sees all copies)"
            )

    @property
    def n_iterations(self) -> int:
        """Iterations that a run does."""
        return self.settings.n_iterations

    def _fitted_sampling(self, it: Iteration, changed: dict[str, Any]) -> SamplingSettings:
        if not changed.keys() & {"initial_sampling", "offset_range_px", "offset_step_px"}:
            return super()._fitted_sampling(it, changed)
        return replace(self._first_sampling(it.model.pixel_size), perturbation=it.sampling.perturbation)

    def _fitted_model(self, model: RefinementModel, changed: dict[str, Any]) -> dict[str, Any]:
        values = super()._fitted_model(model, changed)
        return values | self._local_prior() if "local_search_range" in changed else values

    def _local_prior(self) -> dict[str, Any]:
        """Fields of a model that searches around poses."""
        reach = self.settings.local_search_range
        sigma = 0.0 if reach is None else reach / 3
        return {"orientational_prior_mode": int(reach is not None), "sigma_rot": sigma, "sigma_tilt": sigma, "sigma_psi": sigma}

    def _initialise(self) -> Iteration:
        s = self.settings
        if not s.align or s.local_search_range is not None:
            self._needs_poses("align=False" if not s.align else "local_search_range")
        maps, a = self._open_references()
        one = len(maps) == 1
        if one:
            maps = np.repeat(maps, s.n_classes, 0)
        sampling = self._first_sampling(a)
        assert sampling.directions is not None
        model = self._first_model(maps, a, len(sampling.directions), s.tau2_fudge)
        return self._start_iteration(model.copy(**self._local_prior()), sampling)

    # -- one iteration -------------------------------------------------------------------------------------------

    def _sigma(self, order: int) -> float:
        reach = self.settings.local_search_range
        return super()._sigma(order) if reach is None else reach / 3

    def _make_plan(self, current: Iteration) -> Plan:
        number, m = current.number + 1, current.model
        size = self._next_size(current)
        step = angular_step(current.sampling.healpix_order, 0)
        sampling = self._perturbed(current.sampling, number)
        correlation = self._by_correlation(number)
        model = m.copy()
        convergence = current.convergence
        references: tuple[FourierReference, ...] = ()
        if not correlation:
            context = StepContext(m, current.sampling, self.step_settings(), self.data, self._state, size, step)
            references = tuple(context.references)
            # poses that stay need no accuracy
            if self.settings.align:
                rotation, translation = self._accuracies(context, np.arange(self.data.n), number)
                model.accuracy_rotation, model.accuracy_translation = rotation, translation
                convergence = replace(
                    convergence, accuracy_rotation=float(rotation.min()), accuracy_translation=float(translation.min())
                )
        return Plan(number, size, step, sampling, convergence, (model,), correlation, references=references)

    def _context(self) -> StepContext:
        """Everything the next expectation needs."""
        plan = self.plan()
        kind = CorrelationContext if plan.correlation else StepContext
        return kind(
            plan.models[0], plan.sampling, self.step_settings(), self.data, self._state, plan.size, plan.coarse_step,
            list(plan.references), origin=self.current.model,
        )

    def _alike(self) -> bool:
        """Whether all classes have one map, so that nothing but chance can tell them apart."""
        references = self.current.model.references
        return len(references) > 1 and all(np.array_equal(references[0], r) for r in references[1:])

    def _work(self) -> Work:
        w, k = super()._work(), self.settings.n_classes
        alike = self._alike() if self.iterations else _count(self._references_given) == 1
        # one class after the other, each with its share of the particles
        return replace(w, n_classes=1, halves=k) if alike and k > 1 else w

    def _expectation(self, on_block: Callable[[int], None]) -> Expectation:
        if not self._alike():
            clock = time.perf_counter()
            context = self._context()
            self._forget_references()
            e = run_expectation(context, threads=self.threads, stop=self._stop, on_block=on_block)
            context.release()
            e.seconds["total"] = time.perf_counter() - clock
            return e
        clock = time.perf_counter()
        context = self._context()
        k = self.settings.n_classes
        if self.plan().correlation:
            # one map for all: the first class stands for every one until the grey scale is known
            groups = [np.arange(self.data.n)] + [np.zeros(0, int)] * (k - 1)
        else:
            drawn = np.random.default_rng([self.settings.seed, 3]).integers(0, k, self.data.n)
            groups = [np.nonzero(drawn == i)[0] for i in range(k)]
        parts, done = [], []
        for i, rows in enumerate(groups):
            if not len(rows):
                continue
            e = run_expectation(_of_class(context, i, rows), threads=self.threads, stop=self._stop, on_block=on_block)
            e.class_number[rows] = np.where(e.class_number[rows] > 0, i + 1, 0)
            parts.append(e)
            done.append(i)
        sums = stack_classes([e.sums for e in parts], done, k)
        context.release()
        merged = merge_expectations(parts, sums, context)
        merged.seconds["total"] = time.perf_counter() - clock
        return merged

    def _maximize(self, e: Expectation) -> tuple[RefinementModel, np.ndarray, Convergence, dict[str, float]]:
        s, plan, previous = self.settings, self.plan(), self.current
        first_alike = plan.correlation and self._alike()
        model, norm = maximize(
            e,
            MaximizationSettings(
                tau2_fudge=s.tau2_fudge, mask_diameter=s.mask_diameter, align=s.align, compat=s.compat, mask=self._mask,
                do_noise=not plan.correlation, do_scale=not plan.correlation, do_norm=not plan.correlation,
            ),
            threads=self.threads,
        )
        if plan.correlation:
            if first_alike:
                _copy_first(model)
            self._low_passed(model)
        old = self._state
        moved = changes(
            previous.assignments["class_number"].values, e.class_number, old.poses, e.poses, old.shifts, e.shifts,
            symmetry_operators(s.symmetry),
        )
        return model, norm, advance(previous, model, moved), {}

    # -- files ---------------------------------------------------------------------------------------------------

    def _optimiser_entries(self) -> dict[str, Any]:
        s = self.settings
        return self._common_entries() | {
            "rlnNumberOfIterations": s.n_iterations, "rlnHighresLimitExpectation": float(s.resolution_limit or -1.0),
            "rlnTau2FudgeArg": float(s.tau2_fudge), "rlnDoSkipAlign": not s.align,
        }  # fmt: skip

    @classmethod
    def _settings_from_relion(cls, path: Path, it: Iteration) -> dict[str, Any]:
        o = it.optimiser
        if not it.model.is_3d:
            raise SettingsError(f"{path} is a 2D classification; Class3D goes on from 3D classifications: use Class2D.resume")
        if bool(int(o.get("rlnDoAutoRefine", 0))):
            raise SettingsError(f"{path} is an auto-refinement: use Refine3D.resume")
        values = cls._common_settings(it) | cls._mask_of(path, it) | {
            "n_classes": it.model.n_classes,
            "tau2_fudge": it.model.tau2_fudge,
            "n_iterations": int(o.get("rlnNumberOfIterations", 25)),
            "align": not bool(int(o.get("rlnDoSkipAlign", 0))),
            "resolution_limit": cls._resolution_limit(it),
        }
        if it.model.orientational_prior_mode > 0 and it.model.sigma_psi > 0:
            values["local_search_range"] = 3 * it.model.sigma_psi
        return values

    def __repr__(self) -> str:
        s = self.settings
        return (
            f"<Class3D: {self.data.n} particles, {s.n_classes} classes, {s.symmetry}, T = {s.tau2_fudge:g}, "
            f"{self._status} of {s.n_iterations}>"
        )


def _count(references: Any) -> int:
    from cryotk.jobs.references3d import _list

    return len(_list(references))


def _of_class(context: StepContext, k: int, rows: np.ndarray) -> StepContext:
    """The same step for some particles against one class alone."""
    m = context.model
    directions = m.direction_distribution
    model = m.copy(
        references=m.references[k : k + 1], class_distribution=np.ones(1), data_vs_prior=m.data_vs_prior[k : k + 1],
        direction_distribution=None if directions is None else directions[k : k + 1] / max(directions[k].sum(), 1e-30),
    )  # fmt: skip
    return replace(context, model=model, references=context.references[k : k + 1], rows=rows)


def _copy_first(model: RefinementModel) -> None:
    """Give all classes what the first one has, in place."""
    k = model.n_classes
    for name in ("references", "prior_power", "data_vs_prior", "reference_noise", "fourier_completeness", "class_completeness"):
        setattr(model, name, np.repeat(getattr(model, name)[:1], k, 0))
    model.class_distribution = np.full(k, 1 / k)
    if model.direction_distribution is not None:
        model.direction_distribution = np.repeat(model.direction_distribution[:1], k, 0) / k
