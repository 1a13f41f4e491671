"""RELION's refinement results as iterations: :func:`open_iteration`, :func:`open_sampling`; writing is in ``relion_write``."""

from __future__ import annotations

import warnings
from pathlib import Path

from cryotk.data.refinement import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.errors import DataWarning
from cryotk.io.relion_read import read_iteration, read_sampling

__all__ = ["open_iteration", "open_sampling"]


def open_iteration(path: str | Path) -> Iteration:
    """Open an iteration of RELION (1.4 to 5) from its optimiser or model file.

    Class2D, Class3D, InitialModel and Refine3D; of two half-sets the second one's model is ``half2``. Images are not read, only
    maps.

    Parameters
    ----------
    path : path
        ``run_itNNN_optimiser.star`` or ``run_itNNN_model.star``. Files that it names are looked for relative to its
        folder, to every folder above (the project is one), and beside it.

    Returns
    -------
    Iteration
        ``number`` is -1 for the files of a converged refinement. Missing maps become zeros and a missing data or
        sampling file leaves its part at the defaults, maps with a warning. ``optimiser`` keeps all entries of the file.
        ``assignments`` has the rows of the data file in its order; its ``attrs["source"]`` is that file.

    Raises
    ------
    MissingFileError
        No such file, or no model file where the optimiser says.
    FileFormatError
        Not an optimiser or model file, with what it is.

    Examples
    --------
    >>> it = open_iteration("Class2D/job010/run_it025_optimiser.star")  # doctest: +SKIP
    >>> it.classes.sel(class_number=3)  # doctest: +SKIP
    """
    import xarray as xr

    parts = read_iteration(path)
    missing = parts["missing"]
    if missing:
        warnings.warn(
            f"{path}: {len(missing)} of {len(parts['model']['references'])} reference maps are not there "
            f"(first: {missing[0]}); they are empty here",
            DataWarning,
            stacklevel=2,
        )
    model = RefinementModel(**parts["model"])
    sampling = SamplingSettings(is_3d=model.is_3d) if parts["sampling"] is None else SamplingSettings(**parts["sampling"])
    convergence = Convergence() if parts["convergence"] is None else Convergence(**parts["convergence"])
    units = parts["units"]
    assignments = xr.Dataset({
        name: ("particle", values, {"units": units[name]} if name in units else {}) for name, values in parts["assignments"].items()
    })  # fmt: skip
    if "data" in parts["files"]:
        assignments.attrs["source"] = str(parts["files"]["data"])
    numbers = _numbers(model, convergence if parts["convergence"] is not None else None)
    if "n_significant" in assignments and assignments.sizes["particle"]:
        numbers["mean_significant"] = float(assignments["n_significant"].mean())
    half2 = None if parts["half2"] is None else RefinementModel(**parts["half2"])
    return Iteration(
        parts["number"], model, sampling, convergence, assignments, numbers, str(path), None, optimiser=parts["optimiser"],
        half2=half2,
    )  # fmt: skip


def _numbers(model: RefinementModel, convergence: Convergence | None) -> dict[str, float]:
    out = {
        "resolution": model.current_resolution, "image_size": float(model.current_size), "average_p_max": model.average_p_max,
        "sigma_offset": model.sigma_offset, "log_likelihood": model.log_likelihood,
    }  # fmt: skip
    if convergence is not None:
        out |= {
            "changes_class": convergence.changes_class, "changes_orientation": convergence.changes_orientation,
            "changes_offset": convergence.changes_offset, "accuracy_rotation": convergence.accuracy_rotation,
            "accuracy_translation": convergence.accuracy_translation,
        }  # fmt: skip
    return out


def open_sampling(path: str | Path, offset_unit: float = 1.0) -> SamplingSettings:
    """Open a ``_sampling.star`` file.

    Parameters
    ----------
    path : path
    offset_unit : float
        Å per unit of the file's offsets: 1 (RELION 3.1 and newer), or the pixel size.
    """
    return SamplingSettings(**read_sampling(path, offset_unit))
