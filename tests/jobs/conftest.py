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
def write_project():
    """Function that writes simulated particles as one stack and a STAR file, below a folder that is their project."""

    def write(made, project, below="."):
        folder = project / below
        folder.mkdir(parents=True, exist_ok=True)
        ctk.write_stack(made.images.values, folder / "stack.mrcs", float(made.pixel_size.values[0]))
        inside = (folder / "stack.mrcs").relative_to(project).as_posix()
        names = np.array([f"{i + 1:06d}@{inside}" for i in range(made.sizes["particle"])], object)
        named = made.assign(image_name=xr.Variable("particle", names, {"relion_label": "rlnImageName"}))
        ctk.write_particles(named, folder / "particles.star")
        return folder / "particles.star"

    return write


@pytest.fixture(scope="session")
def small_star(tmp_path_factory, write_project):
    """Particles without poses, below a project."""
    made = ctk.simulate.particles(N, BOX, PIXEL, snr=0.5, seed=5, progress=False)
    return write_project(made, tmp_path_factory.mktemp("small"), "Extract")


@pytest.fixture(scope="session")
def small_posed(small_star):
    """The same with their true poses."""
    particles = ctk.open_particles(small_star)
    true = {f"angle_{x}": ("particle", particles[f"true_angle_{x}"].values) for x in ("rot", "tilt", "psi")}
    return particles.assign(true | {f"shift_{x}": ("particle", particles[f"true_shift_{x}"].values) for x in ("x", "y")})
