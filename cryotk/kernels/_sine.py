"""Sine and cosine in plain arithmetic, which loops over many numbers do several at a time."""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["cosine", "sine"]

_jit = numba.njit(nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")

PI, HALF, INVERSE = math.pi, math.pi / 2, 1 / math.pi
# Taylor's series on half a circle around 0; what it leaves out is below 1e-11
C1, C2, C3, C4, C5, C6, C7, C8 = ((-1) ** k / math.factorial(2 * k + 1) for k in range(1, 9))


@_jit
def sine(x):
    """Sine of a float64 in radians, to 1e-11 and the last digits of ``x``."""
    turns = np.floor(x * INVERSE + 0.5)
    r = x - turns * PI
    half = 0.5 * turns
    sign = 1.0 - 4.0 * (half - np.floor(half))
    s = r * r
    return sign * (r * (1.0 + s * (C1 + s * (C2 + s * (C3 + s * (C4 + s * (C5 + s * (C6 + s * (C7 + s * C8)))))))))


@_jit
def cosine(x):
    """Cosine of a float64 in radians, as :func:`sine`."""
    return sine(x + HALF)
