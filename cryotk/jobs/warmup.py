"""A few particles through every job on a device, so that its kernels are compiled, and kept on disk, before they are needed."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from cryotk.data import select_particles
from cryotk.jobs.class2d import Class2D
from cryotk.jobs.class3d import Class3D
from cryotk.jobs.initial_model import InitialModel

__all__ = ["warm_up"]


def warm_up(device: str) -> None:
    """Run tiny jobs on ``device``: images, maps searched everywhere, around a pose and not at all, gradients.

    Parameters
    ----------
    device : str
        As for the jobs.
    """
    from cryotk import simulate

    particles = simulate.particles(48, 32, 6.0, seed=1, progress=False)
    poses = {f"angle_{a}": particles[f"true_angle_{a}"] for a in ("rot", "tilt", "psi")}
    posed = particles.assign(poses | {f"shift_{a}": particles[f"true_shift_{a}"] for a in "xy"})
    map_ = simulate.volume(simulate.molecule(), 32, 6.0, amplitude=particles.attrs["amplitude"])
    common: dict[str, Any] = {"mask_diameter": 170.0, "seed": 1, "device": device}
    volumes = common | {"absolute_greyscale": True, "initial_lowpass": 30.0, "offset_range_px": 2.0}
    few = select_particles(posed, np.arange(16))
    with warnings.catch_warnings():
        # about results that nobody looks at
        warnings.simplefilter("ignore")
        jobs = [
            Class2D(particles, 2, psi_step=15, **common),
            Class2D(particles, 2, psi_step=15, algorithm="vdam", **common),
            Class3D(few, map_, 2, initial_sampling=30, **volumes),
            Class3D(few, map_, 1, initial_sampling=7.5, local_search_range=20, **volumes),
            Class3D(few, map_, 1, align=False, **volumes),
            InitialModel(particles, 1, **common),
        ]
        for job in jobs:
            job.run(2, progress=False)
