"""Particle sets: a Dataset with eager columns and lazy images."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data.lazy_images import is_untouched, lazy_images
from cryotk.data.source import ArraySource, ImageSource, StackSource, find_project_file
from cryotk.data.tilt_images import add_tilt_geometry, optimisation_set_files, read_tomograms, tomograms_of
from cryotk.errors import CryotkError, DataError, DataWarning, MissingFileError
from cryotk.io.cryosparc import read_cs
from cryotk.io.labels import OPTICS_NAMES, OPTICS_UNITS, PARTICLE_NAMES, PARTICLE_UNITS
from cryotk.io.particle_dialects import PIXEL_LABELS, ParticleTables, particle_tables
from cryotk.io.star import StarBlock, read_star
from cryotk.optics import OpticsGroup

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["attach_images", "image_names", "image_source", "open_particles", "optics_groups"]

_VECTORS = {"rlnOddZernike": ("odd_zernike", "odd_term"), "rlnEvenZernike": ("even_zernike", "even_term")}
_MAGNIFICATION = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
_OF_A_PARTICLE = ("optics_group", "random_subset", "class_number", "group_name", "group_number")
"""Columns that stay with the particle where a table has one row per tilt image."""


def open_particles(
    path: Any,
    project_dir: str | os.PathLike[str] | None = None,
    *,
    images: bool = True,
    pixel_size: float | None = None,
    particle_column: str | None = None,
    tomograms: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Open a RELION particle set; pixels stay on disk until they are asked for.

    Parameters
    ----------
    path : path, Dataset, DataFrame, or dict of DataFrames
        A particle STAR file of RELION 1.3 to 5, RELION 5's optimisation set, or cryoSPARC's ``.cs``; a Dataset is
        returned as it is;
        tables as ``starfile.read`` gives them.
    project_dir : path, optional
        Folder that image names are relative to. By default the STAR file's folder and all above it are searched.
    images : bool
        Whether to attach ``images``.
    pixel_size : float, optional
        Å; for old files that do not say it.
    particle_column : str, optional
        For tables with one row per tilt image (Warp, M): the column that names the particle, e.g. ``"rlnGroupName"``.
    tomograms : path, optional
        For RELION 5's 2D stacks: the tomograms file of their tilt series; by default the one that the optimisation set beside the
        particle file names.

    Returns
    -------
    xarray.Dataset
        Dimension ``particle``; ``images`` (particle, y, x) float32 when all optics groups have one box; per-group values on
        dimension ``optics``. Where a particle has several images (RELION 5's 2D stacks, or ``particle_column``), ``images`` is
        (image, y, x) and ``particle_of_image`` says whose they are; angles, dose and CTF of tilt images are on ``image`` too, and
        ``tilt_rotation`` (image, 3, 3) turns a particle's pose into that image's.

    Raises
    ------
    MissingFileError, FileFormatError, DataError

    Examples
    --------
    >>> particles = open_particles("Extract/job009/particles.star")  # doctest: +SKIP
    """
    import xarray as xr

    if isinstance(path, xr.Dataset):
        return path
    if isinstance(path, (str, os.PathLike)):
        blocks = read_cs(path) if os.fspath(path).endswith(".cs") else read_star(path)
        where, start = str(path), Path(os.path.abspath(path)).parent
        entries = optimisation_set_files(blocks)
        if entries is not None:
            project = Path(project_dir) if project_dir is not None else None
            return open_particles(
                find_project_file(entries["rlnTomoParticlesFile"], start, project), project_dir, images=images,
                pixel_size=pixel_size, particle_column=particle_column, tomograms=tomograms or entries.get("rlnTomoTomogramsFile"),
            )  # fmt: skip
    else:
        blocks = _given_tables(path)
        where, start = "the given tables", Path.cwd()
    tables = particle_tables(blocks, where, pixel_size)
    ds = _dataset(tables, where)
    ds.attrs["start_dir"] = str(start)
    ds.attrs["project_dir"] = str(project_dir) if project_dir is not None else ""
    if particle_column is not None:
        ds = _one_row_per_image(ds, particle_column, where)
    elif tables.general.get("rlnTomoSubTomosAre2DStacks") in (1, True) or "rlnTomoVisibleFrames" in ds:
        ds = _stacks_of_images(ds)
        if "frame" in ds and "rlnTomoName" in ds:
            ds = _with_tilt_geometry(ds, where, tomograms, start, project_dir)
    if images and "image_name" in ds:
        ds = attach_images(ds, start, project_dir)
    return ds


