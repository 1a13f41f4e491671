"""How well a particle's pose can be told: the smallest rotation and shift that the noise does not hide."""

from __future__ import annotations

import numpy as np

from cryotk.geometry import euler_to_matrix
from cryotk.likelihood.references import SliceMaker

__all__ = ["estimate_accuracy"]

DISCRIMINATION = -np.log(0.01)
"""Log likelihood ratio at which two poses count as different (99 %)."""


def _increments(steps: list[tuple[float, float]], limit: float) -> np.ndarray:
    out, value = [], 0.0
    while value <= limit:
        step = next(s for bound, s in steps if value < bound - 1e-9)
        value += step
        out.append(value)
    return np.array(out)


ROTATIONS = _increments([(0.2, 0.05), (1, 0.1), (2, 0.2), (5, 0.5), (10, 1), (20, 2), (np.inf, 5)], 30.0)
SHIFTS = _increments([(1, 0.1), (2, 0.2), (5, 0.5), (10, 1), (np.inf, 2)], 10.0)


def estimate_accuracy(
    maker: SliceMaker,
    k: int,
    poses: np.ndarray,
    ctf: np.ndarray,
    inverse_noise: np.ndarray,
    rng: np.random.Generator,
    is_3d: bool,
) -> tuple[float, float]:
    """Accuracy of rotations (degrees) and shifts (pixels) of one class.

    Parameters
    ----------
    maker : SliceMaker
    k : int
        Class.
    poses : (n, 3) float
        rot, tilt, psi in degrees of a few particles.
    ctf : (n, P) float
        CTF on the lattice.
    inverse_noise : (P,) float
        1 / sigma2 where the pixel counts, else 0.
    rng : numpy.random.Generator
        Chooses the axis for each particle.
    is_3d : bool

    Returns
    -------
    rotation, shift : float
        Means over the particles.
    """
    lattice = maker.lattice
    rotation, shift = [], []
    for pose, c in zip(poses, ctf, strict=True):
        angles = pose if is_3d else np.array([0.0, 0.0, pose[2]])
        axis = int(rng.integers(3)) if is_3d else 2
        moved = np.repeat(angles[None], len(ROTATIONS) + 1, 0)
        moved[1:, axis] += ROTATIONS
        s = maker.backend.to_host(maker.slices(np.full(len(moved), k), euler_to_matrix(*moved.T))).astype(float)
        weight = 0.5 * c.astype(float) ** 2 * inverse_noise
        difference = np.einsum("ncp,p->n", (s[1:] - s[:1]) ** 2, weight)
        rotation.append(_first(ROTATIONS, difference))
        power = weight * (s[0] ** 2).sum(0)
        frequency = lattice.kx if rng.random() < 0.5 else lattice.ky
        phase = 2 * np.pi * frequency[None] * SHIFTS[:, None] / lattice.box
        shift.append(_first(SHIFTS, ((2 - 2 * np.cos(phase)) * power).sum(1)))
    return float(np.mean(rotation)), float(np.mean(shift))


def _first(values: np.ndarray, difference: np.ndarray) -> float:
    over = np.nonzero(difference > DISCRIMINATION)[0]
    return float(values[over[0]] if len(over) else values[-1])
