"""What is computed from curves alone: corrected FSC, resolution, weights, Guinier fit. Plain numpy, one value per shell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "EMPTY",
    "GuinierFit",
    "correct_for_mask",
    "fit_guinier",
    "fraction_of_solvent_removed",
    "fsc_from_sums",
    "fsc_weights",
    "guinier_range",
    "interpolated_resolution",
    "last_shell_above",
    "particle_fsc",
    "protein_weight_in_mask",
    "randomisation_shell",
    "resolution_of_shell",
    "weight_fraction",
]

EMPTY = -99.0
"""RELION's logarithm of an amplitude that is zero."""

_PROTEIN_DENSITY = 0.81  # Da / Å^3
_PARTICLE_SHARE = 0.476


def fsc_from_sums(sums: np.ndarray) -> np.ndarray:
    """Correlation per shell from sums of ``Re(conj(F1) F2)``, ``|F1|^2`` and ``|F2|^2``.

    Parameters
    ----------
    sums : (..., 3, n) float64

    Returns
    -------
    (..., n) float64
        0 where a map has no power.
    """
    cross, one, two = np.moveaxis(np.asarray(sums, float), -2, 0)
    norm = np.sqrt(one * two)
    return np.where(norm > 0, cross / np.where(norm > 0, norm, 1.0), 0.0)


def randomisation_shell(unmasked: np.ndarray, threshold: float = 0.8) -> int | None:
    """First shell, from 1, whose FSC is below a threshold; None when there is none."""
    below = np.nonzero(np.asarray(unmasked)[1:] < threshold)[0]
    return int(below[0]) + 1 if len(below) else None


def correct_for_mask(masked: np.ndarray, randomised: np.ndarray, shell: int) -> np.ndarray:
    """FSC freed of what the mask alone contributes (Chen et al. 2013, Ultramicroscopy 135, 24).

    Parameters
    ----------
    masked, randomised : (..., n) float
        FSC of the masked half-maps, and of those whose phases were randomised from ``shell`` on before masking.
    shell : int

    Returns
    -------
    (..., n) float64
        ``masked`` up to ``shell + 1``, ``(masked - randomised) / (1 - randomised)`` beyond.
    """
    m, r = np.asarray(masked, float), np.asarray(randomised, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        corrected = (m - r) / (1 - r)
    corrected = np.where(np.isfinite(corrected), corrected, 0.0)
    return np.where(np.arange(m.shape[-1]) < shell + 2, m, corrected)


def last_shell_above(curve: np.ndarray, threshold: float = 0.143) -> int:
    """Last shell before the curve first falls below a threshold; 0 when that happens at once."""
    below = np.nonzero(np.asarray(curve) < threshold)[0]
    return max(int(below[0]) - 1, 0) if len(below) else len(curve) - 1


def resolution_of_shell(shell: int, box: int, pixel_size: float) -> float:
    """Å; infinite for shell 0."""
    return box * pixel_size / shell if shell > 0 else float("inf")


def interpolated_resolution(curve: np.ndarray, box: int, pixel_size: float, threshold: float = 0.143) -> float:
    """Resolution where the line between two shells crosses the threshold, Å."""
    s = last_shell_above(curve, threshold)
    if s + 1 >= len(curve) or curve[s] <= curve[s + 1]:
        return resolution_of_shell(s, box, pixel_size)
    rest = min(max((curve[s] - threshold) / (curve[s] - curve[s + 1]), 0.0), 1.0)
    return box * pixel_size / (s + rest) if s + rest > 0 else float("inf")


def fraction_of_solvent_removed(mask_fraction: float) -> float:
    """How many times fuller the mask is than the box, for :func:`particle_fsc`."""
    return _PARTICLE_SHARE / mask_fraction


def weight_fraction(molecular_weight: float, box: int, pixel_size: float) -> float:
    """The same from a molecular weight in kDa, with 0.81 Da/Å^3."""
    return _PARTICLE_SHARE * (box * pixel_size) ** 3 * _PROTEIN_DENSITY / (1000 * molecular_weight)


def protein_weight_in_mask(mask_fraction: float, box: int, pixel_size: float) -> float:
    """Molecular weight (kDa) that fills a mask at 0.81 Da/Å^3."""
    return mask_fraction * (box * pixel_size) ** 3 * _PROTEIN_DENSITY / 1000


def particle_fsc(unmasked: np.ndarray, factor: float) -> np.ndarray:
    """FSC that the particle alone would have if it fills 1/factor of the box."""
    u = np.asarray(unmasked, float)
    return factor * u / (1 + (factor - 1) * u)


def fsc_weights(corrected: np.ndarray) -> np.ndarray:
    """Weights ``sqrt(2 FSC / (1 + FSC))`` (Rosenthal & Henderson 2003), zero from the first shell below 0.0001 on.

    Parameters
    ----------
    corrected : (..., n) float

    Returns
    -------
    (..., n) float64
    """
    c = np.asarray(corrected, float)
    alive = np.cumsum(~(c >= 1e-4), axis=-1) == 0
    return np.where(alive, np.sqrt(np.maximum(2 * c / np.where(alive, 1 + c, 1.0), 0)), 0.0)


@dataclass(frozen=True)
class GuinierFit:
    """Straight line through logarithms of amplitudes over 1/d^2."""

    slope: float
    intercept: float
    correlation: float
    """r^2, as RELION writes it."""
    n_points: int

    @property
    def b_factor(self) -> float:
        """Å^2; negative sharpens."""
        return 4 * self.slope


def guinier_range(x: np.ndarray, y: np.ndarray, lowest: float, highest: float | None) -> np.ndarray:
    """Points of a fit: between two resolutions (Å) and not empty."""
    with np.errstate(divide="ignore"):
        d = np.where(x > 0, 1 / np.sqrt(np.where(x > 0, x, 1)), np.inf)
    y = np.where(np.isfinite(y), y, EMPTY)
    return (d <= lowest) & (d >= (highest or 0.0)) & (y > EMPTY)


def fit_guinier(x: np.ndarray, y: np.ndarray, lowest: float = 10.0, highest: float | None = None) -> GuinierFit:
    """Fit ``ln F = intercept + slope / d^2``.

    Parameters
    ----------
    x : (n,) float
        1/d^2, 1/Å^2.
    y : (n,) float
        Logarithm of the mean amplitude; NaN or -99 where there is none.
    lowest, highest : float, Å
        Resolutions between which points count.
    """
    use = guinier_range(np.asarray(x, float), np.asarray(y, float), lowest, highest)
    px, py = np.asarray(x, float)[use], np.asarray(y, float)[use]
    if len(px) < 2:
        return GuinierFit(0.0, 0.0, 0.0, len(px))
    dx, dy = px - px.mean(), py - py.mean()
    sxx, sxy, syy = float(dx @ dx), float(dx @ dy), float(dy @ dy)
    if sxx <= 0:
        return GuinierFit(0.0, 0.0, 0.0, len(px))
    slope = sxy / sxx
    return GuinierFit(slope, float(py.mean() - slope * px.mean()), sxy * sxy / (sxx * syy) if syy > 0 else 0.0, len(px))
