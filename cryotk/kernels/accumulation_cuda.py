"""CUDA twin of :func:`cryotk.kernels.accumulation.accumulate_numpy`: no two threads add to one number, so the bits do not change.

Every output has an owner that gathers: a parent its samples, a particle its parents, a class or direction its parents in
sorted order, a pixel of a slot the parents of that slot, a pixel of an image its particle's parents, a shell its pixels.
"""

from __future__ import annotations

import numpy as np

CUDA_SOURCE = r"""
// (n_parents, 4): sum of weights, of weighted x and y, of weighted squared distances from the class's prior.
extern "C" __global__ void parent_sums(
    const long long* __restrict__ parent_start, const int* __restrict__ parent_class, const long long* __restrict__ offset_start,
    const int* __restrict__ offsets, int n_over, const float* __restrict__ weights, const double* __restrict__ offset_xy,
    const double* __restrict__ old_offset, const double* __restrict__ prior_offset, int n_particles, int n_children,
    long long n_parents, double* __restrict__ out)
{
    __shared__ double room[4][32];
    const int t = threadIdx.x;
    for (long long a = blockIdx.x; a < n_parents; a += gridDim.x) {
        const int i = interval_of(parent_start, n_particles, a), k = parent_class[a];
        const long long first = offset_start[a];
        const int n_rows = (int)(offset_start[a + 1] - first) * n_over;
        double total = 0.0, sum_x = 0.0, sum_y = 0.0, squares = 0.0;
        for (int r = t; r < n_rows; r += 32) {
            double w = 0.0;
            for (int c = 0; c < n_children; c++) w += weights[first * n_children * n_over + (long long)c * n_rows + r];
            if (!(w > 0.0)) continue;
            const long long s = (long long)offsets[first + r / n_over] * n_over + r % n_over;
            const double x = old_offset[2 * i] + offset_xy[2 * s], y = old_offset[2 * i + 1] + offset_xy[2 * s + 1];
            const double dx = x - prior_offset[2 * k], dy = y - prior_offset[2 * k + 1];
            total += w;
            sum_x += w * x;
            sum_y += w * y;
            squares += w * (dx * dx + dy * dy);
        }
        __syncthreads();
        room[0][t] = total;
        room[1][t] = sum_x;
        room[2][t] = sum_y;
        room[3][t] = squares;
        __syncthreads();
        for (int half = 16; half > 0; half /= 2) {
            if (t < half)
                for (int c = 0; c < 4; c++) room[c][t] += room[c][t + half];
            __syncthreads();
        }
        if (t < 4) out[4 * a + t] = room[t][0];
    }
}

// Sums of some columns of (n, 4) over the rows order[start[b]] .. order[start[b + 1]], in that order; row b of out gains them.
extern "C" __global__ void run_sums(
    const double* __restrict__ values, const long long* __restrict__ order, const long long* __restrict__ start,
    long long n_runs, int column, int step, int n_columns, double* out)
{
    __shared__ double room[64];
    for (long long b = blockIdx.x; b < n_runs; b += gridDim.x)
        for (int c = 0; c < n_columns; c++) {
            double total = 0.0;
            for (long long j = start[b] + threadIdx.x; j < start[b + 1]; j += blockDim.x) total += values[4 * order[j] + column + c * step];
            total = block_sum(total, room);
            if (threadIdx.x == 0) out[b * n_columns + c] += total;
        }
}

// One thread per pixel of a slot: all parents that have it, child after child.
extern "C" __global__ void accumulate_rows(
    const float* __restrict__ data, const float* __restrict__ data_weight, const float* __restrict__ ramps,
    const long long* __restrict__ parent_start, const long long* __restrict__ order, const long long* __restrict__ slot_start,
    const long long* __restrict__ offset_start, const int* __restrict__ offsets, int n_over, const float* __restrict__ weights,
    int n_particles, int n_children, int n_pixels, int n_slots, float* rows, float* row_weights)
{
    const int p = blockIdx.y * blockDim.x + threadIdx.x;
    if (p >= n_pixels) return;
    for (int slot = blockIdx.x; slot < n_slots; slot += gridDim.x)
        for (int c = 0; c < n_children; c++) {
            float sum_r = 0.0f, sum_i = 0.0f, sum_w = 0.0f;
            for (long long j = slot_start[slot]; j < slot_start[slot + 1]; j++) {
                const long long a = order[j], first = offset_start[a];
                const int i = interval_of(parent_start, n_particles, a), n_rows = (int)(offset_start[a + 1] - first) * n_over;
                const float* weight = weights + first * n_children * n_over + (long long)c * n_rows;
                float er = 0.0f, ei = 0.0f, total = 0.0f;
                for (int r = 0; r < n_rows; r++) {
                    const float w = weight[r];
                    if (!(w > 0.0f)) continue;
                    const float* e = ramps + 2 * ((long long)offsets[first + r / n_over] * n_over + r % n_over) * n_pixels + p;
                    er += w * e[0];
                    ei += w * e[n_pixels];
                    total += w;
                }
                if (!(total > 0.0f)) continue;
                const float ur = data[2 * (long long)i * n_pixels + p], ui = data[(2 * (long long)i + 1) * n_pixels + p];
                sum_r += ur * er - ui * ei;
                sum_i += ur * ei + ui * er;
                sum_w += total * data_weight[(long long)i * n_pixels + p];
            }
            const long long row = (long long)slot * n_children + c;
            rows[2 * row * n_pixels + p] += sum_r;
            rows[(2 * row + 1) * n_pixels + p] += sum_i;
            row_weights[row * n_pixels + p] += sum_w;
        }
}

// One thread per pixel of a particle. (I, 3, P): residual power, cross and power term where the class has signal.
extern "C" __global__ void accumulate_pixels(
    const float* __restrict__ masked, const float* __restrict__ model_ctf, const long long* __restrict__ image_start,
    const float* __restrict__ slices, const float* __restrict__ ramps, const long long* __restrict__ parent_start,
    const long long* __restrict__ parent_slot, const int* __restrict__ parent_class, const long long* __restrict__ offset_start,
    const int* __restrict__ offsets, int n_over, const float* __restrict__ weights, const int* __restrict__ shells,
    const float* __restrict__ signal_shell, const double* __restrict__ per_image, const double* __restrict__ per_particle,
    int n_particles, int n_children, int n_pixels, int n_shells, double* out)
{
    const int p = blockIdx.y * blockDim.x + threadIdx.x;
    if (p >= n_pixels) return;
    const int shell = shells[p];
    for (int i = blockIdx.x; i < n_particles; i += gridDim.x) {
        for (long long m = image_start[i]; m < image_start[i + 1]; m++) {
            const float xr = masked[2 * m * n_pixels + p], xi = masked[(2 * m + 1) * n_pixels + p];
            out[3 * m * n_pixels + p] = per_particle[2 * i] * (xr * xr + xi * xi);
            out[(3 * m + 1) * n_pixels + p] = 0.0;
            out[(3 * m + 2) * n_pixels + p] = 0.0;
        }
        for (long long a = parent_start[i]; a < parent_start[i + 1];) {
            const int k = parent_class[a];
            float mean_r = 0.0f, mean_i = 0.0f, mean_power = 0.0f;
            for (; a < parent_start[i + 1] && parent_class[a] == k; a++) {
                const long long first = offset_start[a];
                const int n_rows = (int)(offset_start[a + 1] - first) * n_over;
                for (int c = 0; c < n_children; c++) {
                    const float* weight = weights + first * n_children * n_over + (long long)c * n_rows;
                    float er = 0.0f, ei = 0.0f, total = 0.0f;
                    for (int r = 0; r < n_rows; r++) {
                        const float w = weight[r];
                        if (!(w > 0.0f)) continue;
                        const float* e = ramps + 2 * ((long long)offsets[first + r / n_over] * n_over + r % n_over) * n_pixels + p;
                        er += w * e[0];
                        ei += w * e[n_pixels];
                        total += w;
                    }
                    if (!(total > 0.0f)) continue;
                    const float* v = slices + 2 * (parent_slot[a] * n_children + c) * n_pixels + p;
                    const float vr = v[0], vi = v[n_pixels];
                    mean_r += vr * er + vi * ei;
                    mean_i += vi * er - vr * ei;
                    mean_power += total * (vr * vr + vi * vi);
                }
            }
            const bool signal = signal_shell[(long long)k * n_shells + shell] > 0.0f;
            for (long long m = image_start[i]; m < image_start[i + 1]; m++) {
                const float ctf = model_ctf[m * n_pixels + p], scale = (float)per_image[3 * m];
                const float cross = ctf * (masked[2 * m * n_pixels + p] * mean_r + masked[(2 * m + 1) * n_pixels + p] * mean_i);
                const float power = ctf * ctf * mean_power;
                out[3 * m * n_pixels + p] += scale * scale * power - 2.0f * scale * cross;
                if (signal) {
                    out[(3 * m + 1) * n_pixels + p] += cross;
                    out[(3 * m + 2) * n_pixels + p] += power;
                }
            }
        }
    }
}

// One block per image: a thread per shell for the noise, all threads together for the scale sums.
extern "C" __global__ void sum_shells(
    const double* __restrict__ pixels, const int* __restrict__ shells, int n_images, int n_pixels, int n_shells, double* noise,
    double* per_image)
{
    __shared__ double room[128];
    for (long long m = blockIdx.x; m < n_images; m += gridDim.x) {
        const double* residual = pixels + 3 * m * n_pixels;
        for (int s = threadIdx.x; s < n_shells; s += blockDim.x) {
            double total = noise[m * n_shells + s];
            for (int p = 0; p < n_pixels; p++)
                if (shells[p] == s) total += residual[p];
            noise[m * n_shells + s] = total > 0.0 ? total : 0.0;
        }
        for (int c = 1; c < 3; c++) {
            double total = 0.0;
            for (int p = threadIdx.x; p < n_pixels; p += blockDim.x) total += residual[(long long)c * n_pixels + p];
            total = block_sum(total, room);
            if (threadIdx.x == 0) per_image[3 * m + c] += total;
        }
    }
}
"""


