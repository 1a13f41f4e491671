"""STAR files of RELION as layers: picks and particles on their micrographs, particle images, classes, a post-process."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import CryotkError, FileFormatError, MissingFileError
from cryotk.io import StarBlock, read_star
from cryotk.io.relion_read import find_near
from cryotk_widgets.napari.arrays import FileArray, MicrographArray, open_pixels
from cryotk_widgets.napari.layers import LayerData, file_layer, header_pixel_size, image_layer, volume_layer
from cryotk_widgets.napari.tomo_layers import is_tomo, optimisation_set_layers, pick_layers, tomogram_layers
from cryotk_widgets.napari.track_layers import motion_layers, movie_layers

__all__ = ["class_layers", "particle_layers", "postprocess_layers", "star_layers"]

_FEATURES = {
    "rlnClassNumber": "class", "rlnAutopickFigureOfMerit": "figure of merit", "rlnDefocusU": "defocus (Å)",
    "rlnRandomSubset": "half", "rlnMaxValueProbDistribution": "probability", "rlnAnglePsi": "psi (degree)",
}  # fmt: skip


def star_layers(path: str | os.PathLike[str]) -> list[LayerData]:
    """Layers of a STAR file of RELION.

    Particles with coordinates become points on their micrographs where these are found, otherwise a stack of images; an
    ``autopick.star`` of RELION 4 and 5 the picks of all its micrographs, a list of micrographs these; a
    ``_model.star`` (or its ``_optimiser.star``) its classes; a ``postprocess.star`` the sharpened map, the mask and the half-maps;
    polishing's ``_tracks.star``, a tilt series' ``motion.star`` and motion correction's files the tracks; particles with places in
    three dimensions, and optimisation sets, points in their tomograms; a ``tomograms.star`` these.

    Raises
    ------
    FileFormatError
        For a file of another kind, with what it holds.
    """
    p = Path(path)
    if p.name.endswith("_optimiser.star"):
        p = p.with_name(p.name.replace("_optimiser.star", "_model.star"))
        half = p.with_name(p.name.replace("_model.star", "_half1_model.star"))
        p = half if half.exists() and not p.exists() else p
    blocks = read_star(p)
    if "model_classes" in blocks:
        return class_layers(p, blocks["model_classes"], blocks.get("model_general"))
    if "general" in blocks and "rlnUnfilteredMapHalf1" in blocks["general"]:
        return postprocess_layers(p, blocks["general"])
    if "global_shift" in blocks and "general" in blocks:
        return movie_layers(p, blocks)
    if "rlnParticleNumber" in blocks.get("general", {}):
        return motion_layers(p, blocks)
    for block in blocks.values():
        if "rlnTomoParticlesFile" in block:
            return optimisation_set_layers(p, block)
        if is_tomo(block):
            return pick_layers(p, blocks, block)
        if block.is_loop and "rlnTomoReconstructedTomogram" in block:
            return tomogram_layers(p, block)
    for block in blocks.values():
        if "rlnCoordinateX" in block or "rlnImageName" in block:
            return particle_layers(p, block)
    if "coordinate_files" in blocks:
        return particle_layers(p, _all_picks(p, blocks["coordinate_files"]))
    for block in blocks.values():
        if block.is_loop and "rlnMicrographName" in block:
            return _micrograph_layers(p, block)
    raise FileFormatError(
        f"{path} holds {', '.join(f'data_{name}' for name in blocks) or 'nothing'}; napari can show files of particles, "
        "coordinates, micrographs, tomograms or tracks, _model.star and postprocess.star"
    )


def _micrographs(path: Path, block: StarBlock) -> tuple[np.ndarray, list[Path | None]]:
    """Number of each row's micrograph, and the files; a pick file without names lies beside its micrograph."""
    if "rlnMicrographName" in block:
        names, number = np.unique(np.asarray(block["rlnMicrographName"]).astype(str), return_inverse=True)
        return number, [find_near(str(n), path.parent) for n in names]
    stems = [
        path.stem[:i] for i in range(len(path.stem), 0, -1) if path.stem[i - 1 : i] != "_" and path.stem[i : i + 1] in ("", "_")
    ]
    beside = next((path.with_name(s + ".mrc") for s in stems if path.with_name(s + ".mrc").is_file()), None)
    return np.zeros(len(block), int), [beside]


