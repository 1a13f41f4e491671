"""Write an iteration as RELION's files: maps, model, data, sampling, and the optimiser file last.

Each file is written under a temporary name, synced and renamed; the optimiser file, which names the others, comes last: where
it stands, all of it stands.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cryotk.data.refinement import Iteration, RefinementModel
from cryotk.errors import SettingsError
from cryotk.io.mrc import write_mrc
from cryotk.io.particle_tables import particle_blocks
from cryotk.io.relion_moments import Moments, write_moments
from cryotk.io.relion_read import ASSIGNMENTS
from cryotk.io.star import StarBlock, read_star, write_star

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["OPTIMISER_DEFAULTS", "name_in_project", "write_iteration"]

_VERSIONS = {"5": (50001, "5.0.1"), "3.1": (30001, "3.1.3")}

OPTIMISER_DEFAULTS: dict[str, Any] = {
    "rlnOutputRootName": "", "rlnModelStarFile": "", "rlnExperimentalDataStarFile": "", "rlnTomoTomogramsFile": "",
    "rlnTomoTrajectoriesFile": "", "rlnOrientSamplingStarFile": "", "rlnCurrentIteration": 0, "rlnNumberOfIterations": 25,
    "rlnDoSplitRandomHalves": False, "rlnJoinHalvesUntilThisResolution": -1.0, "rlnAdaptiveOversampleOrder": 1,
    "rlnAdaptiveOversampleFraction": 0.999, "rlnRandomSeed": 0, "rlnParticleDiameter": 200.0, "rlnWidthMaskEdge": 5,
    "rlnDoZeroMask": True, "rlnDoSolventFlattening": True, "rlnDoSolventFscCorrection": False, "rlnSolventMaskName": "None",
    "rlnSolventMask2Name": "None", "rlnBodyStarFile": "None", "rlnTauSpectrumName": "None", "rlnMaximumCoarseImageSize": -1,
    "rlnHighresLimitExpectation": -1.0, "rlnLowresLimitExpectation": -1.0, "rlnIncrementImageSize": 10,
    "rlnDoMapEstimation": True, "rlnDoFastSubsetOptimisation": False, "rlnDoExternalReconstruct": False, "rlnDoBlush": False,
    "rlnBlushNoSpectralTrailing": False, "rlnDoGradientRefine": False, "rlnDoStochasticGradientDescent": False,
    "rlnGradEmIters": 0, "rlnGradHasConverged": False, "rlnGradCurrentStepsize": 0.0, "rlnGradSubsetOrder": 0,
    "rlnGradSuspendFinerSamplingIter": -1, "rlnGradSuspendLocalSamplingIter": -1, "rlnSgdInitialIterationsFraction": 0.3,
    "rlnSgdFinalIterationsFraction": 0.2, "rlnSgdMinimumResolution": 20.0, "rlnSgdInitialResolution": -1.0,
    "rlnSgdFinalResolution": -1.0, "rlnSgdInitialSubsetSize": -1, "rlnSgdFinalSubsetSize": -1, "rlnSgdMuFactor": 0.0,
    "rlnSgdSkipAnneal": False, "rlnSgdClassInactivityThreshold": 0.0, "rlnSgdSubsetSize": -1, "rlnSgdWriteEverySubset": 10,
    "rlnSgdStepsize": -1.0, "rlnSgdStepsizeScheme": "", "rlnTau2FudgeScheme": "", "rlnTau2FudgeArg": -1.0,
    "rlnMaximumSignificantPoses": -1, "rlnDoAutoRefine": False, "rlnDoAutoSampling": False,
    "rlnAutoLocalSearchesHealpixOrder": 4, "rlnNumberOfIterWithoutResolutionGain": 0, "rlnBestResolutionThusFar": 1 / 999,
    "rlnNumberOfIterWithoutChangingAssignments": 0, "rlnDoSkipAlign": False, "rlnDoSkipRotate": False,
    "rlnOverallAccuracyRotations": 999.0, "rlnOverallAccuracyTranslationsAngst": 999.0, "rlnChangesOptimalOrientations": 999.0,
    "rlnChangesOptimalOffsets": 999.0, "rlnChangesOptimalClasses": 999.0, "rlnSmallestChangesOrientations": 999.0,
    "rlnSmallestChangesOffsets": 999.0, "rlnSmallestChangesClasses": 9999999, "rlnLocalSymmetryFile": "None",
    "rlnDoHelicalRefine": False, "rlnIgnoreHelicalSymmetry": False, "rlnFourierMask": "None", "rlnHelicalTwistInitial": 0.0,
    "rlnHelicalRiseInitial": 0.0, "rlnHelicalCentralProportion": 0.3, "rlnNrHelicalNStart": 1,
    "rlnHelicalMaskTubeInnerDiameter": -1.0, "rlnHelicalMaskTubeOuterDiameter": -1.0, "rlnHelicalSymmetryLocalRefinement": False,
    "rlnHelicalSigmaDistance": -1.0, "rlnHelicalKeepTiltPriorFixed": False, "rlnHasConverged": False,
    "rlnHasHighFscAtResolLimit": False, "rlnHasLargeSizeIncreaseIterationsAgo": 0, "rlnDoCorrectNorm": True,
    "rlnDoCorrectScale": True, "rlnDoCorrectCtf": True, "rlnDoCenterClasses": False, "rlnDoIgnoreCtfUntilFirstPeak": False,
    "rlnCtfDataArePhaseFlipped": False, "rlnDoOnlyFlipCtfPhases": False, "rlnRefsAreCtfCorrected": True,
    "rlnFixSigmaNoiseEstimates": False, "rlnFixSigmaOffsetEstimates": False, "rlnMaxNumberOfPooledParticles": 3,
    "rlnOffsetRangeX": -1.0, "rlnOffsetRangeY": -1.0, "rlnOffsetRangeZ": -1.0,
}  # fmt: skip
"""RELION 5's optimiser entries in its order, with the values of a plain classification."""

