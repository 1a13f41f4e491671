"""``postprocess.star`` and the files beside it, written and read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from cryotk.data import open_volume, pixel_size_of, write_volume
from cryotk.data.notices import warn_caller
from cryotk.errors import FileFormatError
from cryotk.io import StarBlock, atomic_write, read_header, read_star, write_star
from cryotk.io.relion_read import find_near
from cryotk.maps.curves import EMPTY
from cryotk.maps.inputs import on_host
from cryotk.maps.postprocess_result import FSC_LABELS, GUINIER_LABELS, PostprocessResult, fsc_dataset, guinier_dataset

__all__ = ["open_postprocess", "write_postprocess"]

_NONE = 999.0  # how RELION writes the resolution of shell 0


def write_postprocess(result: PostprocessResult, directory: Path, root: str) -> Path:
    """Write a result as RELION's files; the STAR file last."""
    directory.mkdir(parents=True, exist_ok=True)
    base = directory / root
    general: dict[str, Any] = {
        "rlnFinalResolution": _finite(result.resolution),
        "rlnBfactorUsedForSharpening": float(result.b_factor),
    }
    for label, name, source in (("rlnUnfilteredMapHalf1", "half1", result.half1), ("rlnUnfilteredMapHalf2", "half2", result.half2)):
        general[label] = _file_of(source, Path(f"{base}_{name}_unfil.mrc"), result.pixel_size)
    if result.volume is not None:
        write_volume(on_host(result.volume), f"{base}.mrc", result.pixel_size)
        general["rlnPostprocessedMap"] = f"{base}.mrc"
    if result.molecular_weight is not None:
        general["rlnMolecularWeight"] = result.molecular_weight
        general["rlnParticleBoxFractionMolecularWeight"] = result.box_fraction_weight
    if result.box_fraction_mask is not None or result.mask_source is not None:
        if result.box_fraction_mask is not None:
            general["rlnParticleBoxFractionSolventMask"] = result.box_fraction_mask
        general["rlnMaskName"] = _file_of(result.mask_source, Path(f"{base}_mask.mrc"), result.pixel_size)
        if result.randomise_from is not None:
            general["rlnRandomiseFrom"] = result.randomise_from
        masked = result.masked
        if masked is not None:
            write_volume(on_host(masked), f"{base}_masked.mrc", result.pixel_size)
            general["rlnPostprocessedMapMasked"] = f"{base}_masked.mrc"
    fit = result.guinier.attrs
    if "slope" in fit:
        general["rlnFittedSlopeGuinierPlot"] = float(fit["slope"])
        general["rlnFittedInterceptGuinierPlot"] = float(fit["intercept"])
        general["rlnCorrelationFitGuinierPlot"] = float(fit["correlation"])

    fsc = result.fsc
    shell = fsc["shell"].values
    angstrom = np.where((shell > 0) & np.isfinite(fsc["resolution"].values), fsc["resolution"].values, _NONE)
    with_mask = "masked" in fsc
    columns: dict[str, Any] = {"rlnSpectralIndex": shell, "rlnResolution": 1 / angstrom, "rlnAngstromResolution": angstrom}
    if with_mask:
        columns.update({label: fsc[name].values for name, label in FSC_LABELS.items() if name in fsc})
    else:
        columns[FSC_LABELS["unmasked"]] = fsc["corrected"].values
        if "particle_fraction_weight" in fsc:
            columns[FSC_LABELS["particle_fraction_weight"]] = fsc["particle_fraction_weight"].values
    guinier: dict[str, Any] = {"rlnResolutionSquared": result.guinier["inverse_resolution_squared"].values}
    for name, label in GUINIER_LABELS.items():
        if name in result.guinier:
            v = result.guinier[name].values
            guinier[label] = np.where(np.isfinite(v), v, EMPTY)
    _write_dat(base, 1 / angstrom, fsc["corrected"].values)
    _write_xml(base, 1 / angstrom, fsc["corrected"].values)
    star = Path(f"{base}.star")
    write_star(star, {
        "general": StarBlock("general", general, is_loop=False), "fsc": StarBlock("fsc", columns),
        "guinier": StarBlock("guinier", guinier),
    }, header="# cryotk postprocess\n")  # fmt: skip
    return star


def _finite(v: float) -> float:
    return float(v) if np.isfinite(v) else _NONE


def _file_of(source: Any, path: Path, pixel_size: float) -> str:
    """Name of a map's file; maps from memory are written."""
    if source is None:
        return "None"
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    write_volume(on_host(source), path, pixel_size)
    return str(path)


def _write_dat(base: Path, frequency: np.ndarray, curve: np.ndarray) -> None:
    atomic_write(f"{base}_fsc.dat", "".join(f"{x:.6g} {y:.6g}\n" for x, y in zip(frequency, curve, strict=True)).encode())


def _write_xml(base: Path, frequency: np.ndarray, curve: np.ndarray) -> None:
    """Write the FSC as EMDB takes it."""
    attributes = " ".join(
        f"{k}={quoteattr(v)}" for k, v in
        (("title", "RELION masked-corrected FSC"), ("xaxis", "Resolution (A-1)"), ("yaxis", "Correlation Coefficient"))
    )  # fmt: skip
    points = "".join(
        f"  <coordinate>\n    <x>{x:.6g}</x>\n    <y>{y:.6g}</y>\n  </coordinate>\n" for x, y in zip(frequency, curve, strict=True)
    )
    atomic_write(f"{base}_fsc.xml", f"<fsc {attributes}>\n{points}</fsc>\n".encode())