def _all_picks(path: Path, listed: StarBlock) -> StarBlock:
    """Coordinates of all pick files that are there, each row with its micrograph."""
    parts: list[StarBlock] = []
    names: list[str] = []
    pairs = zip(
        np.asarray(listed["rlnMicrographName"]).astype(str), np.asarray(listed["rlnMicrographCoordinates"]).astype(str), strict=True
    )
    for name, file in pairs:
        found = find_near(str(file), path.parent)
        block = None if found is None else next((b for b in read_star(found).values() if "rlnCoordinateX" in b), None)
        if block is not None:
            parts.append(block)
            names += [str(name)] * len(block)
    if not parts:
        raise MissingFileError(f"{path}: none of its files of coordinates is there; open it in the project where it was made")
    shared = [label for label in parts[0].columns if all(label in part for part in parts) and label != "rlnMicrographName"]
    columns = {label: np.concatenate([np.atleast_1d(part[label]) for part in parts]) for label in shared}
    return StarBlock("picks", columns | {"rlnMicrographName": np.array(names)})


def _micrograph_layers(path: Path, block: StarBlock) -> list[LayerData]:
    files = [find_near(str(n), path.parent) for n in np.asarray(block["rlnMicrographName"]).astype(str)]
    found = [f for f in files if f is not None]
    if not found:
        raise MissingFileError(f"{path}: none of its micrographs is there; open it in the project where it was made")
    array = MicrographArray(found)
    a, _ = header_pixel_size(found[0], array.files[0].header)
    layer = image_layer(array, a, f"{path.name} ({len(found)})", str(path))
    layer[1]["metadata"]["cryotk"]["files"] = [str(f) for f in found]
    return [layer]


def particle_layers(path: Path, block: StarBlock) -> list[LayerData]:
    """Points on their micrographs, or images.

    Parameters
    ----------
    path : Path
        Of the STAR file; other files are looked for from its folder upwards.
    block : StarBlock
        With ``rlnCoordinateX, rlnCoordinateY`` or ``rlnImageName``.

    Raises
    ------
    MissingFileError
        When neither the micrographs nor the images are there.
    """
    if "rlnCoordinateX" in block:
        number, files = _micrographs(path, block)
        found = [f for f in files if f is not None]
        if found:
            return _points(path, block, number, files)
    if "rlnImageName" not in block:
        raise MissingFileError(
            f"{path}: the micrographs of its coordinates are not in its folder or any above it; open it in the project"
        )
    from cryotk.data import open_particles

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a missing stack is an error here
        particles = open_particles(path)
    if "images" not in particles and "box_size" not in particles:
        raise MissingFileError(
            f"{path}: neither its micrographs nor its images are there; open it in the project where it was made"
        )
    if "images" not in particles:
        raise FileFormatError(f"{path}: its optics groups have different boxes; open one with open_particles(...).cryo.group(name)")
    group = np.searchsorted(particles["optics"].values, particles["optics_group"].values[:1])
    a = float(particles["pixel_size"].values[group][0])
    features = {
        label: particles[name].values
        for name, label in (("class_number", "class"), ("defocus_u", "defocus (Å)"))
        if name in particles
    }
    try:
        layer = image_layer(particles["images"].data, a, path.name, str(path))
    except MissingFileError as error:
        # images are looked for when they are read; what Python offers as remedy is not there in a window
        raise MissingFileError(
            f"{path}: {str(error).partition(';')[0]}; open the file that lies in the project, below the folder in which RELION was "
            "run, or copy the images to where it names them"
        ) from None
    layer[1]["metadata"]["cryotk"]["particles"] = features
    return [layer]


def _points(path: Path, block: StarBlock, number: np.ndarray, files: list[Path | None]) -> list[LayerData]:
    kept = np.array([f is not None for f in files])
    paths = [f for f in files if f is not None]
    try:
        array: Any = MicrographArray(paths)
    except CryotkError:
        # of several sizes: those of the first one's
        sizes = [FileArray(f).shape[1:] for f in paths]
        kept[kept] = [s == sizes[0] for s in sizes]
        paths = [f for f, k in zip(files, kept, strict=True) if k and f is not None]
        array = MicrographArray(paths)
    a, _ = header_pixel_size(paths[0], array.files[0].header)
    rows = np.nonzero(kept[number])[0]
    where = (np.cumsum(kept) - 1)[number[rows]]
    at = np.stack([where, np.asarray(block["rlnCoordinateY"], float)[rows], np.asarray(block["rlnCoordinateX"], float)[rows]], -1)
    one = len(paths) == 1
    data = array[0] if one else array
    name = paths[0].name if one else f"{len(paths)} micrographs"
    micrographs = image_layer(data, a, name, str(paths[0]))
    if not one:
        micrographs[1]["metadata"]["cryotk"]["files"] = [str(p) for p in paths]
    features = {text: np.asarray(block[label])[rows] for label, text in _FEATURES.items() if label in block}
    # as large as a picture needs, unless the file says more: a fortieth of the micrograph
    options = {
        "name": f"{path.name} ({len(rows)})", "scale": (a, a) if one else (1.0, a, a), "units": ("angstrom",) * (2 if one else 3),
        "size": max(array.shape[1:]) / 40, "face_color": "transparent", "border_color": "#56b4e9", "border_width": 0.08,
        "symbol": "disc", "features": features, "metadata": {"cryotk": {"kind": "particles", "source": str(path), "rows": rows}},
    }  # fmt: skip
    return [micrographs, (at[:, 1:] if one else at, options, "points")]


