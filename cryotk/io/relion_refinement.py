"""RELION's refinement results (``_optimiser``, ``_model``, ``_data``, ``_sampling`` STAR files and maps) as iterations, and back."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cryotk.data.refinement import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.errors import DataWarning, FileFormatError, MissingFileError
from cryotk.io.mrc import read_header, read_images, read_mrc
from cryotk.io.star import StarBlock, read_star

__all__ = ["open_iteration", "read_sampling"]

_ASSIGNMENTS = {
    "rlnClassNumber": "class_number", "rlnAngleRot": "angle_rot", "rlnAngleTilt": "angle_tilt", "rlnAnglePsi": "angle_psi",
    "rlnOriginXAngst": "shift_x", "rlnOriginYAngst": "shift_y", "rlnMaxValueProbDistribution": "max_probability",
    "rlnNrOfSignificantSamples": "n_significant", "rlnLogLikeliContribution": "log_likelihood",
    "rlnNormCorrection": "norm_correction",
}  # fmt: skip


def _find(name: str, near: Path) -> Path | None:
    """A file RELION names relative to its project: beside ``near``, or from any folder above it."""
    p = Path(name)
    for folder in (near, *near.resolve().parents):
        if (folder / p).exists():
            return folder / p
    beside = near / p.name
    return beside if beside.exists() else None


def open_iteration(path: str | Path) -> Iteration:
    """Open an iteration of RELION (1.4 to 5) from its optimiser or model file.

    Parameters
    ----------
    path : path
        ``run_itNNN_optimiser.star`` or ``run_itNNN_model.star``.

    Returns
    -------
    Iteration
        Missing maps become zeros and a missing data file an empty table, each with a warning.

    Raises
    ------
    MissingFileError, FileFormatError
    """
    p = Path(path)
    folder = p.resolve().parent
    blocks = read_star(p)
    optimiser: StarBlock | None = blocks.get("optimiser_general")
    stem = p.name
    for ending in ("_optimiser.star", "_model.star", "_half1_model.star", "_half2_model.star"):
        stem = stem.removesuffix(ending)
    if optimiser is not None:
        name = str(optimiser.get("rlnModelStarFile", ""))
        found = _find(name, folder)
        if found is None:
            raise MissingFileError(f"{p} names the model file {name}, which is not there; copy it beside {p.name}")
        model_path = found
        model_blocks = read_star(found)
    elif "model_general" in blocks:
        model_path, model_blocks = p, blocks
    else:
        raise FileFormatError(f"{p} is neither an optimiser nor a model file: it has no data_optimiser_general or data_model_general")
    model = _model(model_path, model_blocks)
    number = _iteration_number(optimiser, stem)
    data = _companion(optimiser, "rlnExperimentalDataStarFile", folder, stem, "_data.star")
    sampling = _companion(optimiser, "rlnOrientSamplingStarFile", folder, stem, "_sampling.star")
    assignments = _assignments(data, model.pixel_size)
    convergence = _convergence(optimiser)
    numbers = {
        "resolution": model.current_resolution, "image_size": float(model.current_size), "average_p_max": model.average_p_max,
        "sigma_offset": model.sigma_offset, "changes_class": convergence.changes_class,
        "changes_orientation": convergence.changes_orientation, "changes_offset": convergence.changes_offset,
        "accuracy_rotation": convergence.accuracy_rotation, "accuracy_translation": convergence.accuracy_translation,
    }  # fmt: skip
    if "n_significant" in assignments:
        numbers["mean_significant"] = float(assignments["n_significant"].mean())
    settings = read_sampling(sampling) if sampling is not None else SamplingSettings(is_3d=model.is_3d)
    return Iteration(number, model, settings, convergence, assignments, numbers, str(p), None)


def _iteration_number(optimiser: StarBlock | None, stem: str) -> int:
    if optimiser is not None and "rlnCurrentIteration" in optimiser:
        return int(optimiser["rlnCurrentIteration"])
    digits = stem.rpartition("_it")[2][:3]
    return int(digits) if digits.isdigit() else 0


def _companion(optimiser: StarBlock | None, label: str, folder: Path, stem: str, ending: str) -> Path | None:
    if optimiser is not None and label in optimiser:
        found = _find(str(optimiser[label]), folder)
        if found is not None:
            return found
    beside = folder / f"{stem}{ending}"
    return beside if beside.exists() else None


def read_sampling(path: str | Path) -> SamplingSettings:
    """Read a ``_sampling.star`` file."""
    blocks = read_star(path)
    g = blocks["sampling_general"]
    directions = None
    if "sampling_directions" in blocks:
        d = blocks["sampling_directions"]
        directions = np.stack([np.asarray(d["rlnAngleRot"], float), np.asarray(d["rlnAngleTilt"], float)], -1)
    psi = float(g.get("rlnPsiStep", 12.0))
    return SamplingSettings(
        is_3d=bool(int(g.get("rlnIs3DSampling", 0))),
        healpix_order=int(g.get("rlnHealpixOrder", 2)),
        symmetry=str(g.get("rlnSymmetryGroup", "C1")),
        psi_step=psi,
        offset_range=float(g.get("rlnOffsetRange", 0)),
        offset_step=float(g.get("rlnOffsetStep", 0)),
        perturbation=float(g.get("rlnSamplingPerturbInstance", 0)),
        perturbation_factor=float(g.get("rlnSamplingPerturbFactor", 0.5)),
        limit_tilt=float(g.get("rlnTiltAngleLimit", -91)),
        healpix_order_original=int(g.get("rlnHealpixOrderOriginal", 2)),
        psi_step_original=float(g.get("rlnPsiStepOriginal", psi)),
        offset_range_original=float(g.get("rlnOffsetRangeOriginal", 0)),
        offset_step_original=float(g.get("rlnOffsetStepOriginal", 0)),
        directions=directions,
    )


def _model(path: Path, blocks: dict[str, StarBlock]) -> RefinementModel:
    g = blocks["model_general"]
    classes = blocks.get("model_classes") or blocks.get("model_bodies")
    if classes is None:
        raise FileFormatError(f"{path} has no data_model_classes")
    k = len(classes)
    box = int(g["rlnOriginalImageSize"])
    s = box // 2 + 1
    a = float(g["rlnPixelSize"])

    def spectrum(label: str, body: str = "class") -> np.ndarray:
        out = np.zeros((k, s))
        for i in range(k):
            block = blocks.get(f"model_{body}_{i + 1}") or blocks.get(f"model_body_{i + 1}")
            if block is not None and label in block:
                values = np.asarray(block[label], float)[:s]
                out[i, : len(values)] = values
        return out

    def column(*labels: str, default: float = 0.0) -> np.ndarray:
        for label in labels:
            if label in classes:
                factor = a if label == "rlnAccuracyTranslations" else 1.0
                return np.asarray(classes[label], float) * factor
        return np.full(k, default)

    groups = blocks.get("model_groups")
    names = [str(n) for n in groups.get("rlnGroupName", np.zeros(0, object))] if groups is not None else []
    directions = None
    if "model_pdf_orient_class_1" in blocks:
        directions = np.stack([
            np.asarray(blocks[f"model_pdf_orient_class_{i + 1}"]["rlnOrientationDistribution"], float) for i in range(k)
        ])  # fmt: skip
    is_2d = int(g.get("rlnReferenceDimensionality", 3)) == 2
    prior = None
    if is_2d:
        prior = np.stack([column("rlnClassPriorOffsetX"), column("rlnClassPriorOffsetY")], -1)
    return RefinementModel(
        references=_maps(path, classes, k, box, is_2d),
        pixel_size=a,
        noise_power=_noise(blocks, s),
        class_distribution=column("rlnClassDistribution", default=1 / k),
        prior_power=spectrum("rlnReferenceTau2"),
        data_vs_prior=spectrum("rlnSsnrMap"),
        reference_noise=spectrum("rlnReferenceSigma2"),
        fourier_completeness=spectrum("rlnFourierCompleteness"),
        gold_standard_fsc=spectrum("rlnGoldStandardFsc"),
        group_names=names,
        group_counts=np.asarray(groups.get("rlnGroupNrParticles", np.zeros(len(names))), int) if groups is not None else np.zeros(0, int),
        group_scales=np.asarray(groups.get("rlnGroupScaleCorrection", np.ones(len(names))), float) if groups is not None else np.ones(0),
        direction_distribution=directions,
        prior_offset=prior,
        norm_average=float(g.get("rlnNormCorrectionAverage", 1)),
        sigma_offset=float(g.get("rlnSigmaOffsetsAngst", float(g.get("rlnSigmaOffsets", 10 / a)) * a)),
        current_resolution=float(g.get("rlnCurrentResolution", np.inf)),
        current_size=int(g.get("rlnCurrentImageSize", 0)),
        padding=float(g.get("rlnPaddingFactor", 2)),
        tau2_fudge=float(g.get("rlnTau2FudgeFactor", 1)),
        orientational_prior_mode=int(g.get("rlnOrientationalPriorMode", 0)),
        sigma_rot=float(g.get("rlnSigmaPriorRotAngle", 0)),
        sigma_tilt=float(g.get("rlnSigmaPriorTiltAngle", 0)),
        sigma_psi=float(g.get("rlnSigmaPriorPsiAngle", 0)),
        log_likelihood=float(g.get("rlnLogLikelihood", 0)),
        average_p_max=float(g.get("rlnAveragePmax", 0)),
        accuracy_rotation=column("rlnAccuracyRotations", default=999.0),
        accuracy_translation=column("rlnAccuracyTranslationsAngst", "rlnAccuracyTranslations", default=999.0),
        class_resolution=column("rlnEstimatedResolution", default=np.inf),
        class_completeness=column("rlnOverallFourierCompleteness"),
    )


def _noise(blocks: dict[str, StarBlock], s: int) -> np.ndarray:
    names = [b for b in blocks if b.startswith("model_optics_group_")] or [b for b in blocks if b.startswith("model_group_")][:1]
    out = np.zeros((max(len(names), 1), s))
    for i, name in enumerate(names):
        index = np.asarray(blocks[name]["rlnSpectralIndex"], int)
        keep = index < s
        out[i, index[keep]] = np.asarray(blocks[name]["rlnSigma2Noise"], float)[keep]
    return out


def _maps(path: Path, classes: StarBlock, k: int, box: int, is_2d: bool) -> np.ndarray:
    out = np.zeros((k, *(box,) * (2 if is_2d else 3)))
    missing = []
    for i, name in enumerate(classes["rlnReferenceImage"]):
        number, at, file = str(name).partition("@")
        file = file if at else str(name)
        found = _find(file, path.parent)
        if found is None:
            missing.append(file)
            continue
        if is_2d:
            out[i] = read_images(read_header(found), np.array([int(number) - 1 if at else 0]))[0]
        else:
            out[i] = read_mrc(found)[0]
    if missing:
        warnings.warn(f"{path}: {len(missing)} of {k} reference maps are not there (first: {missing[0]}); they are shown empty",
                      DataWarning, stacklevel=3)
    return out


def _assignments(path: Path | None, pixel_size: float) -> Any:
    import xarray as xr

    if path is None:
        return xr.Dataset()
    blocks = read_star(path)
    table = blocks.get("particles") or next((b for b in blocks.values() if b.is_loop and "rlnImageName" in b), None)
    if table is None:
        return xr.Dataset()
    columns = {name: np.asarray(table[label]) for label, name in _ASSIGNMENTS.items() if label in table}
    for old, new in (("rlnOriginX", "shift_x"), ("rlnOriginY", "shift_y")):
        if old in table and new not in columns:
            columns[new] = np.asarray(table[old], float) * pixel_size
    if "rlnImageName" in table:
        columns["image_name"] = np.asarray(table["rlnImageName"], object)
    return xr.Dataset({name: ("particle", values) for name, values in columns.items()})


def _convergence(optimiser: StarBlock | None) -> Convergence:
    if optimiser is None:
        return Convergence()

    def number(label: str, default: float) -> float:
        return float(optimiser.get(label, default))

    return Convergence(
        iterations_without_resolution_gain=int(number("rlnNumberOfIterWithoutResolutionGain", 0)),
        iterations_without_large_changes=int(number("rlnNumberOfIterWithoutChangingAssignments", 0)),
        best_resolution=number("rlnBestResolutionThusFar", 1 / 999),
        changes_orientation=number("rlnChangesOptimalOrientations", 999),
        changes_offset=number("rlnChangesOptimalOffsets", 999),
        changes_class=number("rlnChangesOptimalClasses", 999),
        smallest_changes_orientation=number("rlnSmallestChangesOrientations", 999),
        smallest_changes_offset=number("rlnSmallestChangesOffsets", 999),
        smallest_changes_class=number("rlnSmallestChangesClasses", 9999999),
        accuracy_rotation=number("rlnOverallAccuracyRotations", 999),
        accuracy_translation=number("rlnOverallAccuracyTranslationsAngst", 999),
        has_high_fsc_at_limit=bool(int(number("rlnHasHighFscAtResolLimit", 0))),
        increment_size=int(number("rlnIncrementImageSize", 10)),
        has_converged=bool(int(number("rlnHasConverged", 0))),
    )
