"""Tomograms and what is picked in them, in Å from the tomogram's centre."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import CryotkError, FileFormatError, MissingFileError
from cryotk.geometry import euler_to_matrix
from cryotk.io import StarBlock, read_star
from cryotk.io.relion_read import find_near
from cryotk_widgets.napari.arrays import open_pixels
from cryotk_widgets.napari.layers import LayerData, grey_limits, volume_layer
from cryotk_widgets.napari.track_layers import tracks_layer

__all__ = ["is_tomo", "optimisation_set_layers", "pick_layers", "tomo_motion_layers", "tomogram_layers"]

_FEATURES = {
    "rlnClassNumber": "class", "rlnAutopickFigureOfMerit": "figure of merit", "rlnLCCmax": "score", "rlnRandomSubset": "half",
    "rlnTomoParticleName": "name",
}  # fmt: skip


def is_tomo(block: StarBlock) -> bool:
    """Whether a block holds particles with places in three dimensions."""
    return block.is_loop and ("rlnCenteredCoordinateXAngst" in block or "rlnCoordinateZ" in block)


def _column(block: StarBlock, label: str, default: float = 0.0) -> np.ndarray:
    values = block.get(label)
    return np.full(len(block), default) if values is None else np.atleast_1d(np.asarray(values, float))


def _texts(block: StarBlock, label: str) -> np.ndarray:
    return np.atleast_1d(np.asarray(block[label])).astype(str)


def _optimisation_set(path: Path) -> dict[str, str]:
    """Entries of an optimisation set, list or loop of one row."""
    entries: dict[str, str] = {}
    for block in read_star(path).values():
        for label, value in block.columns.items():
            entries[label] = str(np.atleast_1d(np.asarray(value))[0])
    return entries


def _tomograms(path: Path) -> StarBlock | None:
    """The table of tomograms that belongs to a file: named by an optimisation set beside it, or beside it itself."""
    for name in ("optimisation_set.star", path.name.replace("_data.star", "_optimisation_set.star")):
        file = path.with_name(name)
        if file.is_file() and file != path:
            named = find_near(_optimisation_set(file).get("rlnTomoTomogramsFile", ""), path.parent)
            if named is not None:
                return _table(named)
    beside = path.with_name("tomograms.star")
    return _table(beside) if beside.is_file() and beside != path else None


def _table(path: Path) -> StarBlock | None:
    block = read_star(path).get("global")
    if block is None or "rlnTomoName" not in block:
        return None
    if not block.is_loop:  # one tomogram written as a list
        block = StarBlock("global", {k: np.array([v]) for k, v in block.columns.items()})
    return block


def _row(tomograms: StarBlock | None, name: str) -> dict[str, Any]:
    if tomograms is None:
        return {}
    rows = np.nonzero(_texts(tomograms, "rlnTomoName") == name)[0]
    return {} if not len(rows) else {k: np.atleast_1d(np.asarray(v, object))[rows[0]] for k, v in tomograms.columns.items()}


def _image(file: Path, name: str, row: dict[str, Any], visible: bool) -> LayerData:
    array, header = open_pixels(file)
    a = header.pixel_size
    if not a > 0:
        a = float(row.get("rlnTomoTiltSeriesPixelSize", 1) or 1) * float(row.get("rlnTomoTomogramBinning", 1) or 1)
    layer = volume_layer(
        array, a, name, str(file), visible=visible, contrast_limits=grey_limits(array, is_volume=False), rendering="average"
    )
    layer[1]["metadata"]["cryotk"]["kind"] = "tomogram"
    return layer


def tomogram_layers(path: Path, tomograms: StarBlock) -> list[LayerData]:
    """Reconstructed tomograms of a ``tomograms.star``, the first one visible; sections are read when they are looked at.

    Raises
    ------
    MissingFileError
        When none of them is there.
    """
    out: list[LayerData] = []
    names = _texts(tomograms, "rlnTomoName")
    for name in names:
        row = _row(tomograms, name)
        file = find_near(str(row.get("rlnTomoReconstructedTomogram", "")), path.parent)
        if file is not None:
            out.append(_image(file, str(name), row, not out))
    if not out:
        raise MissingFileError(
            f"{path}: none of its {len(names)} tomograms is reconstructed and there (_rlnTomoReconstructedTomogram); open it in the "
            "project where it was made"
        )
    return out


def _places(block: StarBlock, names: np.ndarray, tomograms: StarBlock | None, a: float) -> tuple[np.ndarray, bool]:
    """Å (x, y, z) of all particles, and whether they count from the tomogram's centre; refined offsets are taken off."""
    centred = True
    if "rlnCenteredCoordinateXAngst" in block:
        at = np.stack([_column(block, f"rlnCenteredCoordinate{axis}Angst") for axis in "XYZ"], -1)
    else:
        at = np.stack([_column(block, f"rlnCoordinate{axis}") for axis in "XYZ"], -1)
        pixel = np.full(len(block), a)
        for name in np.unique(names):
            row, mine = _row(tomograms, str(name)), names == name
            if all(f"rlnTomoSize{axis}" in row for axis in "XYZ"):
                pixel[mine] = float(row.get("rlnTomoTiltSeriesPixelSize", a) or a)
                at[mine] -= np.array([float(row[f"rlnTomoSize{axis}"]) for axis in "XYZ"]) / 2
            else:
                centred = False
        at = at * pixel[:, None]
    turn = euler_to_matrix(*(_column(block, f"rlnTomoSubtomogram{axis}") for axis in ("Rot", "Tilt", "Psi")))
    offset = np.stack([_column(block, f"rlnOrigin{axis}Angst") for axis in "XYZ"], -1)
    return at - np.einsum("nij,nj->ni", turn, offset), centred


