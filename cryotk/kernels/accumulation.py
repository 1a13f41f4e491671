"""The sums that the maximisation needs, over ragged lists of weighted samples.

Complex arrays are stored split, ``(..., 2, P)`` float32, real part first. Numerical work is float32; sums over images are
float64.
"""

from __future__ import annotations

import numba
import numpy as np

from cryotk.kernels._ragged import list_shifts
from cryotk.kernels._shift_vectors import add_products
from cryotk.kernels._tiles import GROUP, LEAST, sums_of_group, sums_of_one, sums_of_two
from cryotk.kernels.shift_grid import LANES, pays, row_width, shift_sums

_jit = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")
# see shift_grid.py
_inline = numba.njit(
    nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy", inline="always"
)


def accumulate_numpy(data, data_weight, masked, model_ctf, image_start, slices, ramps, parent_start, parent_slot, parent_class,
                     parent_direction, offset_start, offsets, n_over, weights, shells, signal_shell, offset_xy, old_offset,
                     prior_offset, rows, row_weights, noise, per_image, per_particle, class_sum, class_offset, direction_sum,
                     grid=None):
    """Add what the posterior of a block of images contributes to the maximisation; the plain definition.

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
    slices, ramps, parent_*, offset*, n_over : see :func:`cryotk.kernels.fine_scores.ragged_scores_numpy`
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
    e = ramps[:, 0].astype(complex) + 1j * ramps[:, 1]
    x = data[:, 0].astype(complex) + 1j * data[:, 1]
    n_children, position = slices.shape[1], 0
    for i in range(len(data)):
        classes = np.unique(parent_class[parent_start[i] : parent_start[i + 1]])
        mean_slice = {k: np.zeros(data.shape[2], complex) for k in classes}  # sum w conj(E) V: the slice, moved to the image
        mean_power = {k: np.zeros(data.shape[2]) for k in classes}
        for a in range(parent_start[i], parent_start[i + 1]):
            k, slot = parent_class[a], parent_slot[a]
            t = offsets[offset_start[a] : offset_start[a + 1]]
            shifts = (t[:, None] * n_over + np.arange(n_over)).ravel()
            xy = old_offset[i] + offset_xy[shifts]
            for c in range(n_children):
                w = weights[position : position + len(shifts)].astype(float)
                position += len(shifts)
                v = slices[slot, c, 0] + 1j * slices[slot, c, 1].astype(complex)
                ramp_sum = w @ e[shifts]
                row = x[i] * ramp_sum
                rows[slot, c, 0] += row.real
                rows[slot, c, 1] += row.imag
                row_weights[slot, c] += w.sum() * data_weight[i]
                mean_slice[k] += v * np.conj(ramp_sum)
                mean_power[k] += w.sum() * np.abs(v) ** 2
                per_particle[i] += w.sum(), (w[:, None] * (xy - prior_offset[k]) ** 2).sum()
                class_sum[k] += w.sum()
                class_offset[k] += w @ xy
                direction_sum[k, parent_direction[a]] += w.sum()
        for m in range(image_start[i], image_start[i + 1]):
            image = masked[m, 0].astype(complex) + 1j * masked[m, 1]
            scale = per_image[m, 0]
            residual = per_particle[i, 0] * np.abs(image) ** 2
            for k in classes:
                cross = model_ctf[m] * (np.conj(image) * mean_slice[k]).real
                power = model_ctf[m].astype(float) ** 2 * mean_power[k]
                residual += scale**2 * power - 2 * scale * cross
                signal = signal_shell[k, shells] > 0
                per_image[m, 1:] += cross[signal].sum(), power[signal].sum()
            noise[m] += np.bincount(shells, residual, minlength=noise.shape[1])
    np.maximum(noise, 0, out=noise)


@_inline
def _ramp_sums(weights, offset_start, offsets, low, high, n_children, n_over, grid, places, table, lane_sums, marginal, turned, out):
    """``sum_t w E_t`` of every child of some parents, without the ramp of the grid's centre: (LANES, W).

    Their sums of weights go to ``lane_sums``, those of each shift are added to ``marginal``.
    """
    flat = table.reshape(table.size)
    flat[:] = np.float32(0.0)
    list_shifts(offset_start, offsets, low, high, n_over, grid.cell, places)
    row, first, lanes = np.uint64(0), np.uint64(0), np.uint64(LANES)
    for a in range(low, high):
        position = np.uint64(offset_start[a] * n_children * n_over)
        count = np.uint64((offset_start[a + 1] - offset_start[a]) * n_over)
        for _c in range(n_children):
            for s in range(count):
                flat[np.uint64(places[first + s]) + row] = weights[position + s]
            position += count
            row += np.uint64(1)
        first += count
    lane_sums[:] = np.float32(0.0)
    for t in range(grid.cell.shape[0]):
        at = np.uint64(grid.cell[t]) * lanes
        total = np.float32(0.0)
        for r in range(lanes):
            lane_sums[r] += flat[at + r]
        for r in range(lanes):
            total += flat[at + r]
        marginal[t] += total
    shift_sums(table, grid, turned, out)


@_inline
def _ramp_sums_of_few(weights, offsets, first, last, n_children, n_over, ramps, twice, room, sums, marginal, out):
    """``sum_t w E_t`` of every child of a parent, from the shifts with weight: (C, 2P), flat.

    ``room`` is for weights of these shifts and positions of their ramps, of all children and of one. Sums of weights go to
    ``sums``, those of each shift are added to ``marginal``.
    """
    chosen, places, own_chosen, own_places = room
    count, children = np.uint64((last - first) * n_over), np.uint64(n_children)
    zero, position = np.float32(0.0), np.uint64(first * n_children * n_over)
    for c in range(children):
        sums[c] = zero
    n_places, n_positive = np.uint64(0), 0
    for s in range(count):
        total, at = zero, n_places * children
        for c in range(children):
            w = weights[position + c * count + s]
            chosen[at + c] = w
            sums[c] += w
            total += w
            n_positive += w > zero
        if total > zero:
            shift = offsets[first + s // np.uint64(n_over)] * n_over + s % np.uint64(n_over)
            marginal[shift] += total
            places[n_places] = np.uint64(shift) * twice
            n_places += np.uint64(1)
    if n_positive == 0:
        return
    c = np.uint64(0)
    if twice < LEAST:
        for c in range(children):
            row = c * twice
            for p in range(twice):
                out[row + p] = zero
            for s in range(n_places):
                for p in range(twice):
                    out[row + p] += chosen[s * children + c] * ramps[places[s] + p]
        return
    if 2 * n_positive > n_places * children:
        while c + np.uint64(GROUP) <= children:
            sums_of_group(out, c * twice, chosen, c, children, ramps, places, n_places, twice)
            c += np.uint64(GROUP)
        while c + np.uint64(2) <= children:
            sums_of_two(out, c * twice, chosen, c, children, ramps, places, n_places, twice)
            c += np.uint64(2)
    while c < children:
        # each from its own shifts
        n_own = np.uint64(0)
        for s in range(n_places):
            if chosen[s * children + c] > zero:
                own_chosen[n_own] = chosen[s * children + c]
                own_places[n_own] = places[s]
                n_own += np.uint64(1)
        sums_of_one(out, c * twice, own_chosen, np.uint64(0), np.uint64(1), ramps, own_places, n_own, twice)
        c += np.uint64(1)


@_inline
def _many_positive(weights, first, last, parent_class, n_children):
    """Whether tables of all shifts pay, class by class, for samples with weight of some parents."""
    per = max(1, LANES // n_children)
    n_chunks = 0
    a = 0
    while a < parent_class.shape[0]:
        end = _end_of_class(parent_class, a)
        n_chunks += (end - a + per - 1) // per
        a = end
    n_positive = 0
    # counted to the end only where they are few
    while first < last and not pays(n_chunks, n_children, n_positive):
        for s in range(first, min(first + 1024, last)):
            n_positive += weights[s] > np.float32(0.0)
        first += 1024
    return pays(n_chunks, n_children, n_positive)


@_inline
def _end_of_class(parent_class, a):
    end = a
    while end < parent_class.shape[0] and parent_class[end] == parent_class[a]:
        end += 1
    return end


@_jit
def accumulate(data, data_weight, masked, model_ctf, image_start, slices, ramps, parent_start, parent_slot, parent_class,
               parent_direction, offset_start, offsets, n_over, weights, shells, signal_shell, offset_xy, old_offset,
               prior_offset, rows, row_weights, noise, per_image, per_particle, class_sum, class_offset, direction_sum,
               grid=None):
    """Numba twin of :func:`accumulate_numpy`: tiles of children and shifts, or tables of all shifts where many have weight."""
    n_particles, _, n_pixels = data.shape
    n_children = slices.shape[1]
    pixels, twice = np.uint64(n_pixels), np.uint64(2 * n_pixels)
    ramp_sums = np.empty(n_children * 2 * n_pixels, np.float32)
    n_shifts = ramps.shape[0]
    room = (
        np.empty(n_shifts * n_children, np.float32), np.empty(n_shifts, np.uint64), np.empty(n_shifts, np.float32),
        np.empty(n_shifts, np.uint64),
    )  # fmt: skip
    sums_of_few = np.empty(n_children, np.float32)
    marginal = np.zeros(ramps.shape[0], np.float64)
    if grid is not None:
        width = row_width(n_pixels)
        sums, turned = np.empty((LANES, width), np.float32), np.empty((width, LANES), np.float32)
        flat_sums = sums.reshape(sums.size)
        lane_sums = np.empty(LANES, np.float32)
        table = np.empty((2, grid.cos_y.shape[1], 2, grid.cos_x.shape[1], LANES), np.float32)
        places = np.empty(max(1, LANES // n_children) * grid.cell.shape[0], np.uint32)
        centred = np.empty(2 * n_pixels, np.float32)
    mean = np.zeros((3, n_pixels), np.float32)
    flat_mean = mean.reshape(mean.size)
    flat_rows, flat_row_weights, flat_slices = rows.reshape(rows.size), row_weights.reshape(row_weights.size), slices.reshape(slices.size)
    flat_data, flat_data_weight = data.reshape(data.size), data_weight.reshape(data_weight.size)
    flat_ramps = ramps.reshape(ramps.size)
    for i in range(n_particles):
        if parent_start[i] == parent_start[i + 1]:
            continue
        total = 0.0
        squares = 0.0
        a = parent_start[i]
        begin, end = parent_start[i], parent_start[i + 1]
        dense = False
        if grid is not None:
            per_offset = n_children * n_over
            first, last = offset_start[begin] * per_offset, offset_start[end] * per_offset
            dense = _many_positive(weights, first, last, parent_class[begin:end], n_children)
            for p in range(n_pixels if dense else 0):
                er, ei = grid.centre[0, p], grid.centre[1, p]
                centred[p] = data[i, 0, p] * er - data[i, 1, p] * ei
                centred[n_pixels + p] = data[i, 0, p] * ei + data[i, 1, p] * er
        table_low, table_high = begin, begin
        while a < parent_start[i + 1]:
            k = parent_class[a]
            flat_mean[:] = np.float32(0.0)
            marginal[:] = 0.0
            class_total = 0.0
            while a < parent_start[i + 1] and parent_class[a] == k:
                first, last = offset_start[a], offset_start[a + 1]
                slot = parent_slot[a]
                parent_total = 0.0
                if grid is not None:
                    if dense and a >= table_high:
                        table_low = a
                        table_high = min(a + _end_of_class(parent_class[a:end], 0), a + LANES // n_children)
                        _ramp_sums(
                            weights, offset_start, offsets, table_low, table_high, n_children, n_over, grid, places, table,
                            lane_sums, marginal, turned, sums,
                        )
                if not dense:
                    _ramp_sums_of_few(
                        weights, offsets, first, last, n_children, n_over, flat_ramps, twice, room, sums_of_few, marginal, ramp_sums
                    )  # fmt: skip
                for c in range(n_children):
                    sum_w = sums_of_few[c]
                    if grid is not None:
                        if dense:
                            sum_w = lane_sums[(a - table_low) * n_children + c]
                    if sum_w > 0.0:
                        parent_total += sum_w
                        child = np.uint64(slot * n_children + c)
                        if dense:
                            if grid is not None:
                                add_products(
                                    flat_rows, child * twice, flat_row_weights, child * pixels, flat_mean, centred, np.uint64(0),
                                    flat_data_weight, np.uint64(i) * pixels, flat_slices, child * twice, flat_sums,
                                    np.uint64(((a - table_low) * n_children + c) * width), pixels, sum_w,
                                )
                        else:
                            add_products(
                                flat_rows, child * twice, flat_row_weights, child * pixels, flat_mean, flat_data, np.uint64(i) * twice,
                                flat_data_weight, np.uint64(i) * pixels, flat_slices, child * twice, ramp_sums, np.uint64(c) * twice,
                                pixels, sum_w,
                            )  # fmt: skip
                class_total += parent_total
                direction_sum[k, parent_direction[a]] += parent_total
                a += 1
            if class_total > 0.0:
                if grid is not None:
                    if dense:
                        for p in range(n_pixels):
                            er, ei = grid.centre[0, p], grid.centre[1, p]
                            re, im = mean[0, p], mean[1, p]
                            mean[0, p] = re * er + im * ei
                            mean[1, p] = im * er - re * ei
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
                        cross = c0 * (masked[m, 0, p] * mean[0, p] + masked[m, 1, p] * mean[1, p])
                        power = c0 * c0 * mean[2, p]
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
