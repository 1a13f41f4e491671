"""What the projection tests share."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryotk.fourier import shell_index


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square of the difference over that of the reference."""
    return float(np.linalg.norm(np.asarray(a, float) - b) / np.linalg.norm(np.asarray(b, float)))


def read(path: Path) -> np.ndarray:
    with mrcfile.open(path, permissive=True) as f:
        return np.array(f.data)


def amplitude_per_shell(volume: np.ndarray) -> np.ndarray:
    """Root mean square amplitude of the transform divided by the number of voxels, to Nyquist; plain numpy."""
    n = volume.shape[0]
    f = np.abs(np.fft.fftn(np.asarray(volume, float)) / n**3)[..., : n // 2 + 1] ** 2
    shell = shell_index(n, 3)
    twice = np.full(f.shape, 2.0)
    twice[..., [0, n // 2]] = 1
    total = np.bincount(shell.ravel(), (twice * f).ravel()) / np.bincount(shell.ravel(), twice.ravel())
    return np.sqrt(total[: n // 2 + 1])


@pytest.fixture(scope="session")
def helpers():
    class Helpers:
        pass

    Helpers.relative, Helpers.read, Helpers.amplitude_per_shell = map(staticmethod, (relative, read, amplitude_per_shell))
    return Helpers
