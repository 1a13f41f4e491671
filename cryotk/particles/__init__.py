"""Particle tables in, particle tables out: what is done to a set without looking at its pixels.

Nothing here reads images, refines or draws; pixels stay lazy behind the tables.
"""

from cryotk.particles.symmetry import symmetry_expand

__all__ = ["symmetry_expand"]
