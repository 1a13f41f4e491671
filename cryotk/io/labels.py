"""RELION's labels: their types, and the plain names cryotk gives to those of particles and optics groups."""

from __future__ import annotations

__all__ = ["OPTICS_NAMES", "OPTICS_UNITS", "PARTICLE_NAMES", "PARTICLE_UNITS", "label_kind"]

PARTICLE_NAMES = {
    "rlnImageName": "image_name",
    "rlnMicrographName": "micrograph",
    "rlnGroupName": "group_name",
    "rlnGroupNumber": "group_number",
    "rlnOpticsGroup": "optics_group",
    "rlnAngleRot": "angle_rot",
    "rlnAngleTilt": "angle_tilt",
    "rlnAnglePsi": "angle_psi",
    "rlnOriginXAngst": "shift_x",
    "rlnOriginYAngst": "shift_y",
    "rlnOriginZAngst": "shift_z",
    "rlnDefocusU": "defocus_u",
    "rlnDefocusV": "defocus_v",
    "rlnDefocusAngle": "defocus_angle",
    "rlnPhaseShift": "phase_shift",
    "rlnCtfBfactor": "ctf_b_factor",
    "rlnCtfScalefactor": "ctf_scale",
    "rlnClassNumber": "class_number",
    "rlnRandomSubset": "random_subset",
    "rlnCoordinateX": "coordinate_x",
    "rlnCoordinateY": "coordinate_y",
    "rlnNormCorrection": "norm_correction",
    "rlnLogLikeliContribution": "log_likelihood",
    "rlnMaxValueProbDistribution": "max_probability",
    "rlnNrOfSignificantSamples": "n_significant",
}
"""RELION label of a particle table -> name in a Dataset."""

PARTICLE_UNITS = {
    "angle_rot": "degree",
    "angle_tilt": "degree",
    "angle_psi": "degree",
    "shift_x": "Å",
    "shift_y": "Å",
    "shift_z": "Å",
    "defocus_u": "Å",
    "defocus_v": "Å",
    "defocus_angle": "degree",
    "phase_shift": "degree",
    "ctf_b_factor": "Å^2",
    "coordinate_x": "px of the micrograph",
    "coordinate_y": "px of the micrograph",
}

OPTICS_NAMES = {
    "rlnOpticsGroupName": "optics_name",
    "rlnImagePixelSize": "pixel_size",
    "rlnMicrographPixelSize": "micrograph_pixel_size",
    "rlnMicrographOriginalPixelSize": "original_pixel_size",
    "rlnVoltage": "voltage",
    "rlnSphericalAberration": "spherical_aberration",
    "rlnAmplitudeContrast": "amplitude_contrast",
    "rlnImageSize": "box_size",
    "rlnImageDimensionality": "dimensionality",
    "rlnBeamTiltX": "beam_tilt_x",
    "rlnBeamTiltY": "beam_tilt_y",
    "rlnCtfDataAreCtfPremultiplied": "ctf_premultiplied",
    "rlnCtfDataAreCtfCorrected": "ctf_corrected",
    "rlnMtfFileName": "mtf_file",
}
"""RELION label of an optics table -> name in a Dataset (Zernike vectors and the magnification matrix are arrays)."""

OPTICS_UNITS = {
    "pixel_size": "Å",
    "micrograph_pixel_size": "Å",
    "original_pixel_size": "Å",
    "voltage": "kV",
    "spherical_aberration": "mm",
    "box_size": "px",
    "beam_tilt_x": "mrad",
    "beam_tilt_y": "mrad",
}

_INT = {
    "rlnGroupNumber", "rlnOpticsGroup", "rlnClassNumber", "rlnRandomSubset", "rlnNrOfSignificantSamples",
    "rlnImageSize", "rlnImageDimensionality", "rlnHelicalTubeID", "rlnParticleSelectionType", "rlnSpectralIndex",
    "rlnGroupNrParticles", "rlnCurrentImageSize", "rlnOriginalImageSize", "rlnNrClasses", "rlnNrGroups", "rlnNrBodies",
    "rlnNrOpticsGroups", "rlnReferenceDimensionality", "rlnDataDimensionality", "rlnHealpixOrder",
    "rlnHealpixOrderOriginal", "rlnCurrentIteration", "rlnNumberOfIterations", "rlnOrientationalPriorMode",
    "rlnRandomSeed", "rlnIncrementImageSize", "rlnMaximumCoarseImageSize", "rlnAdaptiveOversampleOrder",
    "rlnFourierSpaceInterpolator", "rlnMinRadiusNnInterpolation", "rlnWidthMaskEdge", "rlnBeamTiltClass",
    "rlnMicrographFrameNumber", "rlnMicrographStartFrame", "rlnTomoTiltMovieFrameCount", "rlnTomoTiltMovieIndex",
    "rlnImageSizeX", "rlnImageSizeY", "rlnImageSizeZ", "rlnMotionModelVersion", "rlnMotionModelCoeffsIdx",
    "rlnPipeLineJobCounter", "rlnAutoLocalSearchesHealpixOrder", "rlnNumberOfIterWithoutResolutionGain",
    "rlnNumberOfIterWithoutChangingAssignments", "rlnSmallestChangesClasses", "rlnMaximumSignificantPoses",
    "rlnMaxNumberOfPooledParticles", "rlnSgdSubsetSize", "rlnSgdInitialSubsetSize", "rlnSgdFinalSubsetSize",
    "rlnSgdWriteEverySubset", "rlnGradEmIters", "rlnGradSubsetOrder", "rlnGradSuspendFinerSamplingIter",
    "rlnGradSuspendLocalSamplingIter", "rlnHelicalNStart", "rlnNrHelicalNStart", "rlnSgdSkipAnneal",
    "rlnHasLargeSizeIncreaseIterationsAgo", "rlnTomoTiltSeriesPixelSizeX", "rlnTomoSubTomosAre2DStacks",
    "rlnTomoFrameCount", "rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ", "rlnParticleNumber", "rlnEERUpsampling",
    "rlnEERGrouping", "rlnPipeLineProcessType", "rlnPipeLineProcessStatus", "rlnPipeLineNodeType", "rlnJobType",
    "rlnPipeLineNodeTypeLabelDepth", "rlnCoarseImageSize", "rlnImageId", "rlnImageIndex", "rlnJoboptionType", "rlnMovieFrameNumber",
    "rlnSelected", "rlnSgdFinalIterations", "rlnSgdInBetweenIterations", "rlnSgdInitialIterations", "rlnSgdMaxSubsets",
    "rlnSgdNextSubset", "rlnSgdSigma2FudgeHalflife", "rlnTomoParticleId",
}  # fmt: skip
_BOOL = {"rlnBlushNoSpectralTrailing", "rlnGradHasConverged", "rlnHelicalKeepTiltPriorFixed", "rlnHelicalSymmetryLocalRefinement",
         "rlnJobIsContinue", "rlnJobIsTomo"}  # fmt: skip
