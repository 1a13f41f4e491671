"""``.cryo``: what the field does to particle sets, volumes and stacks."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cryotk.data.checks import Report, check_images, validate
from cryotk.errors import DataError, SettingsError

__all__ = ["ArrayAccessor", "ParticleAccessor"]


def _to_gpu(values: Any) -> Any:
    try:
        cupy = import_module("cupy")
    except ImportError:
        raise SettingsError("cupy is not installed: pip install 'cryotk[cuda12]' (or cuda13)") from None
    if not cupy.cuda.is_available():
        raise SettingsError("no CUDA device is available here: keep the data on the CPU")
    if hasattr(values, "map_blocks"):
        return values.map_blocks(cupy.asarray, dtype=values.dtype, meta=cupy.empty((0,) * values.ndim, values.dtype))
    return cupy.asarray(values)


@xr.register_dataset_accessor("cryo")
class ParticleAccessor:
    """Verbs of a particle set, as ``particles.cryo.<verb>()``."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._ds = dataset

    def validate(self) -> Report:
        """Check files, sizes, indices, half-sets and CTFs without reading a pixel."""
        return validate(self._ds)

    def check_images(self, n: int = 100) -> Report:
        """Read ``n`` images and check contrast, normalisation, NaN and zero variance."""
        return check_images(self._ds, n)

    def group(self, name: str | int) -> xr.Dataset:
        """One optics group, by name or number, with its images."""
        ds = self._ds
        numbers = ds["optics"].values
        names = ds["optics_name"].values.astype(str) if "optics_name" in ds else numbers.astype(str)
        hit = [i for i in range(len(numbers)) if str(name) in (str(numbers[i]), names[i])]
        if not hit:
            raise DataError(f"there is no optics group {name!r}; there are {', '.join(names)}")
        rows = np.nonzero(ds["optics_group"].values == numbers[hit[0]])[0]
        out = ds.isel(particle=rows, optics=hit[:1])
        if "images" not in out and "start_dir" in ds.attrs:
            from cryotk.data.particles import attach_images

            out = attach_images(out.copy(), Path(ds.attrs["start_dir"]), ds.attrs.get("project_dir") or None)
        return out

    def to_gpu(self) -> xr.Dataset:
        """Return the same set with images on the GPU, still lazy (needs cupy and a device)."""
        return self._ds.assign(images=(self._ds["images"].dims, _to_gpu(self._ds["images"].data), self._ds["images"].attrs))

    def to_starfile(self) -> dict[str, Any]:
        """Return ``{"optics": DataFrame, "particles": DataFrame}``, as the starfile package has it."""
        from cryotk.io.particle_tables import particle_blocks

        return {name: block.to_frame() for name, block in particle_blocks(self._ds).items()}

    def write(self, path: str | Path) -> None:
        """Write a RELION STAR file."""
        from cryotk.io.particle_tables import write_particles

        write_particles(self._ds, path)


@xr.register_dataarray_accessor("cryo")
class ArrayAccessor:
    """Verbs of volumes and stacks, as ``volume.cryo.<verb>()``."""

    def __init__(self, array: xr.DataArray) -> None:
        self._da = array

    def _pixel_size(self) -> float:
        if "pixel_size" in self._da.attrs:
            return float(self._da.attrs["pixel_size"])
        raise DataError("this array has no pixel_size in its attrs: open it with open_volume, or set it")

    def lowpass(self, resolution: float, width: float = 2.0) -> xr.DataArray:
        """Low-pass filter every image or the volume to ``resolution`` Å with a soft edge of ``width`` Fourier pixels."""
        from cryotk.fourier import lowpass

        dims = 3 if "z" in self._da.dims else 2
        a = self._pixel_size()
        if hasattr(self._da.data, "map_blocks"):
            data = self._da.data.map_blocks(lowpass, a, resolution, width, dims, dtype=np.float32)
        else:
            data = lowpass(self._da.data, a, resolution, width, dims)
        return self._da.copy(data=data)

    def to_gpu(self) -> xr.DataArray:
        """Return the same array on the GPU (needs cupy and a device)."""
        return self._da.copy(data=_to_gpu(self._da.data))

    def write(self, path: str | Path) -> None:
        """Write an MRC file: a volume, or a stack for dimension ``image``."""
        from cryotk.data.volumes import write_stack, write_volume

        (write_volume if "z" in self._da.dims else write_stack)(self._da, path)
