"""RELION 5's tilt images: angles, dose and CTF of each from the tilt series, against RELION's own extraction."""

from __future__ import annotations

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data.tilt_images import read_tomograms
from cryotk.errors import DataError, DataWarning, FileFormatError, MissingFileError
from cryotk.geometry import euler_to_matrix, tilt_rotation
from cryotk.io.star import read_star, write_star
from cryotk.optics import OpticsGroup, ctf, dose_weight
from cryotk.projection import FourierReference, predict

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "reference/tomo"


@pytest.fixture(scope="module")
def particles(folder):
    """28 particles of two tilt series, binned twice."""
    return ctk.open_particles(folder / "ext2/particles.star")


def test_what_an_image_has(particles):
    p = particles
    n = p.sizes["image"]
    assert p.sizes["particle"] == 28 and n == p["images"].shape[0] and p["images"].dims == ("image", "y", "x")
    for name in ("tilt_angle", "dose", "depth", "defocus_u", "defocus_v", "defocus_angle", "phase_shift", "ctf_scale"):
        assert p[name].dims == ("image",) and np.isfinite(p[name].values).all(), name
    assert p["tilt_rotation"].shape == (n, 3, 3) and p["angle_rot"].dims == ("particle",)
    assert np.allclose(np.einsum("nij,nkj->nik", p["tilt_rotation"].values, p["tilt_rotation"].values), np.eye(3), atol=1e-9)
    # 3 e/Å^2 per tilt in the order of acquisition, amplitudes that fall with the cosine
    assert np.allclose(p["dose"].values, 3 * p["frame"].values)
    assert np.allclose(p["ctf_scale"].values, np.cos(np.radians(p["tilt_angle"].values)), atol=2e-2)
    assert p["tilt_angle"].attrs["units"] == "degree" and p["dose"].attrs["units"] == "e/Å^2"


def test_depth_is_that_of_the_true_position(folder, particles):
    """Defocus grows along the beam by hand times depth; the position is coordinate minus the turned origin."""
    lines = [t.split("\t") for t in (folder / "truth.tsv").read_text().splitlines()[1:]]
    series = read_tomograms(folder / "in/tomograms.star")
    a = 4.0
    for tomogram, row in (("TS_01", 1), ("TS_02", 14 + 4)):
        t = series[tomogram]
        assert lines[row][0] == particles["rlnTomoParticleName"].values[row]
        xyz = np.array(lines[row][2:5], float)
        mine = particles["particle_of_image"].values == row
        f = particles["frame"].values[mine]
        depth = a * (t.rotations()[f, 2] @ xyz)
        assert np.allclose(particles["depth"].values[mine], depth, atol=0.02)
        assert np.allclose(particles["defocus_u"].values[mine], t.column("rlnDefocusU")[f] - depth, atol=0.02)  # hand -1


