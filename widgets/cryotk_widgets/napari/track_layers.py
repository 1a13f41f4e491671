"""Beam-induced motion as napari's tracks: of particles (polishing, tilt series) and of whole movies (motion correction)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import CryotkError, FileFormatError
from cryotk.io import StarBlock, read_star
from cryotk.io.relion_read import find_near
from cryotk_widgets.napari.layers import LayerData, file_layer

__all__ = ["ENLARGED", "motion_layers", "movie_layers", "tracks_layer"]

ENLARGED = 30.0
"""Tracks are a few Å in micrographs of thousands: they are drawn this much larger, as RELION's own figures."""

_GRID = 9
_ORIGIN = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")


def tracks_layer(
    places: np.ndarray, motion: list[np.ndarray], name: str, source: str, enlarged: float = ENLARGED, **changes: Any
) -> LayerData:
    """Tracks about their places, coloured along the dose.

    Parameters
    ----------
    places : (n, d) float
        Å, in the order of napari's axes (y, x or z, y, x).
    motion : list of (frames, d) float
        Å from each place.
    name, source : str
    enlarged : float
        Motion is drawn this much larger.
    **changes
        Of napari's ``add_tracks``.
    """
    number = np.repeat(np.arange(len(motion)), [len(m) for m in motion])
    frame = np.concatenate([np.arange(len(m)) for m in motion]) if motion else np.empty(0, int)
    moved = np.concatenate(motion) if motion else np.empty((0, places.shape[1]))
    data = np.column_stack([number, frame, places[number] + enlarged * moved])
    longest = max((len(m) for m in motion), default=1)
    options = {
        "name": f"{name}, × {enlarged:g}", "units": ("angstrom",) * (1 + places.shape[1]), "tail_width": 4,
        # all of every track at any frame, and hardly faded
        "tail_length": 10 * longest, "head_length": longest, "features": {"frame": frame, "particle": number},
        "color_by": "frame", "colormap": "turbo",
        "metadata": {"cryotk": {"kind": "tracks", "source": source, "enlarged": enlarged, "frames": longest}},
    }  # fmt: skip
    return data, options | changes, "tracks"


def _starts(places: np.ndarray, motion: list[np.ndarray], enlarged: float, name: str) -> LayerData:
    at = places + enlarged * np.array([m[0] for m in motion])
    size = 0.006 * float(np.ptp(places, axis=0).max() or 1000.0)
    options = {"name": name, "units": ("angstrom",) * at.shape[1], "size": size, "face_color": "#f0f0f0", "border_width": 0.0,
               "metadata": {"cryotk": {"kind": "starts"}}}  # fmt: skip
    return at, options, "points"


def motion_layers(path: Path, blocks: dict[str, StarBlock]) -> list[LayerData]:
    """Tracks of a polishing job's ``_tracks.star``, or of a tilt-series alignment's ``motion.star``.

    Parameters
    ----------
    path : Path
        Particles' places are looked for beside it: in ``_shiny.star``, ``shiny.star``, ``particles.star`` of its folder or those
        above it.
    blocks : dict
        Of the file: ``general`` and one per particle.

    Raises
    ------
    FileFormatError
        Without tracks in it.
    """
    tables = {name: b for name, b in blocks.items() if name != "general" and b.is_loop and _ORIGIN[0] in b}
    if not tables:
        raise FileFormatError(f"{path} holds no tracks: no block has _rlnOriginXAngst")
    axes = 3 if all(_ORIGIN[2] in b for b in tables.values()) else 2
    motion = [np.stack([np.atleast_1d(np.asarray(b[label], float)) for label in _ORIGIN[:axes]][::-1], -1) for b in tables.values()]
    if axes == 3:
        from cryotk_widgets.napari.tomo_layers import tomo_motion_layers

        return tomo_motion_layers(path, list(tables), motion)
    found = _places(path, len(motion))
    if found is None:
        # one rosette is better than nothing: the places are not known
        return [tracks_layer(np.zeros((len(motion), 2)), motion, f"{path.name} ({len(motion)}; places unknown)", str(path), 1.0)]
    places, pixel_size, micrograph = found
    out: list[LayerData] = []
    if micrograph is not None:
        image = file_layer(micrograph)
        if image[0].ndim == 2:
            pixel_size = float(image[1]["scale"][-1])
            out.append(image)
    places = places * pixel_size
    return [
        *out,
        tracks_layer(places, motion, f"{path.name} ({len(motion)})", str(path)),
        _starts(places, motion, ENLARGED, "starts of the tracks"),
    ]


