"""Fourier shell correlation and CTF pictures as users call them."""

from __future__ import annotations

import numpy as np
import pytest

import cryotk as ctk
from cryotk.data import as_volume
from cryotk.errors import DataError


def _noise(seed: int, n: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, n, n)).astype(np.float32)


def test_of_itself():
    v = as_volume(_noise(0), 2.0)
    curve = ctk.fsc(v, v)
    assert np.allclose(curve, 1)
    assert curve.dims == ("shell",) and len(curve) == 17
    assert np.allclose(curve.frequency, np.arange(17) / 64)
    assert curve.attrs["resolution_0143"] == curve.attrs["resolution_05"] == pytest.approx(4.0)


def test_crossings():
    """Signal in low shells only: the curve falls there."""
    from cryotk.fourier import lowpass

    common = lowpass(_noise(0), 2.0, 8.0, width=0)
    a, b = (as_volume(common * 50 + _noise(i), 2.0) for i in (1, 2))
    curve = ctk.fsc(a, b)
    assert curve.attrs["resolution_05"] == pytest.approx(8.0, rel=0.1)
    assert curve.attrs["resolution_0143"] <= curve.attrs["resolution_05"]


def test_of_noise_is_noise():
    curve = ctk.fsc(as_volume(_noise(1), 2.0), as_volume(_noise(2), 2.0))
    counts = 4 * np.pi * np.arange(4, 16) ** 2
    assert np.abs(curve[4:16]).max() < 6 / np.sqrt(counts.min())


def test_scale_and_offset_do_not_matter():
    a, b = _noise(1), _noise(1) + _noise(2)
    one, two = ctk.fsc(as_volume(a, 2.0), as_volume(b, 2.0)), ctk.fsc(as_volume(3 * a + 1, 2.0), as_volume(b, 2.0))
    assert np.allclose(one[1:], two[1:], atol=1e-6)


def test_mask_is_applied():
    k = np.arange(32) - 16
    mask = (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2 < 64).astype(np.float32)
    inside = _noise(0) * mask
    a, b = (as_volume(inside * 3 + _noise(i) * (1 - mask), 2.0) for i in (1, 2))
    assert np.allclose(ctk.fsc(a, b, as_volume(mask, 2.0)), 1, atol=1e-5)
    assert ctk.fsc(a, b)[8] < 0.9


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: as_volume(_noise(0, 30), 2.0), "different boxes"),
        (lambda: as_volume(_noise(0), 2.1), "different pixel sizes"),
        (lambda: as_volume(_noise(0), 2.0).drop_attrs(), "pixel_size"),
    ],
)
def test_maps_that_do_not_fit(other, message):
    with pytest.raises(DataError, match=message):
        ctk.fsc(as_volume(_noise(0), 2.0), other())


def test_mask_that_does_not_fit():
    v = as_volume(_noise(0), 2.0)
    with pytest.raises(DataError, match="the mask has box"):
        ctk.fsc(v, v, as_volume(_noise(0, 30), 2.0))


def test_ctf_image(golden):
    p = ctk.open_particles(golden / "project/poses.star", images=False)
    picture = ctk.ctf_image(p, 0)
    assert picture.shape == (64, 64)
    assert float(picture.ky[32]) == 0 and float(picture.kx[0]) == pytest.approx(-0.5 / 3.54)
    assert float(picture[32, 32]) == pytest.approx(0.1, abs=1e-6)  # amplitude contrast
    # a symmetric aberration only: the picture is the same turned by 180 degrees
    assert np.allclose(picture[1:, 1:], picture[1:, 1:][::-1, ::-1], atol=1e-6)
    assert ctk.ctf_image(p, 0, box_size=128, pixel_size=1.0).shape == (128, 128)
