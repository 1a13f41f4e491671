"""Slices of all classes, and the insertion of weighted images back, on the lattice of one optics group."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryotk.kernels.backends import CPU, Backend
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
    backend : Backend
        Slices and rows are arrays of this backend; classes and matrices are numpy arrays.
    """

    def __init__(
        self, references: list[FourierReference], lattice: Lattice, transform: np.ndarray, backend: Backend = CPU
    ) -> None:
        self.references = references
        self.lattice = lattice
        self.transform = transform
        self.backend = backend
        self._inverse = np.linalg.inv(transform)
        self._kx, self._ky = (backend.to_device(k, np.int32) for k in (lattice.kx, lattice.ky))
        self._transforms: dict[int, Any] = {}

    def rotations(self, matrices: np.ndarray) -> np.ndarray:
        """Matrices to slice and insert with, (n, 3, 3)."""
        return self.transform @ matrices

    def inverses(self, matrices: np.ndarray) -> np.ndarray:
        """(n, 3, 3) inverses of :meth:`rotations`; those of rotations are their transposes."""
        return np.ascontiguousarray(np.swapaxes(np.asarray(matrices, float).reshape(-1, 3, 3), 1, 2) @ self._inverse)

    def _transform_of(self, k: int) -> Any:
        if k not in self._transforms:
            self._transforms[k] = self.backend.to_device(self.references[k].data)
        return self._transforms[k]

    def slices(self, classes: np.ndarray, matrices: np.ndarray, pixels: np.ndarray | None = None) -> Any:
        """(n, 2, P) float32 slices of ``references[classes[i]]`` at ``matrices[i]``."""
        n = len(self.lattice) if pixels is None else len(pixels)
        out = self.backend.xp.empty((len(classes), 2, n), np.float32)
        return self.slices_at(classes, self.inverses(matrices), out, pixels)

    def slices_at(
        self, classes: np.ndarray, inverse: np.ndarray, out: Any, pixels: np.ndarray | None = None, places: np.ndarray | None = None
    ) -> Any:
        """The same at :meth:`inverses`, written into ``out`` (n, 2, P), or into its rows ``places`` (n,)."""
        backend = self.backend
        kx, ky = self._kx, self._ky
        if pixels is not None:
            kx, ky = (backend.to_device(k[pixels], np.int32) for k in (self.lattice.kx, self.lattice.ky))
        for k in np.unique(classes):
            reference = self.references[k]
            extract = backend.extract_slices_3d if reference.is_3d else backend.extract_slices_2d
            of_class = np.nonzero(classes == k)[0]
            extract(
                self._transform_of(k), backend.to_device(inverse[of_class]), kx, ky, reference.padding, reference.r_max,
                backend.to_device(of_class if places is None else places[of_class]), out,
            )  # fmt: skip
        return out

    def insert(
        self, accumulators: list[Accumulator], classes: np.ndarray, matrices: np.ndarray, rows: Any, weights: Any, picked: np.ndarray
    ) -> None:
        """Insert some of (N, 2, P) data rows and (N, P) weights: ``picked`` (n,), of the classes and rotations given."""
        self.insert_at(accumulators, classes, self.inverses(matrices), rows, weights, picked)

    def insert_at(
        self, accumulators: list[Accumulator], classes: np.ndarray, inverse: np.ndarray, rows: Any, weights: Any, picked: np.ndarray
    ) -> None:
        """The same at :meth:`inverses`."""
        if len(picked) == 0:
            return
        backend, step = self.backend, self.backend.insert_slices_at_once
        # class after class, brought to the device in one go
        order = np.argsort(classes, kind="stable")
        there, turned = backend.to_device(picked[order]), backend.to_device(inverse[order])
        units = backend.insertion_units(rows, weights)
        present, start = np.unique(classes[order], return_index=True)
        for k, a, b in zip(present, start, [*start[1:], len(order)], strict=True):
            for first in range(a, b, step):
                some = slice(first, min(first + step, b))
                self._insert(accumulators[k], rows, weights, there[some], turned[some], units)

    def _insert(self, accumulator: Accumulator, rows: Any, weights: Any, picked: Any, inverse: Any, units: dict[str, Any]) -> None:
        backend = self.backend
        insert = backend.insert_slices_3d if accumulator.is_3d else backend.insert_slices_2d
        try:
            insert(
                accumulator.data, accumulator.weight, rows, weights, picked, inverse, self._kx, self._ky, accumulator.padding,
                accumulator.r_max, **units,
            )  # fmt: skip
            return
        except backend.out_of_memory:
            # nothing has been added: the sum is the kernel's last step
            if len(picked) == 1:
                raise
        backend.free()
        half = len(picked) // 2
        self._insert(accumulator, rows, weights, picked[:half], inverse[:half], units)
        self._insert(accumulator, rows, weights, picked[half:], inverse[half:], units)


class CoarseSlices:
    """All coarse slices of an iteration in the layout of the matrix product.

    With an even number of in-plane angles only the first half circle is stored: psi + 180 is the conjugate.
    """

    def __init__(self, maker: SliceMaker, sampling: Sampling, pixels: np.ndarray) -> None:
        k, xp = len(maker.references), maker.backend.xp
        self.halved = sampling.n_psi % 2 == 0
        n_psi = sampling.n_psi // 2 if self.halved else sampling.n_psi
        o = (np.arange(sampling.n_directions)[:, None] * sampling.n_psi + np.arange(n_psi)[None]).ravel()
        matrices = sampling.matrices(o)
        values = maker.slices(np.repeat(np.arange(k), len(o)), np.tile(matrices, (k, 1, 1)), pixels)
        self.real = xp.ascontiguousarray(values[:, 0])
        self.imag = xp.ascontiguousarray(values[:, 1])
        self.half_power = 0.5 * (self.real**2 + self.imag**2)
        self.block_class = maker.backend.to_device(np.repeat(np.arange(k), sampling.n_directions), np.int32)
