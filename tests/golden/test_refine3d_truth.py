"""Refine3D judged by the truth: a whole run on the noisy set, and pure noise that must not become a structure.

``benchmarks/bench_refine3d.py`` prints the same, and what RELION does.
"""

import numpy as np
import pytest

import cryotk as ctk
from cryotk.fourier import fourier_shell_correlation, lowpass
from cryotk.geometry import euler_to_matrix, symmetry_operators
from cryotk.io import read_star

pytestmark = [pytest.mark.golden, pytest.mark.slow]

BOX_A = 226.56


def pose_errors(assignments, truth):
    """Rotation error modulo D2 (degrees) and offset error (Å) of every particle."""
    poses, right = (
        euler_to_matrix(*angles)
        for angles in (
            (assignments[f"angle_{x}"].values for x in ("rot", "tilt", "psi")),
            (np.asarray(truth[f"rlnAngle{x}"], float) for x in ("Rot", "Tilt", "Psi")),
        )
    )
    trace = np.max([np.einsum("nij,nij->n", poses, right @ o) for o in symmetry_operators("D2")], 0)
    angle = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    shift = np.hypot(
        assignments.shift_x.values - np.asarray(truth["rlnOriginXAngst"], float),
        assignments.shift_y.values - np.asarray(truth["rlnOriginYAngst"], float),
    )
    return angle, shift


def sphere(n, pixel_size, radius=92.0, edge_px=4.0):
    """The README's mask."""
    k = (np.arange(n) - n // 2) ** 2
    r = np.sqrt(k[:, None, None] + k[None, :, None] + k[None, None]) * pixel_size
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((r - radius) / (edge_px * pixel_size), 0, 1))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_noisy_set_is_refined_at_least_as_well_as_by_relion(shared, seed):
    """Bands of the README around RELION's run: 10.8 Å within two shells, 14 % beyond 10 degrees, 3.7 degrees, 1.6 Å."""
    root = shared / "reference/betagal_noisy"
    truth = next(iter(read_star(root / "truth.star").values()))
    true_map = ctk.open_volume(root / "truth_map.mrc")
    start = true_map.copy(data=lowpass(true_map.values.astype(float), 3.54, 40.0).astype(np.float32))
    job = ctk.Refine3D(root / "particles.star", start, "D2", initial_lowpass=40, seed=seed)
    job.run(progress=False)
    assert job.converged and job.iteration <= 14
    angle, shift = pose_errors(job.assignments, truth)
    mask = sphere(64, 3.54)
    f = fourier_shell_correlation(job.volume.values * mask, true_map.values.astype(float) * mask)
    lines = [line.split("\t") for line in (shared / "reference/refine3d/fsc_to_truth.tsv").read_text().splitlines()]
    relion = np.array([float(line[3]) for line in lines if line[0] == "merged"])
    band = (BOX_A / np.arange(1, 33) <= 40) & (BOX_A / np.arange(1, 33) >= 10)
    print(
        f"{job.resolution:.1f} Å, median {np.median(angle):.2f} degrees, {np.mean(angle > 10):.3f} beyond 10, offsets {np.median(shift):.2f} Å, "
        f"FSC against RELION's: smallest difference {(f[1:] - relion)[band].min():.3f}, mean {(f[1:] - relion)[band].mean():.3f}"
    )
    assert 10.2 <= job.resolution <= 11.9
    assert np.mean(angle > 10) <= 0.14
    assert np.median(angle) <= 3.7
    assert np.median(shift) <= 1.6
    assert (f[1:] - relion)[band].min() >= -0.05
    orders = job.history.healpix_order.values[1:]
    assert list(dict.fromkeys(orders)) == [2, 3, 4]


@pytest.mark.parametrize("seed", range(5))
def test_pure_noise_has_no_resolution(seed):
    """Images of noise alone, aligned to a map: beyond the joined shells the half-maps do not agree."""
    made = ctk.simulate.particles(120, 32, 7.0, seed=1, progress=False)
    images = np.random.default_rng(seed).normal(size=(120, 32, 32)).astype(np.float32)
    noise = made.assign(images=(("particle", "y", "x"), images))
    reference = ctk.simulate.volume(ctk.simulate.molecule(), 32, 7.0)
    job = ctk.Refine3D(
        noise, reference, "D2", mask_diameter=180, initial_lowpass=40, initial_sampling=15, offset_range_px=2, seed=seed,
    )  # fmt: skip
    job.run(4, progress=False)
    joined = int(np.ceil(32 * 7.0 / 40))
    for fsc in job.fsc.values:
        below = np.nonzero(fsc[1:] < 0.143)[0]
        assert len(below) and below[0] + 1 <= joined + 3