def _given_tables(tables: Any) -> dict[str, StarBlock]:
    if hasattr(tables, "columns"):
        tables = {"particles": tables}
    if not isinstance(tables, dict):
        raise DataError(f"open_particles takes a path, a Dataset, a DataFrame or a dict of DataFrames, not {type(tables).__name__}")
    out = {}
    for name, table in tables.items():
        if hasattr(table, "columns"):
            out[name] = StarBlock(name, {str(c): table[c].to_numpy() for c in table.columns})
        else:
            out[name] = StarBlock(name, dict(table), is_loop=False)
    return out


def _dataset(tables: ParticleTables, where: str) -> xr.Dataset:
    import xarray as xr

    optics, particles = tables.optics, tables.particles
    variables: dict[str, Any] = {}
    for label, values in particles.columns.items():
        name = PARTICLE_NAMES.get(label, label)
        attrs = {"relion_label": label}
        if name in PARTICLE_UNITS:
            attrs["units"] = PARTICLE_UNITS[name]
        array = np.asarray(values)
        array = array if array.dtype.kind in "iufb" else array.astype(object)
        # without fastpath xarray sends texts through pandas and back: a copy of every name, where equal ones were one object
        variables[name] = xr.Variable(("particle",), array, attrs, fastpath=True)
    variables.update(_optics_variables(optics))
    if "pixel_size" not in variables:
        label = next(c for c in PIXEL_LABELS if c in optics)
        variables["pixel_size"] = ("optics", np.asarray(optics[label], float), {"units": "Å", "derived": True})
    general: dict[str, Any] = {
        "source": where,
        "star_columns": list(particles.columns),
        "star_optics_columns": list(optics.columns),
    }
    if tables.general:
        general["star_general"] = dict(tables.general)
    if particles.version:
        general["star_version"] = particles.version
    return xr.Dataset(variables, coords={"optics": np.asarray(optics["rlnOpticsGroup"], np.int64)}, attrs=general)


def _optics_variables(optics: StarBlock) -> dict[str, Any]:
    out: dict[str, Any] = {}
    whole_matrix = all(label in optics for label in _MAGNIFICATION)
    for label, values in optics.columns.items():
        if label in _VECTORS:
            name, dim = _VECTORS[label]
            rows = [_vector(v) for v in values]
            array = np.zeros((len(rows), max(map(len, rows), default=0)))
            for i, r in enumerate(rows):
                array[i, : len(r)] = r
            out[name] = (("optics", dim), array, {"relion_label": label})
        elif label != "rlnOpticsGroup" and not (whole_matrix and label in _MAGNIFICATION):
            name = OPTICS_NAMES.get(label, label)
            attrs = {"relion_label": label}
            if name in OPTICS_UNITS:
                attrs["units"] = OPTICS_UNITS[name]
            array = np.asarray(values)
            out[name] = ("optics", array if array.dtype.kind in "iufb" else array.astype(object), attrs)
    if whole_matrix:
        m = np.stack([np.asarray(optics[label], float) for label in _MAGNIFICATION], -1).reshape(-1, 2, 2)
        out["magnification_matrix"] = (("optics", "mag_row", "mag_column"), m, {})
    return out


def _vector(text: Any) -> np.ndarray:
    if isinstance(text, str):
        return np.array([float(v) for v in text.strip().strip("[]").split(",") if v.strip()])
    return np.atleast_1d(np.asarray(text, float))


