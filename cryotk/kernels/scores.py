"""Scores of images against slices, and the sums the maximisation needs, over ragged lists of samples.

With ``Y`` the weighted image, ``V`` a slice and ``E_t = exp(-2 pi i k.t)`` the phase ramp of a shift, the log weight of
a sample is ``Re sum conj(Y E_t) V - 1/2 sum W |V|^2 + log prior``. For one image and slice the product
``conj(Y) V`` is formed once, and every shift is one dot product of 2 P numbers with a row of a table that all images
share. Complex arrays are stored split, ``(..., 2, P)`` float32, real part first.

Numerical work is float32; sums over images are float64.
"""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")


@_jit
def shifted_rows(images, ramps, out_real, out_imag):
    """Write every image under every shift: the rows of the coarse pass's matrix products.

    Parameters
    ----------
    images : (B, 2, P) float32
    ramps : (T, 2, P) float32
        Real and imaginary part of ``exp(-2 pi i k.t)``.
    out_real, out_imag : (B, T, P) float32, OUT
    """
    n_images, _, n_pixels = images.shape
    for i in range(n_images):
        for t in range(ramps.shape[0]):
            for p in range(n_pixels):
                a, b = images[i, 0, p], images[i, 1, p]
                c, d = ramps[t, 0, p], ramps[t, 1, p]
                out_real[i, t, p] = a * c - b * d
                out_imag[i, t, p] = a * d + b * c


DENSE_FILL = 0.25
"""Where more than this share of (orientation, offset) pairs is wanted, a matrix product of all is cheaper."""


@_jit
def _used_offsets(offset_start, offsets, first_parent, last_parent, n_coarse, column):
    """Number the coarse offsets that any of some parents uses: fill ``column`` and return their count."""
    column[:] = -1
    for j in range(offset_start[first_parent], offset_start[last_parent]):
        column[offsets[j]] = 0
    n_used = 0
    for t in range(n_coarse):
        if column[t] == 0:
            column[t] = n_used
            n_used += 1
    return n_used


@_jit
def _is_dense(n_parents, n_samples, n_used, n_children):
    return n_parents * n_children >= 8 and n_samples > DENSE_FILL * n_parents * n_used


@_jit
def _gather_ramps(ramps, column, n_coarse, n_over, n_used):
    """Rows of the ramps in use, (n_used * n_over, 2 P)."""
    width = 2 * ramps.shape[2]
    out = np.empty((n_used * n_over, width), np.float32)
    for t in range(n_coarse):
        if column[t] >= 0:
            for q in range(n_over):
                out[column[t] * n_over + q] = ramps[t * n_over + q].reshape(width)
    return out


@_jit
def _conjugate_product(out_r, out_i, ar, ai, br, bi):
    """``out = a conj(b)``."""
    for p in range(out_r.shape[0]):
        out_r[p] = ar[p] * br[p] + ai[p] * bi[p]
    for p in range(out_r.shape[0]):
        out_i[p] = ai[p] * br[p] - ar[p] * bi[p]


@_jit
def _weighted_power(w, ar, ai):
    total = np.float32(0.0)
    for p in range(w.shape[0]):
        total += w[p] * (ar[p] * ar[p] + ai[p] * ai[p])
    return total


