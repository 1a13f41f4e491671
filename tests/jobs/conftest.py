"""A small project that several files of tests share."""

import numpy as np
import pytest
import xarray as xr

import cryotk as ctk

BOX, PIXEL, N = 24, 8.0, 60


@pytest.fixture(scope="session")
def small_map():
    return ctk.simulate.volume(ctk.simulate.molecule(), BOX, PIXEL)


@pytest.fixture(scope="session")
def small_star(tmp_path_factory):
    """Particles without poses, below a project."""
    made = ctk.simulate.particles(N, BOX, PIXEL, snr=0.5, seed=5, progress=False)
    project = tmp_path_factory.mktemp("small")
    (project / "Extract").mkdir()
    ctk.write_stack(made.images.values, project / "Extract" / "stack.mrcs", PIXEL)
    names = np.array([f"{i + 1:06d}@Extract/stack.mrcs" for i in range(N)], object)
    named = made.assign(image_name=xr.Variable("particle", names, {"relion_label": "rlnImageName"}))
    ctk.write_particles(named, project / "Extract" / "particles.star")
    return project / "Extract" / "particles.star"


@pytest.fixture(scope="session")
def small_posed(small_star):
    """The same with their true poses."""
    particles = ctk.open_particles(small_star)
    true = {f"angle_{x}": ("particle", particles[f"true_angle_{x}"].values) for x in ("rot", "tilt", "psi")}
    return particles.assign(true | {f"shift_{x}": ("particle", particles[f"true_shift_{x}"].values) for x in ("x", "y")})
