"""Refinements on disk: RELION's files and one exact checkpoint per iteration; both ways back."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cryotk.data import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.errors import CheckpointError, DataWarning, MissingFileError, SettingsError
from cryotk.execution import checkpoint
from cryotk.io.relion_read import FINISHED, find_near, read_assignments
from cryotk.io.relion_refinement import open_iteration
from cryotk.io.relion_write import write_iteration

if TYPE_CHECKING:
    from cryotk.jobs.refinement_job import RefinementJob

__all__ = ["project_of", "resume_refinement", "write_refinement"]

Job = TypeVar("Job", bound="RefinementJob")


def _plain(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def write_refinement(job: RefinementJob, directory: Path, iteration: Iteration) -> None:
    """Write one iteration; the checkpoint comes last and makes it count."""
    a, s = iteration.assignments, job.settings
    table = job.input_particles.drop_vars("images", errors="ignore")
    # entries of the RELION run that this goes on from stay, ours win
    inherited = next((it.optimiser for it in job.iterations if it.optimiser), {})
    optimiser = inherited | job._optimiser_entries()
    project = project_of(job.input_particles)
    written = replace(iteration, number=FINISHED) if iteration.convergence.has_converged else iteration
    write_iteration(
        directory, written, particles=table, settings=optimiser, project_dir=project, version=job._relion,
        moments=job._moments_of(iteration),
    )
    state = {
        "settings": s.model_dump(),
        "number": iteration.number,
        "model": _plain(iteration.model),
        "half2": None if iteration.half2 is None else _plain(iteration.half2),
        "half_maps": iteration.half_maps,
        "sampling": _plain(iteration.sampling),
        "convergence": asdict(iteration.convergence),
        "numbers": dict(iteration.numbers),
        "assignments": {str(k): v.values for k, v in a.data_vars.items()},
        "units": {str(k): str(v.attrs["units"]) for k, v in a.data_vars.items() if v.attrs.get("units")},
        "optimiser": dict(iteration.optimiser),
        "norm": np.asarray(job._norm_of(iteration)),
        "particles": str(job.input_particles.attrs.get("source", "")),
        "project_dir": str(job.input_particles.attrs.get("project_dir", "")),
        "n_particles": job.data.n,
        "relion": job._relion,
        "names": _names_digest(job.input_particles),
        "ctf": _ctf_digest(job),
        "extra": job._extra_state() if iteration is job.iterations[-1] else {},
        "arguments": job._arguments(),
        "run": job._run,
    }
    checkpoint.save(directory / f"run_it{iteration.number:03d}.checkpoint", state, type(job).__name__)


def project_of(particles: Any) -> str | None:
    """The folder that image names are relative to: the one that was given, or the one in which the first image is found."""
    given = particles.attrs.get("project_dir")
    if given or "image_name" not in particles or not particles.attrs.get("start_dir"):
        return given or None
    file = str(particles["image_name"].values[0]).rpartition("@")[2]
    found = None if Path(file).is_absolute() else find_near(file, Path(particles.attrs["start_dir"]))
    parts = Path(file).parts
    if found is None or found.parts[-len(parts) :] != parts:
        return None
    return str(Path(*found.parts[: -len(parts)]))


def _bare(name: object) -> str:
    """Image name that survives a move: number and file without folders."""
    number, at, file = str(name).partition("@")
    return f"{int(number)}@{Path(file).name}" if at else Path(number).name


def _names_digest(particles: Any) -> str:
    """Digest of which images, in which order; empty when images have no names."""
    if "image_name" not in particles:
        return ""
    return hashlib.sha256("\n".join(_bare(v) for v in particles["image_name"].values).encode()).hexdigest()


def _ctf_digest(job: RefinementJob) -> str:
    """Digest of what describes the images apart from their pixels."""
    sha = hashlib.sha256()
    for f in fields(job.data.columns):
        sha.update(np.ascontiguousarray(getattr(job.data.columns, f.name)).tobytes())
    sha.update(repr(job.data.optics).encode())
    return sha.hexdigest()


def _load_iteration(state: dict[str, Any], particles: Any, source: str) -> Iteration:
    import xarray as xr

    units = state["units"]
    assignments = xr.Dataset({k: ("particle", v, {"units": units.get(k, "")}) for k, v in state["assignments"].items()})
    return Iteration(
        int(state["number"]), _model(state["model"]), SamplingSettings(**state["sampling"]), Convergence(**state["convergence"]), assignments,
        state["numbers"], source, particles, optimiser=state["optimiser"],
        half2=_model(state["half2"]) if state.get("half2") else None, half_maps=state.get("half_maps"),
    )  # fmt: skip


def _model(parts: dict[str, Any]) -> RefinementModel:
    return RefinementModel(**(parts | {"group_names": list(parts["group_names"])}))


def resume_refinement(cls: type[Job], path: Path, particles: Any, changes: dict[str, Any]) -> Job:
    """Make a job from a saved run of ours, or from RELION's optimiser file."""
    if path.suffix == ".star":
        return _resume_relion(cls, path, particles, changes)
    kind = cls.__name__
    newest = checkpoint.latest(path, kind) if path.is_dir() else path
    state = checkpoint.load(newest, kind)
    opened = _particles_of(newest, state, particles)
    last = _load_iteration(state, opened, f"cryotk {kind}")
    # checkpoints written before there were arguments have the mask with what the last iteration alone has
    extra = dict(state.get("extra", {}))
    arguments = state.get("arguments") or ({"mask": extra.pop("mask")} if "mask" in extra else {})
    job = cls._remake(opened, state["settings"] | arguments | changes, last)
    job._run = state.get("run", job._run)
    last.particles = job.input_particles
    if _ctf_digest(job) != state["ctf"]:
        text = f"{newest}: the particles' CTF, groups or optics are not those of the run"
        if particles is None:
            raise CheckpointError(f"{text}; the file changed, or the run used changed values. To go on with these: particles=")
        warnings.warn(f"{text}; it goes on, but not to the same bits", DataWarning, stacklevel=4)
    folder = newest.parent
    for file in checkpoint.of_run(folder, state.get("run")):
        if file.name == newest.name:
            break
        try:
            job.iterations.append(_load_iteration(checkpoint.load(file, kind), job.input_particles, job.source))
            job._shelve()
        except CheckpointError as error:
            warnings.warn(f"left out of the history: {error}", DataWarning, stacklevel=4)
    job.iterations.append(last)
    job._shelve()
    job._restore_state(last, state["norm"])
    job._restore_extra(extra)
    job._fit_to_settings(job._changed(changes, state["settings"]))
    job._relion = state.get("relion", "5")
    if path.is_dir():
        job._directory = folder
    return job


