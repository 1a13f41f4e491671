"""Point-group symmetry of a padded half transform: each point gains its mates' interpolated values."""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


def add_symmetry_mates_numpy(data, weight, operators, r_max, out_data, out_weight, first=0):
    """Add to ``out`` the values of ``data`` and ``weight`` at every operator's image of each grid point; the plain definition.

    Parameters
    ----------
    data, weight : (Z, Y, X) complex128, float64
        Half transform, see :mod:`cryotk.kernels.slice_extraction`.
    operators : (n, 3, 3) float64
        Without the identity.
    r_max : int
    out_data, out_weight : (Z, Y, X), IN and OUT
        All planes, or some from plane ``first`` on.
    first : int
    """
    origin = r_max + 1
    z, y, x = np.indices(out_data.shape)
    points = np.stack([x, y - origin, z + first - origin], -1).reshape(-1, 3).astype(float)
    inside = (points**2).sum(-1) <= r_max**2
    for m in operators:
        p = points[inside] @ np.asarray(m).T
        flip = p[:, 0] < 0
        p = np.where(flip[:, None], -p, p) + (0, origin, origin)
        low = p.astype(int)
        value, w = np.zeros(len(p), complex), np.zeros(len(p))
        for corner in np.ndindex(2, 2, 2):
            f = np.prod(np.where(corner, p - low, 1 - (p - low)), -1)
            # a corner of no weight may lie outside
            at = tuple(np.where(f > 0, low[:, i] + corner[i], 0) for i in (2, 1, 0))
            value += f * data[at]
            w += f * weight[at]
        out_data.reshape(-1)[inside] += np.where(flip, value.conj(), value)
        out_weight.reshape(-1)[inside] += w


@_jit
def add_symmetry_mates(data, weight, operators, r_max, out_data, out_weight, first=0):
    """Numba twin of :func:`add_symmetry_mates_numpy`."""
    origin = r_max + 1
    n_z, n_y, n_x = out_data.shape
    for iz in range(n_z):
        for iy in range(n_y):
            for ix in range(n_x):
                x0, y0, z0 = float(ix), float(iy - origin), float(iz + first - origin)
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


# One thread per grid point.
CUDA_SOURCE = r"""
extern "C" __global__ void add_symmetry_mates(
    const double2* __restrict__ data, const double* __restrict__ weight, int n_z, int n_y, int n_x,
    const double* __restrict__ operators, int n_operators, int r_max, int first,
    double2* out_data, double* out_weight)
{
    const long long total = (long long)n_z * n_y * n_x;
    const int origin = r_max + 1;
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < total; t += (long long)gridDim.x * blockDim.x) {
        const double x0 = (double)(t % n_x), y0 = (double)(t / n_x % n_y) - origin, z0 = (double)(t / n_x / n_y + first) - origin;
        if (x0 * x0 + y0 * y0 + z0 * z0 > (double)r_max * r_max) continue;
        double re = 0.0, im = 0.0, w = 0.0;
        for (int k = 0; k < n_operators; k++) {
            const double* m = operators + 9 * k;
            double x = m[0] * x0 + m[1] * y0 + m[2] * z0;
            double y = m[3] * x0 + m[4] * y0 + m[5] * z0;
            double z = m[6] * x0 + m[7] * y0 + m[8] * z0;
            const double sign = x < 0 ? -1.0 : 1.0;
            x *= sign;
            y = y * sign + origin;
            z = z * sign + origin;
            const int ax = (int)x, ay = (int)y, az = (int)z;
            const double fx = x - ax, fy = y - ay, fz = z - az;
            for (int c = 0; c < 2; c++)
                for (int b = 0; b < 2; b++)
                    for (int a = 0; a < 2; a++) {
                        const double f = (c ? fz : 1.0 - fz) * (b ? fy : 1.0 - fy) * (a ? fx : 1.0 - fx);
                        if (f == 0.0) continue;
                        const long long i = ((long long)(az + c) * n_y + ay + b) * n_x + ax + a;
                        re += f * data[i].x;
                        im += sign * f * data[i].y;
                        w += f * weight[i];
                    }
        }
        out_data[t].x += re;
        out_data[t].y += im;
        out_weight[t] += w;
    }
}
"""


def add_symmetry_mates_cuda(gpu, data, weight, operators, r_max, out_data, out_weight, first=0):
    """CUDA twin of :func:`add_symmetry_mates_numpy`."""
    gpu.launch(
        CUDA_SOURCE, "add_symmetry_mates", gpu.spread(out_data.size), 256, data, weight, *(np.int32(n) for n in out_data.shape),
        operators, np.int32(len(operators)), np.int32(r_max), np.int32(first), out_data, out_weight,
    )  # fmt: skip