_ONLY_5 = (
    "rlnTomo", "rlnDoBlush", "rlnBlush", "rlnDoGradientRefine", "rlnGrad", "rlnSgdInitialIterationsFraction",
    "rlnSgdFinalIterationsFraction", "rlnSgdMinimumResolution", "rlnSgdClassInactivity", "rlnSgdStepsizeScheme", "rlnTau2Fudge",
    "rlnMaximumSignificantPoses", "rlnDoAutoSampling", "rlnDoCenterClasses", "rlnOffsetRange",
)  # fmt: skip


def write_iteration(
    directory: str | os.PathLike[str],
    iteration: Iteration,
    *,
    particles: xr.Dataset | None = None,
    settings: dict[str, Any] | None = None,
    root: str = "run",
    command: str = "",
    project_dir: str | os.PathLike[str] | None = None,
    version: Literal["5", "3.1"] = "5",
    moments: list[Moments] | None = None,
) -> Path:
    """Write RELION's files of one iteration, each atomically, the optimiser file last.

    Parameters
    ----------
    directory : path
        Made when it is not there.
    iteration : Iteration
        A negative number writes the names of a converged run, without ``_itNNN``.
    particles : Dataset, optional
        In the order of ``iteration.assignments``; by default ``iteration.particles``, else the file it was read from.
    settings : dict, optional
        Entries of the optimiser file (label -> value), before those of ``iteration.optimiser`` and RELION's defaults.
    root : str
        First part of the names.
    command : str
        Comment for the optimiser file's second line.
    project_dir : path, optional
        Names inside the files are relative to it when it holds ``directory`` (RELION runs there); otherwise bare names.
    version : {"5", "3.1"}
        RELION 3.1 wants a noise spectrum per scale group, and fewer optimiser entries.
    moments : list, optional
        Of VDAM: both moments of each class, which RELION 4 and 5 go on from (see :mod:`cryotk.io.relion_moments`).

    Returns
    -------
    Path of the optimiser file.

    Raises
    ------
    SettingsError
        When the particles do not fit the assignments.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    tag, relion = _VERSIONS[version]
    m = iteration.model
    stem = f"{root}_it{iteration.number:03d}" if iteration.number >= 0 else root
    inside = name_in_project(folder, project_dir)
    data = _data_blocks(iteration, iteration.particles if particles is None else particles)
    models = {"": m} if iteration.half2 is None else {"_half1": m, "_half2": iteration.half2}
    for half, model in models.items():
        names = _write_maps(folder, stem + half, model, inside, version)
        blocks = _model_blocks(model, names, version, data)
        if moments is not None and version == "5":
            columns = blocks["model_classes"].columns
            first = {"rlnReferenceImage": columns.pop("rlnReferenceImage")}
            named = write_moments(folder, stem + half, moments, model.pixel_size, inside)
            blocks["model_classes"].columns = first | named | columns
        write_star(folder / f"{stem}{half}_model.star", blocks, tag)
    if iteration.half_maps is not None:
        for half, half_map in zip(("half1", "half2"), iteration.half_maps, strict=True):
            write_mrc(folder / f"{stem}_{half}_class001_unfil.mrc", half_map, m.pixel_size)
    if data:
        for block in data.values():
            block.version = tag
        write_star(folder / f"{stem}_data.star", data, tag)
    write_star(folder / f"{stem}_sampling.star", _sampling_blocks(iteration), tag)
    entries = optimiser_entries(iteration, settings or {}, inside, root, stem)
    if version == "3.1":
        entries = {k: v for k, v in entries.items() if not k.startswith(_ONLY_5)}
        # its gradient descent is another one: it goes on with full iterations
        entries["rlnDoStochasticGradientDescent"] = 0
    path = folder / f"{stem}_optimiser.star"
    header = (
        f"# RELION optimiser; version {relion}\n# {command} \n" if command else f"# RELION optimiser; version {relion}; by cryotk\n"
    )
    write_star(path, {"optimiser_general": StarBlock("optimiser_general", entries, is_loop=False)}, tag, header)
    return path


def _write_maps(folder: Path, stem: str, m: RefinementModel, inside: str, version: str) -> list[str]:
    """Write a model's maps or averages and return the names that a model file gives them."""
    if m.is_3d:
        maps = [f"{stem}_class{i + 1:03d}.mrc" for i in range(m.n_classes)]
        for name, map_ in zip(maps, m.references, strict=True):
            write_mrc(folder / name, map_, m.pixel_size)
        return [inside + name for name in maps]
    write_mrc(folder / f"{stem}_classes.mrcs", m.references, m.pixel_size, is_stack=True)
    return [f"{i + 1:0{8 if version == '5' else 6}d}@{inside}{stem}_classes.mrcs" for i in range(m.n_classes)]


