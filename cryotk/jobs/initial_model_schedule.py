"""Settings of an initial model, and when it samples finer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from cryotk.data import Convergence, RefinementModel, SamplingSettings
from cryotk.geometry import directions
from cryotk.jobs.auto_sampling import AutoSettings, angular_step, finer_sampling
from cryotk.jobs.settings import PointGroup, RefinementSettings

__all__ = ["InitialModelSettings", "estimate_batch", "flat_directions", "next_sampling", "with_directions"]

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


def estimate_batch(
    *, box: int, pixel_size: float, n_particles: int, batch: int, size: int, sampling: SamplingSettings, significant: float,
    s: InitialModelSettings,
) -> dict[str, float]:
    """Memory (bytes), disk (bytes per kept iteration) and time (seconds) of one mini-batch.

    Parameters
    ----------
    box, size : int
        Pixels of the images, and of the window that is used.
    n_particles, batch : int
    significant : float
        Coarse samples per particle that are looked at closely.
    """
    from cryotk.execution.lanes import default_threads
    from cryotk.jobs.blocks import block_size
    from cryotk.jobs.vdam_step import LANE_PARTICLES, SLOT_BYTES

    k, pixels = s.n_classes, 0.4 * size * size
    n_directions = len(directions(sampling.healpix_order, sampling.symmetry)[0])
    orientations = k * n_directions * 6 * 2**sampling.healpix_order
    n_offsets = np.pi * (sampling.offset_range / sampling.offset_step) ** 2 + 1 if sampling.offset_step > 0 else 1
    arc = np.pi * s.mask_diameter * angular_step(sampling.healpix_order, 0) / 360
    coarse = min(pixels, 0.4 * (2 * pixel_size * box * 1.2 / arc) ** 2)
    lanes = 2 * min(2, -(-batch // (2 * LANE_PARTICLES)))
    working = min(default_threads(), lanes)
    per_lane = block_size(4 * batch, int(pixels))
    parents = min(orientations, min(per_lane, -(-batch // lanes)) * significant)
    slots = min(float(SLOT_BYTES), parents * 8 * 5 * pixels * 4)

    def points(r: float) -> float:
        return (2 * r + 3) ** 2 * (r + 2)

    sums = (lanes + 2) * k * points(s.padding * size / 2) * 24
    momenta = 2 * k * points(s.padding * box / 2) * 20
    maps = k * (s.padding * box) ** 3 * 4 * 2.5 + 4 * k * box**3 * 8
    fine = orientations * 8 * pixels * 8
    tables = orientations / 2 * coarse * 12 + (fine if fine < 192e6 else 0)
    memory = sums + momenta + maps + tables + working * (48e6 + slots + min(per_lane, batch) * (box * box * 16 + pixels * 72))
    flops = batch * orientations * n_offsets * coarse * 2
    # measured on one core: fine scores and sums, images, insertion of each orientation that was looked at
    seconds = flops / 5e10 + batch * (box * box * 40e-9 + significant * 32 * pixels * 1e-9) + lanes * parents * 4 * pixels * 20e-9
    return {
        "memory_bytes": float(memory),
        "disk_bytes_per_iteration": float(k * (box**3 * 12 + points(s.padding * box / 2) * 20) + n_particles * 350),
        "seconds_per_iteration": float(seconds / working + k * points(s.padding * size / 2) * 400e-9),
    }