def _premultiplied(p, rows: np.ndarray, images: np.ndarray, plain: np.ndarray, more_defocus: float = 0.0) -> np.ndarray:
    """Correlation of RELION's CTF-multiplied images with plain ones times our CTF and dose weight, inside the circle."""
    n = plain.shape[-1]
    group = OpticsGroup(
        float(p.pixel_size[0]), float(p.voltage[0]), float(p.spherical_aberration[0]), float(p.amplitude_contrast[0]), n
    )
    ky, kx = np.meshgrid(np.fft.fftfreq(n), np.fft.rfftfreq(n), indexing="ij")
    xy = np.stack([kx.ravel(), ky.ravel()], -1) / group.pixel_size
    u, v, angle, phase = (p[k].values[rows] for k in ("defocus_u", "defocus_v", "defocus_angle", "phase_shift"))
    c = ctf(group, xy, u + more_defocus, v + more_defocus, angle, phase, scale=p.ctf_scale.values[rows])
    c = c * dose_weight(np.hypot(*xy.T), p.dose.values[rows])
    ours = np.fft.irfft2(np.fft.rfft2(plain) * c.reshape(len(rows), n, n // 2 + 1), s=(n, n))
    k = np.arange(n) - n // 2
    inside = np.hypot(k[:, None], k) < n / 2 - 8
    return np.array([np.corrcoef(x[inside], y[inside])[0, 1] for x, y in zip(ours, images, strict=True)])


def test_ctf_and_dose_are_those_of_relions_extraction(folder):
    """Stacks extracted with and without CTF multiplication differ by our CTF, at the particle's depth, times our dose weight.

    RELION crops a circle after it multiplied; here the circle was cropped before. So the correlation is not 1, but it is best at
    the defocus that was read, and not at one that is wrong by a fraction of the particle's depth.
    """
    p = ctk.open_particles(folder / "ext1_f32/particles.star")
    one = 14
    assert p["rlnTomoParticleName"].values[one] == "TS_02/1"
    rows = np.nonzero(p["particle_of_image"].values == one)[0]
    images = ctk.image_source(p).read(rows)
    plain = ctk.open_stack(folder / "ext1_noctf/Subtomograms/TS_02/1_stack2d.mrcs").values
    more = np.arange(-200, 201, 25)
    scores = [_premultiplied(p, rows, images, plain, float(d)).mean() for d in more]
    assert max(scores) > 0.98 and abs(more[int(np.argmax(scores))]) <= 25
    no_dose = _premultiplied(p.assign(dose=0 * p.dose), rows, images, plain)
    assert no_dose[-6:].mean() < _premultiplied(p, rows, images, plain)[-6:].mean()


def test_projections_of_the_true_map_fit_the_images(folder, particles):
    """The true map at pose tilt_rotation @ A, with CTF and dose twice, is in the images; at other rotations it is not."""
    p = particles
    classes = dict(zip(ctk.io.read_star(folder / "in/particles.star")["particles"]["rlnTomoParticleName"],
                       ctk.io.read_star(folder / "in/particles.star")["particles"]["rlnClassNumber"], strict=True))  # fmt: skip
    map_ = ctk.open_volume(folder / "truth_A_bin2.mrc")
    reference = FourierReference.from_map(map_.values, 8.0)
    images = ctk.image_source(p).read(np.arange(p.sizes["image"]))
    n = images.shape[-1]
    of = p.particle_of_image.values
    pose = euler_to_matrix(*(p[f"angle_{a}"].values for a in ("rot", "tilt", "psi")))[of]
    keep = np.array([classes[str(v)] == 1 for v in p["rlnTomoParticleName"].values])[of]
    group = OpticsGroup(8.0, 300.0, 2.7, 0.1, n)
    y, x = np.meshgrid(np.arange(n), np.arange(n // 2 + 1), indexing="ij")
    ky = np.where(y <= n // 2, y, y - n)
    inside = (x**2 + ky**2 <= 10**2) & (x + np.abs(ky) > 0) & ~((x == 0) & (ky < 0))
    kx, ky = x[inside].astype(np.int32), ky[inside].astype(np.int32)
    f = np.fft.rfft2(images)[:, ky, kx] * (1 - 2 * ((kx + ky) % 2))
    damp = dose_weight(np.hypot(kx, ky) / (n * 8.0), p.dose.values)
    parameters = {k: p[k].values for k in ("defocus_u", "defocus_v", "defocus_angle", "phase_shift")} | {
        "scale": p.ctf_scale.values
    }

    def score(rotation: np.ndarray) -> float:
        c = predict(reference, group, rotation @ pose, kx, ky, ctf_parameters=parameters) * damp
        frequencies = np.stack([kx, ky], -1) / (n * 8.0)
        c = c * ctf(group, frequencies, **parameters) * damp
        cc = (f * c.conj()).real.sum(1) / np.sqrt((np.abs(f) ** 2).sum(1) * (np.abs(c) ** 2).sum(1))
        return float(cc[keep].mean())

    right = score(p.tilt_rotation.values)
    transposed = score(np.swapaxes(p.tilt_rotation.values, 1, 2))
    untilted = score(p.tilt_rotation.values[np.searchsorted(of, of)])
    assert right > 0.4 and right > transposed + 0.2 and right > untilted + 0.1, (right, transposed, untilted)


def _truth(folder, particles):
    table = ctk.io.read_star(folder / "in/particles.star")["particles"]
    classes = dict(zip(table["rlnTomoParticleName"], table["rlnClassNumber"], strict=True))
    return np.array([classes[str(v)] for v in particles["rlnTomoParticleName"].values])


def test_subtomograms_reconstruct_from_their_tilt_images(folder, particles):
    """True poses, no alignment: the map comes back along the tilts, and only along them."""
    p = ctk.select_particles(particles, np.nonzero(_truth(folder, particles) == 1)[0])
    truth = ctk.open_volume(folder / "truth_A_bin2.mrc")
    right = ctk.fsc(ctk.reconstruct(p, progress=False), truth)
    wrong = ctk.fsc(ctk.reconstruct(p.drop_vars("tilt_rotation"), progress=False), truth)
    # shells of a box of 28 px of 8 Å: 6 is 37 Å
    assert right.values[1:7].min() > 0.9 and right.values[7:10].mean() > 0.7
    assert np.abs(wrong.values[3:10]).mean() < 0.5


def test_offsets_of_subtomograms_are_seen_along_the_tilt(folder):
    """Origins that were kept, not folded into coordinates: the projection moves by the turned offset."""
    p = ctk.open_particles(folder / "ext1_keepoff/particles.star", tomograms=folder / "in/tomograms.star", images=False)
    assert np.abs(p["shift_z"].values).max() > 1
    kept = ctk.select_particles(p, [1])
    truth = ctk.open_volume(folder / "truth_A.mrc")
    there = ctk.project(truth, kept).values
    back = ctk.project(truth, kept.assign({f"shift_{a}": ("particle", [0.0]) for a in "xyz"})).values
    image = ctk.open_stack(folder / "ext1_keepoff/Subtomograms/TS_01/2_stack2d.mrcs").values

    def score(x: np.ndarray) -> float:
        return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(x, image, strict=True)]))

    assert score(there) > 0.3 and score(there) > score(back) + 0.05


def test_class2d_says_that_it_has_no_use_for_tilts(particles):
    with pytest.raises(DataError, match="tilt images"):
        ctk.Class2D(particles, n_classes=2).expectation()


def test_matrices_of_relion_4_are_the_same_rotations(folder, particles):
    old = ctk.open_particles(folder / "ext2/particles.star", tomograms=folder / "in4/tomograms.star")
    assert np.abs(old["tilt_rotation"].values - particles["tilt_rotation"].values).max() < 1e-5
    assert np.abs(old["defocus_u"].values - particles["defocus_u"].values).max() < 0.02


def test_rotation_of_a_tilt():
    r = tilt_rotation(10.0, 20.0, 30.0)
    axis = {"x": lambda a: [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]],
            "y": lambda a: [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]],
            "z": lambda a: [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]}  # fmt: skip
    z, y, x = (np.array(axis[k](np.radians(a))) for k, a in (("z", 30), ("y", 20), ("x", 10)))
    assert np.allclose(r, z @ y @ x)


