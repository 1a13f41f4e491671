"""Particle sets: a Dataset with eager columns and lazy images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data.lazy_images import lazy_images
from cryotk.data.source import ArraySource, ImageSource, StackSource
from cryotk.errors import DataError, FileFormatError
from cryotk.io.labels import OPTICS_NAMES, OPTICS_UNITS, PARTICLE_NAMES, PARTICLE_UNITS, label_kind
from cryotk.io.star import StarBlock, read_star
from cryotk.optics import OpticsGroup

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["concat", "image_source", "open_particles", "optics_groups", "select_particles"]

_OLD_OPTICS = (
    "rlnAmplitudeContrast", "rlnBeamTiltX", "rlnBeamTiltY", "rlnSphericalAberration", "rlnVoltage",
    "rlnDetectorPixelSize", "rlnMagnification",
)  # fmt: skip
_OLD_SHIFTS = {
    "rlnOriginX": "rlnOriginXAngst", "rlnOriginY": "rlnOriginYAngst", "rlnOriginZ": "rlnOriginZAngst",
    "rlnOriginXPrior": "rlnOriginXPriorAngst", "rlnOriginYPrior": "rlnOriginYPriorAngst",
}  # fmt: skip
_PIXEL_LABELS = (
    "rlnImagePixelSize", "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize", "rlnTomoTiltSeriesPixelSize",
)  # fmt: skip
_VECTORS = {"rlnOddZernike": ("odd_zernike", "odd_term"), "rlnEvenZernike": ("even_zernike", "even_term")}
_MAGNIFICATION = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")


def open_particles(path: Any, project_dir: str | os.PathLike[str] | None = None, *, images: bool = True) -> xr.Dataset:
    """Open a RELION particle set; pixels stay on disk until they are asked for.

    Parameters
    ----------
    path : path, Dataset, or dict of DataFrames
        A particle STAR file of RELION 1.3 to 5; a Dataset is returned as it is; a dict as ``starfile.read`` gives it.
    project_dir : path, optional
        Folder that image names are relative to. By default the STAR file's folder and all above it are searched.
    images : bool
        Whether to attach ``images``.

    Returns
    -------
    xarray.Dataset
        Dimension ``particle``; ``images`` (particle, y, x) float32 when all optics groups have one box; per-group values on
        dimension ``optics``.

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
    if isinstance(path, dict):
        blocks = {k: StarBlock(k, {c: v[c].to_numpy() for c in v.columns}) for k, v in path.items()}
        where, start = "the given tables", Path.cwd()
    else:
        blocks = read_star(path)
        where, start = str(path), Path(path).resolve().parent
    optics, particles = _tables(blocks, where)
    if len(particles) == 0:
        raise DataError(f"{where}: the particle table is empty")
    if optics is None:
        optics, particles = _modernise(particles, where)
    _check_columns(particles, optics, where)
    return _dataset(optics, particles, where, start, project_dir, images)


def _tables(blocks: dict[str, StarBlock], where: str) -> tuple[StarBlock | None, StarBlock]:
    optics = blocks.get("optics")
    for name in ("particles", "images", ""):
        if name in blocks and blocks[name].is_loop:
            return optics, blocks[name]
    for block in blocks.values():
        if block.is_loop and "rlnImageName" in block:
            return optics, block
    raise FileFormatError(f"{where} holds no particle table; it has the blocks {', '.join('data_' + b for b in blocks)}")