def name_in_project(folder: Path, project_dir: str | os.PathLike[str] | None) -> str:
    """What names of files in a folder begin with, seen from the project that holds it; empty for another one."""
    if not project_dir:
        return ""
    # as they were named first: links may lead out of the project
    for seen in (os.path.abspath, os.path.realpath):
        project, here = Path(seen(project_dir)), Path(seen(folder))
        if here != project and here.is_relative_to(project):
            return here.relative_to(project).as_posix() + "/"
    return ""


def optimiser_entries(iteration: Iteration, settings: dict[str, Any], inside: str, root: str, stem: str) -> dict[str, Any]:
    """Entries of the optimiser file: RELION's defaults, what was read, the settings, and what the iteration says."""
    c = iteration.convergence
    facts: dict[str, Any] = {
        "rlnOutputRootName": inside + root,
        "rlnModelStarFile": f"{inside}{stem}_model.star",
        "rlnExperimentalDataStarFile": f"{inside}{stem}_data.star",
        "rlnOrientSamplingStarFile": f"{inside}{stem}_sampling.star",
        "rlnCurrentIteration": iteration.number,
        "rlnNumberOfIterWithoutResolutionGain": c.iterations_without_resolution_gain,
        "rlnNumberOfIterWithoutChangingAssignments": c.iterations_without_large_changes,
        "rlnBestResolutionThusFar": c.best_resolution,
        "rlnChangesOptimalOrientations": c.changes_orientation,
        "rlnChangesOptimalOffsets": c.changes_offset,
        "rlnChangesOptimalClasses": c.changes_class,
        "rlnSmallestChangesOrientations": c.smallest_changes_orientation,
        "rlnSmallestChangesOffsets": c.smallest_changes_offset,
        # RELION keeps a whole number here
        "rlnSmallestChangesClasses": c.smallest_changes_class,
        "rlnOverallAccuracyRotations": c.accuracy_rotation,
        "rlnOverallAccuracyTranslationsAngst": c.accuracy_translation,
        "rlnHasHighFscAtResolLimit": c.has_high_fsc_at_limit,
        "rlnIncrementImageSize": c.increment_size,
        "rlnHasConverged": c.has_converged,
    }
    if iteration.half2 is not None:
        facts["rlnModelStarFile"] = f"{inside}{stem}_half1_model.star"
        facts["rlnModelStarFile2"] = f"{inside}{stem}_half2_model.star"
    if "rlnTau2FudgeArg" not in settings and "rlnTau2FudgeArg" not in iteration.optimiser:
        facts["rlnTau2FudgeArg"] = iteration.model.tau2_fudge
    merged = OPTIMISER_DEFAULTS | iteration.optimiser | settings | facts
    return {k: _like(v, OPTIMISER_DEFAULTS.get(k)) for k, v in merged.items()}


