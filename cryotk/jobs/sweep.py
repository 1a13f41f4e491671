"""The same job with several values of some settings, side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data import open_particles, select_particles
from cryotk.errors import SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from cryotk.jobs.iterative import IterativeJob

__all__ = ["Sweep", "sweep"]


class Sweep:
    """Jobs that differ in some settings; see :func:`sweep`.

    Indexing and iteration give the jobs in the order of :attr:`variants`.
    """

    def __init__(self, jobs: list[IterativeJob], variants: list[dict[str, Any]]) -> None:
        self.jobs, self.variants = jobs, variants

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> IterativeJob:
        return self.jobs[index]

    def __iter__(self) -> Iterator[IterativeJob]:
        return iter(self.jobs)

    def run(self, until: int | None = None, *, progress: bool = True) -> Sweep:
        """Run the jobs one after the other; an interrupt ends the one under way and those after it."""
        for job in self.jobs:
            job.run(until, progress=progress)
            if job._stop.is_set():
                break
        return self

    def save(self, directory: Any) -> None:
        """Save every job in a folder of its own, named after its settings."""
        from pathlib import Path

        for job, variant in zip(self.jobs, self.variants, strict=True):
            name = "_".join(f"{k}-{v}" for k, v in variant.items())
            job.save(Path(directory) / name.replace("/", "-").replace(" ", ""))

    @property
    def table(self) -> pd.DataFrame:
        """Settings that differ, and the last numbers of each job."""
        import pandas as pd

        rows = []
        for job, variant in zip(self.jobs, self.variants, strict=True):
            row: dict[str, Any] = {k: str(v) if isinstance(v, (list, dict)) else v for k, v in variant.items()}
            row["iteration"] = job.iteration
            if job.iterations:
                it = job.iterations[-1]
                for name in ("resolution", "average_p_max", "changes_class", "accuracy_rotation", "log_likelihood", "seconds"):
                    row[name] = it.numbers.get(name, np.nan)
                row["largest_class"] = float(np.max(it.model.class_distribution))
            rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        names = ", ".join(self.variants[0]) if self.variants else ""
        kind = type(self.jobs[0]).__name__
        return f"<Sweep: {len(self.jobs)} {kind} over {names}>\n{self.table.to_string(index=False)}"

    def _repr_html_(self) -> str:
        kind = type(self.jobs[0]).__name__
        return f"<div><b>{len(self.jobs)} {escape(kind)}</b>{self.table.to_html(index=False, float_format='%.4g')}</div>"


def sweep(
    job_type: type[IterativeJob], particles: Any, *arguments: Any, subset: int | None = None, run: bool = True,
    until: int | None = None, progress: bool = True, seed: int | Sequence[int] = 0, **settings: Any,
) -> Sweep:
    """Run a job with every combination of the settings that are given as lists.

    Parameters
    ----------
    job_type : type
        :class:`Class2D`, :class:`Class3D`, ...
    particles : Dataset or path
    *arguments
        What the job takes next, e.g. references.
    subset : int, optional
        Use so many random particles, the same for all.
    run : bool
        Run now; else call :meth:`Sweep.run`, or each job's own.
    until : int, optional
        Last iteration; each job's own by default.
    seed : int or list of int
        Of the subset and of the jobs, so that only the settings differ; of a list the first is the subset's, and the jobs' are varied.
    **settings
        Lists (tuples, ranges, arrays) are varied, everything else is the same for all.

    Returns
    -------
    Sweep

    Examples
    --------
    >>> s = sweep(Class3D, particles, "map.mrc", n_classes=4, tau2_fudge=[1, 2, 4], subset=5000)  # doctest: +SKIP
    """
    settings["seed"] = np.asarray(seed).tolist()
    varied = {k: v for k, v in ((k, _values(v)) for k, v in settings.items()) if v is not None}
    if not varied:
        raise SettingsError("nothing to vary: give at least one setting as a list, e.g. tau2_fudge=[1, 2, 4]")
    empty = [k for k, v in varied.items() if not v]
    if empty:
        raise SettingsError(f"{empty[0]} is an empty list: give the values to try")
    first = int(np.atleast_1d(seed)[0])
    opened = open_particles(particles)
    n = opened.sizes["particle"]
    if subset is not None and subset < n:
        if subset < 1:
            raise SettingsError(f"subset = {subset}: use at least one particle")
        opened = select_particles(opened, np.sort(np.random.default_rng(first).permutation(n)[:subset]))
    variants = [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]
    make: Any = job_type
    fixed = {k: v for k, v in settings.items() if k not in varied}
    jobs = [make(opened, *arguments, **(fixed | variant)) for variant in variants]
    out = Sweep(jobs, variants)
    return out.run(until, progress=progress) if run else out


def _values(setting: Any) -> list[Any] | None:
    """Values to try; None for a setting that is the same for all, such as the array of a map."""
    if isinstance(setting, np.ndarray):
        return setting.tolist() if setting.ndim == 1 else None
    return list(setting) if isinstance(setting, (list, tuple, range)) else None
