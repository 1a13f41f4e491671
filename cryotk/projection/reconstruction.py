"""From weighted slices back to a map: accumulation in Fourier space, symmetry, Wiener filter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from cryotk.kernels.slice_insertion import insert_slices_2d, insert_slices_3d
from cryotk.kernels.slice_symmetry import add_symmetry_mates
from cryotk.projection.half_transform import (
    centre_signs,
    half_radius_squared,
    half_shape,
    paste_half,
    sinc_squared,
)
from cryotk.projection.reference import invert

__all__ = ["Accumulator", "ShellStatistics", "inverse_transform", "shell_statistics", "wiener_reconstruct"]

FIRST_REGULARISED_SHELL = 5
WEIGHT_FLOOR = 1e-3


class Accumulator:
    """Data and weight of slices inserted into a padded half transform.

    Parameters
    ----------
    box : int
        Pixels of the map.
    current_size : int
        Window in pixels.
    padding : float
    is_3d : bool
    """

    def __init__(self, box: int, current_size: int, padding: float = 2.0, is_3d: bool = True) -> None:
        self.box, self.current_size, self.padding, self.is_3d = box, current_size, float(padding), is_3d
        self.r_max = int(np.floor(padding * current_size / 2 + 0.5))
        shape = half_shape(self.r_max, self.dims)
        self.data = np.zeros(shape, np.complex128)
        self.weight = np.zeros(shape, np.float64)

    @property
    def dims(self) -> int:
        """2 or 3."""
        return 3 if self.is_3d else 2

    def insert(self, slices: np.ndarray, weights: np.ndarray, matrices: np.ndarray, kx: np.ndarray, ky: np.ndarray) -> None:
        """Add (n, P) slices and weights at (n, 3, 3) rotations; pixels with weight 0 are left out."""
        run = insert_slices_3d if self.is_3d else insert_slices_2d
        run(
            self.data,
            self.weight,
            np.stack([slices.real, slices.imag], 1).astype(np.float32, copy=False),
            np.ascontiguousarray(weights, np.float32),
            np.arange(len(slices)),
            invert(matrices),
            np.asarray(kx, np.int32),
            np.asarray(ky, np.int32),
            self.padding,
            self.r_max,
        )

    def __iadd__(self, other: Accumulator) -> Accumulator:
        self.data += other.data
        self.weight += other.weight
        return self

    def __add__(self, other: Accumulator) -> Accumulator:
        out = self.copy()
        out += other
        return out

    def copy(self) -> Accumulator:
        """An independent copy."""
        out = Accumulator.__new__(Accumulator)
        out.__dict__.update(self.__dict__)
        out.data, out.weight = self.data.copy(), self.weight.copy()
        return out

    def symmetrise(self, operators: np.ndarray | None = None) -> None:
        """Complete the plane x = 0 with its mates and add the point group's, in place; sums, not averages."""
        plane, weight = self.data[..., 0], self.weight[..., 0]
        flip = (slice(None, None, -1),) * plane.ndim
        centre = (self.r_max + 1,) * plane.ndim
        data_0, weight_0 = plane[centre].copy(), weight[centre].copy()
        self.data[..., 0] = plane + plane[flip].conj()
        self.weight[..., 0] = weight + weight[flip]
        self.data[(*centre, 0)], self.weight[(*centre, 0)] = data_0, weight_0
        if self.is_3d and operators is not None and len(operators) > 1:
            data, weight = self.data.copy(), self.weight.copy()
            add_symmetry_mates(data, weight, np.ascontiguousarray(operators[1:], dtype=float), self.r_max, self.data, self.weight)


@dataclass
class ShellStatistics:
    """Per shell of a reconstruction, (S,) each: see :func:`shell_statistics`."""

    reference_noise: np.ndarray
    data_vs_prior: np.ndarray
    completeness: np.ndarray


def _shells(accumulator: Accumulator) -> tuple[np.ndarray, np.ndarray]:
    """Indices of points with r < r_max and their shell."""
    r2 = half_radius_squared(accumulator.r_max, accumulator.dims)
    inside = r2 < accumulator.r_max**2
    return inside, np.floor(np.sqrt(r2[inside]) / accumulator.padding + 0.5).astype(np.int64)


def _inverse_prior(accumulator: Accumulator, prior_power: np.ndarray, tau2_fudge: float, shell: np.ndarray,
                   weight: np.ndarray) -> np.ndarray:
    tau2 = np.asarray(prior_power, float)[np.minimum(shell, len(prior_power) - 1)]
    oversampling = accumulator.padding**accumulator.dims
    with np.errstate(divide="ignore"):
        return np.where(tau2 > 0, 1.0 / (oversampling * tau2_fudge * np.where(tau2 > 0, tau2, 1)),
                        1.0 / np.maximum(WEIGHT_FLOOR * weight, 1e-300))


