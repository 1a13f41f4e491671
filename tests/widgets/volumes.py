"""Made-up iterations of 3D refinements for the tests of views."""

import numpy as np
import xarray as xr

from cryotk.data import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.geometry import directions


def maps(k=1, n=32, sharp=1.0):
    z, y, x = np.meshgrid(*[np.arange(n) - n // 2] * 3, indexing="ij")
    out = []
    for i in range(k):
        r = np.sqrt((x - 2 * i) ** 2 + (y + 3) ** 2 + z**2)
        s = np.sqrt((x - 6) ** 2 + (y - 6) ** 2 + (z - 4) ** 2)
        out.append(np.clip((7 - r) / 3 * sharp + 0.5, 0, 1) + 0.7 * np.clip((3 + i - s) / 2 + 0.5, 0, 1))
    return np.array(out, np.float32)


def iteration(number=3, k=1, n=32, pixel_size=4.0, particles=200, halves=True, seed=0):
    """Resolution improves with the number; class i + 1 has a share of its own; class 3 of three is empty."""
    rng = np.random.default_rng(seed)
    shells = np.arange(n // 2 + 1)
    fsc = np.clip(1.2 - shells / (3.0 + 1.5 * number), 0, 1)
    snr = 10.0 ** (2 - shells / (2.0 + number))
    share = np.array([0.6, 0.4, 0.0, 0.0][:k]) if k > 1 else np.ones(1)
    zeros = np.zeros((k, n // 2 + 1))
    rot, tilt = directions(2)
    resolution = n * pixel_size / (2 + number)
    model = RefinementModel(
        references=maps(k, n, 0.5 + 0.2 * number), pixel_size=pixel_size, noise_power=np.ones((1, n // 2 + 1)), class_distribution=share,
        prior_power=zeros, data_vs_prior=np.tile(snr, (k, 1)), reference_noise=zeros, fourier_completeness=zeros,
        gold_standard_fsc=np.tile(fsc, (k, 1)) if halves else zeros, direction_distribution=np.ones((k, len(rot))) / len(rot),
        current_resolution=resolution, current_size=2 * (2 + number), average_p_max=0.2 + 0.1 * number,
        accuracy_rotation=np.full(k, 4.0 - 0.5 * number), accuracy_translation=np.full(k, 3.0), class_resolution=np.full(k, resolution),
    )  # fmt: skip
    table = xr.Dataset({
        "class_number": ("particle", rng.choice(np.arange(1, k + 1), particles, p=share)), "angle_rot": ("particle", rng.uniform(-180, 180, particles)),
        "angle_tilt": ("particle", np.degrees(np.arccos(rng.uniform(-1, 1, particles)))), "angle_psi": ("particle", rng.uniform(-180, 180, particles)),
    })  # fmt: skip
    sampling = SamplingSettings(
        is_3d=True, symmetry="D2", psi_step=15.0 / 2 ** (number // 2), offset_step=8.0, directions=np.stack([rot, tilt], -1)
    )
    numbers = {
        "resolution": resolution,
        "average_p_max": model.average_p_max,
        "changes_orientation": 10.0 / number if number else np.nan,
    }
    return Iteration(number, model, sampling, Convergence(), table, numbers)
