"""When an auto-refinement looks finer, how much of the images it uses, and when it ends.

Pure functions of the last iteration's numbers; formulas are RELION 5.0.1's (Scheres (2012) J. Struct. Biol. 180, 519).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cryotk.data import Convergence, SamplingSettings

__all__ = [
    "AutoSettings",
    "advance_convergence",
    "angular_step",
    "finer_sampling",
    "half_set_resolution_shell",
    "is_converged",
    "next_increment",
]

MAX_OFFSET_STEP = 1.5
"""Pixels; no finer search needs a larger oversampled step. RELION compares it in Å."""


@dataclass(frozen=True)
class AutoSettings:
    """What the schedule of an auto-refinement depends on."""

    local_order: int = 4
    oversampling: int = 1
    mask_diameter: float = 200.0
    finer_sampling_faster: bool = False
    pixel_size: float = 1.0
    compat: str | None = None


def angular_step(order: int, oversampling: int = 1) -> float:
    """In-plane step in degrees of a HEALPix order after oversampling."""
    return 360.0 / (6 * 2**order) / 2**oversampling


def half_set_resolution_shell(data_vs_prior: np.ndarray) -> int:
    """Last shell before the signal-to-noise ratio falls below 1; a shell more than 3 further that is above 1 again counts."""
    below = np.nonzero(data_vs_prior[1:] < 1)[0]
    if not len(below):
        return len(data_vs_prior) - 1
    shell = int(below[0])
    above = np.nonzero(data_vs_prior > 1)[0]
    last = int(above[-1]) if len(above) else shell
    return last if last > shell + 3 else shell


def next_increment(fsc: np.ndarray, increment: int) -> int:
    """Shells by which the images used exceed the resolution: as many as the FSC needs to fall from 0.5 to 0.143, and 5."""

    def first_below(level: float) -> int:
        low = np.nonzero(fsc[1:] < level)[0]
        return int(low[0]) + 1 if len(low) else len(fsc) - 1

    return int(max(increment, first_below(0.143) - first_below(0.5) + 5))


def advance_convergence(
    previous: Convergence, resolution: float, moved: tuple[float, float, float], fine_steps: tuple[float, float]
) -> Convergence:
    """Count iterations without gain of resolution and without large changes.

    Parameters
    ----------
    previous : Convergence
    resolution : float
        1/Å.
    moved : (float, float, float)
        Share of changed classes, mean change of orientations (degrees) and rms change of offsets (Å).
    fine_steps : (float, float)
        Oversampled steps of angles (degrees) and offsets (Å) below whose 0.4 a change is small.
    """
    c = previous
    gain = resolution > c.best_resolution + 1e-4
    of_class, angle, offset = moved
    small_class = 1.03 * of_class >= c.smallest_changes_class
    small_offset = offset < 0.4 * fine_steps[1] or 1.03 * offset >= c.smallest_changes_offset
    small_angle = angle < 0.4 * fine_steps[0] or 1.03 * angle >= c.smallest_changes_orientation
    settled = small_class and small_offset and small_angle
    return replace(
        c,
        iterations_without_resolution_gain=0 if gain else c.iterations_without_resolution_gain + 1,
        iterations_without_large_changes=c.iterations_without_large_changes + 1 if settled else 0,
        best_resolution=max(resolution, c.best_resolution),
        changes_class=of_class,
        changes_orientation=angle,
        changes_offset=offset,
        # RELION keeps a whole number here
        smallest_changes_class=min(c.smallest_changes_class, float(np.floor(of_class + 0.5))),
        smallest_changes_orientation=min(c.smallest_changes_orientation, angle),
        smallest_changes_offset=min(c.smallest_changes_offset, offset),
    )


def finer_sampling(
    sampling: SamplingSettings, c: Convergence, resolution: float, settings: AutoSettings
) -> tuple[SamplingSettings, Convergence]:
    """Sampling of the next iteration, decided before its expectation.

    Parameters
    ----------
    sampling : SamplingSettings
        Of the last iteration.
    c : Convergence
        Of the last iteration, with accuracies estimated now.
    resolution : float
        1/Å.
    settings : AutoSettings

    Returns
    -------
    sampling, convergence
        As they were, when nothing changes but the word that the sampling is fine enough.
    """
    step = angular_step(sampling.healpix_order, settings.oversampling)
    enough_gain = c.iterations_without_resolution_gain >= 1
    if settings.finer_sampling_faster:
        needed = 360.0 / np.ceil(np.pi * settings.mask_diameter * resolution)
        enough_gain |= needed < step and sampling.healpix_order + 1 != settings.local_order
    settled = settings.finer_sampling_faster or c.iterations_without_large_changes >= 1
    if not (enough_gain and settled):
        return sampling, c
    if step < 0.75 * c.accuracy_rotation:
        return sampling, replace(c, has_fine_enough_sampling=True)
    factor = 2**settings.oversampling
    largest = MAX_OFFSET_STEP * (1.0 if settings.compat == "relion" else settings.pixel_size)
    new_step = min(largest, 0.75 * c.accuracy_translation) * factor
    reach = max(min(5 * c.changes_offset, 1.3 * sampling.offset_range), 1.5 * new_step)
    if reach > 4 * new_step:
        reach /= 2
        if reach > 4 * new_step:
            new_step = reach / 4
    if new_step > sampling.offset_step:
        new_step, reach = sampling.offset_step, sampling.offset_range
    order = sampling.healpix_order + 1
    finer = replace(
        sampling, healpix_order=order, psi_step=angular_step(order, 0), offset_range=reach, offset_step=new_step, directions=None
    )
    reset = replace(
        c, iterations_without_resolution_gain=0, iterations_without_large_changes=0, smallest_changes_class=9999999.0,
        smallest_changes_orientation=999.0, smallest_changes_offset=999.0, has_fine_enough_sampling=False,
    )
    return finer, reset


def is_converged(c: Convergence, settings: AutoSettings) -> bool:
    """Whether the next iteration is the last: sampling fine enough, resolution and assignments settled."""
    settled = settings.finer_sampling_faster or c.iterations_without_large_changes >= 1
    return c.has_fine_enough_sampling and c.iterations_without_resolution_gain >= 1 and settled
