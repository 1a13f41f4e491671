"""Particles of cryoSPARC: real files, RELION's conventions, damage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryotk.data import open_particles, optics_groups, write_particles
from cryotk.errors import DataError, FileFormatError, MissingFileError
from cryotk.geometry import euler_to_matrix
from cryotk.io.cryosparc import read_cs
from cryotk.io.star import read_star


def test_imported_particles_agree_with_their_star_file(shared):
    folder = shared / "data/cryosparc"
    cs = open_particles(folder / "empiar_10076_7.cs", images=False)
    star = open_particles(folder / "empiar_10076_7.star", images=False)
    for name in ("defocus_u", "defocus_v", "defocus_angle"):
        np.testing.assert_allclose(cs[name].values, star[name].values, rtol=1e-5)
    assert cs["voltage"].values.tolist() == [300.0] and cs["pixel_size"].values[0] == pytest.approx(
        star["pixel_size"].values[0], rel=1e-4
    )
    assert cs["image_name"].values[6] == "000007@empiar_10076_7.mrc" and optics_groups(cs)[1].box_size == 320
    assert "magnification_matrix" not in cs and "beam_tilt_x" not in cs


def test_2d_classes(shared):
    block = read_cs(shared / "data/cryosparc/cryosparc_J2_particles_exported.cs")["particles"]
    assert block["rlnImageName"][0].startswith("000001@J1/imported/")
    assert block["rlnAnglePsi"][0] == pytest.approx(np.degrees(5.8985004)) and block["rlnClassNumber"][0] == 5
    assert block["rlnOriginYAngst"][0] == pytest.approx(12 * 1.345, rel=1e-6) and block["rlnRandomSubset"][0] == 1


def test_3d_poses_are_relions_matrix_transposed(shared, tmp_path):
    path = shared / "data/cryosparc/cryosparc_P12_J24_001_particles.cs"
    p = open_particles(path, images=False)
    pose = np.load(path)["alignments3D/pose"].astype(float)
    a = euler_to_matrix(p["angle_rot"].values, p["angle_tilt"].values, p["angle_psi"].values)
    np.testing.assert_allclose(a, Rotation.from_rotvec(pose).as_matrix().transpose(0, 2, 1), atol=1e-9)
    assert p["shift_x"].values[0] == pytest.approx(11.334375 * 2.95, rel=1e-6) and p["random_subset"].values[0] == 2
    write_particles(p, tmp_path / "w.star")
    back = read_star(tmp_path / "w.star")["particles"]
    assert back["ucsfUid"].tolist() == np.load(path)["uid"].tolist()


def _save(path, **fields):
    n = len(next(iter(fields.values())))
    table = np.empty(n, [(k.replace("__", "/"), np.asarray(v).dtype, np.asarray(v).shape[1:]) for k, v in fields.items()])
    for k, v in fields.items():
        table[k.replace("__", "/")] = v
    with open(path, "wb") as f:
        np.save(f, table)


def test_passthrough_is_joined_by_uid_and_the_main_file_wins(tmp_path):
    _save(tmp_path / "cryosparc_P1_J3_004_particles.cs", uid=np.array([7, 3], np.uint64), ctf__df1_A=np.array([1e4, 2e4], "f4"))
    _save(tmp_path / "cryosparc_P1_J3_passthrough_particles.cs", uid=np.array([1, 3, 7], np.uint64), ctf__df1_A=np.zeros(3, "f4"),
          blob__path=np.array([b"x.mrc", b">a.mrc", b"b.mrc"]), blob__idx=np.array([0, 4, 9], "u4"),
          blob__psize_A=np.full(3, 1.1, "f4"), ctf__exp_group_id=np.array([5, 5, 9], "u4"))  # fmt: skip
    blocks = read_cs(tmp_path / "cryosparc_P1_J3_004_particles.cs")
    assert blocks["particles"]["rlnImageName"].tolist() == ["000010@b.mrc", "000005@a.mrc"]
    assert blocks["particles"]["rlnDefocusU"].tolist() == [1e4, 2e4]
    assert blocks["particles"]["rlnOpticsGroup"].tolist() == [2, 1] and blocks["optics"]["rlnImagePixelSize"].tolist() == [1.1, 1.1]


def test_bad_files(tmp_path):
    path = tmp_path / "a.cs"
    with pytest.raises(MissingFileError):
        read_cs(path)
    path.write_bytes(b"\x94CSDAT" + bytes(100))
    with pytest.raises(FileFormatError, match="compressed stream"):
        read_cs(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(FileFormatError, match=r"not a \.cs file"):
        read_cs(path)
    _save(path, uid=np.arange(3, dtype=np.uint64))
    with pytest.raises(DataError, match="no blob/path"):
        read_cs(path)
