"""Two independent half-sets: how they are made, joined at low resolution, compared, and what their FSC says of the signal.

Scheres & Chen (2012) Nat. Methods 9, 853; Chen et al. (2013) Ultramicroscopy 135, 24 for the correction of the mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cryotk.errors import DataError
from cryotk.fourier import fourier_shell_correlation, shell_index
from cryotk.projection import Accumulator
from cryotk.projection.half_transform import half_radius_squared

__all__ = [
    "half_map_fsc",
    "join_low_resolution",
    "joined_fsc",
    "prior_from_fsc",
    "solvent_corrected_fsc",
    "split_halves",
]

RANDOMISE_BELOW = 0.8
"""Phases are randomised from the first shell whose unmasked FSC falls below this."""


def same_image(particles: Any) -> np.ndarray | None:
    """(n,) number of each particle's image where some have the same one (symmetry copies); None where none do."""
    if "image_name" not in particles or particles["image_name"].sizes != {"particle": particles.sizes["particle"]}:
        return None
    different, image = np.unique(np.asarray(particles["image_name"].values, str), return_inverse=True)
    return image if len(different) < len(image) else None


def split_halves(n: int, given: np.ndarray | None, seed: int, image: np.ndarray | None = None) -> np.ndarray:
    """Half-set of each particle, 1 or 2.

    Parameters
    ----------
    n : int
        Particles.
    given : (n,) int, optional
        Half-sets of the input, kept as they are.
    seed : int
    image : (n,) int, optional
        Which image each particle is: copies of one image go to one half-set.

    Raises
    ------
    DataError
        When a half-set is empty, or some particles have none.
    """
    if given is None or not np.any(given):
        if n < 2:
            raise DataError(f"{n} particle makes no two half-sets: give at least 2")
        if image is not None:
            return split_halves(int(image.max()) + 1, None, seed)[image]
        halves = np.ones(n, int)
        halves[np.random.default_rng([seed, 2]).permutation(n)[: n // 2]] = 2
        return halves
    with np.errstate(invalid="ignore"):
        halves = np.nan_to_num(np.asarray(given, float)).astype(int)
    bad = np.nonzero(~np.isin(halves, (1, 2)))[0]
    if len(bad):
        raise DataError(
            f"particle {int(bad[0]) + 1} has random_subset {int(halves[bad[0]])}: it must be 1 or 2 for all, or 0 for all "
            "(then half-sets are made)"
        )
    for half in (1, 2):
        if not (halves == half).any():
            raise DataError(
                f"half-set {half} is empty: no particle has random_subset {half}; drop the column (rlnRandomSubset) to make new halves"
            )
    return halves


def join_low_resolution(a: Accumulator, b: Accumulator, shell: int) -> None:
    """Replace data and weights up to a shell by the mean of both halves, in place, so that both keep one frame."""
    limit = int(np.floor(a.padding * shell + 0.5))
    near = max(min(limit, a.r_max + 1), 0)
    inside = half_radius_squared(near - 1, a.dims) <= limit**2
    first, last = a.r_max + 1 - near, a.r_max + 2 + near
    part = (slice(None),) + (slice(first, last),) * (a.dims - 2) + (slice(0, near + 1),)
    # as many planes as hold the sphere
    of_a, of_b = a.planes(first, last), b.planes(first, last)
    new = []
    for x, y in zip(of_a, of_b, strict=True):
        x, y = np.array(x), np.array(y)
        u, v = x[part], y[part]
        u[inside] = v[inside] = (u[inside] + v[inside]) / 2
        new.append((x, y))
    for i, half in enumerate((a, b)):
        half.put_planes(first, last, *(pair[i] for pair in new))


def _averages(a: Accumulator) -> Iterator[tuple[int, np.ndarray]]:
    """Average transform on the grid without padding, a plane (row) at a time: its frequency, and its values (..., Y, X)."""
    pad, r_max = a.padding, a.r_max

    def bins(v: np.ndarray) -> np.ndarray:
        return (np.sign(v) * np.floor(np.abs(v) / pad + 0.5)).astype(np.int64)

    k, x = np.arange(-(r_max + 1), r_max + 2), np.arange(r_max + 2)
    row, column = bins(k), bins(x)
    m = int(row[-1])
    axes = [row + m] * (a.dims - 2) + [column]
    shape = (2 * m + 1,) * (a.dims - 2) + (m + 1,)
    flat: np.ndarray = np.asarray(np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), shape))
    plane: np.ndarray = np.asarray(sum(np.meshgrid(*[v**2 for v in [k] * (a.dims - 2) + [x]], indexing="ij", sparse=True)))
    size = int(np.prod(shape))
    for z in range(-m, m + 1):
        rows = np.nonzero(row == z)[0]
        data, weight = a.planes(int(rows[0]), int(rows[-1]) + 1)
        total = np.zeros((3, size))
        for i, z_padded in enumerate(k[rows]):
            inside = plane + z_padded**2 <= r_max**2
            at, d = flat[inside], data[i][inside]
            for out, values in zip(total, (d.real, d.imag, weight[i][inside]), strict=True):
                out += np.bincount(at, values, size)
        there = total[2] > 0
        yield z, (np.where(there, (total[0] + 1j * total[1]) / np.where(there, total[2], 1), 0)).reshape(shape)


