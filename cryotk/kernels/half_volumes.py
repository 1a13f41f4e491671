"""Passes over the points of a padded half transform by their radius: power, weights and ratios of the maximisation.

All take some planes ``[z, y, x >= 0]`` (one for an average) and the frequency ``z0`` of the first; squared radii are whole numbers, so that what depends
on the radius is a short table with one entry per square up to ``r_max**2``, and a last one for all points beyond.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["divide_by_weight", "power_in_shells", "weight_statistics"]

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


@_jit
def power_in_shells(planes, z0, r_max, bin_of, total, count):
    """Add ``|F|^2`` and the number of points per bin.

    Parameters
    ----------
    planes : (n, Y, X) complex64
    z0, r_max : int
    bin_of : (r_max**2 + 2,) int64
    total, count : (S,) float64, IN and OUT
    """
    last = r_max * r_max + 1
    for i in range(planes.shape[0]):
        for y in range(planes.shape[1]):
            yz = (z0 + i) * (z0 + i) + (y - r_max - 1) * (y - r_max - 1)
            for x in range(planes.shape[2]):
                b = bin_of[min(yz + x * x, last)]
                v = planes[i, y, x]
                re, im = np.float64(v.real), np.float64(v.imag)
                total[b] += re * re + im * im
                count[b] += 1.0


@_jit
def _regularised(inverse, weight, floor):
    return inverse if inverse >= 0.0 else 1.0 / max(floor * weight, 1e-300)


@_jit
def weight_statistics(weight, z0, r_max, bin_of, inverse_of, ctf2_of, floor, sums):
    """Add per bin: points, weights, weight over inverse prior, points whose weight is at least that, weight plus inverse prior.

    Parameters
    ----------
    weight : (n, Y, X) float64
    z0, r_max : int
    bin_of, inverse_of : (r_max**2 + 2,) int64, float64
        The inverse prior is negative where there is none: then one that the data outweigh by ``1 / floor``.
    ctf2_of : (r_max**2 + 2,) float64
        Divides the inverse prior.
    floor : float
    sums : (5, S) float64, IN and OUT
    """
    last = r_max * r_max + 1
    for i in range(weight.shape[0]):
        for y in range(weight.shape[1]):
            yz = (z0 + i) * (z0 + i) + (y - r_max - 1) * (y - r_max - 1)
            for x in range(weight.shape[2]):
                k = min(yz + x * x, last)
                b, w = bin_of[k], weight[i, y, x]
                inverse = _regularised(inverse_of[k], w, floor) / ctf2_of[k]
                sums[0, b] += 1.0
                sums[1, b] += w
                sums[2, b] += w / inverse
                if w >= inverse:
                    sums[3, b] += 1.0
                sums[4, b] += w + inverse


@_jit
def divide_by_weight(data, weight, z0, r_max, inverse_of, floor_of, floor, out):
    """Data over regularised weight, at least ``floor_of`` its radius; 0 beyond ``r_max`` and where nothing was seen.

    Parameters
    ----------
    data, weight : (n, Y, X) complex128, float64
    z0, r_max : int
    inverse_of, floor_of : (r_max**2 + 2,) float64
    floor : float
        See :func:`weight_statistics`.
    out : (n, Y, X) complex128, OUT
    """
    last = r_max * r_max + 1
    for i in range(weight.shape[0]):
        for y in range(weight.shape[1]):
            yz = (z0 + i) * (z0 + i) + (y - r_max - 1) * (y - r_max - 1)
            for x in range(weight.shape[2]):
                k = min(yz + x * x, last)
                w = weight[i, y, x]
                den = max(w + _regularised(inverse_of[k], w, floor), floor_of[k])
                if k == last or not den > 0.0:
                    out[i, y, x] = 0.0
                else:
                    scale = 1.0 / den
                    out[i, y, x] = complex(data[i, y, x].real * scale, data[i, y, x].imag * scale)