def _read_particles(
    path: Path, blocks: dict[str, StarBlock], block: StarBlock
) -> tuple[np.ndarray, np.ndarray, StarBlock | None, float, bool]:
    """Places (z, y, x) in Å, each row's tomogram, the tomograms' table, the box in Å (0: unknown), whether places are centred."""
    tomograms = _tomograms(path)
    label = next((v for v in ("rlnTomoName", "rlnMicrographName") if v in block), None)
    names = _texts(block, label) if label else np.full(len(block), "tomogram")
    optics = blocks.get("optics")

    def first(key: str) -> float:
        return float(np.atleast_1d(np.asarray(optics[key], float))[0]) if optics is not None and key in optics else 0.0

    at, centred = _places(block, names, tomograms, first("rlnTomoTiltSeriesPixelSize") or first("rlnImagePixelSize") or 1.0)
    return at[:, ::-1], names, tomograms, first("rlnImageSize") * first("rlnImagePixelSize"), centred


def pick_layers(path: Path, blocks: dict[str, StarBlock], block: StarBlock) -> list[LayerData]:
    """Particles as points in their tomograms: one pair of layers for each, the first one visible.

    Parameters
    ----------
    path : Path
        Of the STAR file; an optimisation set or ``tomograms.star`` beside it says where the tomograms are.
    blocks : dict
        Of the file.
    block : StarBlock
        With ``rlnCenteredCoordinateXAngst, ...`` (Å from the centre; these win) or ``rlnCoordinateX, ...Z`` (pixels of the unbinned
        tomogram, whose size ``tomograms.star`` must say for them to lie right).
    """
    at, names, tomograms, box, centred = _read_particles(path, blocks, block)
    out: list[LayerData] = []
    features = {text: np.atleast_1d(np.asarray(block[label])) for label, text in _FEATURES.items() if label in block}
    for i, name in enumerate(dict.fromkeys(names.tolist())):
        rows = np.nonzero(names == name)[0]
        row = _row(tomograms, name)
        file = find_near(str(row.get("rlnTomoReconstructedTomogram", "")), path.parent) or find_near(name, path.parent)
        if file is not None and file.suffix in (".mrc", ".map", ".rec"):
            image = _image(file, Path(name).name, row, i == 0)
            out.append(image)
            if not centred:  # places count from the first voxel
                a = float(image[1]["scale"][0])
                image[1]["translate"] = (0.0,) * 3
                image[1]["scale"] = (a,) * 3
        extent = float(np.ptp(at[rows], axis=0).max())
        options = {
            "name": f"{Path(name).name}: {len(rows)} particles", "units": ("angstrom",) * 3, "size": 0.5 * box or max(extent / 40, 20.0),
            "face_color": "transparent", "border_color": "#56b4e9", "border_width": 0.08, "symbol": "disc", "visible": i == 0,
            "projection_mode": "rescale_spherical", "features": {k: v[rows] for k, v in features.items()},
            "metadata": {"cryotk": {"kind": "particles", "source": str(path), "rows": rows, "centred": centred}},
        }  # fmt: skip
        out.append((at[rows], options, "points"))
    return out


