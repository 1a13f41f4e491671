"""Particle sets as STAR tables: the file's own columns in their order, with what changed, and what is new."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.io.labels import OPTICS_NAMES, PARTICLE_NAMES
from cryotk.io.star import StarBlock, write_star

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["particle_blocks", "write_particles"]

_LABELS = {v: k for k, v in PARTICLE_NAMES.items()}
_OPTICS_LABELS = {v: k for k, v in OPTICS_NAMES.items()}


def particle_blocks(particles: xr.Dataset) -> dict[str, StarBlock]:
    """``optics`` and ``particles`` blocks of a particle set."""
    order = list(particles.attrs.get("star_columns", []))
    columns: dict[str, Any] = {}
    available: dict[str, str] = {}
    for name, variable in particles.data_vars.items():
        if variable.dims == ("particle",):
            label = _LABELS.get(str(name), str(name))
            if label.startswith("rln") or str(name) in order:
                available[label] = str(name)
    for label in [*[c for c in order if c in available], *[c for c in available if c not in order]]:
        values = particles[available[label]].values
        columns[label] = values.astype(int) if values.dtype.kind == "b" else values
    optics: dict[str, Any] = {"rlnOpticsGroup": particles["optics"].values}
    for name, variable in particles.data_vars.items():
        if variable.attrs.get("derived"):
            continue
        if variable.dims == ("optics",):
            label = _OPTICS_LABELS.get(str(name), str(name))
            if label.startswith("rln"):
                optics[label] = variable.values
        elif name in ("odd_zernike", "even_zernike"):
            rows = ["[" + ",".join(f"{v:.12g}" for v in row) + "]" for row in variable.values]
            optics["rlnOddZernike" if name == "odd_zernike" else "rlnEvenZernike"] = np.array(rows, object)
        elif name == "magnification_matrix":
            for i in range(2):
                for j in range(2):
                    optics[f"rlnMagMat{i}{j}"] = variable.values[:, i, j]
    return {"optics": StarBlock("optics", optics), "particles": StarBlock("particles", columns)}


def write_particles(particles: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a particle set as a RELION 5 STAR file, atomically; images stay where they are.

    Parameters
    ----------
    particles : Dataset
        As :func:`cryotk.open_particles` gives it. Variables without a RELION label are not written.
    path : path
    """
    write_star(path, particle_blocks(particles))