def _one_row_per_image(ds: xr.Dataset, column: str, where: str) -> xr.Dataset:
    """Rows of tilt images as particles with several images; rows of one particle become neighbours, in the file's order."""
    name = PARTICLE_NAMES.get(column, column)
    if name not in ds:
        raise DataError(f"{where} has no column {column!r} to tell particles apart; it has {', '.join(ds.attrs['star_columns'])}")
    import pandas as pd

    particle = pd.factorize(np.asarray(ds[name].values))[0]
    order = np.argsort(particle, kind="stable")
    particle = particle[order]
    first = np.unique(particle, return_index=True)[1]
    out = ds.drop_dims("particle")
    for key, variable in ds.data_vars.items():
        if variable.dims == ("particle",):
            values = variable.values[order]
            mine = key in _OF_A_PARTICLE or key == name
            out[key] = ("particle", values[first], variable.attrs) if mine else ("image", values, variable.attrs)
    out["particle_of_image"] = ("image", particle.astype(np.int64))
    out.attrs = ds.attrs | {"star_rows": "image"}
    return out


def _stacks_of_images(ds: xr.Dataset) -> xr.Dataset:
    """RELION 5's 2D stacks: the images of a particle are the tilts in which it is visible."""
    n = ds.sizes["particle"]
    if "image_name" not in ds or "rlnTomoVisibleFrames" not in ds or any("@" in str(v) for v in ds["image_name"].values[:1]):
        return ds
    visible = [np.nonzero(_vector(v))[0] for v in ds["rlnTomoVisibleFrames"].values]
    counts = np.array([len(v) for v in visible])
    out = ds.assign(
        particle_of_image=("image", np.repeat(np.arange(n), counts)),
        frame=("image", np.concatenate(visible) if n else np.empty(0, int), {"long_name": "row of the tilt series, from 0"}),
        section=("image", np.concatenate([np.arange(c) for c in counts]), {"long_name": "image of the particle's stack, from 0"}),
    )
    out.attrs["star_rows"] = "particle"
    return out


def _with_tilt_geometry(ds: xr.Dataset, where: str, tomograms: Any, start: Path, project_dir: Any) -> xr.Dataset:
    try:
        file = tomograms_of(where, tomograms, start, project_dir)
        if file is None:
            return ds
        needed = list(dict.fromkeys(str(v) for v in ds["rlnTomoName"].values))
        series = read_tomograms(file, needed, project_dir)
        out = add_tilt_geometry(ds, series)
    except CryotkError as error:
        if tomograms is not None:
            raise
        warnings.warn(f"{error}; angles, dose and CTF of the tilt images are left out", DataWarning, stacklevel=4)
        return ds
    out.attrs["tomograms"] = str(file)
    return out


def image_names(particles: xr.Dataset) -> np.ndarray:
    """Return the ``n@stack`` name of every image.

    Parameters
    ----------
    particles : Dataset
        As :func:`open_particles` gives it.
    """
    names = particles["image_name"].values
    if "section" in particles:
        of, section = particles["particle_of_image"].values, particles["section"].values
        return np.array([f"{k + 1}@{names[p]}" for p, k in zip(of, section, strict=True)], object)
    return names


def attach_images(ds: xr.Dataset, start: str | os.PathLike[str], project_dir: Any = None) -> xr.Dataset:
    """Add ``images`` (when there is one box) and the box size of each optics group, from the stacks' headers.

    A set whose stacks are missing and whose table does not say the box stays without images, with a warning.

    Parameters
    ----------
    ds : Dataset
        With ``image_name``.
    start, project_dir : path
        Where stacks are looked for, see :func:`open_particles`.
    """
    dim = "image" if "particle_of_image" in ds else "particle"
    source = StackSource(image_names(ds), start, project_dir, int(ds["box_size"].values[0]) if "box_size" in ds else 1)
    if "box_size" not in ds:
        try:
            sizes = _box_sizes(ds, source)
        except MissingFileError as error:
            warnings.warn(f"{error}; the images are left out", DataWarning, stacklevel=3)
            return ds
        ds = ds.assign(box_size=("optics", sizes, {"units": "px", "relion_label": "rlnImageSize"}))
    used = np.isin(ds["optics"].values, ds["optics_group"].values)
    boxes = np.unique(np.asarray(ds["box_size"].values, np.int64)[used])
    if len(boxes) == 1:
        source.box = int(boxes[0])
        ds = ds.assign(images=((dim, "y", "x"), lazy_images(source), {"units": "normalised density"}))
    return ds


