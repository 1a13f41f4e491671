"""Local resolution against RELION's map, against plain evaluation of every window, and on maps whose truth is known."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data import as_volume, write_volume
from cryotk.errors import DataWarning
from cryotk.io import read_mrc, read_star
from cryotk.maps import curves, gains
from cryotk.maps.local_windows import WindowFilter, WindowSums, lattice, window_profile
from cryotk.maps.transform import apply_gain, cross_sums, forward, inverse

from .conftest import ball, half_maps


@pytest.mark.golden
def test_relions_map(half1, mask, reference, tmp_path):
    r = ctk.local_resolution(half1, mask=mask, b_factor=-100, sampling=20, min_resolution=40, pixel_size=3.54, progress=False)
    theirs, _ = read_mrc(reference / "local_resolution/locres_every2nd_voxel.mrc")
    ours = r.resolution_map.values[::2, ::2, ::2]
    inside = read_mrc(mask)[0][::2, ::2, ::2] > 0.5
    assert np.corrcoef(ours[inside], theirs[inside])[0, 1] > 0.88
    np.testing.assert_allclose(np.percentile(ours[inside], [5, 50, 95]), np.percentile(theirs[inside], [5, 50, 95]), rtol=0.05)
    np.testing.assert_array_equal(ours == 0, theirs == 0)
    np.testing.assert_allclose(ours.max(), theirs.max(), rtol=1e-6)
    slices, _ = read_mrc(reference / "local_resolution/locres_filtered_slices.mrcs")
    v = r.filtered.values
    ours = np.stack([v[32], v[:, 32], v[:, :, 32]])
    assert np.corrcoef(ours.ravel(), slices.ravel())[0, 1] > 0.995 and (ours * slices).sum() / (slices**2).sum() == pytest.approx(1, abs=0.01)
    h = r.histogram
    assert int(h["count"].sum()) == h.attrs["voxels"] and h.attrs["p05"] < h.attrs["median"] < h.attrs["p95"]
    first = r.save(tmp_path)
    assert first.name == "relion_locres.mrc" and (tmp_path / "relion_locres_filtered.mrc").exists()
    table = read_star(tmp_path / "relion_locres_fscs.star")
    assert len(table["points"]) == r.points.sizes["point"] and len(table["fsc"]) == 33 * len(table["points"])
    assert "median" in repr(r) and "windows" in r._repr_html_()


@pytest.mark.parametrize(("n", "radius", "edge", "step"), [(32, 3, 5, 7), (33, 2, 4, 8), (36, 5, 20, 12)])
def test_windows_equal_the_plain_way(n, radius, edge, step):
    """FSC sums and filtered values of a window are those of whole-box transforms; also where it hangs over the border."""
    rng = np.random.default_rng(n)
    maps = rng.normal(size=(4, n, n, n)).astype(np.float32)
    maps[1] += maps[0]
    window, q = window_profile(radius, edge), radius + edge
    sums_of = WindowSums(maps, window)
    f = forward(maps[0])
    filtered = WindowFilter(f, q)
    points = lattice(n, step, radius)
    for p in points[:: max(1, len(points) // 6)]:
        whole = np.zeros((n + 2 * q,) * 3, np.float32)
        whole[tuple(slice(i, i + 2 * q + 1) for i in p)] = window
        w = whole[q:-q, q:-q, q:-q]
        expected = np.concatenate([cross_sums(*(forward((maps[i] * w).astype(float)) for i in pair)) for pair in ((0, 1), (2, 3))]) * float(n) ** 6
        ours = sums_of(p)
        np.testing.assert_allclose(curves.fsc_from_sums(ours[:3]), curves.fsc_from_sums(expected[:3]), atol=2e-6)
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6 * expected.max())
        for shell in (n // 5, n // 2):
            gain = gains.lowpass_gain(n, 1.0, n / shell)
            k_max = min(shell + 1, n // 2)
            gain[np.arange(len(gain)) > k_max**2] = 0
            box = np.pad(inverse(apply_gain(f, gain), n), q, mode="wrap")[tuple(slice(i, i + 2 * q + 1) for i in p)]
            np.testing.assert_allclose(filtered(p, gain.astype(np.float32), k_max), box, atol=1e-5)


def test_same_bits_for_any_number_of_threads(halves):
    a, b = (ctk.local_resolution(halves.one, halves.two, sampling=16, randomise_at=12, threads=t, progress=False) for t in (1, 3))
    np.testing.assert_array_equal(a.resolution_map.values, b.resolution_map.values)
    np.testing.assert_array_equal(a.filtered.values, b.filtered.values)
    np.testing.assert_array_equal(a.points["corrected"], b.points["corrected"])


def test_good_and_bad_part():
    """Halves that agree on the left and not on the right: fine there, min_resolution here."""
    n = 64
    rng = np.random.default_rng(0)
    common, *noise = rng.normal(size=(3, n, n, n))
    left = (np.arange(n) < n // 2).astype(float)
    one, two = (as_volume((common * left + x * (1 - left) + 0.1 * y).astype(np.float32), 3.0) for x, y in ((noise[0], noise[1]), (noise[1], noise[0])))
    r = ctk.local_resolution(one, two, sampling=18, progress=False)
    v = r.resolution_map.values
    assert np.median(v[28:36, 28:36, 8:18]) < 6.5 and np.median(v[28:36, 28:36, 46:56]) > 20
    assert v.max() <= 50.001 and v[0, 0, 0] == 0 and r.filtered.values[0, 0, 0] == 0


def test_options(halves):
    h = halves
    small = as_volume(ball(48, 4, 2), 2.0)
    with_mask = ctk.local_resolution(h.one, h.two, small, sampling=12, randomise_at=12, only_inside_mask=True, progress=False)
    everywhere = ctk.local_resolution(h.one, h.two, small, sampling=12, randomise_at=12, progress=False)
    inside = small.values > 0
    np.testing.assert_allclose(with_mask.resolution_map.values[inside], everywhere.resolution_map.values[inside], rtol=1e-6)
    assert with_mask.points.sizes["point"] < everywhere.points.sizes["point"]
    seen = []
    ctk.local_resolution(h.one, h.two, sampling=24, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] and len(seen) > 8

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ctk.local_resolution(h.one, h.two, sampling=12, progress=stop)
    given = ctk.local_resolution(h.one, h.two, sampling=24, progress=False, true_fsc=np.tile(np.where(np.arange(25) < 12, 1.0, 0.0), (200, 1)))
    np.testing.assert_allclose(given.points["resolution"], 48 * 2 / 11)
    inside = given.resolution_map.values > 0
    np.testing.assert_allclose(given.resolution_map.values[inside], 48 * 2 / 11, rtol=1e-5)
    # one curve everywhere: the filtered map is the average filtered once
    average = 0.5 * (h.one.values + h.two.values)
    gain = gains.b_factor_gain(48, 2.0, 0.0) * gains.weight_gain(48, (np.arange(25) < 12).astype(float)) * gains.lowpass_gain(48, 2.0, 48 * 2 / 11)
    expected = inverse(apply_gain(forward(average), gain), 48)
    np.testing.assert_allclose(given.filtered.values[inside], expected[inside], atol=2e-5)


def test_no_signal_is_named():
    rng = np.random.default_rng(5)
    one, two = (as_volume(rng.normal(size=(40, 40, 40)).astype(np.float32), 3.0) for _ in range(2))
    with pytest.warns(DataWarning, match="no window shows signal"):
        ctk.local_resolution(one, two, sampling=30, min_resolution=20, progress=False)


@pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="needs RELION's relion_postprocess in the PATH")
def test_relions_program_point_by_point(tmp_path):
    """RELION's windows on small maps: masked FSC of every point, and both maps given its corrected curves."""
    h = half_maps(32, 4.0, noise=0.3)
    write_volume(h.one, tmp_path / "run_half1.mrc")
    write_volume(h.two, tmp_path / "run_half2.mrc")
    subprocess.run(
        ["relion_postprocess", "--i", "run_half1.mrc", "--angpix", "4", "--locres", "--locres_sampling", "24", "--locres_minres", "40",
         "--locres_randomize_at", "25", "--adhoc_bfac", "-100", "--o", "./relion"], cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    masked, corrected = _relions_points(tmp_path / "relion_locres_fscs.star", 17)
    ours = ctk.local_resolution(h.one, h.two, b_factor=-100, sampling=24, min_resolution=40, progress=False, true_fsc=None)
    points = np.stack([ours.points[a].values / 4 for a in ("z", "y", "x")], 1).round().astype(int)
    order = [tuple(p[::-1]) for p in points]  # RELION's labels are transposed
    np.testing.assert_allclose(ours.points["masked"], [masked[p] for p in order], atol=6e-6)
    given = ctk.local_resolution(h.one, h.two, b_factor=-100, sampling=24, min_resolution=40, progress=False, true_fsc=np.array([corrected[p] for p in order]))
    theirs = read_mrc(tmp_path / "relion_locres.mrc")[0]
    np.testing.assert_allclose(given.resolution_map.values, theirs, atol=2e-5)
    filtered = read_mrc(tmp_path / "relion_locres_filtered.mrc")[0]
    if abs((filtered * given.filtered.values).sum() / (given.filtered.values**2).sum() - 2) < 0.1:
        filtered = filtered / 2  # RELION 3.1 filters the sum of the half-maps, 5 their mean
    assert np.abs(given.filtered.values - filtered).max() < 2e-5 * filtered.std()


def _relions_points(path, n_shells):
    """Masked and corrected curves of every point of RELION's file, which is no valid STAR."""
    masked, corrected, point, labels = {}, {}, None, {}
    for line in path.read_text().splitlines():
        if line.startswith("data_fsc_"):
            point, labels = tuple(int(v) for v in line.removeprefix("data_fsc_").split("_")), {}
            masked[point], corrected[point] = [], []
        elif line.startswith("_rln"):
            labels[line.split()[0][1:]] = len(labels)
        elif point is not None and len(line.split()) == len(labels) and labels:
            v = [float(x) for x in line.split()]
            masked[point].append(v[labels["rlnFourierShellCorrelationMaskedMaps"]])
            corrected[point].append(v[labels["rlnFourierShellCorrelationCorrected"]])
    assert all(len(c) == n_shells for c in masked.values())
    return masked, corrected


def test_window_and_lattice():
    w = window_profile(3, 4)
    assert w.shape == (15, 15, 15) and w[7, 7, 7] == 1 and w[7, 7, 0] == 0 and w[7, 7, 7 + 5] == pytest.approx(0.5)
    assert np.array_equal(w, w[::-1]) and np.array_equal(w, w.transpose(2, 1, 0))
    p = lattice(20, 4, 3)
    d = np.sqrt(((p - 10) ** 2).sum(1))
    assert d.max() < 7 and p.min() >= 0 and len(p) > 10
    assert ball(8, 2).shape == (8, 8, 8)
