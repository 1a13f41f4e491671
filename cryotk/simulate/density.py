"""Exact maps of molecules, in the units of simulated images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.fft

from cryotk.errors import SettingsError
from cryotk.simulate.gridding import points_to_volume_transform
from cryotk.simulate.molecules import Molecule

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["volume"]


def volume(
    molecule: Molecule, box: int, pixel_size: float, *, amplitude: float = 1.0, envelope_b_factor: float = 0.0
) -> xr.DataArray:
    """Density of a molecule on a lattice, band-limited at the pixel size.

    Parameters
    ----------
    molecule : Molecule
    box : int
        Even number of pixels.
    pixel_size : float, Å
    amplitude : float
        Factor; ``particles.attrs["amplitude"]`` puts the map in the units of a simulated particle set, whose noise-free
        images are then the map's sums along z (before their normalisation).
    envelope_b_factor : float, Å^2
        Blur by ``exp(-B k^2 / 4)``.

    Returns
    -------
    xarray.DataArray
        (z, y, x) float32 with coordinates in Å, 0 at pixel ``box // 2``.

    Raises
    ------
    SettingsError
        For an odd box or one smaller than the molecule.
    """
    import xarray as xr

    if box % 2 or box < 8:
        raise SettingsError(f"box must be an even number of at least 8 pixels, not {box}")
    if molecule.diameter > box * pixel_size:
        raise SettingsError(
            f"a box of {box} x {pixel_size:g} Å = {box * pixel_size:.0f} Å does not hold {molecule.name} of "
            f"{molecule.diameter:.0f} Å; take a larger box"
        )
    transform = points_to_volume_transform(molecule.positions, molecule.weights, box, pixel_size)
    f = np.fft.fftfreq(box, pixel_size) ** 2
    k2 = f[:, None, None] + f[:, None] + f[: box // 2 + 1]
    width = 2 * np.pi**2 * molecule.blob_sigma**2 + envelope_b_factor / 4
    transform *= np.exp(-width * k2) * (amplitude / pixel_size**3)
    data = scipy.fft.fftshift(scipy.fft.irfftn(transform, s=(box,) * 3, workers=1))
    at = (np.arange(box) - box // 2) * pixel_size
    axes = {d: (d, at, {"units": "Å"}) for d in "zyx"}
    return xr.DataArray(
        data.astype(np.float32), dims=("z", "y", "x"), coords=axes, name=molecule.name,
        attrs={"pixel_size": float(pixel_size), "units": "image units", "source": f"simulated: {molecule.name}"},
    )  # fmt: skip
