"""Files in and out: STAR, MRC, RELION's particle tables and results, cryoSPARC's particles.

Readers are tolerant of what real files contain and name the line of what they cannot read; writers are atomic and give RELION's own
bytes. What is read becomes plain tables (``StarBlock``) and numpy arrays in RELION's labels; the room ``data`` makes
Datasets of them.
No mathematics of the field, no xarray graphs, nothing that stays open.
"""

from cryotk.io.atomic import atomic_file, atomic_write
from cryotk.io.cryosparc import read_cs
from cryotk.io.mrc import MrcHeader, read_header, read_images, read_mrc, write_mrc
from cryotk.io.star import StarBlock, read_star, write_star

__all__ = [
    "MrcHeader",
    "StarBlock",
    "atomic_file",
    "atomic_write",
    "read_cs",
    "read_header",
    "read_images",
    "read_mrc",
    "read_star",
    "write_mrc",
    "write_star",
]