_FLOAT_STARTS = (
    "rlnAngle", "rlnOrigin", "rlnDefocus", "rlnPhaseShift", "rlnCoordinate", "rlnCenteredCoordinate", "rlnCtfBfactor",
    "rlnCtfScale", "rlnCtfMaxResolution", "rlnCtfFigureOfMerit", "rlnCtfAstigmatism", "rlnCtfIceRingDensity",
    "rlnCtfValidationScore",
    "rlnAutopickFigureOfMerit", "rlnNormCorrection", "rlnLogLikeli", "rlnMaxValueProb", "rlnVoltage", "rlnSphericalAberration",
    "rlnAmplitudeContrast", "rlnImagePixelSize", "rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize", "rlnPixelSize",
    "rlnDetectorPixelSize", "rlnMagnification", "rlnMagMat", "rlnBeamTiltX", "rlnBeamTiltY", "rlnTomoTiltSeriesPixelSize",
    "rlnTomoSubtomogram", "rlnHelicalTrackLength", "rlnSigma", "rlnResolution", "rlnAngstromResolution", "rlnSsnr",
    "rlnGoldStandardFsc", "rlnFourierCompleteness", "rlnReferenceSigma2", "rlnReferenceTau2", "rlnClassDistribution",
    "rlnAccuracy", "rlnEstimatedResolution", "rlnOverall", "rlnCurrentResolution", "rlnPaddingFactor", "rlnTau2Fudge",
    "rlnAveragePmax", "rlnGroupScale", "rlnOrientationDistribution", "rlnPsiStep", "rlnOffset", "rlnTiltAngleLimit",
    "rlnParticleDiameter", "rlnMtfValue", "rlnParticleBoxFraction", "rlnFourierShellCorrelation", "rlnClassPriorOffset",
    "rlnBestResolution", "rlnChanges", "rlnMicrographDoseRate", "rlnMicrographPreExposure", "rlnMicrographShift", "rlnAccumMotion",
)  # fmt: skip
_STRING_ENDINGS = (
    "Name", "File", "File1", "File2", "StarFile", "StarFile2", "Label", "Alias", "Metadata", "Scheme", "Image", "Fileroot",
    "NameNoDW", "NameEven", "NameOdd", "PowerSpectrum", "Mask", "Movie", "MapHalf1", "MapHalf2", "SymmetryGroup",
    "FromNode", "ToNode", "EdgeProcess", "Variable", "Value", "Coordinates", "Mask2Name", "Moment1", "Moment2", "Spectrum",
    "MapMasked", "PostprocessedMap", "MovieName", "ReconstructedTomogram", "DirectiveFile", "DeformationType", "DataImag",
    "DataReal", "ReconsResult", "ReconsWeight", "DirectoryDefault", "FilePattern", "HelpText", "MenuOptions", "TomogramDenoised",
    "TomogramHalf1", "TomogramHalf2",
)  # fmt: skip
_VECTORS = {"rlnOddZernike", "rlnEvenZernike", "rlnTomoVisibleFrames", "rlnTomoProjX", "rlnTomoProjY", "rlnTomoProjZ",
            "rlnTomoProjW", "rlnTomoDeformationCoefficients"}  # fmt: skip
_NOT_STRINGS = {"rlnMtfValue", "rlnSigmaPriorMask", "rlnParticleBoxFractionSolventMask"}


def label_kind(label: str) -> str:
    """Type of a label without its underscore.

    Returns
    -------
    str
        ``int``, ``bool``, ``float``, ``string``, ``vector``, or ``unknown`` (then the text decides).
    """
    if label in _VECTORS:
        return "vector"
    if label in _INT:
        return "int"
    if not label.startswith("rln"):
        return "unknown"
    if label in _BOOL or label.startswith(("rlnDo", "rlnIs", "rlnHas", "rlnCtfDataAre", "rlnRefsAre", "rlnFix", "rlnIgnore")):
        return "bool"
    if label.endswith(_STRING_ENDINGS) and label not in _NOT_STRINGS:
        return "string"
    return "float" if label.startswith(_FLOAT_STARTS) else "unknown"
