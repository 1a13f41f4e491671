"""Half-maps and masks that the tests of maps share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cryotk.data import as_volume
from cryotk.fourier import filter_map


@pytest.fixture(scope="session")
def reference(shared) -> Path:
    return shared / "reference"


@pytest.fixture(scope="session")
def half1(reference) -> Path:
    return reference / "refine3d/run_half1_class001_unfil.mrc"


@pytest.fixture(scope="session")
def mask(reference) -> Path:
    return reference / "postprocess/mask.mrc"


def ball(n: int, radius: float, edge: float = 4.0) -> np.ndarray:
    """Soft ball, float32."""
    k = np.arange(n) - n // 2
    r = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    return (0.5 + 0.5 * np.cos(np.pi * np.clip((r - radius) / edge, 0, 1))).astype(np.float32)


def half_maps(n: int = 48, pixel_size: float = 2.0, noise: float = 1.0, damping: float = 60.0, seed: int = 0) -> SimpleNamespace:
    """Two noisy maps of one signal inside a ball; the signal falls off, so that it is lost towards Nyquist."""
    rng = np.random.default_rng(seed)
    inside = ball(n, n / 4, 3)
    signal = rng.normal(size=(n, n, n)) * inside
    signal = filter_map(signal, pixel_size, b_factor=damping) * inside
    signal /= signal.std()
    one, two = (as_volume((signal + noise * rng.normal(size=(n, n, n))).astype(np.float32), pixel_size) for _ in range(2))
    return SimpleNamespace(one=one, two=two, signal=signal, mask=as_volume(ball(n, n / 4 + 3, 6), pixel_size), n=n, a=pixel_size)


@pytest.fixture(scope="session")
def halves() -> SimpleNamespace:
    return half_maps()
