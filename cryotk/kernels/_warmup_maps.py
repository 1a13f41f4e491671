"""Calls the kernels of maps once on tiny input, with the types they are used with."""

from __future__ import annotations

import numpy as np

from cryotk.kernels import distance, local_windows, rotate_volume, shell_sums


def run() -> None:
    """Compile the kernels of post-processing, masks, local resolution and symmetry."""
    f4, n = np.float32, 4
    shells = np.floor(np.sqrt(np.arange(3 * 4 + 1)) + 0.5).astype(np.int32)
    for kind, real in ((np.complex64, f4), (np.complex128, np.float64)):
        f = np.ones((n, n, n // 2 + 1), kind)
        shell_sums.cross_sums(f, f, shells, 0, n, np.zeros((3, n // 2 + 1)))
        shell_sums.amplitude_sums(f, 0, n, np.zeros(13))
        shell_sums.apply_gain(f, np.ones(13, real), 0, n, f)
        shell_sums.randomise_phases(f, 1, np.uint64(1), shell_sums.unit_circle(), 0, n)
    inside = np.ones((n, n, n), np.uint8)
    for cap in (1, 101):
        kind, far = distance.integer_type(cap)
        out = np.empty(inside.shape, kind)
        distance.distance_in_planes(inside, cap, far, 0, n, out)
        distance.distance_across_planes(out, cap, far, 0, n)
        for table in (np.ones(2, f4), np.ones(2, np.uint8)):
            distance.look_up(out, table, 0, n, np.empty(inside.shape, table.dtype))
    maps, window = np.ones((4, n, n, n), f4), np.ones((3, 3, 3), f4)
    parts = np.empty((2, 2, 2, 4, 2, 2, 2), f4)
    local_windows.cut_parts(maps, 1, 1, 1, window, parts)
    products = np.ones((6, 9), f4)
    local_windows.add_products(np.ones((4, 9), f4), True, products)
    local_windows.products_to_shells(products.reshape(6, 3, 3), 0, 3, n, shells, np.zeros((3, 6)))
    turn, coefficients = np.ones(3, np.complex64), np.zeros((2, 2, 3, 3, 3), np.complex64)
    local_windows.coefficients_around(np.ones((n, n, 3), np.complex64), np.ones(13, f4), 2, turn, turn, turn, coefficients)
    local_windows.join_parts(np.ones((2, 2, 2, 2, 3), np.complex64), np.empty((3, 3, 3), np.complex64))
    sums = [np.zeros((n, n, n)) for _ in range(3)]
    local_windows.add_window(np.ones((3, 3, 3), f4), window, 0.1, 1, 1, 1, *sums)
    eye = np.eye(3)[None].copy()
    for volume in (np.ones((n, n, n), f4), np.ones((n, n, n))):
        rotate_volume.mean_over_rotations(volume, eye, 0, n, np.empty_like(volume))
        rotate_volume.spline_filter(volume.copy())
        rotate_volume.mean_over_rotations_spline(volume, eye, np.zeros(3), 0, n, np.empty_like(volume))
