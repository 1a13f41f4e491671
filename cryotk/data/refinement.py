"""What a refinement hands from one iteration to the next, whoever computed it.

The same objects hold an iteration of our jobs, one read from RELION's files, and one in a checkpoint;
views and jobs take them without asking where they came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Convergence", "Iteration", "RefinementModel", "SamplingSettings"]


@dataclass
class SamplingSettings:
    """The grids of one iteration (RELION's ``_sampling.star``); angles in degrees, offsets in Å, coarse steps."""

    is_3d: bool = False
    healpix_order: int = 2
    symmetry: str = "C1"
    psi_step: float = 12.0
    offset_range: float = 0.0
    offset_step: float = 0.0
    perturbation: float = 0.0
    perturbation_factor: float = 0.5
    limit_tilt: float = -91.0
    healpix_order_original: int = 2
    psi_step_original: float = 12.0
    offset_range_original: float = 0.0
    offset_step_original: float = 0.0
    directions: np.ndarray | None = None
    """(n, 2) rot, tilt in degrees in RELION's order (3D; symmetry-reduced), None in 2D."""


@dataclass
class Convergence:
    """Counters that decide sampling, image size and the end of a run (RELION's ``_optimiser.star``)."""

    iterations_without_resolution_gain: int = 0
    iterations_without_large_changes: int = 0
    best_resolution: float = 1.0 / 999.0
    """1/Å."""
    changes_orientation: float = 999.0
    changes_offset: float = 999.0
    changes_class: float = 999.0
    smallest_changes_orientation: float = 999.0
    smallest_changes_offset: float = 999.0
    smallest_changes_class: float = 9999999.0
    accuracy_rotation: float = 999.0
    accuracy_translation: float = 999.0
    has_high_fsc_at_limit: bool = False
    increment_size: int = 10
    has_converged: bool = False
    has_fine_enough_sampling: bool = False
    """Whether the angular step is below what the accuracy asks for."""


@dataclass
class RefinementModel:
    """The model after one iteration (RELION's ``_model.star`` and its maps).

    ``K`` classes, ``N`` pixels of the model box, ``S = N // 2 + 1`` shells, ``G`` optics groups, ``M`` scale groups.
    """

    references: np.ndarray
    """(K, N, N) in 2D or (K, N, N, N) in 3D: real-space maps, centre at index N // 2."""
    pixel_size: float
    """Å; RELION's model pixel size (see the specification on header pixel sizes)."""
    noise_power: np.ndarray
    """(G, S): variance of the real (and of the imaginary) part of a Fourier coefficient, transforms / N^2."""
    class_distribution: np.ndarray
    """(K,) sums to 1."""
    prior_power: np.ndarray
    """(K, S) tau2."""
    data_vs_prior: np.ndarray
    """(K, S) signal-to-noise of the maps (RELION: rlnSsnrMap)."""
    reference_noise: np.ndarray
    """(K, S) RELION: rlnReferenceSigma2."""
    fourier_completeness: np.ndarray
    """(K, S)."""
    gold_standard_fsc: np.ndarray
    """(K, S); zeros without half sets."""
    group_names: list[str] = field(default_factory=list)
    group_counts: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    group_scales: np.ndarray = field(default_factory=lambda: np.ones(0))
    direction_distribution: np.ndarray | None = None
    """(K, n_directions); None in 2D."""
    prior_offset: np.ndarray | None = None
    """(K, 2) Å: mean offset of each 2D class; None in 3D."""
    norm_average: float = 1.0
    sigma_offset: float = 10.0
    """Å."""
    current_resolution: float = np.inf
    """Å."""
    current_size: int = 0
    """Image window in pixels used in this iteration."""
    padding: float = 2.0
    tau2_fudge: float = 1.0
    orientational_prior_mode: int = 0
    sigma_rot: float = 0.0
    sigma_tilt: float = 0.0
    sigma_psi: float = 0.0
    """Degrees; local searches when > 0."""
    log_likelihood: float = 0.0
    average_p_max: float = 0.0
    accuracy_rotation: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(K,) degrees; 999 = not estimated."""
    accuracy_translation: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(K,) Å."""
    class_resolution: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(K,) Å."""
    class_completeness: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(K,) overall Fourier completeness."""

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.references)

    @property
    def box_size(self) -> int:
        """Pixels of the model box."""
        return self.references.shape[-1]

    @property
    def is_3d(self) -> bool:
        """True for volumes."""
        return self.references.ndim == 4

    def copy(self, **changes: Any) -> RefinementModel:
        """Return a shallow copy with fields replaced."""
        return replace(self, **changes)