def _box_sizes(ds: xr.Dataset, source: StackSource) -> np.ndarray:
    sizes = np.zeros(ds.sizes["optics"], np.int64)
    groups = ds["optics_group"].values
    if "particle_of_image" in ds:
        groups = groups[ds["particle_of_image"].values]
    for i, g in enumerate(ds["optics"].values):
        first = np.nonzero(groups == g)[0]
        if len(first):
            sizes[i] = source.header(int(source.file_of[first[0]])).shape[-1]
    return sizes


def image_source(particles: xr.Dataset) -> ImageSource:
    """Return the source of a particle set's pixels, in the order of its rows (of its images, where particles have several).

    Parameters
    ----------
    particles : Dataset
        As :func:`open_particles` gives it.

    Raises
    ------
    DataError
        When the set has no images, or several boxes.
    """
    on_disk = "image_name" in particles and "start_dir" in particles.attrs

    def stacks(box: int) -> StackSource:
        return StackSource(image_names(particles), particles.attrs["start_dir"], particles.attrs.get("project_dir") or None, box)

    if "images" not in particles:
        if on_disk and "box_size" in particles:
            used = np.isin(particles["optics"].values, particles["optics_group"].values)
            boxes = np.unique(np.asarray(particles["box_size"].values, np.int64)[used])
            if len(boxes) == 1:
                return stacks(int(boxes[0]))
            raise DataError("optics groups have different boxes: take one with particles.cryo.group(name)")
        raise DataError("this particle set has no images; open it with open_particles(path) or add `images`")
    images = particles["images"].data
    if on_disk and hasattr(images, "dask") and images.shape[-1] == images.shape[-2]:
        direct = stacks(int(images.shape[-1]))
        if is_untouched(images, direct):
            return direct  # straight to the stacks: no dask task per block
    return ArraySource(images)


def optics_groups(particles: xr.Dataset) -> dict[int, OpticsGroup]:
    """Optics groups by number.

    Parameters
    ----------
    particles : Dataset
        As :func:`open_particles` gives it.

    Returns
    -------
    dict of int to OpticsGroup

    Raises
    ------
    DataError
        When voltage or another needed value is missing.
    """
    out = {}

    def value(name: str, i: int, default: float | None = None) -> float:
        if name in particles:
            found = float(particles[name].values[i])
            if np.isfinite(found):
                if found <= 0 and name in ("pixel_size", "voltage"):
                    label = next((k for k, v in OPTICS_NAMES.items() if v == name), name)
                    group = particles["optics"].values[i]
                    raise DataError(f"optics group {group}: {name} is {found:g}; correct _{label} in data_optics")
                return found
        if default is None:
            label = next((k for k, v in OPTICS_NAMES.items() if v == name), name)
            state = "not a number" if name in particles else "missing"
            raise DataError(f"optics group {particles['optics'].values[i]}: {name} is {state}; give _{label} in data_optics")
        return float(default)

    for i, g in enumerate(particles["optics"].values):
        box = int(value("box_size", i, 0))
        if box == 0 and "images" in particles:
            box = int(particles["images"].shape[-1])
        m = particles["magnification_matrix"].values[i] if "magnification_matrix" in particles else np.eye(2)
        out[int(g)] = OpticsGroup(
            pixel_size=value("pixel_size", i),
            voltage=value("voltage", i),
            spherical_aberration=value("spherical_aberration", i),
            amplitude_contrast=value("amplitude_contrast", i, 0.1),
            box_size=box,
            beam_tilt=(value("beam_tilt_x", i, 0.0), value("beam_tilt_y", i, 0.0)),
            odd_zernike=tuple(particles["odd_zernike"].values[i]) if "odd_zernike" in particles else (),
            even_zernike=tuple(particles["even_zernike"].values[i]) if "even_zernike" in particles else (),
            magnification=((m[0, 0], m[0, 1]), (m[1, 0], m[1, 1])),
            premultiplied=bool(value("ctf_premultiplied", i, 0.0)),
        )
    return out
