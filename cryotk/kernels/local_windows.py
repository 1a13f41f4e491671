"""Loops over windows of local resolution: parts of a box by parity, power per shell, coefficients around the origin, sums over
points.

A box of ``2 q + 1`` voxels around a point splits into eight parts that are even or odd along each axis. Their transforms are
products of cosines or sines alone, mates under a change of sign need no second look, and different parities do not mix in sums
over signs.
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})


def cut_parts_numpy(maps, z0, y0, x0, window):
    """Numpy twin of :func:`cut_parts`; returns ``out``."""
    q = window.shape[0] // 2
    n_v = maps.shape[0]
    padded = (
        np.pad(maps, ((0, 0), (q, q), (q, q), (q, q)))[:, z0 : z0 + 2 * q + 1, y0 : y0 + 2 * q + 1, x0 : x0 + 2 * q + 1] * window
    )
    out = np.zeros((2, 2, 2, n_v, q + 1, q + 1, q + 1), np.float32)
    for py in range(2):
        for px in range(2):
            for pz in range(2):
                part = padded
                for axis, p in ((1, pz), (2, py), (3, px)):
                    part = np.moveaxis(part, axis, 0)
                    up, down = part[q:], part[q::-1]
                    both = up + down if p == 0 else up - down
                    both[0] = up[0] if p == 0 else 0
                    part = np.moveaxis(both, 0, axis)
                out[py, px, pz] = part.transpose(0, 2, 3, 1)
    return out


@_jit
def cut_parts(maps, z0, y0, x0, window, out):
    """Cut a box around a point from maps, times a window, split by parity; outside of the maps is zero.

    Parameters
    ----------
    maps : (v, n, n, n) float32
    z0, y0, x0 : int
        Index of the point.
    window : (2 q + 1,) * 3 float32
        Even along each axis.
    out : (2, 2, 2, v, q + 1, q + 1, q + 1) float32, OUT
        Parity along y, x, z (0 even); map; distance along y, x, z.
    """
    n_v, n_z, n_y, n_x = maps.shape
    q = window.shape[0] // 2
    for v in range(n_v):
        for ty in range(q + 1):
            for tx in range(q + 1):
                for tz in range(q + 1):
                    w = window[q + tz, q + ty, q + tx]
                    a0 = np.float32(0.0)
                    a1 = np.float32(0.0)
                    a2 = np.float32(0.0)
                    a3 = np.float32(0.0)
                    a4 = np.float32(0.0)
                    a5 = np.float32(0.0)
                    a6 = np.float32(0.0)
                    a7 = np.float32(0.0)
                    if w != 0.0:
                        zp, zm, yp, ym, xp, xm = z0 + tz, z0 - tz, y0 + ty, y0 - ty, x0 + tx, x0 - tx
                        izp, izm, iyp, iym, ixp, ixm = (
                            zp < n_z,
                            zm >= 0 and tz > 0,
                            yp < n_y,
                            ym >= 0 and ty > 0,
                            xp < n_x,
                            xm >= 0 and tx > 0,
                        )
                        if izp and iyp and ixp:
                            a0 = maps[v, zp, yp, xp]
                        if izp and iyp and ixm:
                            a1 = maps[v, zp, yp, xm]
                        if izp and iym and ixp:
                            a2 = maps[v, zp, ym, xp]
                        if izp and iym and ixm:
                            a3 = maps[v, zp, ym, xm]
                        if izm and iyp and ixp:
                            a4 = maps[v, zm, yp, xp]
                        if izm and iyp and ixm:
                            a5 = maps[v, zm, yp, xm]
                        if izm and iym and ixp:
                            a6 = maps[v, zm, ym, xp]
                        if izm and iym and ixm:
                            a7 = maps[v, zm, ym, xm]
                    e0, o0 = a0 + a1, a0 - a1
                    e1, o1 = a2 + a3, a2 - a3
                    e2, o2 = a4 + a5, a4 - a5
                    e3, o3 = a6 + a7, a6 - a7
                    # along y, then z; an odd part is zero on its plane
                    ox = tx > 0
                    oy = ty > 0
                    oz = tz > 0
                    zero = np.float32(0.0)
                    out[0, 0, 0, v, ty, tx, tz] = w * ((e0 + e1) + (e2 + e3))
                    out[0, 0, 1, v, ty, tx, tz] = w * ((e0 + e1) - (e2 + e3)) if oz else zero
                    out[1, 0, 0, v, ty, tx, tz] = w * ((e0 - e1) + (e2 - e3)) if oy else zero
                    out[1, 0, 1, v, ty, tx, tz] = w * ((e0 - e1) - (e2 - e3)) if oy and oz else zero
                    out[0, 1, 0, v, ty, tx, tz] = w * ((o0 + o1) + (o2 + o3)) if ox else zero
                    out[0, 1, 1, v, ty, tx, tz] = w * ((o0 + o1) - (o2 + o3)) if ox and oz else zero
                    out[1, 1, 0, v, ty, tx, tz] = w * ((o0 - o1) + (o2 - o3)) if ox and oy else zero
                    out[1, 1, 1, v, ty, tx, tz] = w * ((o0 - o1) - (o2 - o3)) if ox and oy and oz else zero


@_jit
def _multiply_add(a, b, out, begin):
    # one product at a time: with few arrays the loop is vectorised
    if begin:
        for j in range(len(out)):
            out[j] = a[j] * b[j]
    else:
        for j in range(len(out)):
            out[j] += a[j] * b[j]


def add_products_numpy(values, begin, out):
    """Numpy twin of :func:`add_products`."""
    a, b, c, d = values
    new = np.stack([a * b, a * a, b * b, c * d, c * c, d * d])
    out[...] = new if begin else out + new


@_jit
def add_products(values, begin, out):
    """Add products of two pairs of maps' transforms to ``out``, or begin it.

    Parameters
    ----------
    values : (4, m) float32
        Half 1, half 2, and both with random phases.
    begin : bool
    out : (6, m) float32, IN and OUT
        ``12, 11, 22`` of the first pair, then of the second.
    """
    for pair in range(2):
        a, b = values[2 * pair], values[2 * pair + 1]
        _multiply_add(a, b, out[3 * pair], begin)
        _multiply_add(a, a, out[3 * pair + 1], begin)
        _multiply_add(b, b, out[3 * pair + 2], begin)


@_jit
def products_to_shells(products, y_first, n_x, n, shell_of, out):
    """Add products over an octant to shells, each as often as it stands in the half transform.

    Parameters
    ----------
    products : (6, rows * n_x, k) float32
        Quantity, rows of ky from ``y_first`` on times kx, kz.
    y_first, n_x, n : int
        n is the box.
    shell_of : (m,) int32
        Shell of every ``k^2``.
    out : (n // 2 + 1, 6) float64, IN and OUT
    """
    _, m, n_z = products.shape
    half = n // 2
    even = 2 * half == n
    for i in range(m):
        ky, kx = y_first + i // n_x, i % n_x
        r2 = ky * ky + kx * kx
        wy = 1.0 if ky == 0 or (even and ky == half) else 2.0
        for kz in range(n_z):
            s = shell_of[r2 + kz * kz]
            if s > half:
                break
            w = wy if kz == 0 or (even and kz == half) else 2.0 * wy
            for c in range(6):
                out[s, c] += w * products[c, i, kz]


@_jit
def coefficients_around(f, gain, k_max, turn_z, turn_y, turn_x, out):
    """Coefficients of a half transform times a radial gain, moved to a point, as parts that are even or odd in kz and ky.

    Parameters
    ----------
    f : (n, n, n // 2 + 1) complex64
    gain : (m,) float32
        Over ``k^2``.
    k_max : int
        Nothing beyond.
    turn_z, turn_y, turn_x : (n // 2 + 1,) complex64
        ``exp(2 pi i k x / n)`` of the point.
    out : (2, 2, k_max + 1, k_max + 1, k_max + 1) complex64, OUT
        Parity in kz, ky; kz, ky, kx.
    """
    n = f.shape[0]
    m = k_max + 1
    nyquist = n // 2 if n % 2 == 0 else -1
    zero = np.complex64(0.0)
    for kz in range(m):
        for ky in range(m):
            r2 = kz * kz + ky * ky
            iz, iy = n - kz, n - ky
            pz, py = turn_z[kz], turn_y[ky]
            one_z, one_y = kz == 0 or kz == nyquist, ky == 0 or ky == nyquist
            pp, mp, pm, mm = pz * py, np.conj(pz) * py, pz * np.conj(py), np.conj(pz) * np.conj(py)
            for kx in range(m):
                g = gain[r2 + kx * kx]
                if g == 0.0:
                    out[0, 0, kz, ky, kx] = zero
                    out[1, 0, kz, ky, kx] = zero
                    out[0, 1, kz, ky, kx] = zero
                    out[1, 1, kz, ky, kx] = zero
                    continue
                t = turn_x[kx] * g
                a = f[kz, ky, kx] * pp * t
                b = zero if one_z else f[iz, ky, kx] * mp * t
                c = zero if one_y else f[kz, iy, kx] * pm * t
                d = zero if one_z or one_y else f[iz, iy, kx] * mm * t
                out[0, 0, kz, ky, kx] = (a + b) + (c + d)
                out[1, 0, kz, ky, kx] = (a - b) + (c - d)
                out[0, 1, kz, ky, kx] = (a + b) - (c + d)
                out[1, 1, kz, ky, kx] = (a - b) - (c - d)


@_jit
def join_parts(parts, out):
    """Join parts by parity to values on both sides of a point.

    Parameters
    ----------
    parts : (2, 2, q + 1, q + 1, k) complex64
        Parity in kz, ky; distance along z, y.
    out : (2 q + 1, 2 q + 1, k) complex64, OUT
    """
    _, _, m, _, n_k = parts.shape
    q = m - 1
    i = np.complex64(1j)
    for tz in range(m):
        for ty in range(m):
            for k in range(n_k):
                a, b, c, d = parts[0, 0, tz, ty, k], i * parts[1, 0, tz, ty, k], i * parts[0, 1, tz, ty, k], parts[1, 1, tz, ty, k]
                out[q + tz, q + ty, k] = (a - d) + (b + c)
                out[q - tz, q + ty, k] = (a + d) - (b - c)
                out[q + tz, q - ty, k] = (a + d) + (b - c)
                out[q - tz, q - ty, k] = (a - d) - (b + c)


@_jit
def add_window(values, window, frequency, z0, y0, x0, filtered, frequencies, weights):
    """Add a point's windowed values, frequency and window to the sums.

    Parameters
    ----------
    values, window : (2 q + 1,) * 3 float32
    frequency : float
        1/Å.
    z0, y0, x0 : int
    filtered, frequencies, weights : (n, n, n) float64, IN and OUT
    """
    n_z, n_y, n_x = weights.shape
    side = window.shape[0]
    q = side // 2
    for i in range(max(0, q - z0), min(side, n_z - z0 + q)):
        for j in range(max(0, q - y0), min(side, n_y - y0 + q)):
            for k in range(max(0, q - x0), min(side, n_x - x0 + q)):
                w = np.float64(window[i, j, k])
                z, y, x = z0 + i - q, y0 + j - q, x0 + k - q
                filtered[z, y, x] += w * values[i, j, k]
                frequencies[z, y, x] += w * frequency
                weights[z, y, x] += w
