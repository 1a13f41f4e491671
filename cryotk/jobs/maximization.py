"""The maximisation step: from the sums of an expectation to the next model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryotk.data.refinement import RefinementModel
from cryotk.execution.lanes import side_by_side
from cryotk.geometry import symmetry_operators
from cryotk.jobs.auto_sampling import half_set_resolution_shell
from cryotk.jobs.blocks import maps_at_once
from cryotk.jobs.half_sets import prior_from_fsc
from cryotk.jobs.step import Expectation
from cryotk.jobs.updates import (
    centre_of_mass_shift,
    class_resolution_shells,
    shift_bilinear,
    update_class_distribution,
    update_noise,
    update_prior_offset,
    update_scales,
    update_sigma_offset,
)
from cryotk.likelihood.lattice import Lattice
from cryotk.likelihood.prepare import particle_mask
from cryotk.projection import shell_statistics, wiener_reconstruct

__all__ = ["MaximizationSettings", "maximize"]

MIN_RESOLUTION_SHELL = 5


@dataclass(frozen=True)
class MaximizationSettings:
    """How the next model is made."""

    tau2_fudge: float = 1.0
    mask_diameter: float = 200.0
    center_classes: bool = False
    center_limit_px: float = 5.0
    flatten_solvent: bool = True
    do_noise: bool = True
    do_norm: bool = True
    do_scale: bool = True
    align: bool = True
    compat: str | None = None
    mask: np.ndarray | None = None
    """Soft mask of the box in place of the sphere of ``mask_diameter``."""


def maximize(
    e: Expectation,
    settings: MaximizationSettings,
    fsc: np.ndarray | None = None,
    *,
    symmetrised: bool = False,
    threads: int | None = 1,
) -> tuple[RefinementModel, np.ndarray]:
    """Next model from an expectation.

    Parameters
    ----------
    e : Expectation
    settings : MaximizationSettings
    fsc : (S,) float, optional
        Correlation of half-sets, which then sets the prior and the resolution; the reference's own power does otherwise.
    symmetrised : bool
        The sums have their symmetry already.
    threads : int, optional
        Classes are done side by side where memory allows; all processors by None.

    Returns
    -------
    model : RefinementModel
    norm : (n_images,) float64
        Normalisation factor of each image for the next iteration.
    """
    old, sums, context = e.context.model, e.sums, e.context
    n, k_classes, n_shells = old.box_size, old.n_classes, old.box_size // 2 + 1
    operators = symmetry_operators(context.sampling_settings.symmetry) if old.is_3d else None
    premultiplied = np.array([o.premultiplied for o in context.data.optics])
    # an empty class shows nothing, rather than an image of the past
    references = np.zeros(np.shape(old.references))
    tau2 = np.zeros((k_classes, n_shells))
    ratio, noise_ref, complete = np.zeros_like(tau2), np.zeros_like(tau2), np.zeros_like(tau2)
    mean_ctf2 = None
    if premultiplied.any():
        pixels = np.maximum(Lattice(n, e.context.size).window_pixels_per_shell, 1)
        mean_ctf2 = sums.ctf_power / pixels / max(sums.n_particles, 1)
    mask = settings.mask
    if mask is None:
        mask = particle_mask(n, settings.mask_diameter / (2 * old.pixel_size), dims=3 if old.is_3d else 2)

    def of_class(k: int) -> None:
        tau2[k] = context.reference_power[k]
        if sums.class_weight[k] <= 0:
            return
        accumulator = sums.accumulators[k]
        if not symmetrised:
            accumulator.symmetrise(operators)
        statistics = shell_statistics(accumulator, tau2[k], settings.tau2_fudge, mean_ctf2)
        ratio[k], noise_ref[k], complete[k] = statistics.data_vs_prior, statistics.reference_noise, statistics.completeness
        fudge = settings.tau2_fudge
        if fsc is not None:
            tau2[k], ratio[k] = prior_from_fsc(fsc, noise_ref[k], fudge)
            # the prior holds the factor already; RELION applies it again
            fudge = fudge if settings.compat == "relion" else 1.0
            complete[k] = shell_statistics(accumulator, tau2[k], fudge, mean_ctf2).completeness
        new = wiener_reconstruct(accumulator, tau2[k], fudge)
        if settings.center_classes:
            new = shift_bilinear(new, centre_of_mass_shift(new, settings.center_limit_px))
        if settings.flatten_solvent:
            new *= mask
        references[k] = new

    _ = context.reference_power
    side_by_side(of_class, range(k_classes), maps_at_once(context, threads))
    total = sums.weight
    distribution = update_class_distribution(sums.class_weight, total)
    directions = old.direction_distribution
    if directions is not None and settings.align:
        directions = sums.direction_weight / max(total, 1e-30)
    group_scales = np.asarray(old.group_scales)
    if settings.do_scale and len(group_scales) > 1:
        group_scales = update_scales(sums.scale_cross, sums.scale_self, np.asarray(old.group_counts))
    if fsc is None:
        resolution_shells = class_resolution_shells(ratio)
    else:
        resolution_shells = np.array([half_set_resolution_shell(r) for r in ratio])
    shell = max(int(resolution_shells.max()), MIN_RESOLUTION_SHELL)
    box = n * old.pixel_size
    prior_offset = old.prior_offset
    if prior_offset is not None:
        prior_offset = update_prior_offset(sums.class_offset, sums.class_weight, total, settings.compat)
    inside = np.arange(n_shells) <= e.context.size // 2
    model = old.copy(
        references=references,
        noise_power=update_noise(
            sums.noise, sums.noise_weight, Lattice(n, n).pixels_per_shell, old.noise_power, premultiplied
        ) if settings.do_noise else old.noise_power,
        class_distribution=distribution,
        direction_distribution=directions,
        prior_power=tau2,
        data_vs_prior=ratio,
        reference_noise=noise_ref,
        fourier_completeness=complete,
        gold_standard_fsc=old.gold_standard_fsc if fsc is None else np.repeat(fsc[None], k_classes, 0),
        group_scales=group_scales,
        prior_offset=prior_offset,
        norm_average=sums.norm / total if settings.do_norm and total > 0 else old.norm_average,
        sigma_offset=update_sigma_offset(sums.offset_squared, total, old.sigma_offset),
        current_resolution=box / shell,
        current_size=e.context.size,
        tau2_fudge=settings.tau2_fudge,
        log_likelihood=sums.log_likelihood,
        average_p_max=sums.p_max / max(total, 1e-30),
        class_completeness=np.array([c[inside].mean() for c in complete]),
    )
    model.class_resolution = np.where(resolution_shells > 0, box / np.maximum(resolution_shells, 1), np.inf)
    return model, e.norm if settings.do_norm else np.array(e.context.state.norm)
