"""How particles are cut into blocks and lanes, and how many lanes' sums are in memory at once.

All but the last depends on nothing but data set, settings and kind of device: it enters the arithmetic.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from cryotk.execution.lanes import default_threads, on_cluster
from cryotk.execution.memory import available_memory
from cryotk.geometry import euler_to_matrix, healpix, symmetry_operators
from cryotk.kernels.backends import CPU, Backend
from cryotk.projection import scratch_folder

if TYPE_CHECKING:
    from cryotk.jobs.step import StepContext

__all__ = ["MAX_LANES_2D", "MAX_LANES_3D", "block_size", "bytes_of_sums", "cut_blocks", "lanes_at_once", "maps_at_once", "most_lanes", "sums_on_disk"]

_log = logging.getLogger(__name__)

MAX_LANES_2D, MAX_LANES_3D = 8, 4


def block_size(n: int, pixels: int, backend: Backend = CPU, samples: int = 0, *, tiled: bool = False) -> int:
    """Particles of a block: bounded memory; depends only on data set, settings and kind of device.

    ``samples`` are the fine samples that one particle may have at most, where they may all count at once. There are at least four
    blocks for threads to share, unless blocks are ``tiled``: then each makes and inserts all slices anew, so that few pay, and
    threads share the tiles of a block.
    """
    by_memory = max(16, backend.block_bytes // (72 * max(pixels, 1)))
    by_samples = max(16, backend.sample_bytes // (4 * max(samples, 1)))
    most = int(max(1, min(backend.max_block, by_memory, by_samples)))
    if tiled and not backend.on_device:
        return max(1, -(-n // -(-n // most)))
    return int(max(1, min(most, -(-n // 4))))


def makes_slices_by_block(context: StepContext) -> bool:
    """Whether all particles are compared with all orientations, and memory does not hold the fine slices of these."""
    m, s = context.model, context.sampling
    if not m.is_3d or not context.settings.align or context.local:
        return False
    pixels = int(np.pi / 8 * context.size**2) + context.size
    return m.n_classes * s.n_orientations * s.n_children * 8 * pixels > context.backend.slice_bytes


def fine_samples_2d(context: StepContext) -> int:
    """Fine samples of a particle when all of the coarse grid counts; 0 for maps, of which few count at any time."""
    s = context.sampling
    if context.model.is_3d or not context.settings.align:
        return 0
    return context.model.n_classes * s.n_psi * s.n_children * len(s.fine_offsets)


SORTED_TOGETHER = 4096
"""Particles that are put in order of direction at a time: more would scatter reads over all stacks."""


def _neighbours_together(rows: np.ndarray, poses: np.ndarray, symmetry: str) -> np.ndarray:
    """Rows in an order in which particles of like directions follow each other: what they read and add to lies together."""
    matrices = euler_to_matrix(*poses.T)[:, None] @ symmetry_operators(symmetry)[None]
    axes = matrices[:, :, 2]
    rot = np.degrees(np.arctan2(axes[..., 1], axes[..., 0]))
    tilt = np.degrees(np.arccos(np.clip(axes[..., 2], -1, 1)))
    # of all mates the same one for neighbours: that with the lowest pixel
    pixel = healpix.angles_to_pixel(3, rot.ravel(), tilt.ravel()).reshape(rot.shape).min(1)
    chunk = np.arange(len(rows)) // SORTED_TOGETHER
    return rows[np.lexsort((pixel, chunk))]


def cut_blocks(context: StepContext) -> list[np.ndarray]:
    """Particles in blocks of one optics group, in the order of the table."""
    everyone = np.arange(context.data.n) if context.rows is None else context.rows
    group = context.data.group_of_particle()[everyone]
    size = context.size
    out = []
    for g in range(len(context.data.optics)):
        rows = everyone[group == g]
        if context.local or (context.model.is_3d and not context.settings.align):
            symmetry = context.settings.relax_symmetry or context.sampling_settings.symmetry
            rows = _neighbours_together(rows, context.state.poses[rows], symmetry)
        per = block_size(
            len(everyone), int(0.4 * size * size) + 1, context.backend, fine_samples_2d(context), tiled=makes_slices_by_block(context)
        )
        out += [rows[i : i + per] for i in range(0, len(rows), per)]
    return out


WORK_BYTES = 1_500_000_000
"""What an iteration on large maps takes beside its sums: blocks of images, slices, slabs."""
LANE_SHARE = 0.35
"""Share of the available memory that sums of lanes may take; lanes that do not fit side by side are done one after the other."""


def bytes_of_sums(n_classes: int, size: int, padding: float, is_3d: bool) -> float:
    """Memory of the accumulators of all classes."""
    r = np.floor(padding * size / 2 + 0.5)
    return float(24 * n_classes * (2 * r + 3) ** (2 if is_3d else 1) * (r + 2))


def most_lanes(n: int, n_classes: int, size: int, padding: float, is_3d: bool, align: bool, backend: Backend = CPU) -> int:
    """Lanes at most. Each has sums of its own, to be cleared and added up: little beside what it inserts, or lanes do not pay."""
    if backend.lanes:
        return backend.lanes
    if not is_3d:
        return MAX_LANES_2D
    if align:
        return MAX_LANES_3D
    # one slice of each particle and class
    points = bytes_of_sums(n_classes, size, padding, is_3d) / 24
    return int(np.clip(n * n_classes * (np.pi / 8 * size**2 + size) / points, 1, MAX_LANES_3D))


MAPS_BYTES = 256_000_000
"""Working memory of maps that are made side by side; about half of an accumulator each."""


FEW_BYTES = 4_000_000
"""Averages of less are made sooner than threads begin."""


def maps_at_once(context: StepContext, threads: int | None) -> int:
    """Classes (or half-sets) whose maps the maximisation makes side by side."""
    m = context.model
    one = bytes_of_sums(1, context.size, m.padding, m.is_3d) / 2
    if m.n_classes * one < FEW_BYTES:
        return 1
    return int(np.clip(MAPS_BYTES // one, 1, threads or default_threads()))


def lanes_at_once(context: StepContext, most: int) -> int:
    """Lanes whose sums are in memory together; the others wait, and threads share the blocks of those that are under way."""
    if on_cluster():
        return most
    if context.backend.on_device:
        # a card does one thing at a time, and threads that take turns in Python wait for each other
        return min(most, len(context.devices))
    m = context.model
    one = bytes_of_sums(m.n_classes, context.size, m.padding, m.is_3d)
    # and the total
    return int(np.clip(LANE_SHARE * available_memory() // one - 1, 1, most))


def sums_on_disk(context: StepContext) -> bool:
    """Whether memory is so short that it holds one lane's sums alone, and those that are finished are held in files.

    The total of each half-set, a lane's sums and what the maximisation needs have to be in memory otherwise. It changes no bit.
    """
    m = context.model
    if not m.is_3d:
        return False
    one = bytes_of_sums(m.n_classes, context.size, m.padding, True)
    halves = 2 if context.rows is not None else 1
    needed = (halves + 1) * one + WORK_BYTES
    short = needed > available_memory()
    # files hold the sphere, not the cube around it
    if short:
        _log.warning(
            "sums of an iteration take %.1f GB and memory has %.1f: %.1f GB are held in %s meanwhile, lanes are done one after the other",
            needed / 1e9, available_memory() / 1e9, 0.53 * halves * one / 1e9, scratch_folder(0.53 * one),
        )  # fmt: skip
    return short
