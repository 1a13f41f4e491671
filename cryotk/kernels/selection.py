"""Which samples of the orientation and offset grid matter: scores to significant samples and posterior weights.

A sample is significant when it belongs to the smallest set of largest weights whose sum exceeds a fraction
(0.999) of the total. Sorting every score would cost more than computing it, so weights are binned by score and
only the bin in which the cut falls is sorted: the result is exact.
"""

from __future__ import annotations

import numba
import numpy as np

SCORE_RANGE = 32.0
"""Samples this far below the best (in log weight) cannot change a 0.999 cut of fewer than 1e10 samples."""
N_BINS = 2048

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


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
        The lowest significant score, their number, the best score and the sum of ``exp(score - best)``.
    """
    best = scores.max()
    order = np.argsort(-scores, kind="stable")
    weights = np.exp((scores[order] - best).astype(np.float64))
    total = weights.sum()
    count = int(np.searchsorted(np.cumsum(weights), fraction * total, side="right")) + 1
    count = min(count, len(scores))
    if max_significant > 0:
        count = min(count, max_significant)
    return float(scores[order[count - 1]]), count, float(best), float(total)


@_jit
def significance_threshold(scores, fraction, max_significant):
    """Numba twin of :func:`significance_threshold_numpy` for a flat float32 array."""
    n = scores.shape[0]
    best = np.float32(-np.inf)
    for i in range(n):
        if scores[i] > best:
            best = scores[i]
    if not best > np.float32(-1e30):
        return np.float32(np.inf), 0, best, 0.0
    width = SCORE_RANGE / N_BINS
    inverse_width = np.float32(1.0 / width)
    sums = np.zeros(N_BINS, np.float64)
    counts = np.zeros(N_BINS, np.int64)
    lowest = np.float32(SCORE_RANGE)
    for i in range(n):
        d = best - scores[i]
        if d < lowest:
            b = int(d * inverse_width)
            if b < N_BINS:
                sums[b] += np.exp(-d)
                counts[b] += 1
    total = 0.0
    for b in range(N_BINS):
        total += sums[b]
    target = fraction * total
    limit = max_significant if max_significant > 0 else n
    running = 0.0
    count = 0
    b = 0
    while b < N_BINS - 1 and running + sums[b] <= target and count + counts[b] < limit:
        running += sums[b]
        count += counts[b]
        b += 1
    inside = np.empty(counts[b], np.float32)
    m = 0
    for i in range(n):
        d = best - scores[i]
        if d < lowest and int(d * inverse_width) == b:
            inside[m] = scores[i]
            m += 1
    inside = np.sort(inside[:m])
    threshold = best
    for j in range(m):
        threshold = inside[m - 1 - j]
        running += np.exp(np.float64(threshold) - np.float64(best))
        count += 1
        if running > target or count >= limit:
            break
    return threshold, count, best, total


@_jit
def select_dense(even, odd, self_term, log_prior_orientation, log_prior_offset, n_psi, halved, block_class, fraction,
                 max_significant):
    """Significant samples of a dense coarse grid for a block of images.

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
    n_images, n_offsets, n_columns = even.shape
    n_blocks = block_class.shape[0]
    n_orient = n_blocks * n_psi
    n_half = n_columns // n_blocks
    per_class = log_prior_offset.shape[1] > 1
    scores = np.empty((n_images, n_offsets, n_orient), np.float32)
    thresholds = np.empty(n_images, np.float32)
    count = np.empty(n_images, np.int32)
    best = np.empty(n_images, np.float32)
    parent_start = np.zeros(n_images + 1, np.int64)
    n_parents = 0
    n_samples = 0
    for i in range(n_images):
        for t in range(n_offsets):
            for c in range(n_blocks):
                prior = log_prior_offset[i, block_class[c] if per_class else 0, t]
                source = c * n_half
                target = c * n_psi
                if halved:
                    for p in range(n_half):
                        a = even[i, t, source + p] - self_term[i, source + p] + prior
                        b = odd[i, t, source + p]
                        scores[i, t, target + p] = a + b + log_prior_orientation[target + p]
                        scores[i, t, target + n_half + p] = a - b + log_prior_orientation[target + n_half + p]
                else:
                    for p in range(n_half):
                        scores[i, t, target + p] = (
                            even[i, t, source + p] - self_term[i, source + p] + prior + log_prior_orientation[target + p]
                        )
        threshold, number, top, _total = significance_threshold(scores[i].reshape(-1), fraction, max_significant)
        thresholds[i] = threshold
        count[i] = number
        best[i] = top
        n_here = 0
        used = np.zeros(n_orient, np.uint8)
        for t in range(n_offsets):
            for r in range(n_orient):
                if scores[i, t, r] >= threshold:
                    n_here += 1
                    used[r] = 1
        for r in range(n_orient):
            n_parents += used[r]
        n_samples += n_here
        parent_start[i + 1] = n_parents
    parents = np.empty(n_parents, np.int32)
    offset_start = np.zeros(n_parents + 1, np.int64)
    offsets = np.empty(n_samples, np.int32)
    a = 0
    m = 0
    for i in range(n_images):
        # transposed once, so that the samples of one orientation are together
        by_orient = np.zeros(n_orient, np.int32)
        for t in range(n_offsets):
            for r in range(n_orient):
                if scores[i, t, r] >= thresholds[i]:
                    by_orient[r] += 1
        for r in range(n_orient):
            if by_orient[r] > 0:
                parents[a] = r
                for t in range(n_offsets):
                    if scores[i, t, r] >= thresholds[i]:
                        offsets[m] = t
                        m += 1
                a += 1
                offset_start[a] = m
    return count, best, parent_start, parents, offset_start, offsets


