"""Simulated molecules and particles with known truth: for tests, teaching and first steps without data.

Images are Fourier sums over atoms on a doubled field of view, never slices of a map, so they judge the projection room
instead of repeating it. The truth stays beside the data in ``true_*`` columns. Nothing here estimates anything.
"""

from cryotk.simulate.density import volume
from cryotk.simulate.molecules import Molecule, molecule
from cryotk.simulate.particle_set import example, particles, with_true_poses
from cryotk.simulate.plan import JUNK_KINDS, ParticleSettings

__all__ = [
    "JUNK_KINDS",
    "Molecule",
    "ParticleSettings",
    "example",
    "molecule",
    "particles",
    "volume",
    "with_true_poses",
]
