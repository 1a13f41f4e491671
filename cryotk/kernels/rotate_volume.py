"""Samples of a volume at rotated places about its centre ``n // 2``, by lines or by cubic splines; zero outside of the voxels'
centres.
"""

from __future__ import annotations

import numba
import numpy as np

from cryotk.kernels._cuda import for_types

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")
# see shift_grid.py
_inline = numba.njit(nogil=True, cache=True, error_model="numpy", inline="always")
_NEAR = 1e-6
_POLE = np.sqrt(3.0) - 2.0


@_inline
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


def mean_over_rotations_numpy(volume, rotations, first, last, out):
    """Mean of a volume's values at all rotations of each voxel's place, trilinear, for planes ``first`` to ``last - 1``.

    The plain definition.

    Parameters
    ----------
    volume : (z, y, x) float
    rotations : (m, 3, 3) float64
        Act on (x, y, z).
    first, last : int
    out : (z, y, x), OUT
    """
    out[first:last] = mean_at_rotations(volume, rotations)[first:last]


def mean_at_rotations(volume, rotations, xp=np):
    """Definition of :func:`mean_over_rotations` for whole volumes of any array library; returns float64."""
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
def mean_over_rotations(volume, rotations, first, last, out):
    """Numba twin of :func:`mean_over_rotations_numpy`."""
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


# -- cubic splines ---------------------------------------------------------------------------------------------------


def _head_weights(n):
    """Weights of a line's values in the first state of its filter; beyond its ends the line is mirrored."""
    k = np.arange(n)
    w = _POLE**k
    w[1:-1] += _POLE ** (2 * n - 2 - k[1:-1])
    return w / (1 - _POLE ** (2 * n - 2))


def spline_filter_numpy(lines):
    """Turn values along the middle axis into coefficients of the cubic spline through them, in place; the plain definition.

    Parameters
    ----------
    lines : (outer, n, inner) float, IN and OUT
        Lines of two values or more; beyond their ends they are mirrored.
    """
    from scipy.ndimage import spline_filter1d

    lines[...] = spline_filter1d(lines, axis=1, mode="mirror", output=np.float64)


@_jit
def _filter_lines(lines, head, pole):
    outer, n, inner = lines.shape
    gain = (1.0 - pole) * (1.0 - 1.0 / pole)
    start = np.empty(inner)
    for o in range(outer):
        for i in range(inner):
            start[i] = 0.0
        for k in range(n):
            for i in range(inner):
                start[i] += head[k] * lines[o, k, i]
        for i in range(inner):
            lines[o, 0, i] = gain * start[i]
        for k in range(1, n):
            for i in range(inner):
                lines[o, k, i] = gain * lines[o, k, i] + pole * lines[o, k - 1, i]
        for i in range(inner):
            lines[o, n - 1, i] = pole / (pole * pole - 1.0) * (lines[o, n - 1, i] + pole * lines[o, n - 2, i])
        for k in range(n - 2, -1, -1):
            for i in range(inner):
                lines[o, k, i] = pole * (lines[o, k + 1, i] - lines[o, k, i])


def spline_filter(lines):
    """Numba twin of :func:`spline_filter_numpy`."""
    _filter_lines(lines, _head_weights(lines.shape[1]), _POLE)


