"""Filters and resizing against relion_image_handler, and their definitions."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest

from cryotk.errors import DataError
from cryotk.fourier import filter_map, lowpass, lowpass_gain, resize, resized_box, window

FILTERS = {
    "lowpass_25": {"lowpass": 25},
    "lowpass_25_w5": {"lowpass": 25, "width": 5},
    "bandpass": {"lowpass": 25, "highpass": 80},
    "bfactor_200": {"b_factor": 200},
    "bfactor_m200": {"b_factor": -200},
}


@pytest.fixture
def handled(shared):
    def read(name: str) -> np.ndarray:
        with mrcfile.open(shared / f"reference/image_handler/{name}.mrc", permissive=True) as f:
            return f.data.astype(float)

    return read


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.golden
@pytest.mark.parametrize("name", FILTERS)
def test_relion_filters(handled, name):
    assert _relative(filter_map(handled("in"), 8.0, **FILTERS[name]), handled(name)) < 1e-7


@pytest.mark.golden
@pytest.mark.parametrize(("name", "pixel_size", "box", "real"), [("rescale_12A", 12, 16, 12.0), ("rescale_6p5A", 6.5, 30, 6.4)])
def test_relion_rescaling(handled, name, pixel_size, box, real):
    assert resized_box(24, 8.0, pixel_size) == (box, pytest.approx(real))
    assert _relative(resize(handled("in"), box), handled(name)) < 1e-7


@pytest.mark.golden
def test_relion_boxes(handled):
    assert np.array_equal(window(handled("in"), 30), handled("newbox_30"))
    assert np.array_equal(window(handled("in"), 18), handled("newbox_18"))
    assert _relative(window(resize(handled("in"), 16), 24), handled("rescale_newbox")) < 1e-7


def test_lowpass_is_centred_on_the_resolution():
    gain = lowpass_gain(64, 2.0, 20.0, 2.0, 2)  # 6.4 Fourier pixels
    assert gain[0, 5] == 1 and gain[0, 8] == 0
    assert gain[0, 6] == pytest.approx(0.5 + 0.5 * np.cos(np.pi * 0.6 / 2))
    x = np.random.default_rng(0).standard_normal((3, 64, 64)).astype(np.float32)
    out = lowpass(x, 2.0, 20.0, dims=2)
    assert out.dtype == np.float32 and out.shape == x.shape
    assert np.allclose(np.fft.rfft2(out), np.fft.rfft2(x) * gain, atol=1e-3)


def test_filters_keep_type_and_mean():
    x = np.random.default_rng(0).standard_normal((20, 20, 20)).astype(np.float32) + 3
    out = filter_map(x, 2.0, lowpass=10, b_factor=50)
    assert out.dtype == np.float32 and out.mean() == pytest.approx(x.mean(), abs=1e-5)
    assert np.allclose(filter_map(x, 2.0, highpass=20, lowpass=20), 0, atol=10)  # nothing diverges where both edges meet
    assert np.isfinite(filter_map(x, 2.0, lowpass=10, width=0)).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_resize_there_and_back(dims):
    x = lowpass(np.random.default_rng(0).standard_normal((2, *(24,) * dims)), 1.0, 4.0, dims=dims)
    small = resize(x, 16, dims)
    assert small.shape == (2, *(16,) * dims)
    assert np.allclose(resize(small, 24, dims), x, atol=1e-12)
    assert np.allclose(small.mean(axis=tuple(range(1, dims + 1))), x.mean(axis=tuple(range(1, dims + 1))))
    assert np.allclose(small[..., 8], resize(x, 16, dims)[..., 8])


def test_resize_keeps_the_centre():
    k = np.arange(32) - 16
    x = np.exp(-(k[:, None] ** 2 + k**2) / 40.0)
    for n in (20, 48):
        y = resize(x, n)
        assert np.unravel_index(y.argmax(), y.shape) == (n // 2, n // 2)
        assert y.max() == pytest.approx(1, abs=1e-4)


def test_resize_refuses():
    with pytest.raises(DataError, match="even"):
        resize(np.zeros((9, 9)), 8)
    with pytest.raises(DataError, match="cubes"):
        resize(np.zeros((8, 6)), 4)
    with pytest.raises(DataError, match="leaves nothing"):
        resized_box(10, 1.0, 50.0)


@pytest.mark.parametrize(("m", "n"), [(8, 12), (9, 12), (12, 9), (9, 5), (8, 8)])
def test_window_keeps_the_centre(m, n):
    x = np.zeros((m, m))
    x[m // 2, m // 2] = 1
    y = window(x, n, fill=-1.0)
    assert y.shape == (n, n) and y[n // 2, n // 2] == 1
    assert (y == -1).sum() == max(n * n - m * m, 0)
