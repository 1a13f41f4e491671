"""Point groups, and RELION's own lists of directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryotk.errors import SettingsError
from cryotk.geometry import directions, euler_to_matrix, healpix, parse_symmetry, symmetry_operators
from cryotk.io.star import read_star

ORDERS = {"C1": 1, "C3": 3, "C7": 7, "D1": 2, "D2": 4, "D7": 14, "T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60, "I3": 60, "I4": 60}
TABLE = Path(__file__).with_name("relion_directions.tsv")  # written by relion_refine 3.1.3


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_is_a_group(name, order):
    ops = symmetry_operators(name)
    assert len(ops) == order
    assert np.array_equal(ops[0], np.eye(3))
    assert np.allclose(np.linalg.det(ops), 1)
    assert np.allclose(ops @ np.swapaxes(ops, 1, 2), np.eye(3), atol=1e-9)
    products = (ops[:, None] @ ops[None]).reshape(-1, 3, 3)
    assert np.abs(products[:, None] - ops[None]).max((2, 3)).min(1).max() < 1e-6


def _fold(name: str, axis: tuple[float, float, float]) -> int:
    """How many operators leave an axis in place."""
    u = np.asarray(axis, float) / np.linalg.norm(axis)
    return int((np.abs(symmetry_operators(name) @ u - u).max(1) < 1e-5).sum())


def test_axes():
    assert _fold("C5", (0, 0, 1)) == 5
    assert _fold("D3", (0, 0, 1)) == 3 and _fold("D3", (1, 0, 0)) == 2
    assert _fold("T", (0, 0, 1)) == 3 and _fold("T", (0, 0.816496, 0.57735)) == 2
    assert _fold("O", (0, 0, 1)) == _fold("O", (1, 0, 0)) == 4 and _fold("O", (1, 1, 1)) == 3
    # icosahedra: 2-fold along z in I1 and I2, along x and y too; 5-folds tell them apart
    assert _fold("I1", (0, 0, 1)) == _fold("I2", (0, 0, 1)) == 2
    assert _fold("I1", (0.850651, 0, -0.525731)) == 5 and _fold("I1", (0.525731, 0, 0.850651)) == 1
    assert _fold("I2", (0.525731, 0, 0.850651)) == 5 and _fold("I2", (0.850651, 0, -0.525731)) == 1
    assert _fold("I3", (0, 0, 1)) == _fold("I4", (0, 0, 1)) == 5


@pytest.mark.parametrize("name", ["", "X", "C0", "D", "I5", "C-2"])
def test_unknown(name):
    with pytest.raises(SettingsError, match="not known"):
        parse_symmetry(name)


def _cases() -> list[tuple[str, int, float]]:
    t = pd.read_csv(TABLE, sep="\t")
    return sorted(set(zip(t.symmetry, t.order, t.limit_tilt.fillna(0), strict=True)))


@pytest.mark.parametrize(("symmetry", "order", "limit"), _cases())
def test_directions_are_relions(symmetry, order, limit):
    t = pd.read_csv(TABLE, sep="\t")
    t = t[(t.symmetry == symmetry) & (t.order == order) & (t.limit_tilt.fillna(0) == limit)]
    rot, tilt = directions(order, symmetry, limit or None)
    assert len(rot) == len(t)
    assert np.abs(rot - t.rot).max() < 1e-5 * 200 and np.abs(tilt - t.tilt).max() < 1e-5 * 200


@pytest.mark.golden
@pytest.mark.parametrize("folder", ["one_step/step3d", "one_step/step3d_local", "one_step/step3d_k2", "refine3d"])
def test_directions_of_relion_5(shared, folder):
    path = next((shared / "reference" / folder).glob("*sampling.star"))
    blocks = read_star(path)
    general, table = blocks["sampling_general"], blocks["sampling_directions"]
    value = {k: np.atleast_1d(v)[0] for k, v in general.columns.items()}
    rot, tilt = directions(int(value["rlnHealpixOrder"]), str(value["rlnSymmetryGroup"]))
    assert np.abs(rot - np.asarray(table.columns["rlnAngleRot"], float)).max() < 2e-6
    assert np.abs(tilt - np.asarray(table.columns["rlnAngleTilt"], float)).max() < 2e-6


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("name", ["T", "O", "I1", "I2", "I3", "I4"])
def test_a_coarse_grid_has_directions_in_every_unit(name, order):
    """Where the unit is smaller than a cell of the grid, its mates are: every direction has a near one."""
    rot, tilt = directions(order, name)
    assert len(rot) >= 1
    everywhere = np.stack(healpix.pixel_to_angles(2, np.arange(192)), -1)
    axes = [euler_to_matrix(a[:, 0], a[:, 1], 0 * a[:, 0])[:, 2] for a in (np.stack([rot, tilt], -1), everywhere)]
    mates = np.einsum("nij,dj->ndi", symmetry_operators(name), axes[0]).reshape(-1, 3)
    nearest = np.degrees(np.arccos(np.clip((axes[1] @ mates.T).max(1), -1, 1)))
    assert nearest.max() < 1.6 * 58.6 / 2**order


@pytest.mark.parametrize("name", ["C1", "C4", "D2", "D7", "T", "O", "I1", "I2", "I3", "I4"])
def test_mates_cover_the_sphere(name):
    rot, tilt = directions(3, name)
    mates = np.einsum("nij,dj->dni", symmetry_operators(name), euler_to_matrix(rot, tilt, 0)[:, 2]).reshape(-1, 3)
    u = np.random.default_rng(0).standard_normal((2000, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    # 7.5 degree grid; where the unit's border runs across pixels, up to one pixel more
    assert np.degrees(np.arccos(np.clip((u @ mates.T).max(1), -1, 1))).max() < 12
