"""``.cryo``: what the field does to particle sets, volumes and stacks."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cryotk.data.checks import Report, check_images, validate
from cryotk.data.combine import select_particles
from cryotk.data.particles import attach_images
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


def _widgets(name: str) -> Any:
    try:
        package = import_module("cryotk_widgets")
    except ImportError:
        raise SettingsError("views need the lab extra: pip install 'cryotk[lab]'") from None
    try:
        return getattr(package, name)
    except AttributeError:
        raise SettingsError(f"this version of cryotk_widgets has no {name}") from None


def summary(ds: xr.Dataset) -> dict[str, str]:
    """What a particle set is, from what is in memory: nothing is read or computed."""
    out = {"particles": f"{ds.sizes.get('particle', 0):,}".replace(",", "\u202f")}
    if "image" in ds.sizes:
        out["images"] = f"{ds.sizes['image']:,} ({ds.sizes['image'] / max(1, ds.sizes['particle']):.1f} per particle)".replace(
            ",", "\u202f"
        )
    if "micrograph" in ds:
        out["micrographs"] = str(len(set(ds["micrograph"].values.tolist())))
    for i, g in enumerate(ds["optics"].values if "optics" in ds else []):
        rows = int((ds["optics_group"].values == g).sum())
        parts = [f"{rows} particles"]
        for name, unit in (("box_size", "px"), ("pixel_size", "Å"), ("voltage", "kV"), ("spherical_aberration", "mm")):
            if name in ds:
                parts.append(f"{float(ds[name].values[i]):.6g} {unit}")
        out[f"optics group {ds['optics_name'].values[i] if 'optics_name' in ds else g}"] = ", ".join(parts)
    known = [k for k in ("angle_rot", "class_number", "random_subset", "defocus_u") if k in ds]
    out["has"] = ", ".join(
        {"angle_rot": "poses", "class_number": "classes", "random_subset": "half-sets", "defocus_u": "CTF"}[k] for k in known
    )
    out["from"] = str(ds.attrs.get("source", ""))
    return {k: v for k, v in out.items() if v}


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
        """One optics group, by name or number, with its images.

        Raises
        ------
        DataError
            When there is no such group.
        """
        ds = self._ds
        numbers = ds["optics"].values
        names = ds["optics_name"].values.astype(str) if "optics_name" in ds else numbers.astype(str)
        hit = [i for i in range(len(numbers)) if names[i] == str(name)] or [
            i for i in range(len(numbers)) if str(numbers[i]) == str(name)
        ]
        if not hit:
            raise DataError(f"there is no optics group {name!r}; there are {', '.join(names)}")
        rows = np.nonzero(ds["optics_group"].values == numbers[hit[0]])[0]
        out = select_particles(ds, rows).isel(optics=hit[:1])
        if "images" not in out and "image_name" in out and "start_dir" in ds.attrs:
            out = attach_images(out, ds.attrs["start_dir"], ds.attrs.get("project_dir") or None)
        return out

    def select(self, index: Any) -> xr.Dataset:
        """Some particles, by row numbers or a mask, each with all of its images."""
        return select_particles(self._ds, index)

    def __repr__(self) -> str:
        return "\n".join(["<particle set>", *(f"{k}: {v}" for k, v in summary(self._ds).items())])

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(k)}</th><td style='text-align:left'>{escape(v)}</td></tr>"
            for k, v in summary(self._ds).items()
        )
        return f"<table>{rows}</table>"

    def to_gpu(self) -> xr.Dataset:
        """Return the same set with images on the GPU, still lazy (needs cupy and a device)."""
        if "images" not in self._ds:
            raise DataError("this particle set has no images (optics groups of different boxes?): take one with .cryo.group(name)")
        return self._ds.assign(images=(self._ds["images"].dims, _to_gpu(self._ds["images"].data), self._ds["images"].attrs))

    def to_starfile(self) -> dict[str, Any]:
        """Return ``{"optics": DataFrame, "particles": DataFrame}``, as the starfile package has it."""
        from cryotk.io.particle_tables import particle_blocks

        return {name: block.to_frame() for name, block in particle_blocks(self._ds).items()}

    def lowpass(self, resolution: float, width: float = 2.0) -> xr.Dataset:
        """Return the same set with images low-pass filtered to ``resolution`` Å, lazily."""
        images = self._ds["images"]
        a = np.unique(self._ds["pixel_size"].values[np.isin(self._ds["optics"].values, self._ds["optics_group"].values)])
        if len(a) > 1:
            raise DataError(
                f"optics groups have different pixel sizes ({', '.join(f'{v:g}' for v in a)} Å): take one with .cryo.group(name)"
            )
        filtered = images.assign_attrs(pixel_size=float(a[0])).cryo.lowpass(resolution, width)
        return self._ds.assign(images=(images.dims, filtered.data, images.attrs))

    def view(self, **kwargs: Any) -> Any:
        """Show the images in a widget (needs the lab extra)."""
        return _widgets("view_particles")(self._ds, **kwargs)

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
        from cryotk.data.volumes import pixel_size_of

        a = pixel_size_of(self._da)
        if a is not None:
            return a
        raise DataError("this array has no pixel_size in its attrs: open it with open_volume, or set it")

    def lowpass(self, resolution: float, width: float = 2.0) -> xr.DataArray:
        """Low-pass filter every image or the volume to ``resolution`` Å, with a soft edge of ``width`` Fourier pixels.

        The same as :func:`cryotk.lowpass`.

        Raises
        ------
        SettingsError
            For a resolution that is no positive number.
        """
        from cryotk.fourier import filter_map

        if not (isinstance(resolution, Real) and float(resolution) > 0):
            raise SettingsError(f"resolution must be a positive number, in Å, not {resolution!r}")
        options: dict[str, Any] = {"lowpass": resolution, "width": width, "dims": 3 if "z" in self._da.dims else 2}
        a = self._pixel_size()
        if hasattr(self._da.data, "map_blocks"):
            data = self._da.data.map_blocks(filter_map, a, **options, dtype=np.float32)
        else:
            data = filter_map(self._da.data, a, **options)
        return self._da.copy(data=data)

    def on_grid(self, other: xr.DataArray) -> xr.DataArray:
        """Return the same voxels with the coordinates of another map, so that both can be combined.

        Parameters
        ----------
        other : DataArray
            Of the same box and pixel size, but for the last digits of a header.

        Returns
        -------
        xarray.DataArray

        Raises
        ------
        DataError
            For another box or pixel size: arithmetic would keep only the voxels whose coordinates both have.
        """
        from cryotk.data.volumes import pixel_size_of, upright

        this, that = upright(self._da), upright(other)
        a, b = self._pixel_size(), pixel_size_of(other)
        if this.dims != that.dims or this.shape != that.shape:
            raise DataError(
                f"the boxes differ: {dict(this.sizes)} and {dict(that.sizes)}; ctk.rebox and ctk.rescale bring one map to the other"
            )
        if b is None or abs(a - b) > 1e-3 * b:
            found = "unknown" if b is None else f"{b:.6g} Å"
            raise DataError(
                f"the pixel sizes differ: {a:.6g} Å and {found}; bring one map to the other with ctk.rescale, or open it with "
                "the right pixel_size="
            )
        out = this.assign_coords({axis: that.coords[axis] for axis in that.dims if axis in that.coords})
        out.attrs["pixel_size"] = b
        return out

    def view(self, **kwargs: Any) -> Any:
        """Show the volume or the images in a widget (needs the lab extra)."""
        return _widgets("view_volume" if "z" in self._da.dims else "view_stack")(self._da, **kwargs)

    def to_napari(self, viewer: Any = None, **options: Any) -> Any:
        """Add to a napari viewer: scale in Å, grey limits from a few sections, dask arrays stay lazy (needs the napari extra).

        Parameters
        ----------
        viewer : napari.Viewer, optional
            A new one when none is given.
        **options
            Of napari's ``add_image``.

        Returns
        -------
        napari.Viewer

        Raises
        ------
        SettingsError
            Without napari.
        DataError
            Without a pixel size.
        """
        try:
            napari = import_module("napari")
            layers = import_module("cryotk_widgets.napari.layers")
        except ImportError:
            raise SettingsError("napari is not installed: pip install 'cryotk[napari]'") from None
        data, settings, _ = layers.array_layer(self._da, **options)
        viewer = viewer if viewer is not None else napari.Viewer()
        viewer.add_image(data, **settings)
        return viewer

    def slices(self, **kwargs: Any) -> Any:
        """Show three central planes of the volume with one cross-hair (needs the lab extra)."""
        if "z" not in self._da.dims:
            raise DataError("slices are of a volume (z, y, x); images of a stack are seen with .cryo.view()")
        return _widgets("SliceView")(self._da, **kwargs)

    def open_in(self, program: str, folder: str | Path | None = None, level: float | None = None) -> Path:
        """Write the map and, for ChimeraX, a script that shows it; open it when the program is installed.

        Parameters
        ----------
        program : str
            ``"chimerax"``, or the name or path of any program that opens MRC files.
        folder : path, optional
            Where the files go; by default a new temporary folder.
        level : float, optional
            Threshold of the surface.

        Returns
        -------
        Path
            What was handed to the program: the script (ChimeraX) or the map. Open it by hand where the program is not installed.

        Raises
        ------
        SettingsError
            When a program other than ChimeraX is not there.
        """
        chimerax = Path(program).stem.lower() == "chimerax"
        command = shutil.which(program) or (shutil.which("ChimeraX") or shutil.which("chimerax") if chimerax else None)
        if command is None and not chimerax:
            raise SettingsError(f"{program} is not in the PATH; install it, or give the whole path of the program")
        target = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="cryotk-"))
        target.mkdir(parents=True, exist_ok=True)
        is_volume = "z" in self._da.dims
        path = target / ("volume.mrc" if is_volume else "images.mrcs")
        self.write(path)
        if chimerax and is_volume:
            from cryotk.io.atomic import atomic_write

            lines = [f'open "{path.resolve()}"', f"volume #1 voxelSize {self._pixel_size():.6g}", "volume #1 color #e8b463 step 1"]
            if level is not None:
                lines.append(f"volume #1 level {float(level):.6g}")
            lines += ["lighting soft", "graphics silhouettes true", "set bgColor white", "view"]
            path = target / "volume.cxc"
            atomic_write(path, ("\n".join(lines) + "\n").encode())
        if command is not None:
            subprocess.Popen([command, str(path)])
        return path

    def to_gpu(self) -> xr.DataArray:
        """Return the same array on the GPU (needs cupy and a device)."""
        return self._da.copy(data=_to_gpu(self._da.data))

    def write(self, path: str | Path) -> None:
        """Write an MRC file: a volume, or a stack for dimension ``image``."""
        from cryotk.data.volumes import write_stack, write_volume

        (write_volume if "z" in self._da.dims else write_stack)(self._da, path)

    def save(self, folder: str | Path, root: str | None = None) -> Path:
        """Write into a folder what RELION's programs write of it.

        A map becomes ``<root>.mrc``, a stack ``<root>.mrcs``, the curve of :func:`cryotk.fsc` ``<root>.star`` with the table that
        ``relion_image_handler --fsc`` prints.

        Parameters
        ----------
        folder : path
            Made where it does not exist.
        root : str, optional
            ``volume``, ``stack`` or ``fsc`` by default.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        DataError
            When the folder is a file, or a map or stack has no pixel size.
        """
        where = Path(folder)
        if where.is_file():
            raise DataError(f"{where} is a file: give a folder, and the name as root=")
        root = root and root.removesuffix(".mrc").removesuffix(".mrcs").removesuffix(".star")
        where.mkdir(parents=True, exist_ok=True)
        if "shell" in self._da.dims:
            return _save_curve(self._da, where / f"{root or 'fsc'}.star")
        self._pixel_size()
        is_map = "z" in self._da.dims
        path = where / f"{root or ('volume' if is_map else 'stack')}.{'mrc' if is_map else 'mrcs'}"
        self.write(path)
        return path

    def plot(self, **kwargs: Any) -> Any:
        """Draw it: a curve over shells with its crossings, the planes of a map, the images of a stack (needs the lab extra)."""
        if "shell" in self._da.dims:
            return _widgets("FSCPlot")(self._da, **kwargs)
        return self.slices(**kwargs) if "z" in self._da.dims else self.view(**kwargs)


def _save_curve(curve: xr.DataArray, path: Path) -> Path:
    from cryotk.data.volumes import pixels_to_write
    from cryotk.io import StarBlock, write_star

    if curve.dims != ("shell",) or "frequency" not in curve.coords:
        raise DataError(f"a curve over shells with their frequency is saved, such as ctk.fsc gives, not {curve.dims}")
    frequency = np.maximum(curve["frequency"].values, 1 / 999)
    columns = {
        "rlnSpectralIndex": curve["shell"].values,
        "rlnResolution": frequency,
        "rlnAngstromResolution": 1 / frequency,
        "rlnFourierShellCorrelation": np.asarray(pixels_to_write(curve), float),
    }
    write_star(path, {"fsc": StarBlock("fsc", columns)})
    return path
