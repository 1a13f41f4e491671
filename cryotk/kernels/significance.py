"""Where the significant samples of a set of scores end.

A sample is significant when it belongs to the smallest set of largest weights whose sum exceeds a fraction
(0.999) of the total. Sorting every score would cost more than computing it. Most weights are either larger than all
that may be left out, or so small that all of them together are less; the others are binned by score, and only the bin
in which the cut falls is sorted: the result is exact.
"""

from __future__ import annotations

import numba
import numpy as np

from cryotk.kernels._emit import WIDE
from cryotk.kernels._score_vectors import above, any_at_least, largest

SCORE_RANGE = 32.0
"""Samples this far below the best (in log weight) cannot change a 0.999 cut of fewer than 1e10 samples."""
N_BINS = 2048

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")
# see shift_grid.py
_inline = numba.njit(
    nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy", inline="always"
)


def significance_threshold_numpy(scores: np.ndarray, fraction: float, max_significant: int = 0) -> tuple[float, int, float, float]:
    """Return ``(threshold, count, best, total)`` of a set of log weights; the plain definition.

    Parameters
    ----------
    scores : (n,) float
        Log weights; ``-inf`` marks samples that are not allowed.
    fraction : float
        Fraction of the summed weight the significant samples must exceed.
    max_significant : int
        At most this many samples; 0 for no limit.

    Returns
    -------
    threshold, count, best, total : float, int, float, float
        The lowest significant score, their number, the best score and the sum of ``exp(score - best)``; infinite and 0
        where nothing is allowed.
    """
    best = scores.max() if len(scores) else -np.inf
    if not best > -1e30:
        return np.inf, 0, float(best), 0.0
    order = np.argsort(-scores, kind="stable")
    weights = np.exp((scores[order] - best).astype(np.float64))
    total = weights.sum()
    count = int(np.searchsorted(np.cumsum(weights), fraction * total, side="right")) + 1
    count = min(count, len(scores))
    if max_significant > 0:
        count = min(count, max_significant)
    return float(scores[order[count - 1]]), count, float(best), float(total)


CHUNK = 4096


@_inline
def relative_weights(scores, best, out, powers):
    """``out = exp(scores - best)``, to 2e-7 of each; returns their sum. Scores below ``best - 87`` give 1e-38.

    ``powers`` is (CHUNK,) int32, room to work in.
    """
    total = 0.0
    two_to_k = powers.view(np.float32)
    for first in range(np.uint64(0), np.uint64(scores.shape[0]), np.uint64(CHUNK)):
        n = min(np.uint64(CHUNK), np.uint64(scores.shape[0]) - first)
        for i in range(n):
            x = (scores[first + i] - best) * np.float32(1.4426950408889634)
            x = x if x > np.float32(-126.0) else np.float32(-126.0)
            k = np.floor(x + np.float32(0.5))
            f = x - k
            # 2^f for |f| <= 1/2 (Cephes)
            p = np.float32(1.535336188319500e-4)
            p = p * f + np.float32(1.339887440266574e-3)
            p = p * f + np.float32(9.618437357674640e-3)
            p = p * f + np.float32(5.550332471162809e-2)
            p = p * f + np.float32(2.402264791363012e-1)
            p = p * f + np.float32(6.931472028550421e-1)
            out[first + i] = p * f + np.float32(1.0)
            powers[i] = (np.int32(k) + np.int32(127)) << np.int32(23)
        for i in range(n):
            out[first + i] *= two_to_k[i]
        for i in range(n):
            total += np.float64(out[first + i])
    return total


@_inline
def _cut(scores, weights, target, running, count, limit, lowest, highest):
    """Go on from ``running`` over scores in [lowest, highest] from the top until the sum exceeds the target."""
    n = scores.shape[0]
    inverse_width = np.float32(N_BINS) / max(highest - lowest, np.float32(1e-6))
    sums = np.zeros(N_BINS, np.float64)
    counts = np.zeros(N_BINS, np.int64)
    for i in range(n):
        b = min(int((highest - scores[i]) * inverse_width), N_BINS - 1)
        sums[b] += weights[i]
        counts[b] += 1
    b = 0
    while b < N_BINS - 1 and running + sums[b] <= target and count + counts[b] < limit:
        running += sums[b]
        count += counts[b]
        b += 1
    inside = np.empty(counts[b], np.float32)
    m = 0
    for i in range(n):
        if min(int((highest - scores[i]) * inverse_width), N_BINS - 1) == b:
            inside[m] = scores[i]
            m += 1
    inside.sort()
    return inside, running, count


