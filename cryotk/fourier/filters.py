"""Filters in Fourier space."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft

__all__ = ["lowpass", "lowpass_gain"]


def lowpass_gain(n: int, pixel_size: float, resolution: float, width: float, dims: int) -> np.ndarray:
    """Gain of a low-pass on a half transform: raised cosine ``width`` Fourier pixels wide, centred on ``resolution`` Å."""
    k = np.fft.fftfreq(n) * n
    axes = [k] * (dims - 1) + [np.arange(n // 2 + 1)]
    r = np.sqrt(sum(np.meshgrid(*[np.asarray(a, float) ** 2 for a in axes], indexing="ij", sparse=True)))
    centre = n * pixel_size / resolution
    low, high = centre - width / 2, centre + width / 2
    ramp = 0.5 + 0.5 * np.cos(np.pi * (r - low) / width) if width > 0 else 0.0
    return np.where(r < low, 1.0, np.where(r > high, 0.0, ramp))


def lowpass(data: Any, pixel_size: float, resolution: float, width: float = 2.0, dims: int | None = None) -> np.ndarray:
    """Low-pass the last ``dims`` dimensions of an array.

    Parameters
    ----------
    data : (..., n, n[, n]) float
    pixel_size, resolution : float, Å
    width : float
        Soft edge in Fourier pixels.
    dims : int, optional
        2 or 3; all dimensions by default.
    """
    x = np.asarray(data)
    d = x.ndim if dims is None else dims
    axes = tuple(range(x.ndim - d, x.ndim))
    gain = lowpass_gain(x.shape[-1], pixel_size, resolution, width, d)
    f = scipy.fft.rfftn(x, axes=axes, workers=1) * gain.astype(x.dtype if x.dtype.kind == "f" else float)
    return scipy.fft.irfftn(f, s=x.shape[-d:], axes=axes, workers=1).astype(x.dtype, copy=False)
