"""Parameters of the functions on maps that no other test needs: what each does, by its definition."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data import as_volume, write_volume
from cryotk.io import read_star
from cryotk.maps import gains
from cryotk.maps.local_windows import lattice, window_profile
from cryotk.maps.transform import apply_gain, forward, inverse

from .conftest import ball

quiet = pytest.mark.filterwarnings("ignore::cryotk.errors.DataWarning")

FREQUENCY = np.linspace(0, 0.5, 51)
MTF = 1 / (1 + 3 * FREQUENCY**2)
"""Smooth: between its rows a straight line differs by less than 1e-4."""


def _radius(n: int) -> np.ndarray:
    k = np.fft.fftfreq(n) * n
    return np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + np.arange(n // 2 + 1) ** 2)


def _ratio(a, b) -> tuple[np.ndarray, np.ndarray]:
    """Radii inside Nyquist's and the ratio of the maps' transforms there."""
    f, g = np.fft.rfftn(a.values.astype(float)), np.fft.rfftn(b.values.astype(float))
    r = _radius(a.shape[0])
    inside = (r > 0) & (r < a.shape[0] / 2 - 1) & (np.abs(g) > 0.05 * np.abs(g).mean())
    return r[inside], (f[inside] / g[inside]).real


@quiet
@pytest.mark.parametrize("physical", [None, 1.6])
def test_mtf_is_divided_out(halves, physical):
    """At every coefficient inside Nyquist's radius by the curve itself, at the detector's own pixel size."""
    h = halves
    given = {} if physical is None else {"mtf_pixel_size": physical}
    plain = ctk.postprocess(h.one, h.two, b_factor=0.0, fsc_weighting=False, progress=False)
    sharp = ctk.postprocess(h.one, h.two, b_factor=0.0, fsc_weighting=False, mtf=(FREQUENCY, MTF), progress=False, **given)
    r, ratio = _ratio(sharp.volume, plain.volume)
    # cycles per pixel of the detector
    x = r / (h.n * h.a) * (physical or h.a)
    np.testing.assert_allclose(ratio, 1 + 3 * x**2, rtol=2e-3)
    log = sharp.guinier["mtf"].values - sharp.guinier["original"].values
    shell = np.arange(len(log))[1:-1] / (h.n * h.a) * (physical or h.a)
    # a shell's mean over radii half a shell up and down
    np.testing.assert_allclose(log[1:-1], np.log1p(3 * shell**2), atol=0.03)


@quiet
@pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="needs RELION's relion_postprocess in the PATH")
def test_relions_program_divides_by_the_same_curve(halves, tmp_path):
    """relion_postprocess --mtf on a known curve: its Guinier points are ours in its reading of the curve."""
    h = halves
    for name, v in (("half1.mrc", h.one), ("half2.mrc", h.two), ("mask.mrc", h.mask)):
        write_volume(v, tmp_path / name)
    rows = "\n".join(f"{x:.6f} {y:.6f}" for x, y in zip(FREQUENCY, MTF, strict=True))
    (tmp_path / "mtf.star").write_text(f"data_\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n{rows}\n\n")
    # it ends with 1 where there is no Ghostscript to draw its curves, after the table is written
    subprocess.run(
        ["relion_postprocess", "--i", "half1.mrc", "--i2", "half2.mrc", "--o", "theirs", "--mask", "mask.mrc", "--angpix", "2", "--mtf", "mtf.star",
         "--mtf_angpix", "1.6", "--auto_bfac", "--autob_lowres", "10"], cwd=tmp_path, check=False, capture_output=True,
    )  # fmt: skip
    assert (tmp_path / "theirs.star").exists()
    table = read_star(tmp_path / "theirs.star")["guinier"]
    ours = ctk.postprocess(
        tmp_path / "half1.mrc", tmp_path / "half2.mrc", tmp_path / "mask.mrc", mtf=tmp_path / "mtf.star", mtf_pixel_size=1.6, compat="relion",
        pixel_size=2.0, progress=False,
    )  # fmt: skip
    for column, name in (("rlnLogAmplitudesOriginal", "original"), ("rlnLogAmplitudesMTFCorrected", "mtf")):
        theirs = np.asarray(table[column], float)
        known = ours.guinier[name].values[-len(theirs) :]
        good = np.isfinite(known) & (theirs > -90)
        assert good.sum() > 15
        np.testing.assert_allclose(known[good], theirs[good], atol=2e-4)


@quiet
def test_without_a_fit_nothing_is_sharpened(halves):
    h = halves
    off = ctk.postprocess(h.one, h.two, auto_b_factor=False, progress=False)
    zero = ctk.postprocess(h.one, h.two, b_factor=0.0, progress=False)
    assert not off.b_factor
    np.testing.assert_allclose(off.volume.values, zero.volume.values, atol=1e-6)
    fitted = ctk.postprocess(h.one, h.two, progress=False)
    assert fitted.b_factor and not np.allclose(fitted.volume.values, off.volume.values, atol=1e-3)


@quiet
@pytest.mark.parametrize("level", [0.76, 0.6])
def test_phases_are_random_from_the_shell_that_falls_below(halves, level):
    h = halves
    r = ctk.postprocess(h.one, h.two, h.mask, randomise_at_fsc=level, b_factor=0.0, progress=False)
    unmasked = r.fsc["unmasked"].values
    first = int(np.nonzero(unmasked[1:] < level)[0][0]) + 1
    masked, random, corrected = (r.fsc[name].values for name in ("masked", "randomised", "corrected"))
    # before it nothing is random, so the masked curve stands; two shells later it is corrected
    np.testing.assert_allclose(random[:first], masked[:first], atol=0.05)
    np.testing.assert_allclose(corrected[: first + 2], masked[: first + 2], atol=1e-6)
    assert np.all(random[first + 2 : first + 6] < masked[first + 2 : first + 6] - 0.02)
    some = slice(first + 2, -1)
    np.testing.assert_allclose(corrected[some] * (1 - random[some]), masked[some] - random[some], atol=1e-5)


def test_a_window_of_ones_own(halves):
    """mask_radius and edge_width are those of the windows: each point's curve is that of the maps times such a ball."""
    h = halves
    r = ctk.local_resolution(h.one, h.two, sampling=16, mask_radius=10, edge_width=8, randomise_at=12, progress=False)
    p = lattice(48, 8, 5)
    assert r.points.sizes["point"] == len(p)
    middle = int(np.argmin(((p - 24) ** 2).sum(1)))
    q, w = 9, window_profile(5, 4)
    padded = [np.pad(v.values, q) for v in (h.one, h.two)]
    at = tuple(slice(i, i + 2 * q + 1) for i in p[middle])
    window = np.zeros_like(padded[0])
    window[at] = w
    f, g = (np.fft.rfftn((v * window)[q:-q, q:-q, q:-q]) for v in padded)
    shell = np.rint(_radius(48)).astype(int)
    weight = np.where((np.arange(25) > 0) & (np.arange(25) < 24), 2.0, 1.0) * np.ones(shell.shape)
    sums = [np.bincount(shell.ravel(), (weight * x).ravel(), minlength=60) for x in ((f * g.conj()).real, np.abs(f) ** 2, np.abs(g) ** 2)]
    expected = sums[0][:5] / np.sqrt(sums[1] * sums[2])[:5]
    curves = r.points["masked"].isel(point=middle).values
    np.testing.assert_allclose(curves[:5], expected, atol=2e-3)
    other = ctk.local_resolution(h.one, h.two, sampling=16, randomise_at=12, progress=False)
    assert not np.allclose(other.resolution_map.values, r.resolution_map.values)