def class_layers(path: Path, classes: StarBlock, general: StarBlock | None = None) -> list[LayerData]:
    """Classes of a model file: averages as one stack, maps as one layer each, the fullest visible.

    Raises
    ------
    MissingFileError
        When no map of a class is there.
    """
    names = np.asarray(classes["rlnReferenceImage"]).astype(str).tolist()
    share = np.asarray(classes.get("rlnClassDistribution", np.ones(len(names)) / len(names)), float)
    resolution = np.asarray(classes.get("rlnEstimatedResolution", np.full(len(names), np.nan)), float)
    stated = float(general.get("rlnPixelSize", 0) or 0) if general is not None else 0.0
    numbers = {"class share": share, "class resolution (Å)": resolution}
    if "@" in names[0]:
        file = find_near(names[0].partition("@")[2], path.parent)
        if file is None:
            raise MissingFileError(f"{path}: the class averages {names[0].partition('@')[2]} are not there")
        array, header = open_pixels(file)
        a, _ = header_pixel_size(file, header, stated)
        layer = image_layer(array, a, path.name, str(path), axis_labels=("class", "y", "x"))
        layer[1]["metadata"]["cryotk"] |= numbers
        return [layer]
    out: list[LayerData] = []
    for i, name in enumerate(names):
        file = find_near(name, path.parent)
        if file is None:
            continue
        array, header = open_pixels(file)
        text = f"class {i + 1}: {100 * share[i]:.1f} %" + (f", {resolution[i]:.1f} Å" if 0 < resolution[i] < 900 else "")
        a, is_known = header_pixel_size(file, header, stated)
        out.append(volume_layer(array, a, text, str(file), visible=bool(i == int(np.argmax(share)))))
        out[-1][1]["metadata"]["cryotk"]["has_pixel_size"] = is_known
    if not out:
        raise MissingFileError(f"{path}: none of its maps is there (first: {names[0]})")
    if not any(options["visible"] for _, options, _ in out):
        out[0][1]["visible"] = True
    return out


def postprocess_layers(path: Path, general: StarBlock) -> list[LayerData]:
    """Sharpened map in front; mask and half-maps hidden, where they are found.

    Raises
    ------
    MissingFileError
        When none of them is there.
    """
    resolution = float(general.get("rlnFinalResolution", 0) or 0)
    stem = path.stem
    candidates: list[tuple[str, Path | None, dict[str, Any]]] = [
        ("half-map 1", find_near(str(general.get("rlnUnfilteredMapHalf1", "")), path.parent), {"visible": False}),
        ("half-map 2", find_near(str(general.get("rlnUnfilteredMapHalf2", "")), path.parent), {"visible": False}),
        ("mask", find_near(str(general.get("rlnMaskName", "")), path.parent),
         {"visible": False, "contrast_limits": (0.0, 1.0), "iso_threshold": 0.5, "colormap": "cyan", "opacity": 0.5}),
        (f"post-processed{f', {resolution:.2f} Å' if resolution else ''}", path.with_name(stem + ".mrc"), {}),
        ("post-processed, masked", path.with_name(stem + "_masked.mrc"), {"visible": False}),
    ]  # fmt: skip
    out = [file_layer(file, name=name, **options) for name, file, options in candidates if file is not None and file.is_file()]
    if not out:
        raise MissingFileError(f"{path}: neither {stem}.mrc nor its half-maps are there; open it in the project where it was made")
    if not any(options.get("visible", True) for _, options, _ in out):
        out[0][1]["visible"] = True
    return out
