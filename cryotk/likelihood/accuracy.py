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
STRIDE = 6
"""Every sixth rotation is tried for all particles, then those between the last alike and the first different."""


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
    n, lattice = len(poses), maker.lattice
    axis = rng.integers(3, size=n) if is_3d else np.full(n, 2)
    along_x = rng.random(n) < 0.5
    if not is_3d:
        poses = poses * (0, 0, 1)
    weight = 0.5 * np.asarray(ctf, float) ** 2 * inverse_noise
    still = _slices(maker, k, poses)

    def difference(steps: np.ndarray) -> np.ndarray:
        """(n, m) of rotations (n, m) in degrees."""
        moved = np.repeat(poses[:, None], steps.shape[1], 1)
        moved[np.arange(n), :, axis] += steps
        s = _slices(maker, k, moved.reshape(-1, 3)).reshape(n, -1, 2, len(lattice))
        s -= still[:, None]
        return np.einsum("nmcp,nmcp,np->nm", s, s, weight.astype(np.float32), optimize=False).astype(float)

    rows = np.arange(n)
    every = np.arange(STRIDE - 1, len(ROTATIONS), STRIDE)
    over = difference(np.repeat(ROTATIONS[every][None], n, 0)) > DISCRIMINATION
    bracket = np.where(over.any(1), over.argmax(1), len(every))
    between = np.minimum(bracket[:, None] * STRIDE + np.arange(STRIDE - 1)[None], len(ROTATIONS) - 1)
    inside = difference(ROTATIONS[between]) > DISCRIMINATION
    last = np.minimum(bracket * STRIDE + STRIDE - 1, len(ROTATIONS) - 1)
    rotation = ROTATIONS[np.where(inside.any(1), between[rows, inside.argmax(1)], last)]
    power = weight * (still.astype(float) ** 2).sum(1)
    frequency = np.where(along_x[:, None], lattice.kx, lattice.ky)
    shift = [
        _first(SHIFTS, ((2 - 2 * np.cos(2 * np.pi * f[None] * SHIFTS[:, None] / lattice.box)) * w).sum(1))
        for f, w in zip(frequency, power, strict=True)
    ]
    return float(rotation.mean()), float(np.mean(shift))


def _slices(maker: SliceMaker, k: int, angles: np.ndarray) -> np.ndarray:
    return maker.slices(np.full(len(angles), k), euler_to_matrix(*angles.T))


def _first(values: np.ndarray, difference: np.ndarray) -> float:
    over = np.nonzero(difference > DISCRIMINATION)[0]
    return float(values[over[0]] if len(over) else values[-1])
