"""Detector curves at an image's frequencies."""

from __future__ import annotations

import numpy as np
import pytest

from cryotk.errors import DataError
from cryotk.io.star import read_star
from cryotk.optics import modulation_transfer

X, Y = np.linspace(0, 0.5, 6), np.array([1, 0.9, 0.8, 0.6, 0.5, 0.35])


def test_interpolates_at_the_detectors_pixel():
    # 0.15 / px of a 0.8 Å detector is 0.1875 / Å
    assert modulation_transfer(X, Y, 0.8, np.array([0.1875]))[0] == pytest.approx(0.85)
    assert np.allclose(modulation_transfer(X, Y, 0.8, X / 0.8), Y)
    assert modulation_transfer(X, Y, 0.8, np.array([[0.6, 0.8]]))[0] == pytest.approx(0.35)  # beyond the end
    assert modulation_transfer(X, Y, 1.0, np.array([[0.12, -0.16]]))[0] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [([], [], "one at least"), ([0, 0.2, 0.1], [1, 1, 1], "row 3"), ([0, 0.1], [1, 0], "row 2 is 0"), ([0, 0.1], [1], "as many")],
)
def test_bad_curves(x, y, message):
    with pytest.raises(DataError, match=message):
        modulation_transfer(x, y, 1.0, np.array([0.1]))


def test_real_curve(shared):
    block = next(iter(read_star(shared / "data/relion5_spa_betagal/mtf_k2_200kV.star").values()))
    curve = modulation_transfer(
        block.columns["rlnResolutionInversePixel"], block.columns["rlnMtfValue"], 0.885, np.linspace(0, 0.5, 20)
    )
    assert curve[0] > 0.95 and np.all(np.diff(curve) < 1e-3) and curve.min() > 0
