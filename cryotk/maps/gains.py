"""Radial filters as tables over the integer ``k^2``, so that a chain of them is one multiplication per coefficient."""

from __future__ import annotations

import os
from numbers import Real
from typing import Any

import numpy as np

from cryotk.errors import DataError, SettingsError
from cryotk.io import read_star
from cryotk.maps.transform import radii, shells_of_radii
from cryotk.optics import modulation_transfer

__all__ = ["b_factor_gain", "highpass_gain", "lowpass_gain", "mtf_curve", "mtf_gain", "weight_gain"]


def b_factor_gain(n: int, pixel_size: float, b_factor: float) -> np.ndarray:
    """``exp(-B/4 s^2)`` up to Nyquist's radius, 0 beyond; negative B (Å^2) sharpens."""
    r = radii(n)
    return np.where(r <= n / 2, np.exp(-b_factor / 4 * (r / (n * pixel_size)) ** 2), 0.0)


def lowpass_gain(n: int, pixel_size: float, resolution: float, width: float = 2.0) -> np.ndarray:
    """Raised cosine over ``width`` shells around the shell nearest to ``resolution`` Å; a hard edge for widths below 2."""
    if not (isinstance(resolution, Real) and float(resolution) > 0):
        raise SettingsError(f"a low-pass needs a positive resolution in Å, not {resolution!r}")
    centre, half = np.floor(n * pixel_size / resolution + 0.5), np.floor(width / 2)
    low, high = max(0.0, centre - half), centre + half
    r = radii(n)
    if high <= low:
        return (r <= low).astype(float)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((r - low) / (high - low), 0, 1))


def highpass_gain(n: int, pixel_size: float, resolution: float, width: float = 2.0) -> np.ndarray:
    """Complement of :func:`lowpass_gain`."""
    return 1 - lowpass_gain(n, pixel_size, resolution, width)


def weight_gain(n: int, weights: np.ndarray) -> np.ndarray:
    """One value per rounded shell, 0 beyond the last."""
    shell = shells_of_radii(n)
    return np.where(shell < len(weights), np.asarray(weights, float)[np.minimum(shell, len(weights) - 1)], 0.0)


def mtf_curve(mtf: Any) -> tuple[np.ndarray, np.ndarray]:
    """Detector curve from a STAR file, or as a pair of arrays: 1/pixel of the detector, value.

    Raises
    ------
    DataError
        When the file's first table is no MTF, or its values are not positive.
    """
    if not isinstance(mtf, (str, os.PathLike)):
        try:
            x, y = mtf
        except (TypeError, ValueError):
            raise DataError("mtf must be a STAR file, or a pair of arrays: frequency in 1/pixel, value") from None
        x, y = np.asarray(x, float), np.asarray(y, float)
    else:
        blocks = read_star(mtf)
        labels = ("rlnResolutionInversePixel", "rlnMtfValue")
        found = [b for b in blocks.values() if all(label in b for label in labels)]
        if not found:
            have = ", ".join(sorted({k for b in blocks.values() for k in b.columns})) or "nothing"
            raise DataError(
                f"{os.fspath(mtf)} is no MTF file: no table has rlnResolutionInversePixel and rlnMtfValue (found {have}); "
                "detectors' files are on RELION's and the makers' pages"
            )
        x, y = (np.atleast_1d(np.asarray(found[0][label], float)) for label in labels)
        if len(x) < 2:
            raise DataError(f"{os.fspath(mtf)}: an MTF needs two rows at least, found {len(x)}")
    if np.any(~(y > 1e-10)):
        at = int(np.nonzero(~(y > 1e-10))[0][0])
        raise DataError(
            f"{mtf if isinstance(mtf, (str, os.PathLike)) else 'mtf'}: row {at + 1} has the value {y[at]:g}; "
            "a detector's MTF is positive"
        )
    return x, y


def mtf_gain(
    n: int, pixel_size: float, mtf: Any, detector_pixel_size: float | None = None, compat: str | None = None
) -> np.ndarray:
    """Division by a detector's MTF below Nyquist's radius; the corners stay.

    Parameters
    ----------
    n : int
    pixel_size : float, Å
    mtf : path or pair of arrays
    detector_pixel_size : float, Å
        Physical pixel of the detector on the specimen; that of the map by default.
    compat : {None, "relion"}
        ``"relion"`` takes the curve's spacing for (last - first) / rows, not rows - 1, as RELION does.
    """
    x, y = mtf_curve(mtf)
    a = detector_pixel_size or pixel_size
    r = radii(n) / (n * pixel_size)
    inside = radii(n) < n / 2
    if compat == "relion":
        x = x / a
        step = (x[-1] - x[0]) / len(x)
        j = np.floor(r / step).astype(int)
        i = np.clip(j, 0, len(x) - 2)
        value = y[i] + (y[i + 1] - y[i]) * (r - x[i]) / (x[i + 1] - x[i])
        value = np.where(j <= 0, y[0], np.where(j >= len(x) - 1, y[-1], value))
    else:
        value = modulation_transfer(x, y, a, r)
    return np.where(inside, 1 / np.where(inside, value, 1.0), 1.0)