def test_optimisation_set_opens_too(folder, particles):
    p = ctk.open_particles(folder / "ext2/optimisation_set.star")
    assert p.sizes == particles.sizes and np.array_equal(p["dose"].values, particles["dose"].values)


def test_real_tables(shared):
    """HIV-1 capsids: the visible tilts of a particle, those around 0 degrees, and their low doses."""
    root = shared / "data/relion5_sta_hiv"
    p = ctk.open_particles(root / "Extract/job031/particles.star", images=False)
    first = p["particle_of_image"].values == 0
    assert first.sum() == 17 and p["tilt_angle"].values[first].min() > -30 and p["dose"].values[first].max() < 60
    assert np.abs(p["depth"].values).max() < 4000
    q = ctk.open_particles(root / "Extract/job020/particles.star", images=False)
    assert "tilt_rotation" in q and q["defocus_u"].dims == ("image",)


def test_series_that_are_missing(folder, tmp_path, shared):
    text = (folder / "ext2/particles.star").read_text()
    (tmp_path / "particles.star").write_text(text)
    p = ctk.open_particles(tmp_path / "particles.star", images=False)
    assert "dose" not in p and p.sizes["image"] > 28, "no optimisation set, no tilt series: said by validate"
    assert any("tomograms=" in w for w in p.cryo.validate().warnings)
    (tmp_path / "optimisation_set.star").write_text(
        "data_\n\n_rlnTomoParticlesFile x/particles.star\n_rlnTomoTomogramsFile in/tomograms.star\n"
    )
    with pytest.warns(DataWarning, match=r"in/tomograms\.star was not found .*tomograms="):
        ctk.open_particles(tmp_path / "particles.star", images=False)
    with pytest.raises(MissingFileError):
        ctk.open_particles(tmp_path / "particles.star", images=False, tomograms="nowhere.star")
    with pytest.raises(FileFormatError, match="no tomograms file"):
        ctk.open_particles(tmp_path / "particles.star", images=False, tomograms=folder / "ext2/particles.star")


def test_series_that_do_not_fit(folder, tmp_path):
    blocks = read_star(folder / "in4/tomograms.star")

    def opened():
        write_star(tmp_path / "t.star", blocks)
        return ctk.open_particles(folder / "ext2/particles.star", images=False, tomograms=tmp_path / "t.star")

    whole = dict(blocks["TS_02"].columns)
    blocks["TS_02"].columns = {k: v[:-1] for k, v in whole.items()}
    with pytest.raises(DataError, match=r"particle 15 lists 21 tilts .*has 20 for TS_02.*tomograms="):
        opened()
    blocks["TS_02"].columns = {k: v for k, v in whole.items() if k != "rlnMicrographPreExposure"}
    with pytest.raises(DataError, match="data_TS_02 has no column _rlnMicrographPreExposure"):
        opened()
    blocks["TS_02"].columns = whole
    blocks["global"].columns["rlnTomoTiltSeriesPixelSize"] = np.array([4.0, 5.0])
    with pytest.raises(DataError, match=r"TS_02 has 5 Å pixels, the optics group of particle 15 says 4 Å"):
        opened()
    blocks["global"].columns["rlnTomoName"] = np.array(["TS_01", "TS_09"], object)
    with pytest.raises(DataError, match="has no tilt series TS_02; it has TS_01, TS_09"):
        opened()
