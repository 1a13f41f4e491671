"""Squared distance of every voxel to the nearest voxel of a set, exact up to a cap, one axis after the other.

Only a band around the set matters for masks, so each axis looks ``cap`` voxels to both sides, whole rows at a time. Distances are
integers: to the nearest voxel of the set that is at most ``cap`` away along each axis, ``far`` where there is none.
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=True)
# see shift_grid.py
_inline = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=True, inline="always")


def integer_type(cap):
    """Smallest integer type that holds the distances of a cap, and its value for "far"."""
    return (np.uint16, 40_000) if cap <= 100 else (np.int32, 1_000_000_000)


def squared_distance(inside, cap, xp=np):
    """Definition of the two kernels together, for whole volumes of any array library.

    Parameters
    ----------
    inside : (z, y, x) bool
    cap : int

    Returns
    -------
    (z, y, x) int32
    """
    far = integer_type(cap)[1]
    out = xp.where(inside, xp.asarray(0, dtype=xp.int32), xp.asarray(far, dtype=xp.int32))
    for axis in (2, 1, 0):
        out = _nearest_along(out, axis, cap, far, xp)
    return out


def _nearest_along(source, axis, cap, far, xp=np):
    """``min_j source[j] + (i - j)^2`` over the neighbours along one axis, ``far`` at most."""
    n = source.shape[axis]
    best = source + 0
    for d in range(1, min(cap, n - 1) + 1):
        low = tuple(slice(None, n - d) if i == axis else slice(None) for i in range(3))
        high = tuple(slice(d, None) if i == axis else slice(None) for i in range(3))
        for target, origin in ((low, high), (high, low)):
            candidate, now = source[origin] + d * d, best[target]
            best[target] = xp.where(candidate < now, candidate, now)
    return xp.where(best > far, xp.asarray(far, dtype=best.dtype), best)


def distance_in_planes_numpy(inside, cap, far, first, last, out):
    """Squared distances within planes ``first`` to ``last - 1``; the plain definition.

    Parameters
    ----------
    inside : (z, y, x) uint8
    cap, far : int
    first, last : int
    out : (z, y, x) uint16 or int32, OUT
    """
    flat = np.where(inside[first:last] != 0, 0, far)
    out[first:last] = _nearest_along(_nearest_along(flat, 2, cap, far), 1, cap, far)


def distance_across_planes_numpy(distance, cap, far, first, last):
    """Finish squared distances along z, for rows ``first`` to ``last - 1`` of every plane, in place; the plain definition.

    Parameters
    ----------
    distance : (z, y, x) uint16 or int32, IN and OUT
        Of :func:`distance_in_planes`.
    """
    distance[:, first:last] = _nearest_along(distance[:, first:last].astype(np.int64), 0, cap, far)


def look_up_numpy(distance, table, first, last, out):
    """``out = table[min(distance, len(table) - 1)]`` for some planes; the plain definition.

    Parameters
    ----------
    distance : (z, y, x) uint16 or int32
    table : (m,) uint8 or float32
    out : (z, y, x), OUT
    """
    out[first:last] = table[np.minimum(distance[first:last], len(table) - 1)]


@_inline
def _nearest_in_rows(source, squares, cap, used, out):
    """Lower envelope over neighbouring rows: ``out[i] = min_j source[j] + (i - j)^2``."""
    n, width = source.shape
    for i in range(n):
        for x in range(width):
            out[i, x] = source[i, x]
        for d in range(1, cap + 1):
            for side in range(2):
                j = i - d if side == 0 else i + d
                if j < 0 or j >= n or not used[j]:
                    continue
                square = squares[d]
                for x in range(width):
                    v = source[j, x] + square
                    if v < out[i, x]:
                        out[i, x] = v


@_jit
def distance_in_planes(inside, cap, far, first, last, out):
    """Numba twin of :func:`distance_in_planes_numpy`."""
    _, n_y, n_x = inside.shape
    plane = np.empty((n_y, n_x), out.dtype)
    used = np.zeros(n_y, np.bool_)
    squares = np.zeros(cap + 1, out.dtype)
    for d in range(cap + 1):
        squares[d] = d * d
    for z in range(first, last):
        for y in range(n_y):
            any_inside = False
            for x in range(n_x):
                any_inside |= inside[z, y, x] != 0
            used[y] = any_inside
            if not any_inside:
                for x in range(n_x):
                    plane[y, x] = far
                continue
            d = cap + 1
            for x in range(n_x):
                d = 0 if inside[z, y, x] else d + 1
                plane[y, x] = d * d if d <= cap else far
            d = cap + 1
            for x in range(n_x - 1, -1, -1):
                d = 0 if inside[z, y, x] else d + 1
                if d <= cap and d * d < plane[y, x]:
                    plane[y, x] = d * d
        _nearest_in_rows(plane, squares, cap, used, out[z])


@_jit
def distance_across_planes(distance, cap, far, first, last):
    """Numba twin of :func:`distance_across_planes_numpy`."""
    n_z, _, n_x = distance.shape
    source = np.empty((n_z, n_x), distance.dtype)
    out = np.empty((n_z, n_x), distance.dtype)
    used = np.zeros(n_z, np.bool_)
    squares = np.zeros(cap + 1, distance.dtype)
    for d in range(cap + 1):
        squares[d] = d * d
    for y in range(first, last):
        for z in range(n_z):
            near = False
            for x in range(n_x):
                source[z, x] = distance[z, y, x]
                near |= source[z, x] < far
            used[z] = near
        _nearest_in_rows(source, squares, cap, used, out)
        for z in range(n_z):
            for x in range(n_x):
                distance[z, y, x] = out[z, x]


@_jit
def look_up(distance, table, first, last, out):
    """Numba twin of :func:`look_up_numpy`."""
    top = len(table) - 1
    _, n_y, n_x = distance.shape
    for z in range(first, last):
        for y in range(n_y):
            for x in range(n_x):
                d = distance[z, y, x]
                out[z, y, x] = table[d if d < top else top]

# One thread per voxel: it looks to both sides until nothing nearer can come.
_BY_KIND = r"""
extern "C" __global__ void nearest_in_row_SUFFIX(
    const unsigned char* __restrict__ inside, int cap, int far, long long begin, long long end, int n_x, KIND* __restrict__ out)
{
    for (long long t = begin + blockIdx.x * (long long)blockDim.x + threadIdx.x; t < end; t += (long long)gridDim.x * blockDim.x) {
        const int x = (int)(t % n_x);
        int best = inside[t] ? 0 : far;
        for (int d = 1; d <= cap && d * d < best; d++)
            if ((x >= d && inside[t - d]) || (x + d < n_x && inside[t + d])) best = d * d;
        out[t] = (KIND)best;
    }
}

