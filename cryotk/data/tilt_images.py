"""RELION 5's tilt images: what a particle file leaves to the tilt series - angles, dose and CTF of every image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data.source import find_project_file
from cryotk.errors import DataError, FileFormatError, MissingFileError
from cryotk.geometry import euler_to_matrix, tilt_rotation
from cryotk.io.star import StarBlock, read_star

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["TiltSeriesTable", "add_tilt_geometry", "optimisation_set_files", "read_tomograms", "tomograms_of"]

_PER_TILT = {
    "rlnDefocusAngle": ("defocus_angle", "degree", None), "rlnPhaseShift": ("phase_shift", "degree", 0.0),
    "rlnCtfScalefactor": ("ctf_scale", "", 1.0), "rlnCtfBfactor": ("ctf_b_factor", "Å^2", 0.0),
}  # fmt: skip
_MATRIX = ("rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ", "rlnTomoProjW")


@dataclass
class TiltSeriesTable:
    """One tilt series as its files give it."""

    name: str
    where: str
    """File of the tilts, for messages."""
    series: dict[str, Any]
    """The row of data_global."""
    tilts: StarBlock
    """One row per tilt image."""

    @property
    def n(self) -> int:
        """Number of tilt images."""
        return len(self.tilts)

    def number(self, label: str, default: float | None = None) -> float:
        """Return a value of the series."""
        if label in self.series:
            return float(self.series[label])
        if default is None:
            raise DataError(f"{self.where}: tilt series {self.name} has no _{label} in data_global; add the column")
        return default

    def column(self, label: str, default: float | None = None) -> np.ndarray:
        """Return (n,) values, one per tilt."""
        if label in self.tilts:
            return np.asarray(self.tilts[label], float)
        if default is None:
            raise DataError(f"{self.where}: data_{self.name} has no column _{label}; add it (RELION needs it too)")
        return np.full(self.n, default)

    def rotations(self) -> np.ndarray:
        """(n, 3, 3): tomogram to image coordinates; matrices of RELION 4 where they are there, else the angles."""
        if all(label in self.tilts for label in _MATRIX):
            rows = [[_numbers(v)[:3] for v in self.tilts[label]] for label in _MATRIX[:3]]
            return np.stack([np.array(r) for r in rows], 1)
        return tilt_rotation(self.column("rlnTomoXTilt", 0.0), self.column("rlnTomoYTilt"), self.column("rlnTomoZRot"))


def _numbers(text: Any) -> np.ndarray:
    return np.array([float(v) for v in str(text).strip().strip("[]").split(",") if v.strip()])


def optimisation_set_files(blocks: dict[str, StarBlock]) -> dict[str, str] | None:
    """Entries of an optimisation set (a list, or one row as the picker writes it); None when the file is something else."""
    for block in blocks.values():
        if "rlnTomoParticlesFile" in block:
            return {k: str(v[0]) if block.is_loop else str(v) for k, v in block.columns.items()}
    return None


def _named_beside(particles: Path) -> str | None:
    """Return the tomograms file that the optimisation set beside a particle file names for it."""
    for path in sorted(particles.parent.glob("*optimisation_set.star")):
        entries = optimisation_set_files(read_star(path)) or {}
        if Path(entries.get("rlnTomoParticlesFile", "")).name == particles.name and "rlnTomoTomogramsFile" in entries:
            return entries["rlnTomoTomogramsFile"]
    return None


def read_tomograms(
    path: str | os.PathLike[str], names: list[str] | None = None, project_dir: str | os.PathLike[str] | None = None
) -> dict[str, TiltSeriesTable]:
    """Read a tomograms file of RELION 4 or 5 and the tables of its tilt series.

    Parameters
    ----------
    path : path
    names : list of str, optional
        Tilt series that are needed; all by default.
    project_dir : path, optional
        Folder that file names are relative to; by default the file's folder and all above it are searched.

    Raises
    ------
    MissingFileError, FileFormatError, DataError
        Also for a tilt series that is not in the file.
    """
    blocks = read_star(path)
    table = blocks.get("global")
    if table is None or "rlnTomoName" not in table:
        raise FileFormatError(f"{path} is no tomograms file: it has no data_global with _rlnTomoName")
    columns = table.columns if table.is_loop else {k: np.array([v], object) for k, v in table.columns.items()}
    known = [str(v) for v in columns["rlnTomoName"]]
    out = {}
    for name in names if names is not None else known:
        if name not in known:
            raise DataError(f"{path} has no tilt series {name}; it has {', '.join(known)}")
        series = {label: values[known.index(name)] for label, values in columns.items()}
        if "rlnTomoTiltSeriesStarFile" in series:
            file = find_project_file(
                str(series["rlnTomoTiltSeriesStarFile"]), Path(path).resolve().parent, Path(project_dir) if project_dir else None
            )
            where, held = str(file), read_star(file)
        else:
            where, held = str(path), blocks  # RELION 4: all tables in one file
        if name not in held or not held[name].is_loop:
            raise FileFormatError(f"{where} has no table data_{name}; it has {', '.join('data_' + b for b in held)}")
        out[name] = TiltSeriesTable(name, where, series, held[name])
    return out


def add_tilt_geometry(particles: xr.Dataset, series: dict[str, TiltSeriesTable]) -> xr.Dataset:
    """Give every image the angles, dose and CTF of its tilt.

    Parameters
    ----------
    particles : Dataset
        RELION 5's 2D stacks: ``particle_of_image`` and ``frame`` on ``image``, ``rlnTomoName`` on ``particle``.
    series : dict of str to TiltSeriesTable
        See :func:`read_tomograms`.

    Returns
    -------
    Dataset
        On ``image``: ``tilt_angle`` (deg), ``dose`` (e/Å^2 before the image), ``depth`` (Å along the beam from the tomogram's
        centre), ``defocus_u``, ``defocus_v`` at that depth, ``defocus_angle``, ``phase_shift``, ``ctf_scale``,
        ``ctf_b_factor``, and ``tilt_rotation`` (image, image_axis, particle_axis): a particle at pose
        ``A = euler_to_matrix(...)`` is seen in the image at ``tilt_rotation @ A``.

    Raises
    ------
    DataError
        Where the tables do not fit: another number of tilts, another pixel size, missing columns.
    """
    names = [str(v) for v in particles["rlnTomoName"].values]
    of, frame = particles["particle_of_image"].values, particles["frame"].values
    position, subtomogram = _positions(particles, names, series)
    visible = particles["rlnTomoVisibleFrames"].values if "rlnTomoVisibleFrames" in particles else None
    n = len(of)
    out: dict[str, np.ndarray] = {k: np.empty(n) for k in ("tilt_angle", "dose", "depth", "defocus_u", "defocus_v")}
    out |= {name: np.empty(n) for name, _, _ in _PER_TILT.values()}
    rotation = np.empty((n, 3, 3))
    name_of_image = np.array(names, object)[of]
    for name, table in series.items():
        rows = np.nonzero(name_of_image == name)[0]
        if not len(rows):
            continue
        _check(particles, names, visible, name, table)
        f, p = frame[rows], of[rows]
        turn = table.rotations()[f]
        depth = np.einsum("ij,ij->i", turn[:, 2], position[p])
        shift = table.number("rlnTomoHand") * table.number("rlnTomoDefocusSlope", 1.0) * depth
        rotation[rows], out["depth"][rows] = turn @ subtomogram[p], depth
        # row 2 is the beam: (-sin y, cos y sin x, cos y cos x)
        out["tilt_angle"][rows] = np.degrees(np.arcsin(np.clip(-turn[:, 2, 0], -1, 1)))
        out["dose"][rows] = table.column("rlnMicrographPreExposure")[f]
        u = table.column("rlnDefocusU")
        out["defocus_u"][rows], out["defocus_v"][rows] = u[f] + shift, table.column("rlnDefocusV")[f] + shift
        for label, (key, _, default) in _PER_TILT.items():
            out[key][rows] = table.column(label, default)[f]
    units = {"tilt_angle": "degree", "dose": "e/Å^2", "depth": "Å", "defocus_u": "Å", "defocus_v": "Å"}
    units |= {name: unit for name, unit, _ in _PER_TILT.values()}
    added: dict[str, Any] = {k: ("image", v, {"units": units[k]} if units[k] else {}) for k, v in out.items()}
    added["tilt_rotation"] = (("image", "image_axis", "particle_axis"), rotation)
    return particles.assign(added)


def _positions(particles: xr.Dataset, names: list[str], series: dict[str, TiltSeriesTable]) -> tuple[np.ndarray, np.ndarray]:
    """Å from the tomogram's centre, (n, 3), and rotations of the subtomograms, (n, 3, 3)."""

    def column(label: str, default: float = 0.0) -> np.ndarray:
        return np.asarray(particles[label].values, float) if label in particles else np.full(len(names), default)

    rot, tilt, psi = (column(f"rlnTomoSubtomogram{a}") for a in ("Rot", "Tilt", "Psi"))
    subtomogram = euler_to_matrix(rot, tilt, psi)
    offset = np.stack([column("shift_x"), column("shift_y"), column("shift_z")], -1)
    if "rlnCenteredCoordinateXAngst" in particles:
        centred = np.stack([column(f"rlnCenteredCoordinate{a}Angst") for a in "XYZ"], -1)
    elif "coordinate_x" in particles and "rlnCoordinateZ" in particles:
        pixels = np.stack([column("coordinate_x"), column("coordinate_y"), column("rlnCoordinateZ")], -1)
        size = np.array([[series[name].number(f"rlnTomoSize{a}") for a in "XYZ"] for name in names])
        a = np.array([series[name].number("rlnTomoTiltSeriesPixelSize") for name in names])
        centred = (pixels - size / 2) * a[:, None]
    else:
        raise DataError(
            "tilt images: the particles have no coordinates (_rlnCenteredCoordinateXAngst ...): their depth is not known"
        )
    return centred - np.einsum("nij,nj->ni", subtomogram, offset), subtomogram


