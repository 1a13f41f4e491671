"""Read RELION's refinement results: ``_optimiser``, ``_model``, ``_data``, ``_sampling`` STAR files and maps.

Gives plain dictionaries in cryotk's names and units; :func:`cryotk.open_iteration` makes an ``Iteration`` of them.
Dialects: RELION 4 and 5 keep one noise spectrum per optics group, 3.1 and older one per scale group; 3.0 and older
write offsets, steps and accuracies in pixels. What is per pixel becomes Å here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import FileFormatError, MissingFileError
from cryotk.io.mrc import read_header, read_images, read_mrc
from cryotk.io.paths import folders_above
from cryotk.io.star import StarBlock, read_star

__all__ = ["find_near", "read_assignments", "read_iteration", "read_model", "read_sampling"]

ASSIGNMENTS = {
    "rlnClassNumber": "class_number", "rlnAngleRot": "angle_rot", "rlnAngleTilt": "angle_tilt", "rlnAnglePsi": "angle_psi",
    "rlnOriginXAngst": "shift_x", "rlnOriginYAngst": "shift_y", "rlnOriginZAngst": "shift_z",
    "rlnMaxValueProbDistribution": "max_probability", "rlnNrOfSignificantSamples": "n_significant",
    "rlnLogLikeliContribution": "log_likelihood", "rlnNormCorrection": "norm_correction", "rlnRandomSubset": "random_subset",
    "rlnGroupNumber": "group_number", "rlnOpticsGroup": "optics_group",
}  # fmt: skip
"""Columns of a data file that are results of the iteration -> names in ``assignments``."""

_UNITS = {"angle_rot": "degree", "angle_tilt": "degree", "angle_psi": "degree", "shift_x": "Å", "shift_y": "Å", "shift_z": "Å"}
_ENDINGS = ("_optimiser.star", "_half1_model.star", "_half2_model.star", "_model.star")
FINISHED = -1
"""RELION's iteration number of the files without ``_itNNN``, written when a refinement has converged."""


def find_near(name: str, near: Path) -> Path | None:
    """Find a file that RELION names relative to its project.

    Looks from the folder ``near``, then from every folder above it (the project is one of them), then for the bare file
    name in ``near`` (a job folder that was copied elsewhere).
    """
    if not name or name == "None":
        return None
    p = Path(name)
    if p.is_absolute() and p.exists():
        return p
    if not p.is_absolute():
        for base in folders_above(near):
            if (base / p).is_file():
                return base / p
    beside = Path(os.path.abspath(near)) / p.name
    return beside if beside.is_file() else None


def read_iteration(path: str | Path) -> dict[str, Any]:
    """Read an iteration from its optimiser or model file.

    Parameters
    ----------
    path : path
        ``*_optimiser.star`` or ``*_model.star``.

    Returns
    -------
    dict
        ``number``, ``model``, ``half2`` (the second half-set's model, or None), ``sampling`` (None without file),
        ``convergence`` (None without optimiser file) as dicts of
        the dataclasses' fields; ``assignments`` (name -> array), ``units``, ``optimiser`` (label -> value), ``files``
        (what -> path), ``missing`` (names of maps that are not there: these are zeros).

    Raises
    ------
    MissingFileError, FileFormatError
    """
    p = Path(path)
    folder = p.parent
    blocks = read_star(p)
    optimiser = blocks.get("optimiser_general")
    stem = p.name
    for ending in _ENDINGS:
        stem = stem.removesuffix(ending)
    if optimiser is not None:
        name = str(optimiser.get("rlnModelStarFile", ""))
        model_path = find_near(name, folder)
        if model_path is None:
            raise MissingFileError(f"{p} names the model file {name!r}, which is not there; copy it beside {p.name}")
        model_blocks = read_star(model_path)
    elif "model_general" in blocks:
        model_path, model_blocks = p, blocks
    else:
        found = ", ".join(f"data_{b}" for b in list(blocks)[:4])
        raise FileFormatError(
            f"{p} is neither an optimiser nor a model file: it has {found}, not data_optimiser_general or data_model_general"
        )
    files = {"model": model_path}
    for what, label in (("data", "rlnExperimentalDataStarFile"), ("sampling", "rlnOrientSamplingStarFile")):
        found_file = find_near(str(optimiser.get(label, "")), folder) if optimiser is not None else None
        beside = folder / f"{stem}_{what}.star"
        if found_file is None and beside.exists():
            found_file = beside
        if found_file is not None:
            files[what] = found_file
    pixel_size = float(model_blocks["model_general"]["rlnPixelSize"])
    assignments = read_assignments(files["data"], pixel_size) if "data" in files else {}
    weights = assignments.get("group_number"), assignments.get("optics_group")
    model, missing = read_model(model_path, model_blocks, *weights)
    half2 = None
    second = find_near(str(optimiser.get("rlnModelStarFile2", "")), folder) if optimiser is not None else None
    if second is not None and second != model_path:
        half2, missing2 = read_model(second, read_star(second), *weights)
        missing = missing + missing2
    old = "rlnSigmaOffsetsAngst" not in model_blocks["model_general"]
    return {
        "number": _iteration_number(optimiser, stem),
        "model": model,
        "half2": half2,
        "sampling": read_sampling(files["sampling"], pixel_size if old else 1.0) if "sampling" in files else None,
        "convergence": None if optimiser is None else _convergence(optimiser, pixel_size if old else 1.0),
        "assignments": assignments,
        "units": _UNITS,
        "optimiser": {} if optimiser is None else dict(optimiser.columns),
        "files": files,
        "missing": missing,
    }