def _modernise(old: StarBlock, where: str) -> tuple[StarBlock, StarBlock]:
    """Turn a table of RELION 3.0 or older into optics groups and a particle table (as RELION does on loading)."""
    columns = dict(old.columns)
    present = [c for c in _OLD_OPTICS if c in columns]
    n = len(old)
    keys = list(zip(*[np.asarray(columns[c]).tolist() for c in present], strict=True)) if present else [()] * n
    numbers: dict[tuple, int] = {}
    group = np.array([numbers.setdefault(k, len(numbers) + 1) for k in keys], np.int64)
    pixel = _old_pixel_size(numbers, present, columns, where)
    for c in present:
        columns.pop(c)
    table: dict[str, Any] = {
        "rlnOpticsGroup": np.arange(1, len(numbers) + 1),
        "rlnOpticsGroupName": np.array([f"opticsGroup{i}" for i in range(1, len(numbers) + 1)], object),
        "rlnImagePixelSize": pixel,
    }
    for j, c in enumerate(present):
        if c not in ("rlnDetectorPixelSize", "rlnMagnification"):
            table[c] = np.array([k[j] for k in numbers], float)
    per_particle = pixel[group - 1]
    for old_label, new_label in _OLD_SHIFTS.items():
        if old_label in columns:
            values = np.asarray(columns.pop(old_label), float)
            columns.setdefault(new_label, values * per_particle)
    columns["rlnOpticsGroup"] = group
    return StarBlock("optics", table), StarBlock("particles", columns)


def _old_pixel_size(numbers: dict, present: list[str], columns: dict, where: str) -> np.ndarray:
    if "rlnDetectorPixelSize" in present and "rlnMagnification" in present:
        d, m = present.index("rlnDetectorPixelSize"), present.index("rlnMagnification")
        return np.array([1e4 * float(k[d]) / float(k[m]) for k in numbers])
    for label in _PIXEL_LABELS:
        if label in columns:
            return np.full(len(numbers), float(np.asarray(columns.pop(label))[0]))
    raise DataError(
        f"{where}: no pixel size: the table has neither rlnDetectorPixelSize with rlnMagnification, nor an optics block "
        "with rlnImagePixelSize; add one"
    )


def _check_columns(particles: StarBlock, optics: StarBlock, where: str) -> None:
    numeric = [c for c in PARTICLE_NAMES if c in particles and label_kind(c) in ("float", "int")]
    for label in numeric:
        values = np.asarray(particles[label])
        if values.dtype.kind not in "iufb":
            for i, v in enumerate(values):
                try:
                    float(v)
                except (TypeError, ValueError):
                    line = particles.first_line + i
                    raise FileFormatError(
                        f"{where}, line {line}: particle {i + 1} has {v!r} in column _{label}, which must be a number"
                    ) from None
    if "rlnOpticsGroup" not in particles:
        if len(optics) == 1:
            particles.columns["rlnOpticsGroup"] = np.full(len(particles), int(np.asarray(optics.get("rlnOpticsGroup", [1]))[0]))
        else:
            raise DataError(f"{where}: the particle table lacks _rlnOpticsGroup and there are {len(optics)} optics groups")
    groups = np.asarray(optics.get("rlnOpticsGroup", np.arange(1, len(optics) + 1)), np.int64)
    used = np.asarray(particles["rlnOpticsGroup"], np.int64)
    unknown = ~np.isin(used, groups)
    if unknown.any():
        i = int(np.nonzero(unknown)[0][0])
        raise DataError(
            f"{where}: particle {i + 1} is of optics group {used[i]}, which data_optics does not have (it has "
            f"{', '.join(map(str, groups))})"
        )
    if not any(label in optics for label in _PIXEL_LABELS):
        raise DataError(f"{where}: data_optics has no pixel size; add _rlnImagePixelSize")


def _dataset(optics: StarBlock, particles: StarBlock, where: str, start: Path, project_dir: Any, images: bool) -> xr.Dataset:
    import xarray as xr

    variables: dict[str, Any] = {}
    for label, values in particles.columns.items():
        name = PARTICLE_NAMES.get(label, label)
        array = np.asarray(values)
        if array.dtype == object:
            array = array.astype(object)
        attrs = {"relion_label": label}
        if name in PARTICLE_UNITS:
            attrs["units"] = PARTICLE_UNITS[name]
        variables[name] = ("particle", array, attrs)
    group_number = np.asarray(optics.get("rlnOpticsGroup", np.arange(1, len(optics) + 1)), np.int64)
    variables.update(_optics_variables(optics))
    if "pixel_size" not in variables:
        label = next(c for c in _PIXEL_LABELS if c in optics)
        variables["pixel_size"] = ("optics", np.asarray(optics[label], float), {"units": "Å", "derived": True})
    ds = xr.Dataset(variables, coords={"optics": group_number}, attrs={"source": where, "star_columns": list(particles.columns)})
    if images and "image_name" in ds:
        ds = attach_images(ds, start, project_dir)
    ds.attrs["project_dir"] = str(project_dir) if project_dir is not None else ""
    return ds


