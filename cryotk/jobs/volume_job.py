"""What Class3D and Refine3D share: references, sampling, accuracies, the plan of an iteration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from pydantic import Field

from cryotk.data import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.data.notices import warn_caller
from cryotk.errors import DataError, SettingsError
from cryotk.execution.lanes import default_threads
from cryotk.fourier import lowpass, lowpass_gain, shell_index
from cryotk.geometry import directions, relaxation_operators, symmetry_operators
from cryotk.io.mrc import write_mrc
from cryotk.io.relion_read import find_near
from cryotk.io.relion_write import name_in_project
from cryotk.jobs.auto_sampling import angular_step
from cryotk.jobs.bookkeeping import estimate_model_accuracy, next_perturbation
from cryotk.jobs.references3d import missing_reference, open_mask, open_references
from cryotk.jobs.refinement_job import RefinementJob
from cryotk.jobs.resources import Work, offsets_in, orientations_near
from cryotk.jobs.settings import PointGroup, RefinementSettings
from cryotk.jobs.start import initial_noise
from cryotk.jobs.step import StepContext
from cryotk.jobs.updates import coarse_window, next_image_size, round_int
from cryotk.likelihood.correlation import CorrelationStep
from cryotk.projection import FourierReference

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CorrelationContext", "Plan", "VolumeJob", "VolumeSettings", "order_of_sampling"]

MIN_SHELL = 5


class CorrelationContext(StepContext):
    """Of a first iteration whose references are not on the images' grey scale."""

    step_type = CorrelationStep


class VolumeSettings(RefinementSettings):
    """Settings that all 3D jobs have."""

    symmetry: PointGroup = "C1"
    initial_lowpass: float | None = Field(60.0, gt=0)
    initial_sampling: float = Field(7.5, gt=0, le=30)
    absolute_greyscale: bool = False
    relax_symmetry: PointGroup | None = None


def order_of_sampling(degrees: float) -> int:
    """HEALPix order of the coarse grid whose oversampled step is nearest to ``degrees`` (7.5 is order 2)."""
    return int(max(0, round(np.log2(60.0 / (2 * degrees)))))


@dataclass(frozen=True)
class Plan:
    """What an iteration does, decided before its expectation from the last one alone."""

    number: int
    size: int
    """Image window in pixels."""
    coarse_step: float
    """Angular step in degrees that sets the window of the coarse pass."""
    sampling: SamplingSettings
    convergence: Convergence
    models: tuple[RefinementModel, ...]
    """Model, or one of each half-set, with this iteration's sampling and accuracies."""
    correlation: bool = False
    final: bool = False
    references: tuple[FourierReference, ...] = ()
    """Transforms of the first model's maps at this size, where they are made already."""


