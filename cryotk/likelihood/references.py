"""Slices of all classes, and the insertion of weighted images back, on the lattice of one optics group."""

from __future__ import annotations

import numpy as np

from cryotk.likelihood.lattice import Lattice
from cryotk.likelihood.sampling import Sampling
from cryotk.projection import Accumulator, FourierReference, group_transform

__all__ = ["CoarseSlices", "SliceMaker", "group_transform"]


class SliceMaker:
    """Slices of the references at orientation indices, split into real and imaginary part.

    Parameters
    ----------
    references : list of FourierReference
        One per class.
    lattice : Lattice
    transform : (3, 3) float
        See :func:`group_transform`.
    """

    def __init__(self, references: list[FourierReference], lattice: Lattice, transform: np.ndarray) -> None:
        self.references = references
        self.lattice = lattice
        self.transform = transform

    def rotations(self, matrices: np.ndarray) -> np.ndarray:
        """Matrices to slice and insert with, (n, 3, 3)."""
        return self.transform @ matrices

    def slices(self, classes: np.ndarray, matrices: np.ndarray, pixels: np.ndarray | None = None) -> np.ndarray:
        """(n, 2, P) float32 slices of ``references[classes[i]]`` at ``matrices[i]``."""
        kx, ky = self.lattice.kx, self.lattice.ky
        if pixels is not None:
            kx, ky = kx[pixels], ky[pixels]
        out = np.empty((len(classes), 2, len(kx)), np.float32)
        rotated = self.rotations(matrices)
        for k in np.unique(classes):
            of_class = np.nonzero(classes == k)[0]
            # a thousand slices at a time: the complex copy stays small
            for first in range(0, len(of_class), 1024):
                some = of_class[first : first + 1024]
                values = self.references[k].slices(rotated[some], kx, ky)
                out[some, 0] = values.real
                out[some, 1] = values.imag
        return out

    def insert(self, accumulators: list[Accumulator], classes: np.ndarray, matrices: np.ndarray, rows: np.ndarray,
               weights: np.ndarray) -> None:
        """Insert (n, 2, P) data rows and (n, P) weights of fine orientations."""
        rotated = self.rotations(matrices)
        for k in np.unique(classes):
            of_class = np.nonzero(classes == k)[0]
            for first in range(0, len(of_class), 1024):
                some = of_class[first : first + 1024]
                data = rows[some, 0] + 1j * rows[some, 1]
                accumulators[k].insert(data, weights[some], rotated[some], self.lattice.kx, self.lattice.ky)


class CoarseSlices:
    """All coarse slices of an iteration in the layout of the matrix product.

    With an even number of in-plane angles only the first half circle is stored: psi + 180 is the conjugate.
    """

    def __init__(self, maker: SliceMaker, sampling: Sampling, pixels: np.ndarray) -> None:
        k = len(maker.references)
        self.halved = sampling.n_psi % 2 == 0
        n_psi = sampling.n_psi // 2 if self.halved else sampling.n_psi
        o = (np.arange(sampling.n_directions)[:, None] * sampling.n_psi + np.arange(n_psi)[None]).ravel()
        matrices = sampling.matrices(o)
        values = maker.slices(np.repeat(np.arange(k), len(o)), np.tile(matrices, (k, 1, 1)), pixels)
        self.real = np.ascontiguousarray(values[:, 0])
        self.imag = np.ascontiguousarray(values[:, 1])
        self.half_power = 0.5 * (self.real**2 + self.imag**2)
        self.block_class = np.repeat(np.arange(k), sampling.n_directions).astype(np.int32)
