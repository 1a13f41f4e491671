"""2D classification by expectation-maximisation, one step at a time."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cryotk.data import Convergence, Iteration, RefinementModel, SamplingSettings, open_particles
from cryotk.errors import DataWarning, SettingsError
from cryotk.jobs.bookkeeping import assignments_dataset, changes, estimate_model_accuracy, next_perturbation
from cryotk.jobs.iterative import IterativeJob
from cryotk.jobs.maximization import MaximizationSettings, maximize
from cryotk.jobs.particle_set import ParticleSet
from cryotk.jobs.posterior_view import PosteriorMixin
from cryotk.jobs.start import initial_averages, initial_noise, initial_resolution_shell
from cryotk.jobs.step import Expectation, Particles, StepContext, StepSettings, run_expectation
from cryotk.jobs.updates import next_image_size, round_int

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Class2D", "Class2DSettings"]

ITERATION_0 = 0


class Class2DSettings(BaseModel):
    """Settings of :class:`Class2D`, checked at once. Defaults are those of RELION's window."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_classes: int = Field(ge=1, le=100_000)
    mask_diameter: float = Field(200.0, gt=0)
    tau2_fudge: float = Field(2.0, gt=0)
    n_iterations: int = Field(25, ge=1)
    psi_step: float = Field(6.0, gt=0, le=90)
    offset_range_px: float = Field(5.0, ge=0)
    offset_step_px: float = Field(1.0, gt=0)
    resolution_limit: float | None = Field(None, gt=0)
    zero_mask: bool = True
    center_classes: bool = True
    align: bool = True
    do_ctf: bool = True
    ctf_intact_first_peak: bool = False
    seed: int
    compat: Literal["relion"] | None = None
    device: str = "auto"
    perturbation_factor: float = Field(0.5, ge=0, le=1)
    padding: float = Field(2.0, ge=1, le=4)


