"""Tables that all blocks of one optics group share in an iteration: slices, phase ramps, windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cryotk.data.refinement import RefinementModel
from cryotk.kernels.backends import Backend
from cryotk.kernels.shift_grid import ShiftGrid, make_shift_grid
from cryotk.likelihood.prepare import ImagePreparation
from cryotk.likelihood.references import CoarseSlices, SliceMaker
from cryotk.likelihood.sampling import Sampling
from cryotk.projection import FourierReference, group_transform

__all__ = ["ExpectationOptions", "GroupTables", "make_group_tables"]


@dataclass(frozen=True)
class ExpectationOptions:
    """How the likelihood is evaluated (not what is sampled)."""

    adaptive_fraction: float = 0.999
    max_significant: int = 0
    align: bool = True
    compat: str | None = None
    coarse_window: dict[int, int] = field(default_factory=dict)
    """Image window of the coarse pass of each optics group (position)."""
    signal_limit: float = 3.0
    """Shells with data_vs_prior above this enter the scale sums."""
    relax_symmetry: str | None = None
    """Point group whose mates of a pose local searches look around too."""


@dataclass
class GroupTables:
    """Tables of one optics group."""

    prepare: ImagePreparation
    maker: SliceMaker
    coarse_pixels: np.ndarray
    """Pixels of the coarse pass on the lattice."""
    coarse_index: Any
    """The same as an array of the backend."""
    coarse: CoarseSlices | None
    fine: Any
    """Fine slices of all classes and orientations, or None when each block makes its own."""
    coarse_ramps: Any
    fine_ramps: Any
    fine_grid: ShiftGrid | None
    """The fine shifts as tables per axis, for kernels of the CPU."""
    model_shell: np.ndarray

    @property
    def backend(self) -> Backend:
        """Whose arrays slices and ramps are."""
        return self.maker.backend


def make_group_tables(
    prepare: ImagePreparation,
    model: RefinementModel,
    sampling: Sampling,
    references: list[FourierReference],
    options: ExpectationOptions,
    local: bool,
) -> GroupTables:
    """Make what all blocks of one optics group share; ``local`` searches need no slices ahead."""
    s, m = sampling, model
    lattice, backend = prepare.lattice, prepare.backend
    maker = SliceMaker(references, lattice, group_transform(prepare.optics, m.box_size, m.pixel_size), backend)
    pixels = lattice.subset(options.coarse_window[prepare.group_index])
    a = prepare.optics.pixel_size
    coarse = fine = None
    if options.align:
        if not local:
            coarse = CoarseSlices(maker, s, pixels)
            fine = _fine_slices(maker, s)
        coarse_ramps = lattice.ramps(s.coarse_offsets / a)[:, :, pixels]
        fine_shifts = s.fine_offsets / a
        fine_ramps = lattice.ramps(fine_shifts)
    else:
        fine_shifts = np.zeros((1, 2))
        coarse_ramps = fine_ramps = lattice.ramps(fine_shifts)
    fine_grid = None if backend.on_device else make_shift_grid(lattice.kx, lattice.ky, fine_shifts, lattice.box)
    rho = (prepare.optics.box_size * a) / (m.box_size * m.pixel_size)
    n_image = prepare.optics.box_size // 2 + 1
    shell = np.floor(np.arange(n_image) / rho + 0.5).astype(int)
    ramps = backend.to_device(coarse_ramps), backend.to_device(fine_ramps)
    return GroupTables(prepare, maker, pixels, backend.to_device(pixels), coarse, fine, *ramps, fine_grid, shell)


def _fine_slices(maker: SliceMaker, sampling: Sampling) -> Any:
    """(orientations of all classes, C, 2, P), or None where they do not fit."""
    n_classes, n_pixels = len(maker.references), len(maker.lattice)
    n_fine = n_classes * sampling.n_orientations * sampling.n_children
    if n_fine * 2 * n_pixels * 4 > maker.backend.slice_bytes:
        return None
    matrices = sampling.child_matrices(np.arange(sampling.n_orientations)).reshape(-1, 3, 3)
    k = np.repeat(np.arange(n_classes), len(matrices))
    try:
        fine = maker.slices(k, np.tile(matrices, (n_classes, 1, 1)))
    except maker.backend.out_of_memory:
        return None
    return fine.reshape(-1, sampling.n_children, 2, n_pixels)