def test_mtf_of_a_local_filter(halves):
    h = halves
    one_curve = np.tile(np.where(np.arange(25) < 12, 1.0, 0.0), (200, 1))
    r = ctk.local_resolution(
        h.one, h.two, sampling=24, mtf=(FREQUENCY, MTF), mtf_pixel_size=1.6, progress=False, true_fsc=one_curve
    )
    gain = gains.weight_gain(48, (np.arange(25) < 12).astype(float)) * gains.lowpass_gain(48, 2.0, 48 * 2 / 11)
    x = gains.radii(48) / (48 * 2.0) * 1.6
    gain = gain * np.where(gains.radii(48) < 24, 1 + 3 * x**2, 1)
    expected = inverse(apply_gain(forward(0.5 * (h.one.values + h.two.values)), gain), 48)
    inside = r.resolution_map.values > 0
    np.testing.assert_allclose(r.filtered.values[inside], expected[inside], atol=2e-3 * np.abs(expected).max())


def test_a_mask_or_what_is_outside_another():
    one = as_volume(np.roll(ball(32, 5), 6, 2), 3.0)
    two = as_volume(ball(32, 8), 3.0)
    given = {"lowpass": None, "extend_px": 0, "soft_edge_px": 0, "progress": False}
    got = ctk.create_mask(one, 0.47, or_not=two, **given).mask.values
    expected = (one.values >= 0.47) | (two.values < 0.47)
    assert np.array_equal(got > 0.5, expected) and 0 < expected.mean() < 1


def test_edge_of_the_masks_lowpass():
    """A raised cosine of so many shells, centred at the cut-off."""
    n, a, cut = 48, 2.0, 12.0
    point = np.zeros((n, n, n), np.float32)
    point[n // 2, n // 2, n // 2] = 1
    masks = []
    for edge in (2.0, 8.0):
        gain = gains.lowpass_gain(n, a, cut, edge)
        low = inverse(apply_gain(forward(point), gain), n)
        level = 0.25 * float(low.max())
        m = ctk.create_mask(as_volume(point, a), level, lowpass=cut, lowpass_edge=edge, extend_px=0, soft_edge_px=0, progress=False).mask.values
        assert np.array_equal(m > 0.5, low >= level)
        masks.append(low)
    assert not np.allclose(masks[0], masks[1], atol=1e-4)
