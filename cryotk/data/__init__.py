"""What a user holds: particles, stacks, volumes, iterations, as xarray objects and small dataclasses.

Only pixels are lazy; tables are eager. No mathematics of the field, nothing that draws.
"""

from cryotk.data.particles import concat, image_source, open_particles, optics_groups, select_particles
from cryotk.data.refinement import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.data.source import ArraySource, ImageSource, StackSource

__all__ = [
    "ArraySource",
    "Convergence",
    "ImageSource",
    "Iteration",
    "RefinementModel",
    "SamplingSettings",
    "StackSource",
    "concat",
    "image_source",
    "open_particles",
    "optics_groups",
    "select_particles",
]
