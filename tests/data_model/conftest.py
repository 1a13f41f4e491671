"""A small project on disk: stacks and STAR files that tests may damage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cryotk.io.mrc import write_mrc
from cryotk.io.star import StarBlock, write_star


@dataclass
class Project:
    """Two stacks of 6 and 4 images and a particle table."""

    root: Path
    pixels: np.ndarray

    @property
    def star(self) -> Path:
        return self.root / "Extract" / "job001" / "particles.star"

    def write(self, **changes) -> Path:
        """Write the table; ``changes`` are columns of particles or optics, None removes one."""
        n = len(self.pixels)
        names = [f"{i + 1:06d}@Extract/job001/a.mrcs" for i in range(6)] + [
            f"{i + 1:06d}@Extract/job001/b.mrcs" for i in range(n - 6)
        ]
        particles = {
            "rlnImageName": np.array(names, object), "rlnMicrographName": np.array(["m1.mrc"] * 6 + ["m2.mrc"] * (n - 6), object),
            "rlnOpticsGroup": np.ones(n, int), "rlnDefocusU": np.linspace(10_000, 15_000, n),
            "rlnDefocusV": np.linspace(9_900, 14_900, n), "rlnDefocusAngle": np.full(n, 30.0), "rlnMyColumn": np.arange(n) * 0.5,
            "myOwnText": np.array([f"t{i}" for i in range(n)], object),
        }  # fmt: skip
        optics = {
            "rlnOpticsGroupName": np.array(["og1"], object), "rlnOpticsGroup": np.array([1]), "rlnVoltage": np.array([300.0]),
            "rlnSphericalAberration": np.array([2.7]), "rlnAmplitudeContrast": np.array([0.1]),
            "rlnImagePixelSize": np.array([3.5]), "rlnImageSize": np.array([16]),
        }  # fmt: skip
        for key, value in changes.items():
            table = optics if key in optics and key not in particles else particles
            if key in ("optics", "particles"):
                if key == "optics":
                    optics = value
                else:
                    particles = value
            elif value is None:
                table.pop(key)
            else:
                table[key] = value
        blocks = {"optics": StarBlock("optics", optics)} if optics else {}
        write_star(self.star, blocks | {"particles": StarBlock("particles", particles)})
        return self.star


@pytest.fixture
def project(tmp_path) -> Project:
    pixels = np.random.default_rng(3).normal(size=(10, 16, 16)).astype(np.float32)
    made = Project(tmp_path / "project", pixels)
    write_mrc(made.root / "Extract/job001/a.mrcs", pixels[:6], 3.5, is_stack=True)
    write_mrc(made.root / "Extract/job001/b.mrcs", pixels[6:], 3.5, is_stack=True)
    made.write()
    return made