@_jit
def ragged_scores(images, self_weights, slices, ramps, parent_start, parent_slot, parent_prior, parent_class,
                  offset_start, offsets, n_over, log_prior_offset, out):
    """Log weights of the fine samples of a block of images.

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
    out : (m * C * Q,) float32, OUT
        In the order (image, parent, child, offset, child offset).
    """
    n_images, _, n_pixels = images.shape
    n_children = slices.shape[1]
    per_class = log_prior_offset.shape[1] > 1
    product = np.empty((2, n_pixels), np.float32)
    zero = np.float32(0.0)
    half = np.float32(0.5)
    n_coarse = ramps.shape[0] // n_over
    column = np.empty(n_coarse, np.int64)
    for i in range(n_images):
        yr = images[i, 0]
        yi = images[i, 1]
        w = self_weights[i]
        begin, end = parent_start[i], parent_start[i + 1]
        n_used = _used_offsets(offset_start, offsets, begin, end, n_coarse, column)
        if _is_dense(end - begin, offset_start[end] - offset_start[begin], n_used, n_children):
            used_ramps = _gather_ramps(ramps, column, n_coarse, n_over, n_used)
            per = max(1, 512 // n_children)
            products = np.empty((per * n_children, 2 * n_pixels), np.float32)
            self_terms = np.empty(per * n_children, np.float32)
            for low in range(begin, end, per):
                high = min(end, low + per)
                row = 0
                for a in range(low, high):
                    for c in range(n_children):
                        vr = slices[parent_slot[a], c, 0]
                        vi = slices[parent_slot[a], c, 1]
                        target_r = products[row, :n_pixels]
                        target_i = products[row, n_pixels:]
                        _conjugate_product(target_r, target_i, vr, vi, yr, yi)
                        self_terms[row] = half * _weighted_power(w, vr, vi)
                        row += 1
                table = np.dot(products[:row], used_ramps.T)
                row = 0
                for a in range(low, high):
                    position = offset_start[a] * n_children * n_over
                    k = parent_class[a] if per_class else 0
                    for c in range(n_children):
                        base = parent_prior[a] - self_terms[row]
                        for j in range(offset_start[a], offset_start[a + 1]):
                            prior = base + log_prior_offset[i, k, offsets[j]]
                            at = column[offsets[j]] * n_over
                            for q in range(n_over):
                                out[position] = table[row, at + q] + prior
                                position += 1
                        row += 1
            continue
        for a in range(parent_start[i], parent_start[i + 1]):
            first, last = offset_start[a], offset_start[a + 1]
            position = first * n_children * n_over
            k = parent_class[a] if per_class else 0
            for c in range(n_children):
                vr = slices[parent_slot[a], c, 0]
                vi = slices[parent_slot[a], c, 1]
                pr = product[0]
                pi = product[1]
                _conjugate_product(pr, pi, vr, vi, yr, yi)
                base = parent_prior[a] - half * _weighted_power(w, vr, vi)
                for j in range(first, last):
                    t = offsets[j]
                    prior = base + log_prior_offset[i, k, t]
                    for q in range(n_over):
                        er = ramps[t * n_over + q, 0]
                        ei = ramps[t * n_over + q, 1]
                        s = zero
                        for p in range(n_pixels):
                            # Re(conj(Y) V conj(E)), E stored
                            s += pr[p] * er[p] + pi[p] * ei[p]
                        out[position] = s + prior
                        position += 1


# Short loops over few arrays: the compiler proves these free of overlap and uses vector instructions.


@_jit
def _add_product(out_r, out_i, ar, ai, br, bi):
    for p in range(out_r.shape[0]):
        out_r[p] += ar[p] * br[p] - ai[p] * bi[p]
    for p in range(out_r.shape[0]):
        out_i[p] += ar[p] * bi[p] + ai[p] * br[p]


@_jit
def _add_conjugate_product(out_r, out_i, ar, ai, br, bi):
    for p in range(out_r.shape[0]):
        out_r[p] += ar[p] * br[p] + ai[p] * bi[p]
    for p in range(out_r.shape[0]):
        out_i[p] += ai[p] * br[p] - ar[p] * bi[p]


@_jit
def _add_scaled(out, factor, a):
    for p in range(out.shape[0]):
        out[p] += factor * a[p]


@_jit
def _add_power(out, factor, ar, ai):
    for p in range(out.shape[0]):
        out[p] += factor * (ar[p] * ar[p] + ai[p] * ai[p])


@_jit
def _ramp_sums(weights, offset_start, offsets, column, used_ramps, low, high, n_children, n_over):
    """``sum_t w E_t`` of every child of some parents as one matrix product: (parents * children, 2 P)."""
    matrix = np.zeros(((high - low) * n_children, used_ramps.shape[0]), np.float32)
    row = 0
    for a in range(low, high):
        position = offset_start[a] * n_children * n_over
        for _c in range(n_children):
            for j in range(offset_start[a], offset_start[a + 1]):
                at = column[offsets[j]] * n_over
                for q in range(n_over):
                    matrix[row, at + q] = weights[position]
                    position += 1
            row += 1
    return np.dot(matrix, used_ramps)


@_jit
def accumulate(data, data_weight, masked, model_ctf, image_start, slices, ramps, parent_start, parent_slot, parent_class,
               parent_direction, offset_start, offsets, n_over, weights, shells, signal_shell, offset_xy, old_offset,
               prior_offset, rows, row_weights, noise, per_image, per_particle, class_sum, class_offset, direction_sum):
    """Add what the posterior of a block of images contributes to the maximisation.

    Parameters
    ----------
    data, data_weight : (B, 2, P), (B, P) float32
        Of each particle, summed over its images: ``C s X / sigma2`` of the unmasked image and ``C^2 s^2 / sigma2``.
    masked : (I, 2, P) float32
        Masked image transforms, for noise, norm and scale.
    model_ctf : (I, P) float32
        What multiplies a slice to predict the image, without the scale: C (C^2 for premultiplied data).
    image_start : (B + 1,) int64
        Images of each particle.
    slices, ramps, parent_*, offset*, n_over : see :func:`ragged_scores`
    weights : (m * C * Q,) float32
        Normalised weights, 0 where not significant.
    shells : (P,) int32
        Shell of each pixel.
    signal_shell : (K, S) float32
        1 where a shell enters the scale sums.
    offset_xy : (T * Q, 2) float64
        Offsets in Å of all fine shifts.
    old_offset, prior_offset : (B, 2), (K, 2) float64
        Rounded old offset of each image and prior of each class in Å.
    rows, row_weights : (n_slots, C, 2, P), (n_slots, C, P) float32, IN and OUT
        Data and weight of each fine orientation.
    noise : (I, S) float64, OUT
        Per shell ``sum w |s C V - X|^2`` of each image.
    per_image : (I, 3) float64, IN and OUT
        IN: scale in column 0. OUT: 1: ``sum w Re conj(X) C V``, 2: ``sum w |C V|^2`` over the signal shells.
    per_particle : (B, 2) float64, OUT
        Sum of weights, sum of squared offsets from the prior (Å^2).
    class_sum : (K,) float64, class_offset : (K, 2) float64, direction_sum : (K, n_directions) float64, IN and OUT
    """
    n_particles, _, n_pixels = data.shape
    n_children = slices.shape[1]
    ramp_sum = np.empty((2, n_pixels), np.float32)
    n_coarse = ramps.shape[0] // n_over
    column = np.empty(n_coarse, np.int64)
    marginal = np.zeros(ramps.shape[0], np.float64)
    no_table = np.empty((1, 2 * n_pixels), np.float32)
    mean_slice = np.zeros((2, n_pixels), np.float32)
    mean_power = np.zeros(n_pixels, np.float32)
    for i in range(n_particles):
        total = 0.0
        squares = 0.0
        a = parent_start[i]
        begin, end = parent_start[i], parent_start[i + 1]
        n_used = _used_offsets(offset_start, offsets, begin, end, n_coarse, column)
        dense = _is_dense(end - begin, offset_start[end] - offset_start[begin], n_used, n_children)
        used_ramps = _gather_ramps(ramps, column, n_coarse, n_over, n_used) if dense else no_table
        table = no_table
        table_low, table_high = begin, begin
        while a < parent_start[i + 1]:
            k = parent_class[a]
            mean_slice[:] = 0.0
            mean_power[:] = 0.0
            marginal[:] = 0.0
            class_total = 0.0
            while a < parent_start[i + 1] and parent_class[a] == k:
                first, last = offset_start[a], offset_start[a + 1]
                position = first * n_children * n_over
                slot = parent_slot[a]
                parent_total = 0.0
                if dense and a >= table_high:
                    table_low, table_high = a, min(end, a + max(1, 512 // n_children))
                    table = _ramp_sums(
                        weights, offset_start, offsets, column, used_ramps, table_low, table_high, n_children, n_over
                    )
                for c in range(n_children):
                    sum_w = np.float32(0.0)
                    for j in range(first, last):
                        for q in range(n_over):
                            w = weights[position]
                            position += 1
                            if w > 0.0:
                                shift = offsets[j] * n_over + q
                                er = ramps[shift, 0]
                                ei = ramps[shift, 1]
                                if dense:
                                    pass
                                elif sum_w == 0.0:
                                    for p in range(n_pixels):
                                        ramp_sum[0, p] = w * er[p]
                                        ramp_sum[1, p] = w * ei[p]
                                else:
                                    for p in range(n_pixels):
                                        ramp_sum[0, p] += w * er[p]
                                        ramp_sum[1, p] += w * ei[p]
                                sum_w += w
                                marginal[shift] += w
                    if sum_w > 0.0:
                        parent_total += sum_w
                        vr = slices[slot, c, 0]
                        vi = slices[slot, c, 1]
                        fr = rows[slot, c, 0]
                        fi = rows[slot, c, 1]
                        fw = row_weights[slot, c]
                        if dense:
                            row = (a - table_low) * n_children + c
                            sr = table[row, :n_pixels]
                            si = table[row, n_pixels:]
                        else:
                            sr = ramp_sum[0]
                            si = ramp_sum[1]
                        ur = data[i, 0]
                        ui = data[i, 1]
                        cw = data_weight[i]
                        mr = mean_slice[0]
                        mi = mean_slice[1]
                        _add_product(fr, fi, ur, ui, sr, si)
                        _add_scaled(fw, sum_w, cw)
                        _add_conjugate_product(mr, mi, vr, vi, sr, si)
                        _add_power(mean_power, sum_w, vr, vi)
                class_total += parent_total
                direction_sum[k, parent_direction[a]] += parent_total
                a += 1
            if class_total > 0.0:
                class_sum[k] += class_total
                for shift in range(marginal.shape[0]):
                    w = marginal[shift]
                    if w > 0.0:
                        x = old_offset[i, 0] + offset_xy[shift, 0]
                        y = old_offset[i, 1] + offset_xy[shift, 1]
                        class_offset[k, 0] += w * x
                        class_offset[k, 1] += w * y
                        dx = x - prior_offset[k, 0]
                        dy = y - prior_offset[k, 1]
                        squares += w * (dx * dx + dy * dy)
                total += class_total
                for m in range(image_start[i], image_start[i + 1]):
                    scale = np.float32(per_image[m, 0])
                    for p in range(n_pixels):
                        c0 = model_ctf[m, p]
                        cross = c0 * (masked[m, 0, p] * mean_slice[0, p] + masked[m, 1, p] * mean_slice[1, p])
                        power = c0 * c0 * mean_power[p]
                        shell = shells[p]
                        noise[m, shell] += scale * scale * power - 2.0 * scale * cross
                        if signal_shell[k, shell] > 0.0:
                            per_image[m, 1] += cross
                            per_image[m, 2] += power
        for m in range(image_start[i], image_start[i + 1]):
            for p in range(n_pixels):
                noise[m, shells[p]] += total * (masked[m, 0, p] * masked[m, 0, p] + masked[m, 1, p] * masked[m, 1, p])
            for s in range(noise.shape[1]):
                noise[m, s] = max(noise[m, s], 0.0)
        per_particle[i, 0] = total
        per_particle[i, 1] = squares