def _check(particles: xr.Dataset, names: list[str], visible: Any, name: str, table: TiltSeriesTable) -> None:
    row = names.index(name)
    if visible is not None and len(_numbers(visible[row])) != table.n:
        raise DataError(
            f"particle {row + 1} lists {len(_numbers(visible[row]))} tilts in _rlnTomoVisibleFrames, {table.where} has {table.n} "
            f"for {name}: "
            "give the tomograms file that the particles were extracted with (tomograms=)"
        )
    if "rlnTomoTiltSeriesPixelSize" in particles and "rlnTomoTiltSeriesPixelSize" in table.series:
        group = int(np.nonzero(particles["optics"].values == particles["optics_group"].values[row])[0][0])
        ours, theirs = float(particles["rlnTomoTiltSeriesPixelSize"].values[group]), table.number("rlnTomoTiltSeriesPixelSize")
        if abs(ours - theirs) > 1e-3:
            raise DataError(
                f"tilt series {name} has {theirs:g} Å pixels, the optics group of particle {row + 1} says {ours:g} Å; correct one"
            )


def tomograms_of(where: str | os.PathLike[str], given: Any, start: Path, project_dir: Any) -> Path | None:
    """Return the tomograms file of a particle file: as given, or as the optimisation set beside it says; None without one.

    Raises
    ------
    MissingFileError
        When the file that is named is not there.
    """
    project = Path(project_dir) if project_dir is not None else None
    if given is not None:
        if Path(given).exists():
            return Path(given)
        return find_project_file(os.fspath(given), start, project)
    named = _named_beside(Path(where)) if Path(where).is_file() else None
    if named is None:
        return None
    try:
        return find_project_file(named, start, project)
    except MissingFileError as error:
        raise MissingFileError(f"{error} (the optimisation set beside {where} names it; or give tomograms=)") from None