def _particles_of(newest: Path, state: dict[str, Any], particles: Any) -> Any:
    """Open the particles of a run: the given ones, or those at their old place, in the run's order."""
    from cryotk.data import open_particles, select_particles

    where = particles
    if where is None:
        where = state["particles"]
        if not where or not Path(where).exists():
            raise CheckpointError(f"{newest}: the particles came from {where or 'memory'}, which is not there; give particles=")
    opened = open_particles(where, state["project_dir"] or None) if particles is None else open_particles(where)
    n = state["n_particles"]
    if opened.sizes["particle"] == n and state["names"] in ("", _names_digest(opened)):
        return opened
    # the run was on a selection, or on another order: its own table says which
    table = newest.with_name(f"{newest.stem}_data.star")
    if state["names"] and table.exists() and "image_name" in opened:
        rows = {_bare(v): i for i, v in enumerate(opened["image_name"].values)}
        chosen = [rows.get(_bare(v), -1) for v in read_assignments(table, 1.0)["image_name"]]
        if -1 not in chosen and len(rows) == opened.sizes["particle"]:
            selected = select_particles(opened, np.array(chosen, int))
            if _names_digest(selected) == state["names"]:
                return selected
    raise CheckpointError(
        f"{newest} is of {n} particles, {where if isinstance(where, (str, Path)) else 'the given set'} has "
        f"{opened.sizes['particle']}, or other ones: give the same particles with particles="
    )