def _runs(xp, keys, n):
    """Stable order of ``keys`` (ints below n) and where each key's run starts in it: (len,), (n + 1,) int64."""
    order = xp.argsort(keys)
    return order, xp.searchsorted(keys[order], xp.arange(n + 1))


def accumulate_cuda(gpu, data, data_weight, masked, model_ctf, image_start, slices, ramps, parent_start, parent_slot,
                    parent_class, parent_direction, offset_start, offsets, n_over, weights, shells, signal_shell, offset_xy,
                    old_offset, prior_offset, rows, row_weights, noise, per_image, per_particle, class_sum, class_offset,
                    direction_sum, grid=None):
    """CUDA twin; the arguments are those of :func:`cryotk.kernels.accumulation.accumulate_numpy`."""
    xp, i4, i8 = gpu.xp, np.int32, np.int64
    n_particles, n_parents, n_images = len(data), len(parent_slot), len(masked)
    n_slots, n_children, _, n_pixels = slices.shape
    n_classes, n_directions = direction_sum.shape
    n_shells = noise.shape[1]
    tiles = -(-n_pixels // 128)
    sums = xp.empty((n_parents, 4), np.float64)
    gpu.launch(
        CUDA_SOURCE, "parent_sums", gpu.spread(n_parents, 1), 32, parent_start, parent_class, offset_start, offsets, i4(n_over),
        weights, offset_xy, old_offset, prior_offset, i4(n_particles), i4(n_children), i8(n_parents), sums,
    )  # fmt: skip

    def gather(order, start, column, step, n_columns, out):
        n = len(start) - 1
        gpu.launch(
            CUDA_SOURCE, "run_sums", gpu.spread(n, 1), 64, sums, order, start, i8(n), i4(column), i4(step), i4(n_columns), out
        )

    gather(xp.arange(n_parents), parent_start, 0, 3, 2, per_particle)
    order, start = _runs(xp, parent_class.astype(i8) * n_directions + parent_direction, n_classes * n_directions)
    gather(order, start, 0, 1, 1, direction_sum)
    of_class = xp.ascontiguousarray(start[::n_directions])
    gather(order, of_class, 0, 1, 1, class_sum)
    gather(order, of_class, 1, 1, 2, class_offset)
    order, start = _runs(xp, parent_slot, n_slots)
    gpu.launch(
        CUDA_SOURCE, "accumulate_rows", (gpu.spread(n_slots, 1), tiles), 128, data, data_weight, ramps, parent_start, order, start,
        offset_start, offsets, i4(n_over), weights, i4(n_particles), i4(n_children), i4(n_pixels), i4(n_slots), rows, row_weights,
    )  # fmt: skip
    pixels = xp.empty((n_images, 3, n_pixels), np.float64)
    gpu.launch(
        CUDA_SOURCE, "accumulate_pixels", (gpu.spread(n_particles, 1), tiles), 128, masked, model_ctf, image_start, slices, ramps,
        parent_start, parent_slot, parent_class, offset_start, offsets, i4(n_over), weights, shells, signal_shell, per_image,
        per_particle, i4(n_particles), i4(n_children), i4(n_pixels), i4(signal_shell.shape[1]), pixels,
    )  # fmt: skip
    gpu.launch(
        CUDA_SOURCE, "sum_shells", gpu.spread(n_images, 1), 128, pixels, shells, i4(n_images), i4(n_pixels), i4(n_shells), noise,
        per_image,
    )  # fmt: skip
