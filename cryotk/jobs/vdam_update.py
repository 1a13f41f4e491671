"""VDAM's update of maps: two momenta per class, a step per frequency, and what becomes of classes that nobody visits.

Each mini-batch gives two gradients per class, from the particles of even and of odd rank: where they agree there is
signal. Pure functions of arrays; the method is that of Kimanius et al. (IUCrJ 2024), as RELION 5 does it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryotk.projection import Accumulator, FourierReference, inverse_transform
from cryotk.projection.half_transform import half_radius_squared, half_shape, sinc_squared

__all__ = ["Momentum", "StepReport", "class_step_sizes", "damped", "inactive_class", "shell_mean", "update_map"]

FIRST_DECAY, SECOND_DECAY = 0.9, 0.999
TINY = 1e-12
MU = 0.9
"""Share of the past in all numbers that a mini-batch estimates."""


@dataclass
class Momentum:
    """Running means of a class's gradients, on the padded grid of the whole box (its layout: ``Accumulator``).

    Parameters
    ----------
    first : (2, ...) complex64
        Mean gradient of each pseudo half.
    second : (...) float32
        Mean of the halves' squared difference relative to their squared mean; 1 at the start.
    """

    first: np.ndarray
    second: np.ndarray

    @classmethod
    def empty(cls, box: int, padding: float, dims: int) -> Momentum:
        """Momenta before the first mini-batch."""
        shape = half_shape(int(np.floor(padding * box / 2 + 0.5)), dims)
        return cls(np.zeros((2, *shape), np.complex64), np.ones(shape, np.float32))

    @property
    def r_max(self) -> int:
        """Radius of the grid in padded pixels."""
        return self.second.shape[-1] - 2

    def window(self, r_max: int) -> tuple[np.ndarray, np.ndarray]:
        """Views of the part that a window of radius ``r_max`` covers."""
        d = self.r_max - r_max
        dims = self.second.ndim
        part = (slice(d, self.second.shape[0] - d),) * (dims - 1) + (slice(0, r_max + 2),)
        return self.first[(slice(None), *part)], self.second[part]

    def copy(self) -> Momentum:
        """An independent copy."""
        return Momentum(self.first.copy(), self.second.copy())

    def shift(self, shift_px: np.ndarray, box: int, padding: float) -> None:
        """Move with a map that moves by (x, y[, z]) pixels, both halves alike."""
        dims = self.second.ndim
        angle: np.ndarray = np.zeros((1,) * dims)
        for axis in range(dims):
            n = self.second.shape[axis]
            k = np.arange(n) if axis == dims - 1 else np.arange(n) - n // 2
            shape = [-1 if a == axis else 1 for a in range(dims)]
            angle = angle - (2 * np.pi / (padding * box)) * float(shift_px[dims - 1 - axis]) * k.reshape(shape)
        self.first *= np.exp(1j * angle).astype(np.complex64)


@dataclass(frozen=True)
class StepReport:
    """What an update found."""

    agreement: np.ndarray
    """(S,) how far each shell moves along the momentum (the rest decays): an FSC of the halves' momenta."""
    gradient_power: float
    """Mean squared step direction, which ranks classes that are worth splitting."""


def shell_mean(values: np.ndarray, shell: np.ndarray, n_shells: int) -> np.ndarray:
    """Mean of values per shell, 0 where there are none."""
    count = np.bincount(shell, minlength=n_shells)[:n_shells]
    return np.bincount(shell, values, minlength=n_shells)[:n_shells] / np.maximum(count, 1)


def class_step_sizes(step: float, class_distribution: np.ndarray) -> np.ndarray:
    """(K,) step of each class: classes with few particles move little."""
    k = len(class_distribution)
    return step * (1 - np.exp(-(3 * k + 10) * np.asarray(class_distribution, float)))


def damped(old: np.ndarray, new: np.ndarray, mu: float = MU) -> np.ndarray:
    """Running mean ``mu old + (1 - mu) new``."""
    return mu * np.asarray(old, float) + (1 - mu) * np.asarray(new, float)


def inactive_class(
    class_distribution: np.ndarray, gradient_power: np.ndarray, threshold: float
) -> tuple[int, int] | None:
    """The class to give up and the one to put in its place, if any.

    Parameters
    ----------
    class_distribution : (K,) float
    gradient_power : (K,) float
    threshold : float
        A class is inactive below this share of an even distribution; 0 keeps all.

    Returns
    -------
    (inactive, source) or None
    """
    p = np.asarray(class_distribution, float)
    active = int((p > 0).sum())
    if threshold <= 0 or active == 0 or len(p) < 2:
        return None
    worst = int(p.argmin())
    best = int((np.asarray(gradient_power) * p).argmax())
    if p[worst] >= threshold / active or best == worst:
        return None
    return worst, best


def update_map(
    map_: np.ndarray,
    momentum: Momentum,
    halves: tuple[Accumulator, Accumulator],
    step: float,
    tau2_fudge: float,
) -> tuple[np.ndarray, StepReport]:
    """Move a map along its momentum where the two pseudo halves agree, and let it decay where they do not.

    Parameters
    ----------
    map_ : (N, N, N) or (N, N) float
    momentum : Momentum
        Of this class; updated in place inside the current window.
    halves : (Accumulator, Accumulator)
        Residual images of the two pseudo halves, after ``symmetrise``.
    step : float
        Of this class, between 0 and 1.
    tau2_fudge : float

    Returns
    -------
    map : as ``map_``, float64
    report : StepReport
    """
    a = halves[0]
    n, dims, pad, r_max = a.box, a.dims, a.padding, a.r_max
    n_shells = n // 2 + 1
    # the transform of the map as it is, without the correction for interpolation
    reference = FourierReference.from_map(map_ * sinc_squared(n, pad, dims), 1.0, a.current_size, pad)
    r2 = half_radius_squared(r_max, dims)
    inside = r2 < r_max**2
    shell = np.floor(np.sqrt(r2[inside]) / pad + 0.5).astype(np.int64)
    first, second = momentum.window(r_max)
    g = [h.data[inside] / np.maximum(h.weight[inside], 1.0) for h in halves]
    m1 = []
    for h in range(2):
        old = first[h][inside].astype(np.complex128)
        new = FIRST_DECAY * old + (1 - FIRST_DECAY) * g[h] if momentum.first[h].any() else g[h]
        first[h][inside] = new
        m1.append(new)
    difference = np.abs(g[1] - g[0]) ** 2 / (np.abs((g[0] + g[1]) / 2) ** 2 + TINY)
    m2 = SECOND_DECAY * second[inside].astype(float) + (1 - SECOND_DECAY) * difference
    second[inside] = m2
    direction = (m1[0] + m1[1]) / 2 / (np.sqrt(m2) + TINY)
    v = reference.data[inside].astype(np.complex128)
    noise = shell_mean(np.abs(m1[0] - m1[1]), shell, n_shells)
    signal = shell_mean(np.abs(v), shell, n_shells)
    q = np.where(noise > 0, 2 * tau2_fudge * signal / np.where(noise > 0, noise, 1), 0.0)
    agreement = np.minimum(q / (1 + q), 1.0)
    along = agreement[np.minimum(shell, n_shells - 1)]
    half = reference.data.astype(np.complex128)
    half[inside] = v + step * (along * direction - (1 - along) * v)
    report = StepReport(agreement, float(np.mean(np.abs(direction) ** 2)) if inside.any() else 0.0)
    return inverse_transform(half, r_max, n, pad), report