@_jit
def select_ragged(scores, parent_start, parents, n_offsets, fraction, max_significant):
    """Significant samples where every image has its own list of orientations (local searches).

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
    Same as :func:`select_dense`, and ``source``: the position of each kept parent in ``parents``.
    """
    n_images = parent_start.shape[0] - 1
    count = np.empty(n_images, np.int32)
    best = np.empty(n_images, np.float32)
    new_start = np.zeros(n_images + 1, np.int64)
    keep = np.zeros(parents.shape[0], np.int32)
    n_samples = 0
    n_parents = 0
    for i in range(n_images):
        lo, hi = parent_start[i] * n_offsets, parent_start[i + 1] * n_offsets
        threshold, number, top, _total = significance_threshold(scores[lo:hi], fraction, max_significant)
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
        lo, hi = parent_start[i] * n_offsets, parent_start[i + 1] * n_offsets
        threshold, _number, _top, _total = significance_threshold(scores[lo:hi], fraction, max_significant)
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


@_jit
def posterior_weights(scores, sample_start, fraction):
    """Turn the log weights of a block into normalised posterior weights, in place.

    Parameters
    ----------
    scores : (n,) float32, IN and OUT
        Log weights of all fine samples, image after image; becomes the weight divided by the sum over all samples
        of the image, and 0 for samples that are not significant.
    sample_start : (B + 1,) int64
    fraction : float

    Returns
    -------
    p_max, log_sum, kept, best : (B,) float32, float64, float64, int64
        Largest weight, ``log sum exp`` of the scores, the summed significant weight, position of the first best sample.
        An image without any allowed sample has ``p_max = 0`` and ``best = -1``.
    """
    n_images = sample_start.shape[0] - 1
    p_max = np.zeros(n_images, np.float32)
    log_sum = np.full(n_images, -np.inf, np.float64)
    kept = np.zeros(n_images, np.float64)
    best_index = np.full(n_images, -1, np.int64)
    for i in range(n_images):
        lo, hi = sample_start[i], sample_start[i + 1]
        threshold, number, best, total = significance_threshold(scores[lo:hi], fraction, 0)
        if number == 0:
            for j in range(lo, hi):
                scores[j] = 0.0
            continue
        inverse = 1.0 / total
        log_sum[i] = best + np.log(total)
        p_max[i] = inverse
        sum_kept = 0.0
        for j in range(lo, hi):
            s = scores[j]
            if s == best and best_index[i] < 0:
                best_index[i] = j
            if s >= threshold:
                w = np.float64(np.exp(s - best)) * inverse
                sum_kept += w
                scores[j] = w
            else:
                scores[j] = 0.0
        kept[i] = sum_kept
    return p_max, log_sum, kept, best_index
