"""Gold-standard auto-refinement, one step at a time: two half-sets that never meet before the end."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from cryotk.data import Convergence, Iteration, RefinementModel
from cryotk.errors import SettingsError
from cryotk.execution.lanes import side_by_side
from cryotk.geometry import symmetry_operators
from cryotk.jobs.auto_sampling import (
    AutoSettings,
    advance_convergence,
    angular_step,
    finer_sampling,
    is_converged,
    next_increment,
)
from cryotk.jobs.blocks import maps_at_once
from cryotk.jobs.bookkeeping import changes
from cryotk.jobs.half_set_job import HalfSetJob
from cryotk.jobs.half_sets import (
    half_map_fsc,
    join_low_resolution,
    joined_fsc,
    same_image,
    solvent_corrected_fsc,
    split_halves,
)
from cryotk.jobs.maximization import MaximizationSettings, maximize
from cryotk.jobs.parameters import describe
from cryotk.jobs.references3d import mate_of_half_map, open_references
from cryotk.jobs.settings import RefinementSettings, draw_seed
from cryotk.jobs.step import Expectation, StepContext
from cryotk.jobs.volume_job import Plan, VolumeSettings, order_of_sampling
from cryotk.projection import Accumulator, FourierReference, wiener_reconstruct

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Refine3D", "Refine3DSettings"]


class Refine3DSettings(VolumeSettings):
    """Settings of :class:`Refine3D`, checked at once. Defaults are those of RELION's window."""

    solvent_flatten_fsc: bool = False
    local_search_from: float = Field(1.8, gt=0, le=30)
    finer_sampling_faster: bool = False
    join_below: float = Field(40.0, gt=0)
    tau2_fudge: float = Field(1.0, gt=0)
    max_iterations: int = Field(100, ge=1)