def _like(value: Any, default: Any) -> Any:
    """Give a number the type that RELION writes under this label."""
    if isinstance(default, (bool, int)) and not isinstance(value, str):
        return int(np.rint(float(value)))
    return float(value) if isinstance(default, float) and not isinstance(value, str) else value


def _data_blocks(iteration: Iteration, particles: xr.Dataset | None) -> dict[str, StarBlock]:
    """Particles with the iteration's results; the table's own columns first, as they were."""
    a = iteration.assignments
    n = a.sizes.get("particle", 0)
    if particles is not None:
        blocks = particle_blocks(particles)
    elif a.attrs.get("source") and Path(a.attrs["source"]).exists():
        blocks = read_star(a.attrs["source"])
    else:
        return {}
    name = "particles" if "particles" in blocks else next((b for b, v in blocks.items() if v.is_loop and "rlnImageName" in v), "")
    table = blocks[name]
    if len(table) != n:
        raise SettingsError(f"iteration {iteration.number} has results for {n} particles, the particle set has {len(table)}")
    results = {label: a[key].values for label, key in ASSIGNMENTS.items() if key in a}
    numbers = _group_numbers(table, iteration.model.group_names)
    if numbers is not None:
        results["rlnGroupNumber"] = numbers
    for label in _RESULT_ORDER:
        if label in results:
            table.columns[label] = results[label]
    return blocks


_RESULT_ORDER = (
    "rlnGroupNumber", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst",
    "rlnClassNumber", "rlnNormCorrection", "rlnLogLikeliContribution", "rlnMaxValueProbDistribution",
    "rlnNrOfSignificantSamples", "rlnRandomSubset",
)  # fmt: skip


def _group_numbers(table: StarBlock, names: list[str]) -> np.ndarray | None:
    """Number from 1 of each particle's scale group in the model's list, None when a particle's group is not in it."""
    index = {name: i + 1 for i, name in enumerate(names)}
    for label in ("rlnGroupName", "rlnMicrographName"):
        if label in table:
            out = [index.get(str(v), 0) for v in table[label]]
            if 0 not in out:
                return np.array(out, int)
    return np.ones(len(table), int) if len(names) == 1 else None


