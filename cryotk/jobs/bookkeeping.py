"""Small pieces of an iteration's bookkeeping that jobs share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryotk.data import Convergence, Iteration, RefinementModel
from cryotk.geometry import angular_distance, euler_to_matrix
from cryotk.likelihood.accuracy import estimate_accuracy
from cryotk.likelihood.references import SliceMaker, group_transform

if TYPE_CHECKING:
    import xarray as xr

    from cryotk.jobs.step import StepContext

__all__ = ["advance", "assignments_dataset", "changes", "estimate_model_accuracy", "next_perturbation"]


def next_perturbation(previous: float, factor: float, seed: int, iteration: int) -> float:
    """Random offset of the sampling grids for an iteration, in coarse steps, wrapped into [-factor, factor]."""
    value = previous + np.random.default_rng([seed, iteration, 7]).uniform(0.5 * factor, factor)
    return float((value + factor) % (2 * factor) - factor)


def changes(
    old_class: np.ndarray, new_class: np.ndarray, old_pose: np.ndarray, new_pose: np.ndarray, old_shift: np.ndarray,
    new_shift: np.ndarray, operators: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """Fraction of changed classes, mean rotation (degrees) and rms offset change per axis (Å).

    The rotation is in-plane, or with the ``operators`` of a point group between axes, up to symmetry.
    """
    if operators is None:
        psi = np.abs((new_pose[:, 2] - old_pose[:, 2] + 180) % 360 - 180)
    else:
        psi = angular_distance(euler_to_matrix(*old_pose.T), euler_to_matrix(*new_pose.T), operators)
    offset = np.sqrt(((new_shift - old_shift) ** 2).sum() / (2 * max(len(new_shift), 1)))
    return float((old_class != new_class).mean()), float(psi.mean()), float(offset)


def advance(previous: Iteration, model: RefinementModel, moved: tuple[float, float, float]) -> Convergence:
    """Counters after an iteration; ``moved``: changed classes, mean change of orientations (degrees), of offsets (Å)."""
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


def assignments_dataset(
    particles: xr.Dataset, class_number: np.ndarray, poses: np.ndarray, shifts: np.ndarray, p_max: np.ndarray,
    n_significant: np.ndarray, log_likelihood: np.ndarray, norm: np.ndarray, flagged: np.ndarray,
) -> xr.Dataset:
    """What an iteration says of each particle, over ``particle``."""
    import xarray as xr

    def over(values: np.ndarray, units: str = "") -> tuple[str, np.ndarray, dict[str, str]]:
        # columns of zeros (of images, of a start) take no memory until they are changed
        return "particle", np.array(values) if np.any(values) else np.zeros(np.shape(values), np.asarray(values).dtype), {"units": units}

    out = {
        "class_number": over(class_number),
        "angle_rot": over(poses[:, 0], "degree"),
        "angle_tilt": over(poses[:, 1], "degree"),
        "angle_psi": over(poses[:, 2], "degree"),
        "shift_x": over(shifts[:, 0], "Å"),
        "shift_y": over(shifts[:, 1], "Å"),
        "max_probability": over(p_max),
        "n_significant": over(n_significant),
        "log_likelihood": over(log_likelihood),
        "norm_correction": over(norm),
        "flagged": over(flagged),
    }
    return xr.Dataset(out)


def estimate_model_accuracy(
    context: StepContext, poses: np.ndarray, rng: np.random.Generator, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of rotations (degrees) and offsets (Å) of each class, 999 for classes of less than 1 %.

    ``rows`` are the particles it may be estimated from, all by default.
    """
    m, data = context.model, context.data
    k = m.n_classes
    rotation, translation = np.full(k, 999.0), np.full(k, 999.0)
    group = data.group_of_particle()
    n_sample = 100 if m.is_3d else 10
    chosen = rng.permutation(data.n if rows is None else rows)[:n_sample]
    # one optics group serves the estimate
    g = int(group[chosen[0]])
    chosen = np.sort(chosen[group[chosen] == g])
    optics, prepare = data.optics[g], context.preparation(g)
    maker = SliceMaker(context.references, prepare.lattice, group_transform(optics, m.box_size, m.pixel_size))
    ctf, inverse_noise = prepare.ctf(data.image_start[chosen]), prepare.score_inverse_noise.astype(float)
    for c in range(k):
        if m.class_distribution[c] < 0.01:
            continue
        rot, shift = estimate_accuracy(maker, c, poses[chosen], ctf, inverse_noise, rng, m.is_3d)
        rotation[c], translation[c] = rot, shift * optics.pixel_size
    return rotation, translation
