"""Particle sets: names, seeds, threads, cache, junk, errors, and reconstruction from the true poses."""

import numpy as np
import pytest

from cryotk import simulate
from cryotk.data import image_source, optics_groups
from cryotk.errors import DataError, SettingsError
from cryotk.geometry import euler_to_matrix
from cryotk.optics import OpticsGroup, ctf


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOTK_CACHE", str(tmp_path))


def small(**kw):
    return simulate.particles(**({"n": 24, "box": 48, "pixel_size": 4.5, "progress": False} | kw))


def test_names_are_those_of_opened_particles():
    p = small(cache=False)
    assert p.images.dims == ("particle", "y", "x") and p.images.dtype == np.float32
    for name in ("image_name", "micrograph", "optics_group", "defocus_u", "defocus_v", "defocus_angle", "coordinate_x"):
        assert p[name].dims == ("particle",)
        assert p[name].attrs["relion_label"].startswith("rln")
    for name in ("pixel_size", "voltage", "spherical_aberration", "amplitude_contrast", "box_size", "optics_name"):
        assert p[name].dims == ("optics",)
    assert "angle_rot" not in p and "shift_x" not in p
    assert optics_groups(p)[1].pixel_size == 4.5
    assert image_source(p).read(np.array([3, 1])).shape == (2, 48, 48)


def test_same_seed_same_bits_for_any_number_of_threads():
    first, again, other = small(cache=False, threads=1), small(cache=False, threads=3), small(cache=False, seed=1)
    assert np.array_equal(first.images, again.images)
    for name in first.data_vars:
        assert np.array_equal(first[name], again[name])
    assert not np.array_equal(first.images, other.images)


def test_an_image_does_not_depend_on_how_many_follow_in_its_block():
    a = small(cache=False, n=24, junk=0.3)
    b = small(cache=False, n=24, junk=0.3)
    assert np.array_equal(a.images, b.images)


def test_second_call_reads_the_cache_lazily_and_gives_the_same(monkeypatch):
    first = small()
    assert first.images.chunks is not None, "images from the cache are lazy"
    monkeypatch.setattr("cryotk.simulate.particle_set.render", lambda *a, **k: pytest.fail("simulated again"))
    again = small()
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(image_source(again).read(np.array([5])), again.images.values[5:6])
    for name in first.data_vars:
        assert first[name].dtype == again[name].dtype
        assert np.array_equal(first[name], again[name])


def test_cached_and_uncached_images_have_the_same_bits():
    assert np.array_equal(small(cache=False).images, small().images)


def test_a_truncated_cache_is_made_again(tmp_path):
    first = small().images.values
    stack = next(tmp_path.rglob("particles.mrcs"))
    stack.write_bytes(stack.read_bytes()[:20000])
    assert np.array_equal(small().images.values, first)
    assert not list(tmp_path.rglob(".*-*")), "no temporary folder stays behind"


