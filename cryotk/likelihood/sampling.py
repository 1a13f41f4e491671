"""Orientation and offset grids: coarse samples, their finer children, and the random perturbation of an iteration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cryotk.data.refinement import SamplingSettings
from cryotk.geometry import directions as symmetric_directions
from cryotk.geometry import euler_to_matrix, healpix, matrix_to_euler

__all__ = ["Sampling", "offset_grid", "oversampled_offsets"]


def offset_grid(offset_range: float, step: float) -> np.ndarray:
    """(T, 2) coarse offsets x, y in the unit of the arguments, inside a disc, x slowest."""
    if offset_range <= 0 or step <= 0:
        return np.zeros((1, 2))
    m = int(np.ceil(offset_range / step))
    grid = np.arange(-m, m + 1) * step
    x, y = np.meshgrid(grid, grid, indexing="ij")
    keep = x**2 + y**2 < offset_range**2 + 0.001
    return np.stack([x[keep], y[keep]], -1)


def oversampled_offsets(coarse: np.ndarray, step: float, order: int) -> np.ndarray:
    """(T, 4^order, 2) children of coarse offsets: centres of the sub-cells, x slowest."""
    n = 2**order
    sub = -step / 2 + (0.5 + np.arange(n)) * step / n if order > 0 else np.zeros(1)
    dx, dy = np.meshgrid(sub, sub, indexing="ij")
    return coarse[:, None, :] + np.stack([dx.ravel(), dy.ravel()], -1)[None]


@dataclass
class Sampling:
    """The samples of one iteration.

    An orientation index ``o`` counts (direction, psi) with psi fastest; 2D has one direction.

    Parameters
    ----------
    settings : SamplingSettings
    oversampling : int
        Each coarse orientation has ``2^q`` (2D) or ``8^q`` (3D) children, each offset ``4^q``.
    """

    settings: SamplingSettings
    oversampling: int = 1

    @cached_property
    def n_psi(self) -> int:
        """In-plane angles of the coarse grid."""
        if self.settings.is_3d:
            return 6 * 2**self.settings.healpix_order
        return int(np.ceil(360.0 / self.settings.psi_step - 1e-9))

    @property
    def psi_step(self) -> float:
        """Coarse in-plane step in degrees."""
        return 360.0 / self.n_psi

    @cached_property
    def directions(self) -> np.ndarray:
        """(D, 2) rot and tilt in degrees; one row in 2D."""
        if not self.settings.is_3d:
            return np.zeros((1, 2))
        if self.settings.directions is not None:
            return np.asarray(self.settings.directions, float)
        limit = self.settings.limit_tilt
        rot, tilt = symmetric_directions(
            self.settings.healpix_order, self.settings.symmetry, None if limit < -90.5 else limit
        )
        return np.stack([rot, tilt], -1)

    @property
    def n_directions(self) -> int:
        """Number of directions."""
        return len(self.directions)

    @property
    def n_orientations(self) -> int:
        """Coarse orientations of one class."""
        return self.n_directions * self.n_psi

    @property
    def n_children(self) -> int:
        """Fine orientations of one coarse orientation."""
        return (8 if self.settings.is_3d else 2) ** self.oversampling

    @property
    def n_offset_children(self) -> int:
        """Fine offsets of one coarse offset."""
        return 4**self.oversampling

    @cached_property
    def psi(self) -> np.ndarray:
        """(n_psi,) coarse, unperturbed in-plane angles in degrees."""
        return np.arange(self.n_psi) * self.psi_step

    @cached_property
    def _perturbation(self) -> np.ndarray:
        h = self.settings.perturbation * self.psi_step
        return euler_to_matrix(h, h, h) if self.settings.is_3d else np.eye(3)

    def _matrices(self, rot: np.ndarray, tilt: np.ndarray, psi: np.ndarray) -> np.ndarray:
        if self.settings.is_3d:
            return euler_to_matrix(rot, tilt, psi) @ self._perturbation
        zero = np.zeros_like(psi)
        return euler_to_matrix(zero, zero, psi + self.settings.perturbation * self.psi_step)

    def matrices(self, orientations: np.ndarray) -> np.ndarray:
        """(n, 3, 3) rotations of coarse orientation indices, perturbed."""
        d, p = np.divmod(np.asarray(orientations), self.n_psi)
        return self._matrices(self.directions[d, 0], self.directions[d, 1], self.psi[p])

    @cached_property
    def _child_directions(self) -> np.ndarray:
        q = self.oversampling
        if not self.settings.is_3d or q == 0:
            return self.directions[:, None, :]
        order = self.settings.healpix_order
        pixels = healpix.angles_to_pixel(order, self.directions[:, 0], self.directions[:, 1])
        rot, tilt = healpix.pixel_to_angles(order + q, healpix.children(order, pixels, q))
        return np.stack([rot, tilt], -1)

    def child_angles(self, orientations: np.ndarray) -> np.ndarray:
        """(n, C, 3) unperturbed rot, tilt, psi of the children, direction child slowest."""
        d, p = np.divmod(np.asarray(orientations), self.n_psi)
        n = 2**self.oversampling
        step = self.psi_step
        psi = self.psi[p][:, None] + (-step / 2 + (0.5 + np.arange(n)) * step / n)[None, :]
        dirs = self._child_directions[d]
        m = dirs.shape[1]
        out = np.empty((len(d), m, n, 3))
        out[..., :2] = dirs[:, :, None, :]
        out[..., 2] = psi[:, None, :]
        return out.reshape(len(d), m * n, 3)

    def child_matrices(self, orientations: np.ndarray) -> np.ndarray:
        """(n, C, 3, 3) rotations of the children, perturbed."""
        a = self.child_angles(orientations)
        return self._matrices(a[..., 0], a[..., 1], a[..., 2])

    def pose(self, orientations: np.ndarray, children: np.ndarray) -> np.ndarray:
        """(n, 3) rot, tilt, psi in degrees of fine orientations, perturbation included; psi in (-180, 180]."""
        a = self.child_angles(orientations)[np.arange(len(orientations)), children]
        if self.settings.is_3d:
            return matrix_to_euler(euler_to_matrix(a[:, 0], a[:, 1], a[:, 2]) @ self._perturbation)
        psi = a[:, 2] + self.settings.perturbation * self.psi_step
        return np.stack([np.zeros(len(a)), np.zeros(len(a)), 180.0 - (180.0 - psi) % 360.0], -1)

    @cached_property
    def offsets(self) -> np.ndarray:
        """(T, 2) coarse, unperturbed offsets in Å."""
        return offset_grid(self.settings.offset_range, self.settings.offset_step)

    @cached_property
    def fine_offsets(self) -> np.ndarray:
        """(T * Q, 2) perturbed children of the offsets in Å."""
        fine = oversampled_offsets(self.offsets, self.settings.offset_step, self.oversampling)
        return fine.reshape(-1, 2) + self.settings.perturbation * self.settings.offset_step

    @property
    def coarse_offsets(self) -> np.ndarray:
        """(T, 2) coarse offsets in Å, perturbed."""
        return self.offsets + self.settings.perturbation * self.settings.offset_step
