"""From weighted slices back to a map: accumulation in Fourier space, symmetry, Wiener filter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft

from cryotk.kernels.half_volumes import divide_by_weight, weight_statistics
from cryotk.kernels.slice_insertion import insert_slices_2d, insert_slices_3d
from cryotk.kernels.slice_symmetry import add_symmetry_mates
from cryotk.projection.half_transform import centre_signs, half_shape, paste_half, sinc_squared
from cryotk.projection.padded import HalfGrid, map_of_half, slabs
from cryotk.projection.reference import invert

__all__ = ["Accumulator", "ShellStatistics", "inverse_transform", "shell_statistics", "wiener_reconstruct"]

FIRST_REGULARISED_SHELL = 5
WEIGHT_FLOOR = 1e-3


def complete_plane(data: np.ndarray, weight: np.ndarray, r_max: int) -> None:
    """Add to each point of the plane x = 0 its Hermitian mate, in place."""
    flip = (slice(None, None, -1),) * data.ndim
    centre = (r_max + 1,) * data.ndim
    kept = data[centre].copy(), weight[centre].copy()
    data[...] = data + data[flip].conj()
    weight[...] = weight + weight[flip]
    data[centre], weight[centre] = kept


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

    def planes(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Data and weight of some planes (rows of an average), not to be changed."""
        return self.data[first:last], self.weight[first:last]

    def put_planes(self, first: int, last: int, data: np.ndarray, weight: np.ndarray) -> None:
        """Replace data and weight of some planes (rows of an average)."""
        self.data[first:last], self.weight[first:last] = data, weight

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
        complete_plane(self.data[..., 0], self.weight[..., 0], self.r_max)
        if self.is_3d and operators is not None and len(operators) > 1:
            data, weight = self.data.copy(), self.weight.copy()
            add_symmetry_mates(data, weight, np.ascontiguousarray(operators[1:], dtype=float), self.r_max, self.data, self.weight)


@dataclass
class ShellStatistics:
    """Per shell of a reconstruction, (S,) each: see :func:`shell_statistics`."""

    reference_noise: np.ndarray
    data_vs_prior: np.ndarray
    completeness: np.ndarray


