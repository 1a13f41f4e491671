"""Transforms that leave out what a gain erases, and inverse ones in the transform's own memory."""

from __future__ import annotations

import numpy as np
import pytest

from cryotk.maps import gains
from cryotk.maps import transform as t


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n", [24, 25, 100, 101])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_filtered(monkeypatch, n, kind, threads):
    """Low-passes of any reach are those of the whole transform; the map given is left alone."""
    monkeypatch.setattr(t, "default_threads", lambda: threads)
    x = np.random.default_rng(n).normal(size=(n, n, n)).astype(kind)
    before, f = x.copy(), np.fft.rfftn(x.astype(float))
    k = np.fft.fftfreq(n) * n
    r = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + np.arange(n // 2 + 1) ** 2)
    for resolution in (n / 2, 6.0, 2.5, 2.0, 0.5):
        gain = gains.lowpass_gain(n, 1.0, resolution)
        expected = np.fft.irfftn(f * np.interp(r, t.radii(n), gain), s=(n, n, n))
        got = t.filtered(x, gain)
        assert got.dtype == kind and got.flags.c_contiguous and got.flags.writeable
        np.testing.assert_allclose(got, expected, atol=2e-5 if kind == np.float32 else 1e-12, err_msg=str(resolution))
    np.testing.assert_array_equal(x, before)
    assert not t.filtered(x, np.zeros(len(t.radii(n)))).any()


@pytest.mark.parametrize("n", [16, 97, 112])
def test_inverse_keeps_the_transform_unless_told(n):
    x = np.random.default_rng(n).normal(size=(n, n, n)).astype(np.float32)
    f = t.forward(x)
    before = f.copy()
    np.testing.assert_allclose(t.inverse(f, n), x, atol=2e-6)
    np.testing.assert_array_equal(f, before)
    np.testing.assert_array_equal(t.inverse(f.copy(), n, overwrite=True), t.inverse(f, n))


def test_filtering_has_the_same_bits_for_any_number_of_threads(monkeypatch):
    x = np.random.default_rng(0).normal(size=(112, 112, 112)).astype(np.float32)
    out = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(t, "default_threads", lambda threads=threads: threads)
        out.append(t.filtered(x, gains.lowpass_gain(112, 1.0, 5.0)))
    np.testing.assert_array_equal(out[0], out[1])
    np.testing.assert_array_equal(out[0], out[2])