def mean_over_rotations_spline_numpy(coefficients, rotations, offset, first, last, out):
    """Mean of a spline's values at ``rotation place + offset``, for planes ``first`` to ``last - 1``; the plain definition.

    Parameters
    ----------
    coefficients : (z, y, x) float
        Of :func:`spline_filter` along each axis.
    rotations : (m, 3, 3) float64
        Act on places (x, y, z) from the centre.
    offset : (3,) float64
        x, y, z.
    first, last : int
    out : (z, y, x), OUT
    """
    from scipy.ndimage import affine_transform

    centre = np.array([n // 2 for n in coefficients.shape], float)
    total = 0.0
    for r in rotations:
        m = r[::-1, ::-1]
        total = total + affine_transform(
            coefficients, m, centre + offset[::-1] - m @ centre, order=3, mode="constant", prefilter=False, output=np.float64
        )
    out[first:last] = (total / len(rotations))[first:last]


@_inline
def _spline_weights(f):
    g = 1.0 - f
    return g * g * g / 6, 2 / 3 - f * f * (1 - f / 2), 2 / 3 - g * g * (1 - g / 2), f * f * f / 6


@_inline
def _mirrored(i, n):
    i = -i if i < 0 else i
    i = 2 * (n - 1) - i if i > n - 1 else i
    return max(i, 0)


@_jit
def mean_over_rotations_spline(coefficients, rotations, offset, first, last, out):
    """Numba twin of :func:`mean_over_rotations_spline_numpy`."""
    n_z, n_y, n_x = coefficients.shape
    cz, cy, cx = n_z // 2, n_y // 2, n_x // 2
    m = rotations.shape[0]
    row = np.empty(n_x)
    for k in range(first, last):
        for j in range(n_y):
            for i in range(n_x):
                row[i] = 0.0
            for g in range(m):
                r = rotations[g]
                y, z = float(j - cy), float(k - cz)
                qx = r[0, 1] * y + r[0, 2] * z + offset[0] + cx
                qy = r[1, 1] * y + r[1, 2] * z + offset[1] + cy
                qz = r[2, 1] * y + r[2, 2] * z + offset[2] + cz
                for i in range(n_x):
                    x = float(i - cx)
                    px, py, pz = qx + r[0, 0] * x, qy + r[1, 0] * x, qz + r[2, 0] * x
                    if px < 0 or py < 0 or pz < 0 or px > n_x - 1 or py > n_y - 1 or pz > n_z - 1:
                        continue
                    iz, iy, ix = int(pz), int(py), int(px)
                    wz, wy, wx = _spline_weights(pz - iz), _spline_weights(py - iy), _spline_weights(px - ix)
                    total = 0.0
                    if 1 <= ix < n_x - 2 and 1 <= iy < n_y - 2 and 1 <= iz < n_z - 2:
                        for c in range(4):
                            plane = 0.0
                            for b in range(4):
                                line = coefficients[iz - 1 + c, iy - 1 + b]
                                plane += wy[b] * (
                                    wx[0] * line[ix - 1] + wx[1] * line[ix] + wx[2] * line[ix + 1] + wx[3] * line[ix + 2]
                                )
                            total += wz[c] * plane
                    else:
                        for c in range(4):
                            for b in range(4):
                                for a in range(4):
                                    total += wz[c] * wy[b] * wx[a] * coefficients[
                                        _mirrored(iz - 1 + c, n_z), _mirrored(iy - 1 + b, n_y), _mirrored(ix - 1 + a, n_x)
                                    ]
                    row[i] += total
            for i in range(n_x):
                out[k, j, i] = row[i] / m


# One thread per voxel, or per line.
_SHARED = r"""
inline __device__ void spline_weights(double f, double* w)
{
    const double g = 1.0 - f;
    w[0] = g * g * g / 6.0;
    w[1] = 2.0 / 3.0 - f * f * (1.0 - f / 2.0);
    w[2] = 2.0 / 3.0 - g * g * (1.0 - g / 2.0);
    w[3] = f * f * f / 6.0;
}

inline __device__ int mirrored(int i, int n)
{
    i = i < 0 ? -i : i;
    i = i > n - 1 ? 2 * (n - 1) - i : i;
    return i < 0 ? 0 : i;
}

inline __device__ int within(double p, int most) { return p < 0 ? 0 : (int)p > most ? most : (int)p; }
"""

_BY_TYPE = r"""
extern "C" __global__ void mean_over_rotations_SUFFIX(
    const REAL* __restrict__ volume, int n_z, int n_y, int n_x, const double* __restrict__ rotations, int m, int first, int last,
    REAL* __restrict__ out)
{
    const long long end = (long long)last * n_y * n_x;
    const double near = 1e-6;
    for (long long t = (long long)first * n_y * n_x + blockIdx.x * (long long)blockDim.x + threadIdx.x; t < end;
         t += (long long)gridDim.x * blockDim.x) {
        const double u = (double)(t % n_x - n_x / 2), v = (double)(t / n_x % n_y - n_y / 2), w = (double)(t / n_x / n_y - n_z / 2);
        double total = 0.0;
        for (int g = 0; g < m; g++) {
            const double* r = rotations + 9 * g;
            const double x = r[0] * u + r[1] * v + r[2] * w + n_x / 2, y = r[3] * u + r[4] * v + r[5] * w + n_y / 2,
                         z = r[6] * u + r[7] * v + r[8] * w + n_z / 2;
            if (!(z >= -near && y >= -near && x >= -near && z <= n_z - 1 + near && y <= n_y - 1 + near && x <= n_x - 1 + near))
                continue;
            const int iz = within(z, n_z > 1 ? n_z - 2 : 0), iy = within(y, n_y > 1 ? n_y - 2 : 0),
                      ix = within(x, n_x > 1 ? n_x - 2 : 0);
            const double fz = z - iz, fy = y - iy, fx = x - ix;
            double plane[2];
            for (int c = 0; c < 2; c++) {
                double line[2];
                for (int b = 0; b < 2; b++) {
                    const int kz = iz + c < n_z ? iz + c : n_z - 1, ky = iy + b < n_y ? iy + b : n_y - 1;
                    const REAL* row = volume + ((long long)kz * n_y + ky) * n_x;
                    const double low = row[ix], high = row[ix + 1 < n_x ? ix + 1 : n_x - 1];
                    line[b] = low + (high - low) * fx;
                }
                plane[c] = line[0] + (line[1] - line[0]) * fy;
            }
            total += plane[0] + (plane[1] - plane[0]) * fz;
        }
        out[t] = (REAL)(total / m);
    }
}

extern "C" __global__ void spline_filter_SUFFIX(
    REAL* lines, long long outer, int n, long long inner, const double* __restrict__ head, double pole)
{
    const double gain = (1.0 - pole) * (1.0 - 1.0 / pole);
    for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < outer * inner; t += (long long)gridDim.x * blockDim.x) {
        REAL* line = lines + t / inner * n * inner + t % inner;
        double state = 0.0;
        for (int k = 0; k < n; k++) state += head[k] * line[k * inner];
        state *= gain;
        line[0] = (REAL)state;
        for (int k = 1; k < n; k++) {
            state = gain * line[k * inner] + pole * state;
            line[k * inner] = (REAL)state;
        }
        state = pole / (pole * pole - 1.0) * (state + pole * line[(n - 2) * inner]);
        line[(n - 1) * inner] = (REAL)state;
        for (int k = n - 2; k >= 0; k--) {
            state = pole * (state - line[k * inner]);
            line[k * inner] = (REAL)state;
        }
    }
}

extern "C" __global__ void mean_over_rotations_spline_SUFFIX(
    const REAL* __restrict__ coefficients, int n_z, int n_y, int n_x, const double* __restrict__ rotations, int m,
    const double* __restrict__ offset, int first, int last, REAL* __restrict__ out)
{
    const long long end = (long long)last * n_y * n_x;
    for (long long t = (long long)first * n_y * n_x + blockIdx.x * (long long)blockDim.x + threadIdx.x; t < end;
         t += (long long)gridDim.x * blockDim.x) {
        const double u = (double)(t % n_x - n_x / 2), v = (double)(t / n_x % n_y - n_y / 2), w = (double)(t / n_x / n_y - n_z / 2);
        double mean = 0.0;
        for (int g = 0; g < m; g++) {
            const double* r = rotations + 9 * g;
            const double x = r[0] * u + (r[1] * v + r[2] * w + offset[0] + n_x / 2),
                         y = r[3] * u + (r[4] * v + r[5] * w + offset[1] + n_y / 2),
                         z = r[6] * u + (r[7] * v + r[8] * w + offset[2] + n_z / 2);
            if (!(x >= 0 && y >= 0 && z >= 0 && x <= n_x - 1 && y <= n_y - 1 && z <= n_z - 1)) continue;
            const int iz = (int)z, iy = (int)y, ix = (int)x;
            double wz[4], wy[4], wx[4], total = 0.0;
            spline_weights(z - iz, wz);
            spline_weights(y - iy, wy);
            spline_weights(x - ix, wx);
            for (int c = 0; c < 4; c++)
                for (int b = 0; b < 4; b++) {
                    const REAL* row = coefficients + ((long long)mirrored(iz - 1 + c, n_z) * n_y + mirrored(iy - 1 + b, n_y)) * n_x;
                    double line = 0.0;
                    for (int a = 0; a < 4; a++) line += wx[a] * row[mirrored(ix - 1 + a, n_x)];
                    total += wz[c] * wy[b] * line;
                }
            mean += total;
        }
        out[t] = (REAL)(mean / m);
    }
}
"""

CUDA_SOURCE = _SHARED + for_types(_BY_TYPE)
_SUFFIX = {"float32": "float", "float64": "double"}


def mean_over_rotations_cuda(gpu, volume, rotations, first, last, out):
    """CUDA twin of :func:`mean_over_rotations_numpy`."""
    n_z, n_y, n_x = volume.shape
    gpu.launch(
        CUDA_SOURCE, f"mean_over_rotations_{_SUFFIX[volume.dtype.name]}", gpu.spread((last - first) * n_y * n_x), 256, volume,
        np.int32(n_z), np.int32(n_y), np.int32(n_x), rotations, np.int32(len(rotations)), np.int32(first), np.int32(last), out,
    )  # fmt: skip


def spline_filter_cuda(gpu, lines):
    """CUDA twin of :func:`spline_filter_numpy`."""
    outer, n, inner = lines.shape
    head = gpu.xp.asarray(_head_weights(n))
    gpu.launch(
        CUDA_SOURCE, f"spline_filter_{_SUFFIX[lines.dtype.name]}", gpu.spread(outer * inner, 64), 64, lines, np.int64(outer),
        np.int32(n), np.int64(inner), head, np.float64(_POLE),
    )  # fmt: skip


def mean_over_rotations_spline_cuda(gpu, coefficients, rotations, offset, first, last, out):
    """CUDA twin of :func:`mean_over_rotations_spline_numpy`."""
    n_z, n_y, n_x = coefficients.shape
    gpu.launch(
        CUDA_SOURCE, f"mean_over_rotations_spline_{_SUFFIX[coefficients.dtype.name]}", gpu.spread((last - first) * n_y * n_x), 256,
        coefficients, np.int32(n_z), np.int32(n_y), np.int32(n_x), rotations, np.int32(len(rotations)), offset, np.int32(first),
        np.int32(last), out,
    )  # fmt: skip