class _Shells:
    """Shells of an accumulator's points, and its planes, a slab at a time.

    Squared radii are whole numbers, so that what depends on the radius is a short table.
    """

    def __init__(self, accumulator: Accumulator) -> None:
        self.accumulator, r_max = accumulator, accumulator.r_max
        self.r2 = np.arange(r_max**2 + 2)
        self.r = np.sqrt(self.r2) / accumulator.padding
        self.shell = np.floor(self.r + 0.5).astype(np.int64)

    def slabs(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Frequency z of the first plane, data and weight of the planes (n, Y, X); averages are one plane."""
        a = self.accumulator
        if not a.is_3d:
            yield 0, a.data[None], a.weight[None]
            return
        for first, last in HalfGrid(a.r_max).slabs():
            yield first - (a.r_max + 1), *a.planes(first, last)

    def weights(self, bin_of: np.ndarray, n_bins: int, inverse_of: np.ndarray, ctf2_of: np.ndarray) -> np.ndarray:
        """(5, n_bins): sums over all points, see :func:`~cryotk.kernels.half_volumes.weight_statistics`."""
        out = np.zeros((5, n_bins))
        for z0, _, weight in self.slabs():
            # a slab's sums of their own: what is added stays of like size
            of_slab = np.zeros_like(out)
            weight_statistics(weight, z0, self.accumulator.r_max, bin_of, inverse_of, ctf2_of, WEIGHT_FLOOR, of_slab)
            out += of_slab
        return out


def _inverse_prior(accumulator: Accumulator, prior_power: np.ndarray, tau2_fudge: float, shell: np.ndarray) -> np.ndarray:
    """1 / (tau2 in the accumulator's units) of each entry of a table of shells; -1 where there is no prior."""
    tau2 = np.asarray(prior_power, float)[np.minimum(shell, len(prior_power) - 1)]
    oversampling = accumulator.padding**accumulator.dims
    return np.where(tau2 > 0, 1.0 / (oversampling * tau2_fudge * np.where(tau2 > 0, tau2, 1)), -1.0)


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
    tables = _Shells(accumulator)
    # points at r_max and beyond, and shells beyond the box, are gathered in one bin more
    shell = np.where((tables.r2 < accumulator.r_max**2) & (tables.shell < n_shells), tables.shell, n_shells)
    inverse_of = _inverse_prior(accumulator, prior_power, tau2_fudge, tables.shell)
    ctf2 = np.ones(len(shell))
    if mean_ctf_squared is not None:
        ctf2 = np.maximum(np.asarray(mean_ctf_squared, float)[np.minimum(shell, n_shells - 1)], 1e-12)
    sums = tables.weights(shell, n_shells + 1, inverse_of, ctf2)
    count, total, ratio, complete, _ = sums[:, :n_shells]
    points = np.maximum(count, 1)
    mean = total / points * accumulator.padding**accumulator.dims
    noise = np.where(mean > 0, 1.0 / np.where(mean > 0, mean, 1), 0.0)
    r_limit = accumulator.current_size // 2
    shells = np.arange(n_shells)
    ratio = np.where(shells > r_limit, 0.0, np.where(count > 0, ratio / points, 999.0))
    return ShellStatistics(np.where(shells > r_limit, 0, noise), ratio, np.where(shells > r_limit, 0, complete / points))


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
    tables = _Shells(accumulator)
    inverse_of = np.zeros(len(tables.shell))
    if prior_power is not None:
        inverse_of = _inverse_prior(accumulator, prior_power, tau2_fudge, tables.shell)
        inverse_of[tables.shell < first_shell] = 0

    # the floor keeps poorly covered points from blowing up
    ring = np.minimum(np.floor(tables.r).astype(np.int64), max(r_max // max(int(pad), 1) - 1, 0))
    n_rings = int(ring.max()) + 1
    bins = np.where(tables.r2 < r_max**2, ring, n_rings)
    count, _, _, _, total = tables.weights(bins, n_rings + 1, inverse_of, np.ones(len(bins)))
    floor = (WEIGHT_FLOOR * total[:n_rings] / np.maximum(count[:n_rings], 1))[ring]

    def ratio(z0: int, data: np.ndarray, weight: np.ndarray) -> np.ndarray:
        out = np.empty(data.shape, np.complex128)
        divide_by_weight(data, weight, z0, r_max, inverse_of, floor, WEIGHT_FLOOR, out)
        return out

    if dims == 2:
        return inverse_transform(ratio(*next(tables.slabs()))[0], r_max, n, pad, sphere) / sinc_squared(n, pad, dims)
    m = 2 * int(np.ceil(n * pad / 2))
    out = map_of_half(lambda first, last: ratio(first - (r_max + 1), *accumulator.planes(first, last)), r_max, n, m)
    out *= n**2
    if sphere:
        _sphere(out, n)
    for first, last in slabs(n, n * n):
        out[first:last] /= sinc_squared(n, pad, dims, (first, last))
    return out


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
    if dims == 3:
        out = map_of_half(lambda first, last: half[first:last], r_max, box, m)
    else:
        full = scipy.fft.irfftn(paste_half(half * centre_signs(r_max, dims), r_max, m), s=(m,) * dims, workers=1)
        lo = m // 2 - box // 2
        out = full[(slice(lo, lo + box),) * dims]
    out *= box**2
    if sphere:
        _sphere(out, box)
    return out


def _sphere(map_: np.ndarray, n: int, edge: float = 3.0) -> None:
    """Replace what lies outside the inscribed sphere by its mean, over a soft edge beyond n / 2, in place."""
    k = (np.arange(n, dtype=np.int32) - n // 2) ** 2
    plane = k[:, None] + k if map_.ndim == 3 else k
    r = np.sqrt(np.arange(map_.ndim * (n // 2) ** 2 + 1))
    soft = np.clip((n / 2 + edge - r) / edge, 0, 1)
    outside_of = np.where(r < n / 2, 0.0, 0.5 + 0.5 * np.cos(np.pi * soft))

    def outside(first: int, last: int) -> np.ndarray:
        return outside_of[k[first:last].reshape(-1, *(1,) * plane.ndim) + plane]

    parts = list(slabs(n, plane.size))
    total = weight = 0.0
    for first, last in parts:
        o = outside(first, last)
        total, weight = total + float((o * map_[first:last]).sum()), weight + float(o.sum())
    for first, last in parts:
        o = outside(first, last)
        map_[first:last] += o * (total / weight - map_[first:last])
