"""Equivalent poses of a point group as particles of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data import open_particles, select_particles
from cryotk.errors import DataError
from cryotk.geometry import euler_to_matrix, matrix_to_euler, symmetry_operators

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["symmetry_expand"]

_ANGLES = ("angle_rot", "angle_tilt", "angle_psi")


def symmetry_expand(particles: Any, symmetry: str) -> xr.Dataset:
    """Repeat every particle at each of its equivalent poses, to look at one subunit at a time.

    Refine or classify the result in C1 with local searches or without alignment; images and offsets are those of the particle.
    Half-sets stay: all copies of a particle are in its own half.

    Parameters
    ----------
    particles : Dataset or path
        Refined with ``symmetry``.
    symmetry : str
        Point group, e.g. ``"D2"``.

    Returns
    -------
    Dataset
        ``n * order`` particles, the copies of one together; ``symmetry_operator`` (0 is the pose itself) says which it is.
        Images stay lazy.

    Raises
    ------
    DataError
        When particles have no angles.

    Examples
    --------
    >>> expanded = symmetry_expand("run_data.star", "D2")  # doctest: +SKIP

    References
    ----------
    RELION's ``relion_particle_symmetry_expand``; Zhou et al. (2015) Cell Res. 25, 1342.
    """
    table = open_particles(particles)
    missing = [name for name in _ANGLES if name not in table]
    if missing:
        raise DataError(f"the particles have no {', '.join(missing)}: refine them first, then expand")
    operators = symmetry_operators(symmetry)
    n, m = table.sizes["particle"], len(operators)
    poses = euler_to_matrix(*(np.asarray(table[name].values, float) for name in _ANGLES))
    out = select_particles(table, np.repeat(np.arange(n), m))
    angles = matrix_to_euler(poses[:, None] @ operators[None])
    # the pose itself keeps its digits
    angles[:, 0] = np.stack([np.asarray(table[name].values, float) for name in _ANGLES], -1)
    new: dict[str, Any] = {
        name: ("particle", angles[..., i].reshape(-1), dict(table[name].attrs)) for i, name in enumerate(_ANGLES)
    }
    return out.assign(new | {"symmetry_operator": ("particle", np.tile(np.arange(m), n))})
