"""What a user holds: particles, stacks, volumes, iterations, as xarray objects and small dataclasses.

Only pixels are lazy; tables are eager. All pixels come through :class:`ImageSource`: dask arrays and the engine read
by the same door,
and no open file or memory map sits in a graph. The ``.cryo`` accessor carries what the field does to these objects.
No mathematics of the field, nothing that draws.
"""

from cryotk.data.accessor import ArrayAccessor, ParticleAccessor
from cryotk.data.checks import Report
from cryotk.data.combine import concat, select_particles
from cryotk.data.particles import image_names, image_source, open_particles, optics_groups
from cryotk.data.refinement import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.data.source import ArraySource, ImageSource, StackSource, read_ahead
from cryotk.data.volumes import as_volume, open_stack, open_volume, pixel_size_of, write_stack, write_volume
from cryotk.io.particle_tables import write_particles

__all__ = [
    "ArrayAccessor",
    "ArraySource",
    "Convergence",
    "ImageSource",
    "Iteration",
    "ParticleAccessor",
    "RefinementModel",
    "Report",
    "SamplingSettings",
    "StackSource",
    "as_volume",
    "concat",
    "image_names",
    "image_source",
    "open_particles",
    "open_stack",
    "open_volume",
    "optics_groups",
    "pixel_size_of",
    "read_ahead",
    "select_particles",
    "write_particles",
    "write_stack",
    "write_volume",
]
