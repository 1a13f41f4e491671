"""Posterior weights of the fine samples of a block of images."""

from __future__ import annotations

import numba
import numpy as np

from cryotk.kernels.significance import CHUNK, significance_threshold_numpy, weigh_and_cut
from cryotk.kernels.significance import CUDA_SOURCE as CUT_SOURCE

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


def posterior_weights_numpy(scores, sample_start, fraction):
    """Turn the log weights of a block into normalised posterior weights, in place; the plain definition.

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
    n_images = len(sample_start) - 1
    p_max, log_sum = np.zeros(n_images, np.float32), np.full(n_images, -np.inf)
    kept, best_index = np.zeros(n_images), np.full(n_images, -1, np.int64)
    for i in range(n_images):
        s = scores[sample_start[i] : sample_start[i + 1]]
        threshold, number, best, total = significance_threshold_numpy(s, fraction)
        if number == 0:
            s[:] = 0
            continue
        log_sum[i], p_max[i], best_index[i] = best + np.log(total), 1 / total, sample_start[i] + s.argmax()
        w = np.where(s >= threshold, np.exp(s.astype(float) - best) / total, 0)
        kept[i] = w.sum()
        s[:] = w
    return p_max, log_sum, kept, best_index


@_jit
def posterior_weights(scores, sample_start, fraction):
    """Numba twin of :func:`posterior_weights_numpy`."""
    n_images = sample_start.shape[0] - 1
    p_max = np.zeros(n_images, np.float32)
    log_sum = np.full(n_images, -np.inf, np.float64)
    kept = np.zeros(n_images, np.float64)
    best_index = np.full(n_images, -1, np.int64)
    most = 0
    for i in range(n_images):
        most = max(most, sample_start[i + 1] - sample_start[i])
    of_all, between, powers = np.empty(most, np.float32), np.empty(2 * most, np.float32), np.empty(CHUNK, np.int32)
    for i in range(n_images):
        lo, hi = sample_start[i], sample_start[i + 1]
        weights = of_all[: hi - lo]
        threshold, number, best, total = weigh_and_cut(scores[lo:hi], fraction, 0, weights, between, powers)
        if number == 0:
            scores[lo:hi] = np.float32(0.0)
            continue
        inverse = 1.0 / total
        log_sum[i] = best + np.log(total)
        p_max[i] = inverse
        for j in range(lo, hi):
            if scores[j] == best:
                best_index[i] = j
                break
        here = scores[lo:hi]
        factor = np.float32(inverse)
        for j in range(hi - lo):
            here[j] = weights[j] * factor if here[j] >= threshold else np.float32(0.0)
        sum_kept = 0.0
        for j in range(hi - lo):
            sum_kept += np.float64(here[j])
        kept[i] = sum_kept
    return p_max, log_sum, kept, best_index


# One block per image.
CUDA_SOURCE = CUT_SOURCE + r"""
extern "C" __global__ void posterior_weights(
    float* scores, const long long* __restrict__ sample_start, int n_images, double fraction, float* __restrict__ p_max,
    double* __restrict__ log_sum, double* __restrict__ kept, long long* __restrict__ best_index)
{
    __shared__ double room[CUT_THREADS];
    __shared__ long long first[CUT_THREADS];
    const int t = threadIdx.x;
    for (int i = blockIdx.x; i < n_images; i += gridDim.x) {
        const long long low = sample_start[i], high = sample_start[i + 1];
        const Cut cut = block_cut(scores + low, high - low, fraction, 1ll << 62);
        const double inverse = cut.count > 0 ? 1.0 / cut.total : 0.0;
        double sum = 0.0;
        long long at = high;
        for (long long j = low + t; j < high; j += CUT_THREADS) {
            const float s = scores[j];
            float weight = 0.0f;
            if (cut.count > 0 && s >= cut.threshold) {
                if (s == cut.best && j < at) at = j;
                const double w = (double)expf(s - cut.best) * inverse;
                sum += w;
                weight = (float)w;
            }
            scores[j] = weight;
        }
        sum = block_sum(sum, room);
        first[t] = at;
        __syncthreads();
        for (int half = CUT_THREADS / 2; half > 0; half /= 2) {
            if (t < half && first[t + half] < first[t]) first[t] = first[t + half];
            __syncthreads();
        }
        if (t == 0) {
            p_max[i] = (float)inverse;
            log_sum[i] = cut.count > 0 ? cut.best + log(cut.total) : (double)__uint_as_float(0xff800000u);
            kept[i] = sum;
            best_index[i] = cut.count > 0 ? first[0] : -1;
        }
    }
}
"""


def posterior_weights_cuda(gpu, scores, sample_start, fraction):
    """CUDA twin of :func:`posterior_weights_numpy`."""
    xp, n = gpu.xp, len(sample_start) - 1
    out = xp.empty(n, np.float32), xp.empty(n, np.float64), xp.empty(n, np.float64), xp.empty(n, np.int64)
    gpu.launch(
        CUDA_SOURCE, "posterior_weights", gpu.spread(n, 1), 256, scores, sample_start, np.int32(n), np.float64(fraction), *out
    )
    return out
