"""Post-process, masks, local resolution, map handling: functions on half-maps and volumes, each with a result object.

They take paths or volumes, check them first, and work on the array module of the input. Nothing here draws; ``.plot()`` asks
``cryotk_widgets``. No particles, no iterations.
"""

from cryotk.maps.curves import GuinierFit, correct_for_mask, fit_guinier, fsc_weights, particle_fsc
from cryotk.maps.mask import MaskResult, create_mask, crown_mask, soft_mask
from cryotk.maps.postprocess import postprocess
from cryotk.maps.postprocess_files import open_postprocess
from cryotk.maps.postprocess_result import PostprocessResult
from cryotk.maps.threshold import SuggestedThreshold, suggest_threshold

__all__ = [
    "GuinierFit",
    "MaskResult",
    "PostprocessResult",
    "SuggestedThreshold",
    "correct_for_mask",
    "create_mask",
    "crown_mask",
    "fit_guinier",
    "fsc_weights",
    "open_postprocess",
    "particle_fsc",
    "postprocess",
    "soft_mask",
    "suggest_threshold",
]
