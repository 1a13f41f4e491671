"""``xarray.open_dataset("particles.star", engine="cryotk")``."""

from __future__ import annotations

import os
from typing import Any

from xarray.backends import BackendEntrypoint

__all__ = ["CryotkBackend"]


class CryotkBackend(BackendEntrypoint):
    """Opens particle STAR files as :func:`cryotk.open_particles` does."""

    description = "Particle STAR files of RELION"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "project_dir")

    def open_dataset(self, filename_or_obj: Any, *, drop_variables: Any = None, project_dir: Any = None) -> Any:
        """Open a particle set."""
        from cryotk.data.particles import open_particles

        ds = open_particles(filename_or_obj, project_dir)
        return ds.drop_vars(drop_variables) if drop_variables else ds

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """STAR files."""
        return isinstance(filename_or_obj, (str, os.PathLike)) and os.fspath(filename_or_obj).endswith(".star")