@describe
class Refine3D(HalfSetJob):
    """Gold-standard refinement of one structure with automatic sampling.

    The particles are refined as two halves against maps of their own. Only below ``join_below`` do these share their data, so
    that they keep one frame; the correlation of the rest sets the prior, the resolution and the end of the run.

    Parameters
    ----------
    {particles}
    reference : DataArray or path
        A map to start from. The path of a half-map (``half1`` or ``half2`` in its name) brings its mate: each half-set then
        starts from its own.
    {symmetry}
    {mask_diameter}
    {initial_lowpass}
    {mask}
    solvent_flatten_fsc : bool
        Correct the FSC for the mask at every iteration, by randomised phases.
    initial_sampling : float
        Angular step in degrees, after oversampling.
    local_search_from : float
        Angular step in degrees from which on particles are searched around their last pose. When ``initial_sampling`` is as
        fine, they are searched around their input pose from the start.
    {offset_range_px, offset_step_px}
    finer_sampling_faster : bool
        Refine the sampling as soon as the resolution does not improve, whatever the angles do.
    {absolute_greyscale}
    {padding}
    {relax_symmetry}
    {compat}
    {device}
    {seed}
    {expert}

    Examples
    --------
    >>> job = Refine3D(particles, "initial_model.mrc", symmetry="D2")  # doctest: +SKIP
    >>> job.run()  # doctest: +SKIP
    >>> job.resolution  # doctest: +SKIP

    References
    ----------
    Scheres, S.H.W. (2012) J. Struct. Biol. 180, 519-530; Scheres & Chen (2012) Nat. Methods 9, 853-854.
    """

    settings_type: ClassVar[type[RefinementSettings]] = Refine3DSettings
    settings: Refine3DSettings
    of_the_start = HalfSetJob.of_the_start | {"initial_sampling", "offset_range_px", "offset_step_px"}

    def __init__(
        self,
        particles: xr.Dataset | str | Path,
        reference: Any,
        symmetry: str = "C1",
        mask_diameter: float = 200.0,
        initial_lowpass: float | None = 60.0,
        mask: Any = None,
        solvent_flatten_fsc: bool = False,
        initial_sampling: float = 7.5,
        local_search_from: float = 1.8,
        offset_range_px: float = 5.0,
        offset_step_px: float = 1.0,
        finer_sampling_faster: bool = False,
        absolute_greyscale: bool = False,
        padding: float = 2.0,
        relax_symmetry: str | None = None,
        compat: Literal["relion"] | None = None,
        device: str = "auto",
        seed: int | None = None,
        **expert: Any,
    ) -> None:
        seed = draw_seed(seed)
        values = {k: v for k, v in locals().items() if k in Refine3DSettings.model_fields} | expert
        super().__init__(particles, reference, mask, **values)
        if solvent_flatten_fsc and self._mask is None and mask is None:
            raise SettingsError("solvent_flatten_fsc needs a mask: give mask=")
        self._mate = mate_of_half_map(reference)
        given = self.input_particles["random_subset"].values if "random_subset" in self.input_particles else None
        self._set_half_sets(split_halves(self.data.n, given, seed, same_image(self.input_particles)))
        self._auto = AutoSettings(
            order_of_sampling(local_search_from), 1, mask_diameter, finer_sampling_faster, self.data.optics[0].pixel_size, compat
        )

    @property
    def n_iterations(self) -> int:
        """Iterations after which a run ends even without convergence."""
        if self.converged:
            return self.iteration
        return self.settings.max_iterations

    @property
    def converged(self) -> bool:
        """Whether the last iteration was the final one, of all particles to the Nyquist limit."""
        return bool(self.iterations) and self.iterations[-1].convergence.has_converged

    @property
    def _ended(self) -> bool:
        return self.converged

    def branch(self, **changes: Any) -> Self:
        """Return a new job from the same state with other settings, see :meth:`Class3D.branch`; not of a finished refinement."""
        self._refuse_when_finished()
        return super().branch(**changes)

    # -- start ---------------------------------------------------------------------------------------------------

    def _initialise(self) -> Iteration:
        s = self.settings
        maps, a = self._open_references()
        if len(maps) != 1:
            raise SettingsError(f"{len(maps)} references: Refine3D refines one structure; use Class3D for several")
        sampling = self._first_sampling(a)
        assert sampling.directions is not None
        model = self._first_model(maps, a, len(sampling.directions), s.tau2_fudge)
        if sampling.healpix_order >= self._auto.local_order:
            self._needs_poses(f"initial_sampling = {s.initial_sampling:g}, which is as fine as local_search_from,")
            self._search_locally(model, sampling.healpix_order)
        other = model.copy()
        if self._mate is not None:
            optics = self.data.optics[0]
            mate, _ = open_references(self._mate, optics.box_size, optics.pixel_size)
            other = model.copy(references=self._start_maps(mate, a))
            if "half2" in Path(self._references_given).name:
                model.references, other.references = other.references, model.references
        for half, m in ((1, model), (2, other)):
            m.group_counts = self._group_counts(half)
        return self._start_iteration(model, sampling, half2=other)

    def _sigma(self, order: int) -> float:
        return 2 * angular_step(order) if order >= self._auto.local_order else 0.0

    @staticmethod
    def _search_locally(model: RefinementModel, order: int) -> None:
        model.orientational_prior_mode = 1
        model.sigma_rot = model.sigma_tilt = model.sigma_psi = 2 * angular_step(order)

    # -- one iteration -------------------------------------------------------------------------------------------

    def _make_plan(self, current: Iteration) -> Plan:
        s, number, c = self.settings, current.number + 1, current.convergence
        first, second = current.model, current.half2
        if c.has_converged:
            # nothing comes next; particles can still be looked at, all with the one map
            return Plan(
                number, first.box_size, angular_step(current.sampling.healpix_order, 0), current.sampling, c, (first, first), final=True,
            )
        if second is None:
            raise SettingsError("the last iteration has no half-sets: a finished refinement cannot be refined further")
        if s.compat != "relion":
            # RELION sees only at the next change of sampling that there is none to come, an iteration late
            fine = angular_step(current.sampling.healpix_order) < 0.75 * c.accuracy_rotation < 0.75 * 999
            c = replace(c, has_fine_enough_sampling=fine)
        final = is_converged(c, self._auto)
        size = first.box_size if final else self._next_size(current)
        old = current.sampling
        correlation = self._by_correlation(number)
        models = [first.copy(), second.copy()]
        references: tuple[FourierReference, ...] = ()
        if not correlation:
            probe = StepContext(first, old, self.step_settings(), self.data, self._state, size, angular_step(old.healpix_order, 0))
            rot, shift = self._accuracies(probe, self._rows(1), number)
            references = tuple(probe.references)
            for m in models:
                m.accuracy_rotation, m.accuracy_translation = rot.copy(), shift.copy()
            c = replace(c, accuracy_rotation=float(rot.min()), accuracy_translation=float(shift.min()))
        sampling = old
        if number > 1 and not final:
            sampling, c = finer_sampling(old, c, 1 / first.current_resolution, self._auto)
        if sampling is not old:
            sampling = self._with_directions(sampling)
            assert sampling.directions is not None
            for m in models:
                m.direction_distribution = np.full((1, len(sampling.directions)), 1 / len(sampling.directions))
                if sampling.healpix_order >= self._auto.local_order:
                    self._search_locally(m, sampling.healpix_order)
        # RELION sets the window of the coarse pass before it refines the sampling
        order = (old if s.compat == "relion" else sampling).healpix_order
        return Plan(
            number, size, angular_step(order, 0), self._perturbed(sampling, number), c, tuple(models), correlation, final,
            references,
        )

    def _maximize(self, e: Expectation) -> tuple[RefinementModel, np.ndarray, Convergence, dict[str, float]]:
        s, plan, previous = self.settings, self.plan(), self.current
        clock = time.perf_counter()
        operators = symmetry_operators(s.symmetry)
        first, second = (p.sums.accumulators[0] for p in e.parts)
        at_once = maps_at_once(e.parts[0].context, self.threads)

        def completed(a: Accumulator) -> np.ndarray | None:
            a.symmetrise(operators)
            return wiener_reconstruct(a).astype(np.float32) if plan.final or s.solvent_flatten_fsc else None

        made = [m for m in side_by_side(completed, (first, second), at_once) if m is not None]
        self._made_half_maps = np.stack(made) if made else None
        box = previous.model.box_size * previous.model.pixel_size
        join_low_resolution(first, second, int(np.ceil(box / max(s.join_below, previous.model.current_resolution))))
        if s.solvent_flatten_fsc and self._mask is not None:
            assert self._made_half_maps is not None
            rng = np.random.default_rng([s.seed, plan.number, 4])
            a, b = self._made_half_maps.astype(float)
            fsc = solvent_corrected_fsc(a, b, self._mask, plan.size, rng)
        else:
            fsc = half_map_fsc(first, second)
        settings = MaximizationSettings(
            tau2_fudge=s.tau2_fudge, mask_diameter=s.mask_diameter, compat=s.compat, mask=self._mask,
            flatten_solvent=not plan.final, do_noise=not plan.correlation, do_scale=not plan.correlation,
            do_norm=not plan.correlation,
        )  # fmt: skip
        if plan.final:
            model, norm, self._made_half2 = *self._join(e, fsc, settings), None
        else:
            (model, norm), (other, other_norm) = side_by_side(lambda p: maximize(p, settings, fsc, symmetrised=True), e.parts, at_once)
            second_images, _ = self.data.images_of(self._rows(2))
            norm[second_images] = other_norm[second_images]
            # one window and one resolution for both
            other.average_p_max = model.average_p_max
            self._made_half2 = other
        models = [m for m in (model, self._made_half2) if m is not None]
        if plan.correlation:
            for m in models:
                self._low_passed(m)
        old = self._state
        moved = changes(e.class_number, e.class_number, old.poses, e.poses, old.shifts, e.shifts, operators)
        if previous.number == 0:
            moved = (1.0, moved[1], moved[2])
        convergence = self._advance(plan, model, fsc, moved)
        numbers = {
            "fsc_0143": _crossing(fsc, box, 0.143), "healpix_order": float(plan.sampling.healpix_order),
            "offset_range": plan.sampling.offset_range, "offset_step": plan.sampling.offset_step,
            "seconds_maximization": time.perf_counter() - clock,
        }  # fmt: skip
        return model, norm, convergence, numbers

    def _join(self, e: Expectation, fsc: np.ndarray, settings: MaximizationSettings) -> tuple[RefinementModel, np.ndarray]:
        """Map of all particles."""
        # in place: nothing else needs the first half's sums any longer, and large ones exist once
        sums = e.parts[0].sums
        sums += e.parts[1].sums
        whole = replace(e, sums=sums, parts=[])
        model, norm = maximize(whole, settings, joined_fsc(fsc), symmetrised=True)
        model.gold_standard_fsc = fsc[None].copy()
        model.group_counts = self.data.group_counts
        return model, norm

    def _advance(self, plan: Plan, model: RefinementModel, fsc: np.ndarray, moved: tuple[float, float, float]) -> Convergence:
        # as RELION's leader does, changes are small against the steps of the start: waiting for changes below the finer steps
        # costs iterations at them and makes no better map
        first = self.iterations[0].sampling
        steps = angular_step(first.healpix_order_original), first.offset_step_original / 2
        c = advance_convergence(plan.convergence, 1 / model.current_resolution, moved, steps)
        at_limit = fsc[max(plan.size // 2 - 1, 0)] > 0.2
        return replace(
            c, increment_size=next_increment(fsc, c.increment_size),
            has_high_fsc_at_limit=bool(c.has_high_fsc_at_limit or at_limit), has_converged=plan.final,
        )  # fmt: skip

    # -- files ---------------------------------------------------------------------------------------------------

    def _optimiser_entries(self) -> dict[str, Any]:
        s = self.settings
        return self._common_entries() | {
            "rlnNumberOfIterations": 999, "rlnDoAutoRefine": True, "rlnDoAutoSampling": True, "rlnDoSplitRandomHalves": True,
            "rlnJoinHalvesUntilThisResolution": float(s.join_below), "rlnAutoLocalSearchesHealpixOrder": self._auto.local_order,
            "rlnDoSolventFscCorrection": s.solvent_flatten_fsc,
        }  # fmt: skip

    @classmethod
    def _settings_from_relion(cls, path: Path, it: Iteration) -> dict[str, Any]:
        o = it.optimiser
        if not it.model.is_3d or not bool(int(o.get("rlnDoAutoRefine", 0))):
            raise SettingsError(f"{path} is no auto-refinement; use Class2D.resume or Class3D.resume")
        if it.half2 is None:
            raise SettingsError(
                f"{path} has no two half-sets to go on with: give an iteration (run_itNNN_optimiser.star) of the run, not its end"
            )
        mask = cls._mask_of(path, it)
        return cls._common_settings(it) | mask | {
            "solvent_flatten_fsc": bool(mask) and bool(int(o.get("rlnDoSolventFscCorrection", 0))),
            "tau2_fudge": it.model.tau2_fudge,
            "local_search_from": angular_step(int(o.get("rlnAutoLocalSearchesHealpixOrder", 4))),
            "join_below": max(float(o.get("rlnJoinHalvesUntilThisResolution", 40)), 1e-3),
        }

    @classmethod
    def _remake(cls, particles: Any, values: dict[str, Any], start: Iteration) -> Self:
        values = dict(values)
        return cls(particles, start.classes[0], mask=values.pop("mask", None), **values)

    def __repr__(self) -> str:
        s = self.settings
        state = "converged" if self.converged else self._status
        at = f", {self.resolution:.1f} Å" if self.iteration > 0 else ""
        return f"<Refine3D: {self.data.n} particles, {s.symmetry}, {state}{at}>"


def _crossing(fsc: np.ndarray, box: float, level: float) -> float:
    """Resolution in Å at which an FSC first falls below a level, linear between shells."""
    low = np.nonzero(fsc[1:] < level)[0]
    if not len(low):
        return float(box / (len(fsc) - 1))
    i = int(low[0]) + 1
    drop = fsc[i - 1] - fsc[i]
    shell = i - (level - fsc[i]) / drop if drop > 0 else i
    return float(box / max(shell, 1e-6))