def _optics_variables(optics: StarBlock) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for label, values in optics.columns.items():
        if label in _VECTORS:
            name, dim = _VECTORS[label]
            rows = [_vector(v) for v in values]
            width = max(map(len, rows), default=0)
            array = np.zeros((len(rows), width))
            for i, r in enumerate(rows):
                array[i, : len(r)] = r
            out[name] = (("optics", dim), array, {"relion_label": label})
        elif label in _MAGNIFICATION or label == "rlnOpticsGroup":
            continue
        else:
            name = OPTICS_NAMES.get(label, label)
            attrs = {"relion_label": label}
            if name in OPTICS_UNITS:
                attrs["units"] = OPTICS_UNITS[name]
            out[name] = ("optics", np.asarray(values), attrs)
    if all(label in optics for label in _MAGNIFICATION):
        m = np.stack([np.asarray(optics[label], float) for label in _MAGNIFICATION], -1).reshape(-1, 2, 2)
        out["magnification_matrix"] = (("optics", "mag_row", "mag_column"), m, {})
    return out


def _vector(text: Any) -> np.ndarray:
    if isinstance(text, str):
        inner = text.strip().strip("[]")
        return np.array([float(v) for v in inner.split(",") if v.strip()])
    return np.atleast_1d(np.asarray(text, float))


def attach_images(ds: xr.Dataset, start: Path, project_dir: Any = None) -> xr.Dataset:
    """Add ``images`` (one box) and the box size of each optics group, from the stacks' headers."""
    names = ds["image_name"].values
    box = int(ds["box_size"].values[0]) if "box_size" in ds else 0
    source = StackSource(names, start, project_dir, box)
    if "box_size" not in ds:
        sizes = _box_sizes(ds, source)
        ds["box_size"] = ("optics", sizes, {"units": "px", "relion_label": "rlnImageSize"})
    boxes = np.unique(ds["box_size"].values)
    ds.attrs["start_dir"] = str(start)
    if len(boxes) == 1:
        source.box = int(boxes[0])
        ds["images"] = (("particle", "y", "x"), lazy_images(source), {"units": "normalised density"})
    return ds


def _box_sizes(ds: xr.Dataset, source: StackSource) -> np.ndarray:
    sizes = np.zeros(ds.sizes["optics"], np.int64)
    groups = ds["optics_group"].values
    for i, g in enumerate(ds["optics"].values):
        first = np.nonzero(groups == g)[0]
        sizes[i] = source.header(int(source.file_of[first[0]])).shape[-1] if len(first) else source.box
    return sizes


def image_source(particles: xr.Dataset) -> ImageSource:
    """Return the source of a particle set's pixels, in the order of its rows.

    Parameters
    ----------
    particles : Dataset
        As :func:`open_particles` gives it.

    Raises
    ------
    DataError
        When the set has no images, or several boxes.
    """
    if "images" not in particles:
        if "image_name" in particles and "start_dir" in particles.attrs:
            boxes = np.unique(particles["box_size"].values)
            if len(boxes) == 1:
                return StackSource(
                    particles["image_name"].values, particles.attrs["start_dir"], particles.attrs.get("project_dir") or None,
                    int(boxes[0]),
                )
            raise DataError("optics groups have different boxes: take one with particles.cryo.group(name)")
        raise DataError("this particle set has no images; open it with open_particles(path) or add `images`")
    images = particles["images"].data
    if isinstance(images, np.ndarray):
        return ArraySource(images)
    if "image_name" in particles and "start_dir" in particles.attrs and _only_selected(images):
        # straight to the stacks: no dask task per block
        return StackSource(
            particles["image_name"].values, particles.attrs["start_dir"], particles.attrs.get("project_dir") or None,
            int(images.shape[-1]),
        )
    return ArraySource(images)


