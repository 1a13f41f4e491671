"""Many shifts at once, axis by axis: the same numbers as one dot product per shift."""

import numpy as np
import pytest

from cryotk.kernels.accumulation import accumulate, accumulate_numpy
from cryotk.kernels.fine_scores import ragged_scores, ragged_scores_numpy
from cryotk.kernels.shift_grid import LANES, make_shift_grid, pays, row_width, shift_scores, shift_sums
from cryotk.likelihood.lattice import Lattice
from cryotk.likelihood.sampling import offset_grid, oversampled_offsets

F4, I4, I8 = np.float32, np.int32, np.int64


def disc(offset_range, step, order=1, centre=0.0):
    return oversampled_offsets(offset_grid(offset_range, step), step, order).reshape(-1, 2) + centre


SHIFTS = {
    "fine grid": disc(5, 2),
    "perturbed": disc(5, 2, centre=0.37),
    "coarse grid, zero included": disc(3, 1, order=0),
    "one shift": np.array([[0.7, -1.3]]),
    "no grid at all": np.random.default_rng(3).normal(size=(11, 2)) * 3,
}


@pytest.mark.parametrize("shifts", SHIFTS)
@pytest.mark.parametrize("window", [2, 12, 24])
def test_tables_against_dot_products(shifts, window):
    lattice, t = Lattice(24, window), SHIFTS[shifts]
    grid = make_shift_grid(lattice.kx, lattice.ky, t, 24)
    rng, p = np.random.default_rng(5), len(lattice)
    ramps = lattice.ramps(t).astype(float)
    ramps = ramps[:, 0] + 1j * ramps[:, 1]
    centre = grid.centre[0] + 1j * grid.centre[1].astype(complex)
    z = rng.normal(size=(LANES, p)) + 1j * rng.normal(size=(LANES, p))
    centred = z * np.conj(centre)
    shape = (2, grid.cos_y.shape[1], 2, grid.cos_x.shape[1], LANES)
    table = np.full(shape, np.nan, F4)
    width = row_width(p)
    products, turned = np.zeros((LANES, width), F4), np.full((width, LANES), np.nan, F4)
    products[:, : 2 * p] = np.concatenate([centred.real, centred.imag], 1)
    shift_scores(products, grid, turned, table)
    expected = (z[:, None] * np.conj(ramps)).real.sum(-1)
    np.testing.assert_allclose(table.reshape(-1, LANES)[grid.cell].T, expected, atol=2e-6 * p + 1e-5)

    weights, back = np.zeros(shape, F4), np.full((LANES, width), np.nan, F4)
    w = rng.uniform(size=(len(t), LANES)).astype(F4)
    weights.reshape(-1, LANES)[grid.cell] = w
    shift_sums(weights, grid, turned, back)
    got = (back[:, :p] + 1j * back[:, p : 2 * p]) * centre
    np.testing.assert_allclose(got, w.T.astype(float) @ ramps, atol=2e-6 * len(t) + 1e-5)


def case(n_children, n_parents, keep):
    """A block of four particles; the first and the last have enough samples for tables."""
    rng = np.random.default_rng(n_children)
    lattice, t = Lattice(24, 18), disc(5, 2, centre=0.2)
    n_coarse, n_over, p = len(t) // 4, 4, len(lattice)
    per_particle = np.array([n_parents, 0, 2, n_parents + 3])
    parent_start = np.concatenate([[0], np.cumsum(per_particle)]).astype(I8)
    n = int(per_particle.sum())
    chosen = [np.nonzero(rng.random(n_coarse) < keep)[0] for _ in range(n)]
    return lattice, {
        "images": rng.normal(size=(4, 2, p)).astype(F4),
        "self_weights": rng.uniform(0, 1, (4, p)).astype(F4),
        "slices": rng.normal(size=(17, n_children, 2, p)).astype(F4),
        "ramps": lattice.ramps(t),
        "parent_start": parent_start,
        "parent_slot": rng.integers(0, 17, n).astype(I8),
        "parent_prior": rng.normal(size=n).astype(F4),
        "parent_class": np.concatenate([np.sort(rng.integers(0, 3, k)) for k in per_particle]).astype(I4),
        "offset_start": np.concatenate([[0], np.cumsum([len(c) for c in chosen])]).astype(I8),
        "offsets": np.concatenate(chosen).astype(I4),
        "n_over": n_over,
        "log_prior_offset": rng.normal(size=(4, 3, n_coarse)).astype(F4),
    }, make_shift_grid(lattice.kx, lattice.ky, t, 24)


@pytest.mark.parametrize(("n_children", "n_parents"), [(1, 100), (2, 45), (8, 40), (64, 3)])
def test_blocks_through_tables(n_children, n_parents):
    lattice, c, grid = case(n_children, n_parents, 0.8)
    count = np.diff(c["offset_start"][c["parent_start"]]) * n_children * 4
    n_chunks = -(-np.diff(c["parent_start"]) * n_children // LANES)
    through_tables = [pays(k, n_children, s) for k, s in zip(n_chunks, count, strict=True)]
    assert through_tables == [True, False, n_children == 64, True]
    n = len(c["offsets"]) * n_children * 4
    got, expected = np.full(n, np.nan, F4), np.full(n, np.nan, F4)
    ragged_scores(*c.values(), got, grid)
    ragged_scores_numpy(*c.values(), expected)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-4)

    rng = np.random.default_rng(8)
    p, n_slots = len(lattice), 17
    weights = rng.uniform(0, 1, n).astype(F4)
    results = []
    for function, extra in ((accumulate, (grid,)), (accumulate_numpy, ())):
        r = np.random.default_rng(9)
        per_image = np.zeros((4, 3))
        per_image[:, 0] = 1.1
        outputs = [
            np.ones((n_slots, n_children, 2, p), F4), np.ones((n_slots, n_children, p), F4), np.zeros((4, 13)), per_image,
            np.zeros((4, 2)), np.ones(3), np.ones((3, 2)), np.ones((3, 5)),
        ]  # fmt: skip
        function(
            c["images"], c["self_weights"], r.normal(size=(4, 2, p)).astype(F4), r.uniform(-1, 1, (4, p)).astype(F4),
            np.arange(5), c["slices"], c["ramps"], c["parent_start"], c["parent_slot"], c["parent_class"],
            r.integers(0, 5, len(c["parent_slot"])).astype(I8), c["offset_start"], c["offsets"], 4, weights, lattice.shell,
            np.ones((3, 13), F4), r.normal(size=(len(c["ramps"]), 2)), r.normal(size=(4, 2)), r.normal(size=(3, 2)), *outputs, *extra,
        )  # fmt: skip
        results.append(outputs)
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * np.abs(b).max())
