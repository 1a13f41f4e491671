"""The expectation step: scores, posterior, sums for the maximisation, one block of images at a time.

No files, no threads, no schedule.
"""

from cryotk.likelihood.expectation import ExpectationOptions, ExpectationStep
from cryotk.likelihood.lattice import Lattice
from cryotk.likelihood.prepare import Block, ImagePreparation, ParticleColumns, particle_mask
from cryotk.likelihood.sampling import Sampling
from cryotk.likelihood.sums import Sums

__all__ = [
    "Block",
    "ExpectationOptions",
    "ExpectationStep",
    "ImagePreparation",
    "Lattice",
    "ParticleColumns",
    "Sampling",
    "Sums",
    "particle_mask",
]
