"""Post-processing on maps whose truth is known, and what it says when something is wrong with them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data import as_volume
from cryotk.errors import DataWarning
from cryotk.fourier import filter_map, lowpass
from cryotk.maps import curves

from .conftest import ball, half_maps

quiet = pytest.mark.filterwarnings("ignore::cryotk.errors.DataWarning")


@quiet
def test_fsc_of_signal_and_noise_of_one_spectrum():
    """A map and an independent noise of k times its power in each half: FSC = 1 / (1 + k) within sampling."""
    rng = np.random.default_rng(0)
    n = 64
    signal = rng.normal(size=(n, n, n))
    one, two = (as_volume((signal + rng.normal(size=(n, n, n))).astype(np.float32), 1.5) for _ in range(2))
    r = ctk.postprocess(one, two, b_factor=0.0)
    shell = np.arange(3, n // 2)
    count = 2 * np.pi * shell**2
    assert np.all(np.abs(r.fsc["unmasked"].values[shell] - 0.5) < 4 / np.sqrt(count))
    assert r.resolution == pytest.approx(3.0)


@quiet
def test_mask_on_pure_noise_is_corrected_away():
    """Masked noise correlates through the mask; what is left after correction is nothing."""
    rng = np.random.default_rng(1)
    n = 64
    shared_low = lowpass(rng.normal(size=(n, n, n)), 1.0, 12.0)
    one, two = (as_volume((20 * shared_low + rng.normal(size=(n, n, n))).astype(np.float32), 1.0) for _ in range(2))
    sharp = as_volume((ball(n, 9, 0.01) > 0.5).astype(np.float32), 1.0)
    r = ctk.postprocess(one, two, sharp, b_factor=0.0, force_mask=True)
    shell = round(n / r.randomise_from)
    far = slice(shell + 3, n // 2)
    assert r.fsc["masked"].values[far].mean() > 0.15  # low resolution leaks through the sharp mask
    assert abs(r.fsc["corrected"].values[far].mean()) < 0.07
    np.testing.assert_array_equal(r.fsc["corrected"].values[: shell + 2], r.fsc["masked"].values[: shell + 2])


def test_b_factor_of_a_damped_map_is_found():
    """Damping by B0 shifts the fit by B0, and sharpening by the fit takes it back."""
    h = half_maps(64, 1.0, noise=0.05, damping=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = ctk.postprocess(h.one, h.two, fsc_weighting=False, b_factor_highres=2.2)
        damped = ctk.postprocess(*(as_volume(filter_map(v.values, 1.0, b_factor=80), 1.0) for v in (h.one, h.two)), fsc_weighting=False, b_factor_highres=2.2)
    assert damped.guinier.attrs["slope"] - plain.guinier.attrs["slope"] == pytest.approx(-20, abs=0.1)
    assert damped.b_factor - plain.b_factor == pytest.approx(-80, abs=0.4)
    assert np.corrcoef(damped.volume.values.ravel(), plain.volume.values.ravel())[0, 1] > 0.9999


@quiet
def test_flat_mtf_doubles_what_is_inside_nyquist(halves):
    h = halves
    mtf = (np.linspace(0, 0.5, 10), np.full(10, 0.5))
    plain = ctk.postprocess(h.one, h.two, b_factor=0.0, fsc_weighting=False)
    double = ctk.postprocess(h.one, h.two, b_factor=0.0, fsc_weighting=False, mtf=mtf, compat="relion")
    np.testing.assert_allclose(double.guinier["mtf"][:-1], plain.guinier["original"][:-1] + np.log(2), atol=1e-5)
    f, g = (np.fft.rfftn(r.volume.values) for r in (plain, double))
    assert abs(g[20, 20, 20] / f[20, 20, 20] - 1) < 1e-3 and abs(g[3, 4, 5] / f[3, 4, 5] - 2) < 1e-3


def test_weighting_ends_at_the_first_shell_below():
    c = np.array([1, 0.9, 0.5, 0.00005, 0.4, 0.3])
    np.testing.assert_allclose(curves.fsc_weights(c), [1, np.sqrt(1.8 / 1.9), np.sqrt(1 / 1.5), 0, 0, 0])
    x = np.arange(6.0)
    fit = curves.fit_guinier(x, np.array([0, -1, -2, np.nan, np.nan, np.nan]), 100.0)
    assert fit.n_points == 2 and fit.slope == pytest.approx(-1)  # the first has no resolution
    assert curves.fit_guinier(x, np.full(6, np.nan)).slope == 0


def test_resolution_is_the_last_shell_before_the_first_below():
    c = np.array([1, 0.9, 0.2, 0.1, 0.5])
    assert curves.last_shell_above(c) == 2 and curves.resolution_of_shell(2, 100, 1.0) == 50
    assert curves.resolution_of_shell(curves.last_shell_above(np.array([1, 0.1, 0.1])), 100, 1.0) == float("inf")
    assert curves.interpolated_resolution(c, 100, 1.0) == pytest.approx(100 / (2 + 0.057 / 0.1))


def test_result_for_views(halves, no_compute):
    """Names, dims, units; looking computes nothing."""
    h = halves
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        r = ctk.postprocess(h.one, h.two, h.mask, molecular_weight=50)
    assert set(r.fsc) == {"corrected", "unmasked", "masked", "randomised", "particle_fraction_mask", "particle_fraction_weight"}
    assert set(r.guinier) == {"original", "weighted", "sharpened", "intercept"}
    assert r.fsc.frequency.attrs["units"] == "1/Å" and r.fsc.resolution[0] == np.inf and r.fsc.resolution[-1] == pytest.approx(4.0)
    assert r.volume.attrs["pixel_size"] == 2.0 and r.masked.attrs["pixel_size"] == 2.0 and r.volume.dtype == np.float32
    text = repr(r) + r._repr_html_()
    assert "Å" in text and "B-factor" in text and "kDa" in text
    again = r.sharpened()
    np.testing.assert_allclose(again.values, r.volume.values, atol=1e-6 * float(r.volume.std()))
    assert float(r.sharpened(0.0, lowpass=10).std()) < float(r.volume.std())
    np.testing.assert_allclose(r.sharpened_amplitudes(r.b_factor), r.guinier["sharpened"].values)


@quiet
def test_calibrated_pixel_size_goes_into_everything(halves, tmp_path):
    h = halves
    a, b = (ctk.postprocess(h.one, h.two, h.mask, pixel_size=p, b_factor=-50) for p in (None, 2.2))
    assert b.pixel_size == 2.2 and b.volume.attrs["pixel_size"] == 2.2
    assert b.resolution == pytest.approx(1.1 * a.resolution) and b.fsc.resolution[1] == pytest.approx(1.1 * a.fsc.resolution[1])
    np.testing.assert_allclose(b.guinier.inverse_resolution_squared, a.guinier.inverse_resolution_squared / 1.21)
    b.save(tmp_path)
    assert ctk.open_volume(tmp_path / "postprocess.mrc").attrs["pixel_size"] == pytest.approx(2.2)


@quiet
def test_result_is_the_same_whoever_computes(monkeypatch):
    h = half_maps(96)
    monkeypatch.setattr("cryotk.maps.transform.default_threads", lambda: 3)
    a = ctk.postprocess(h.one, h.two, h.mask)
    monkeypatch.setattr("cryotk.maps.transform.default_threads", lambda: 1)
    b = ctk.postprocess(h.one, h.two, h.mask)
    np.testing.assert_array_equal(a.volume.values, b.volume.values)
    np.testing.assert_array_equal(a.fsc["randomised"], b.fsc["randomised"])
    other = ctk.postprocess(h.one, h.two, h.mask, seed=1)
    assert not np.array_equal(a.fsc["randomised"], other.fsc["randomised"])


@quiet
def test_inputs_are_left_alone_and_odd_boxes_work():
    h = half_maps(45)
    before = h.one.values.copy()
    r = ctk.postprocess(h.one, h.two, h.mask)
    np.testing.assert_array_equal(h.one.values, before)
    assert r.volume.shape == (45, 45, 45) and r.fsc.sizes["shell"] == 23


def test_tight_mask_is_named():
    """A mask beside most of the particle: the unmasked curve reaches further, and is taken."""
    n = 64
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(n, n, n)) * np.roll(ball(n, 14), 16, 0)
    one, two = (as_volume((signal + 0.12 * rng.normal(size=(n, n, n))).astype(np.float32), 1.0) for _ in range(2))
    tight = as_volume(np.roll(ball(n, 7), -14, 0), 1.0)
    with pytest.warns(DataWarning, match="unmasked FSC reaches further"):
        r = ctk.postprocess(one, two, tight, b_factor=0.0)
    np.testing.assert_array_equal(r.fsc["corrected"], r.fsc["unmasked"])
    assert any("too tight" in w for w in r.warnings) and "warning" in repr(r)


def test_sharp_mask_is_named():
    rng = np.random.default_rng(3)
    n = 64
    common = lowpass(rng.normal(size=(n, n, n)), 1.0, 6.0)
    one, two = (as_volume((6 * common + rng.normal(size=(n, n, n)) * 0.6).astype(np.float32), 1.0) for _ in range(2))
    sharp = as_volume((ball(n, 8, 0.01) > 0.5).astype(np.float32), 1.0)
    with pytest.warns(DataWarning, match="with random phases the masked maps still correlate"):
        ctk.postprocess(one, two, sharp, b_factor=0.0)


def test_poor_fit_is_named():
    h = half_maps(64, 1.0, noise=0.3, damping=0.0)
    with pytest.warns(DataWarning, match=r"Guinier fit is poor|positive"):
        r = ctk.postprocess(h.one, h.two)
    assert r.guinier.attrs["correlation"] < 0.5 or r.b_factor > 0


def test_positive_b_factor_is_named(halves):
    with pytest.warns(DataWarning, match="it damps high resolution"):
        ctk.postprocess(halves.one, halves.two, halves.mask, b_factor=50)


@quiet
def test_maps_from_memory_are_written_beside_the_star(halves, tmp_path):
    """Polishing reads half-maps and mask by their names, so they must be files; plain arrays with a pixel size are maps too."""
    h = halves
    r = ctk.postprocess(h.one.values, h.two.values, h.mask, pixel_size=2.0, b_factor=-20)
    back = ctk.open_postprocess(r.save(tmp_path / "job"))
    np.testing.assert_array_equal(ctk.open_volume(back.half1).values, h.one.values)
    np.testing.assert_array_equal(back.mask.values, h.mask.values)
    np.testing.assert_array_equal(back.masked.values, r.masked.values)
    again = ctk.postprocess(back.half1, back.half2, back.mask_source, b_factor=-20)
    np.testing.assert_array_equal(again.volume.values, r.volume.values)
    assert repr(ctk.open_postprocess(tmp_path / "job")) == repr(back)
