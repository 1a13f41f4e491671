"""Sums over shells of half transforms, radial gains, and random phases that depend on nothing but their place.

A half transform is ``(n, n, n // 2 + 1)``, origin at index 0, each stored coefficient counted once. Functions of the radius
are tables over the integer ``k^2``: a whole chain of filters is one look-up.
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


def squared_radius_numpy(n):
    """``k^2`` of every coefficient, int64."""
    k = np.arange(n)
    k = np.where(k <= n // 2, k, k - n) ** 2
    return k[:, None, None] + k[:, None] + np.arange(n // 2 + 1) ** 2


def cross_sums_numpy(a, b, shell_of, first, last):
    """Numpy twin of :func:`cross_sums`; returns ``out``."""
    n = a.shape[1]
    shell = shell_of[squared_radius_numpy(n)][first:last]
    use = shell <= n // 2
    x, y, s = a[first:last][use].astype(complex), b[first:last][use].astype(complex), shell[use]
    return np.stack([np.bincount(s, w, n // 2 + 1) for w in ((x.conj() * y).real, np.abs(x) ** 2, np.abs(y) ** 2)])


@_jit
def cross_sums(a, b, shell_of, first, last, out):
    """Add ``Re(conj(a) b)``, ``|a|^2`` and ``|b|^2`` of some planes to their shells.

    Parameters
    ----------
    a, b : (n, n, n // 2 + 1) complex
    shell_of : (m,) int32
        Shell of every ``k^2``.
    first, last : int
        Planes.
    out : (3, n // 2 + 1) float64, IN and OUT
    """
    n = a.shape[1]
    half = n // 2
    for z in range(first, last):
        kz = z if z <= half else z - n
        for y in range(n):
            ky = y if y <= half else y - n
            r2 = kz * kz + ky * ky
            for x in range(half + 1):
                s = shell_of[r2 + x * x]
                if s > half:
                    break
                p, q = a[z, y, x], b[z, y, x]
                pr, pi, qr, qi = np.float64(p.real), np.float64(p.imag), np.float64(q.real), np.float64(q.imag)
                out[0, s] += pr * qr + pi * qi
                out[1, s] += pr * pr + pi * pi
                out[2, s] += qr * qr + qi * qi


def amplitude_sums_numpy(f, first, last, n_radii):
    """Numpy twin of :func:`amplitude_sums`; returns ``out``."""
    n = f.shape[1]
    r2 = squared_radius_numpy(n)[first:last]
    return np.bincount(r2.ravel(), np.abs(f[first:last]).astype(float).ravel(), n_radii)


@_jit
def amplitude_sums(f, first, last, out):
    """Add ``|f|`` of some planes to a table over ``k^2``.

    Parameters
    ----------
    f : (n, n, n // 2 + 1) complex
    first, last : int
    out : (m,) float64, IN and OUT
    """
    n = f.shape[1]
    half = n // 2
    for z in range(first, last):
        kz = z if z <= half else z - n
        for y in range(n):
            ky = y if y <= half else y - n
            r2 = kz * kz + ky * ky
            for x in range(half + 1):
                p = f[z, y, x]
                out[r2 + x * x] += np.sqrt(np.float64(p.real) * p.real + np.float64(p.imag) * p.imag)


def apply_gain_numpy(f, gain, first, last, out):
    """Numpy twin of :func:`apply_gain`."""
    out[first:last] = f[first:last] * gain[squared_radius_numpy(f.shape[1])[first:last]]


@_jit
def apply_gain(f, gain, first, last, out):
    """Multiply some planes by a table over ``k^2``.

    Parameters
    ----------
    f : (n, n, n // 2 + 1) complex
    gain : (m,) float
    first, last : int
    out : OUT, may be ``f``
    """
    n = f.shape[1]
    half = n // 2
    for z in range(first, last):
        kz = z if z <= half else z - n
        for y in range(n):
            ky = y if y <= half else y - n
            r2 = kz * kz + ky * ky
            for x in range(half + 1):
                out[z, y, x] = f[z, y, x] * gain[r2 + x * x]


@_jit
def _mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def unit_circle(n=4096):
    """Values ``exp(2 pi i j / n)``, complex64: the phases that :func:`randomise_phases` draws from."""
    return np.exp(2j * np.pi * np.arange(n) / n).astype(np.complex64)


@_jit
def randomise_phases(f, from_squared, key, circle, first, last):
    """Give every coefficient of some planes with ``k^2 >= from_squared`` a random phase, keeping its amplitude and the map real.

    Parameters
    ----------
    f : (n, n, n // 2 + 1) complex, IN and OUT
    from_squared : int
    key : uint64
        Phases are a function of it and the place.
    circle : (4096,) complex64
        Of :func:`unit_circle`.
    first, last : int
    """
    n = f.shape[1]
    half = n // 2
    width = half + 1
    for z in range(first, last):
        kz = z if z <= half else z - n
        for y in range(n):
            ky = y if y <= half else y - n
            r2 = kz * kz + ky * ky
            for x in range(width):
                if r2 + x * x < from_squared:
                    continue
                place = (z * n + y) * width + x
                sign = np.float32(1.0)
                if x == 0 or 2 * x == n:  # both of a pair of mates are stored here
                    mate = (((n - z) % n) * n + (n - y) % n) * width + x
                    if mate < place:
                        place = mate
                        sign = np.float32(-1.0)
                    elif mate == place:
                        sign = np.float32(0.0)
                i = np.int64(_mix(_mix(np.uint64(place) + key) + np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(52))
                c = circle[i]
                p = f[z, y, x]
                size = np.sqrt(p.real * p.real + p.imag * p.imag)
                if sign == 0.0:
                    f[z, y, x] = size if i < 2048 else -size
                else:
                    f[z, y, x] = complex(size * c.real, sign * size * c.imag)


def randomise_phases_numpy(f, from_squared, key, circle, xp=np):
    """Twin of :func:`randomise_phases` for whole transforms of any array library; returns a new array."""
    n = f.shape[1]
    width = n // 2 + 1
    i, j = xp.arange(n, dtype=xp.int64), xp.arange(width, dtype=xp.int64)
    k2 = xp.where(i <= n // 2, i, i - n) ** 2
    r2 = k2[:, None, None] + k2[None, :, None] + (j**2)[None, None, :]
    place = (i[:, None, None] * n + i[None, :, None]) * width + j[None, None, :]
    m = (n - i) % n
    mate = (m[:, None, None] * n + m[None, :, None]) * width + j[None, None, :]
    paired = ((j == 0) | (2 * j == n))[None, None, :]
    swapped, alone = paired & (mate < place), paired & (mate == place)

    def word(value):
        return xp.asarray(value, dtype=xp.uint64)

    def mix(x):
        x = (x ^ (x >> word(30))) * word(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> word(27))) * word(0x94D049BB133111EB)
        return x ^ (x >> word(31))

    x = xp.astype(xp.where(swapped, mate, place), xp.uint64) + word(key)
    at = xp.astype(mix(mix(x) + word(0x9E3779B97F4A7C15)) >> word(52), xp.int64)
    c = xp.reshape(xp.take(circle, xp.reshape(at, (-1,))), at.shape)
    c = xp.where(swapped, xp.conj(c), c)
    plus = xp.astype(1 - 2 * xp.astype(at >= 2048, xp.int64), c.dtype)
    c = xp.where(alone, plus, c)
    size = xp.astype(xp.abs(f), f.dtype)
    return xp.where(r2 >= from_squared, size * xp.astype(c, f.dtype), f)