@dataclass
class Iteration:
    """One finished iteration of a refinement: model, particle assignments, numbers.

    ``assignments`` is a Dataset over ``particle`` with ``class_number, angle_rot, angle_tilt, angle_psi, shift_x,
    shift_y, max_probability, n_significant, log_likelihood, norm_correction``, in the order of ``particles`` when
    these are known, and ``image_name`` where the source names images.
    """

    number: int
    model: RefinementModel
    sampling: SamplingSettings
    convergence: Convergence
    assignments: xr.Dataset
    numbers: dict[str, float]
    """``resolution [Å], image_size, average_p_max, mean_significant, changes_orientation, changes_offset,
    changes_class, accuracy_rotation, accuracy_translation, sigma_offset, seconds`` (what is known of them)."""
    source: str = ""
    particles: Any = None
    optimiser: dict[str, Any] = field(default_factory=dict)
    """Entries of RELION's optimiser file that this came from (label -> value); kept when it is written again."""
    half2: RefinementModel | None = None
    """Model of the second half-set; ``model`` is then that of the first."""
    half_maps: np.ndarray | None = None
    """(2, N, N, N) unfiltered maps of the half-sets, where they were made (the last iteration of an auto-refinement)."""

    @property
    def classes(self) -> xr.DataArray:
        """Class averages (class_number, y, x) or maps (class_number, z, y, x), coordinates in Å."""
        import xarray as xr

        refs, a = self.model.references, self.model.pixel_size
        axes = ("z", "y", "x")[-(refs.ndim - 1) :]
        coords: dict[str, Any] = {"class_number": np.arange(1, len(refs) + 1)}
        for ax, n in zip(axes, refs.shape[1:], strict=True):
            coords[ax] = (ax, (np.arange(n) - n // 2) * a, {"units": "Å"})
        return xr.DataArray(
            refs,
            dims=("class_number", *axes),
            coords=coords,
            name="classes",
            attrs={"pixel_size": a, "source": self.source, "long_name": "class averages"},
        )

    @property
    def occupancy(self) -> xr.DataArray:
        """Fraction of the particles in each class (class_number,)."""
        return self._over_classes(self.model.class_distribution, "occupancy", "")

    @property
    def class_resolution(self) -> xr.DataArray:
        """Estimated resolution of each class in Å (class_number,)."""
        return self._over_classes(self.model.class_resolution, "resolution", "Å")

    def noise_power(self) -> xr.DataArray:
        """Noise power (optics_group, shell)."""
        return self._over_shells(self.model.noise_power, "optics_group", "noise_power")

    def data_vs_prior(self) -> xr.DataArray:
        """Signal-to-noise ratio of the maps (class_number, shell)."""
        return self._over_shells(self.model.data_vs_prior, "class_number", "data_vs_prior")

    def _over_classes(self, values: np.ndarray, name: str, units: str) -> xr.DataArray:
        import xarray as xr

        return xr.DataArray(
            np.asarray(values),
            dims=("class_number",),
            coords={"class_number": np.arange(1, len(values) + 1)},
            name=name,
            attrs={"units": units},
        )

    def _over_shells(self, values: np.ndarray, dim: str, name: str) -> xr.DataArray:
        import xarray as xr

        shells = np.arange(values.shape[1])
        freq = shells / (self.model.box_size * self.model.pixel_size)
        return xr.DataArray(
            values,
            dims=(dim, "shell"),
            coords={
                dim: np.arange(1, len(values) + 1),
                "shell": shells,
                "frequency": ("shell", freq, {"units": "1/Å"}),
            },
            name=name,
        )