@_jit
def significance_threshold(scores, fraction, max_significant):
    """Numba twin of :func:`significance_threshold_numpy` for a flat float32 array."""
    n = scores.shape[0]
    return weigh_and_cut(scores, fraction, max_significant, np.empty(n, np.float32), np.empty(2 * n, np.float32), np.empty(CHUNK, np.int32))


@_inline
def weigh_and_cut(scores, fraction, max_significant, weights, between, powers):
    """As :func:`significance_threshold`, and leave ``exp(score - best)`` in ``weights``.

    ``between`` is (2 n,) float32 and ``powers`` (CHUNK,) int32: room to work in.
    """
    n = np.uint64(scores.shape[0])
    best = largest(scores, n)
    if not best > np.float32(-1e30):
        return np.float32(np.inf), 0, best, 0.0
    total = relative_weights(scores, best, weights, powers)
    target = fraction * total
    # one weight above what may be left out belongs to the significant ones; weights that sum to less, all together, do not
    rest = total - target
    surely, never = np.float32(1.01 * rest), np.float32(0.99 * rest / scores.shape[0])
    running = 0.0
    count = 0
    last = best
    if max_significant > 0 or not rest > 0.0:
        surely, never = np.float32(np.inf), np.float32(0.0)
    else:
        running, count, lowest_taken = above(scores, weights, n, surely)
        last = min(best, lowest_taken)
    m = np.uint64(0)
    lowest = best
    highest = np.float32(-np.inf)
    far = best - np.float32(SCORE_RANGE)
    whole = n & ~np.uint64(WIDE - 1)
    for first in range(np.uint64(0), n, np.uint64(WIDE)):
        # most stretches hold none
        if first < whole and not any_at_least(weights, first, never):
            continue
        for i in range(first, min(first + np.uint64(WIDE), n)):
            if never <= weights[i] <= surely and scores[i] > far:
                between[m] = scores[i]
                between[n + m] = weights[i]
                lowest = min(lowest, scores[i])
                highest = max(highest, scores[i])
                m += np.uint64(1)
    if running > target or m == 0:
        return last, count, best, total
    limit = max_significant if max_significant > 0 else n
    inside, running, count = _cut(between[:m], between[n : n + m], target, running, count, limit, lowest, highest)
    threshold = last
    for j in range(inside.shape[0]):
        threshold = inside[inside.shape[0] - 1 - j]
        running += np.exp(np.float64(threshold) - np.float64(best))
        count += 1
        if running > target or count >= limit:
            break
    return threshold, count, best, total


