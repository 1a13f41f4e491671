"""Scores of images against slices over ragged lists of samples: the fine pass.

With ``Y`` the weighted image, ``V`` a slice and ``E_t = exp(-2 pi i k.t)`` the phase ramp of a shift, the log weight of
a sample is ``Re sum conj(Y E_t) V - 1/2 sum W |V|^2 + log prior``. For one image and slice the product
``conj(Y) V`` is formed once, and every shift is one dot product of 2 P numbers with a row of a table that all images
share: a small matrix product for the children of an orientation. Complex arrays are stored split, ``(..., 2, P)`` float32, real part first. Sums are float32.
"""

from __future__ import annotations

import numba
import numpy as np

from cryotk.kernels._ragged import list_priors, list_shifts
from cryotk.kernels._shift_vectors import product_and_power
from cryotk.kernels._tiles import LEAST, TALL, dots_of_one, dots_of_tall, dots_of_two
from cryotk.kernels.shift_grid import LANES, pays, row_width, shift_scores

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")
ALIKE = 8
"""Parents without children, with the same offsets, that are done together."""
# see shift_grid.py
_inline = numba.njit(
    nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy", inline="always"
)


def ragged_scores_numpy(images, self_weights, slices, ramps, parent_start, parent_slot, parent_prior, parent_class,
                        offset_start, offsets, n_over, log_prior_offset, out, grid=None):
    """Log weights of the fine samples of a block of images; the plain definition.

    Parameters
    ----------
    images, self_weights : (B, 2, P), (B, P) float32
        Y and W.
    slices : (n_slots, C, 2, P) float32
        The C children of each parent orientation.
    ramps : (T * Q, 2, P) float32
        ``exp(-2 pi i k.t)`` of the Q = n_over children of each coarse offset.
    parent_start : (B + 1,) int64 ; parent_slot : (n,) int64 ; parent_prior : (n,) float32 ; parent_class : (n,) int32
    offset_start : (n + 1,) int64 ; offsets : (m,) int32
    n_over : int
        Q.
    log_prior_offset : (B, Kt, T) float32
        Kt = 1, or one row per class.
    out : (m * C * Q,) float32, OUT
        In the order (image, parent, child, offset, child offset).
    grid : ShiftGrid, optional
        The same shifts as tables per axis, for the CPU twin's many shifts at once; the others do without.
    """
    y = images[:, 0].astype(complex) + 1j * images[:, 1]
    e = ramps[:, 0].astype(complex) + 1j * ramps[:, 1]
    image_of_parent = np.repeat(np.arange(len(images)), np.diff(parent_start))
    n_children, position = slices.shape[1], 0
    for a, i in enumerate(image_of_parent):
        t = offsets[offset_start[a] : offset_start[a + 1]]
        shifts = (t[:, None] * n_over + np.arange(n_over)).ravel()
        k = parent_class[a] if log_prior_offset.shape[1] > 1 else 0
        prior = parent_prior[a] + np.repeat(log_prior_offset[i, k, t], n_over)
        for c in range(n_children):
            v = slices[parent_slot[a], c, 0] + 1j * slices[parent_slot[a], c, 1].astype(complex)
            cross = (np.conj(y[i] * e[shifts]) * v).real.sum(-1)
            self_term = 0.5 * (self_weights[i] * np.abs(v) ** 2).sum()
            out[position : position + len(shifts)] = cross - self_term + prior
            position += len(shifts)


