"""The layout of padded half transforms, and the radii of their points."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

__all__ = ["centre_signs", "crop_half", "half_radius_squared", "half_shape", "paste_half", "sinc_squared"]


def half_shape(r_max: int, dims: int) -> tuple[int, ...]:
    """Shape ``[z, y, x >= 0]`` that holds radius ``r_max`` and one more point for interpolation."""
    return (2 * (r_max + 1) + 1,) * (dims - 1) + (r_max + 2,)


def half_radius_squared(r_max: int, dims: int) -> np.ndarray:
    """Squared radius of every point of a half transform, int64; those of averages are kept."""
    return _radius_squared_2d(r_max) if dims == 2 else _radius_squared(r_max, dims)


@lru_cache(maxsize=8)
def _radius_squared_2d(r_max: int) -> np.ndarray:
    return _radius_squared(r_max, 2)


def _radius_squared(r_max: int, dims: int) -> np.ndarray:
    k = np.arange(-(r_max + 1), r_max + 2) ** 2
    x = np.arange(r_max + 2) ** 2
    out = np.zeros(half_shape(r_max, dims), np.int64)
    for axis in range(dims - 1):
        out += k.reshape([-1 if a == axis else 1 for a in range(dims)])
    out += x
    out.setflags(write=False)
    return out


def centre_signs(r_max: int, dims: int) -> np.ndarray:
    """``(-1)^(kx + ky + kz)`` of every point."""
    k = np.arange(-(r_max + 1), r_max + 2)
    out = np.ones(half_shape(r_max, dims), np.float32)
    for axis in range(dims - 1):
        out *= (1 - 2 * (np.abs(k) % 2)).reshape([-1 if a == axis else 1 for a in range(dims)])
    return out * (1 - 2 * (np.arange(r_max + 2) % 2))


def _index(n: int, r_max: int) -> tuple[np.ndarray, int]:
    """Rows of an FFT of length ``n`` for frequencies -m .. m, and m: as much of r_max + 1 as the FFT has."""
    m = min(r_max + 1, n // 2 - 1 if n % 2 == 0 else n // 2)
    return np.arange(-m, m + 1) % n, m


def crop_half(transform: np.ndarray, r_max: int) -> np.ndarray:
    """Cut the centre out of a half transform in FFT order; frequencies it does not have are 0."""
    dims, n = transform.ndim, transform.shape[0]
    rows, m = _index(n, r_max)
    out = np.zeros(half_shape(r_max, dims), transform.dtype)
    inner = (slice(r_max + 1 - m, r_max + 2 + m),) * (dims - 1) + (slice(0, m + 1),)
    out[inner] = transform[np.ix_(*[rows] * (dims - 1), np.arange(m + 1))]
    nyquist = n // 2
    if n % 2 == 0 and r_max >= nyquist:
        # the Nyquist rows exist once: frequency +n/2 in our order
        x, edge = np.arange(m + 1), np.array([nyquist])
        if dims == 2:
            out[r_max + 1 + nyquist, : m + 1] = transform[nyquist, x]
            out[r_max + 1 - m : r_max + 2 + m, nyquist] = transform[rows, nyquist]
        else:
            c = slice(r_max + 1 - m, r_max + 2 + m)
            out[r_max + 1 + nyquist, c, : m + 1] = transform[np.ix_(edge, rows, x)][0]
            out[c, r_max + 1 + nyquist, : m + 1] = transform[np.ix_(rows, edge, x)][:, 0]
            out[c, c, nyquist] = transform[np.ix_(rows, rows, edge)][..., 0]
        # and their mirror rows
        out[r_max + 1 - nyquist] = out[r_max + 1 + nyquist]
        if dims == 3:
            out[:, r_max + 1 - nyquist] = out[:, r_max + 1 + nyquist]
    return out


def paste_half(half: np.ndarray, r_max: int, n: int) -> np.ndarray:
    """Put a half transform into FFT order of length ``n``; the rest is 0."""
    dims = half.ndim
    out = np.zeros((n,) * (dims - 1) + (n // 2 + 1,), half.dtype)
    rows, m = _index(n, r_max)
    inner = (slice(r_max + 1 - m, r_max + 2 + m),) * (dims - 1) + (slice(0, m + 1),)
    out[np.ix_(*[rows] * (dims - 1), np.arange(m + 1))] = half[inner]
    nyquist = n // 2
    if n % 2 == 0 and r_max >= nyquist:
        x, edge = np.arange(m + 1), np.array([nyquist])
        c = slice(r_max + 1 - m, r_max + 2 + m)
        if dims == 2:
            out[nyquist, x] = half[r_max + 1 + nyquist, : m + 1]
            out[rows, nyquist] = half[c, nyquist]
        else:
            out[np.ix_(edge, rows, x)] = half[r_max + 1 + nyquist, c, : m + 1][None]
            out[np.ix_(rows, edge, x)] = half[c, r_max + 1 + nyquist, : m + 1][:, None]
            out[np.ix_(rows, rows, edge)] = half[c, c, nyquist][..., None]
    return out


def sinc_squared(box: int, padding: float, dims: int, planes: tuple[int, int] | None = None) -> np.ndarray:
    """``sinc^2(r / (box padding))`` in real space: the transform of linear interpolation's kernel.

    Parameters
    ----------
    box, padding, dims : int, float, int
    planes : (int, int), optional
        First and last plane to give; all by default.
    """
    k = (np.arange(box) - box // 2) ** 2
    axes = [k if planes is None else k[slice(*planes)]] + [k] * (dims - 1)
    table = np.sinc(np.sqrt(np.arange(dims * (box // 2) ** 2 + 1)) / (box * padding)) ** 2
    return np.asarray(table[sum(np.meshgrid(*axes, indexing="ij", sparse=True))])
