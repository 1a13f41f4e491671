"""Particle sets as STAR tables: the file's own columns in their order, with what changed, and what is new."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.errors import DataError
from cryotk.io.labels import OPTICS_NAMES, PARTICLE_NAMES
from cryotk.io.star import StarBlock, write_star

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["particle_blocks", "write_particles"]

_LABELS = {v: k for k, v in PARTICLE_NAMES.items()}
_OPTICS_LABELS = {v: k for k, v in OPTICS_NAMES.items()}
_NEVER = ("particle_of_image", "section", "frame", "images")


def particle_blocks(particles: xr.Dataset) -> dict[str, StarBlock]:
    """``optics`` and ``particles`` blocks of a particle set, after ``general`` where the file had one.

    Parameters
    ----------
    particles : Dataset
        Variables without a RELION label, and those that did not come from the file under their own name, are left out. Where a
        particle has several images, rows are particles or images, as in the file.
    """
    version = particles.attrs.get("star_version")
    blocks: dict[str, StarBlock] = {}
    if particles.attrs.get("star_general"):
        blocks["general"] = StarBlock("general", dict(particles.attrs["star_general"]), False, version)
    blocks["optics"] = StarBlock("optics", _optics_columns(particles), True, version)
    blocks["particles"] = StarBlock("particles", _particle_columns(particles), True, version)
    return blocks


def _particle_columns(particles: xr.Dataset) -> dict[str, Any]:
    order = list(particles.attrs.get("star_columns", []))
    per_image = particles.attrs.get("star_rows") == "image" and "particle_of_image" in particles
    dims = (("particle",), ("image",)) if per_image else (("particle",),)
    available: dict[str, Any] = {}
    for name, variable in particles.data_vars.items():
        label = _LABELS.get(str(name), str(name))
        if variable.dims not in dims or name in _NEVER or not (label.startswith("rln") or label in order):
            continue
        values = variable.values
        if per_image and variable.dims == ("particle",):
            values = values[particles["particle_of_image"].values]
        available[label] = values.astype(np.int64) if values.dtype.kind == "b" else values
    return {c: available[c] for c in _ordered(order, available)}


def _optics_columns(particles: xr.Dataset) -> dict[str, Any]:
    columns: dict[str, Any] = {"rlnOpticsGroup": particles["optics"].values}
    for name, variable in particles.data_vars.items():
        if variable.attrs.get("derived"):
            continue
        if variable.dims == ("optics",):
            label = _OPTICS_LABELS.get(str(name), str(name))
            if label.startswith("rln"):
                columns[label] = variable.values.astype(np.int64) if variable.dtype.kind == "b" else variable.values
        elif name in ("odd_zernike", "even_zernike"):
            rows = ["[" + ",".join(f"{v:.12g}" for v in row) + "]" for row in variable.values]
            columns["rlnOddZernike" if name == "odd_zernike" else "rlnEvenZernike"] = np.array(rows, object)
        elif name == "magnification_matrix":
            for i in range(2):
                for j in range(2):
                    columns[f"rlnMagMat{i}{j}"] = variable.values[:, i, j]
    return {c: columns[c] for c in _ordered(list(particles.attrs.get("star_optics_columns", [])), columns)}


def _ordered(order: list[str], available: dict[str, Any]) -> list[str]:
    return [*[c for c in order if c in available], *[c for c in available if c not in order]]


def write_particles(particles: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a particle set as a RELION 5 STAR file, atomically; images stay where they are.

    Parameters
    ----------
    particles : Dataset
        As :func:`cryotk.open_particles` gives it. Variables without a RELION label are not written. Columns keep the order of the
        file they came from; what is new comes last.
    path : path

    Raises
    ------
    DataError
        Without particles.

    See Also
    --------
    cryotk.write_stack : writes images.
    """
    if not hasattr(particles, "sizes"):
        raise DataError(f"a particle set was expected, not {type(particles).__name__}: write_particles(particles, path)")
    if particles.sizes.get("particle", 0) == 0:
        raise DataError(f"{os.fspath(path)}: there are no particles to write; RELION cannot read an empty table. Select some first")
    write_star(path, particle_blocks(particles))
