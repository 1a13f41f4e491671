"""Class2D on disk: RELION's files and one exact checkpoint per iteration; both ways back."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.errors import CheckpointError, SettingsError
from cryotk.execution import checkpoint
from cryotk.io.relion_refinement import open_iteration
from cryotk.io.relion_write import write_iteration
from cryotk.io.star import read_star

if TYPE_CHECKING:
    from cryotk.jobs.class2d import Class2D

__all__ = ["resume_class2d", "write_class2d"]

KIND = "Class2D"


def _plain(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def write_class2d(job: Class2D, directory: Path, iteration: Iteration) -> None:
    """Write one iteration; the checkpoint comes last and makes it count."""
    a, s = iteration.assignments, job.settings
    table = job.particles.drop_vars("images", errors="ignore")
    optimiser = {
        "rlnNumberOfIterations": s.n_iterations, "rlnRandomSeed": s.seed, "rlnParticleDiameter": float(s.mask_diameter),
        "rlnDoZeroMask": s.zero_mask, "rlnHighresLimitExpectation": float(s.resolution_limit or -1.0),
        "rlnTau2FudgeArg": float(s.tau2_fudge), "rlnDoSkipAlign": not s.align, "rlnDoCorrectCtf": s.do_ctf,
        "rlnDoCenterClasses": s.center_classes, "rlnDoIgnoreCtfUntilFirstPeak": s.ctf_intact_first_peak,
    }  # fmt: skip
    project = job.particles.attrs.get("project_dir")
    write_iteration(directory, iteration, particles=table, settings=optimiser, project_dir=project)
    state = {
        "settings": s.model_dump(),
        "number": iteration.number,
        "model": _plain(iteration.model),
        "sampling": _plain(iteration.sampling),
        "convergence": asdict(iteration.convergence),
        "numbers": dict(iteration.numbers),
        "assignments": {str(k): v.values for k, v in a.data_vars.items()},
        "norm": np.asarray(job._norm_of(iteration)),
        "particles": str(job.particles.attrs.get("source", "")),
        "project_dir": str(job.particles.attrs.get("project_dir", "")),
        "n_particles": job.data.n,
    }
    checkpoint.save(directory / f"run_it{iteration.number:03d}.checkpoint", state, KIND)


def _load_iteration(state: dict[str, Any], particles: Any) -> Iteration:
    import xarray as xr

    assignments = xr.Dataset({k: ("particle", v) for k, v in state["assignments"].items()})
    model = RefinementModel(**{k: list(v) if k == "group_names" else v for k, v in state["model"].items()})
    return Iteration(
        int(state["number"]), model, SamplingSettings(**state["sampling"]), Convergence(**state["convergence"]), assignments,
        state["numbers"], "cryotk Class2D", particles,
    )


def resume_class2d(cls: type[Class2D], path: Path, particles: Any, changes: dict[str, Any]) -> Class2D:
    """Make a job from a saved run of ours, or from RELION's optimiser file."""
    if path.suffix == ".star":
        return _resume_relion(cls, path, particles, changes)
    newest = checkpoint.latest(path) if path.is_dir() else path
    state = checkpoint.load(newest, KIND)
    where = particles
    if where is None:
        where = state["particles"]
        if not where or not Path(where).exists():
            raise CheckpointError(f"{newest}: the particles came from {where or 'memory'}, which is not there; give particles=")
    from cryotk.data import open_particles

    opened = open_particles(where, state["project_dir"] or None)
    if opened.sizes["particle"] != state["n_particles"]:
        raise CheckpointError(
            f"{newest} is of {state['n_particles']} particles, the given set has {opened.sizes['particle']}: give the same particles"
        )
    settings = state["settings"] | changes
    job = cls(opened, **settings)
    folder = newest.parent
    for file in sorted(folder.glob("run_it*.checkpoint")):
        if file.name < newest.name:
            try:
                job.iterations.append(_load_iteration(checkpoint.load(file, KIND), job.particles))
            except CheckpointError:
                continue
    last = _load_iteration(state, job.particles)
    job.iterations.append(last)
    job._restore_state(last, state["norm"])
    if path.is_dir():
        job._directory = folder
    return job


def _resume_relion(cls: type[Class2D], path: Path, particles: Any, changes: dict[str, Any]) -> Class2D:
    it = open_iteration(path)
    optimiser = read_star(path).get("optimiser_general")
    if optimiser is None:
        raise SettingsError(f"{path}: give RELION's _optimiser.star, which names all other files")
    if it.model.is_3d:
        raise SettingsError(f"{path} is a 3D refinement; Class2D goes on from 2D classifications")
    from cryotk.data import open_particles

    where = particles
    if where is None:
        where = _data_path(path, optimiser)
    opened = open_particles(where)
    a = it.model.pixel_size
    values: dict[str, Any] = {
        "n_classes": it.model.n_classes,
        "mask_diameter": float(optimiser.get("rlnParticleDiameter", 200)),
        "tau2_fudge": it.model.tau2_fudge,
        "n_iterations": int(optimiser.get("rlnNumberOfIterations", 25)),
        "psi_step": it.sampling.psi_step / 2,
        "offset_range_px": it.sampling.offset_range / a,
        "offset_step_px": it.sampling.offset_step / a / 2,
        "zero_mask": bool(int(optimiser.get("rlnDoZeroMask", 1))),
        "center_classes": bool(int(optimiser.get("rlnDoCenterClasses", 0))),
        "align": not bool(int(optimiser.get("rlnDoSkipAlign", 0))),
        "ctf_intact_first_peak": bool(int(optimiser.get("rlnDoIgnoreCtfUntilFirstPeak", 0))),
        "seed": int(optimiser.get("rlnRandomSeed", 0)),
    }
    limit = float(optimiser.get("rlnHighresLimitExpectation", -1))
    if limit > 0:
        values["resolution_limit"] = limit
    job = cls(opened, **(values | changes))
    _match_groups(it.model, job)
    it.particles = job.particles
    job.iterations.append(it)
    job._adopt(it)
    return job


def _data_path(path: Path, optimiser: Any) -> Path:
    from cryotk.io.relion_read import find_near

    name = str(optimiser.get("rlnExperimentalDataStarFile", ""))
    found = find_near(name, path.resolve().parent)
    if found is None:
        raise CheckpointError(f"{path} names the particles {name}, which are not there; give particles=")
    return found


def _match_groups(model: RefinementModel, job: Class2D) -> None:
    """Scales of RELION's groups in the order of ours."""
    known = dict(zip(model.group_names, np.asarray(model.group_scales, float), strict=False))
    model.group_scales = np.array([known.get(n, 1.0) for n in job.data.group_names])
    model.group_names, model.group_counts = job.data.group_names, job.data.group_counts
    if len(model.noise_power) != len(job.data.optics):
        model.noise_power = np.repeat(model.noise_power[:1], len(job.data.optics), 0)