def half_map_fsc(a: Accumulator, b: Accumulator) -> np.ndarray:
    """Fourier shell correlation of two half-sets' data before any filter or mask.

    Parameters
    ----------
    a, b : Accumulator
        Symmetrised (and joined at low resolution).

    Returns
    -------
    (box // 2 + 1,) float64; 1 in shell 0, 0 beyond the window.
    """
    n_shells = a.box // 2 + 1
    limit = min(a.current_size // 2, n_shells - 1)
    cross, power_a, power_b = np.zeros((3, limit + 2))
    for (z, fa), (_, fb) in zip(_averages(a), _averages(b), strict=True):
        axes = [np.arange(n) - (n - 1) // 2 for n in fa.shape[:-1]] + [np.arange(fa.shape[-1])]
        r2: np.ndarray = z**2 + np.asarray(sum(np.meshgrid(*[v.astype(float) ** 2 for v in axes], indexing="ij", sparse=True)))
        # what lies beyond the window goes to one shell more
        shell = np.minimum(np.floor(np.sqrt(r2) + 0.5).astype(np.int64), limit + 1).ravel()
        for out, values in ((cross, (fa.conj() * fb).real), (power_a, np.abs(fa) ** 2), (power_b, np.abs(fb) ** 2)):
            out += np.bincount(shell, values.ravel(), limit + 2)
    norm = np.sqrt(power_a * power_b)[: limit + 1]
    fsc = np.zeros(n_shells)
    fsc[: limit + 1] = np.where(norm > 0, cross[: limit + 1] / np.where(norm > 0, norm, 1), 0.0)
    fsc[0] = 1.0
    return fsc


def joined_fsc(fsc: np.ndarray) -> np.ndarray:
    """Correlation of the map of all particles with the true one, from that of its halves: ``sqrt(2 f / (1 + f))``."""
    f = np.maximum(fsc, 0.001)
    return np.sqrt(2 * f / (1 + f))


def prior_from_fsc(fsc: np.ndarray, reference_noise: np.ndarray, tau2_fudge: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Power of the signal, tau2, and its ratio to the noise of the map, from the FSC.

    Parameters
    ----------
    fsc, reference_noise : (S,) float
    tau2_fudge : float

    Returns
    -------
    prior_power, data_vs_prior : (S,) float64
    """
    f = np.clip(fsc, 0.001, 0.999)
    ratio = tau2_fudge * f / (1 - f)
    return ratio * reference_noise, ratio


def solvent_corrected_fsc(
    a: np.ndarray, b: np.ndarray, mask: np.ndarray, current_size: int, rng: np.random.Generator
) -> np.ndarray:
    """FSC of two masked half-maps, corrected for the correlation that the mask itself makes.

    Phases beyond the first shell whose unmasked FSC is below 0.8 are randomised; what correlates then is the mask's doing.

    Parameters
    ----------
    a, b, mask : (N, N, N) float
        Unfiltered half-maps and the mask, 0 to 1.
    current_size : int
        Window in pixels; 0 beyond it.
    rng : numpy.random.Generator

    Returns
    -------
    (N // 2 + 1,) float64
    """
    n = a.shape[-1]
    unmasked = fourier_shell_correlation(a, b)
    below = np.nonzero(unmasked[1:] < RANDOMISE_BELOW)[0]
    if not len(below):
        out = unmasked
    else:
        first = int(below[0]) + 1
        masked = fourier_shell_correlation(a * mask, b * mask)
        random = fourier_shell_correlation(*(_randomise(x, first, rng) * mask for x in (a, b)))
        with np.errstate(divide="ignore", invalid="ignore"):
            true = np.where(random > masked, 0.0, (masked - random) / (1 - random))
        out = np.where(np.arange(n // 2 + 1) < first + 2, masked, np.nan_to_num(true))
    out = np.where(np.arange(n // 2 + 1) > current_size // 2, 0.0, out)
    out[0] = 1.0
    return out


def _randomise(map_: np.ndarray, first: int, rng: np.random.Generator) -> np.ndarray:
    import scipy.fft

    n = map_.shape[-1]
    f = scipy.fft.rfftn(map_, workers=1)
    # phases of white noise have the symmetry of a real map
    noise = scipy.fft.rfftn(rng.standard_normal(map_.shape), workers=1)
    phase = noise / np.maximum(np.abs(noise), 1e-30)
    return scipy.fft.irfftn(np.where(shell_index(n, 3) >= first, np.abs(f) * phase, f), s=map_.shape, workers=1)
