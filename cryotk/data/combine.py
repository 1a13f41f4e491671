"""Parts of particle sets, and several in one."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data.source import find_project_file
from cryotk.errors import DataError, DataWarning, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray as xr

__all__ = ["concat", "select_particles"]

_NOTHING = {"beam_tilt_x": 0.0, "beam_tilt_y": 0.0, "ctf_premultiplied": 0, "ctf_corrected": 0}
_ARRAYS = {"odd_zernike": "odd_term", "even_zernike": "even_term"}


def select_particles(particles: xr.Dataset, index: Any) -> xr.Dataset:
    """Rows of a particle set, images still lazy.

    Parameters
    ----------
    particles : Dataset
    index : (m,) int or (n,) bool
        Row numbers in any order, or which rows to keep.

    Returns
    -------
    Dataset
        Where particles have several images, theirs go with them.

    Raises
    ------
    DataError
        For a mask of another length, or rows that are not there.
    """
    rows = np.asarray(index)
    n = particles.sizes["particle"]
    if rows.dtype == bool:
        if rows.shape != (n,):
            raise DataError(f"the mask has {rows.size} values for {n} particles")
        rows = np.nonzero(rows)[0]
    rows = rows.astype(np.int64).ravel()
    if len(rows) and (rows.min() < -n or rows.max() >= n):
        raise DataError(f"row {int(rows.max())} was asked for; the set has {n} particles")
    rows = np.where(rows < 0, rows + n, rows)
    if "particle_of_image" not in particles:
        return particles.isel(particle=rows)
    of = particles["particle_of_image"].values
    start = np.searchsorted(of, np.arange(n + 1))
    pieces = [np.arange(start[r], start[r + 1]) for r in rows]
    out = particles.isel(particle=rows, image=np.concatenate(pieces) if pieces else np.empty(0, np.int64))
    return out.assign(particle_of_image=("image", np.repeat(np.arange(len(rows)), [len(p) for p in pieces])))


def concat(sets: Iterable[xr.Dataset]) -> xr.Dataset:
    """Join particle sets; optics groups are renumbered, equal ones merged.

    Parameters
    ----------
    sets : iterable of Dataset
        As :func:`cryotk.open_particles` gives them, or their paths. Columns that not all of them have are left out, with a
        warning. Sets of different projects get absolute image names.

    Returns
    -------
    Dataset
        With ``images`` when all have them in one box.

    Raises
    ------
    DataError
        For an empty list, and for sets with one and with several images per particle.
    """
    import xarray as xr

    from cryotk.data.particles import open_particles

    parts = [open_particles(s) for s in sets]
    if not parts:
        raise DataError("concat needs at least one particle set")
    several = {"particle_of_image" in p for p in parts}
    if len(several) > 1:
        raise DataError("some sets have several images per particle and some have one: they cannot be joined")
    if len({(p.attrs.get("start_dir"), p.attrs.get("project_dir")) for p in parts}) > 1:
        parts = [_absolute_names(p) for p in parts]
    optics, numbers = _join_optics(parts)
    shared = [k for k in parts[0].data_vars if all(k in p for p in parts)]
    lost = sorted(
        {str(k) for p in parts for k, v in p.data_vars.items() if v.dims in (("particle",), ("image",))} - set(map(str, shared))
    )
    if lost:
        warnings.warn(f"columns that not all sets have are left out: {', '.join(lost)}", DataWarning, stacklevel=2)
    offsets = np.concatenate([[0], np.cumsum([p.sizes["particle"] for p in parts])])
    variables: dict[Any, Any] = {}
    for key in shared:
        first = parts[0][key]
        if first.dims not in (("particle",), ("image",)):
            continue
        if key == "optics_group":
            pieces = [np.array([m[int(g)] for g in p[key].values], np.int64) for p, m in zip(parts, numbers, strict=True)]
        elif key == "particle_of_image":
            pieces = [p[key].values + o for p, o in zip(parts, offsets, strict=False)]
        else:
            pieces = [p[key].values for p in parts]
        variables[key] = (first.dims, np.concatenate(pieces), first.attrs)
    variables |= optics
    if all("images" in p for p in parts) and len({p["images"].shape[1:] for p in parts}) == 1:
        variables["images"] = (parts[0]["images"].dims, _join_images([p["images"].data for p in parts]), parts[0]["images"].attrs)
    n_groups = len({g for m in numbers for g in m.values()})
    return xr.Dataset(variables, coords={"optics": np.arange(1, n_groups + 1)}, attrs=dict(parts[0].attrs))


def _join_images(images: list[Any]) -> Any:
    if all(isinstance(i, np.ndarray) for i in images):
        return np.concatenate(images)
    import dask.array as da

    return da.concatenate([da.asarray(i) for i in images])


def _join_optics(parts: list[xr.Dataset]) -> tuple[dict[Any, Any], list[dict[int, int]]]:
    """Optics variables of all different groups, and for each set its numbers -> the new ones."""
    rows: list[dict[str, Any]] = []
    seen: dict[Any, int] = {}
    numbers: list[dict[int, int]] = []
    attrs: dict[str, Any] = {}
    for p in parts:
        names = [str(k) for k, v in p.data_vars.items() if "optics" in v.dims]
        attrs |= {k: (p[k].dims, p[k].attrs) for k in names if k not in attrs}
        mapping = {}
        for i, g in enumerate(p["optics"].values):
            row = {k: p[k].values[i] for k in names}
            key = tuple((k, str(np.asarray(row[k]).tolist())) for k in sorted(names))
            if key not in seen:
                seen[key] = len(seen) + 1
                rows.append(row)
            mapping[int(g)] = seen[key]
        numbers.append(mapping)
    used: set[str] = set()
    for i, row in enumerate(rows):  # different groups of one name: RELION wants names apart
        if "optics_name" in row and str(row["optics_name"]) in used:
            row["optics_name"] = f"{row['optics_name']}_{i + 1}"
        used.add(str(row.get("optics_name")))
    out = {}
    for k, (dims, a) in attrs.items():
        values = [_or_nothing(k, row, rows) for row in rows]
        out[k] = (dims, np.stack(values) if np.ndim(values[0]) else _column(values), a)
    return out, numbers


def _or_nothing(name: str, row: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """Value of one group; for what its set did not have, no aberration, or no number."""
    if name in _ARRAYS:
        width = max(len(r[name]) for r in rows if name in r)
        value = np.zeros(width)
        value[: len(row.get(name, ()))] = row.get(name, ())
        return value
    if name == "magnification_matrix":
        return row.get(name, np.eye(2))
    example = next(r[name] for r in rows if name in r)
    return row.get(name, _NOTHING.get(name, "" if isinstance(example, str) else np.nan))


def _column(values: list[Any]) -> np.ndarray:
    array = np.array(values)
    return array if array.dtype.kind in "iufb" else np.array(values, object)


def _absolute_names(ds: xr.Dataset) -> xr.Dataset:
    """Image names with their folders, so that sets of different projects can lie in one."""
    if "image_name" not in ds or "start_dir" not in ds.attrs:
        return ds
    start, project = Path(ds.attrs["start_dir"]), ds.attrs.get("project_dir") or None
    found: dict[str, str] = {}
    names = []
    for name in ds["image_name"].values:
        number, at, file = str(name).rpartition("@")
        if file not in found:
            try:
                found[file] = os.fspath(find_project_file(file, start, None if project is None else Path(project)).resolve())
            except MissingFileError:
                found[file] = os.fspath(Path(project or start) / file)
        names.append(f"{number}{at}{found[file]}")
    variable = ds["image_name"]
    return ds.assign(image_name=(variable.dims, np.array(names, object), variable.attrs))
