"""Write an iteration as RELION's files: model, data, sampling, class images, and the optimiser file last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cryotk.data.refinement import Iteration
from cryotk.io.mrc import write_mrc
from cryotk.io.star import StarBlock, write_star

__all__ = ["write_iteration"]


def write_iteration(directory: str | Path, iteration: Iteration, data_blocks: dict[str, StarBlock], optimiser: dict[str, Any],
                    root: str = "run") -> Path:
    """Write RELION's files of one iteration, each atomically.

    Parameters
    ----------
    directory : path
    iteration : Iteration
    data_blocks : dict of StarBlock
        The particle file's ``optics`` and ``particles``.
    optimiser : dict
        Further entries of the optimiser file (label -> value).
    root : str

    Returns
    -------
    Path of the optimiser file.
    """
    folder = Path(directory)
    stem = f"{root}_it{iteration.number:03d}"
    m, c = iteration.model, iteration.convergence
    if m.is_3d:
        names = [f"{stem}_class{i + 1:03d}.mrc" for i in range(m.n_classes)]
        for name, map_ in zip(names, m.references, strict=True):
            write_mrc(folder / name, map_, m.pixel_size)
    else:
        names = [f"{i + 1:08d}@{stem}_classes.mrcs" for i in range(m.n_classes)]
        write_mrc(folder / f"{stem}_classes.mrcs", m.references, m.pixel_size, is_stack=True)
    write_star(folder / f"{stem}_model.star", _model_blocks(iteration, names))
    write_star(folder / f"{stem}_data.star", data_blocks)
    write_star(folder / f"{stem}_sampling.star", _sampling_blocks(iteration))
    entries: dict[str, Any] = {
        "rlnOutputRootName": root,
        "rlnModelStarFile": f"{stem}_model.star",
        "rlnExperimentalDataStarFile": f"{stem}_data.star",
        "rlnOrientSamplingStarFile": f"{stem}_sampling.star",
        "rlnCurrentIteration": iteration.number,
        "rlnNumberOfIterWithoutResolutionGain": c.iterations_without_resolution_gain,
        "rlnNumberOfIterWithoutChangingAssignments": c.iterations_without_large_changes,
        "rlnBestResolutionThusFar": c.best_resolution,
        "rlnChangesOptimalOrientations": c.changes_orientation,
        "rlnChangesOptimalOffsets": c.changes_offset,
        "rlnChangesOptimalClasses": c.changes_class,
        "rlnSmallestChangesOrientations": c.smallest_changes_orientation,
        "rlnSmallestChangesOffsets": c.smallest_changes_offset,
        "rlnSmallestChangesClasses": int(round(c.smallest_changes_class)),
        "rlnOverallAccuracyRotations": c.accuracy_rotation,
        "rlnOverallAccuracyTranslationsAngst": c.accuracy_translation,
        "rlnHasHighFscAtResolLimit": c.has_high_fsc_at_limit,
        "rlnIncrementImageSize": c.increment_size,
        "rlnHasConverged": c.has_converged,
    }
    entries.update({k: v for k, v in optimiser.items() if k not in entries})
    path = folder / f"{stem}_optimiser.star"
    write_star(path, {"optimiser_general": StarBlock("optimiser_general", entries, is_loop=False)},
               header="# RELION optimiser; written by cryotk\n")  # fmt: skip
    return path


def _model_blocks(iteration: Iteration, names: list[str]) -> dict[str, StarBlock]:
    m = iteration.model
    n_shells, k = m.box_size // 2 + 1, m.n_classes
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
        "rlnNrGroups": len(m.group_names),
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
    finite = np.where(np.isfinite(m.class_resolution), m.class_resolution, 999.0)
    classes: dict[str, Any] = {
        "rlnReferenceImage": np.array(names, object),
        "rlnClassDistribution": np.asarray(m.class_distribution, float),
        "rlnAccuracyRotations": np.asarray(m.accuracy_rotation, float),
        "rlnAccuracyTranslationsAngst": np.asarray(m.accuracy_translation, float),
        "rlnEstimatedResolution": finite,
        "rlnOverallFourierCompleteness": np.asarray(m.class_completeness, float),
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
            "rlnGroupNumber": np.arange(1, len(m.group_names) + 1), "rlnGroupName": np.array(m.group_names, object),
            "rlnGroupNrParticles": np.asarray(m.group_counts, int), "rlnGroupScaleCorrection": np.asarray(m.group_scales, float),
        })
    )  # fmt: skip
    for g, spectrum in enumerate(m.noise_power):
        keep = spectrum > 0
        blocks.append(
            StarBlock(f"model_optics_group_{g + 1}", {
                "rlnSpectralIndex": shells[keep], "rlnResolution": resolution[keep], "rlnSigma2Noise": spectrum[keep],
            })
        )  # fmt: skip
    if m.direction_distribution is not None:
        for i in range(k):
            blocks.append(StarBlock(f"model_pdf_orient_class_{i + 1}", {"rlnOrientationDistribution": m.direction_distribution[i]}))
    return {b.name: b for b in blocks}


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
