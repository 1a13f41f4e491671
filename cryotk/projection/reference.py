"""Padded Fourier transforms of maps and averages, out of which slices are taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from cryotk.kernels.slice_extraction import extract_slices_2d, extract_slices_3d
from cryotk.projection.half_transform import centre_signs, crop_half, half_radius_squared, sinc_squared
from cryotk.projection.padded import padded_half

__all__ = ["FourierReference", "invert"]


def invert(matrices: np.ndarray) -> np.ndarray:
    """Inverses of (n, 3, 3) matrices, contiguous float64."""
    return np.ascontiguousarray(np.linalg.inv(np.asarray(matrices, float).reshape(-1, 3, 3)))


@dataclass
class FourierReference:
    """A map's padded half transform, scaled like the transform of an image divided by the number of its pixels.

    Parameters
    ----------
    data : complex64
        ``[z, y, x >= 0]`` (no z for 2D averages), z and y centred at index ``r_max + 1``; zero beyond ``r_max``.
    r_max : int
        Radius in padded pixels.
    padding : float
    box : int
        Pixels of the map.
    pixel_size : float
        Å.
    """

    data: np.ndarray
    r_max: int
    padding: float
    box: int
    pixel_size: float = 1.0

    @property
    def is_3d(self) -> bool:
        """Whether this is a volume."""
        return self.data.ndim == 3

    @classmethod
    def from_map(
        cls, map_: np.ndarray, pixel_size: float, current_size: int | None = None, padding: float = 2.0
    ) -> FourierReference:
        """Transform a map.

        Parameters
        ----------
        map_ : (N, N, N) or (N, N) float
        pixel_size : float, Å
        current_size : int, optional
            Window in pixels: half of it is the radius kept; N by default.
        padding : float
            Oversampling of the transform.
        """
        map_ = np.asarray(map_)
        n, dims = map_.shape[-1], map_.ndim
        size = n if current_size is None else current_size
        r_max = int(np.floor(padding * size / 2 + 0.5))
        m = 2 * int(np.ceil(n * padding / 2))
        if dims == 3:

            def planes(first: int, last: int) -> np.ndarray:
                return (map_[first:last] / sinc_squared(n, padding, dims, (first, last))).astype(np.float32)

            half = padded_half(n, planes, m, r_max)
            half /= np.float32(n**2)
            return cls(half, r_max, float(padding), n, pixel_size)
        padded = np.zeros((m,) * dims, np.float32)
        lo = m // 2 - n // 2
        padded[(slice(lo, lo + n),) * dims] = (map_ / sinc_squared(n, padding, dims)).astype(np.float32)
        transform = scipy.fft.rfftn(padded, workers=1)
        half = crop_half(transform, r_max)
        half *= centre_signs(r_max, dims) / n**2
        half[half_radius_squared(r_max, dims) > r_max**2] = 0
        return cls(np.ascontiguousarray(half.astype(np.complex64)), r_max, float(padding), n, pixel_size)

    def slices(self, matrices: np.ndarray, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
        """Central slices.

        Parameters
        ----------
        matrices : (n, 3, 3) float
            Rotations (see :mod:`cryotk.geometry`), possibly scaled; inverted here.
        kx, ky : (P,) int
            Pixels of the slice.

        Returns
        -------
        (n, P) complex64
        """
        inverse = invert(matrices)
        n = len(inverse)
        parts = np.empty((n, 2, len(kx)), np.float32)
        run = extract_slices_3d if self.is_3d else extract_slices_2d
        kx, ky = np.asarray(kx, np.int32), np.asarray(ky, np.int32)
        run(self.data, inverse, kx, ky, self.padding, self.r_max, np.arange(n), parts)
        out = np.empty((n, len(kx)), np.complex64)
        out.real, out.imag = parts[:, 0], parts[:, 1]
        return out
