"""Loops over windows of local resolution: parts of a box by parity, power per shell, coefficients around the origin, sums over
points.

A box of ``2 q + 1`` voxels around a point splits into eight parts that are even or odd along each axis. Their transforms are
products of cosines or sines alone, mates under a change of sign need no second look, and different parities do not mix in sums
over signs. CUDA twins are in ``local_windows_cuda.py``.
"""

from __future__ import annotations

import numba
import numpy as np

_FAST = {"reassoc", "contract", "nsz"}
_jit = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FAST)
# see shift_grid.py
_inline = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FAST, inline="always")


def _box(z0, y0, x0, q, shape):
    """Slices of the box around a point, and of what of it lies inside a volume."""
    target, source = [], []
    for p, n in zip((z0, y0, x0), shape, strict=True):
        low, high = max(0, p - q), min(n, p + q + 1)
        target.append(slice(low, high))
        source.append(slice(low - p + q, high - p + q))
    return tuple(target), tuple(source)


def cut_parts_numpy(maps, z0, y0, x0, window, out):
    """Cut a box around a point from maps, times a window, split by parity; outside of the maps is zero. The plain definition.

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
    q = window.shape[0] // 2
    box = np.zeros((len(maps), *window.shape), np.float32)
    target, source = _box(z0, y0, x0, q, maps.shape[1:])
    box[(slice(None), *source)] = maps[(slice(None), *target)]
    box *= window
    for py, px, pz in np.ndindex(2, 2, 2):
        part = box
        for axis, p in ((1, pz), (2, py), (3, px)):
            part = np.moveaxis(part, axis, 0)
            up, down = part[q:], part[q::-1]
            both = up + down if p == 0 else up - down
            both[0] = up[0] if p == 0 else 0
            part = np.moveaxis(both, 0, axis)
        out[py, px, pz] = part.transpose(0, 2, 3, 1)


@_inline
def _sums_and_differences(a, b, c, d):
    """Of four values by two signs ``++, -+, +-, --``: parts that are even-even, odd-even, even-odd, odd-odd in them."""
    return (a + b) + (c + d), (a - b) + (c - d), (a + b) - (c + d), (a - b) - (c - d)


@_jit
def cut_parts(maps, z0, y0, x0, window, out):
    """Numba twin of :func:`cut_parts_numpy`."""
    n_v, n_z, n_y, n_x = maps.shape
    q = window.shape[0] // 2
    zero = np.float32(0.0)
    for v in range(n_v):
        for ty in range(q + 1):
            yp, ym = y0 + ty, y0 - ty
            in_yp, in_ym = yp < n_y, ym >= 0 and ty > 0
            for tx in range(q + 1):
                xp, xm = x0 + tx, x0 - tx
                in_xp, in_xm = xp < n_x, xm >= 0 and tx > 0
                for tz in range(q + 1):
                    w = window[q + tz, q + ty, q + tx]
                    zp, zm = z0 + tz, z0 - tz
                    in_zp, in_zm = w != 0.0 and zp < n_z, w != 0.0 and zm >= 0 and tz > 0
                    up = _sums_and_differences(
                        maps[v, zp, yp, xp] if in_zp and in_yp and in_xp else zero,
                        maps[v, zm, yp, xp] if in_zm and in_yp and in_xp else zero,
                        maps[v, zp, ym, xp] if in_zp and in_ym and in_xp else zero,
                        maps[v, zm, ym, xp] if in_zm and in_ym and in_xp else zero,
                    )
                    down = _sums_and_differences(
                        maps[v, zp, yp, xm] if in_zp and in_yp and in_xm else zero,
                        maps[v, zm, yp, xm] if in_zm and in_yp and in_xm else zero,
                        maps[v, zp, ym, xm] if in_zp and in_ym and in_xm else zero,
                        maps[v, zm, ym, xm] if in_zm and in_ym and in_xm else zero,
                    )
                    # an odd part is zero on its plane
                    wz, wy = w if tz > 0 else zero, w if ty > 0 else zero
                    wzy = wz if ty > 0 else zero
                    out[0, 0, 0, v, ty, tx, tz] = w * (up[0] + down[0])
                    out[0, 0, 1, v, ty, tx, tz] = wz * (up[1] + down[1])
                    out[1, 0, 0, v, ty, tx, tz] = wy * (up[2] + down[2])
                    out[1, 0, 1, v, ty, tx, tz] = wzy * (up[3] + down[3])
                    if tx == 0:
                        w, wz, wy, wzy = zero, zero, zero, zero
                    out[0, 1, 0, v, ty, tx, tz] = w * (up[0] - down[0])
                    out[0, 1, 1, v, ty, tx, tz] = wz * (up[1] - down[1])
                    out[1, 1, 0, v, ty, tx, tz] = wy * (up[2] - down[2])
                    out[1, 1, 1, v, ty, tx, tz] = wzy * (up[3] - down[3])


@_inline
def _multiply_add(a, b, out, begin):
    # one product at a time: with few arrays the loop is vectorised
    if begin:
        for j in range(len(out)):
            out[j] = a[j] * b[j]
    else:
        for j in range(len(out)):
            out[j] += a[j] * b[j]


def add_products_numpy(values, begin, out):
    """Add products of two pairs of maps' transforms to ``out``, or begin it; the plain definition.

    Parameters
    ----------
    values : (4, m) float32
        Half 1, half 2, and both with random phases.
    begin : bool
    out : (6, m) float32, IN and OUT
        ``12, 11, 22`` of the first pair, then of the second.
    """
    a, b, c, d = values
    new = np.stack([a * b, a * a, b * b, c * d, c * c, d * d])
    out[...] = new if begin else out + new


@_jit
def add_products(values, begin, out):
    """Numba twin of :func:`add_products_numpy`."""
    for pair in range(2):
        a, b = values[2 * pair], values[2 * pair + 1]
        _multiply_add(a, b, out[3 * pair], begin)
        _multiply_add(a, a, out[3 * pair + 1], begin)
        _multiply_add(b, b, out[3 * pair + 2], begin)


def products_to_shells_numpy(products, y_first, n_x, n, shell_of, out):
    """Add products over an octant to shells, each as often as it stands in the half transform; the plain definition.

    Parameters
    ----------
    products : (6, rows * n_x, k) float32
        Quantity, rows of ky from ``y_first`` on times kx, kz.
    y_first, n_x, n : int
        n is the box.
    shell_of : (m,) int32
        Shell of every ``k^2``; grows with it.
    out : (n // 2 + 1, 6) float64, IN and OUT
    """
    _, m, n_z = products.shape
    half = n // 2
    ky, kx, kz = (y_first + np.arange(m) // n_x)[:, None], (np.arange(m) % n_x)[:, None], np.arange(n_z)
    weight = np.ones((m, n_z))
    for k in (ky, kz):
        weight = weight * np.where((k == 0) | (2 * k == n), 1.0, 2.0)
    shell = shell_of[ky * ky + kx * kx + kz * kz]
    use = shell <= half
    for c in range(6):
        out[:, c] += np.bincount(shell[use], (weight * products[c])[use], half + 1)


@_jit
def products_to_shells(products, y_first, n_x, n, shell_of, out):
    """Numba twin of :func:`products_to_shells_numpy`."""
    _, m, n_z = products.shape
    half = n // 2
    for i in range(m):
        ky, kx = y_first + i // n_x, i % n_x
        r2 = ky * ky + kx * kx
        wy = 1.0 if ky == 0 or 2 * ky == n else 2.0
        for kz in range(n_z):
            s = shell_of[r2 + kz * kz]
            if s > half:
                break
            w = wy if kz == 0 or 2 * kz == n else 2.0 * wy
            for c in range(6):
                out[s, c] += w * products[c, i, kz]


def coefficients_around_numpy(f, gain, k_max, turn_z, turn_y, turn_x, out):
    """Coefficients of a half transform times a radial gain, moved to a point, as parts that are even or odd in kz and ky.

    The plain definition.

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
    k = np.arange(k_max + 1)
    k2 = k * k
    t = gain[k2[:, None, None] + k2[:, None] + k2] * turn_x[k]
    alone = (k == 0) | (2 * k == n)
    value = {}
    for sz, sy in np.ndindex(2, 2):
        pz, py = np.conj(turn_z[k]) if sz else turn_z[k], np.conj(turn_y[k]) if sy else turn_y[k]
        v = f[np.ix_(-k % n if sz else k, -k % n if sy else k, k)] * (pz[:, None, None] * py[:, None]) * t
        # what is its own mate counts once
        if sz:
            v[alone] = 0
        if sy:
            v[:, alone] = 0
        value[sz, sy] = v
    for pz, py in np.ndindex(2, 2):
        out[pz, py] = sum((-1) ** (pz * sz + py * sy) * v for (sz, sy), v in value.items())


@_jit
def coefficients_around(f, gain, k_max, turn_z, turn_y, turn_x, out):
    """Numba twin of :func:`coefficients_around_numpy`."""
    n = f.shape[0]
    m = k_max + 1
    zero = np.complex64(0.0)
    for kz in range(m):
        for ky in range(m):
            r2 = kz * kz + ky * ky
            iz, iy = n - kz, n - ky
            pz, py = turn_z[kz], turn_y[ky]
            one_z, one_y = kz == 0 or 2 * kz == n, ky == 0 or 2 * ky == n
            pp, mp, pm, mm = pz * py, np.conj(pz) * py, pz * np.conj(py), np.conj(pz) * np.conj(py)
            for kx in range(m):
                g = gain[r2 + kx * kx]
                a, b, c, d = zero, zero, zero, zero
                if g != 0.0:
                    t = turn_x[kx] * g
                    a = f[kz, ky, kx] * pp * t
                    b = zero if one_z else f[iz, ky, kx] * mp * t
                    c = zero if one_y else f[kz, iy, kx] * pm * t
                    d = zero if one_z or one_y else f[iz, iy, kx] * mm * t
                ee, oe, eo, oo = _sums_and_differences(a, b, c, d)
                out[0, 0, kz, ky, kx] = ee
                out[1, 0, kz, ky, kx] = oe
                out[0, 1, kz, ky, kx] = eo
                out[1, 1, kz, ky, kx] = oo


def join_parts_numpy(parts, out):
    """Join parts by parity to values on both sides of a point; the plain definition.

    Parameters
    ----------
    parts : (2, 2, q + 1, q + 1, k) complex64
        Parity in kz, ky; distance along z, y. An odd part is zero on its plane.
    out : (2 q + 1, 2 q + 1, k) complex64, OUT
    """
    q = parts.shape[2] - 1
    for tz, ty in np.ndindex(2 * q + 1, 2 * q + 1):
        out[tz, ty] = 0
        for pz, py in np.ndindex(2, 2):
            # an odd part stands for i sin
            sign = (1j * np.sign(tz - q)) ** pz * (1j * np.sign(ty - q)) ** py
            out[tz, ty] += sign * parts[pz, py, abs(tz - q), abs(ty - q)]


@_jit
def join_parts(parts, out):
    """Numba twin of :func:`join_parts_numpy`."""
    _, _, m, _, n_k = parts.shape
    q = m - 1
    i = np.complex64(1j)
    for tz in range(m):
        for ty in range(m):
            for k in range(n_k):
                pp, mp, pm, mm = _sums_and_differences(
                    parts[0, 0, tz, ty, k], i * parts[1, 0, tz, ty, k], i * parts[0, 1, tz, ty, k], -parts[1, 1, tz, ty, k]
                )
                out[q + tz, q + ty, k] = pp
                out[q - tz, q + ty, k] = mp
                out[q + tz, q - ty, k] = pm
                out[q - tz, q - ty, k] = mm


def add_window_numpy(values, window, frequency, z0, y0, x0, filtered, frequencies, weights):
    """Add a point's windowed values, frequency and window to the sums; the plain definition.

    Parameters
    ----------
    values, window : (2 q + 1,) * 3 float32
    frequency : float
        1/Å.
    z0, y0, x0 : int
    filtered, frequencies, weights : (n, n, n) float64, IN and OUT
    """
    target, source = _box(z0, y0, x0, window.shape[0] // 2, weights.shape)
    w = window[source].astype(float)
    filtered[target] += w * values[source]
    frequencies[target] += w * frequency
    weights[target] += w


@_jit
def add_window(values, window, frequency, z0, y0, x0, filtered, frequencies, weights):
    """Numba twin of :func:`add_window_numpy`."""
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
