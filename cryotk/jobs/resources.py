"""What an iteration takes, before it runs: memory, disk, time. ``benchmarks/bench_memory.py`` compares it with what was measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryotk.execution.memory import available_memory
from cryotk.jobs.blocks import LANE_SHARE, WORK_BYTES, block_size, bytes_of_sums, most_lanes
from cryotk.kernels.backends import CPU
from cryotk.likelihood.parts import SHARED_BYTES, bytes_of_slot
from cryotk.likelihood.portions import TILE_BYTES
from cryotk.likelihood.prepare import CACHE_BYTES

__all__ = ["BASE_BYTES", "Work", "estimate_iteration", "memory_of_iteration", "offsets_in", "orientations_near"]

BASE_BYTES = 345_000_000
"""Interpreter, libraries and compiled kernels."""
ROW_BYTES = 700
"""Of a particle: table, columns, results."""


@dataclass(frozen=True)
class Work:
    """Sizes that memory and time of an iteration depend on."""

    n_particles: int
    """That are compared."""
    n_rows: int
    """Of the table."""
    box: int
    size: int
    """Window in pixels."""
    padding: float
    n_classes: int
    is_3d: bool
    orientations: float
    """Coarse orientations of one class that a particle is compared with."""
    n_children: int
    n_offsets: float
    """Coarse offsets."""
    coarse_pixels: float
    """Of the coarse pass."""
    significant: float
    """Coarse samples per particle that are looked at closely."""
    threads: int
    align: bool = True
    local: bool = False
    halves: int = 1
    """Half-sets, one compared after the other."""
    shared_maps: bool = False
    """Whether the halves still have one reference."""
    symmetries: int = 1
    """Operators of the point group."""
    batch: bool = False
    """Whether this is a mini-batch, with momenta and two pseudo halves."""

    @property
    def pixels(self) -> float:
        """Of a half plane within the window."""
        return np.pi / 8 * self.size**2 + self.size

    @property
    def points(self) -> float:
        """Of a padded half transform, all classes."""
        return bytes_of_sums(self.n_classes, self.size, self.padding, self.is_3d) / 24

    @property
    def samples(self) -> float:
        """Fine samples of each coarse one."""
        return 4.0 * self.n_children

    @property
    def shared_slices(self) -> float:
        """Memory of the fine slices that all blocks share; 0 where each block makes its own."""
        all_of_them = 8 * self.n_classes * self.orientations * self.n_children * self.pixels
        return all_of_them if self.align and not self.local and all_of_them <= CPU.slice_bytes else 0.0

    @property
    def block(self) -> int:
        """Particles of a block."""
        all_samples = 0 if self.is_3d or not self.align else self.n_classes * self.orientations * self.n_offsets * self.samples
        if self.batch:
            # a lane of each pseudo half is one block
            most = block_size(4 * self.n_particles, int(0.4 * self.size**2) + 1)
            return int(max(1, min(most, -(-self.n_particles // 2))))
        tiled = self.is_3d and self.align and not self.local and not self.shared_slices
        return block_size(max(self.n_particles // self.halves, 1), int(0.4 * self.size**2) + 1, samples=int(all_samples), tiled=tiled)

    @property
    def slots(self) -> float:
        """Orientations that a block meets in its fine pass."""
        grid, wanted = self.n_classes * self.orientations, self.block * self.significant
        if not self.align:
            return self.block * self.n_classes
        # of the shifts of an orientation two or three are significant
        return 0.5 * wanted if self.local else grid * -np.expm1(-wanted / max(grid, 1))


def offsets_in(radius: float) -> int:
    """Points of a grid of offsets within a radius in steps."""
    k = np.arange(-int(radius), int(radius) + 1)
    return int((k[:, None] ** 2 + k**2 <= radius**2 + 1e-6).sum())


def orientations_near(order: int, sigma: float) -> float:
    """Coarse orientations within three widths (degrees) of a pose."""
    cap = 12 * 4**order * (1 - np.cos(np.radians(min(3 * sigma, 180)))) / 2
    return float(max(cap, 1) * max(6 * sigma / (60 / 2**order), 1))


def _of_thread(w: Work) -> float:
    """Memory of a block and what is made of it."""
    b, p, image = w.block, w.pixels, w.box**2
    # images and the next block's; on the lattice what score and sums need; masked images and transforms of a portion
    prepare = b * (8 * image + 60 * p) + 6 * CACHE_BYTES
    kept = b * (8 * image + 36 * p)
    wanted = b * w.significant
    # scores, and lists that lead to them
    lists = (4 * w.samples + 12) * wanted
    slots = w.slots * bytes_of_slot(w.n_children, int(p))
    # slices and rows: of one tile or portion, or rows beside slices that there are already
    there_already = w.shared_slices or not w.align
    fine = lists + (min(SHARED_BYTES, 0.6 * slots) if there_already else min(1.5 * TILE_BYTES, slots))
    coarse = 0.0
    if w.align and not w.local:
        columns = w.n_classes * w.orientations / 2
        images = min(max(1.0, CPU.coarse_bytes / max(16 * w.n_offsets * columns, 1)), b)
        coarse = 12 * b * w.coarse_pixels + images * w.n_offsets * 8 * (columns + w.coarse_pixels) + images * columns * 4
    elif w.local:
        coarse = b * w.n_classes * w.orientations * (60 + 8 * w.n_offsets) + 12 * b * w.coarse_pixels
    return max(prepare, kept + max(fine, coarse))


def _tables(w: Work) -> tuple[float, float]:
    """Memory of what all blocks share, and more that it takes while it is made."""
    columns = w.n_classes * w.orientations / 2
    out = 8 * w.n_offsets * (w.coarse_pixels + 4 * w.pixels) if w.align else 0.0
    more = 4 * 8 * w.n_offsets * w.pixels
    if w.align and not w.local:
        out += 12 * columns * w.coarse_pixels + w.shared_slices
        more = max(more, 20 * columns * w.coarse_pixels)
    return out, more


def lanes_in_memory(w: Work, available: float) -> tuple[float, bool]:
    """Sums of lanes that are in memory together, and whether finished ones are held in files."""
    one = 24 * w.points
    most = most_lanes(w.n_particles // w.halves, w.n_classes, w.size, w.padding, w.is_3d, w.align)
    lanes = min(most, max(1, -(-w.n_particles // (w.halves * w.block))))
    if w.is_3d and (w.halves + 1) * one + WORK_BYTES > available:
        return 1.0, True
    at_once = int(np.clip(LANE_SHARE * available // max(one, 1) - 1, 1, min(w.threads, lanes)))
    # those under way and the total
    return float(min(lanes, at_once + 1)), False


def memory_of_iteration(w: Work, available: float | None = None) -> tuple[float, float]:
    """Peak memory of the process, and what is held in files because memory is short, in bytes.

    Parameters
    ----------
    w : Work
    available : float, optional
        Memory that the iteration may take; what the machine has left by default.
    """
    one, cube, k = 24 * w.points, float(w.box ** (3 if w.is_3d else 2)), w.n_classes
    reference = 8 * w.points
    maps = 8 * cube * k * w.halves
    before = BASE_BYTES + ROW_BYTES * w.n_rows + maps / (2 if w.shared_maps else 1)
    available = available_memory() if available is None else available
    lanes, on_disk = lanes_in_memory(w, available)
    tables, more = _tables(w)
    held = 0.0 if on_disk else (w.halves - 1) * one
    transform = w.box * 8 * w.points / (w.padding * w.size + 3) / k if w.is_3d else 0.0
    # a lane's rows beyond the sphere are never touched; additions in memory touch them all
    sums = lanes * one * np.pi / 4 if on_disk else one + (lanes - 1) * one * np.pi / 4
    if w.batch:
        return before + _batch(w, sums + reference + tables + w.threads * _of_thread(w)), 0.0
    expectation = before + held + reference + max(transform, tables + max(more, sums + w.threads * _of_thread(w)))
    inverse = 0.0
    if w.is_3d:
        inverse = (w.padding * w.size + 3) * w.box * (w.padding * w.size / 2 + 2) * 16 + 8 * cube
    mates = one / k if w.symmetries > 1 else 0.0
    totals = 0.0 if on_disk else w.halves * one
    # new maps and the mask beside the old maps
    maximization = before + totals + max(mates + (one / k if on_disk and w.symmetries > 1 else 0.0), inverse + maps + 4 * cube)
    return max(expectation, maximization), 0.53 * w.halves * one if on_disk else 0.0


def _batch(w: Work, expectation: float) -> float:
    """Memory of a mini-batch beside maps: momenta of the whole box, and sums of two pseudo halves."""
    momenta = 20 * bytes_of_sums(w.n_classes, w.box, w.padding, w.is_3d) / 24
    one = w.points / w.n_classes
    cube = float(w.box ** (3 if w.is_3d else 2))
    # the new map comes of momenta of the whole box
    inverse = (w.padding * w.box + 3) * w.box * (w.padding * w.box / 2 + 2) * 16 if w.is_3d else 0.0
    # copies of a class's sums, then what an update makes of them
    update = max(3 * 24 * one, 2 * 24 * one + 130 * one) + inverse
    return max(momenta + expectation, 2 * momenta + 2 * 24 * w.points + 8 * w.points + update + 20 * cube * w.n_classes)


# Seconds of one core, measured; a pixel is one of a half plane within the window.
SECONDS_IMAGE = 9e-9
"""Reading and preparing, per pixel of an image."""
SECONDS_LATTICE = 30e-9
"""Preparing, noise: per pixel of the lattice."""
FLOPS = 6e10
"""Of the coarse pass' matrix products."""
SECONDS_SELECT = 1.2e-9
"""Per score of the coarse pass."""
SECONDS_RAGGED = 0.03e-9
"""Coarse scores of local searches, per pixel."""
SECONDS_NEAR = 2e-9
"""A coarse slice that neighbours share, per pixel."""
SECONDS_SLICE = 3e-9
SECONDS_SAMPLE = 0.16e-9
"""Fine scores and sums, per sample and pixel."""
SECONDS_INSERT = 6e-9
SECONDS_MOMENTUM = 35e-9
SECONDS_POINT = 60e-9
"""Maximisation, per point of the padded transform."""