def test_an_unusable_cache_folder_is_no_obstacle(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("CRYOTK_CACHE", str(blocked))
    assert isinstance(small().images.data, np.ndarray)


def test_other_settings_have_other_cache_keys():
    assert not np.array_equal(small().images, small(snr=0.3).images)
    assert not np.array_equal(small().images, small(molecules=simulate.molecule(seed=2)).images)


def test_scale_groups_share_a_micrograph():
    p = small(n=200, n_micrographs=5, cache=False)
    names = p.micrograph.values
    assert len(set(names)) == 5
    for name in set(names):
        here = names == name
        assert len(set(p.true_scale.values[here])) == 1
        assert len(set(p.defocus_angle.values[here])) == 1
    assert np.all(p.defocus_u >= p.defocus_v)


def test_classes_and_junk_are_in_the_proportions_asked_for():
    m = simulate.molecule()
    kinds = {"noise": 0.1, "ice_edge": 0.05, "off_centre": 0.1, "neighbours": 0.05}
    p = small(n=400, molecules=[m, m.without_subunit(3)], class_weights=(1, 3), junk=kinds, cache=False)
    assert abs((p.true_class == 2).mean() - 0.75) < 0.07
    for kind, fraction in kinds.items():
        assert (p.junk_kind == kind).mean() == fraction
    assert float(p.is_junk.mean()) == pytest.approx(0.3)
    distance = np.hypot(p.true_shift_x, p.true_shift_y)
    assert distance[p.junk_kind == "off_centre"].min() > 0.27 * 48 * 4.5
    assert distance[~p.is_junk].max() < 25


def test_junk_looks_like_its_name():
    p = small(n=80, junk=1.0, snr=1.0, noise_sigma=0.5, normalised=False, cache=False)
    power = {k: float(p.images.values[p.junk_kind.values == k].var()) for k in simulate.JUNK_KINDS}
    assert power["noise"] == pytest.approx(0.25, rel=0.1)
    assert all(power[k] > 1.15 * power["noise"] for k in ("ice_edge", "off_centre", "neighbours"))


def test_directions_crowd_around_preferred_views():
    p = small(n=400, preferred_views=3, preferred_fraction=1.0, preferred_spread=4.0, cache=False)
    third = euler_to_matrix(p.true_angle_rot, p.true_angle_tilt, p.true_angle_psi)[:, 2]
    close = (third @ third.T > np.cos(np.radians(20))).mean()
    assert close > 0.28


def test_premultiplied_images_are_said_to_be_so():
    p = small(optics=OpticsGroup(4.5, premultiplied=True, beam_tilt=(1.0, 0.5), even_zernike=(0.0, 2.0)), cache=False)
    group = optics_groups(p)[1]
    assert group.premultiplied and group.beam_tilt == (1.0, 0.5) and group.even_zernike == (0.0, 2.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"box": 47}, "even number"),
        ({"n": 0}, "at least 1"),
        ({"box": 32, "pixel_size": 2.0}, "does not hold"),
        ({"junk": {"dust": 0.1}}, "unknown kinds of junk"),
        ({"junk": 1.5}, "sum to 1"),
        ({"snr": 0.0}, "positive"),
        ({"class_weights": (1.0, 2.0)}, "one per molecule"),
        ({"defokus": 1.0}, "defokus"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(SettingsError, match=message):
        small(**settings)


def test_true_poses_are_put_where_an_estimate_would_be():
    p = small(cache=False)
    known = simulate.with_true_poses(p)
    assert np.array_equal(known.angle_psi, p.true_angle_psi) and np.array_equal(known.shift_x, p.true_shift_x)
    assert known.shift_x.attrs["relion_label"] == "rlnOriginXAngst"
    assert np.array_equal(small(cache=False, poses=True).angle_rot, known.angle_rot)
    with pytest.raises(DataError, match="no truth"):
        simulate.with_true_poses(p.drop_vars("true_shift_x"))


def test_example_is_small_and_has_junk():
    p = simulate.example(64, progress=False)
    assert p.images.shape == (64, 64, 64)
    assert 0.1 < float(p.is_junk.mean()) < 0.25


def _reconstruct(p, box, pixel_size, flip_shift=False):
    """Insert slices with the projection room and divide; nothing of this is used by the simulation."""
    from cryotk.geometry import symmetry_operators
    from cryotk.projection import Accumulator, wiener_reconstruct

    images = p.images.values.astype(float) * p.true_norm.values[:, None, None]
    f = np.fft.rfft2(np.fft.ifftshift(images, axes=(1, 2))) / box**2
    rows, columns = np.meshgrid(np.fft.fftfreq(box, 1 / box), np.arange(box // 2 + 1), indexing="ij")
    keep = (np.hypot(rows, columns) < box / 2) & ~((columns == 0) & (rows < 0)) & (rows > -box / 2)
    kx, ky = columns[keep].astype(int), rows[keep].astype(int)
    frequencies = np.stack([kx, ky], 1) / (box * pixel_size)
    c = ctf(optics_groups(p)[1], frequencies, p.defocus_u.values, p.defocus_v.values, p.defocus_angle.values)
    sign = -1 if flip_shift else 1
    shifts = np.stack([p.true_shift_x.values, p.true_shift_y.values], 1) * sign
    x = f[:, keep] * np.exp(-2j * np.pi * shifts @ frequencies.T)
    scale = p.true_scale.values[:, None]
    matrices = euler_to_matrix(p.true_angle_rot.values, p.true_angle_tilt.values, p.true_angle_psi.values)
    accumulator = Accumulator(box, box, 2, True)
    accumulator.insert(x * c * scale, (c * scale) ** 2, matrices, kx, ky)
    accumulator.symmetrise(symmetry_operators("D2"))
    return wiener_reconstruct(accumulator)


def _fsc(a, b):
    f, g = np.fft.rfftn(a), np.fft.rfftn(b)
    n = len(a)
    k = np.meshgrid(*[np.fft.fftfreq(n, 1 / n)] * 2, np.arange(n // 2 + 1), indexing="ij")
    shell = np.round(np.sqrt(sum(v**2 for v in k))).astype(int).ravel()
    sums = [np.bincount(shell, v.ravel()) for v in ((f * g.conj()).real, np.abs(f) ** 2, np.abs(g) ** 2)]
    return (sums[0] / np.sqrt(sums[1] * sums[2]))[: n // 2]


def test_reconstruction_from_true_poses_is_the_analytic_volume():
    box, pixel_size = 64, 3.5
    p = simulate.particles(240, box, pixel_size, snr=1.0, noise_sigma=0.05, seed=11, cache=False, progress=False)
    truth = simulate.volume(
        simulate.molecule(), box, pixel_size, amplitude=p.attrs["amplitude"],
        envelope_b_factor=p.attrs["envelope_b_factor"],
    ).values  # fmt: skip
    found = _reconstruct(p, box, pixel_size)
    axis = np.arange(box) - box // 2
    sphere = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) < 26
    fsc = _fsc(found * sphere, truth * sphere)
    print("FSC to the analytic volume:", np.round(fsc[[5, 10, 15, 20, 25, 29]], 4))
    assert fsc[1:26].min() > 0.99
    assert fsc[29] > 0.97
    wrong = _fsc(_reconstruct(p, box, pixel_size, flip_shift=True) * sphere, truth * sphere)
    assert wrong[15:25].max() < 0.6, "the sign of the shifts matters"
    # amplitudes too: the reconstruction is in the units of the images
    assert np.isclose((found * truth)[sphere].sum() / (truth**2)[sphere].sum(), 1, atol=0.03)


def test_truth_survives_a_star_file(tmp_path):
    from cryotk.data import open_particles
    from cryotk.io.particle_tables import write_particles

    p = small(junk=0.3)
    write_particles(p, tmp_path / "particles.star")
    again = open_particles(tmp_path / "particles.star")
    assert np.array_equal(again.images, p.images)
    assert np.array_equal(again.junk_kind, p.junk_kind) and set(np.unique(p.junk_kind)) >= {"none", "noise"}
    assert np.array_equal(again.is_junk.astype(bool), p.is_junk)
    assert np.allclose(simulate.with_true_poses(again).shift_x, p.true_shift_x, atol=1e-5)
