"""Rotations of a tilt series: from tomogram coordinates to the coordinates of a tilt image."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["tilt_rotation"]


def tilt_rotation(x_tilt: ArrayLike, y_tilt: ArrayLike, z_rotation: ArrayLike) -> np.ndarray:
    """Rotation ``Rz(z_rotation) Ry(y_tilt) Rx(x_tilt)`` of tilt images, right-handed about fixed axes.

    Parameters
    ----------
    x_tilt, y_tilt, z_rotation : array_like, (...)
        Degrees: RELION 5's rlnTomoXTilt, rlnTomoYTilt, rlnTomoZRot; broadcast against each other.

    Returns
    -------
    (..., 3, 3) float64
        Rows 0 and 1 are the axes of the image in the tomogram, row 2 is the beam.
    """
    x, y, z = np.broadcast_arrays(*(np.radians(np.asarray(v, float)) for v in (x_tilt, y_tilt, z_rotation)))
    cx, sx, cy, sy, cz, sz = np.cos(x), np.sin(x), np.cos(y), np.sin(y), np.cos(z), np.sin(z)
    out = np.empty((*x.shape, 3, 3))
    out[..., 0, 0] = cz * cy
    out[..., 0, 1] = cz * sy * sx - sz * cx
    out[..., 0, 2] = cz * sy * cx + sz * sx
    out[..., 1, 0] = sz * cy
    out[..., 1, 1] = sz * sy * sx + cz * cx
    out[..., 1, 2] = sz * sy * cx - cz * sx
    out[..., 2, 0] = -sy
    out[..., 2, 1] = cy * sx
    out[..., 2, 2] = cy * cx
    return out
