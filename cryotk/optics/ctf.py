"""Contrast transfer function and aberrations of a microscope: pure functions of arrays.

``CTF = -sin(gamma)``, ``gamma = pi lambda (Axx x^2 + 2 Axy x y + Ayy y^2) + pi/2 Cs lambda^3 u^4 - phase shift
- atan(Q0 / sqrt(1 - Q0^2)) + even aberrations``; positive at low frequency for underfocus, so that particles are white.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "OpticsGroup",
    "ctf",
    "ctf_image_terms",
    "ctf_pixel_terms",
    "dose_weight",
    "even_basis",
    "even_phase",
    "gamma",
    "odd_basis",
    "odd_phase",
    "wavelength",
]


@dataclass(frozen=True)
class OpticsGroup:
    """What images of one optics group share.

    Parameters
    ----------
    pixel_size : float, Å
    voltage : float, kV
    spherical_aberration : float, mm
    amplitude_contrast : float, fraction
    box_size : int, pixels
    beam_tilt : (float, float), mrad
    odd_zernike, even_zernike : tuple of float
        Coefficients of antisymmetric and symmetric aberrations, frequencies in 1/Å without normalisation.
    magnification : ((float, float), (float, float))
        Anisotropic magnification matrix.
    premultiplied : bool
        Whether images are multiplied by their CTF already.
    """

    pixel_size: float
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.1
    box_size: int = 0
    beam_tilt: tuple[float, float] = (0.0, 0.0)
    odd_zernike: tuple[float, ...] = ()
    even_zernike: tuple[float, ...] = ()
    magnification: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0))
    premultiplied: bool = False


def wavelength(voltage: float) -> float:
    """Electron wavelength in Å for a voltage in kV."""
    v = voltage * 1e3
    return 12.2643247 / np.sqrt(v * (1 + 0.978466e-6 * v))


def _radial(n: int, m: int, rho: np.ndarray) -> np.ndarray:
    out = np.zeros_like(rho)
    for k in range((n - m) // 2 + 1):
        c = (-1) ** k * factorial(n - k) / (factorial(k) * factorial((n + m) // 2 - k) * factorial((n - m) // 2 - k))
        out += c * rho ** (n - 2 * k)
    return out


def _zernike(n: int, m: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    rho, phi = np.hypot(x, y), np.arctan2(y, x)
    return _radial(n, abs(m), rho) * (np.cos(m * phi) if m >= 0 else np.sin(-m * phi))


def even_basis(index: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Symmetric Zernike polynomial ``index`` at frequencies in 1/Å (not normalised)."""
    k = int(np.sqrt(index))
    return _zernike(2 * k, 2 * (index - k * k - k), x, y)


