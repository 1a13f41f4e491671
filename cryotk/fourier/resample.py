"""Other pixels or another box: Fourier cropping and padding, cutting and filling in real space."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft

from cryotk.errors import DataError

__all__ = ["resize", "resized_box", "window"]


def resized_box(n: int, pixel_size: float, new_pixel_size: float) -> tuple[int, float]:
    """Even box that comes nearest to a new pixel size, and the pixel size it really has.

    Parameters
    ----------
    n : int
    pixel_size, new_pixel_size : float, Å

    Returns
    -------
    box : int
    pixel_size : float, Å
    """
    m = int(np.floor(n * pixel_size / new_pixel_size + 0.5))
    m -= m % 2
    if m < 2:
        raise DataError(f"a pixel of {new_pixel_size} Å leaves nothing of a box of {n * pixel_size:.1f} Å; use a smaller one")
    return m, n * pixel_size / m


def resize(data: Any, n: int, dims: int | None = None) -> np.ndarray:
    """Change the number of pixels over the same field of view, in Fourier space.

    Densities keep their values; the centre pixel ``box // 2`` stays the centre. Shrinking keeps all frequencies of the
    smaller box, enlarging those within Nyquist's radius of the old one.

    Parameters
    ----------
    data : (..., m, m[, m]) float
    n : int
        New box; both boxes must be even.
    dims : int, optional
        2 or 3; all dimensions by default.

    Returns
    -------
    (..., n, n[, n]) of the input's type (float64 for integers)

    Raises
    ------
    DataError
        For odd boxes or data that are no squares or cubes.
    """
    x = np.asarray(data)
    x = x if x.dtype.kind == "f" else x.astype(float)
    d = x.ndim if dims is None else dims
    m, axes = x.shape[-1], tuple(range(x.ndim - d, x.ndim))
    if len(set(x.shape[-d:])) != 1:
        raise DataError(f"only squares and cubes can be resized, not {x.shape[-d:]}; cut them with window() first")
    if m % 2 or n % 2 or n < 2:
        raise DataError(f"only even boxes can be resized, not {m} to {n} pixels; cut or fill one row with window() first")
    if n == m:
        return x.copy()
    f = scipy.fft.rfftn(x, axes=axes, workers=1)
    small = min(n, m)
    # signed frequencies of the smaller box, its Nyquist row positive
    k = np.concatenate([np.arange(small // 2 + 1), np.arange(-(small // 2) + 1, 0)])
    half = np.arange(small // 2 + 1)
    out = np.zeros((*x.shape[:-d], *[n] * (d - 1), n // 2 + 1), f.dtype)
    target: Any = (..., *np.ix_(*[k % n] * (d - 1), half))
    origin: Any = (..., *np.ix_(*[k % m] * (d - 1), half))
    values = f[origin]
    if n > m:
        r2 = sum(np.meshgrid(*[k.astype(float) ** 2] * (d - 1), half.astype(float) ** 2, indexing="ij", sparse=True))
        values = np.where(r2 <= (m / 2) ** 2, values, 0)
    out[target] = values
    return (scipy.fft.irfftn(out, s=(n,) * d, axes=axes, workers=1) * (n / m) ** d).astype(x.dtype, copy=False)


def window(data: Any, n: int, dims: int | None = None, fill: float = 0.0) -> np.ndarray:
    """Cut or enlarge the box around its centre pixel ``box // 2``; pixels keep their size.

    Parameters
    ----------
    data : (..., m, m[, m]) float
    n : int
        New box.
    dims : int, optional
        2 or 3; all dimensions by default.
    fill : float
        Value of pixels that the old box does not have.

    Returns
    -------
    (..., n, n[, n]) of the input's type
    """
    x = np.asarray(data)
    d = x.ndim if dims is None else dims
    out = np.full((*x.shape[:-d], *[n] * d), fill, x.dtype)
    source: list[Any] = [...]
    target: list[Any] = [...]
    for m in x.shape[-d:]:
        first = n // 2 - m // 2  # where the old box begins in the new one
        low, high = max(first, 0), min(first + m, n)
        source.append(slice(low - first, high - first))
        target.append(slice(low, high))
    out[tuple(target)] = x[tuple(source)]
    return out
