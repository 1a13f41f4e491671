"""Particle tables of RELION 1.3 to 5 as one thing: an optics table and a particle table in today's labels and units."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cryotk.errors import DataError, FileFormatError, FormatWarning
from cryotk.io.labels import OPTICS_NAMES, PARTICLE_NAMES, label_kind
from cryotk.io.star import StarBlock

__all__ = ["PIXEL_LABELS", "ParticleTables", "particle_tables"]

_OLD_OPTICS = (
    "rlnAmplitudeContrast", "rlnBeamTiltX", "rlnBeamTiltY", "rlnSphericalAberration", "rlnVoltage",
    "rlnDetectorPixelSize", "rlnMagnification",
)  # fmt: skip
_IN_PIXELS = {
    "rlnOriginX": "rlnOriginXAngst", "rlnOriginY": "rlnOriginYAngst", "rlnOriginZ": "rlnOriginZAngst",
    "rlnOriginXPrior": "rlnOriginXPriorAngst", "rlnOriginYPrior": "rlnOriginYPriorAngst",
    "rlnOriginZPrior": "rlnOriginZPriorAngst", "rlnHelicalTrackLength": "rlnHelicalTrackLengthAngst",
}  # fmt: skip
PIXEL_LABELS = ("rlnImagePixelSize", "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize", "rlnTomoTiltSeriesPixelSize")
"""Where an optics table may say the pixel size, in the order in which RELION looks."""


@dataclass
class ParticleTables:
    """What a particle file holds, whatever its age."""

    optics: StarBlock
    particles: StarBlock
    general: dict[str, Any] = field(default_factory=dict)
    """Entries of data_general."""


def particle_tables(blocks: dict[str, StarBlock], where: str, pixel_size: float | None = None) -> ParticleTables:
    """Find the particle table of a STAR file, bring it up to date and check it.

    Parameters
    ----------
    blocks : dict of str to StarBlock
    where : str
        Name of the file, for messages.
    pixel_size : float, optional
        Å; for files that do not say it, and against what they say.

    Raises
    ------
    FileFormatError
        Without a particle table, or where a number is none.
    DataError
        For an empty table, and for optics groups or pixel sizes that are missing.
    """
    particles = _particle_block(blocks, where)
    if len(particles) == 0:
        raise DataError(
            f"{where}: the particle table data_{particles.name} is empty; the selection kept nothing, or the file was cut"
        )
    optics = blocks.get("optics")
    general = blocks["general"].columns if "general" in blocks and not blocks["general"].is_loop else {}
    particles = StarBlock("particles", dict(particles.columns), True, particles.version, particles.first_line)
    _check_numbers(particles, where, [c for c in PARTICLE_NAMES if label_kind(c) in ("float", "int")])
    if optics is None:
        _check_numbers(particles, where, list(_OLD_OPTICS))
        optics, particles = _modernise(particles, where, pixel_size)
    else:
        columns = dict(optics.columns) if optics.is_loop else {k: np.array([v]) for k, v in optics.columns.items()}
        optics = StarBlock("optics", columns, True, optics.version, optics.first_line)
        _check_numbers(optics, where, [c for c in OPTICS_NAMES if label_kind(c) in ("float", "int")])
        if pixel_size is not None:
            optics.columns["rlnImagePixelSize"] = np.full(len(optics), float(pixel_size))
        stale = [c for c in _IN_PIXELS if c in particles and _IN_PIXELS[c] not in particles]
        if stale:
            warnings.warn(
                f"{where}: columns {', '.join('_' + c for c in stale)} are in pixels beside an optics table; RELION ignores "
                "them and so do we: convert them to Å (_rlnOriginXAngst ...) if they are to count",
                FormatWarning,
                stacklevel=4,
            )
    _check_groups(particles, optics, where)
    return ParticleTables(optics, particles, general)


def _particle_block(blocks: dict[str, StarBlock], where: str) -> StarBlock:
    for name in ("particles", "images", ""):
        if name in blocks and blocks[name].is_loop:
            return blocks[name]
    for block in blocks.values():
        if block.is_loop and "rlnImageName" in block:
            return block
    if any(b in blocks for b in ("optimiser_general", "model_general")):
        raise FileFormatError(f"{where} holds results of a refinement; open them with ctk.open_iteration({where!r})")
    held = ", ".join("data_" + b for b in blocks)
    raise FileFormatError(
        f"{where} holds no particle table; it has the blocks {held}"
        + ("; it may have been cut after data_optics" if list(blocks) in (["optics"], ["general", "optics"]) else "")
    )


def _check_numbers(block: StarBlock, where: str, labels: list[str]) -> None:
    for label in labels:
        if label not in block:
            continue
        values = np.asarray(block[label])
        if values.dtype.kind in "iufb":
            continue
        for i, v in enumerate(values):
            try:
                float(v)
            except (TypeError, ValueError):
                line = f", line {block.first_line + i}" if block.first_line else ""
                what = "particle" if block.name == "particles" else "row"
                raise FileFormatError(
                    f"{where}{line}: {what} {i + 1} has {v!r} in column _{label}, which must be a number; correct or remove that "
                    f"row"
                ) from None
        block.columns[label] = values.astype(float)


def _modernise(old: StarBlock, where: str, pixel_size: float | None) -> tuple[StarBlock, StarBlock]:
    """Turn a table of RELION 3.0 or older into optics groups and a particle table, as RELION does on loading."""
    import pandas as pd

    columns = dict(old.columns)
    present = [c for c in _OLD_OPTICS if c in columns]
    group = np.zeros(len(old), np.int64)
    if present:
        frame = pd.DataFrame({c: np.asarray(columns[c]) for c in present})
        group = frame.groupby(present, sort=False, dropna=False).ngroup().to_numpy().astype(np.int64)
    n_groups = int(group.max()) + 1
    first = np.array([int(np.argmax(group == g)) for g in range(n_groups)])
    pixel = _old_pixel_size(columns, first, where, pixel_size)
    table: dict[str, Any] = {
        "rlnOpticsGroup": np.arange(1, n_groups + 1),
        "rlnOpticsGroupName": np.array([f"opticsGroup{i}" for i in range(1, n_groups + 1)], object),
    }
    for c in present:
        values = np.asarray(columns.pop(c))
        if c not in ("rlnDetectorPixelSize", "rlnMagnification"):
            table[c] = values[first].astype(float)
    for c in PIXEL_LABELS:
        columns.pop(c, None)
    table["rlnImagePixelSize"] = pixel
    per_particle = pixel[group]
    renamed: dict[str, Any] = {}
    for c, values in columns.items():
        new = _IN_PIXELS.get(c)
        if new is None:
            renamed[c] = values
        elif new not in columns:  # a column in Å beside one in pixels wins
            renamed[new] = np.asarray(values, float) * per_particle
    renamed["rlnOpticsGroup"] = group + 1
    return StarBlock("optics", table), StarBlock("particles", renamed, True, None, old.first_line)


def _old_pixel_size(columns: dict[str, Any], first: np.ndarray, where: str, given: float | None) -> np.ndarray:
    if given is not None:
        return np.full(len(first), float(given))
    if "rlnDetectorPixelSize" in columns and "rlnMagnification" in columns:
        detector, magnification = (np.asarray(columns[c], float)[first] for c in ("rlnDetectorPixelSize", "rlnMagnification"))
        if (magnification <= 0).any():
            raise DataError(
                f"{where}: _rlnMagnification is {magnification.min():g}, so there is no pixel size; give pixel_size= in Å"
            )
        return 1e4 * detector / magnification
    for label in PIXEL_LABELS:
        if label in columns:
            return np.asarray(columns[label], float)[first]
    raise DataError(
        f"{where}: no pixel size: the table has neither _rlnDetectorPixelSize with _rlnMagnification, nor an optics table with "
        "_rlnImagePixelSize; give pixel_size= in Å"
    )


def _check_groups(particles: StarBlock, optics: StarBlock, where: str) -> None:
    if len(optics) == 0:
        raise DataError(f"{where}: data_optics is empty; every particle needs an optics group")
    if "rlnOpticsGroup" not in optics:
        optics.columns["rlnOpticsGroup"] = np.arange(1, len(optics) + 1)
    groups = np.asarray(optics["rlnOpticsGroup"]).astype(np.int64)
    if len(np.unique(groups)) < len(groups):
        raise DataError(f"{where}: data_optics has two groups of one number ({', '.join(map(str, groups))}); number them 1, 2, ...")
    optics.columns["rlnOpticsGroup"] = groups
    if "rlnOpticsGroup" not in particles:
        if len(optics) > 1:
            raise DataError(
                f"{where}: the particle table lacks _rlnOpticsGroup and there are {len(optics)} optics groups; add the column"
            )
        particles.columns["rlnOpticsGroup"] = np.full(len(particles), groups[0])
    used = np.asarray(particles["rlnOpticsGroup"]).astype(np.int64)
    particles.columns["rlnOpticsGroup"] = used
    unknown = np.nonzero(~np.isin(used, groups))[0]
    if len(unknown):
        i = int(unknown[0])
        raise DataError(
            f"{where}: particle {i + 1} is of optics group {used[i]}, which data_optics does not have (it has "
            f"{', '.join(map(str, groups))}); {len(unknown)} such particles: add the group or remove them"
        )
    label = next((c for c in PIXEL_LABELS if c in optics), None)
    if label is None:
        raise DataError(f"{where}: data_optics has no pixel size; add _rlnImagePixelSize, or give pixel_size= in Å")
    values = np.asarray(optics[label], float)
    if not (values > 0).all():
        bad = groups[np.nonzero(~(values > 0))[0][0]]
        raise DataError(f"{where}: _{label} of optics group {bad} is {values[groups == bad][0]:g}; give pixel_size= in Å")
