"""Angles, rotations, point groups, HEALPix directions.

Pure functions of arrays in RELION's conventions: degrees, ZYZ Euler angles, NEST pixels. Nothing here knows images,
files or particles.
"""

from cryotk.geometry import healpix
from cryotk.geometry.euler import angular_distance, euler_to_matrix, matrix_to_euler
from cryotk.geometry.symmetry import directions, parse_symmetry, relaxation_operators, symmetry_operators
from cryotk.geometry.tilts import tilt_rotation

__all__ = [
    "angular_distance",
    "directions",
    "euler_to_matrix",
    "healpix",
    "matrix_to_euler",
    "parse_symmetry",
    "relaxation_operators",
    "symmetry_operators",
    "tilt_rotation",
]