// Along an axis of n elements that are stride apart; voxels are taken in an order in which neighbouring threads are
// neighbours in memory: outer_stride apart in steps of inner.
extern "C" __global__ void nearest_along_SUFFIX(
    const KIND* __restrict__ source, int cap, int n, long long stride, long long begin, long long count, long long inner,
    long long outer_stride, KIND* __restrict__ out)
{
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < count; i += (long long)gridDim.x * blockDim.x) {
        const long long t = begin + i / inner * outer_stride + i % inner;
        const int at = (int)(t / stride % n);
        int best = source[t];
        for (int d = 1; d <= cap && d * d < best; d++) {
            if (at >= d) {
                const int v = source[t - d * stride] + d * d;
                if (v < best) best = v;
            }
            if (at + d < n) {
                const int v = source[t + d * stride] + d * d;
                if (v < best) best = v;
            }
        }
        out[t] = (KIND)best;
    }
}

extern "C" __global__ void look_up_float_SUFFIX(
    const KIND* __restrict__ distance, const float* __restrict__ table, int top, long long begin, long long end,
    float* __restrict__ out)
{
    for (long long t = begin + blockIdx.x * (long long)blockDim.x + threadIdx.x; t < end; t += (long long)gridDim.x * blockDim.x)
        out[t] = table[distance[t] < top ? distance[t] : top];
}

extern "C" __global__ void look_up_byte_SUFFIX(
    const KIND* __restrict__ distance, const unsigned char* __restrict__ table, int top, long long begin, long long end,
    unsigned char* __restrict__ out)
{
    for (long long t = begin + blockIdx.x * (long long)blockDim.x + threadIdx.x; t < end; t += (long long)gridDim.x * blockDim.x)
        out[t] = table[distance[t] < top ? distance[t] : top];
}
"""
_KINDS = {"uint16": "unsigned short", "int32": "int"}

CUDA_SOURCE = "".join(_BY_KIND.replace("SUFFIX", name).replace("KIND", kind) for name, kind in _KINDS.items())


def distance_in_planes_cuda(gpu, inside, cap, far, first, last, out):
    """CUDA twin of :func:`distance_in_planes_numpy`."""
    _, n_y, n_x = inside.shape
    kind, plane = out.dtype.name, n_y * n_x
    begin, end = np.int64(first * plane), np.int64(last * plane)
    rows = gpu.xp.empty_like(out)
    grid = gpu.spread(int(end - begin))
    gpu.launch(
        CUDA_SOURCE, f"nearest_in_row_{kind}", grid, 256, inside, np.int32(cap), np.int32(far), begin, end, np.int32(n_x), rows
    )
    gpu.launch(
        CUDA_SOURCE, f"nearest_along_{kind}", grid, 256, rows, np.int32(cap), np.int32(n_y), np.int64(n_x), begin, end - begin,
        np.int64(max(1, int(end - begin))), np.int64(0), out,
    )  # fmt: skip


def distance_across_planes_cuda(gpu, distance, cap, far, first, last):
    """CUDA twin of :func:`distance_across_planes_numpy`."""
    n_z, n_y, n_x = distance.shape
    inner, count = (last - first) * n_x, (last - first) * n_x * n_z
    gpu.launch(
        CUDA_SOURCE, f"nearest_along_{distance.dtype.name}", gpu.spread(count), 256, distance.copy(), np.int32(cap), np.int32(n_z),
        np.int64(n_y * n_x), np.int64(first * n_x), np.int64(count), np.int64(max(1, inner)), np.int64(n_y * n_x), distance,
    )  # fmt: skip


def look_up_cuda(gpu, distance, table, first, last, out):
    """CUDA twin of :func:`look_up_numpy`."""
    plane = distance.shape[1] * distance.shape[2]
    name = f"look_up_{'byte' if table.dtype.name == 'uint8' else 'float'}_{distance.dtype.name}"
    begin, end = np.int64(first * plane), np.int64(last * plane)
    gpu.launch(CUDA_SOURCE, name, gpu.spread(int(end - begin)), 256, distance, table, np.int32(len(table) - 1), begin, end, out)
