"""Trilinear samples of a volume at rotated places about its centre ``n // 2``; zero outside of the voxels' centres."""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")
_NEAR = 1e-6


@numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _sample(volume, z, y, x):
    n_z, n_y, n_x = volume.shape
    near = 1e-6
    value = 0.0
    if z >= -near and y >= -near and x >= -near and z <= n_z - 1 + near and y <= n_y - 1 + near and x <= n_x - 1 + near:
        # the last voxel is the upper neighbour of the one before
        iz, iy, ix = max(min(int(z), n_z - 2), 0), max(min(int(y), n_y - 2), 0), max(min(int(x), n_x - 2), 0)
        fz, fy, fx = z - iz, y - iy, x - ix
        jz, jy, jx = min(iz + 1, n_z - 1), min(iy + 1, n_y - 1), min(ix + 1, n_x - 1)
        a = volume[iz, iy, ix] + (volume[iz, iy, jx] - volume[iz, iy, ix]) * fx
        b = volume[iz, jy, ix] + (volume[iz, jy, jx] - volume[iz, jy, ix]) * fx
        c = volume[jz, iy, ix] + (volume[jz, iy, jx] - volume[jz, iy, ix]) * fx
        d = volume[jz, jy, ix] + (volume[jz, jy, jx] - volume[jz, jy, ix]) * fx
        e, f = a + (b - a) * fy, c + (d - c) * fy
        value = e + (f - e) * fz
    return value


@_jit
def mean_over_rotations(volume, rotations, first, last, out):
    """Mean of a volume's values at all rotations of each voxel's place, for planes ``first`` to ``last - 1``.

    Parameters
    ----------
    volume : (z, y, x) float
    rotations : (m, 3, 3) float64
        Act on (x, y, z).
    first, last : int
    out : (z, y, x), OUT
    """
    n_z, n_y, n_x = volume.shape
    cz, cy, cx = n_z // 2, n_y // 2, n_x // 2
    m = rotations.shape[0]
    row = np.empty(n_x)
    for k in range(first, last):
        for j in range(n_y):
            for i in range(n_x):
                row[i] = 0.0
            for g in range(m):
                r = rotations[g]
                # places along the row are a line through the volume
                x, y, z = float(-cx), float(j - cy), float(k - cz)
                px = r[0, 0] * x + r[0, 1] * y + r[0, 2] * z + cx
                py = r[1, 0] * x + r[1, 1] * y + r[1, 2] * z + cy
                pz = r[2, 0] * x + r[2, 1] * y + r[2, 2] * z + cz
                for i in range(n_x):
                    row[i] += _sample(volume, pz + i * r[2, 0], py + i * r[1, 0], px + i * r[0, 0])
            for i in range(n_x):
                out[k, j, i] = row[i] / m


def mean_over_rotations_numpy(volume, rotations, xp=np):
    """Twin of :func:`mean_over_rotations` for whole volumes of any array library; returns ``out``."""
    shape = volume.shape
    centre = [n // 2 for n in shape]
    k, j, i = (
        xp.reshape(xp.arange(n, dtype=xp.float64), tuple(-1 if a == b else 1 for b in range(3))) - n // 2
        for a, n in enumerate(shape)
    )
    flat = xp.reshape(volume, (-1,))
    total = xp.zeros(shape, dtype=xp.float64)
    for r in np.asarray(rotations, float).tolist():
        inside, weight_index = None, []
        for axis in range(3):
            row = r[2 - axis]
            p = row[0] * i + row[1] * j + row[2] * k + centre[axis]
            ok = (p >= -_NEAR) & (p <= shape[axis] - 1 + _NEAR)
            inside = ok if inside is None else inside & ok
            low = xp.clip(xp.floor(p), 0.0, float(max(shape[axis] - 2, 0)))
            weight_index.append(
                (p - low, xp.astype(low, xp.int64), xp.astype(xp.clip(low + 1, 0.0, float(shape[axis] - 1)), xp.int64))
            )
        value = xp.zeros(shape, dtype=xp.float64)
        for corner in range(8):
            weight, index = 1.0, 0
            for axis in range(3):
                f, low, high = weight_index[axis]
                up = corner >> axis & 1
                weight = weight * (f if up else 1 - f)
                index = index * shape[axis] + (high if up else low)
            value = value + weight * xp.reshape(xp.astype(xp.take(flat, xp.reshape(index, (-1,))), xp.float64), shape)
        total = total + xp.where(inside, value, 0.0)
    return total / len(rotations)


@_jit
def asymmetry(volume, orientations, rotations, places, out):
    """How far a volume in each orientation is from its mean over a group, at some places.

    Parameters
    ----------
    volume : (z, y, x) float32
    orientations : (o, 3, 3) float64
        The volume in an orientation has at ``x`` what it has at ``transpose(orientation) x``.
    rotations : (m, 3, 3) float64
    places : (p, 3) float64
        x, y, z from the centre.
    out : (o,) float64, OUT
        Mean of the squared difference over places and rotations.
    """
    n_z, n_y, n_x = volume.shape
    cz, cy, cx = n_z // 2, n_y // 2, n_x // 2
    m = rotations.shape[0]
    for o in range(orientations.shape[0]):
        a = orientations[o]
        total = 0.0
        for p in range(places.shape[0]):
            x, y, z = places[p, 0], places[p, 1], places[p, 2]
            s1, s2 = 0.0, 0.0
            for g in range(m):
                r = rotations[g]
                u = r[0, 0] * x + r[0, 1] * y + r[0, 2] * z
                v = r[1, 0] * x + r[1, 1] * y + r[1, 2] * z
                w = r[2, 0] * x + r[2, 1] * y + r[2, 2] * z
                value = _sample(
                    volume,
                    a[0, 2] * u + a[1, 2] * v + a[2, 2] * w + cz,
                    a[0, 1] * u + a[1, 1] * v + a[2, 1] * w + cy,
                    a[0, 0] * u + a[1, 0] * v + a[2, 0] * w + cx,
                )
                s1 += value
                s2 += value * value
            total += s2 / m - (s1 / m) * (s1 / m)
        out[o] = total / max(1, places.shape[0])