def _check(values: dict[str, Any]) -> Class2DSettings:
    try:
        return Class2DSettings(**values)
    except ValidationError as error:
        parts = [f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" for e in error.errors()]
        raise SettingsError("Class2D: " + "; ".join(parts)) from None


class Class2D(PosteriorMixin, IterativeJob):
    """2D class averages by expectation-maximisation.

    Parameters
    ----------
    particles : Dataset or path
        What :func:`cryotk.open_particles` gives, or its path.
    n_classes : int
    mask_diameter : float
        Å; the particle is inside, the rest of each image is set to its mean.
    tau2_fudge : float
        Weight of the data against the prior (T). Higher shows more detail, and more noise.
    n_iterations : int
    psi_step : float
        In-plane sampling in degrees, after oversampling.
    offset_range_px, offset_step_px : float
        Search range and step of offsets in pixels, step after oversampling.
    resolution_limit : float, optional
        Å; the expectation compares nothing finer.
    zero_mask : bool
        Fill outside the mask with its mean, else with noise.
    center_classes : bool
        Move averages to their centre of mass.
    align : bool
        False keeps every particle's pose and only sorts.
    do_ctf, ctf_intact_first_peak : bool
    seed : int, optional
        Of all random choices; drawn (and kept in ``settings.seed``) when not given.
    compat : {None, "relion"}
        Reproduce RELION 5.0.1's numbers, defects included (see ``docs/relion_differences.md``).
    device : {"auto", "cpu", "cuda"}

    Examples
    --------
    >>> job = Class2D(particles, n_classes=50)  # doctest: +SKIP
    >>> step = job.iterate()  # doctest: +SKIP

    References
    ----------
    Scheres, S.H.W. (2012) J. Mol. Biol. 415, 406-418; J. Struct. Biol. 180, 519-530.
    """

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
        **expert: Any,
    ) -> None:
        super().__init__()
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0] % 2**31)
        values = {k: v for k, v in locals().items() if k in Class2DSettings.model_fields} | expert
        self.settings = _check(values)
        self.particles = open_particles(particles)
        self.data = ParticleSet.from_dataset(self.particles, do_ctf=do_ctf)
        self._check_device(device)
        n = self.particles.sizes["particle"]
        if n_classes > n:
            raise SettingsError(f"n_classes = {n_classes} for {n} particles: use at most one class per particle")
        optics = self.data.optics[0]
        if mask_diameter > optics.box_size * optics.pixel_size:
            raise SettingsError(
                f"mask_diameter = {mask_diameter:g} Å is larger than the box, {optics.box_size * optics.pixel_size:.0f} Å"
            )
        self._state = Particles(self.data.poses.copy(), self.data.shifts.copy(), self.data.norm.copy())

    def _check_device(self, device: str) -> None:
        if device not in ("auto", "cpu") and not device.startswith("cuda"):
            raise SettingsError(f"device = {device!r}: use 'auto', 'cpu' or 'cuda'")
        if device.startswith("cuda"):
            raise SettingsError("device='cuda': Class2D runs on the CPU in this version; use device='auto'")

    @property
    def n_iterations(self) -> int:
        """Iterations that a run does."""
        return self.settings.n_iterations

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
        references = initial_averages(
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
            tau2_fudge=s.tau2_fudge, accuracy_rotation=np.full(k, 999.0), accuracy_translation=np.full(k, 999.0),
            class_resolution=np.full(k, box * a / shell), class_completeness=np.zeros(k),
            # images that carry norms of an earlier run start at their mean
            norm_average=1.0 if s.compat == "relion" else float(data.norm.mean()),
        )
        sampling = self._sampling(0, 0.0)
        n = data.n
        empty = assignments_dataset(
            self.particles, np.zeros(n, int), self._state.poses, self._state.shifts, np.zeros(n), np.zeros(n, int), np.zeros(n),
            self._state.norm[data.image_start[:-1]], np.zeros(n, bool),
        )
        numbers = {"resolution": model.current_resolution, "image_size": 0.0, "sigma_offset": model.sigma_offset}
        return Iteration(0, model, sampling, Convergence(), empty, numbers, source="cryotk Class2D", particles=self.particles)

    def step_settings(self) -> StepSettings:
        """How images are compared with references."""
        s = self.settings
        return StepSettings(
            mask_diameter=s.mask_diameter, align=s.align, do_ctf=s.do_ctf, zero_mask=s.zero_mask,
            ctf_intact_first_peak=s.ctf_intact_first_peak, resolution_limit=s.resolution_limit, seed=s.seed, compat=s.compat,
        )

    def _context(self) -> StepContext:
        """Everything the next expectation needs."""
        current = self.current
        m, c = current.model, current.convergence
        box = m.box_size * m.pixel_size
        shell = round_int(box / m.current_resolution) if np.isfinite(m.current_resolution) else 1
        size = next_image_size(shell, m.box_size, c.increment_size, m.average_p_max, c.has_high_fsc_at_limit)
        sampling = self._sampling(current.number + 1, current.sampling.perturbation)
        step = current.sampling.psi_step / 2
        return StepContext(m, sampling, self.step_settings(), self.data, self._state, size, 2 * step)

    def _expectation(self, on_block: Callable[[int], None]) -> Expectation:
        clock = time.perf_counter()
        e = run_expectation(self._context(), threads=self.threads, stop=self._stop, on_block=on_block)
        e.seconds["total"] = time.perf_counter() - clock
        return e

    def _maximization(self, e: Expectation) -> Iteration:
        s, previous, clock = self.settings, self.current, time.perf_counter()
        model, norm = maximize(
            e,
            MaximizationSettings(
                tau2_fudge=s.tau2_fudge, mask_diameter=s.mask_diameter, center_classes=s.center_classes,
                center_limit_px=s.offset_range_px, align=s.align, compat=s.compat,
            ),
        )
        number = previous.number + 1
        accuracy = estimate_model_accuracy(e.context, e.poses, np.random.default_rng([s.seed, number, 1]))
        model.accuracy_rotation, model.accuracy_translation = accuracy
        old = self._state
        moved = changes(previous.assignments["class_number"].values, e.class_number, old.poses, e.poses, old.shifts, e.shifts)
        convergence = _advance(previous, model, moved)
        if e.flagged.any():
            warnings.warn(
                f"{int(e.flagged.sum())} particles were left out of iteration {number}: their images are empty, not finite, "
                "or no pose is likely; see assignments.flagged",
                DataWarning,
                stacklevel=4,
            )
        self._state = Particles(e.poses, e.shifts, norm)
        numbers = {
            "resolution": model.current_resolution,
            "image_size": float(e.context.size),
            "average_p_max": model.average_p_max,
            "mean_significant": float(e.n_significant[~e.flagged].mean()) if (~e.flagged).any() else 0.0,
            "changes_class": moved[0],
            "changes_orientation": moved[1],
            "changes_offset": moved[2],
            "accuracy_rotation": convergence.accuracy_rotation,
            "accuracy_translation": convergence.accuracy_translation,
            "sigma_offset": model.sigma_offset,
            "log_likelihood": model.log_likelihood,
            "flagged": float(e.flagged.sum()),
            "seconds": e.seconds.get("total", 0.0) + time.perf_counter() - clock,
        }
        table = assignments_dataset(
            self.particles, e.class_number, e.poses, e.shifts, e.p_max, e.n_significant, e.log_likelihood,
            norm[self.data.image_start[:-1]], e.flagged,
        )
        return Iteration(number, model, e.context.sampling_settings, convergence, table, numbers, "cryotk Class2D", self.particles)

    # -- files ---------------------------------------------------------------------------------------------------

    def _write(self, directory: Path, iteration: Iteration) -> None:
        from cryotk.jobs.class2d_files import write_class2d

        write_class2d(self, directory, iteration)

    @classmethod
    def resume(cls, path: str | Path, particles: Any = None, **changes: Any) -> Class2D:
        """Go on from a saved run: a directory of ours (to the same bits) or RELION's ``_optimiser.star``.

        Parameters
        ----------
        path : path
            Directory given to :meth:`save`, a checkpoint in it, or a RELION optimiser file.
        particles : Dataset or path, optional
            Where the particles are now; by default where they were.
        **changes
            Settings to change.
        """
        from cryotk.jobs.class2d_files import resume_class2d

        return resume_class2d(cls, Path(path), particles, changes)

    def _norm_of(self, iteration: Iteration) -> np.ndarray:
        """Normalisation of every image after an iteration (a particle's images may differ)."""
        if (self.iterations and iteration is self.iterations[-1]) or len(self._state.norm) != self.data.n:
            return self._state.norm
        return np.asarray(iteration.assignments["norm_correction"].values, float)

    def _restore_state(self, iteration: Iteration, norm: np.ndarray) -> None:
        a = iteration.assignments
        poses = np.stack([a[f"angle_{x}"].values for x in ("rot", "tilt", "psi")], -1)
        self._state = Particles(poses, np.stack([a["shift_x"].values, a["shift_y"].values], -1), np.asarray(norm, float))

    def _adopt(self, iteration: Iteration) -> None:
        """Take poses, offsets and norms of an iteration read from elsewhere, matched by image name when possible."""
        import xarray as xr

        a = iteration.assignments
        n = self.data.n
        if a.sizes.get("particle", 0) and "image_name" in a and "image_name" in self.particles:
            rows = {_image_key(v): i for i, v in enumerate(a["image_name"].values)}
            try:
                index = np.array([rows[_image_key(v)] for v in self.particles["image_name"].values])
            except KeyError as error:
                raise SettingsError(f"particle image {error.args[0]} is not in {iteration.source}'s data file") from None
            a = a.isel(particle=index)
        elif a.sizes.get("particle", 0) != n:
            raise SettingsError(f"{iteration.source} has {a.sizes.get('particle', 0)} particles, the given set {n}")

        def column(name: str, default: float) -> np.ndarray:
            return np.asarray(a[name].values, float) if name in a else np.full(n, default)

        state = Particles(
            np.stack([column(f"angle_{x}", 0) for x in ("rot", "tilt", "psi")], -1),
            np.stack([column("shift_x", 0), column("shift_y", 0)], -1),
            np.where(column("norm_correction", 1) > 0, column("norm_correction", 1), 1.0),
        )
        self._state = state
        iteration.assignments = assignments_dataset(
            self.particles, column("class_number", 0).astype(int), state.poses, state.shifts, column("max_probability", 0),
            column("n_significant", 0).astype(int), column("log_likelihood", 0), state.norm, np.zeros(n, bool),
        )
        assert isinstance(iteration.assignments, xr.Dataset)

    def branch(self, **changes: Any) -> Class2D:
        """Return a new job from the same state with other settings, e.g. ``job.branch(tau2_fudge=4)``."""
        values = self.settings.model_dump() | changes
        if values["n_classes"] != self.settings.n_classes:
            raise SettingsError("a branch keeps the classes: start a new Class2D for another n_classes")
        new = Class2D(self.particles, **values)
        new.iterations = list(self.iterations)
        new._state = Particles(self._state.poses.copy(), self._state.shifts.copy(), self._state.norm.copy())
        return new

    def estimate(self) -> dict[str, float]:
        """Memory (bytes), disk (bytes per iteration) and time (seconds) of one iteration, before running it."""
        from cryotk.jobs.bookkeeping import estimate_resources

        return estimate_resources(self)

    def __repr__(self) -> str:
        s = self.settings
        state = "running" if self.running else ("not started" if not self.iterations else f"iteration {self.iteration}")
        return f"<Class2D: {self.data.n} particles, {s.n_classes} classes, T = {s.tau2_fudge:g}, {state} of {s.n_iterations}>"

    def _repr_html_(self) -> str:
        from cryotk.jobs.reprs import job_html

        return job_html(self)