def _iteration_number(optimiser: StarBlock | None, stem: str) -> int:
    if optimiser is not None and "rlnCurrentIteration" in optimiser:
        return int(optimiser["rlnCurrentIteration"])
    _, marker, rest = stem.rpartition("_it")
    digits = rest.split("_")[0]
    return int(digits) if marker and digits.isdigit() else FINISHED


def read_sampling(path: str | Path, offset_unit: float = 1.0) -> dict[str, Any]:
    """Read a ``_sampling.star`` file into the fields of ``SamplingSettings``.

    Parameters
    ----------
    path : path
    offset_unit : float
        Å per unit of the file's offsets: 1, or the pixel size for RELION 3.0 and older.
    """
    blocks = read_star(path)
    g = blocks.get("sampling_general")
    if g is None:
        raise FileFormatError(f"{path} is not a sampling file: it has no data_sampling_general")
    directions = None
    if "sampling_directions" in blocks:
        d = blocks["sampling_directions"]
        directions = np.stack([np.asarray(d["rlnAngleRot"], float), np.asarray(d["rlnAngleTilt"], float)], -1)
    psi, order = float(g.get("rlnPsiStep", 12.0)), int(g.get("rlnHealpixOrder", 2))
    reach, step = (float(g.get(label, 0)) * offset_unit for label in ("rlnOffsetRange", "rlnOffsetStep"))
    return {
        "is_3d": bool(int(g.get("rlnIs3DSampling", 0))),
        "healpix_order": order,
        "symmetry": str(g.get("rlnSymmetryGroup", "C1")),
        "psi_step": psi,
        "offset_range": reach,
        "offset_step": step,
        "perturbation": float(g.get("rlnSamplingPerturbInstance", 0)),
        "perturbation_factor": float(g.get("rlnSamplingPerturbFactor", 0.5)),
        "limit_tilt": float(g.get("rlnTiltAngleLimit", -91)),
        "healpix_order_original": int(g.get("rlnHealpixOrderOriginal", order)),
        "psi_step_original": float(g.get("rlnPsiStepOriginal", psi)),
        "offset_range_original": float(g.get("rlnOffsetRangeOriginal", reach / offset_unit)) * offset_unit,
        "offset_step_original": float(g.get("rlnOffsetStepOriginal", step / offset_unit)) * offset_unit,
        "directions": directions,
    }


