"""What Class2D, Class3D, InitialModel and Refine3D share: one particle set, one model, an iteration's bookkeeping, files."""

from __future__ import annotations

import secrets
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from cryotk.data import Convergence, Iteration, RefinementModel, SamplingSettings, open_particles
from cryotk.data.notices import warn_caller
from cryotk.errors import DataError, DataWarning, SettingsError
from cryotk.execution import checkpoint
from cryotk.execution.device import resolve_device
from cryotk.geometry import directions
from cryotk.jobs.bookkeeping import assignments_dataset
from cryotk.jobs.iterative import IterativeJob
from cryotk.jobs.matching import matched
from cryotk.jobs.particle_set import ParticleSet
from cryotk.jobs.posterior_view import PosteriorMixin
from cryotk.jobs.resources import Work, estimate_iteration
from cryotk.jobs.settings import RefinementSettings, checked
from cryotk.jobs.shelf import KEPT_BYTES, bytes_in_memory, shelve
from cryotk.jobs.step import Expectation, Particles, StepContext, StepSettings, run_expectation

if TYPE_CHECKING:
    import xarray as xr

    from cryotk.io.relion_moments import Moments

__all__ = ["RefinementJob"]


class RefinementJob(PosteriorMixin, IterativeJob):
    """A refinement of one particle set against a :class:`~cryotk.data.RefinementModel`.

    A job defines ``settings_type``, ``_initialise``, ``_context``, ``_maximize``, and for its files ``_optimiser_entries`` and
    ``_settings_from_relion``.
    """

    settings_type: ClassVar[type[RefinementSettings]]
    of_the_start: ClassVar[frozenset[str]] = frozenset()
    """Settings that do nothing once the first iteration is done."""
    settings: Any
    data: ParticleSet
    _state: Particles

    def __init__(self, particles: xr.Dataset | str | Path, **values: Any) -> None:
        super().__init__()
        self.settings = checked(self.settings_type, values, type(self).__name__)
        self.input_particles = open_particles(particles)
        self.data = ParticleSet.from_dataset(self.input_particles, do_ctf=getattr(self.settings, "do_ctf", True))
        # a device that is not there is told at once
        resolve_device(self.settings.device)
        optics, diameter = self.data.optics[0], self.settings.mask_diameter
        if diameter > optics.box_size * optics.pixel_size:
            raise SettingsError(
                f"mask_diameter = {diameter:g} Å is larger than the box, {optics.box_size * optics.pixel_size:.0f} Å"
            )
        self._check_offsets()
        limit = getattr(self.settings, "resolution_limit", None)
        if limit and limit > optics.box_size * optics.pixel_size / 2:
            raise SettingsError(
                f"resolution_limit = {limit:g} Å leaves no shell to compare in a box of {optics.box_size * optics.pixel_size:.0f} Å: "
                "use less than half of the box"
            )
        k = getattr(self.settings, "n_classes", 1)
        if k > self.data.n:
            raise SettingsError(f"n_classes = {k} for {self.data.n} particles: use at most one class per particle")
        self._run = secrets.token_hex(8)
        # never changed in place: what comes next has arrays of its own
        self._state = Particles(self.data.poses, self.data.shifts, self.data.norm)

    def _check_offsets(self) -> None:
        """Offsets that move particles out of their boxes."""
        optics, reach = self.data.optics[0], self.settings.offset_range_px
        limit = optics.box_size / 2
        if reach > limit:
            raise SettingsError(f"offset_range_px = {reach:g} moves particles out of a box of {optics.box_size} pixels")
        far = np.nonzero(np.abs(self.data.shifts).max(1) > limit * optics.pixel_size)[0]
        if len(far):
            i = int(far[0])
            raise DataError(
                f"particle {i + 1} has an offset of {np.abs(self.data.shifts[i]).max():.0f} Å, beyond its box: extract it again "
                "around its centre, or remove it"
            )

    @property
    def source(self) -> str:
        """What iterations of this job say they come from."""
        return f"cryotk {type(self).__name__}"

    # -- one iteration -------------------------------------------------------------------------------------------

    def step_settings(self) -> StepSettings:
        """How images are compared with references."""
        s = self.settings
        return StepSettings(
            mask_diameter=s.mask_diameter, align=getattr(s, "align", True), do_ctf=s.do_ctf, zero_mask=s.zero_mask,
            ctf_intact_first_peak=s.ctf_intact_first_peak, resolution_limit=getattr(s, "resolution_limit", None), seed=s.seed,
            compat=s.compat, relax_symmetry=getattr(s, "relax_symmetry", None), device=resolve_device(s.device),
        )

    @abstractmethod
    def _context(self) -> StepContext:
        """Everything the next expectation needs."""

    def _expectation(self, on_block: Callable[[int], None]) -> Expectation:
        clock = time.perf_counter()
        e = run_expectation(self._context(), threads=self.threads, stop=self._stop, on_block=on_block)
        e.seconds["total"] = time.perf_counter() - clock
        return e

    @abstractmethod
    def _maximize(self, e: Expectation) -> tuple[RefinementModel, np.ndarray, Convergence, dict[str, float]]:
        """Model, normalisation of each image, convergence and numbers of the job's own after an expectation."""

    def _make_iteration(
        self, e: Expectation, model: RefinementModel, convergence: Convergence, table: xr.Dataset, numbers: dict[str, float]
    ) -> Iteration:
        return Iteration(
            self.current.number + 1, model, e.context.sampling_settings, convergence, table, numbers, self.source, self.input_particles
        )

    def _maximization(self, e: Expectation) -> Iteration:
        previous, clock = self.current, time.perf_counter()
        _some_usable(e, previous.number + 1)
        model, norm, convergence, own = self._maximize(e)
        if e.flagged.any():
            warnings.warn(
                f"{int(e.flagged.sum())} particles were left out of iteration {previous.number + 1}: their images are empty, not "
                "finite, or no pose is likely; see assignments.flagged",
                DataWarning,
                stacklevel=4,
            )
        numbers = {
            "resolution": model.current_resolution,
            "image_size": float(e.context.size),
            "average_p_max": model.average_p_max,
            "mean_significant": float(e.n_significant[~e.flagged].mean()) if (~e.flagged).any() else 0.0,
            "changes_class": convergence.changes_class,
            "changes_orientation": convergence.changes_orientation,
            "changes_offset": convergence.changes_offset,
            "accuracy_rotation": convergence.accuracy_rotation,
            "accuracy_translation": convergence.accuracy_translation,
            "sigma_offset": model.sigma_offset,
            "log_likelihood": model.log_likelihood,
            "flagged": float(e.flagged.sum()),
        } | own  # fmt: skip
        numbers["seconds"] = e.seconds.get("total", 0.0) + time.perf_counter() - clock
        table = self._table(e, norm)
        new = self._make_iteration(e, model, convergence, table, numbers)
        self._state = Particles(e.poses, e.shifts, norm)
        return new

    def _table(self, e: Expectation, norm: np.ndarray) -> xr.Dataset:
        return assignments_dataset(
            self.input_particles, e.class_number, e.poses, e.shifts, e.p_max, e.n_significant, e.log_likelihood,
            norm[self.data.image_start[:-1]], e.flagged,
        )

    def _start_table(self) -> xr.Dataset:
        """Assignments of iteration 0."""
        n = self.data.n
        return assignments_dataset(
            self.input_particles, np.zeros(n, int), self._state.poses, self._state.shifts, np.zeros(n), np.zeros(n, int), np.zeros(n),
            self._state.norm[self.data.image_start[:-1]], np.zeros(n, bool),
        )

    def _start_iteration(self, model: RefinementModel, sampling: Any, **more: Any) -> Iteration:
        numbers = {"resolution": model.current_resolution, "image_size": 0.0, "sigma_offset": model.sigma_offset}
        return Iteration(
            0, model, sampling, Convergence(), self._start_table(), numbers, source=self.source, particles=self.input_particles, **more
        )

    # -- files ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def _optimiser_entries(self) -> dict[str, Any]:
        """Entries of RELION's optimiser file that are settings."""

    @classmethod
    @abstractmethod
    def _settings_from_relion(cls, path: Path, it: Iteration) -> dict[str, Any]:
        """Settings, as arguments of the constructor, of an iteration of RELION; refuses what the job cannot go on from."""

    def _common_entries(self) -> dict[str, Any]:
        """Optimiser entries of all jobs."""
        s = self.settings
        return {
            "rlnRandomSeed": s.seed, "rlnParticleDiameter": float(s.mask_diameter), "rlnDoZeroMask": s.zero_mask,
            "rlnDoCorrectCtf": s.do_ctf, "rlnDoIgnoreCtfUntilFirstPeak": s.ctf_intact_first_peak,
        }  # fmt: skip

    @classmethod
    def _common_settings(cls, it: Iteration) -> dict[str, Any]:
        """Settings that RELION's files of any job hold."""
        o = it.optimiser
        return {
            "mask_diameter": float(o.get("rlnParticleDiameter", 200)),
            "do_ctf": bool(int(o.get("rlnDoCorrectCtf", 1))),
            "zero_mask": bool(int(o.get("rlnDoZeroMask", 1))),
            "ctf_intact_first_peak": bool(int(o.get("rlnDoIgnoreCtfUntilFirstPeak", 0))),
            "seed": int(o.get("rlnRandomSeed", 0)),
            "padding": it.model.padding,
            "perturbation_factor": min(max(it.sampling.perturbation_factor, 0.0), 1.0),
        }

    @staticmethod
    def _resolution_limit(it: Iteration) -> float | None:
        limit = float(it.optimiser.get("rlnHighresLimitExpectation", -1))
        return limit if limit > 0 else None

    def _extra_state(self) -> dict[str, Any]:
        """More than model and assignments that the next iteration needs (arrays and plain values), for the checkpoint."""
        return {}

    def _restore_extra(self, extra: dict[str, Any]) -> None:
        """Take back what :meth:`_extra_state` gave."""

    def _write(self, directory: Path, iteration: Iteration) -> None:
        from cryotk.jobs.refinement_files import write_refinement

        write_refinement(self, directory, iteration)

    @classmethod
    def resume(cls, path: str | Path, particles: Any = None, **changes: Any) -> Self:
        """Go on from a saved run: a directory of ours (to the same bits) or RELION's ``_optimiser.star``.

        Parameters
        ----------
        path : path
            Directory given to :meth:`save`, a checkpoint in it, or a RELION optimiser file.
        particles : Dataset or path, optional
            Where the particles are now; by default where they were.
        **changes
            Settings to change. RELION's files do not hold all: ``finer_sampling_faster`` of a refinement, and the point group of an
            initial model that is made in C1, have to be given here.
        """
        from cryotk.jobs.refinement_files import resume_refinement

        return resume_refinement(cls, Path(path), particles, changes)

    @classmethod
    def _remake(cls, particles: Any, values: dict[str, Any], start: Iteration) -> Self:
        """Make a job from saved settings; ``start`` is an iteration of the run, for jobs that take more than particles."""
        return cls(particles, **values)

    def _norm_of(self, iteration: Iteration) -> np.ndarray:
        """Normalisation of every image after an iteration (a particle's images may differ)."""
        if (self.iterations and iteration is self.iterations[-1]) or len(self._state.norm) != self.data.n:
            return self._state.norm
        return np.asarray(iteration.assignments["norm_correction"].values, float)

    def _restore_state(self, iteration: Iteration, norm: np.ndarray) -> None:
        a = iteration.assignments
        poses = np.stack([a[f"angle_{x}"].values for x in ("rot", "tilt", "psi")], -1)
        self._state = Particles(poses, np.stack([a["shift_x"].values, a["shift_y"].values], -1), np.asarray(norm, float))

    def _matched(self, iteration: Iteration) -> xr.Dataset:
        """Assignments of an iteration read from elsewhere in the order of the particles."""
        return matched(iteration.assignments, self.input_particles, iteration.source)  # type: ignore[no-any-return]

    def _adopt(self, iteration: Iteration) -> None:
        """Take poses, offsets and norms of an iteration read from elsewhere."""
        a, n = self._matched(iteration), self.data.n

        def column(name: str, default: float) -> np.ndarray:
            return np.asarray(a[name].values, float) if name in a else np.full(n, default)

        state = Particles(
            np.stack([column(f"angle_{x}", 0) for x in ("rot", "tilt", "psi")], -1),
            np.stack([column("shift_x", 0), column("shift_y", 0)], -1),
            np.where(column("norm_correction", 1) > 0, column("norm_correction", 1), 1.0),
        )
        self._state = state
        iteration.assignments = assignments_dataset(
            self.input_particles, column("class_number", 0).astype(int), state.poses, state.shifts, column("max_probability", 0),
            column("n_significant", 0).astype(int), column("log_likelihood", 0), state.norm, np.zeros(n, bool),
        )

    def _adopt_files(self, path: Path, iteration: Iteration) -> None:
        """Take more than model and assignments from RELION's files of an iteration."""

    def _moments_of(self, iteration: Iteration) -> list[Moments] | None:
        """Momenta after an iteration, for RELION's files; None where there are none."""
        return None

    def branch(self, **changes: Any) -> Self:
        """Return a new job from the same state with other settings, e.g. ``job.branch(tau2_fudge=4)``.

        Grids, symmetry, padding and local searches follow the changes from the next iteration on; settings of the start alone
        (``initial_lowpass``, and where the job chooses its sampling itself the first one) are taken before the first iteration
        and afterwards said to come too late.
        """
        before = self.settings.model_dump()
        values = before | self._arguments() | changes
        if "n_classes" in values and values["n_classes"] != self.settings.n_classes:
            raise SettingsError(f"a branch keeps the classes: start a new {type(self).__name__} for another n_classes")
        changed = self._changed(changes, before)
        if not self.iterations or (self.iteration == 0 and changed):
            # the start is made with the new settings
            return self._unstarted(values)
        new = self._remake(self.input_particles, values, self.iterations[0])
        new.iterations = list(self.iterations)
        new._state = Particles(self._state.poses, self._state.shifts, self._state.norm)
        new._restore_extra(self._extra_state())
        new._fit_to_settings(changed)
        return new

    def _arguments(self) -> dict[str, Any]:
        """What the constructor takes beside particles, references and settings."""
        return {}

    def _changed(self, changes: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
        """Those changes that are any; what is no setting (a mask) counts as changed."""
        known = self.settings_type.model_fields
        return {k: v for k, v in changes.items() if k not in known or k not in before or v != before[k]}

    def _shelve(self) -> None:
        shelve(self.iterations)

    def _before_saving(self, directory: Path) -> None:
        others = [p for p in checkpoint.checkpoints(directory) if (checkpoint.peek(p, "run") or "") != self._run]
        if others:
            warn_caller(
                f"{directory} holds {len(others)} iterations of another run: those of the same numbers are replaced, and resume() "
                "goes on from the run that was written last; take another folder to keep both"
            )

    def _fit_to_settings(self, changed: dict[str, Any]) -> None:
        """Fit the last iteration to settings that it was not made with, before the job goes on from it."""
        it = self.current
        idle = sorted(self.of_the_start & changed.keys()) if it.number > 0 else []
        if idle:
            warnings.warn(
                f"{', '.join(idle)}: of the start of a {type(self).__name__}, without effect after iteration {it.number}",
                DataWarning,
                stacklevel=4,
            )
        sampling = self._fitted_sampling(it, changed)
        other_grid = sampling.directions is not None and (
            it.sampling.directions is None or len(sampling.directions) != len(it.sampling.directions)
        )

        def fitted(m: RefinementModel) -> RefinementModel:
            values = self._fitted_model(m, changed)
            if other_grid:
                # probabilities of directions that are no longer those of the grid
                n = len(sampling.directions)  # type: ignore[arg-type]
                values["direction_distribution"] = np.repeat(np.asarray(m.class_distribution, float)[:, None] / n, n, 1)
            return m.copy(**values) if values else m

        model, half2 = fitted(it.model), None if it.half2 is None else fitted(it.half2)
        if sampling is not it.sampling or model is not it.model:
            self.iterations[-1] = replace(it, sampling=sampling, model=model, half2=half2)

    def _fitted_sampling(self, it: Iteration, changed: dict[str, Any]) -> SamplingSettings:
        """Sampling that the job goes on with from an iteration made with other settings."""
        sampling, symmetry = it.sampling, self.working_symmetry
        if not it.model.is_3d or sampling.symmetry == symmetry:
            return sampling
        rot, tilt = directions(sampling.healpix_order, symmetry)
        return replace(sampling, symmetry=symmetry, directions=np.stack([rot, tilt], -1))

    def _fitted_model(self, model: RefinementModel, changed: dict[str, Any]) -> dict[str, Any]:
        """Fields of a model that change with the settings."""
        return {"padding": self.settings.padding} if "padding" in changed else {}

    @property
    def working_symmetry(self) -> str:
        """Point group imposed on the way."""
        return str(getattr(self.settings, "symmetry", "C1"))

    def _unstarted(self, values: dict[str, Any]) -> Self:
        """Make the same job with other settings before its first iteration."""
        return type(self)(self.input_particles, **values)

    @abstractmethod
    def _work(self) -> Work:
        """Sizes of the next iteration."""

    def estimate(self) -> dict[str, float]:
        """Memory, disk and time of the next iteration, before running it.

        Returns
        -------
        dict
            ``memory_bytes``: peak of the process. ``scratch_bytes``: held in temporary files meanwhile because memory is short (see
            :func:`cryotk.projection.scratch_folder`). ``disk_bytes_per_iteration``: of saved files. ``seconds_per_iteration``.
        """
        w = self._work()
        dims, padded = 3 if w.is_3d else 2, w.padding * w.box
        # in RELION's files and in the checkpoint: maps, momenta of a mini-batch, rows of the table; and what does not grow
        maps = w.halves * w.n_classes * w.box**dims * (4 + 8)
        momenta = w.n_classes * (padded + 3) ** (dims - 1) * (padded / 2 + 2) * (24 + 20) if w.batch else 0
        out = estimate_iteration(w, maps + momenta + w.n_rows * 600 + 20_000)
        out["memory_bytes"] += min(bytes_in_memory(self.iterations[:-1]), KEPT_BYTES)
        return out

    def _repr_html_(self) -> str:
        from cryotk.jobs.reprs import job_html

        return job_html(self)

    @property
    def _status(self) -> str:
        return "running" if self.running else ("not started" if not self.iterations else f"iteration {self.iteration}")


def _some_usable(e: Expectation, number: int) -> None:
    """Refuse an expectation that says nothing of any particle, or of one half-set."""
    for half, part in enumerate(e.parts or [e], start=1):
        rows = getattr(part, "batch", part.context.rows)
        flagged = part.flagged if rows is None else part.flagged[rows]
        if len(flagged) and flagged.all():
            of = f" of half-set {half}" if e.parts else ""
            raise DataError(
                f"iteration {number}: none of the {len(flagged)} particles{of} can be used: their images are empty, the same "
                "everywhere or not finite, or no pose is likely; look at particles.cryo.view()"
            )
