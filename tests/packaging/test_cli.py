"""The command line."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import cryotk as ctk
from cryotk.cli import copy_course, describe, main

STAR = """
# version 50001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnImagePixelSize #3
_rlnImageSize #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
1 first 2.0 8 300 2.7 0.1

# version 50001

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
"""


@pytest.fixture
def star(tmp_path):
    ctk.write_stack(np.ones((3, 8, 8), np.float32), tmp_path / "a.mrcs", pixel_size=2.0)
    rows = "".join(f"{i}@a.mrcs 1 12000 11000 30\n" for i in (1, 2, 3))
    path = tmp_path / "particles.star"
    path.write_text(STAR + rows)
    return path


def test_info_of_particles(star, capsys):
    assert main(["info", str(star)]) == 0
    out = capsys.readouterr().out
    assert "data_particles: 3 rows x 5 columns, version 50001" in out
    assert "particles: 3, optics groups: 1" in out
    assert "group 1 (first): 3 particles, 2 Å/px, 8 px, 300 kV, Cs 2.7 mm" in out
    assert "columns for: CTF" in out
    assert "error" not in out


def test_info_says_which_stack_is_missing(star, capsys):
    (star.parent / "a.mrcs").unlink()
    assert main(["info", str(star)]) == 1
    out = capsys.readouterr().out
    assert "particles: 3" in out
    assert "error:" in out and "a.mrcs" in out


def test_info_of_maps_and_stacks(tmp_path, capsys):
    ctk.write_volume(np.zeros((8, 8, 8), np.float32), tmp_path / "map.mrc", pixel_size=1.5)
    ctk.write_stack(np.zeros((8, 8, 8), np.float32), tmp_path / "stack.mrcs", pixel_size=1.5)
    assert main(["info", str(tmp_path / "map.mrc"), str(tmp_path / "stack.mrcs")]) == 0
    out = capsys.readouterr().out
    assert "MRC volume, 8 x 8 x 8 px, float32, 1.5 Å/px" in out
    assert "MRC stack of 8 images, 8 x 8 px" in out


def test_info_of_a_stack_cut_short(star):
    stack = star.parent / "a.mrcs"
    stack.write_bytes(stack.read_bytes()[:-300])
    assert any("cut short: 1 of 3" in line or "cut short: 2 of 3" in line for line in describe(stack))


def test_info_of_what_it_does_not_know(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("nothing")
    assert main(["info", str(tmp_path / "notes.txt"), str(tmp_path / "nowhere.star"), str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "neither a STAR file nor an MRC file" in out
    assert "nowhere.star: no such file" in out
    assert f"{tmp_path}: folder" in out, "the rest is described all the same"


@pytest.mark.golden
def test_info_of_relions_folders(shared, capsys):
    folder = shared / "reference" / "one_step" / "step2d"
    assert main(["info", str(folder), str(shared / "data" / "relion5_jobs" / "jobs_spa" / "Class2D" / "job001")]) == 0
    out = capsys.readouterr().out
    assert "2D refinement, iteration 1: 6 classes of 64 px" in out
    assert "RELION job, relion.class2d" in out


def test_course_is_copied_and_ones_own_changes_stay(tmp_path):
    files = copy_course(tmp_path / "course")
    assert files[0].name == "00_quickstart.ipynb" and len(files) >= 3
    files[0].write_text("mine")
    copy_course(tmp_path / "course")
    assert files[0].read_text() == "mine"


def test_course_into_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "course").write_text("")
    assert main(["lab", str(tmp_path / "course")]) == 1
    assert "is a file" in capsys.readouterr().err


def test_lab_opens_the_quickstart_and_hands_options_on(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("cryotk.cli.subprocess.call", lambda command: calls.append(command) or 0)
    assert main(["lab", str(tmp_path / "c"), "--no-browser", "--port=8890"]) == 0
    assert calls[0][:3] == [sys.executable, "-m", "jupyterlab"]
    assert {"--no-browser", "--port=8890"} <= set(calls[0])
    assert calls[0][-1].endswith("00_quickstart.ipynb")


def test_values_of_jupyters_options_are_not_the_folder(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("cryotk.cli.subprocess.call", lambda command: calls.append(command) or 0)
    monkeypatch.chdir(tmp_path)
    assert main(["lab", "--no-browser", "--port", "8890"]) == 0
    at = calls[0].index("--port")
    assert calls[0][at + 1] == "8890" and calls[0][-1] == os.path.join("cryotk-course", "00_quickstart.ipynb")


def test_unknown_options_of_other_commands_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["info", "--colour", "a.star"])
    assert "--colour" in capsys.readouterr().err


def test_warmup_compiles_every_loop_a_first_run_needs(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "cryotk.cli", "warmup"], capture_output=True, text=True, check=True, env=environment
    )
    assert "ready after" in done.stdout
    cached = {p.name.split(".")[0] for p in tmp_path.rglob("*.nbi")}
    assert {"ctf_loops", "star_scan", "slice_extraction", "slice_insertion", "selection"} <= cached


def test_info_of_a_star_that_is_no_usable_particle_set(tmp_path, capsys):
    path = tmp_path / "old.star"
    path.write_text("data_\nloop_\n_rlnImageName\n_rlnDefocusU\n1@a.mrcs 1000\n2@a.mrcs 1000\n")
    assert main(["info", str(path)]) == 1
    out = capsys.readouterr().out
    assert "2 rows x 2 columns" in out and "give pixel_size=" in out


def test_info_of_cryosparc_particles_and_packed_maps(shared, capsys):
    # its eight stacks are elsewhere
    assert main(["info", str(shared / "data/cryosparc/cryosparc_P12_J24_001_particles.cs")]) == 1
    out = capsys.readouterr().out
    assert "cryoSPARC" in out and "particles: 300" in out and "2.95 Å/px, 180 px, 200 kV" in out
    assert out.count("give project_dir=") == 5 and "... and 3 more" in out
    packed = sorted((shared / "data/mrc_files").rglob("*.map.gz"))[0]
    assert main(["info", str(packed)]) == 0
    assert "MRC volume, 20 x 20 x 20 px" in capsys.readouterr().out


def test_info_of_tilt_images(shared, capsys):
    for name in ("particles.star", "optimisation_set.star"):
        assert main(["info", str(shared / "reference/tomo/ext2" / name)]) == 0
        out = capsys.readouterr().out
        assert "particles: 28" in out and "tilt images of 2 tilt series" in out and "0 to 60 e/Å^2" in out


def test_info_of_something_else(tmp_path, capsys):
    path = tmp_path / "note.txt"
    path.write_text("a note\n" * 500)
    assert main(["info", str(path)]) == 1
    assert "neither a STAR file nor an MRC file" in capsys.readouterr().out


def test_info_of_a_job_whose_settings_cannot_be_read(shared, capsys):
    assert main(["info", str(shared / "data/relion31_spa_betagal/Refine3D/job029")]) == 0
    out = capsys.readouterr().out
    assert "folder" in out and "warning: " in out and "12 values for 11 columns" in out


def test_iterations_go_by_their_number(tmp_path):
    from cryotk.cli import _iteration_of

    names = ["run_optimiser.star", "run_it1000_optimiser.star", "run_it999_optimiser.star", "run_it002_optimiser.star"]
    in_order = sorted((tmp_path / n for n in names), key=_iteration_of)
    assert [p.name for p in in_order] == names[::-1], "the one without a number ends an auto-refinement"


def test_info_names_the_last_checkpoint_by_its_iteration(tmp_path, capsys):
    for name in ("run_it002", "run_it010", "run_it1000", "run_it999"):
        (tmp_path / f"{name}.checkpoint").write_bytes(b"")
    assert main(["info", str(tmp_path)]) == 0
    assert "last run_it1000.checkpoint" in capsys.readouterr().out


def test_console_script_is_installed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cryotk.cli", "--version"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.strip() == f"cryotk {ctk.__version__}"


def test_xarray_finds_us(star):
    import xarray as xr

    with xr.open_dataset(star, engine="cryotk") as d:
        assert d.sizes["particle"] == 3
