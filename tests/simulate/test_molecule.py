"""Molecules: the procedural tetramer and files read with gemmi."""

import builtins

import numpy as np
import pytest

from cryotk import simulate
from cryotk.errors import DataError, MissingFileError, SettingsError
from cryotk.geometry import symmetry_operators


def test_tetramer_has_d2_symmetry_and_nothing_more():
    m = simulate.molecule()
    volume = simulate.volume(m, 48, 4.0).values
    # indices 1.. of an even box are symmetric about the centre
    inner = volume[1:, 1:, 1:]
    for flips in ((0, 1), (0, 2), (1, 2)):
        assert np.allclose(np.flip(inner, flips), inner, atol=2e-5 * inner.max())
    for flip in range(3):  # a mirror would be another molecule
        other = np.flip(inner, flip)
        assert np.corrcoef(other.ravel(), inner.ravel())[0, 1] < 0.8


def test_domains_of_different_subunits_do_not_overlap():
    m = simulate.molecule()
    centres = np.array([m.positions[(m.subunit == s) & (m.domain == d)].mean(0) for s in range(4) for d in range(7)])
    distance = np.linalg.norm(centres[:, None] - centres, axis=-1)[~np.eye(28, dtype=bool)]
    assert distance.min() > 22
    assert m.diameter < 64 * 3.5


def test_seeds_give_other_molecules_and_the_same_seed_the_same():
    first, again, other = simulate.molecule(), simulate.molecule(), simulate.molecule(seed=1)
    assert np.array_equal(first.positions, again.positions)
    assert first.positions.shape != other.positions.shape or not np.allclose(first.positions, other.positions)


def test_a_subunit_can_be_left_out():
    m = simulate.molecule()
    less = m.without_subunit(3)
    assert len(less.weights) == len(m.weights) * 3 // 4
    assert less.symmetry == "C1"
    with pytest.raises(SettingsError, match="no subunit 9"):
        m.without_subunit(9)


def test_volume_keeps_the_mass_and_the_coordinates():
    m = simulate.molecule()
    v = simulate.volume(m, 64, 3.5, amplitude=2.0)
    assert np.isclose(float(v.sum()) * 3.5**3, 2 * m.weights.sum(), rtol=1e-5)
    assert float(v.x[32]) == 0 and float(v.z[33]) == 3.5
    heaviest = np.average(m.positions[m.subunit == 0], axis=0, weights=m.weights[m.subunit == 0])
    one = simulate.volume(simulate.Molecule(m.positions[m.subunit == 0], m.weights[m.subunit == 0]), 64, 3.5)
    found = [float((one * one[a]).sum() / one.sum()) for a in "xyz"]
    assert np.allclose(found, heaviest, atol=0.02)


def test_volume_refuses_a_box_that_is_odd_or_too_small():
    with pytest.raises(SettingsError, match="even"):
        simulate.volume(simulate.molecule(), 63, 3.5)
    with pytest.raises(SettingsError, match="larger box"):
        simulate.volume(simulate.molecule(), 32, 3.5)


_PDB = """\
HEADER    TEST
ATOM      1  N   ALA A   1      10.000   0.000   0.000  1.00 10.00           N
ATOM      2  CA  ALA A   1      12.000   2.000   0.000  1.00 10.00           C
ATOM      3  H   ALA A   1      12.500   2.000   0.000  1.00 10.00           H
ATOM      4  O   ALA B   1      14.000   0.000   3.000  0.50 10.00           O
HETATM    5  O   HOH C   1      40.000   0.000   3.000  1.00 10.00           O
END
"""


def test_atoms_of_a_pdb_file(tmp_path):
    pytest.importorskip("gemmi", reason="gemmi (an extra) reads PDB and mmCIF")
    path = tmp_path / "small.pdb"
    path.write_text(_PDB)
    m = simulate.molecule(path, center=False)
    assert np.allclose(m.weights, [7, 6, 4])
    assert np.allclose(m.positions, [[10, 0, 0], [12, 2, 0], [14, 0, 3]])
    assert m.subunit.tolist() == [0, 0, 1]
    assert np.allclose(np.average(simulate.molecule(path).positions, axis=0, weights=m.weights), 0)


def test_bad_model_files(tmp_path):
    pytest.importorskip("gemmi", reason="gemmi (an extra) reads PDB and mmCIF")
    with pytest.raises(MissingFileError, match="nowhere"):
        simulate.molecule(tmp_path / "nowhere.pdb")
    empty = tmp_path / "empty.pdb"
    empty.write_text("END\n")
    with pytest.raises(DataError, match=r"empty\.pdb"):
        simulate.molecule(empty)


def test_without_gemmi_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "gemmi":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SettingsError, match="pip install"):
        simulate.molecule(tmp_path / "x.pdb")


def test_operators_used_are_relions():
    assert len(symmetry_operators("D2")) == 4