def _resume_relion(cls: type[Job], path: Path, particles: Any, changes: dict[str, Any]) -> Job:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        it = open_iteration(path)
    if not it.optimiser:
        raise SettingsError(f"{path}: give RELION's _optimiser.star, which names all other files")
    _what_is_not_followed(path, it.optimiser)
    values = cls._settings_from_relion(path, it)
    if not np.any(it.model.references):
        stem = path.name.partition("_optimiser")[0]
        maps = f"{stem}_class001.mrc and the others" if it.model.is_3d else f"{stem}_classes.mrcs"
        raise MissingFileError(f"{path}: the class images it names are not there; copy {maps} beside it")
    from cryotk.data import open_particles

    opened = open_particles(_data_path(path, it.optimiser) if particles is None else particles)
    job = cls._remake(opened, values | changes, it)
    for model in (it.model, it.half2):
        if model is not None:
            _match_groups(model, job)
    it.particles = job.input_particles
    job.iterations.append(it)
    job._adopt(it)
    job._adopt_files(path, it)
    job._fit_to_settings(job._changed(changes, values))
    return job


OTHER_METHODS = {
    "rlnDoHelicalRefine": "a helical refinement", "rlnBodyStarFile": "a multi-body refinement",
    "rlnTomoTomogramsFile": "a refinement of subtomograms", "rlnDoSkipRotate": "a run that searches offsets alone",
}  # fmt: skip
"""Entries of RELION's optimiser file that say that the run was one that no job here does."""

NOT_FOLLOWED = {
    "rlnSolventMask2Name": "None", "rlnTauSpectrumName": "None", "rlnLocalSymmetryFile": "None", "rlnMaximumCoarseImageSize": -1,
    "rlnLowresLimitExpectation": -1, "rlnAdaptiveOversampleOrder": 1, "rlnDoMapEstimation": 1, "rlnDoFastSubsetOptimisation": 0,
    "rlnDoExternalReconstruct": 0, "rlnDoBlush": 0, "rlnCtfDataArePhaseFlipped": 0, "rlnDoOnlyFlipCtfPhases": 0,
    "rlnFixSigmaNoiseEstimates": 0, "rlnFixSigmaOffsetEstimates": 0,
}  # fmt: skip
"""Entries that would change what comes next, and the value at which they do nothing."""


def _is_set(value: Any, idle: Any = 0) -> bool:
    if isinstance(value, str):
        return value not in ("None", "")
    return bool(abs(float(value) - idle) > 1e-6) if not isinstance(idle, str) else False


def _what_is_not_followed(path: Path, optimiser: dict[str, Any]) -> None:
    """Refuse runs of another method; say which settings of a run are left out."""
    for label, what in OTHER_METHODS.items():
        if _is_set(optimiser.get(label, 0)):
            raise SettingsError(f"{path} is {what} ({label}), which no job here goes on with")
    left = []
    for label, idle in NOT_FOLLOWED.items():
        value = optimiser.get(label, idle)
        if _is_set(value, idle):
            left.append(f"{label} = {value if isinstance(value, str) else f'{float(value):g}'}")
    if left:
        warnings.warn(f"{path}: settings of this run that are not followed from here on: {', '.join(left)}", DataWarning, stacklevel=5)


def _data_path(path: Path, optimiser: Any) -> Path:
    name = str(optimiser.get("rlnExperimentalDataStarFile", ""))
    found = find_near(name, path.parent)
    if found is None:
        raise CheckpointError(f"{path} names the particles {name}, which are not there; give particles=")
    return found


def _match_groups(model: RefinementModel, job: RefinementJob) -> None:
    """Scales of RELION's groups in the order of ours."""
    known = dict(zip(model.group_names, np.asarray(model.group_scales, float), strict=False))
    model.group_scales = np.array([known.get(n, 1.0) for n in job.data.group_names])
    model.group_names, model.group_counts = job.data.group_names, job.data.group_counts
    if len(model.noise_power) != len(job.data.optics):
        model.noise_power = np.repeat(model.noise_power[:1], len(job.data.optics), 0)