@_inline
def _many_shifts(i, image, centred, w, own, slices, n_children, begin, end, parent_slot, parent_prior, parent_class, offset_start,
                 offsets, n_over, log_prior_offset, out, grid, room):
    """Scores of one image from tables of all shifts, LANES fine orientations at a time."""
    products, turned, table, self_terms, places, priors = room
    pixels, width = np.uint64(grid.centre.shape[1]), np.uint64(products.shape[1])
    twice = pixels + pixels
    half = np.float32(0.5)
    for p in range(pixels):
        re, im = image[p], image[pixels + p]
        centred[p] = re * grid.centre[0, p] - im * grid.centre[1, p]
        centred[pixels + p] = re * grid.centre[1, p] + im * grid.centre[0, p]
    flat_products, flat_table = products.reshape(products.size), table.reshape(table.size)
    per = LANES // n_children
    for low in range(begin, end, per):
        high = min(end, low + per)
        row = np.uint64(0)
        for a in range(low, high):
            for c in range(n_children):
                v = np.uint64(parent_slot[a] * n_children + c) * twice
                self_terms[row] = half * product_and_power(flat_products, row * width, slices, v, centred, w, own, pixels)
                row += np.uint64(1)
        shift_scores(products, grid, turned, table)
        list_shifts(offset_start, offsets, low, high, n_over, grid.cell, places)
        list_priors(offset_start, offsets, low, high, n_over, log_prior_offset, i, parent_class, priors)
        row, first = np.uint64(0), np.uint64(0)
        for a in range(low, high):
            position = np.uint64(offset_start[a] * n_children * n_over)
            count = np.uint64((offset_start[a + 1] - offset_start[a]) * n_over)
            for _c in range(n_children):
                base = parent_prior[a] - self_terms[row]
                for s in range(count):
                    out[position + s] = flat_table[np.uint64(places[first + s]) + row] + (base + priors[first + s])
                position += count
                row += np.uint64(1)
            first += count


@_inline
def _alike(a, b, offset_start, offsets, parent_class, per_class):
    """Whether two parents have the same offsets, and the same priors of them."""
    n = offset_start[a + 1] - offset_start[a]
    if offset_start[b + 1] - offset_start[b] != n or (per_class and parent_class[a] != parent_class[b]):
        return False
    same = True
    for j in range(n):
        same &= offsets[offset_start[a] + j] == offsets[offset_start[b] + j]
    return same


@_inline
def _in_a_row(offsets, j):
    """Whether four offsets follow each other, and so do their ramps."""
    return offsets[j + 1] == offsets[j] + 1 and offsets[j + 2] == offsets[j] + 2 and offsets[j + 3] == offsets[j] + 3