def optimisation_set_layers(path: Path, entries: StarBlock) -> list[LayerData]:
    """Particles in their tomograms and their tracks, as an optimisation set names them.

    Raises
    ------
    MissingFileError
        When its particles are not there.
    """
    named = {label: str(np.atleast_1d(np.asarray(value))[0]) for label, value in entries.columns.items()}
    file = find_near(named.get("rlnTomoParticlesFile", ""), path.parent)
    if file is None:
        raise MissingFileError(f"{path}: its particles {named.get('rlnTomoParticlesFile', '(none named)')} are not there")
    blocks = read_star(file)
    block = next((b for b in blocks.values() if is_tomo(b)), None)
    if block is None:
        raise FileFormatError(f"{file} holds no particles with places in a tomogram")
    out = pick_layers(file, blocks, block)
    tracks = find_near(named.get("rlnTomoTrajectoriesFile", ""), path.parent)
    if tracks is not None:
        from cryotk_widgets.napari.track_layers import motion_layers

        out += [layer for layer in motion_layers(tracks, read_star(tracks)) if layer[2] == "tracks"]
    return out


def tomo_motion_layers(path: Path, names: list[str], motion: list[np.ndarray]) -> list[LayerData]:
    """Tracks in three dimensions at the particles of the ``particles.star`` beside a ``motion.star``; matched by name.

    Parameters
    ----------
    path : Path
    names : list of str
        ``rlnTomoParticleName`` of each track; ``0`` means unnamed: in the file's order.
    motion : list of (tilts, 3) float
        Å (z, y, x).
    """
    file = path.with_name("particles.star")
    for candidate in (path.with_name("optimisation_set.star"),):
        if not file.is_file() and candidate.is_file():
            file = find_near(_optimisation_set(candidate).get("rlnTomoParticlesFile", ""), path.parent) or file
    at, tomogram = np.zeros((len(motion), 3)), np.full(len(motion), "", object)
    known = False
    if file.is_file():
        try:
            blocks = read_star(file)
            block = next(b for b in blocks.values() if is_tomo(b))
            places, of, _, _, _ = _read_particles(file, blocks, block)
            number = {n: i for i, n in enumerate(_texts(block, "rlnTomoParticleName"))} if "rlnTomoParticleName" in block else {}
            rows = [number.get(n, i if not number or n == "0" else -1) for i, n in enumerate(names)]
            if rows and min(rows) >= 0 and max(rows) < len(places):
                at, tomogram, known = places[rows], of[rows], True
        except (CryotkError, StopIteration):
            known = False
    out: list[LayerData] = []
    for i, name in enumerate(dict.fromkeys(tomogram.tolist())):
        mine = np.nonzero(tomogram == name)[0]
        text = f"{name or path.name} ({len(mine)} tracks{'' if known else '; places unknown'})"
        out.append(tracks_layer(at[mine], [motion[int(k)] for k in mine], text, str(path), 30.0 if known else 1.0, visible=i == 0))
    return out