def _only_selected(images: Any) -> bool:
    """Whether a dask array is our lazy stack, at most sliced: nothing was computed from the pixels."""
    names = [str(k) for k in getattr(images, "dask", {}).layers]
    return any(n.startswith("cryotk-images") for n in names) and all(
        n.startswith(("cryotk-images", "original-cryotk-images", "getitem", "rechunk", "concatenate")) for n in names
    )


def optics_groups(particles: xr.Dataset) -> dict[int, OpticsGroup]:
    """Optics groups by number.

    Parameters
    ----------
    particles : Dataset
        As :func:`open_particles` gives it.

    Raises
    ------
    DataError
        When voltage or another needed value is missing.
    """
    out = {}

    def value(name: str, i: int, default: float | None = None) -> float:
        if name in particles:
            return float(particles[name].values[i])
        if default is None:
            raise DataError(f"optics group {particles['optics'].values[i]}: {name} is missing; add it to data_optics")
        return default

    for i, g in enumerate(particles["optics"].values):
        out[int(g)] = OpticsGroup(
            pixel_size=value("pixel_size", i),
            voltage=value("voltage", i),
            spherical_aberration=value("spherical_aberration", i),
            amplitude_contrast=value("amplitude_contrast", i, 0.1),
            box_size=int(value("box_size", i, 0)) or int(particles["images"].shape[-1]),
            beam_tilt=(value("beam_tilt_x", i, 0.0), value("beam_tilt_y", i, 0.0)),
            odd_zernike=tuple(particles["odd_zernike"].values[i]) if "odd_zernike" in particles else (),
            even_zernike=tuple(particles["even_zernike"].values[i]) if "even_zernike" in particles else (),
            magnification=tuple(map(tuple, particles["magnification_matrix"].values[i]))
            if "magnification_matrix" in particles
            else ((1.0, 0.0), (0.0, 1.0)),
            premultiplied=bool(value("ctf_premultiplied", i, 0.0)),
        )
    return out


def select_particles(particles: xr.Dataset, index: np.ndarray) -> xr.Dataset:
    """Rows of a particle set (indices or a mask), images still lazy.

    Parameters
    ----------
    particles : Dataset
        As :func:`open_particles` gives it.
    index : array of int or bool
        Rows, or a mask over them.
    """
    where = np.asarray(index)
    if where.dtype == bool:
        where = np.nonzero(where)[0]
    return particles.isel(particle=where)


def concat(sets: list[xr.Dataset]) -> xr.Dataset:
    """Join particle sets; optics groups are renumbered, equal ones merged.

    Parameters
    ----------
    sets : list of Dataset
        Particle sets.

    Raises
    ------
    DataError
        For an empty list.
    """
    import xarray as xr

    if not sets:
        raise DataError("concat needs at least one particle set")
    rows, optics, seen = [], [], {}
    for ds in sets:
        per_group = ds.drop_dims("particle")
        mapping = {}
        for i, g in enumerate(ds["optics"].values):
            one = per_group.isel(optics=[i])
            key = tuple((k, one[k].values.tobytes() if one[k].dtype != object else tuple(one[k].values)) for k in sorted(map(str, one.data_vars)))
            if key not in seen:
                seen[key] = len(seen) + 1
                optics.append(one.assign_coords(optics=[seen[key]]))
            mapping[int(g)] = seen[key]
        part = ds.drop_dims("optics")
        group = np.array([mapping[int(g)] for g in ds["optics_group"].values])
        rows.append(part.assign(optics_group=("particle", group, ds["optics_group"].attrs)))
    shared = set.intersection(*[set(r.data_vars) for r in rows])
    merged = xr.concat([r[sorted(shared)] for r in rows], dim="particle", combine_attrs="override")
    out = xr.merge([merged, xr.concat(optics, dim="optics", data_vars="all", coords="minimal", compat="override", join="outer")], combine_attrs="override")
    out.attrs = dict(sets[0].attrs)
    if len({ds.attrs.get("start_dir") for ds in sets}) > 1:
        out.attrs.pop("start_dir", None)
    return out