def _image_key(name: object) -> str:
    """Image name without leading zeros, so that 000001@a and 00000001@a are one."""
    number, at, file = str(name).partition("@")
    return f"{int(number)}@{file}" if at else number


def _advance(previous: Iteration, model: RefinementModel, moved: tuple[float, float, float]) -> Convergence:
    c = previous.convergence
    resolution = 1.0 / model.current_resolution
    gain = resolution > c.best_resolution + 1e-4
    good = model.accuracy_rotation < 999
    return Convergence(
        iterations_without_resolution_gain=0 if gain else c.iterations_without_resolution_gain + 1,
        iterations_without_large_changes=c.iterations_without_large_changes,
        best_resolution=max(resolution, c.best_resolution),
        changes_class=moved[0],
        changes_orientation=moved[1],
        changes_offset=moved[2],
        smallest_changes_class=min(c.smallest_changes_class, moved[0]),
        smallest_changes_orientation=min(c.smallest_changes_orientation, moved[1]),
        smallest_changes_offset=min(c.smallest_changes_offset, moved[2]),
        accuracy_rotation=float(model.accuracy_rotation[good].min()) if good.any() else 999.0,
        accuracy_translation=float(model.accuracy_translation[good].min()) if good.any() else 999.0,
        has_high_fsc_at_limit=c.has_high_fsc_at_limit,
        increment_size=c.increment_size,
    )
