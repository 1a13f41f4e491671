"""Half-maps that are not independent, unfiltered and unmasked, or have nothing in common."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data import as_volume, write_volume
from cryotk.errors import DataError
from cryotk.io import read_star

from .conftest import ball, half_maps


@pytest.fixture(scope="module")
def real(shared):
    folder = shared / "data/relion2_spa_betagal/Refine3D/job020"
    return [ctk.open_volume(folder / f"run_half{i}_class001_unfil.mrc") for i in (1, 2)]


def _measure(*maps, **options):
    """Post-process and what it said."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = ctk.postprocess(*maps, **options)
    assert all(w.filename == __file__ for w in seen)
    assert [str(w.message) for w in seen] == result.warnings
    return result


def _local(*maps):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = ctk.local_resolution(*maps, sampling=120.0)
    assert all(w.filename == __file__ for w in seen) and [str(w.message) for w in seen] == result.warnings
    return result


def _as_float16(tmp_path, maps):
    for i, v in enumerate(maps):
        write_volume(v, tmp_path / f"half{i + 1}.mrc", dtype="float16")
    return tmp_path / "half1.mrc", tmp_path / "half2.mrc"


@pytest.mark.parametrize("resolution", [9.0, 20.0])
@pytest.mark.parametrize("half_precision", [False, True])
def test_filtered_half_maps_are_noticed(real, tmp_path, resolution, half_precision):
    maps = [ctk.lowpass(v, resolution) for v in real]
    if half_precision:
        maps = _as_float16(tmp_path, maps)
    for result in (_measure(*maps), _local(*maps)):
        text = next(w for w in result.warnings if "look filtered" in w)
        assert float(text.split("beyond ")[1].split(" Å")[0]) == pytest.approx(resolution, rel=0.15)


def test_masked_half_maps_are_noticed(real):
    n = len(real[0])
    k = np.arange(n) - n // 2
    r = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    for inside in ((r < 45).astype(np.float32), ball(n, 30, 6)):
        maps = [v * inside for v in real]
        for result in (_measure(*maps), _local(*maps)):
            assert any("% of the voxels of" in w and "look masked" in w for w in result.warnings)
    whole = [v * (r < 50) for v in real]  # corners alone
    assert not any("s look masked" in w for w in _measure(*whole).warnings)


def test_unfiltered_half_maps_are_left_in_peace(real, tmp_path, half1):
    for maps in (real, _as_float16(tmp_path, real), [half1]):
        for result in (_measure(*maps), _local(*maps)):
            assert not any("s look" in w or "they look" in w or "do not correlate" in w for w in result.warnings)


def test_a_b_factor_beyond_any_map_is_named():
    h = half_maps(48, 2.0, noise=0.05)
    damped = [ctk.maps.apply_b_factor(v.astype(float), 2500) for v in (h.one, h.two)]
    result = _measure(*damped)
    assert result.b_factor < -2000 and any("steeper than that of any map" in w for w in result.warnings)


def _noise(n: int = 32) -> list:
    rng = np.random.default_rng(0)
    return [as_volume(rng.normal(size=(n, n, n)).astype(np.float32), 4.0) for _ in range(2)]


@pytest.mark.parametrize("mask", [None, ball(32, 8, 6)])
def test_half_maps_that_do_not_correlate(mask, tmp_path):
    one, two = half_maps(32, 4.0).one, half_maps(32, 4.0).two
    for maps in (_noise(), (one, -two)):
        r = _measure(*maps, mask=mask)
        assert len(r.warnings) == 1
        assert "do not correlate at all" in r.warnings[0]
        assert "are they of one refinement, one hand, one contrast?" in r.warnings[0]
        assert r.resolution > 32 * 4 / 3
    assert r.resolution == np.inf and r.b_factor == 0 and not r.fitted and "intercept" not in r.guinier
    assert "resolution: none" in repr(r) and "fitted" not in repr(r) and "inf" not in repr(r)
    assert "rlnFittedSlopeGuinierPlot" not in read_star(r.save(tmp_path))["general"]
    assert ctk.open_postprocess(tmp_path).resolution == np.inf


def test_one_half_map_is_empty():
    one = half_maps(32, 4.0).one.assign_attrs(source="run_half1.mrc")
    for function in (ctk.postprocess, ctk.local_resolution):
        with pytest.raises(DataError, match=r"^half2 is empty: all voxels have one value"):
            function(one, one * 0)


@pytest.mark.filterwarnings("ignore::cryotk.errors.DataWarning")
def test_the_range_that_a_fit_used(halves, tmp_path):
    r = ctk.postprocess(halves.one, halves.two, halves.mask, b_factor_lowres=12.0, b_factor_highres=5.0)
    d = 1 / np.sqrt(r.guinier["inverse_resolution_squared"].values[1:])
    used = d[(d <= 12) & (d >= 5) & np.isfinite(r.guinier["weighted"].values[1:])]
    assert len(used) == r.guinier.attrs["n_points"] > 2
    assert (r.guinier.attrs["fit_from"], r.guinier.attrs["fit_to"]) == pytest.approx((used.max(), used.min()))
    assert "fit_from" not in ctk.postprocess(halves.one, halves.two, b_factor=-50).guinier.attrs
    assert "fit_from" not in ctk.open_postprocess(r.save(tmp_path)).guinier.attrs


def test_sharpened_is_the_runs_map_until_told_otherwise(halves):
    r = ctk.postprocess(halves.one, halves.two, halves.mask, b_factor=-60, lowpass=8.0, fsc_weighting=False)
    np.testing.assert_array_equal(r.sharpened().values, r.volume.values)
    np.testing.assert_allclose(r.sharpened_amplitudes(-60), r.guinier["sharpened"].values)
    for options in ({"lowpass": 0}, {"fsc_weighting": True}, {"b_factor": 0.0}):
        assert np.abs(r.sharpened(**options) - r.volume).max() > 1e-3
    plain = ctk.postprocess(halves.one, halves.two, halves.mask, b_factor=-60, fsc_weighting=False)
    np.testing.assert_array_equal(r.sharpened(lowpass=0).values, plain.volume.values)


@pytest.mark.parametrize("function", [ctk.postprocess, ctk.local_resolution])
def test_a_wrong_mtf_is_noticed_before_anything_is_computed(halves, function, monkeypatch):
    def never(*_, **__):
        raise AssertionError("opened before the MTF was looked at")

    monkeypatch.setattr(sys.modules[function.__module__], "open_half_maps", never)
    with pytest.raises(DataError, match="row 2 has the value 0"):
        function(halves.one, halves.two, mtf=([0, 0.25, 0.5], [1, 0, 0.1]))
