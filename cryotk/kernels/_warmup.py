"""Calls every kernel once on tiny input, so that numba compiles and caches it."""

from __future__ import annotations

import numpy as np

from cryotk.kernels import (
    _warmup_maps,
    accumulation,
    coarse_rows,
    ctf_values,
    fine_scores,
    half_turns,
    half_volumes,
    images,
    posterior,
    relion_rounding,
    selection,
    slice_extraction,
    slice_insertion,
    slice_symmetry,
    weighing,
)


def run() -> None:
    """Compile all kernels for the types they are used with."""
    _warmup_maps.run()
    f4, i4, i8 = np.float32, np.int32, np.int64
    kx, ky = np.array([0, 1], i4), np.array([0, 0], i4)
    eye = np.eye(3)[None].copy()
    for dims in (2, 3):
        shape = (7,) * (dims - 1) + (4,)
        cube, out, first = np.zeros(shape, np.complex64), np.zeros((1, 2, 2), f4), np.zeros(1, i8)
        data, weight = np.zeros(shape, complex), np.zeros(shape)
        extract = slice_extraction.extract_slices_3d if dims == 3 else slice_extraction.extract_slices_2d
        insert = slice_insertion.insert_slices_3d if dims == 3 else slice_insertion.insert_slices_2d
        extract(cube, eye, kx, ky, 1.0, 2, first, out)
        insert(data, weight, out, np.ones((1, 2), f4), first, eye, kx, ky, 1.0, 2)
        if dims == 3:
            slice_symmetry.add_symmetry_mates(data.copy(), weight.copy(), eye, 2, data, weight)
    relion_rounding.beyond_the_sphere(relion_rounding.rounded_rotations(np.zeros((1, 3))), kx, ky, 1.0, 2)
    half_turns.conjugate_slices(np.zeros((2, 1, 2, 2), f4), np.ones(1, i8), np.zeros(1, i8))
    half_turns.fold_rows(np.zeros((2, 1, 2, 2), f4), np.ones((2, 1, 2), f4), np.ones(1, i8), np.zeros(1, i8))
    bins, ones = np.zeros(6, i8), np.ones(6)
    half_volumes.power_in_shells(np.zeros((1, 7, 4), np.complex64), 0, 2, bins, np.zeros(1), np.zeros(1))
    half_volumes.weight_statistics(np.ones((1, 7, 4)), 0, 2, bins, ones, ones, 1e-3, np.zeros((5, 1)))
    half_volumes.divide_by_weight(np.zeros((1, 7, 4), complex), np.ones((1, 7, 4)), 0, 2, bins * 0.0, ones, 1e-3, np.zeros((1, 7, 4), complex))
    x, mask = np.ones((1, 4, 4), f4), np.ones((4, 4), f4)
    powers = np.zeros(1)
    images.shift_and_mask(x, np.ones(1, f4), np.zeros((1, 2), i8), mask, 1.0, x.copy(), x.copy(), powers)
    half = np.zeros((1, 4, 3), np.complex64)
    images.gather_lattice(half, ky, kx, np.ones(2, f4), np.zeros((2, 2), f4), False, f4(1), np.zeros((1, 2, 2), f4))
    images.shell_power(half, np.zeros((4, 3), i4), 1.0, np.zeros((1, 3)))
    ctf_values.ctf_values(np.ones((5, 2)), np.ones((1, 6)), False, np.zeros((1, 2), f4))
    image, w = np.ones((1, 2, 2), f4), np.ones((1, 2), f4)
    weighing.shift_transforms(image, np.zeros((1, 2)), kx, ky, 4)
    weighing.weigh_images(image, w, np.ones(1, f4), w[0], w[0], False, image.copy(), w.copy(), image.copy(), w.copy(), powers)
    ramps = np.ones((4, 2, 2), f4)
    coarse_rows.shifted_rows(image, ramps, np.zeros((1, 4, 2), f4), np.zeros((1, 4, 2), f4))
    table = np.ones((1, 1, 4), f4)
    scores_out = selection.select_dense(
        np.ones((1, 1, 1), f4), np.ones((1, 1, 1), f4), np.ones((1, 1), f4), np.zeros(2, f4), np.zeros((1, 1, 1), f4), 2, True,
        np.zeros(1, i4), 0.999, 0,
    )
    _count, _best, start, parents, offset_start, offsets = scores_out
    slices = np.ones((2, 2, 2, 2), f4)
    flat = np.zeros(len(offsets) * 2 * 4, f4)
    slots = parents.astype(i8)
    prior, classes = np.zeros(len(parents), f4), np.zeros(len(parents), i4)
    fine_scores.ragged_scores(image, w, slices, ramps, start, slots, prior, classes, offset_start, offsets, 4, table[:, :, :1], flat)
    posterior.posterior_weights(flat, np.array([0, len(flat)], i8), 0.999)
    selection.select_ragged(np.zeros(2, f4), np.array([0, 1], i8), np.zeros(1, i4), 2, 0.999, 0)
    accumulation.accumulate(
        image, w, image, w, np.array([0, 1], i8), slices, ramps, start, slots, classes, np.zeros(len(parents), i8), offset_start,
        offsets, 4, flat, np.zeros(2, i4), np.ones((1, 1), f4), np.zeros((4, 2)), np.zeros((1, 2)), np.zeros((1, 2)),
        np.zeros((2, 2, 2, 2), f4), np.zeros((2, 2, 2), f4), np.zeros((1, 1)), np.zeros((1, 3)), np.zeros((1, 2)), np.zeros(1),
        np.zeros((1, 2)), np.zeros((1, 1)),
    )