def shell_statistics(
    accumulator: Accumulator, prior_power: np.ndarray, tau2_fudge: float = 1.0, mean_ctf_squared: np.ndarray | None = None
) -> ShellStatistics:
    """Noise of a reconstruction and its signal-to-noise ratio, per shell.

    Parameters
    ----------
    accumulator : Accumulator
        After :meth:`Accumulator.symmetrise`.
    prior_power : (S,) float
        tau2.
    tau2_fudge : float
    mean_ctf_squared : (S,) float, optional
        Of premultiplied data.

    Returns
    -------
    ShellStatistics
    """
    n_shells = accumulator.box // 2 + 1
    inside, shell = _shells(accumulator)
    weight = accumulator.weight[inside]
    keep = shell < n_shells
    shell, weight = shell[keep], weight[keep]
    count = np.bincount(shell, minlength=n_shells)
    oversampling = accumulator.padding**accumulator.dims
    mean = np.bincount(shell, weight, minlength=n_shells) / np.maximum(count, 1) * oversampling
    noise = np.where(mean > 0, 1.0 / np.where(mean > 0, mean, 1), 0.0)
    inverse = _inverse_prior(accumulator, prior_power, tau2_fudge, shell, weight)
    if mean_ctf_squared is not None:
        inverse = inverse / np.maximum(np.asarray(mean_ctf_squared)[shell], 1e-12)
    ratio = np.bincount(shell, weight / inverse, minlength=n_shells) / np.maximum(count, 1)
    r_limit = accumulator.current_size // 2
    shells = np.arange(n_shells)
    ratio = np.where(shells > r_limit, 0.0, np.where(count > 0, ratio, 999.0))
    complete = np.bincount(shell, (weight >= inverse).astype(float), minlength=n_shells) / np.maximum(count, 1)
    return ShellStatistics(np.where(shells > r_limit, 0, noise), ratio, np.where(shells > r_limit, 0, complete))


def wiener_reconstruct(
    accumulator: Accumulator,
    prior_power: np.ndarray | None = None,
    tau2_fudge: float = 1.0,
    first_shell: int = FIRST_REGULARISED_SHELL,
    sphere: bool = True,
) -> np.ndarray:
    """Map of an accumulator.

    Parameters
    ----------
    accumulator : Accumulator
        After :meth:`Accumulator.symmetrise`.
    prior_power : (S,) float, optional
        tau2 of the Wiener filter; without it only the floor of 1/1000 of the shell's mean weight holds.
    tau2_fudge : float
    first_shell : int
        Shells below are not filtered.
    sphere : bool
        Replace what lies outside the inscribed sphere by its mean, as RELION's refinement and reconstruction do.

    Returns
    -------
    (N, N, N) or (N, N) float64
    """
    n, dims, pad, r_max = accumulator.box, accumulator.dims, accumulator.padding, accumulator.r_max
    r2 = half_radius_squared(r_max, dims)
    inside = r2 <= r_max**2
    r = np.sqrt(r2[inside]) / pad
    den = accumulator.weight[inside]
    if prior_power is not None:
        shell = np.floor(r + 0.5).astype(np.int64)
        inverse = _inverse_prior(accumulator, prior_power, tau2_fudge, shell, den)
        den = np.where(shell >= first_shell, den + inverse, den)
    # the floor keeps poorly covered points from blowing up
    ring = np.minimum(np.floor(r).astype(np.int64), max(r_max // max(int(pad), 1) - 1, 0))
    below = r2[inside] < r_max**2
    mean = np.bincount(ring[below], den[below], minlength=ring.max() + 1) / np.maximum(
        np.bincount(ring[below], minlength=ring.max() + 1), 1
    )
    den = np.maximum(den, WEIGHT_FLOOR * mean[ring])
    half = np.zeros(accumulator.data.shape, np.complex128)
    half[inside] = np.where(den > 0, accumulator.data[inside] / np.where(den > 0, den, 1), 0)
    return inverse_transform(half, r_max, n, pad, sphere) / sinc_squared(n, pad, dims)


def inverse_transform(half: np.ndarray, r_max: int, box: int, padding: float, sphere: bool = True) -> np.ndarray:
    """Map of a padded half transform, without division by the transform of the interpolation's kernel.

    Parameters
    ----------
    half : complex
        ``[z, y, x >= 0]`` (no z for averages) in the layout of :class:`Accumulator`, scaled as its ``data / weight``.
    r_max, box, padding : int, int, float
    sphere : bool
        Replace what lies outside the inscribed sphere by its mean.

    Returns
    -------
    (N, N, N) or (N, N) float64
    """
    dims = half.ndim
    m = 2 * int(np.ceil(box * padding / 2))
    full = scipy.fft.irfftn(paste_half(half * centre_signs(r_max, dims), r_max, m), s=(m,) * dims, workers=1)
    lo = m // 2 - box // 2
    out = full[(slice(lo, lo + box),) * dims] * box**2
    return _sphere(out, box) if sphere else out


def _sphere(map_: np.ndarray, n: int, edge: float = 3.0) -> np.ndarray:
    """Replace what lies outside the inscribed sphere by its mean, over a soft edge beyond n / 2."""
    k = (np.arange(n) - n // 2).astype(float) ** 2
    r = np.sqrt(sum(np.meshgrid(*[k] * map_.ndim, indexing="ij", sparse=True)))
    outside = np.where(r < n / 2, 0.0, np.where(r > n / 2 + edge, 1.0, 0.5 + 0.5 * np.cos(np.pi * (n / 2 + edge - r) / edge)))
    background = (outside * map_).sum() / outside.sum()
    return (1 - outside) * map_ + outside * background
