"""CTF, aberrations, dose: pure functions of arrays.

An :class:`OpticsGroup` says what images share; per-image numbers come as arrays. Nothing here knows files or particles.
"""

from cryotk.optics.ctf import (
    OpticsGroup,
    ctf,
    ctf_image_terms,
    ctf_pixel_terms,
    dose_weight,
    even_basis,
    even_phase,
    gamma,
    odd_basis,
    odd_phase,
    wavelength,
)
from cryotk.optics.mtf import modulation_transfer

__all__ = [
    "OpticsGroup",
    "ctf",
    "ctf_image_terms",
    "ctf_pixel_terms",
    "dose_weight",
    "even_basis",
    "even_phase",
    "gamma",
    "modulation_transfer",
    "odd_basis",
    "odd_phase",
    "wavelength",
]