def _places(path: Path, n: int) -> tuple[np.ndarray, float, Path | None] | None:
    """Pixels (y, x) of the particles of a ``_tracks.star``, their pixel size, and the micrograph; None when nothing says."""
    stem = path.name.removesuffix("_tracks.star")
    candidates = [path.with_name(stem + "_shiny.star")]
    for folder in (path.parent, *path.parent.parents[:3]):
        candidates += [folder / "shiny.star", folder / "particles.star"]
    for file in candidates:
        if not file.is_file():
            continue
        try:
            blocks = read_star(file)
        except CryotkError:
            continue
        block = next((b for b in blocks.values() if "rlnCoordinateX" in b and "rlnMicrographName" in b), None)
        if block is None:
            continue
        names = np.atleast_1d(np.asarray(block["rlnMicrographName"])).astype(str)
        rows = np.nonzero([Path(v).stem == stem for v in names])[0]
        if len(rows) != n:
            continue
        xy = [np.atleast_1d(np.asarray(block[f"rlnCoordinate{a}"], float))[rows] for a in "YX"]
        return np.stack(xy, -1), _pixel_size(blocks), find_near(names[rows[0]], path.parent)
    return None


def _pixel_size(blocks: dict[str, StarBlock]) -> float:
    """Of the micrographs that coordinates refer to, Å; 1 when the file does not say."""
    optics = blocks.get("optics")
    for label in ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize", "rlnImagePixelSize"):
        if optics is not None and label in optics:
            return float(np.atleast_1d(np.asarray(optics[label], float))[0])
    return 1.0


def movie_layers(path: Path, blocks: dict[str, StarBlock]) -> list[LayerData]:
    """What motion correction found for one movie: the motion of its frame as a whole and of places on it.

    A place of the micrograph was at ``place - shift`` in the raw frame, so its track is minus the shift. The local model is taken as
    polishing takes it, in pixels of the movie.

    Parameters
    ----------
    path : Path
        The movie's STAR file; its micrograph lies beside it.
    blocks : dict
        ``general``, ``global_shift`` and, where there is one, ``local_motion_model``.
    """
    general, shift = blocks["general"], blocks["global_shift"]
    a = float(general.get("rlnMicrographOriginalPixelSize", 1.0) or 1.0)
    width, height = (float(general[f"rlnImageSize{axis}"]) for axis in "XY")
    whole = np.stack([np.atleast_1d(np.asarray(shift[f"rlnMicrographShift{axis}"], float)) for axis in "YX"], -1)
    observed = whole[:, 0] > -9000
    last = np.zeros(2)
    for i in range(len(whole)):  # a frame that was left out moved as the one before it
        last = whole[i] = whole[i] if observed[i] else last
    x, y = (np.linspace(0.06, 0.94, _GRID) * size for size in (width, height))
    at = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
    model = blocks.get("local_motion_model")
    local = np.zeros((len(at), len(whole), 2))
    if model is not None and len(model) == 36:
        c = np.asarray(model["rlnMotionModelCoeff"], float).reshape(2, 6, 3)
        z = np.arange(len(whole)) - (int(general.get("rlnMicrographStartFrame", 1) or 1) - 1)
        time = np.stack([z, z**2, z**3])
        u, v = at[:, 1] / width - 0.5, at[:, 0] / height - 0.5
        space = np.stack([np.ones_like(u), u, u**2, v, v**2, u * v], -1)
        local = np.einsum("pk,dkt,tf->pfd", space, c[::-1], time)
    motion = list(-a * (whole + local))
    enlarged = _fitting(motion, 0.5 * a * min(width, height) / _GRID)
    out: list[LayerData] = []
    micrograph = path.with_suffix(".mrc")
    if micrograph.is_file():
        out.append(file_layer(micrograph))
    places = a * at
    centre, mean = a * np.array([[height, width]]) / 2, [-a * whole]
    return [
        *out,
        tracks_layer(places, motion, f"local motion of {path.stem}", str(path), enlarged),
        _starts(places, motion, enlarged, "first frame"),
        tracks_layer(centre, mean, "motion of the whole frame", str(path), enlarged, tail_width=6, visible=False),
    ]


def _fitting(motion: list[np.ndarray], room: float) -> float:
    """A round factor by which tracks may grow within their room."""
    reach = max((float(np.ptp(m, axis=0).max()) for m in motion), default=0.0)
    if not reach > 0:
        return ENLARGED
    steps = np.array([1, 2, 5, 10, 20, 30, 50, 100, 200, 500])
    return float(steps[max(0, int(np.searchsorted(steps, room / reach, side="right")) - 1)])
