"""Shells of Fourier space and what is summed over them."""

from __future__ import annotations

import numpy as np
import scipy.fft

__all__ = ["fourier_shell_correlation", "radial_average", "shell_index"]


def shell_index(n: int, dims: int) -> np.ndarray:
    """Shell (rounded radius) of every coefficient of a half transform of an ``n``-pixel cube or square, int32."""
    k = np.fft.fftfreq(n) * n
    axes = [k] * (dims - 1) + [np.arange(n // 2 + 1)]
    r2 = sum(np.meshgrid(*[np.asarray(a, float) ** 2 for a in axes], indexing="ij", sparse=True))
    return np.floor(np.sqrt(r2) + 0.5).astype(np.int32)


def _half_weights(n: int, dims: int) -> np.ndarray:
    """How often each coefficient of a half transform stands in the full one."""
    w = np.full(n // 2 + 1, 2.0)
    w[0] = 1.0
    if n % 2 == 0:
        w[-1] = 1.0
    return w.reshape((1,) * (dims - 1) + (-1,))


def radial_average(values: np.ndarray, n: int) -> np.ndarray:
    """Mean of a half transform's values over each shell up to n / 2."""
    shell = shell_index(n, values.ndim)
    weight = np.broadcast_to(_half_weights(n, values.ndim), shell.shape)
    inside = shell <= n // 2
    total = np.bincount(shell[inside], (values * weight)[inside], minlength=n // 2 + 1)
    return total / np.bincount(shell[inside], weight[inside], minlength=n // 2 + 1)


def fourier_shell_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of two maps' transforms in each shell.

    Parameters
    ----------
    a, b : (n, n, n) or (n, n) float

    Returns
    -------
    (n // 2 + 1,) float64
    """
    n, dims = a.shape[-1], a.ndim
    fa, fb = scipy.fft.rfftn(np.asarray(a, float), workers=1), scipy.fft.rfftn(np.asarray(b, float), workers=1)
    shell = shell_index(n, dims)
    weight = np.broadcast_to(_half_weights(n, dims), shell.shape)
    inside = shell <= n // 2

    def total(x: np.ndarray) -> np.ndarray:
        return np.bincount(shell[inside], (x * weight)[inside], minlength=n // 2 + 1)

    cross = total((fa.conj() * fb).real)
    norm = np.sqrt(total(np.abs(fa) ** 2) * total(np.abs(fb) ** 2))
    return np.where(norm > 0, cross / np.where(norm > 0, norm, 1), 0.0)
