"""Orientations half a turn apart in the plane: one slice and one insertion serve both."""

import numpy as np

import cryotk as ctk
from cryotk.geometry import euler_to_matrix
from cryotk.kernels.backends import CPU
from cryotk.kernels.half_turns import conjugate_slices
from cryotk.likelihood.half_turns import fold_half_turns, half_turns
from cryotk.projection import Accumulator


def test_half_turns_fold_onto_the_same_points():
    keys = np.array([1, 3, 6, 7, 9])
    upper, partner, left = half_turns(keys, 4)
    assert upper.tolist() == [1] and partner.tolist() == [0] and left.tolist() == [0, 2, 3, 4]
    rng = np.random.default_rng(1)
    kx, ky = np.array([0, 1, 2, 1, 3, 0]), np.array([0, 0, 1, -2, 1, 2])
    rows = rng.normal(size=(2, 1, 2, 6)).astype(np.float32)
    # the origin of a real image's transform is real
    rows[:, :, 1, 0] = 0
    weights = rng.uniform(0.5, 1, (2, 1, 6)).astype(np.float32)
    both, folded = Accumulator(16, 8, 1.0), Accumulator(16, 8, 1.0)
    matrices = euler_to_matrix(np.array([20.0, 20.0]), np.array([50.0, 50.0]), np.array([10.0, 190.0]))
    both.insert(rows[:, 0, 0] + 1j * rows[:, 0, 1], weights[:, 0], matrices, kx, ky)
    fold_half_turns(rows, weights, np.array([1]), np.array([0]), CPU)
    assert not weights[1].any()
    folded.insert(rows[:1, 0, 0] + 1j * rows[:1, 0, 1], weights[:1, 0], matrices[:1], kx, ky)
    for a in (both, folded):
        a.symmetrise()
    assert np.allclose(both.data, folded.data, atol=1e-5) and np.allclose(both.weight, folded.weight, atol=1e-5)


def test_slices_half_a_turn_apart_are_conjugates():
    """Of a job's own grid, perturbed, with the plane of an anisotropic magnification: made, and filled in from their partners."""
    particles = ctk.simulate.particles(20, 32, 6.0, seed=5, progress=False)
    map_ = ctk.simulate.volume(ctk.simulate.molecule(), 32, 6.0)
    context = ctk.Class3D(particles, map_, 1, mask_diameter=170, absolute_greyscale=True, initial_lowpass=20, seed=1)._context()
    sampling, maker = context.sampling, context.step.tables[0].maker
    assert sampling.settings.perturbation != 0
    maker.transform = np.array([[1.02, 0.01, 0], [0.01, 0.97, 0], [0, 0, 1.0]])
    maker._inverse = np.linalg.inv(maker.transform)
    slots = np.arange(3 * sampling.n_psi)
    upper, partner, left = half_turns(slots, sampling.n_psi)
    assert len(left) * 2 == len(slots) and np.array_equal(slots[upper] - slots[partner], np.full(len(upper), sampling.n_psi // 2))
    c = sampling.n_children
    made = maker.slices(np.zeros(len(slots) * c, int), sampling.child_matrices(slots).reshape(-1, 3, 3)).reshape(len(slots), c, 2, -1)
    filled = made.copy()
    filled[upper] = np.nan
    conjugate_slices(filled, upper, partner)
    largest = np.abs(made).max()
    assert np.abs(filled - made).max() < 1e-5 * largest < 1e-2 * np.abs(made[upper] - made[partner]).max()
