"""Fourier shell correlations and Guinier points of jobs and their files: what figures are drawn of."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import DataError, DataWarning, FileFormatError, MissingFileError, SettingsError
from cryotk.maps.curves import last_shell_above

__all__ = ["CURVES", "Curves", "crossing", "curves_of", "fitted_points", "named_jobs"]

CURVES = ("unmasked", "masked", "randomised", "corrected")
_FSC = "rlnFourierShellCorrelation"


@dataclass
class Curves:
    """FSCs of one job over its shells."""

    curves: dict[str, np.ndarray]
    frequency: np.ndarray

    @property
    def best(self) -> str:
        """Name of the curve that is reported."""
        return "corrected" if "corrected" in self.curves else next(iter(self.curves))


def _of_table(fsc: Any) -> Curves:
    frequency = np.asarray(fsc["frequency"].values, float)
    if hasattr(fsc, "data_vars"):
        known = {k: np.asarray(fsc[k].values, float) for k in CURVES if k in fsc}
        if "masked" not in known:
            # without a mask the corrected curve is the unmasked one
            known.pop("corrected", None)
        return Curves(known or {str(k): np.asarray(v.values, float) for k, v in fsc.data_vars.items()}, frequency)
    return Curves({"FSC": np.asarray(fsc.values, float)}, frequency)


def _of_model(model: Any) -> Curves:
    fsc = np.asarray(model.gold_standard_fsc, float)
    frequency = np.arange(fsc.shape[-1]) / (model.box_size * model.pixel_size)
    if not fsc.any():
        raise DataError(
            "this refinement has no half-sets, so there is no FSC; data_vs_prior tells its resolution: plots.data_vs_prior"
        )
    if len(fsc) == 1:
        return Curves({"gold standard": fsc[0]}, frequency)
    return Curves({f"class {k + 1}": c for k, c in enumerate(fsc) if c.any()}, frequency)


def curves_of(source: Any) -> Curves:
    """FSCs of a result, an iteration, a curve, a file or a job folder.

    Raises
    ------
    DataError, FileFormatError, MissingFileError
    """
    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        if path.is_dir():
            named = [path / "postprocess.star", *sorted(path.glob("*_model.star"))[-1:], path / "fsc.star"]
            found = [p for p in named if p.exists()]
            if not found:
                raise MissingFileError(f"{path} holds neither postprocess.star nor a model file of a refinement nor fsc.star")
            path = found[0]
        return _read(path)
    if hasattr(source, "iterate"):
        source = source.current
    if hasattr(source, "model"):
        return _of_model(source.model)
    if hasattr(source, "gold_standard_fsc"):
        return _of_model(source)
    if hasattr(source, "guinier"):
        return _of_table(source.fsc)
    if hasattr(source, "dims") and "shell" in source.dims:
        return _of_table(source)
    raise DataError(
        f"an FSC is drawn of a post-process result, postprocess.star, _model.star, an Iteration, or what ctk.fsc gives, not of {type(source).__name__}"
    )


def _read(path: Path) -> Curves:
    import cryotk
    from cryotk.io import read_star
    from cryotk.maps import open_postprocess

    if path.suffix != ".star":
        raise FileFormatError(f"{path}: FSCs are read from postprocess.star, _model.star or fsc.star")
    blocks = read_star(path)
    with warnings.catch_warnings():
        # maps that are not there are not needed
        warnings.simplefilter("ignore", DataWarning)
        if "fsc" in blocks and "general" in blocks:
            return curves_of(open_postprocess(path))
        if "fsc" in blocks:
            return _of_columns(path, blocks["fsc"])
        return curves_of(cryotk.open_iteration(path))


def _of_columns(path: Path, table: Any) -> Curves:
    """The table that ``relion_image_handler --fsc`` prints, and that the curve of ``ctk.fsc`` is saved as."""
    if _FSC not in table or "rlnResolution" not in table:
        raise FileFormatError(f"{path}: table fsc has no columns {_FSC} and rlnResolution; it has {', '.join(table.columns)}")
    frequency, curve = (np.atleast_1d(np.asarray(table[label], float)).copy() for label in ("rlnResolution", _FSC))
    if len(frequency) < 2 or (np.diff(frequency) <= 0).any():
        raise FileFormatError(f"{path}: its resolutions do not grow from row to row: a file of one curve is drawn")
    if table.get("rlnSpectralIndex", [1])[0] == 0:
        # files say 999 Å for infinity
        frequency[0] = 0.0
    return Curves({"FSC": curve}, frequency)


def named_jobs(results: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Results under their names: those that the user gives; folders of paths; otherwise ``job 1``, ``job 2`` by their place.

    Raises
    ------
    SettingsError
        When the user gives one name twice.
    """
    given: list[tuple[str, Any]] = []
    for i, r in enumerate(results):
        if isinstance(r, Mapping) and not hasattr(r, "dims"):
            given += [(str(k), v) for k, v in r.items()]
        else:
            given.append(("", (i + 1, r)))
    given += [(str(k), v) for k, v in named.items()]
    theirs = [name for name, _ in given if name]
    twice = next((n for n in theirs if theirs.count(n) > 1), None)
    if twice is not None:
        raise SettingsError(f"two results are called {twice!r}: give each its own name")
    files = [_file_of(v[1]) for name, v in given if not name]
    folders = [_folder(f) for f in files if f is not None]
    jobs: dict[str, Any] = {}
    for name, value in given:
        if name:
            jobs[name] = value
            continue
        number, result = value
        file = _file_of(result)
        own = f"job {number}" if file is None else _folder(file)
        if file is not None and folders.count(own) > 1 and file.suffix:
            own = f"{own}/{file.stem}"
        free, n = own, 1
        while free in jobs or free in theirs:
            n += 1
            free = f"{own} ({n})"
        jobs[free] = result
    return jobs


def _file_of(result: Any) -> Path | None:
    """The file or folder that a result is, or was read from."""
    source = result if isinstance(result, (str, Path)) else getattr(result, "source", None)
    return Path(source).expanduser() if isinstance(source, (str, Path)) and str(source) else None


def _folder(path: Path) -> str:
    whole = path.resolve()
    return (whole.parent if path.suffix else whole).name


def crossing(curve: np.ndarray, frequency: np.ndarray, level: float = 0.143) -> float:
    """Resolution in Å of the last shell before a curve first falls below a level, as RELION counts; infinite when at once."""
    shell = last_shell_above(np.asarray(curve, float), level)
    return float(1 / frequency[shell]) if shell > 0 and frequency[shell] > 0 else float("inf")



def fitted_points(guinier: Any) -> np.ndarray:
    """1/Å^2 of the points that the line of a Guinier table belongs to.

    From ``fit_from`` to ``fit_to`` (attrs, Å) where a fit says so; of files that do not, all points weighted by the FSC.
    """
    worst, best = guinier.attrs.get("fit_from"), guinier.attrs.get("fit_to")
    if worst and best:
        return np.array([1 / float(worst) ** 2, 1 / float(best) ** 2])
    x = np.asarray(guinier["inverse_resolution_squared"].values, float)
    used = x > 0
    if "weighted" in guinier:
        y = np.asarray(guinier["weighted"].values, float)
        used &= np.isfinite(y) & (y > -90)
    return x[used]
