"""The forward model and its inverse: slices out of and into Fourier volumes, Wiener reconstruction, ``predict``.

One implementation serves likelihood, CTF refinement, polishing, subtraction and tilt images. No particles' bookkeeping,
no statistics of poses.
"""

from cryotk.projection.disk import DiskAccumulator, scratch_folder
from cryotk.projection.predict import group_transform, predict
from cryotk.projection.reconstruction import (
    Accumulator,
    ShellStatistics,
    inverse_transform,
    shell_statistics,
    wiener_reconstruct,
)
from cryotk.projection.reference import FourierReference

__all__ = [
    "Accumulator",
    "DiskAccumulator",
    "FourierReference",
    "ShellStatistics",
    "group_transform",
    "inverse_transform",
    "predict",
    "scratch_folder",
    "shell_statistics",
    "wiener_reconstruct",
]
