"""Post-process, masks, local resolution, map handling: functions on half-maps and volumes, each with a result object.

They take paths or volumes, check them first, and work on the array module of the input. Nothing here draws; ``.plot()`` asks
``cryotk_widgets``. No particles, no iterations.
"""

from cryotk.maps.curves import GuinierFit, correct_for_mask, fit_guinier, fsc_weights, particle_fsc
from cryotk.maps.fsc import fsc
from cryotk.maps.handling import (
    apply_b_factor,
    center_of_mass,
    flip,
    highpass,
    lowpass,
    map_statistics,
    randomise_phases,
    rebox,
    rescale,
    shift,
    shift_to_center_of_mass,
)
from cryotk.maps.local_resolution import local_resolution
from cryotk.maps.local_result import LocalResolutionResult
from cryotk.maps.mask import MaskResult, create_mask, crown_mask, soft_mask
from cryotk.maps.postprocess import postprocess
from cryotk.maps.postprocess_files import open_postprocess
from cryotk.maps.postprocess_result import PostprocessResult
from cryotk.maps.symmetry import AlignedMap, align_symmetry, rotate, symmetrise
from cryotk.maps.threshold import SuggestedThreshold, suggest_threshold

__all__ = [
    "AlignedMap",
    "GuinierFit",
    "LocalResolutionResult",
    "MaskResult",
    "PostprocessResult",
    "SuggestedThreshold",
    "align_symmetry",
    "apply_b_factor",
    "center_of_mass",
    "correct_for_mask",
    "create_mask",
    "crown_mask",
    "fit_guinier",
    "flip",
    "fsc",
    "fsc_weights",
    "highpass",
    "local_resolution",
    "lowpass",
    "map_statistics",
    "open_postprocess",
    "particle_fsc",
    "postprocess",
    "randomise_phases",
    "rebox",
    "rescale",
    "rotate",
    "shift",
    "shift_to_center_of_mass",
    "soft_mask",
    "suggest_threshold",
    "symmetrise",
]
