"""Sine and cosine of our own against the library's."""

import numba
import numpy as np

from cryotk.kernels._sine import cosine, sine


@numba.njit
def _both(x):
    out = np.empty((2, len(x)))
    for i in range(len(x)):
        out[0, i], out[1, i] = sine(x[i]), cosine(x[i])
    return out


def test_as_the_library():
    # as far as the phases of a CTF far from focus go
    x = np.concatenate([np.linspace(-10, 10, 10_001), np.pi * np.arange(-9, 10) / 2, np.random.default_rng(1).uniform(-1e4, 1e4, 10_000)])
    assert np.abs(_both(x) - [np.sin(x), np.cos(x)]).max() < 2e-11
    assert _both(np.zeros(1))[0, 0] == 0
