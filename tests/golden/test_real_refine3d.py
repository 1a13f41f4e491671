"""Real particles of beta-galactosidase refined without their angles: the deposited ones come back."""

from __future__ import annotations

import numpy as np
import pytest

import cryotk as ctk
from cryotk.fourier import lowpass
from cryotk.geometry import euler_to_matrix, symmetry_operators

pytestmark = [pytest.mark.golden, pytest.mark.slow]

ANGLES = ("angle_rot", "angle_tilt", "angle_psi")


def test_the_deposited_angles_come_back(shared):
    posed = ctk.open_particles(shared / "data/relion5_spa_betagal/derived/particles_posed.star")
    known = ctk.reconstruct(posed, "D2", progress=False)
    start = known.copy(data=lowpass(known.values.astype(float), 3.54, 40).astype(np.float32))
    nothing = np.zeros(posed.sizes["particle"])
    blind = posed.assign(dict.fromkeys((*ANGLES, "shift_x", "shift_y"), ("particle", nothing)))
    job = ctk.Refine3D(blind, start, "D2", mask_diameter=200, initial_lowpass=40, seed=1)
    job.run(progress=False)
    assert job.converged
    # without a mask, and Nyquist is 7.08
    assert job.resolution < 9.0
    a, b = (euler_to_matrix(*(np.asarray(t[name].values, float) for name in ANGLES)) for t in (job.assignments, posed))
    trace = np.max([np.einsum("nij,nij->n", a, b @ o) for o in symmetry_operators("D2")], 0)
    distance = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    # half the finest step of RELION's own refinement to 10 Å; the deposited angles are of a 2.8 Å map
    assert np.median(distance) < 2.0
