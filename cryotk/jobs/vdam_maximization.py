"""The maximisation of a mini-batch: every number is a running mean, every map moves along its momentum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryotk.data.refinement import RefinementModel
from cryotk.execution.lanes import side_by_side
from cryotk.geometry import symmetry_operators
from cryotk.jobs.blocks import maps_at_once
from cryotk.jobs.maximization import MIN_RESOLUTION_SHELL
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
from cryotk.jobs.vdam_step import BatchExpectation
from cryotk.jobs.vdam_update import MU, Momentum, class_step_sizes, damped, inactive_class, update_map
from cryotk.likelihood.lattice import Lattice
from cryotk.likelihood.prepare import particle_mask
from cryotk.projection import shell_statistics

__all__ = ["BatchSettings", "maximize_batch"]


@dataclass(frozen=True)
class BatchSettings:
    """How a mini-batch changes the model."""

    step: float
    tau2_fudge: float
    mask_diameter: float
    mu: float = MU
    """Share of the past; 0 when the batch is the whole set."""
    inactivity_threshold: float = 0.0
    center_classes: bool = False
    center_limit_px: float = 5.0
    flatten_solvent: bool = True
    do_norm: bool = True
    do_scale: bool = True
    compat: str | None = None


def maximize_batch(
    e: BatchExpectation, momenta: list[Momentum], settings: BatchSettings, threads: int | None = 1
) -> tuple[RefinementModel, list[Momentum], dict[str, float]]:
    """Next model and momenta from a mini-batch.

    Parameters
    ----------
    e : BatchExpectation
    momenta : list of Momentum
        One per class, before; they are not changed.
    settings : BatchSettings
    threads : int, optional
        Classes are done side by side where memory allows; all processors by None.

    Returns
    -------
    model : RefinementModel
    momenta : list of Momentum
    report : dict
        ``replaced_class``, ``replaced_by``: numbers from 1, or 0.
    """
    old, sums, context, s = e.context.model, e.sums, e.context, settings
    n, k_classes, n_shells = old.box_size, old.n_classes, old.box_size // 2 + 1
    operators = symmetry_operators(context.sampling_settings.symmetry) if old.is_3d else None
    momenta = [m.copy() for m in momenta]
    before = np.asarray(old.class_distribution, float)
    total = sums.weight
    distribution = damped(before, update_class_distribution(sums.class_weight, total), s.mu) if total > 0 else before
    directions = old.direction_distribution
    if directions is not None and total > 0:
        directions = damped(directions, sums.direction_weight / total, s.mu)
    references = np.array(old.references, float)
    tau2 = np.zeros((k_classes, n_shells))
    ratio, noise_ref, complete = np.zeros_like(tau2), np.zeros_like(tau2), np.zeros_like(tau2)
    power = np.zeros(k_classes)
    steps = class_step_sizes(s.step, before)
    mean_ctf2 = _mean_ctf2(e)

    def of_class(k: int) -> None:
        tau2[k] = context.reference_power[k]
        if before[k] <= 0:
            return
        first, second = e.halves[0].accumulators[k].copy(), e.halves[1].accumulators[k].copy()
        first.symmetrise(operators)
        second.symmetrise(operators)
        statistics = shell_statistics(first + second, tau2[k], s.tau2_fudge, mean_ctf2)
        ratio[k], noise_ref[k], complete[k] = statistics.data_vs_prior, statistics.reference_noise, statistics.completeness
        references[k], report = update_map(references[k], momenta[k], (first, second), steps[k], s.tau2_fudge)
        power[k] = report.gradient_power

    _ = context.reference_power
    side_by_side(of_class, range(k_classes), maps_at_once(context, threads))
    replaced = inactive_class(distribution, power, s.inactivity_threshold)
    if replaced is not None:
        _replace(replaced, references, np.asarray(old.references), momenta, s.compat)
        for table in (tau2, ratio, noise_ref, complete):
            table[replaced[0]] = table[replaced[1]]
        # both share what the source had, so that probabilities still sum to 1 with what the given-up class leaves over
        distribution, directions = _share(replaced, distribution, directions)
    mask = particle_mask(n, s.mask_diameter / (2 * old.pixel_size), dims=3 if old.is_3d else 2)
    for k in range(k_classes):
        if s.center_classes:
            references[k] = _centre(references[k], momenta[k], old, s)
        if s.flatten_solvent:
            references[k] *= mask
    shells = class_resolution_shells(ratio)
    box = n * old.pixel_size
    shell = max(int(shells.max()), MIN_RESOLUTION_SHELL)
    inside = np.arange(n_shells) <= context.size // 2
    model = old.copy(
        references=references,
        class_distribution=distribution,
        direction_distribution=directions,
        prior_power=tau2,
        data_vs_prior=ratio,
        reference_noise=noise_ref,
        fourier_completeness=complete,
        current_resolution=box / shell,
        current_size=context.size,
        tau2_fudge=s.tau2_fudge,
        log_likelihood=sums.log_likelihood,
        average_p_max=sums.p_max / max(total, 1e-30),
        class_completeness=np.array([c[inside].mean() for c in complete]),
        class_resolution=np.where(shells > 0, box / np.maximum(shells, 1), np.inf),
        **_other_parameters(e, s),
    )
    report_numbers = {"replaced_class": 0.0, "replaced_by": 0.0}
    if replaced is not None:
        report_numbers = {"replaced_class": replaced[0] + 1.0, "replaced_by": replaced[1] + 1.0}
    return model, momenta, report_numbers


def _mean_ctf2(e: BatchExpectation) -> np.ndarray | None:
    """Mean CTF^2 per shell of premultiplied data."""
    if not any(o.premultiplied for o in e.context.data.optics):
        return None
    pixels = np.maximum(Lattice(e.context.model.box_size, e.context.size).window_pixels_per_shell, 1)
    return e.sums.ctf_power / pixels / max(e.sums.n_particles, 1)


def _other_parameters(e: BatchExpectation, s: BatchSettings) -> dict[str, object]:
    """Noise, norms, scales and offsets: running means over mini-batches."""
    old, sums = e.context.model, e.sums
    if sums.weight <= 0:
        return {}
    n = old.box_size
    premultiplied = np.array([o.premultiplied for o in e.context.data.optics])
    out: dict[str, object] = {}
    noise = update_noise(sums.noise, sums.noise_weight, Lattice(n, n).pixels_per_shell, old.noise_power, premultiplied)
    out["noise_power"] = damped(old.noise_power, noise, s.mu)
    sigma = update_sigma_offset(sums.offset_squared, sums.weight, old.sigma_offset)
    out["sigma_offset"] = float(np.sqrt(damped(np.array(old.sigma_offset**2), np.array(sigma**2), s.mu)))
    if s.do_norm:
        out["norm_average"] = float(damped(np.array(old.norm_average), np.array(sums.norm / sums.weight), s.mu))
    scales = np.asarray(old.group_scales, float)
    if s.do_scale and len(scales) > 1:
        new = update_scales(sums.scale_cross, sums.scale_self, np.asarray(old.group_counts))
        # groups that are not in the batch keep theirs
        out["group_scales"] = np.where(sums.scale_self > 0, damped(scales, new, s.mu), scales)
    if old.prior_offset is not None:
        prior = update_prior_offset(sums.class_offset, sums.class_weight, sums.weight, s.compat)
        seen = (sums.class_weight > 0)[:, None] if s.compat != "relion" else np.ones((old.n_classes, 1), bool)
        out["prior_offset"] = np.where(seen, damped(old.prior_offset, prior, s.mu), old.prior_offset)
    return out


def _replace(
    replaced: tuple[int, int], references: np.ndarray, before: np.ndarray, momenta: list[Momentum], compat: str | None
) -> None:
    """Put a copy of the strongest class, one step behind it, in the place of an inactive one."""
    worst, best = replaced
    references[worst] = before[best]
    momenta[worst] = momenta[best].copy()
    if compat == "relion":
        # RELION damps the first row of the first half alone
        first = momenta[worst].first[0]
        first.reshape(-1, first.shape[-1])[0] *= 0.9
    else:
        momenta[worst].first *= np.float32(0.9)


def _share(
    replaced: tuple[int, int], distribution: np.ndarray, directions: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    worst, best = replaced
    together = distribution[worst] + distribution[best]
    out = distribution.copy()
    out[[worst, best]] = together / 2
    if directions is None:
        return out, None
    new = directions.copy()
    sum_best = directions[best].sum()
    new[[worst, best]] = directions[best] * (together / 2 / sum_best) if sum_best > 0 else (together / 2) / directions.shape[1]
    return out, new


def _centre(map_: np.ndarray, momentum: Momentum, model: RefinementModel, s: BatchSettings) -> np.ndarray:
    """Move a map and its momenta to the centre of mass, when it is far from it."""
    shift = centre_of_mass_shift(map_, s.center_limit_px)
    if np.linalg.norm(shift) < max(0.01 * s.mask_diameter / model.pixel_size, 2.0):
        return map_
    momentum.shift(shift, model.box_size, model.padding)
    if s.compat == "relion":
        # RELION overwrites the second half's momentum with the first's
        momentum.first[1] = momentum.first[0]
    return shift_bilinear(map_, shift)
