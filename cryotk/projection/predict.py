"""The only forward model: what an image of a reference at a pose looks like in Fourier space."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryotk.optics import OpticsGroup, ctf, odd_phase
from cryotk.projection.reference import FourierReference

__all__ = ["group_transform", "predict"]


def group_transform(optics: OpticsGroup, box: int, pixel_size: float) -> np.ndarray:
    """(3, 3) matrix that multiplies rotations of a group from the left: magnification and pixel scale.

    A slice pixel of the image is looked up at ``A^-1 (x, y, 0)`` of the model; with another box or pixel, or an
    anisotropic magnification, ``A`` becomes this matrix times ``A``.
    """
    m = np.eye(3)
    m[:2, :2] = np.asarray(optics.magnification, float)
    rho = (optics.box_size * optics.pixel_size) / (box * pixel_size)
    return np.linalg.inv(m) * rho


def predict(
    reference: FourierReference,
    optics: OpticsGroup,
    matrices: np.ndarray,
    kx: np.ndarray,
    ky: np.ndarray,
    *,
    shifts: np.ndarray | None = None,
    ctf_parameters: dict[str, Any] | None = None,
    apply_odd_phase: bool = False,
    mtf: np.ndarray | None = None,
    intact_first_peak: bool = False,
) -> np.ndarray:
    """Predict images of one optics group on Fourier pixels.

    Parameters
    ----------
    reference : FourierReference
    optics : OpticsGroup
    matrices : (n, 3, 3) float
    kx, ky : (P,) int
        Pixels of the image's half transform.
    shifts : (n, 2) float, optional
        Offsets in Å that centre the particle; the predicted particle lies at minus that.
    ctf_parameters : dict, optional
        ``defocus_u, defocus_v, defocus_angle, phase_shift, b_factor, scale`` (n,); no CTF without it.
    apply_odd_phase : bool
        Beam tilt and antisymmetric aberrations.
    mtf : (P,) float, optional

    Returns
    -------
    (n, P) complex64, transforms divided by the number of pixels, phases from the centre pixel.
    """
    transform = group_transform(optics, reference.box, reference.pixel_size)
    out = reference.slices(transform @ np.asarray(matrices, float), kx, ky)
    frequencies = np.stack([kx, ky], -1) / (optics.box_size * optics.pixel_size)
    if ctf_parameters is not None:
        c = ctf(optics, frequencies, **ctf_parameters, intact_first_peak=intact_first_peak)
        out *= c * c if optics.premultiplied else c
    if apply_odd_phase:
        out *= np.exp(1j * odd_phase(optics, frequencies)).astype(np.complex64)
    if mtf is not None:
        out *= np.asarray(mtf, np.float32)
    if shifts is not None:
        t = np.asarray(shifts, float)
        angle = 2 * np.pi * (t[:, :1] * frequencies[:, 0] + t[:, 1:] * frequencies[:, 1])
        out *= np.exp(1j * angle).astype(np.complex64)
    return out