# One block per set: the threshold is found digit by digit (11 + 11 + 10 bits) of the scores' order-preserving integers. Weights
# are summed as integers, so that the order of the threads does not matter.
CUDA_SOURCE = r"""
#define DIGITS 2048
#define CUT_THREADS 256
#define SCORE_RANGE 32.0f

struct Cut { float threshold; int count; float best; double total; };

inline __device__ unsigned int ordered(float s)
{
    const unsigned int u = __float_as_uint(s);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

inline __device__ float unordered(unsigned int u)
{
    return __uint_as_float(u & 0x80000000u ? u & 0x7fffffffu : ~u);
}

inline __device__ Cut block_cut(const float* scores, long long n, double fraction, long long limit)
{
    __shared__ unsigned long long sums[DIGITS];
    __shared__ unsigned int counts[DIGITS];
    __shared__ unsigned long long chunk_sums[CUT_THREADS];
    __shared__ unsigned int chunk_counts[CUT_THREADS];
    __shared__ float tops[CUT_THREADS];
    __shared__ unsigned int prefix;
    __shared__ unsigned long long running, target, everything;
    __shared__ long long taken;
    const int t = threadIdx.x;
    Cut cut;
    float best = __uint_as_float(0xff800000u);
    for (long long j = t; j < n; j += CUT_THREADS) best = fmaxf(best, scores[j]);
    __syncthreads();
    tops[t] = best;
    __syncthreads();
    for (int half = CUT_THREADS / 2; half > 0; half /= 2) {
        if (t < half) tops[t] = fmaxf(tops[t], tops[t + half]);
        __syncthreads();
    }
    best = tops[0];
    cut.best = best;
    if (!(best > -1e30f)) {
        cut.threshold = __uint_as_float(0x7f800000u);
        cut.count = 0;
        cut.total = 0.0;
        return cut;
    }
    // the largest unit of which n fit into 63 bits
    int bits = 40;
    while (bits > 0 && (n >> (63 - bits)) > 0) bits--;
    const double unit = (double)(1ull << bits);
    if (t == 0) {
        prefix = 0;
        running = 0;
        taken = 0;
    }
    for (int digit = 0; digit < 3; digit++) {
        const int shift = digit == 0 ? 21 : digit == 1 ? 10 : 0, n_bins = digit == 2 ? 1024 : 2048, per = n_bins / CUT_THREADS;
        for (int b = t; b < n_bins; b += CUT_THREADS) {
            sums[b] = 0;
            counts[b] = 0;
        }
        __syncthreads();
        for (long long j = t; j < n; j += CUT_THREADS) {
            const float s = scores[j];
            if (!(best - s < SCORE_RANGE)) continue;
            const unsigned int key = ordered(s);
            if (digit > 0 && key >> (shift + (digit == 1 ? 11 : 10)) != prefix) continue;
            // highest scores first
            const int b = n_bins - 1 - (int)((key >> shift) & (n_bins - 1));
            atomicAdd(&sums[b], (unsigned long long)((double)expf(s - best) * unit + 0.5));
            atomicAdd(&counts[b], 1u);
        }
        __syncthreads();
        unsigned long long sum = 0;
        unsigned int number = 0;
        for (int b = t * per; b < (t + 1) * per; b++) {
            sum += sums[b];
            number += counts[b];
        }
        chunk_sums[t] = sum;
        chunk_counts[t] = number;
        __syncthreads();
        if (t == 0) {
            if (digit == 0) {
                everything = 0;
                for (int c = 0; c < CUT_THREADS; c++) everything += chunk_sums[c];
                target = (unsigned long long)(fraction * (double)everything);
            }
            // the first bin with which the target or the limit is passed; else the last that is not empty
            int b = 0, last = 0;
            unsigned long long run = running, last_run = running;
            long long have = taken, last_have = taken;
            for (int c = 0; c < CUT_THREADS; c++) {
                if (chunk_counts[c] == 0) continue;
                if (run + chunk_sums[c] <= target && have + chunk_counts[c] < limit) {
                    b = -1;
                    for (int k = c * per; k < (c + 1) * per; k++) {
                        if (counts[k] == 0) continue;
                        last = k;
                        last_run = run;
                        last_have = have;
                        run += sums[k];
                        have += counts[k];
                    }
                    continue;
                }
                for (b = c * per; b < (c + 1) * per; b++) {
                    if (counts[b] == 0) continue;
                    if (run + sums[b] > target || have + counts[b] >= limit) break;
                    run += sums[b];
                    have += counts[b];
                }
                break;
            }
            if (b < 0) {
                b = last;
                run = last_run;
                have = last_have;
            }
            running = run;
            taken = have;
            prefix = prefix << (digit == 2 ? 10 : 11) | (unsigned int)(n_bins - 1 - b);
            if (digit == 2) {
                // equal scores: as many as are needed
                const unsigned long long each = sums[b] / counts[b];
                long long more = counts[b];
                if (each > 0 && run <= target && (long long)((target - run) / each) + 1 < more) more = (long long)((target - run) / each) + 1;
                if (more > limit - have) more = limit - have;
                taken = have + more;
            }
        }
        __syncthreads();
    }
    cut.threshold = unordered(prefix);
    cut.count = (int)taken;
    cut.total = (double)everything / unit;
    return cut;
}

extern "C" __global__ void cut_sets(
    const float* __restrict__ scores, const long long* __restrict__ start, int n_sets, double fraction, long long limit,
    float* __restrict__ threshold, int* __restrict__ count, float* __restrict__ best, double* __restrict__ total)
{
    for (int i = blockIdx.x; i < n_sets; i += gridDim.x) {
        const Cut cut = block_cut(scores + start[i], start[i + 1] - start[i], fraction, limit);
        if (threadIdx.x == 0) {
            threshold[i] = cut.threshold;
            count[i] = cut.count;
            best[i] = cut.best;
            total[i] = cut.total;
        }
    }
}
"""


def cut_sets_cuda(gpu, scores, start, fraction, max_significant):
    """``(threshold, count, best, total)`` of every set ``scores[start[i] : start[i + 1]]``: (n,) float32, int32, float32, float64."""
    xp, n = gpu.xp, len(start) - 1
    out = xp.empty(n, np.float32), xp.empty(n, np.int32), xp.empty(n, np.float32), xp.empty(n, np.float64)
    limit = max_significant if max_significant > 0 else 1 << 62
    gpu.launch(
        CUDA_SOURCE, "cut_sets", gpu.spread(n, 1), 256, scores, start, np.int32(n), np.float64(fraction), np.int64(limit), *out
    )
    return out
