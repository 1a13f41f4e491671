"""Settings of an initial model, and when it samples finer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from cryotk.data import Convergence, RefinementModel, SamplingSettings
from cryotk.geometry import directions
from cryotk.jobs.auto_sampling import AutoSettings, angular_step, finer_sampling
from cryotk.jobs.settings import PointGroup, RefinementSettings

__all__ = ["InitialModelSettings", "flat_directions", "next_sampling", "with_directions"]

LOCAL_ORDER = 4
"""Angular sampling stays global: its HEALPix order ends below this."""


class InitialModelSettings(RefinementSettings):
    """Settings of :class:`InitialModel`, checked at once. Defaults are those of RELION's window."""

    n_classes: int = Field(1, ge=1, le=100)
    symmetry: PointGroup = "C1"
    run_in_c1: bool = True
    tau2_fudge: float = Field(4.0, gt=0)
    n_batches: int = Field(200, ge=1)
    initial_sampling: float = Field(15.0, gt=0, le=30)
    offset_range_px: float = Field(6.0, ge=0)
    resolution_limit: float | None = Field(15.0, gt=0)
    flatten_solvent: bool = True
    padding: float = Field(1.0, ge=1, le=4)
    inactivity_threshold: float = Field(0.0, ge=0, lt=1)
    initial_sigma_offset: float | None = Field(None, gt=0)


def with_directions(sampling: SamplingSettings) -> SamplingSettings:
    """Sampling with its list of directions, as RELION's files hold it."""
    rot, tilt = directions(sampling.healpix_order, sampling.symmetry)
    return replace(sampling, directions=np.stack([rot, tilt], -1))


def flat_directions(n_classes: int, sampling: SamplingSettings) -> np.ndarray:
    """(K, D) equal probabilities of all classes and directions."""
    assert sampling.directions is not None
    n = len(sampling.directions)
    return np.full((n_classes, n), 1.0 / (n_classes * n))


def next_sampling(
    sampling: SamplingSettings, c: Convergence, model: RefinementModel, s: InitialModelSettings
) -> tuple[SamplingSettings, Convergence]:
    """Finer sampling when the map has not gained resolution and its accuracy asks for it; changes of poses do not count."""
    good = model.accuracy_rotation < 999
    if not good.any():
        return sampling, c
    c = replace(
        c, accuracy_rotation=float(model.accuracy_rotation[good].min()),
        accuracy_translation=float(model.accuracy_translation[good].min()),
    )  # fmt: skip
    order, after = sampling.healpix_order, c
    finer = sampling
    # what the estimate calls accurate is partly noise that the map has taken in: finer angles than its resolution asks for
    # would only fit more of it
    enough = s.compat != "relion" and angular_step(order) <= _needed_step(s.mask_diameter, model.current_resolution)
    if order + 1 < LOCAL_ORDER and not enough:
        settings = AutoSettings(
            local_order=LOCAL_ORDER, mask_diameter=s.mask_diameter, finer_sampling_faster=s.compat != "relion", compat=s.compat
        )
        settled = replace(c, iterations_without_large_changes=1)
        finer, after = finer_sampling(sampling, settled, 1 / model.current_resolution, settings)
        finer = with_directions(finer) if finer.directions is None else finer
    if s.compat == "relion":
        return finer, after
    step, reach = _offsets(sampling, c, model)
    return replace(finer, offset_step=step, offset_range=reach), after


def _offsets(sampling: SamplingSettings, c: Convergence, model: RefinementModel) -> tuple[float, float]:
    """Step and range in Å of the next offsets: as fine as they can be told, as far as they still move or are spread."""
    step = min(2 * 0.75 * c.accuracy_translation, 2 * 1.5 * model.pixel_size, sampling.offset_step)
    reach = min(5 * c.changes_offset, 3 * model.sigma_offset, sampling.offset_range_original)
    return step, max(reach, 1.5 * step)


def _needed_step(diameter: float, resolution: float) -> float:
    """Angular step in degrees by which the edge of a particle moves no further than the resolution."""
    return 360.0 / float(np.ceil(np.pi * diameter / resolution))
