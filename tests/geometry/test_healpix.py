"""Our HEALPix against astropy-healpix."""

from __future__ import annotations

import numpy as np
import pytest

from cryotk.geometry import healpix


@pytest.mark.parametrize("order", range(7))
def test_against_astropy(order):
    units = pytest.importorskip("astropy.units")
    grid = pytest.importorskip("astropy_healpix").HEALPix(2**order, order="nested")
    pixel = np.arange(healpix.n_pixels(order))
    assert len(pixel) == grid.npix
    lon, lat = grid.healpix_to_lonlat(pixel)
    rot, tilt = healpix.pixel_to_angles(order, pixel)
    assert np.abs((lon.deg - rot + 180) % 360 - 180).max() < 1e-10
    assert np.abs(90 - lat.deg - tilt).max() < 1e-10
    assert rot.min() > -180 and rot.max() <= 180

    rng = np.random.default_rng(order)
    r, t = rng.uniform(-180, 180, 5000), np.degrees(np.arccos(rng.uniform(-1, 1, 5000)))
    assert np.array_equal(healpix.angles_to_pixel(order, r, t), grid.lonlat_to_healpix(r * units.deg, (90 - t) * units.deg))


@pytest.mark.parametrize("order", range(6))
def test_round_trip(order):
    pixel = np.arange(healpix.n_pixels(order))
    assert np.array_equal(healpix.angles_to_pixel(order, *healpix.pixel_to_angles(order, pixel)), pixel)


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_children_lie_in_their_parent(levels):
    order = 2
    pixel = np.arange(healpix.n_pixels(order))
    inner = healpix.children(order, pixel, levels)
    assert inner.shape == (len(pixel), 4**levels)
    assert np.array_equal(np.sort(inner.ravel()), np.arange(healpix.n_pixels(order + levels)))
    rot, tilt = healpix.pixel_to_angles(order + levels, inner)
    assert np.array_equal(healpix.angles_to_pixel(order, rot, tilt), np.broadcast_to(pixel[:, None], inner.shape))


def test_children_order():
    """Inside a face, x runs fastest: NEST bits 0, 1, 2, 3 are (x, y) = (0, 0), (1, 0), (0, 1), (1, 1)."""
    assert healpix.children(0, 0, 1).tolist() == [0, 1, 2, 3]
    assert healpix.children(0, 0, 2)[:4].tolist() == [0, 1, 4, 5]
