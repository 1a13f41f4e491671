"""Two independent half-sets: how they are made, joined at low resolution, compared, and what their FSC says of the signal.

Scheres & Chen (2012) Nat. Methods 9, 853; Chen et al. (2013) Ultramicroscopy 135, 24 for the correction of the mask.
"""

from __future__ import annotations

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


def split_halves(n: int, given: np.ndarray | None, seed: int) -> np.ndarray:
    """Half-set of each particle, 1 or 2.

    Parameters
    ----------
    n : int
        Particles.
    given : (n,) int, optional
        Half-sets of the input, kept as they are.
    seed : int

    Raises
    ------
    DataError
        When a half-set is empty, or some particles have none.
    """
    if given is None or not np.any(given):
        if n < 2:
            raise DataError(f"{n} particle makes no two half-sets: give at least 2")
        halves = np.ones(n, int)
        halves[np.random.default_rng([seed, 2]).permutation(n)[: n // 2]] = 2
        return halves
    halves = np.asarray(given, int)
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
    inside = half_radius_squared(a.r_max, a.dims) <= limit**2
    for name in ("data", "weight"):
        x, y = getattr(a, name), getattr(b, name)
        x[inside] = y[inside] = (x[inside] + y[inside]) / 2


def _unpadded(accumulator: Accumulator) -> tuple[np.ndarray, np.ndarray]:
    """Average transform on the grid without padding, ``[z, y, x]`` centred, and squared radii."""
    pad, r_max = accumulator.padding, accumulator.r_max
    k = np.arange(-(r_max + 1), r_max + 2)
    x = np.arange(r_max + 2)

    def bins(v: np.ndarray) -> np.ndarray:
        return (np.sign(v) * np.floor(np.abs(v) / pad + 0.5)).astype(np.int64)

    m = int(bins(np.array([r_max + 1]))[0])
    width = 2 * m + 1
    row, column = bins(k) + m, bins(x)
    index = [row] * (accumulator.dims - 1) + [column]
    shape = (width,) * (accumulator.dims - 1) + (m + 1,)
    flat = np.ravel_multi_index(np.meshgrid(*index, indexing="ij"), shape).ravel()
    size = int(np.prod(shape))
    inside = (half_radius_squared(r_max, accumulator.dims) <= r_max**2).ravel()
    flat, data, weight = flat[inside], accumulator.data.ravel()[inside], accumulator.weight.ravel()[inside]
    real, imag = np.bincount(flat, data.real, size), np.bincount(flat, data.imag, size)
    total = np.bincount(flat, weight, size)
    mean = np.where(total > 0, (real + 1j * imag) / np.where(total > 0, total, 1), 0)
    axes = [np.arange(-m, m + 1)] * (accumulator.dims - 1) + [np.arange(m + 1)]
    r2 = sum(np.meshgrid(*[v.astype(float) ** 2 for v in axes], indexing="ij", sparse=True))
    return mean, np.asarray(r2).ravel()


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
    fa, r2 = _unpadded(a)
    fb, _ = _unpadded(b)
    shell = np.floor(np.sqrt(r2) + 0.5).astype(np.int64)
    keep = (shell < n_shells) & (shell <= a.current_size // 2)
    shell, fa, fb = shell[keep], fa[keep], fb[keep]

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(shell, values, n_shells)

    norm = np.sqrt(total(np.abs(fa) ** 2) * total(np.abs(fb) ** 2))
    fsc = np.where(norm > 0, total((fa.conj() * fb).real) / np.where(norm > 0, norm, 1), 0.0)
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
