"""Which samples of the coarse grid are worth a closer look: significant samples as ragged lists.

Every image has parents (orientations), every parent offsets.
"""

from __future__ import annotations

import numba
import numpy as np

from cryotk.kernels._emit import WIDE
from cryotk.kernels._score_vectors import any_at_least, half_turn_scores
from cryotk.kernels.significance import (
    CHUNK,
    cut_sets_cuda,
    significance_threshold,
    significance_threshold_numpy,
    weigh_and_cut,
)

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")
# see shift_grid.py
_inline = numba.njit(
    nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy", inline="always"
)


def _lists_numpy(chosen):
    """Parents of each image, their number up to each image, offsets and their number up to each parent, of (orientation, offset) masks."""
    parents = [np.nonzero(c.any(1))[0] for c in chosen]
    rows = [np.nonzero(row)[0] for c in chosen for row in c if row.any()]
    parent_start = np.concatenate([[0], np.cumsum([len(p) for p in parents])]).astype(np.int64)
    offset_start = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    offsets = np.concatenate([np.zeros(0, np.int32), *rows]).astype(np.int32)
    return np.concatenate([np.zeros(0, np.int64), *parents]).astype(np.int64), parent_start, offset_start, offsets


def select_dense_numpy(even, odd, self_term, log_prior_orientation, log_prior_offset, n_psi, halved, block_class, fraction,
                       max_significant):
    """Significant samples of a dense coarse grid for a block of images; the plain definition.

    Parameters
    ----------
    even, odd : (B, T, H) float32
        Cross terms ``Re Y . Re V`` and ``Im Y . Im V`` of the half circle of in-plane angles (``odd`` is unused
        when not ``halved``; then ``even`` holds the whole cross term and H all angles).
    self_term : (B, H) float32
        ``1/2 sum W |V|^2``.
    log_prior_orientation : (R,) float32
        R = orientations in the order (class, direction, psi).
    log_prior_offset : (B, Kt, T) float32
        Kt = 1, or one row per class.
    n_psi : int
        In-plane angles.
    halved : bool
        Whether ``even + odd`` and ``even - odd`` give psi and psi + 180.
    block_class : (R // n_psi,) int32
        Class of each (class, direction).
    fraction : float
    max_significant : int

    Returns
    -------
    count : (B,) int32 ; best : (B,) float32 ; parent_start : (B + 1,) int64 ; parents : (n,) int32 orientation of
    each parent; offset_start : (n + 1,) int64 ; offsets : (m,) int32 offsets of each parent, ascending.
    """
    n_images, n_offsets, _ = even.shape
    n_blocks = len(block_class)
    n_half = even.shape[2] // n_blocks
    t_class = block_class if log_prior_offset.shape[1] > 1 else np.zeros_like(block_class)
    prior = log_prior_offset[:, t_class].transpose(0, 2, 1)[..., None]
    a = (even - self_term[:, None]).reshape(n_images, n_offsets, n_blocks, n_half) + prior
    if halved:
        b = odd.reshape(a.shape)
        a = np.concatenate([a + b, a - b], -1)
    scores = a.reshape(n_images, n_offsets, n_blocks * n_psi) + log_prior_orientation
    cuts = [significance_threshold_numpy(s.ravel(), fraction, max_significant) for s in scores]
    parents, parent_start, offset_start, offsets = _lists_numpy([(s >= c[0]).T for s, c in zip(scores, cuts, strict=True)])
    count, best = np.array([c[1] for c in cuts], np.int32), np.array([c[2] for c in cuts], np.float32)
    return count, best, parent_start, parents.astype(np.int32), offset_start, offsets


def select_ragged_numpy(scores, parent_start, parents, n_offsets, fraction, max_significant):
    """Significant samples where every image has its own list of orientations (local searches); the plain definition.

    Parameters
    ----------
    scores : (sum of orientations * T,) float32
        Scores in the order (image, orientation, offset).
    parent_start : (B + 1,) int64
    parents : (n,) int32
    n_offsets : int
        T, all offsets for each orientation.
    fraction : float
    max_significant : int

    Returns
    -------
    Same as :func:`select_dense_numpy`, and ``source``: the position of each kept parent in ``parents``.
    """
    pieces = [scores[n_offsets * a : n_offsets * b] for a, b in zip(parent_start[:-1], parent_start[1:], strict=True)]
    cuts = [significance_threshold_numpy(s, fraction, max_significant) for s in pieces]
    within, start, offset_start, offsets = _lists_numpy(
        [(s >= c[0]).reshape(-1, n_offsets) for s, c in zip(pieces, cuts, strict=True)]
    )
    source = within + np.repeat(parent_start[:-1], np.diff(start))
    count, best = np.array([c[1] for c in cuts], np.int32), np.array([c[2] for c in cuts], np.float32)
    return count, best, start, parents[source], offset_start, offsets, source