class VolumeJob(RefinementJob):
    """A refinement of maps."""

    of_the_start: ClassVar[frozenset[str]] = frozenset({"initial_lowpass", "absolute_greyscale"})
    _mask: np.ndarray | None = None
    _mask_file: tuple[Path, str] | None = None
    """Where the mask was written for RELION, and what names in the project begin with there."""

    def __init__(self, particles: xr.Dataset | str | Path, references: Any, mask: Any = None, **values: Any) -> None:
        super().__init__(particles, **values)
        optics = self.data.optics[0]
        if self.settings.relax_symmetry is not None:
            self._check_relaxation()
        asked, step = self.settings.initial_sampling, angular_step(order_of_sampling(self.settings.initial_sampling))
        if abs(step / asked - 1) > 0.1:
            warn_caller(f"initial_sampling = {asked:g}: HEALPix grids have steps of 30, 15, 7.5, 3.75, 1.88 ... degrees; {step:g} is used")
        missing_reference(references)
        self._references_given = references
        self._mask = open_mask(mask, optics.box_size, optics.pixel_size)
        self._plan_cache: tuple[RefinementModel, Plan] | None = None

    def _check_relaxation(self) -> None:
        s = self.settings
        relaxation_operators(s.symmetry, s.relax_symmetry)
        if s.compat == "relion":
            raise SettingsError(
                "relax_symmetry with compat='relion': RELION's way (Cn alone, around the nearest points of the grid) is not "
                "reproduced; leave one of them out"
            )

    # -- start ---------------------------------------------------------------------------------------------------

    def _needs_poses(self, why: str) -> None:
        """Refuse particles without angles where these are not searched for."""
        missing = self.data.without_pose
        if missing.any():
            whose = "the particles have" if missing.all() else f"particle {int(missing.argmax()) + 1} has"
            raise DataError(
                f"{why} needs an angle and an offset of every particle, but {whose} none (rlnAngleRot, rlnAngleTilt, rlnAnglePsi; "
                "rlnOriginXAngst, rlnOriginYAngst): give the particles of a refinement, e.g. job.particles, or search all orientations"
            )

    def _open_references(self) -> tuple[np.ndarray, float]:
        optics = self.data.optics[0]
        maps, a = open_references(self._references_given, optics.box_size, optics.pixel_size)
        if self.settings.compat != "relion":
            return maps, optics.pixel_size
        if a < optics.pixel_size:
            # RELION's model pixel is that of the map's header, a little smaller: half pixels round towards zero
            self._state.shifts = self._state.shifts * (1 - 1e-8)
        return maps, a

    def _first_sampling(self, a: float) -> SamplingSettings:
        s = self.settings
        order = order_of_sampling(s.initial_sampling)
        step = angular_step(order, 0)
        return self._with_directions(SamplingSettings(
            is_3d=True, healpix_order=order, symmetry=s.symmetry, psi_step=step, offset_range=s.offset_range_px * a,
            offset_step=2 * s.offset_step_px * a, perturbation_factor=s.perturbation_factor, healpix_order_original=order,
            psi_step_original=step, offset_range_original=s.offset_range_px * a, offset_step_original=2 * s.offset_step_px * a,
        ))  # fmt: skip

    @staticmethod
    def _with_directions(sampling: SamplingSettings) -> SamplingSettings:
        rot, tilt = directions(sampling.healpix_order, sampling.symmetry)
        return replace(sampling, directions=np.stack([rot, tilt], -1))

    def _first_model(self, maps: np.ndarray, a: float, n_directions: int, tau2_fudge: float) -> RefinementModel:
        """Model of iteration 0 from maps (K, N, N, N)."""
        s, data = self.settings, self.data
        k, box = len(maps), maps.shape[-1]
        n_shells = box // 2 + 1
        noise = initial_noise(data, box, a, s.mask_diameter, s.zero_mask)
        references = self._start_maps(maps, a)
        power = np.stack([_map_power(m) for m in references]) * tau2_fudge
        per_shell = np.maximum(2 * np.arange(n_shells), 1)
        mean_noise = np.where(noise.mean(0) > 0, noise.mean(0), np.inf)
        ratio = data.n / k / mean_noise * power / per_shell
        if s.initial_lowpass:
            shell = min(max(round_int(box * a / s.initial_lowpass), 1), n_shells - 1)
        else:
            below = np.nonzero((ratio < 1).all(0)[1:])[0]
            shell = max(int(below[0]) if len(below) else n_shells - 1, MIN_SHELL)
        zeros = np.zeros((k, n_shells))
        return RefinementModel(
            references=references, pixel_size=a, noise_power=noise, class_distribution=np.full(k, 1 / k), prior_power=power,
            data_vs_prior=ratio, reference_noise=zeros, fourier_completeness=zeros, gold_standard_fsc=zeros,
            group_names=data.group_names, group_counts=data.group_counts, group_scales=np.ones(len(data.group_names)),
            direction_distribution=np.full((k, n_directions), 1 / (k * n_directions)),
            current_resolution=box * a / shell, current_size=0, padding=s.padding, tau2_fudge=tau2_fudge,
            accuracy_rotation=np.full(k, 999.0), accuracy_translation=np.full(k, 999.0),
            class_resolution=np.full(k, box * a / shell), class_completeness=np.zeros(k),
            # images that carry norms of an earlier run start at their mean
            norm_average=1.0 if s.compat == "relion" else float(data.norm.mean()),
        )  # fmt: skip

    def _start_maps(self, maps: np.ndarray, a: float) -> np.ndarray:
        """References as they are compared with images first; in single precision, as a file holds them."""
        h = self.settings.initial_lowpass
        if not h:
            return np.array(maps, float)
        out = np.stack([lowpass(m, a, h).astype(np.float32) for m in maps]).astype(float)
        for i, (m, low) in enumerate(zip(maps, out, strict=True)):
            if np.ptp(low) <= 1e-6 * np.ptp(m):
                raise DataError(
                    f"reference {i + 1} holds nothing that is coarser than {h:g} Å: there is nothing to align to; give another map, or "
                    "a smaller initial_lowpass"
                )
        return out

    def _low_passed(self, model: RefinementModel) -> None:
        """After a first iteration by correlation: maps and spectra no finer than at the start, in place."""
        h, a, n = self.settings.initial_lowpass, model.pixel_size, model.box_size
        if not h:
            return
        model.references = np.stack([lowpass(m, a, h) for m in model.references])
        if self._mask is not None:
            model.references = model.references * self._mask
        gain = lowpass_gain(n, a, h, 2.0, 3)[0, 0] ** 2
        model.prior_power, model.data_vs_prior = model.prior_power * gain, model.data_vs_prior * gain
        shell = min(max(round_int(n * a / h), 1), n // 2)
        model.current_resolution = n * a / shell
        model.class_resolution = np.full(model.n_classes, model.current_resolution)

    # -- one iteration -------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """What the next iteration will do."""
        current = self.current
        if self._plan_cache is None or self._plan_cache[0] is not current.model:
            self._plan_cache = current.model, self._make_plan(current)
        return self._plan_cache[1]

    def _forget_references(self) -> None:
        """The plan's transforms are in use now, and are made anew when they are needed again."""
        if self._plan_cache is not None:
            self._plan_cache = self._plan_cache[0], replace(self._plan_cache[1], references=())

    def _make_plan(self, current: Iteration) -> Plan:
        raise NotImplementedError

    def _next_size(self, current: Iteration) -> int:
        m, c = current.model, current.convergence
        shell = round_int(m.box_size * m.pixel_size / m.current_resolution) if np.isfinite(m.current_resolution) else 1
        return next_image_size(shell, m.box_size, c.increment_size, m.average_p_max, c.has_high_fsc_at_limit)

    def _perturbed(self, sampling: SamplingSettings, number: int) -> SamplingSettings:
        s = self.settings
        if not getattr(s, "align", True) or s.perturbation_factor == 0:
            return replace(sampling, perturbation=0.0)
        return replace(sampling, perturbation=next_perturbation(sampling.perturbation, s.perturbation_factor, s.seed, number))

    def _by_correlation(self, number: int) -> bool:
        s = self.settings
        return number == 1 and not s.absolute_greyscale

    def _accuracies(self, context: StepContext, rows: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy of rotations (degrees) and offsets (Å) of each class at the particles' poses; 999 where not estimated."""
        rng = np.random.default_rng([self.settings.seed, number, 1])
        return estimate_model_accuracy(context, self._state.poses, rng, rows)

    def _sigma(self, order: int) -> float:
        """Width in degrees of local searches at a sampling; 0 for a search of all orientations."""
        return float(self.iterations[-1].model.sigma_psi) if self.iterations else 0.0

    def _work(self) -> Work:
        s, optics = self.settings, self.data.optics[0]
        box, a = optics.box_size, optics.pixel_size
        n_classes = getattr(s, "n_classes", 1)
        significant = 30.0
        if self.iterations:
            size, sampling = self._next_size(self.current), self.current.sampling
            significant = self.current.numbers.get("mean_significant", significant)
        else:
            shell = box * a / s.initial_lowpass if s.initial_lowpass else box / 2
            size, sampling = int(min(box, 2 * (round(shell) + 10))), self._first_sampling(a)
        order, align = sampling.healpix_order, getattr(s, "align", True)
        sigma = self._sigma(order)
        local = align and sigma > 0
        if self.iteration == 0 and not local:
            # a map that is hardly known leaves many poses open
            significant = 300.0 * n_classes
        orientations: float = len(directions(order, s.symmetry)[0]) * 6 * 2**order
        if local:
            orientations = orientations_near(order, sigma)
        elif not align:
            orientations, significant = 1, n_classes
        if self._by_correlation(self.iteration + 1):
            significant = 1.0
        window = coarse_window(box, a, angular_step(order, 0), s.mask_diameter, size, True)
        return Work(
            n_particles=self.data.n, n_rows=self.data.n, box=box, size=size, padding=s.padding, n_classes=n_classes, is_3d=True,
            orientations=orientations, n_children=8 if align else 1, significant=significant,
            n_offsets=offsets_in(sampling.offset_range / sampling.offset_step) if align else 1,
            coarse_pixels=np.pi / 8 * window**2 + window, threads=self.threads or default_threads(), align=align, local=local,
            halves=2 if hasattr(self, "half_sets") else 1, shared_maps=hasattr(self, "half_sets") and self._one_reference(), symmetries=len(symmetry_operators(s.symmetry)),
        )  # fmt: skip

    def _one_reference(self) -> bool:
        """Whether both halves are compared with the same map: at the start of most refinements."""
        return self.iteration == 0 and (not self.iterations or self.current.half2 is None)

    # -- files ---------------------------------------------------------------------------------------------------

    def _write(self, directory: Path, iteration: Iteration) -> None:
        if self._mask is not None:
            from cryotk.jobs.refinement_files import project_of

            file = directory / "run_solvent_mask.mrc"
            inside = name_in_project(directory, project_of(self.input_particles))
            if self._mask_file != (file, inside) or not file.exists():
                write_mrc(file, self._mask, iteration.model.pixel_size)
            self._mask_file = file, inside
        super()._write(directory, iteration)

    def _common_entries(self) -> dict[str, Any]:
        name = "None" if self._mask_file is None else self._mask_file[1] + self._mask_file[0].name
        return super()._common_entries() | {"rlnSolventMaskName": name}

    def _arguments(self) -> dict[str, Any]:
        return {"mask": self._mask}

    @classmethod
    def _remake(cls, particles: Any, values: dict[str, Any], start: Iteration) -> Self:
        values = dict(values)
        return cls(particles, start.classes, mask=values.pop("mask", None), **values)

    def _unstarted(self, values: dict[str, Any]) -> Self:
        values = dict(values)
        return type(self)(self.input_particles, self._references_given, mask=values.pop("mask", None), **values)

    @classmethod
    def _common_settings(cls, it: Iteration) -> dict[str, Any]:
        """Settings that RELION's files of any 3D job hold."""
        a, sampling = it.model.pixel_size, it.sampling
        return super()._common_settings(it) | {
            "symmetry": sampling.symmetry,
            "initial_lowpass": None,
            "initial_sampling": angular_step(sampling.healpix_order_original),
            "offset_range_px": (sampling.offset_range_original or 5 * a) / a,
            "offset_step_px": (sampling.offset_step_original or 2 * a) / a / 2,
            "absolute_greyscale": True,
        }

    @staticmethod
    def _mask_of(path: Path, it: Iteration) -> dict[str, Any]:
        """The solvent mask that RELION's files name; where it is not there its name, so that opening it says so."""
        name = str(it.optimiser.get("rlnSolventMaskName", "None"))
        if name in ("None", ""):
            return {}
        return {"mask": find_near(name, path.parent) or Path(name)}


def _map_power(map_: np.ndarray) -> np.ndarray:
    """Half the mean power of a map's transform per shell, on the scale of image transforms divided by their pixels."""
    import scipy.fft

    n = map_.shape[-1]
    f = scipy.fft.rfftn(map_, workers=1) / n**2
    shell = shell_index(n, 3)
    inside = shell <= n // 2
    power = np.bincount(shell[inside], (np.abs(f) ** 2)[inside], minlength=n // 2 + 1)
    return power / np.bincount(shell[inside], minlength=n // 2 + 1) / 2