def read_model(
    path: Path, blocks: dict[str, StarBlock], group_number: np.ndarray | None = None, optics_group: np.ndarray | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Read a model file and its maps into the fields of ``RefinementModel``.

    Parameters
    ----------
    path : path
        Of the model file; maps are looked for near it.
    blocks : dict of StarBlock
    group_number, optics_group : (n,) int, optional
        Of the particles: which optics group a scale group belongs to, for files with a noise spectrum per scale group.

    Returns
    -------
    model : dict
    missing : list of str
        Maps that are not there (zeros stand for them).
    """
    g = blocks["model_general"]
    classes = blocks.get("model_classes") or blocks.get("model_bodies")
    if classes is None:
        raise FileFormatError(f"{path} has no data_model_classes")
    for label in ("rlnOriginalImageSize", "rlnPixelSize"):
        if label not in g:
            raise FileFormatError(f"{path}: data_model_general has no _{label}")
    k, box, a = len(classes), int(g["rlnOriginalImageSize"]), float(g["rlnPixelSize"])
    s = box // 2 + 1
    old = "rlnSigmaOffsetsAngst" not in g

    def spectrum(label: str) -> np.ndarray:
        out = np.zeros((k, s))
        for i in range(k):
            block = blocks.get(f"model_class_{i + 1}") or blocks.get(f"model_body_{i + 1}")
            if block is not None and label in block:
                values = np.asarray(block[label], float)[:s]
                out[i, : len(values)] = values
        return out

    def column(label: str, default: float, unit: float = 1.0) -> np.ndarray:
        return np.asarray(classes[label], float) * unit if label in classes else np.full(k, default)

    translation = "rlnAccuracyTranslationsAngst", 999.0, 1.0
    if translation[0] not in classes:
        translation = "rlnAccuracyTranslations", 999.0, a
    groups = blocks.get("model_groups") or StarBlock("model_groups")
    names = [str(n) for n in groups.get("rlnGroupName", [])]
    directions = None
    if "model_pdf_orient_class_1" in blocks:
        directions = np.stack([
            np.asarray(blocks[f"model_pdf_orient_class_{i + 1}"]["rlnOrientationDistribution"], float) for i in range(k)
        ])  # fmt: skip
    is_2d = int(g.get("rlnReferenceDimensionality", 3)) == 2
    prior = None
    if is_2d:
        unit = a if old else 1.0
        prior = np.stack([column("rlnClassPriorOffsetX", 0.0, unit), column("rlnClassPriorOffsetY", 0.0, unit)], -1)
    counts = np.asarray(groups.get("rlnGroupNrParticles", np.zeros(len(names))), int)
    maps, missing = _maps(path, classes, k, box, is_2d)
    model = {
        "references": maps,
        "pixel_size": a,
        "noise_power": _noise(blocks, s, counts, group_number, optics_group),
        "class_distribution": column("rlnClassDistribution", 1 / k),
        "prior_power": spectrum("rlnReferenceTau2"),
        "data_vs_prior": spectrum("rlnSsnrMap"),
        "reference_noise": spectrum("rlnReferenceSigma2"),
        "fourier_completeness": spectrum("rlnFourierCompleteness"),
        "gold_standard_fsc": spectrum("rlnGoldStandardFsc"),
        "group_names": names,
        "group_counts": counts,
        "group_scales": np.asarray(groups.get("rlnGroupScaleCorrection", np.ones(len(names))), float),
        "direction_distribution": directions,
        "prior_offset": prior,
        "norm_average": float(g.get("rlnNormCorrectionAverage", 1)),
        "sigma_offset": float(g.get("rlnSigmaOffsets", 10 / a)) * a if old else float(g["rlnSigmaOffsetsAngst"]),
        "current_resolution": float(g.get("rlnCurrentResolution", np.inf)),
        "current_size": int(g.get("rlnCurrentImageSize", 0)),
        "padding": float(g.get("rlnPaddingFactor", 2)),
        "tau2_fudge": float(g.get("rlnTau2FudgeFactor", 1)),
        "orientational_prior_mode": int(g.get("rlnOrientationalPriorMode", 0)),
        "sigma_rot": float(g.get("rlnSigmaPriorRotAngle", 0)),
        "sigma_tilt": float(g.get("rlnSigmaPriorTiltAngle", 0)),
        "sigma_psi": float(g.get("rlnSigmaPriorPsiAngle", 0)),
        "log_likelihood": float(g.get("rlnLogLikelihood", 0)),
        "average_p_max": float(g.get("rlnAveragePmax", 0)),
        "accuracy_rotation": column("rlnAccuracyRotations", 999.0),
        "accuracy_translation": column(*translation),
        "class_resolution": column("rlnEstimatedResolution", np.inf),
        "class_completeness": column("rlnOverallFourierCompleteness", 0.0),
    }
    return model, missing


def _spectrum_rows(block: StarBlock, s: int) -> np.ndarray:
    out = np.zeros(s)
    index = np.asarray(block["rlnSpectralIndex"], int)
    keep = index < s
    out[index[keep]] = np.asarray(block["rlnSigma2Noise"], float)[keep]
    return out


def _noise(
    blocks: dict[str, StarBlock], s: int, counts: np.ndarray, group_number: np.ndarray | None, optics_group: np.ndarray | None
) -> np.ndarray:
    """(optics groups, shells) noise power; spectra per scale group are averaged over the particles of an optics group."""
    optics = [b for b in blocks if b.startswith("model_optics_group_")]
    if optics:
        return np.stack([_spectrum_rows(blocks[b], s) for b in optics])
    scale = {int(b.removeprefix("model_group_")): blocks[b] for b in blocks if b.startswith("model_group_")}
    if not scale:
        return np.zeros((1, s))
    spectra = {i: _spectrum_rows(b, s) for i, b in scale.items()}
    if group_number is None or optics_group is None:
        group_number = np.arange(1, len(counts) + 1).repeat(np.maximum(counts, 0)) if len(counts) else np.array(list(scale))
        optics_group = np.ones(len(group_number), int)
    out = []
    for o in np.unique(np.asarray(optics_group, int)):
        members, n = np.unique(np.asarray(group_number, int)[np.asarray(optics_group, int) == o], return_counts=True)
        known = [(spectra[int(i)], float(c)) for i, c in zip(members, n, strict=True) if int(i) in spectra]
        known = known or [(v, 1.0) for v in spectra.values()]
        out.append(np.average([v for v, _ in known], axis=0, weights=[c for _, c in known]))
    return np.stack(out)


def _maps(path: Path, classes: StarBlock, k: int, box: int, is_2d: bool) -> tuple[np.ndarray, list[str]]:
    shape = (box,) * (2 if is_2d else 3)
    out: np.ndarray = np.zeros((k, *shape))
    missing: list[str] = []
    for i, name in enumerate(classes.get("rlnReferenceImage", np.full(k, "", object))):
        number, at, file = str(name).partition("@")
        file = file if at else str(name)
        found = find_near(file, path.parent)
        if found is None:
            missing.append(file)
            continue
        if is_2d:
            pixels = read_images(read_header(found), np.array([int(number) - 1 if at else 0]))[0]
        else:
            pixels = read_mrc(found)[0]
        if pixels.shape != shape:
            raise FileFormatError(f"{found}: the map of class {i + 1} has {pixels.shape} voxels, {path.name} says {shape}")
        out[i] = pixels
    return out, missing


def read_assignments(path: str | Path, pixel_size: float) -> dict[str, np.ndarray]:
    """Read the particles' results from a ``_data.star`` file.

    Parameters
    ----------
    path : path
    pixel_size : float
        Å; of offsets in pixels (RELION 3.0 and older).
    """
    blocks = read_star(path)
    table = blocks.get("particles") or next((b for b in blocks.values() if b.is_loop and "rlnImageName" in b), None)
    if table is None:
        raise FileFormatError(f"{path} holds no particles: it has neither data_particles nor a loop with _rlnImageName")
    columns = {name: np.asarray(table[label]) for label, name in ASSIGNMENTS.items() if label in table}
    for axis in "XYZ":
        new = f"shift_{axis.lower()}"
        if f"rlnOrigin{axis}" in table and new not in columns:
            columns[new] = np.asarray(table[f"rlnOrigin{axis}"], float) * pixel_size
    if "rlnImageName" in table:
        columns["image_name"] = np.asarray(table["rlnImageName"], object)
    return columns


def _convergence(optimiser: StarBlock, offset_unit: float) -> dict[str, Any]:
    def number(label: str, default: float) -> float:
        return float(optimiser.get(label, default))

    def offset(label: str) -> float:
        value = number(label, 999)
        # 999 means not known, in any unit
        return value if value >= 999 else value * offset_unit

    translation = number("rlnOverallAccuracyTranslationsAngst", 999)
    if "rlnOverallAccuracyTranslations" in optimiser and "rlnOverallAccuracyTranslationsAngst" not in optimiser:
        translation = offset("rlnOverallAccuracyTranslations")
    return {
        "iterations_without_resolution_gain": int(number("rlnNumberOfIterWithoutResolutionGain", 0)),
        "iterations_without_large_changes": int(number("rlnNumberOfIterWithoutChangingAssignments", 0)),
        "best_resolution": number("rlnBestResolutionThusFar", 1 / 999),
        "changes_orientation": number("rlnChangesOptimalOrientations", 999),
        "changes_offset": offset("rlnChangesOptimalOffsets"),
        "changes_class": number("rlnChangesOptimalClasses", 999),
        "smallest_changes_orientation": number("rlnSmallestChangesOrientations", 999),
        "smallest_changes_offset": offset("rlnSmallestChangesOffsets"),
        "smallest_changes_class": number("rlnSmallestChangesClasses", 9999999),
        "accuracy_rotation": number("rlnOverallAccuracyRotations", 999),
        "accuracy_translation": translation,
        "has_high_fsc_at_limit": bool(int(number("rlnHasHighFscAtResolLimit", 0))),
        "increment_size": int(number("rlnIncrementImageSize", 10)),
        "has_converged": bool(int(number("rlnHasConverged", 0))),
    }
