"""Both branches of ``compat``: RELION's form and the right one (docs/relion_differences.md)."""

from __future__ import annotations

import numpy as np
import pytest

import cryotk as ctk
from cryotk.geometry import angular_distance, euler_to_matrix, symmetry_operators
from cryotk.jobs.updates import update_prior_offset
from cryotk.likelihood.priors import local_orientations, log_prior_offsets


@pytest.fixture(scope="module")
def particles():
    return ctk.simulate.example(1500).isel(particle=slice(0, 60))


@pytest.mark.parametrize("compat", [None, "relion"])
@pytest.mark.parametrize("is_3d", [False, True])
def test_offset_prior(compat, is_3d):
    a, sigma = 3.0, 5.0
    old, offsets, prior = np.array([[2.0, -1.0]]), np.array([[0.0, 0.0], [6.0, 3.0]]), np.array([[[1.5, 4.5]]])
    got = log_prior_offsets(old, offsets, prior, sigma, a, is_3d, compat)[0, 0]
    if compat is None:  # everything in Å
        expected = [-((a * old[0] + t - prior[0, 0]) ** 2).sum() / (2 * sigma**2) for t in offsets]
    else:  # pixels and Å added, the sum times the pixel size
        centre = prior[0, 0] / a if is_3d else prior[0, 0]
        expected = [-(a**2) * ((old[0] + t - centre) ** 2).sum() / (2 * sigma**2) for t in offsets]
    assert np.allclose(got, expected, rtol=1e-6)
    assert not log_prior_offsets(old, offsets, prior, 0.0, a, is_3d, compat).any(), "no width is no preference"


def test_mean_offset_of_a_class():
    sums, weights = np.array([[6.0, -3.0], [2.0, 8.0]]), np.array([3.0, 1.0])
    assert np.allclose(update_prior_offset(sums, weights, 4.0, None), [[2, -1], [2, 8]])
    assert np.allclose(update_prior_offset(sums, weights, 4.0, "relion"), [[1.5, -0.75], [0.5, 2]])


def test_local_search_around_a_pose_outside_the_asymmetric_unit():
    """D2: an upside-down pose has a mate in the unit, at another psi; RELION looks around the psi that the file says."""
    operators = symmetry_operators("D2")
    rot, tilt = ctk.geometry.directions(3, "D2")
    grid, psi = np.stack([rot, tilt], -1), np.arange(0, 360, 7.5)
    pose = np.array([[150.0, 130.0, 20.0]])
    right = euler_to_matrix(*pose[0])
    nearest = {}
    for compat in (None, "relion"):
        start, orientation, log_prior = local_orientations(pose, grid, psi, (5.0, 5.0, 5.0), operators, compat)
        d, p = np.divmod(orientation[start[0] : start[1]], len(psi))
        found = euler_to_matrix(grid[d, 0], grid[d, 1], psi[p])
        distance = angular_distance(found, np.broadcast_to(right, found.shape), operators)
        nearest[compat] = distance.min()
        if compat is None:
            assert distance[np.argmax(log_prior)] < 8 and distance.max() < 25
    assert nearest[None] < 5 < 60 < nearest["relion"]


@pytest.mark.parametrize(("compat", "expected"), [(None, 0.8), ("relion", 1.0)])
def test_norms_of_an_earlier_run(particles, compat, expected):
    p = particles.assign(norm_correction=("particle", np.tile([0.7, 0.9], 30)))
    job = ctk.Class2D(p, n_classes=2, mask_diameter=190, seed=1, compat=compat)
    assert job.current.model.norm_average == pytest.approx(expected)


def test_a_class_that_becomes_empty_shows_nothing(particles):
    job = ctk.Class2D(particles, n_classes=3, mask_diameter=190, seed=1)
    assert job.current.model.references[1].std() > 0
    e = job.expectation()
    e.sums.class_weight[1], e.sums.class_offset[1] = 0, 0
    step = job.maximization(e)
    assert not step.model.references[1].any() and step.model.references[0].std() > 0 and step.model.class_distribution[1] == 0
    assert np.isfinite(job.iterate().model.references).all()


@pytest.mark.parametrize(("wanted", "step"), [(6, 6.0), (7, 360 / 26 / 2), (5.625, 5.625)])
def test_steps_of_in_plane_angles_divide_the_circle(particles, wanted, step):
    job = ctk.Class2D(particles, n_classes=2, mask_diameter=190, seed=1, psi_step=wanted)
    assert job.current.sampling.psi_step / 2 == pytest.approx(step)


@pytest.mark.golden
@pytest.mark.parametrize(("compat", "share"), [(None, 0.9), ("relion", 0.5)])
def test_local_search_among_classes_of_different_size(shared, compat, share):
    """Two classes of one map, nine to one: the data cannot tell them apart, so a particle's share is the prior's."""
    folder = shared / "reference/two_states"
    particles = ctk.open_particles(folder / "tetramers125.star").isel(particle=slice(0, 12))
    true = ctk.open_particles(folder / "tetramers125_true.star", images=False).isel(particle=slice(0, 12))
    particles = particles.assign({k: true[k] for k in ("angle_rot", "angle_tilt", "angle_psi", "shift_x", "shift_y")})
    truth = folder / "truth_class1.mrc"
    job = ctk.Class3D(
        particles, [truth, truth], local_search_range=5.0, initial_sampling=3.75, offset_range_px=2.0, initial_lowpass=15.0,
        absolute_greyscale=True, seed=1, compat=compat,
    )  # fmt: skip
    job.current.model.class_distribution = np.array([0.9, 0.1])
    job.current.model.references[1] *= 1 + 1e-6  # maps that are the same to the bit would get random particles
    weight = job.expectation().sums.class_weight
    assert weight[0] / weight.sum() == pytest.approx(share, abs=0.03)  # the least probable 0.1 % are left out
