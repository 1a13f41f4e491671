"""The two loops of the CTF, compiled; apart from the formulae so that who only opens particles does not import numba."""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})


@_jit
def gamma_loop(xx, xy, yy, fourth, even, axx, axy, ayy, constant, k1, k2, out):
    """Phase (n, P) of astigmatic defocus, spherical aberration, constant and even aberrations."""
    for i in range(out.shape[0]):
        a, b, c, d = k1 * axx[i], 2 * k1 * axy[i], k1 * ayy[i], constant[i]
        for p in range(out.shape[1]):
            out[i, p] = a * xx[p] + b * xy[p] + c * yy[p] + k2 * fourth[p] + d + even[p]


@_jit
def ctf_loop(phase, u2, b_factor, scale, intact, flip, out):
    """CTF (n, P) of a phase, with envelope and scale; never exactly 0, since images may be divided by it."""
    half_pi = np.pi / 2
    for i in range(out.shape[0]):
        b, s = -b_factor[i] / 4, scale[i]
        for p in range(out.shape[1]):
            g = phase[i, p]
            v = 1.0 if intact and abs(g) < half_pi else -np.sin(g)
            if b != 0.0:
                v *= np.exp(b * u2[p])
            if flip:
                v = 1.0 if v >= 0 else -1.0
            v *= s
            if abs(v) < 1e-8:
                v = 1e-8 if v >= 0 else -1e-8
            out[i, p] = v
