"""Real particles of beta-galactosidase: odd and even ones agree only with the right angles, offsets and CTFs."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import cryotk as ctk

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def posed(shared):
    return ctk.open_particles(shared / "data/relion5_spa_betagal/derived/particles_posed.star")


def _fsc(particles: xr.Dataset, symmetry: str = "D2") -> xr.DataArray:
    odd, even = (ctk.reconstruct(particles.isel(particle=slice(k, None, 2)), symmetry=symmetry) for k in (0, 1))
    k = np.arange(64) - 32
    r = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    # nothing beyond 26 px, a raised cosine of 5 px within. A plain nearest-neighbour reconstruction has 0.72, 0.69, 0.27 at 14.2, 10.3
    # and 7.6 Å with this mask, this one 0.79, 0.75, 0.39; with a hard edge 0.66, 0.61, 0.22 and 0.74, 0.69, 0.32
    mask = 0.5 - 0.5 * np.cos(np.pi * np.clip((26 - r) / 5, 0, 1))
    return ctk.fsc(odd, even, odd.copy(data=mask.astype(np.float32)))


def _at(curve: xr.DataArray, resolution: float) -> float:
    return float(curve[round(64 * 3.54 / resolution)])


def test_right(posed):
    curve = _fsc(posed)
    assert _at(curve, 22.7) > 0.94
    assert _at(curve, 14.2) >= 0.77
    assert _at(curve, 10.3) >= 0.73
    assert _at(curve, 7.6) >= 0.36


def test_without_symmetry(posed):
    curve = _fsc(posed, "C1")
    assert 0.7 < _at(curve, 22.7) < 0.9
    assert _at(curve, 7.6) < 0.15


def test_shuffled_angles(posed):
    order = np.random.default_rng(0).permutation(posed.sizes["particle"])
    names = ("angle_rot", "angle_tilt", "angle_psi")
    curve = _fsc(posed.assign({n: ("particle", posed[n].values[order]) for n in names}))
    assert float(curve[8:].max()) < 0.3  # beyond 28 Å
    assert abs(float(curve[12:].mean())) < 0.05


def test_without_origins(posed):
    curve = _fsc(posed.assign(shift_x=0 * posed.shift_x, shift_y=0 * posed.shift_y))
    assert abs(float(curve[10:].mean())) < 0.1 and float(curve[10:].max()) < 0.3


def test_origins_with_wrong_sign(posed):
    curve = _fsc(posed.assign(shift_x=-posed.shift_x, shift_y=-posed.shift_y))
    assert float(curve[6:].max()) < 0.45 and float(curve[9:].max()) < 0.3 and abs(float(curve[6:].mean())) < 0.1  # beyond 38, 25 Å


def test_wrong_ctf(posed, shared):
    bad = ctk.open_particles(shared / "data/relion5_spa_betagal/Extract/job009/particles.star", images=False)
    row = {name: i for i, name in enumerate(bad.image_name.values)}
    index = [row[name] for name in posed.image_name.values]
    names = ("defocus_u", "defocus_v", "defocus_angle")
    curve = _fsc(posed.assign({n: ("particle", bad[n].values[index]) for n in names}))
    assert _at(curve, 14.2) < 0.45
    assert abs(float(curve[20:].mean())) < 0.1
