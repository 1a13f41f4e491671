"""Filters in Fourier space."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np
import scipy.fft

__all__ = ["b_factor_gain", "filter_map", "lowpass", "lowpass_gain"]


def lowpass_gain(n: int, pixel_size: float, resolution: float, width: float, dims: int) -> np.ndarray:
    """Gain of a low-pass on a half transform: raised cosine ``width`` Fourier pixels wide, centred on ``resolution`` Å."""
    k = np.fft.fftfreq(n) * n
    axes = [k] * (dims - 1) + [np.arange(n // 2 + 1)]
    r = np.sqrt(sum(np.meshgrid(*[np.asarray(a, float) ** 2 for a in axes], indexing="ij", sparse=True)))
    centre = n * pixel_size / resolution
    low, high = centre - width / 2, centre + width / 2
    ramp = 0.5 + 0.5 * np.cos(np.pi * (r - low) / width) if width > 0 else 0.0
    return np.where(r < low, 1.0, np.where(r > high, 0.0, ramp))


def lowpass(data: Any, pixel_size: float, resolution: float, width: float = 2.0, dims: int | None = None) -> Any:
    """Low-pass the last ``dims`` dimensions of an array.

    Parameters
    ----------
    data : (..., n, n[, n]) float
        Of any array library.
    pixel_size, resolution : float, Å
    width : float
        Soft edge in Fourier pixels.
    dims : int, optional
        2 or 3; all dimensions by default.
    """
    x = data if array_api_compat.is_array_api_obj(data) else np.asarray(data)
    d = x.ndim if dims is None else dims
    return _filtered(x, lowpass_gain(x.shape[-1], pixel_size, resolution, width, d), d)


def _filtered(x: Any, gain: np.ndarray, d: int) -> Any:
    """The last ``d`` dimensions of an array of any library, through a gain; of its type."""
    axes, shape = tuple(range(x.ndim - d, x.ndim)), tuple(x.shape[-d:])
    if isinstance(x, np.ndarray):
        f = scipy.fft.rfftn(x, axes=axes, workers=1) * gain.astype(x.dtype if x.dtype.kind == "f" else float)
        return scipy.fft.irfftn(f, s=shape, axes=axes, workers=1).astype(x.dtype, copy=False)
    xp = array_api_compat.array_namespace(x)
    real = x.dtype if x.dtype in (xp.float32, xp.float64) else xp.float64
    f = xp.fft.rfftn(xp.astype(x, real, copy=False), axes=axes) * xp.astype(xp.asarray(gain), real)
    return xp.astype(xp.fft.irfftn(f, s=shape, axes=axes), x.dtype, copy=False)


def _radius(n: int, dims: int) -> np.ndarray:
    """Distance of a half transform's coefficients from the origin, in Fourier pixels; Nyquist row positive."""
    k = np.fft.fftfreq(n) * n
    axes = [k] * (dims - 1) + [np.arange(n // 2 + 1)]
    return np.sqrt(sum(np.meshgrid(*[np.asarray(a, float) ** 2 for a in axes], indexing="ij", sparse=True)))


def b_factor_gain(n: int, pixel_size: float, b_factor: float, dims: int) -> np.ndarray:
    """Gain ``exp(-B/4 s^2)`` on a half transform; negative B (Å^2) sharpens. Nothing passes beyond Nyquist's radius."""
    r = _radius(n, dims)
    return np.where(r <= n / 2, np.exp(-b_factor / 4 * (r / (n * pixel_size)) ** 2), 0.0)


def _edge(n: int, pixel_size: float, resolution: float, width: float, dims: int) -> np.ndarray:
    """Raised cosine between whole shells on both sides of the shell that is nearest to a resolution: 1 inside."""
    shell, half = np.floor(n * pixel_size / resolution + 0.5), np.floor(width / 2)
    low, high = max(0.0, shell - half), shell + half
    r = _radius(n, dims)
    if high == low:
        return (r <= low).astype(float)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((r - low) / (high - low), 0, 1))


def filter_map(
    data: Any, pixel_size: float, *, lowpass: float | None = None, highpass: float | None = None, b_factor: float = 0.0,
    width: float = 2.0, dims: int | None = None,
) -> Any:
    """Filter maps or images the way RELION's map tools do: soft edges between whole shells.

    The start of a refinement uses :func:`lowpass` instead, whose edge is centred on the resolution itself.

    Parameters
    ----------
    data : (..., n, n[, n]) float
        Of any array library.
    pixel_size : float, Å
    lowpass, highpass : float, optional
        Å.
    b_factor : float, Å^2
        Positive damps, negative sharpens.
    width : float
        Soft edge in shells; 0 and 1 cut hard.
    dims : int, optional
        2 or 3; all dimensions by default.

    Returns
    -------
    The input's shape and type.
    """
    x = data if array_api_compat.is_array_api_obj(data) else np.asarray(data)
    d = x.ndim if dims is None else dims
    n = x.shape[-1]
    gain = np.ones((n,) * (d - 1) + (n // 2 + 1,))
    if b_factor:
        gain *= b_factor_gain(n, pixel_size, b_factor, d)
    if lowpass is not None:
        gain *= _edge(n, pixel_size, lowpass, width, d)
    if highpass is not None:
        gain *= 1 - _edge(n, pixel_size, highpass, width, d)
    return _filtered(x, gain, d)
