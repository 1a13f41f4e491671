"""Shells, sums over them, and Fourier shell correlation."""

from __future__ import annotations

import numpy as np
import pytest

from cryotk.fourier import fourier_shell_correlation, radial_average, shell_index


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("n", [8, 9])
def test_shell_index(n, dims):
    shell = shell_index(n, dims)
    assert shell.shape == (n,) * (dims - 1) + (n // 2 + 1,) and shell.dtype == np.int32
    k = np.fft.fftfreq(n) * n
    for index in np.ndindex(shell.shape):
        r = np.sqrt(sum(k[i] ** 2 for i in index[:-1]) + index[-1] ** 2)
        assert shell[index] == int(r + 0.5)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("n", [16, 15])
def test_radial_average_counts_mates(n, dims):
    """The average over a half transform is the one over the whole."""
    f = np.abs(np.fft.fftn(np.random.default_rng(0).standard_normal((n,) * dims))) ** 2
    k = np.fft.fftfreq(n) * n
    r = np.floor(np.sqrt(sum(np.meshgrid(*[k**2] * dims, indexing="ij", sparse=True))) + 0.5)
    expected = [f[r == s].mean() for s in range(n // 2 + 1)]
    assert np.allclose(radial_average(f[..., : n // 2 + 1], n), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_correlation_by_definition(dims):
    rng, n = np.random.default_rng(1), 12
    a, b = rng.standard_normal((2, *(n,) * dims))
    b = b + 0.5 * a
    fa, fb = np.fft.fftn(a), np.fft.fftn(b)
    k = np.fft.fftfreq(n) * n
    r = np.floor(np.sqrt(sum(np.meshgrid(*[k**2] * dims, indexing="ij", sparse=True))) + 0.5)
    expected = [
        (fa[r == s] * fb[r == s].conj()).real.sum() / np.sqrt((abs(fa[r == s]) ** 2).sum() * (abs(fb[r == s]) ** 2).sum())
        for s in range(n // 2 + 1)
    ]
    assert np.allclose(fourier_shell_correlation(a, b), expected)


def test_correlation_of_empty_shells_is_zero():
    a = np.zeros((8, 8, 8))
    a[:] = 3.0
    assert fourier_shell_correlation(a, a).tolist() == [1, 0, 0, 0, 0]