def seconds_of_iteration(w: Work) -> float:
    """Time of an iteration with nothing else on the processors."""
    n, p = w.n_particles, w.pixels
    blocks = n / max(w.block, 1)
    total = n * (w.box**2 * SECONDS_IMAGE + p * SECONDS_LATTICE)
    if w.align and not w.local:
        scores = n * w.n_classes * w.orientations * w.n_offsets
        total += scores * (2 * w.coarse_pixels / FLOPS + SECONDS_SELECT)
    elif w.local:
        per = n * w.n_classes * w.orientations
        total += per * w.coarse_pixels * (SECONDS_NEAR + w.n_offsets * SECONDS_RAGGED)
    if w.is_3d:
        # made for the scores and again for the sums
        total += blocks * w.slots * w.n_children * p * SECONDS_SLICE * (2 if w.align and not w.shared_slices else 1)
    total += n * w.significant * w.samples * p * SECONDS_SAMPLE
    total += blocks * w.slots * w.n_children * p * SECONDS_INSERT * (1.0 if w.is_3d else 0.5)
    # momenta are of the whole box
    momenta = bytes_of_sums(w.n_classes, w.box, w.padding, w.is_3d) / 24 * SECONDS_MOMENTUM if w.batch else 0.0
    return total / w.threads + w.points * w.halves * SECONDS_POINT + momenta


def estimate_iteration(w: Work, disk_bytes: float) -> dict[str, float]:
    """What ``job.estimate()`` gives.

    Returns
    -------
    dict
        ``memory_bytes``: peak of the process. ``scratch_bytes``: held in files meanwhile, where memory is short.
        ``disk_bytes_per_iteration``: of saved files. ``seconds_per_iteration``.
    """
    memory, scratch = memory_of_iteration(w)
    return {
        "memory_bytes": float(memory), "scratch_bytes": float(scratch), "disk_bytes_per_iteration": float(disk_bytes),
        "seconds_per_iteration": float(seconds_of_iteration(w)),
    }  # fmt: skip