@_jit
def _grown(array, n):
    """The array, or a longer copy that holds n entries."""
    if n <= array.shape[0]:
        return array
    longer = np.empty(max(n, 2 * array.shape[0]), array.dtype)
    longer[: array.shape[0]] = array
    return longer


@_inline
def _coarse_scores(i, even, odd, self_term, log_prior_orientation, log_prior_offset, n_psi, halved, block_class, scores):
    """Scores of one image (T, R) from its cross terms; all flat but the prior of offsets."""
    n_offsets, n_blocks = log_prior_offset.shape[2], block_class.shape[0]
    n_half = np.uint64(self_term.shape[0] // max(log_prior_offset.shape[0] * n_blocks, 1))
    n_columns, n_orient = n_half * np.uint64(n_blocks), np.uint64(n_blocks * n_psi)
    per_class = log_prior_offset.shape[1] > 1
    w = np.uint64(i) * n_columns
    for t in range(n_offsets):
        source, place = np.uint64(i * n_offsets + t) * n_columns, np.uint64(t) * n_orient
        for c in range(n_blocks):
            prior = log_prior_offset[i, block_class[c] if per_class else 0, t]
            column, r = np.uint64(c) * n_half, np.uint64(c * n_psi)
            if halved:
                half_turn_scores(
                    even, source + column, odd, self_term, w + column, prior, log_prior_orientation, r, n_half, scores, place + r
                )
            else:
                for p in range(n_half):
                    scores[place + r + p] = even[source + column + p] - self_term[w + column + p] + prior + log_prior_orientation[r + p]


@_jit
def select_dense(even, odd, self_term, log_prior_orientation, log_prior_offset, n_psi, halved, block_class, fraction,
                 max_significant):
    """Numba twin of :func:`select_dense_numpy`. One image at a time: its scores stay in the cache."""
    n_images, n_offsets, _ = even.shape
    n_orient = block_class.shape[0] * n_psi
    n_scores = n_offsets * n_orient
    scores, weights = np.empty(n_scores, np.float32), np.empty(n_scores, np.float32)
    between, powers = np.empty(2 * n_scores, np.float32), np.empty(CHUNK, np.int32)
    flat_even, flat_odd, flat_self = even.reshape(even.size), odd.reshape(odd.size), self_term.reshape(self_term.size)
    count = np.empty(n_images, np.int32)
    best = np.empty(n_images, np.float32)
    parent_start = np.zeros(n_images + 1, np.int64)
    parents = np.empty(64 * n_images, np.int32)
    offset_start = np.zeros(64 * n_images + 1, np.int64)
    offsets = np.empty(64 * n_images, np.int32)
    n_parents = 0
    n_samples = 0
    # of an orientation: its significant offsets, then where its next offset goes
    place, found = np.empty(n_orient, np.int64), np.empty(n_scores, np.uint32)
    stretch = np.uint64(WIDE)
    whole = np.uint64(n_scores) & ~(stretch - np.uint64(1))
    for i in range(n_images):
        _coarse_scores(
            i, flat_even, flat_odd, flat_self, log_prior_orientation, log_prior_offset, n_psi, halved, block_class, scores
        )
        threshold, number, top, _total = weigh_and_cut(scores, fraction, max_significant, weights, between, powers)
        count[i] = number
        best[i] = top
        n_here = 0
        for first in range(np.uint64(0), np.uint64(n_scores), stretch):
            # most stretches hold none
            if first < whole and not any_at_least(scores, first, threshold):
                continue
            for s in range(first, min(first + stretch, np.uint64(n_scores))):
                if scores[s] >= threshold:
                    found[n_here] = s
                    n_here += 1
        place[:] = 0
        for s in range(n_here):
            place[found[s] % n_orient] += 1
        parents = _grown(parents, n_parents + min(n_here, n_orient))
        offset_start = _grown(offset_start, n_parents + min(n_here, n_orient) + 1)
        offsets = _grown(offsets, n_samples + n_here)
        for r in range(n_orient):
            if place[r] > 0:
                parents[n_parents] = r
                n_parents += 1
                n_samples += place[r]
                offset_start[n_parents] = n_samples
                place[r] = n_samples - place[r]
        # offset after offset, so that each orientation's are ascending
        for s in range(n_here):
            r = found[s] % n_orient
            offsets[place[r]] = found[s] // n_orient
            place[r] += 1
        parent_start[i + 1] = n_parents
    return count, best, parent_start, parents[:n_parents].copy(), offset_start[: n_parents + 1].copy(), offsets[:n_samples].copy()


@_jit
def select_ragged(scores, parent_start, parents, n_offsets, fraction, max_significant):
    """Numba twin of :func:`select_ragged_numpy`."""
    n_images = parent_start.shape[0] - 1
    count = np.empty(n_images, np.int32)
    best = np.empty(n_images, np.float32)
    new_start = np.zeros(n_images + 1, np.int64)
    keep = np.zeros(parents.shape[0], np.int32)
    thresholds = np.empty(n_images, np.float32)
    n_samples = 0
    n_parents = 0
    for i in range(n_images):
        lo, hi = parent_start[i] * n_offsets, parent_start[i + 1] * n_offsets
        threshold, number, top, _total = significance_threshold(scores[lo:hi], fraction, max_significant)
        thresholds[i] = threshold
        count[i] = number
        best[i] = top
        for a in range(parent_start[i], parent_start[i + 1]):
            for t in range(n_offsets):
                if scores[a * n_offsets + t] >= threshold:
                    keep[a] += 1
            n_samples += keep[a]
            if keep[a] > 0:
                n_parents += 1
        new_start[i + 1] = n_parents
    source = np.empty(n_parents, np.int64)
    new_parents = np.empty(n_parents, np.int32)
    offset_start = np.zeros(n_parents + 1, np.int64)
    offsets = np.empty(n_samples, np.int32)
    m = 0
    k = 0
    for i in range(n_images):
        threshold = thresholds[i]
        for a in range(parent_start[i], parent_start[i + 1]):
            if keep[a] > 0:
                source[k] = a
                new_parents[k] = parents[a]
                for t in range(n_offsets):
                    if scores[a * n_offsets + t] >= threshold:
                        offsets[m] = t
                        m += 1
                k += 1
                offset_start[k] = m
    return count, best, new_start, new_parents, offset_start, offsets, source


CUDA_SOURCE = r"""
// One thread per (image, offset, orientation).
extern "C" __global__ void dense_scores(
    const float* __restrict__ even, const float* __restrict__ odd, const float* __restrict__ self_term,
    const float* __restrict__ log_prior_orientation, const float* __restrict__ log_prior_offset, const int* __restrict__ block_class,
    int n_images, int n_offsets, int n_blocks, int n_half, int n_psi, int halved, int n_prior_classes, float* __restrict__ out)
{
    const int n_orient = n_blocks * n_psi, n_columns = n_blocks * n_half;
    const long long total = (long long)n_images * n_offsets * n_orient;
    for (long long x = blockIdx.x * (long long)blockDim.x + threadIdx.x; x < total; x += (long long)gridDim.x * blockDim.x) {
        const int r = (int)(x % n_orient), t = (int)(x / n_orient % n_offsets), c = r / n_psi, p = r % n_psi;
        const long long i = x / n_orient / n_offsets;
        const int column = c * n_half + (p < n_half ? p : p - n_half);
        const long long source = (i * n_offsets + t) * n_columns + column;
        const float prior = log_prior_offset[(i * n_prior_classes + (n_prior_classes > 1 ? block_class[c] : 0)) * n_offsets + t];
        float s = even[source] - self_term[i * n_columns + column] + prior;
        if (halved) s = p < n_half ? s + odd[source] : s - odd[source];
        out[x] = s + log_prior_orientation[r];
    }
}

// Number of offsets that each (image, orientation) keeps.
extern "C" __global__ void count_dense(
    const float* __restrict__ scores, const float* __restrict__ threshold, int n_images, int n_offsets, int n_orient, int* __restrict__ out)
{
    const long long total = (long long)n_images * n_orient;
    for (long long x = blockIdx.x * (long long)blockDim.x + threadIdx.x; x < total; x += (long long)gridDim.x * blockDim.x) {
        const long long i = x / n_orient;
        int n = 0;
        for (int t = 0; t < n_offsets; t++) n += scores[(i * n_offsets + t) * n_orient + x % n_orient] >= threshold[i];
        out[x] = n;
    }
}

extern "C" __global__ void fill_dense(
    const float* __restrict__ scores, const float* __restrict__ threshold, const long long* __restrict__ chosen,
    const long long* __restrict__ offset_start, long long n_parents, int n_offsets, int n_orient, int* __restrict__ offsets)
{
    for (long long a = blockIdx.x * (long long)blockDim.x + threadIdx.x; a < n_parents; a += (long long)gridDim.x * blockDim.x) {
        const long long i = chosen[a] / n_orient;
        long long m = offset_start[a];
        for (int t = 0; t < n_offsets; t++)
            if (scores[(i * n_offsets + t) * n_orient + chosen[a] % n_orient] >= threshold[i]) offsets[m++] = t;
    }
}

extern "C" __global__ void count_ragged(
    const float* __restrict__ scores, const float* __restrict__ threshold, const long long* __restrict__ parent_start, int n_images,
    long long n_parents, int n_offsets, int* __restrict__ out)
{
    for (long long a = blockIdx.x * (long long)blockDim.x + threadIdx.x; a < n_parents; a += (long long)gridDim.x * blockDim.x) {
        const int i = interval_of(parent_start, n_images, a);
        int n = 0;
        for (int t = 0; t < n_offsets; t++) n += scores[a * n_offsets + t] >= threshold[i];
        out[a] = n;
    }
}

extern "C" __global__ void fill_ragged(
    const float* __restrict__ scores, const float* __restrict__ threshold, const long long* __restrict__ parent_start, int n_images,
    const long long* __restrict__ chosen, const long long* __restrict__ offset_start, long long n_parents, int n_offsets,
    int* __restrict__ offsets)
{
    for (long long b = blockIdx.x * (long long)blockDim.x + threadIdx.x; b < n_parents; b += (long long)gridDim.x * blockDim.x) {
        const long long a = chosen[b];
        const int i = interval_of(parent_start, n_images, a);
        long long m = offset_start[b];
        for (int t = 0; t < n_offsets; t++)
            if (scores[a * n_offsets + t] >= threshold[i]) offsets[m++] = t;
    }
}
"""


def _kept(xp, counts):
    """Positions with any sample, and where each one's samples start: (n,), (n + 1,) int64."""
    chosen = xp.flatnonzero(counts)
    offset_start = xp.zeros(len(chosen) + 1, np.int64)
    offset_start[1:] = xp.cumsum(counts[chosen], dtype=np.int64)
    return chosen, offset_start


def select_dense_cuda(gpu, even, odd, self_term, log_prior_orientation, log_prior_offset, n_psi, halved, block_class, fraction,
                      max_significant):
    """CUDA twin of :func:`select_dense_numpy`."""
    xp, i4 = gpu.xp, np.int32
    n_images, n_offsets, n_columns = even.shape
    n_blocks = len(block_class)
    n_orient = n_blocks * n_psi
    scores = xp.empty((n_images, n_offsets, n_orient), np.float32)
    gpu.launch(
        CUDA_SOURCE, "dense_scores", gpu.spread(scores.size), 256, even, odd, self_term, log_prior_orientation, log_prior_offset,
        block_class, i4(n_images), i4(n_offsets), i4(n_blocks), i4(n_columns // n_blocks), i4(n_psi), i4(halved),
        i4(log_prior_offset.shape[1]), scores,
    )  # fmt: skip
    start = xp.arange(n_images + 1) * (n_offsets * n_orient)
    threshold, count, best, _total = cut_sets_cuda(gpu, scores, start, fraction, max_significant)
    counts = xp.empty(n_images * n_orient, np.int32)
    gpu.launch(
        CUDA_SOURCE, "count_dense", gpu.spread(counts.size), 256, scores, threshold, i4(n_images), i4(n_offsets), i4(n_orient), counts
    )
    chosen, offset_start = _kept(xp, counts)
    offsets = xp.empty(int(offset_start[-1]), np.int32)
    gpu.launch(
        CUDA_SOURCE, "fill_dense", gpu.spread(len(chosen)), 256, scores, threshold, chosen, offset_start, np.int64(len(chosen)),
        i4(n_offsets), i4(n_orient), offsets,
    )  # fmt: skip
    parent_start = xp.searchsorted(chosen, xp.arange(n_images + 1) * n_orient)
    return count, best, parent_start, (chosen % n_orient).astype(np.int32), offset_start, offsets


def select_ragged_cuda(gpu, scores, parent_start, parents, n_offsets, fraction, max_significant):
    """CUDA twin of :func:`select_ragged_numpy`."""
    xp, i4, n_images, n_parents = gpu.xp, np.int32, len(parent_start) - 1, len(parents)
    threshold, count, best, _total = cut_sets_cuda(gpu, scores, parent_start * n_offsets, fraction, max_significant)
    counts = xp.empty(n_parents, np.int32)
    gpu.launch(
        CUDA_SOURCE, "count_ragged", gpu.spread(n_parents), 256, scores, threshold, parent_start, i4(n_images), np.int64(n_parents),
        i4(n_offsets), counts,
    )  # fmt: skip
    source, offset_start = _kept(xp, counts)
    offsets = xp.empty(int(offset_start[-1]), np.int32)
    gpu.launch(
        CUDA_SOURCE, "fill_ragged", gpu.spread(len(source)), 256, scores, threshold, parent_start, i4(n_images), source, offset_start,
        np.int64(len(source)), i4(n_offsets), offsets,
    )  # fmt: skip
    return count, best, xp.searchsorted(source, parent_start), parents[source], offset_start, offsets, source
