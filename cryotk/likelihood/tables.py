"""Tables that all blocks of one optics group share in an iteration: slices, phase ramps, windows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cryotk.data.refinement import RefinementModel
from cryotk.likelihood.prepare import ImagePreparation
from cryotk.likelihood.references import CoarseSlices, SliceMaker
from cryotk.likelihood.sampling import Sampling
from cryotk.projection import FourierReference, group_transform

__all__ = ["ExpectationOptions", "GroupTables", "make_group_tables"]

SLICE_BYTES = 192_000_000
"""Fine slices made once for all blocks; when they need more, each block makes its own."""


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


@dataclass
class GroupTables:
    """Tables of one optics group."""

    prepare: ImagePreparation
    maker: SliceMaker
    coarse_pixels: np.ndarray
    coarse: CoarseSlices | None
    fine: np.ndarray | None
    coarse_ramps: np.ndarray
    fine_ramps: np.ndarray
    model_shell: np.ndarray


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
    n_classes = len(references)
    lattice = prepare.lattice
    maker = SliceMaker(references, lattice, group_transform(prepare.optics, m.box_size, m.pixel_size))
    pixels = lattice.subset(options.coarse_window[prepare.group_index])
    a = prepare.optics.pixel_size
    coarse = fine = None
    if options.align:
        if not local:
            coarse = CoarseSlices(maker, s, pixels)
        n_fine = n_classes * s.n_orientations * s.n_children
        if not local and n_fine * 2 * len(lattice) * 4 <= SLICE_BYTES:
            o = np.arange(s.n_orientations)
            matrices = s.child_matrices(o).reshape(-1, 3, 3)
            k = np.repeat(np.arange(n_classes), len(matrices))
            fine = maker.slices(k, np.tile(matrices, (n_classes, 1, 1)))
            fine = fine.reshape(-1, s.n_children, 2, len(lattice))
        coarse_ramps = np.ascontiguousarray(lattice.ramps(s.coarse_offsets / a)[:, :, pixels])
        fine_ramps = lattice.ramps(s.fine_offsets / a)
    else:
        coarse_ramps = fine_ramps = lattice.ramps(np.zeros((1, 2)))
    rho = (prepare.optics.box_size * a) / (m.box_size * m.pixel_size)
    n_image = prepare.optics.box_size // 2 + 1
    shell = np.floor(np.arange(n_image) / rho + 0.5).astype(int)
    return GroupTables(prepare, maker, pixels, coarse, fine, coarse_ramps, fine_ramps, shell)
