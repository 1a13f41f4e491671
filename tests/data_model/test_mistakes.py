"""The likeliest mistakes of a first hour: each ends in a line that says what to do instead."""

from __future__ import annotations

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import CryotkError, DataError, FileFormatError, SettingsError


def test_the_other_kinds_of_relions_files(project, golden):
    with pytest.raises(FileFormatError, match=r"results of a refinement; open them with ctk\.open_iteration"):
        ctk.open_particles(golden / "one_step/step2d/run_it001_optimiser.star")
    with pytest.raises(FileFormatError, match=r"results of a refinement; open them with ctk\.open_iteration"):
        ctk.open_particles(golden / "one_step/step2d/run_it001_model.star")
    with pytest.raises(FileFormatError, match=r"MRC file: open it with ctk\.open_stack or ctk\.open_volume"):
        ctk.open_particles(project.root / "Extract/job001/a.mrcs")


def test_a_table_where_a_map_is_wanted(project):
    for opener in (ctk.open_volume, ctk.open_stack):
        with pytest.raises(FileFormatError, match=r"it is text; STAR files .*ctk\.open_particles"):
            opener(project.star)


def test_arguments_the_wrong_way_round(project):
    p = ctk.open_particles(project.star)
    with pytest.raises(DataError, match=r"write_particles\(particles, path\)"):
        ctk.write_particles("x.star", p)


def test_an_empty_selection_is_not_written(project, tmp_path):
    p = ctk.open_particles(project.star)
    with pytest.raises(DataError, match="no particles"):
        ctk.write_particles(ctk.select_particles(p, np.zeros(10, bool)), tmp_path / "x.star")
    assert not (tmp_path / "x.star").exists()


def test_a_folder_that_is_a_file(project, tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(CryotkError, match="is a file"):
        ctk.write_particles(ctk.open_particles(project.star), tmp_path / "f" / "x.star")


def test_a_wrong_symmetry_is_noticed_before_the_work(project, no_compute):
    p = ctk.open_particles(project.star).assign({f"angle_{a}": ("particle", np.zeros(10)) for a in ("rot", "tilt", "psi")})
    with pytest.raises(SettingsError, match="symmetry 'D' is not known"):
        ctk.reconstruct(p, symmetry="D")
