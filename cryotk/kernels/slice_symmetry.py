"""Point-group symmetry of a padded half transform: each point gains its mates' interpolated values."""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


@_jit
def add_symmetry_mates(data, weight, operators, r_max, out_data, out_weight):
    """Add to ``out`` the values of ``data`` and ``weight`` at every operator's image of each grid point.

    Parameters
    ----------
    data, weight : (Z, Y, X) complex128, float64
        Half transform, see :mod:`cryotk.kernels.slice_extraction`.
    operators : (n, 3, 3) float64
        Without the identity.
    r_max : int
    out_data, out_weight : (Z, Y, X), IN and OUT
    """
    origin = r_max + 1
    n_z, n_y, n_x = data.shape
    for iz in range(n_z):
        for iy in range(n_y):
            for ix in range(n_x):
                x0, y0, z0 = float(ix), float(iy - origin), float(iz - origin)
                if x0 * x0 + y0 * y0 + z0 * z0 > r_max * r_max:
                    continue
                total = np.complex128(0.0)
                total_w = 0.0
                for k in range(operators.shape[0]):
                    m = operators[k]
                    x = m[0, 0] * x0 + m[0, 1] * y0 + m[0, 2] * z0
                    y = m[1, 0] * x0 + m[1, 1] * y0 + m[1, 2] * z0
                    z = m[2, 0] * x0 + m[2, 1] * y0 + m[2, 2] * z0
                    flip = x < 0
                    if flip:
                        x, y, z = -x, -y, -z
                    y += origin
                    z += origin
                    ax, ay, az = int(x), int(y), int(z)
                    fx, fy, fz = x - ax, y - ay, z - az
                    v = np.complex128(0.0)
                    for c in range(2):
                        wz = fz if c else 1.0 - fz
                        for b in range(2):
                            wy = wz * (fy if b else 1.0 - fy)
                            for a in range(2):
                                f = wy * (fx if a else 1.0 - fx)
                                if f != 0.0:
                                    v += f * data[az + c, ay + b, ax + a]
                                    total_w += f * weight[az + c, ay + b, ax + a]
                    total += np.conj(v) if flip else v
                out_data[iz, iy, ix] += total
                out_weight[iz, iy, ix] += total_w
