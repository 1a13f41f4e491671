"""Modulation transfer function of a detector."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cryotk.errors import DataError

__all__ = ["modulation_transfer"]


def modulation_transfer(
    inverse_pixel: ArrayLike, value: ArrayLike, original_pixel_size: float, frequencies: np.ndarray
) -> np.ndarray:
    """Interpolate a detector's curve at the frequencies of an image.

    Parameters
    ----------
    inverse_pixel : (m,) float
        Abscissa in 1/pixel of the detector (``rlnResolutionInversePixel``), ascending; 0.5 is its Nyquist frequency.
    value : (m,) float
        ``rlnMtfValue``.
    original_pixel_size : float, Å
        Pixel of the micrograph (``rlnMicrographOriginalPixelSize``): images may be scaled since.
    frequencies : (P, 2) or (P,) float
        x, y or radius, 1/Å.

    Returns
    -------
    (P,) float64
        The last value beyond the curve's end.

    Raises
    ------
    DataError
        For a curve that is empty or not ascending, or values that are not positive.
    """
    x, y = np.asarray(inverse_pixel, float), np.asarray(value, float)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise DataError(f"an MTF needs as many values as frequencies, one at least; found {x.shape} and {y.shape}")
    if np.any(np.diff(x) <= 0):
        at = int(np.nonzero(np.diff(x) <= 0)[0][0]) + 2
        raise DataError(f"the frequencies of an MTF must ascend; row {at} ({x[at - 1]}) does not")
    if not np.all(y > 0):
        at = int(np.nonzero(~(y > 0))[0][0]) + 1
        raise DataError(f"the values of an MTF must be positive; row {at} is {y[at - 1]}")
    f = np.asarray(frequencies, float)
    radius = np.hypot(f[:, 0], f[:, 1]) if f.ndim == 2 else np.abs(f)
    return np.interp(radius * original_pixel_size, x, y)