def odd_basis(index: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Antisymmetric Zernike polynomial ``index`` at frequencies in 1/Å (not normalised)."""
    k = int((np.sqrt(1 + 4 * index) - 1) / 2)
    n = 2 * k + 1
    return _zernike(n, 2 * (index - k * k - k) - n, x, y)


def _corrected(group: OpticsGroup, frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    f = np.asarray(frequencies, float)
    m = np.asarray(group.magnification, float)
    return m[0, 0] * f[..., 0] + m[0, 1] * f[..., 1], m[1, 0] * f[..., 0] + m[1, 1] * f[..., 1]


def even_phase(group: OpticsGroup, frequencies: np.ndarray) -> np.ndarray:
    """Phase of the symmetric aberrations at (P, 2) frequencies, radians."""
    x, y = _corrected(group, frequencies)
    out = np.zeros_like(x)
    for i, c in enumerate(group.even_zernike):
        if c:
            out += c * even_basis(i, x, y)
    return out


def odd_phase(group: OpticsGroup, frequencies: np.ndarray) -> np.ndarray:
    """Phase of beam tilt and antisymmetric aberrations at (P, 2) frequencies, radians.

    Images are multiplied by ``exp(-i phase)`` to remove it, predictions by ``exp(+i phase)``.
    """
    x, y = _corrected(group, frequencies)
    coefficients = np.zeros(max(6, len(group.odd_zernike)))
    coefficients[: len(group.odd_zernike)] = group.odd_zernike
    tx, ty = group.beam_tilt
    if tx or ty:
        q = group.spherical_aberration * 2e4 * wavelength(group.voltage) ** 2 * np.pi
        zx, zy = -q * tx / 3, -q * ty / 3
        coefficients[1] += 2 * zx
        coefficients[0] += 2 * zy
        coefficients[4] += zx
        coefficients[3] += zy
    out = np.zeros_like(x)
    for i, c in enumerate(coefficients):
        if c:
            out += c * odd_basis(i, x, y)
    return out


def ctf_pixel_terms(group: OpticsGroup, frequencies: np.ndarray) -> np.ndarray:
    """What of the CTF depends on the pixel alone, at (P, 2) frequencies in 1/Å; see :mod:`cryotk.kernels.ctf_values`.

    Returns
    -------
    (5, P) float64: ``x^2, x y, y^2`` (1/Å^2), phase of spherical aberration and even aberrations (radians), ``u^2``.
    """
    x, y = _corrected(group, frequencies)
    u2 = x * x + y * y
    spherical = np.pi / 2 * group.spherical_aberration * 1e7 * wavelength(group.voltage) ** 3
    return np.stack([x * x, x * y, y * y, spherical * u2 * u2 + even_phase(group, frequencies), u2])


def ctf_image_terms(
    group: OpticsGroup,
    defocus_u: np.ndarray,
    defocus_v: np.ndarray,
    defocus_angle: np.ndarray,
    phase_shift: np.ndarray,
    b_factor: np.ndarray,
    scale: np.ndarray,
) -> np.ndarray:
    """What of the CTF depends on the image alone; units as for :func:`ctf`.

    Returns
    -------
    (n, 6) float64: factors of ``x^2, x y, y^2``, constant phase (radians), B-factor (Å^2), scale.
    """
    c, s = np.cos(np.radians(defocus_angle)), np.sin(np.radians(defocus_angle))
    k, q0 = np.pi * wavelength(group.voltage), group.amplitude_contrast
    constant = -np.radians(phase_shift) - np.arctan(q0 / np.sqrt(1 - q0 * q0))
    xx, yy = -k * (defocus_u * c * c + defocus_v * s * s), -k * (defocus_u * s * s + defocus_v * c * c)
    return np.stack([xx, -2 * k * (defocus_u - defocus_v) * s * c, yy, constant, b_factor, scale], -1)


def gamma(
    group: OpticsGroup,
    frequencies: np.ndarray,
    defocus_u: ArrayLike,
    defocus_v: ArrayLike,
    defocus_angle: ArrayLike,
    phase_shift: ArrayLike = 0.0,
) -> np.ndarray:
    """Phase of the CTF.

    Parameters
    ----------
    group : OpticsGroup
    frequencies : (P, 2) float
        x, y in 1/Å.
    defocus_u, defocus_v : (n,) float
        Å, underfocus positive.
    defocus_angle, phase_shift : (n,) float
        Degrees.

    Returns
    -------
    (n, P) float64, radians.
    """
    from cryotk.optics.ctf_loops import gamma_loop

    x, y = _corrected(group, frequencies)
    du, dv, az, ph = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(v, float)) for v in (defocus_u, defocus_v, defocus_angle, phase_shift))
    )
    c, s = np.cos(np.radians(az)), np.sin(np.radians(az))
    lam, q0 = wavelength(group.voltage), group.amplitude_contrast
    constant = -np.radians(ph) - np.arctan(q0 / np.sqrt(1 - q0 * q0))
    u2 = x * x + y * y
    out = np.empty((len(du), len(x)))
    gamma_loop(
        x * x, x * y, y * y, u2 * u2, even_phase(group, frequencies),
        -(du * c * c + dv * s * s), -(du - dv) * s * c, -(du * s * s + dv * c * c),
        constant, np.pi * lam, np.pi / 2 * group.spherical_aberration * 1e7 * lam**3, out,
    )
    return out


def ctf(
    group: OpticsGroup,
    frequencies: np.ndarray,
    defocus_u: ArrayLike,
    defocus_v: ArrayLike,
    defocus_angle: ArrayLike,
    phase_shift: ArrayLike = 0.0,
    b_factor: ArrayLike = 0.0,
    scale: ArrayLike = 1.0,
    *,
    intact_first_peak: bool = False,
    phase_flip_only: bool = False,
) -> np.ndarray:
    """Contrast transfer function of images of one optics group.

    Parameters
    ----------
    group : OpticsGroup
    frequencies : (P, 2) float
        x, y in 1/Å, before the magnification correction.
    defocus_u, defocus_v : (n,) float
        Å, underfocus positive.
    defocus_angle, phase_shift : (n,) float
        Degrees.
    b_factor : (n,) float
        Å^2.
    scale : (n,) float
    intact_first_peak : bool
        1 until the first peak.
    phase_flip_only : bool
        Only the sign.

    Returns
    -------
    (n, P) float32
    """
    from cryotk.optics.ctf_loops import ctf_loop

    phase = gamma(group, frequencies, defocus_u, defocus_v, defocus_angle, phase_shift)
    x, y = _corrected(group, frequencies)
    n = len(phase)
    b = np.broadcast_to(np.asarray(b_factor, float), (n,))
    s = np.broadcast_to(np.asarray(scale, float), (n,))
    out = np.empty(phase.shape, np.float32)
    ctf_loop(phase, x * x + y * y, np.ascontiguousarray(b), np.ascontiguousarray(s), intact_first_peak, phase_flip_only, out)
    return out


def dose_weight(frequencies: np.ndarray, dose: ArrayLike) -> np.ndarray:
    """Damping by radiation (Grant & Grigorieff 2015) at (P,) frequencies in 1/Å for (n,) doses in e/Å^2: (n, P)."""
    u = np.maximum(np.asarray(frequencies, float), 1e-6)
    return np.exp(-0.5 * np.atleast_1d(np.asarray(dose, float))[:, None] / (0.245 * u**-1.665 + 2.81))
