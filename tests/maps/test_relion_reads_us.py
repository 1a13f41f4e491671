"""RELION's programs read what post-processing writes."""

from __future__ import annotations

import gzip
import shutil
import subprocess

import numpy as np
import pytest

import cryotk as ctk
from cryotk.io import read_mrc, read_star, write_mrc


@pytest.mark.filterwarnings("ignore::cryotk.errors.DataWarning")
@pytest.mark.skipif(shutil.which("relion_ctf_refine") is None, reason="needs RELION's relion_ctf_refine in the PATH")
def test_ctf_refinement(reference, tmp_path):
    """RELION's CTF refinement takes half-maps, mask and FSC from our postprocess.star, and finds the same defoci as with its own."""
    shutil.copytree(reference / "ctf_refine", tmp_path / "ctf_refine")
    for folder in [tmp_path, *tmp_path.rglob("*")]:
        folder.chmod(0o755 if folder.is_dir() else 0o644)
    for packed in tmp_path.rglob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    for file in [*tmp_path.rglob("*.mrc"), *tmp_path.rglob("*.mrcs")]:  # RELION 3.1 does not read float16
        data, header = read_mrc(file)
        write_mrc(file, data, header.pixel_size or 2.0, is_stack=file.suffix == ".mrcs")
    maps = tmp_path / "ctf_refine/maps"
    r = ctk.postprocess(maps / "half1_class001_unfil.mrc", mask=maps / "mask.mrc", pixel_size=2.0, b_factor_lowres=8)
    ours, theirs = r.save(tmp_path / "ours"), tmp_path / "ctf_refine/postprocess/postprocess.star"
    defocus = []
    for name, star in (("o1", theirs), ("o2", ours)):
        (tmp_path / name).mkdir()
        done = subprocess.run(
            ["relion_ctf_refine", "--i", "ctf_refine/in_defocus.star", "--f", str(star.relative_to(tmp_path)), "--angpix_ref", "2", "--fit_defocus",
             "--kmin_defocus", "30", "--fit_mode", "fpfff", "--o", f"{name}/", "--j", "1"], cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (tmp_path / name / "particles_ctf_refine.star").exists(), done.stderr
        defocus.append(read_star(tmp_path / name / "particles_ctf_refine.star")["particles"]["rlnDefocusU"])
    difference = np.abs(defocus[0] - defocus[1])
    assert np.median(difference) < 25 and difference.max() < 500 < defocus[0].std()


@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="needs RELION's relion_image_handler in the PATH")
def test_a_saved_curve_is_what_relion_image_handler_prints(halves, tmp_path):
    one, two = (getattr(halves, name).cryo.save(tmp_path, name) for name in ("one", "two"))
    curve = ctk.fsc(one, two, compat="relion")
    saved = read_star(curve.cryo.save(tmp_path / "curves"))["fsc"]
    run = subprocess.run(
        ["relion_image_handler", "--i", one, "--fsc", two, "--angpix", "2"], cwd=tmp_path, check=True, capture_output=True, text=True
    )  # fmt: skip
    (tmp_path / "theirs.star").write_text(run.stdout[run.stdout.index("# version") :])
    theirs = read_star(tmp_path / "theirs.star")["fsc"]
    assert list(saved.columns) == list(theirs.columns)
    for label in saved.columns:
        n = len(theirs[label])
        np.testing.assert_allclose(np.asarray(saved[label], float)[:n], np.asarray(theirs[label], float), atol=2e-4 if "Correlation" in label else 1e-2)


def test_maps_and_curves_save_and_draw_themselves(halves, tmp_path):
    path = ctk.lowpass(halves.one, 10.0).cryo.save(tmp_path / "new")
    assert path == tmp_path / "new" / "volume.mrc" and ctk.open_volume(path).attrs["pixel_size"] == pytest.approx(2.0)
    curve = ctk.fsc(halves.one, halves.two)
    assert curve.cryo.save(tmp_path, "mine").name == "mine.star"
    with pytest.raises(ctk.errors.DataError, match="curve over shells"):
        curve.drop_vars("frequency").cryo.save(tmp_path)
    assert curve.cryo.save(tmp_path, "mine.star").name == "mine.star"
    with pytest.raises(ctk.errors.DataError, match=r"mine\.star is a file.*give a folder"):
        curve.cryo.save(tmp_path / "mine.star")
    with pytest.raises(ctk.errors.DataError, match="no pixel_size in its attrs"):
        halves.one.drop_vars(["z", "y", "x"]).drop_attrs().cryo.save(tmp_path)
    pytest.importorskip("holoviews")
    assert "Overlay" in type(curve.cryo.plot()).__name__