def _model_blocks(m: RefinementModel, names: list[str], version: str, data: dict[str, StarBlock]) -> dict[str, StarBlock]:
    n_shells, k, n_groups = m.box_size // 2 + 1, m.n_classes, len(m.group_names)
    shells = np.arange(n_shells)
    resolution = shells / (m.box_size * m.pixel_size)
    angstrom = np.where(shells > 0, 1 / np.where(shells > 0, resolution, 1), 999.0)
    general = {
        "rlnReferenceDimensionality": 3 if m.is_3d else 2,
        "rlnDataDimensionality": 2,
        "rlnOriginalImageSize": m.box_size,
        "rlnCurrentResolution": float(m.current_resolution),
        "rlnCurrentImageSize": int(m.current_size),
        "rlnPaddingFactor": float(m.padding),
        "rlnIsHelix": False,
        "rlnFourierSpaceInterpolator": 1,
        "rlnMinRadiusNnInterpolation": 10,
        "rlnPixelSize": float(m.pixel_size),
        "rlnNrClasses": k,
        "rlnNrBodies": 1,
        "rlnNrGroups": n_groups,
        "rlnNrOpticsGroups": len(m.noise_power),
        "rlnTau2FudgeFactor": float(m.tau2_fudge),
        "rlnNormCorrectionAverage": float(m.norm_average),
        "rlnSigmaOffsetsAngst": float(m.sigma_offset),
        "rlnOrientationalPriorMode": int(m.orientational_prior_mode),
        "rlnSigmaPriorRotAngle": float(m.sigma_rot),
        "rlnSigmaPriorTiltAngle": float(m.sigma_tilt),
        "rlnSigmaPriorPsiAngle": float(m.sigma_psi),
        "rlnLogLikelihood": float(m.log_likelihood),
        "rlnAveragePmax": float(m.average_p_max),
    }
    if version == "3.1":
        del general["rlnNrOpticsGroups"]

    def per_class(values: np.ndarray, default: float) -> np.ndarray:
        return np.asarray(values, float) if len(values) == k else np.full(k, default)

    classes: dict[str, Any] = {
        "rlnReferenceImage": np.array(names, object),
        "rlnClassDistribution": np.asarray(m.class_distribution, float),
        "rlnAccuracyRotations": per_class(m.accuracy_rotation, 999.0),
        "rlnAccuracyTranslationsAngst": per_class(m.accuracy_translation, 999.0),
        "rlnEstimatedResolution": per_class(m.class_resolution, np.inf),
        "rlnOverallFourierCompleteness": per_class(m.class_completeness, 0.0),
    }
    if m.prior_offset is not None:
        classes["rlnClassPriorOffsetX"] = np.asarray(m.prior_offset, float)[:, 0]
        classes["rlnClassPriorOffsetY"] = np.asarray(m.prior_offset, float)[:, 1]
    blocks = [StarBlock("model_general", general, False), StarBlock("model_classes", classes)]
    for i in range(k):
        blocks.append(
            StarBlock(f"model_class_{i + 1}", {
                "rlnSpectralIndex": shells, "rlnResolution": resolution, "rlnAngstromResolution": angstrom,
                "rlnSsnrMap": m.data_vs_prior[i], "rlnGoldStandardFsc": m.gold_standard_fsc[i],
                "rlnFourierCompleteness": m.fourier_completeness[i], "rlnReferenceSigma2": m.reference_noise[i],
                "rlnReferenceTau2": m.prior_power[i],
            })
        )  # fmt: skip
    blocks.append(
        StarBlock("model_groups", {
            "rlnGroupNumber": np.arange(1, n_groups + 1), "rlnGroupName": np.array(m.group_names, object),
            "rlnGroupNrParticles": np.asarray(m.group_counts, int), "rlnGroupScaleCorrection": np.asarray(m.group_scales, float),
        })
    )  # fmt: skip

    def noise_block(name: str, spectrum: np.ndarray) -> StarBlock:
        keep = spectrum > 0
        columns = {"rlnSpectralIndex": shells[keep], "rlnResolution": resolution[keep], "rlnSigma2Noise": spectrum[keep]}
        return StarBlock(name, columns)

    if version == "3.1":
        for i, row in enumerate(_optics_of_groups(n_groups, len(m.noise_power), data)):
            blocks.append(noise_block(f"model_group_{i + 1}", m.noise_power[row]))
    else:
        blocks += [noise_block(f"model_optics_group_{i + 1}", spectrum) for i, spectrum in enumerate(m.noise_power)]
    if m.direction_distribution is not None:
        for i in range(k):
            blocks.append(StarBlock(f"model_pdf_orient_class_{i + 1}", {"rlnOrientationDistribution": m.direction_distribution[i]}))
    return {b.name: b for b in blocks}


def _optics_of_groups(n_groups: int, n_optics: int, data: dict[str, StarBlock]) -> np.ndarray:
    """Row of ``noise_power`` for each scale group."""
    rows = np.zeros(n_groups, int)
    table = data.get("particles")
    if n_optics > 1 and table is not None and "rlnGroupNumber" in table and "rlnOpticsGroup" in table:
        numbers = np.unique(np.asarray(table["rlnOpticsGroup"], int))
        rows[np.asarray(table["rlnGroupNumber"], int) - 1] = np.searchsorted(numbers, np.asarray(table["rlnOpticsGroup"], int))
    return rows


def _sampling_blocks(iteration: Iteration) -> dict[str, StarBlock]:
    s = iteration.sampling
    entries: dict[str, Any] = {"rlnIs3DSampling": s.is_3d, "rlnIs3DTranslationalSampling": False}
    if s.is_3d:
        entries |= {"rlnHealpixOrder": s.healpix_order, "rlnSymmetryGroup": s.symmetry, "rlnTiltAngleLimit": float(s.limit_tilt)}
    entries |= {
        "rlnPsiStep": float(s.psi_step), "rlnOffsetRange": float(s.offset_range), "rlnOffsetStep": float(s.offset_step),
        "rlnHelicalOffsetStep": -1.0, "rlnSamplingPerturbInstance": float(s.perturbation),
        "rlnSamplingPerturbFactor": float(s.perturbation_factor), "rlnHealpixOrderOriginal": s.healpix_order_original,
        "rlnPsiStepOriginal": float(s.psi_step_original), "rlnOffsetRangeOriginal": float(s.offset_range_original),
        "rlnOffsetStepOriginal": float(s.offset_step_original),
    }  # fmt: skip
    out = {"sampling_general": StarBlock("sampling_general", entries, False)}
    if s.directions is not None:
        d = np.asarray(s.directions, float)
        out["sampling_directions"] = StarBlock("sampling_directions", {"rlnAngleRot": d[:, 0], "rlnAngleTilt": d[:, 1]})
    return out