@_jit
def ragged_scores(images, self_weights, slices, ramps, parent_start, parent_slot, parent_prior, parent_class,
                  offset_start, offsets, n_over, log_prior_offset, out, grid=None):
    """Numba twin of :func:`ragged_scores_numpy`: tiles of children and shifts, or tables of all shifts where most are wanted."""
    n_images, _, n_pixels = images.shape
    n_children = slices.shape[1]
    per_class = log_prior_offset.shape[1] > 1
    pixels, twice = np.uint64(n_pixels), np.uint64(2 * n_pixels)
    most = max(n_children, ALIKE)
    product, base, prior = np.empty(most * 2 * n_pixels, np.float32), np.empty(most, np.float32), np.empty(4, np.float32)
    long_enough, over = 2 * n_pixels >= LEAST, np.uint64(n_over)
    children, tall, four, two = np.uint64(n_children), np.uint64(TALL), np.uint64(4), np.uint64(2)
    flat_slices, flat_ramps = slices.reshape(slices.size), ramps.reshape(ramps.size)
    half, w = np.float32(0.5), self_weights.reshape(self_weights.size)
    if grid is not None:
        width, n_a, n_b = row_width(n_pixels), grid.cos_x.shape[1], grid.cos_y.shape[1]
        n_listed = max(1, LANES // n_children) * grid.cell.shape[0]
        centred = np.empty(2 * n_pixels, np.float32)
        room = (
            np.zeros((LANES, width), np.float32), np.empty((width, LANES), np.float32), np.empty((2, n_b, 2, n_a, LANES), np.float32),
            np.empty(LANES, np.float32), np.empty(n_listed, np.uint32), np.empty(n_listed, np.float32),
        )  # fmt: skip
    for i in range(n_images):
        image, own = images[i].reshape(2 * n_pixels), np.uint64(i) * pixels
        if grid is not None:
            begin, end = parent_start[i], parent_start[i + 1]
            n_chunks = ((end - begin) * n_children + LANES - 1) // LANES
            if pays(n_chunks, n_children, (offset_start[end] - offset_start[begin]) * n_children * n_over):
                _many_shifts(i, image, centred, w, own, flat_slices, n_children, begin, end, parent_slot, parent_prior, parent_class,
                             offset_start, offsets, n_over, log_prior_offset, out, grid, room)
                continue
        a, end = parent_start[i], parent_start[i + 1]
        while a < end:
            first, n_offsets = offset_start[a], offset_start[a + 1] - offset_start[a]
            k = parent_class[a] if per_class else 0
            together = 1
            if n_children == 1:
                # parents with the same offsets are to each other what children are
                while together < ALIKE and a + together < end and _alike(a, a + together, offset_start, offsets, parent_class, per_class):
                    together += 1
            n_rows = np.uint64(together * n_children)
            for r in range(n_rows):
                parent = a + r // children
                v = np.uint64(parent_slot[parent] * n_children + r % children) * twice
                power = product_and_power(product, r * twice, flat_slices, v, image, w, own, pixels)
                base[r] = parent_prior[parent] - half * power
            position, count, s = np.uint64(first * n_children * n_over), np.uint64(n_offsets * n_over), np.uint64(0)
            while s < count:
                j = first + s // over
                ramp = (np.uint64(offsets[j]) * over + s % over) * twice
                if long_enough and s + four <= count and (n_over == 4 or (n_over == 1 and _in_a_row(offsets, j))):
                    for q in range(four):
                        prior[q] = log_prior_offset[i, k, offsets[first + (s + q) // over]]
                    r, o = np.uint64(0), position + s
                    while r + tall <= n_rows:
                        dots_of_tall(out, o + r * count, count, product, r * twice, flat_ramps, ramp, twice, base, r, prior)
                        r += tall
                    while r + two <= n_rows:
                        dots_of_two(out, o + r * count, count, product, r * twice, flat_ramps, ramp, twice, base, r, prior)
                        r += two
                    while r < n_rows:
                        dots_of_one(out, o + r * count, count, product, r * twice, flat_ramps, ramp, twice, base, r, prior)
                        r += np.uint64(1)
                    s += four
                else:
                    for r in range(n_rows):
                        dot = np.float32(0.0)
                        for p in range(twice):
                            # Re(conj(Y) V conj(E)), E stored
                            dot += product[r * twice + p] * flat_ramps[ramp + p]
                        out[position + r * count + s] = dot + (base[r] + log_prior_offset[i, k, offsets[j]])
                    s += np.uint64(1)
            a += together


# One block per parent: a small matrix product of (children) x (shifts) over the 2 P numbers of a slice, tile by tile through
# shared memory. A thread has one shift and a quarter of the numbers, for eight children at once; the quarters are added last. TWO_CHILDREN goes in front where there are no more (2D).
CUDA_SOURCE = r"""
#define ROWS 32
#define QUARTERS 4
#define TILE 64
#ifndef CHILDREN
#define CHILDREN 8
#endif
#define THREADS (ROWS * QUARTERS)

extern "C" __global__ void ragged_scores(
    const float* __restrict__ images, const float* __restrict__ self_weights, const float* __restrict__ slices,
    const float* __restrict__ ramps, const long long* __restrict__ parent_start, const long long* __restrict__ parent_slot,
    const float* __restrict__ parent_prior, const int* __restrict__ parent_class, const long long* __restrict__ offset_start,
    const int* __restrict__ offsets, int n_over, const float* __restrict__ log_prior_offset, float* __restrict__ out,
    int n_images, int n_pixels, int n_children, int n_prior_classes, int n_coarse, long long n_parents)
{
    __shared__ float ramp[2 * TILE][ROWS + 1];
    __shared__ float product[2 * TILE][CHILDREN];
    __shared__ float part[QUARTERS][CHILDREN][ROWS];
    __shared__ float power[CHILDREN][TILE];
    __shared__ float self_term[CHILDREN];
    __shared__ int shift[ROWS];
    const int t = threadIdx.x, row = t % ROWS, quarter = t / ROWS;
    for (long long a = blockIdx.x; a < n_parents; a += gridDim.x) {
        const int i = interval_of(parent_start, n_images, a);
        const long long first = offset_start[a];
        const int n_rows = (int)(offset_start[a + 1] - first) * n_over;
        const float* y = images + 2 * (long long)i * n_pixels;
        const float* w = self_weights + (long long)i * n_pixels;
        const float* prior = log_prior_offset + ((long long)i * n_prior_classes + (n_prior_classes > 1 ? parent_class[a] : 0)) * n_coarse;
        for (int c0 = 0; c0 < n_children; c0 += CHILDREN) {
            const float* v = slices + 2 * (parent_slot[a] * n_children + c0) * n_pixels;
            for (int r0 = 0; r0 < n_rows; r0 += ROWS) {
                const int rows_here = n_rows - r0 < ROWS ? n_rows - r0 : ROWS;
                float sum[CHILDREN], own[CHILDREN * TILE / THREADS];
                for (int c = 0; c < CHILDREN; c++) sum[c] = 0.0f;
                for (int s = 0; s < CHILDREN * TILE / THREADS; s++) own[s] = 0.0f;
                __syncthreads();
                if (t < rows_here) shift[t] = offsets[first + (r0 + t) / n_over] * n_over + (r0 + t) % n_over;
                for (int p0 = 0; p0 < n_pixels; p0 += TILE) {
                    __syncthreads();
                    for (int s = 0; s < CHILDREN * TILE / THREADS; s++) {
                        const int c = (t + s * THREADS) / TILE, q = t % TILE, p = p0 + q;
                        float re = 0.0f, im = 0.0f;
                        if (c0 + c < n_children && p < n_pixels) {
                            const float vr = v[2 * (long long)c * n_pixels + p], vi = v[(2 * (long long)c + 1) * n_pixels + p];
                            const float yr = y[p], yi = y[n_pixels + p];
                            re = vr * yr + vi * yi;
                            im = vi * yr - vr * yi;
                            own[s] += w[p] * (vr * vr + vi * vi);
                        }
                        product[q][c] = re;
                        product[TILE + q][c] = im;
                    }
                    for (int x = t; x < rows_here * 2 * TILE; x += THREADS) {
                        const int r = x / (2 * TILE), k = x % (2 * TILE), p = p0 + k % TILE;
                        ramp[k][r] = p < n_pixels ? ramps[(2 * (long long)shift[r] + k / TILE) * n_pixels + p] : 0.0f;
                    }
                    __syncthreads();
                    if (row < rows_here)
                        for (int k = quarter; k < 2 * TILE; k += QUARTERS)
                            for (int c = 0; c < CHILDREN; c++) sum[c] += ramp[k][row] * product[k][c];
                }
                for (int c = 0; c < CHILDREN; c++) part[quarter][c][row] = sum[c];
                if (r0 == 0)
                    for (int s = 0; s < CHILDREN * TILE / THREADS; s++) power[(t + s * THREADS) / TILE][t % TILE] = own[s];
                __syncthreads();
                if (r0 == 0) {
                    if (t < CHILDREN) {
                        float total = 0.0f;
                        for (int q = 0; q < TILE; q++) total += power[t][q];
                        self_term[t] = 0.5f * total;
                    }
                    __syncthreads();
                }
                for (int x = t; x < ROWS * CHILDREN; x += THREADS) {
                    const int r = x % ROWS, c = x / ROWS;
                    if (r >= rows_here || c0 + c >= n_children) continue;
                    const float cross = (part[0][c][r] + part[1][c][r]) + (part[2][c][r] + part[3][c][r]);
                    const float base = parent_prior[a] - self_term[c];
                    out[first * n_children * n_over + (long long)(c0 + c) * n_rows + r0 + r] = cross + (base + prior[shift[r] / n_over]);
                }
            }
        }
    }
}
"""

TWO_CHILDREN = "#define CHILDREN 2\n"


def ragged_scores_cuda(gpu, images, self_weights, slices, ramps, parent_start, parent_slot, parent_prior, parent_class,
                       offset_start, offsets, n_over, log_prior_offset, out, grid=None):
    """CUDA twin of :func:`ragged_scores_numpy`."""
    n_parents = len(parent_slot)
    source = CUDA_SOURCE if slices.shape[1] > 2 else TWO_CHILDREN + CUDA_SOURCE
    gpu.launch(
        source, "ragged_scores", gpu.spread(n_parents, 1), 128, images, self_weights, slices, ramps, parent_start, parent_slot,
        parent_prior, parent_class, offset_start, offsets, np.int32(n_over), log_prior_offset, out, np.int32(len(images)),
        np.int32(images.shape[2]), np.int32(slices.shape[1]), np.int32(log_prior_offset.shape[1]),
        np.int32(log_prior_offset.shape[2]), np.int64(n_parents),
    )  # fmt: skip