def open_postprocess(path: str | os.PathLike[str]) -> PostprocessResult:
    """Read RELION's (or our) ``postprocess.star``; maps are read when they are found.

    Files named inside are looked for in the STAR file's folder and all folders above it (one is the project), then in the
    working directory.

    Parameters
    ----------
    path : path
        The STAR file, or the job's folder.

    Raises
    ------
    MissingFileError, FileFormatError
        The last when it has no tables ``general`` and ``fsc``.

    Warns
    -----
    DataWarning
        For a map or mask whose box does not fit the curves: it is left out.
    """
    p = Path(path)
    if p.is_dir():
        p = p / "postprocess.star"
    blocks = read_star(p)
    if "general" not in blocks or "fsc" not in blocks:
        raise FileFormatError(f"{p} is no postprocess.star: it has {', '.join(blocks) or 'no tables'}, not general and fsc")
    general, table = blocks["general"], blocks["fsc"]
    shell = np.atleast_1d(table["rlnSpectralIndex"])
    extent = float(np.atleast_1d(table["rlnAngstromResolution"])[1]) if len(shell) > 1 else 0.0  # box times pixel
    found = {name: np.atleast_1d(np.asarray(table[label], float)) for name, label in FSC_LABELS.items() if label in table}
    if not found:
        raise FileFormatError(f"{p}: table fsc has no correlation column; found {', '.join(table.columns)}")
    if "unmasked" not in found:
        found["unmasked"] = next(iter(found.values()))
    found.setdefault("corrected", found["unmasked"])
    beside = p.with_suffix(".mrc")
    candidates = [*_find(p, general.get("rlnPostprocessedMap")), *([beside] if beside.is_file() else [])]
    volume_path = _that_fits(candidates, len(shell), p, "post-processed map")
    mask_path = _that_fits(_find(p, general.get("rlnMaskName")), len(shell), p, "mask")
    half1, half2 = (
        next(iter(_find(p, general.get(label))), general.get(label)) for label in ("rlnUnfilteredMapHalf1", "rlnUnfilteredMapHalf2")
    )
    volume = None if volume_path is None else open_volume(volume_path)
    box = int(volume.shape[0]) if volume is not None else 2 * (len(shell) - 1)
    a = extent / box
    if volume is not None and pixel_size_of(volume) != a:
        volume = open_volume(volume_path, a)
    order: dict[str, np.ndarray] = {
        k: found[k]
        for k in ("corrected", "unmasked", "masked", "randomised", "particle_fraction_mask", "particle_fraction_weight")
        if k in found
    }
    fit = {
        name: float(general[label])
        for name, label in (("slope", "rlnFittedSlopeGuinierPlot"), ("intercept", "rlnFittedInterceptGuinierPlot"),
                            ("correlation", "rlnCorrelationFitGuinierPlot"))
        if label in general
    }  # fmt: skip
    resolution = float(general["rlnFinalResolution"])
    resolution = resolution if resolution < _NONE else float("inf")
    return PostprocessResult(
        resolution=resolution, b_factor=float(general.get("rlnBfactorUsedForSharpening", 0.0)),
        fsc=fsc_dataset(order, box, a, resolution=resolution),
        guinier=_read_guinier(blocks.get("guinier"), fit),
        pixel_size=a, box_size=box, volume=volume, mask=None if mask_path is None else open_volume(mask_path, a),
        half1=half1, half2=half2,
        mask_source=mask_path or general.get("rlnMaskName"), randomise_from=general.get("rlnRandomiseFrom"),
        molecular_weight=general.get("rlnMolecularWeight"), box_fraction_mask=general.get("rlnParticleBoxFractionSolventMask"),
        box_fraction_weight=general.get("rlnParticleBoxFractionMolecularWeight"), fitted=bool(fit), source=str(p),
    )  # fmt: skip


def _read_guinier(table: StarBlock | None, fit: dict[str, float]) -> Any:
    if table is None:
        return guinier_dataset(np.empty(0), {}, **fit)
    lines = {name: np.atleast_1d(np.asarray(table[label], float)) for name, label in GUINIER_LABELS.items() if label in table}
    return guinier_dataset(
        np.atleast_1d(np.asarray(table["rlnResolutionSquared"], float)),
        {k: np.where(v <= EMPTY, np.nan, v) for k, v in lines.items()},
        **fit,
    )


def _find(star: Path, name: Any) -> list[Path]:
    """Files that a name in a STAR file may mean, the likeliest first: of its own project before those of where we are."""
    if name in (None, "None", ""):
        return []
    near, here = find_near(str(name), star.parent), Path(str(name))
    found = [near] if near is not None else []
    if here.is_file() and not (found and here.samefile(found[0])):
        found.append(here)
    return found


def _that_fits(candidates: list[Path], shells: int, star: Path, what: str) -> Path | None:
    """The first file whose box has as many shells as the curves."""
    boxes = {path: read_header(path).shape for path in candidates}
    for path, shape in boxes.items():
        if len(set(shape)) == 1 and shape[0] // 2 + 1 == shells:
            return path
    if boxes:
        path, shape = next(iter(boxes.items()))
        warn_caller(
            f"{star}: the curves have {shells} shells, of a box of {2 * (shells - 1)}; the {what} {path} has box {shape} and is "
            "left out: put the map that belongs to them there"
        )
    return None
