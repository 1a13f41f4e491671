"""What every job that steps promises, each promise on each kind of job."""

import os
import time

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import CheckpointError, DataError, DataWarning, SettingsError
from cryotk.execution import checkpoint

BOX, PIXEL, N = 24, 8.0, 60
MAPS = {"mask_diameter": 170.0, "initial_lowpass": 40.0, "initial_sampling": 30.0, "offset_range_px": 2.0, "seed": 1}
KINDS = {
    "class2d": lambda p, r, **more: ctk.Class2D(
        p, 2, **({"mask_diameter": 170.0, "seed": 1, "psi_step": 15, "offset_range_px": 2, "n_iterations": 4} | more)
    ),
    "vdam": lambda p, r, **more: ctk.Class2D(
        p, 2, algorithm="vdam",
        **({"mask_diameter": 170.0, "seed": 1, "psi_step": 15, "offset_range_px": 2, "n_batches": 4} | more),
    ),
    "class3d": lambda p, r, **more: ctk.Class3D(p, r, 2, **(MAPS | {"n_iterations": 4} | more)),
    "initial_model": lambda p, r, **more: ctk.InitialModel(
        p, **({"mask_diameter": 170.0, "seed": 1, "initial_sampling": 30, "offset_range_px": 2, "n_batches": 4} | more)
    ),
    "refine3d": lambda p, r, **more: ctk.Refine3D(p, r, **({"symmetry": "D2"} | MAPS | more)),
}  # fmt: skip
ALL = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def reference():
    return ctk.simulate.volume(ctk.simulate.molecule(), BOX, PIXEL)


@pytest.fixture(scope="module")
def star(tmp_path_factory, write_project):
    return write_project(ctk.simulate.particles(N, BOX, PIXEL, snr=0.5, seed=5, progress=False), tmp_path_factory.mktemp("project"))


def bits(job):
    it = job.current
    out = [it.model.references.tobytes(), it.assignments.max_probability.values.tobytes(), it.assignments.shift_x.values.tobytes()]
    return out if it.half2 is None else [*out, it.half2.references.tobytes()]


@ALL
def test_a_step_shows_a_bar_that_reaches_its_end(kind, star, reference, monkeypatch):
    import tqdm.auto

    bars = []

    class Bar:
        def __init__(self, total, desc, **options):
            self.total, self.desc, self.steps = total, desc, []
            bars.append(self)

        def update(self, n):
            self.steps.append(n)

        def close(self):
            self.closed = True

    job = KINDS[kind](star, reference)
    assert job.current.number == 0  # the start has bars of its own
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    job.iterate()
    [bar] = bars
    assert bar.closed and sum(bar.steps) == bar.total and min(bar.steps) > 0 and bar.desc.endswith("iteration 1")
    assert len(bar.steps) > 1  # not only at the end
    before = len(job._listeners)
    job.iterate(progress=False)
    assert len(bars) == 1 and len(job._listeners) == before


@ALL
def test_in_the_background_and_stopped_it_stands_at_a_finished_iteration(kind, star, reference):
    job, other = KINDS[kind](star, reference), KINDS[kind](star, reference)
    phases = []
    job.on_progress(lambda p: phases.append(p.phase))
    job.start(3)
    with pytest.raises(SettingsError, match="running in the background"):
        for _ in range(100):
            job.iterate()
    deadline = time.monotonic() + 60
    while job.iteration < 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    job.stop(wait=True)
    assert not job.running and job.iteration in (1, 2, 3)
    assert {"expectation", "maximization", "finished"} <= set(phases)
    stopped_at = job.iteration
    other.run(stopped_at, progress=False)
    assert bits(job) == bits(other)
    # and it goes on as if nothing had been
    job.run(3, progress=False)
    other.run(3, progress=False)
    assert bits(job) == bits(other)


@ALL
def test_an_interrupt_keeps_the_last_finished_iteration(kind, star, reference):
    job = KINDS[kind](star, reference)

    def interrupt(p):
        if p.iteration == 2 and p.phase == "expectation" and p.fraction > 0:
            job.stop()

    end = job.on_progress(interrupt)
    job.run(3, progress=False)
    assert job.iteration in (1, 2)
    end()
    real = job._expectation
    job._expectation = lambda on_block: (_ for _ in ()).throw(KeyboardInterrupt)
    before = job.iteration
    assert job.run(3, progress=False).number == before and job.progress.phase == "stopped"
    job._expectation = real
    other = KINDS[kind](star, reference)
    other.run(2, progress=False)
    job.run(2, progress=False)
    assert bits(job) == bits(other)


COMMON = {
    "resolution", "image_size", "average_p_max", "mean_significant", "changes_class", "changes_orientation", "changes_offset",
    "accuracy_rotation", "accuracy_translation", "sigma_offset", "log_likelihood", "flagged", "seconds",
}  # fmt: skip
OWN = {
    "class2d": set(), "class3d": set(), "vdam": {"batch_size", "step_size", "tau2_fudge", "replaced_class", "replaced_by"},
    "initial_model": {"batch_size", "step_size", "tau2_fudge", "angular_step", "offset_step"},
    "refine3d": {"fsc_0143", "healpix_order", "offset_range", "offset_step"},
}  # fmt: skip


@ALL
def test_history_says_what_happened(kind, star, reference):
    job = KINDS[kind](star, reference)
    job.run(3, progress=False)
    h = job.history
    assert h.iteration.values.tolist() == [0, 1, 2, 3]
    assert COMMON | OWN[kind] <= set(h)
    for name in COMMON | OWN[kind]:
        assert np.isfinite(h[name].values[1:]).all(), name
    k = job.settings.n_classes if hasattr(job.settings, "n_classes") else 1
    assert h.occupancy.shape == h.class_resolution.shape == (4, k)
    assert np.allclose(h.occupancy.sum("class_number"), 1, atol=1e-6)
    assert (h.seconds.values[1:] > 0).all() and (np.diff(h.log_likelihood.values[1:]) != 0).all()
    assert set(job.assignments) >= {"class_number", "angle_rot", "angle_psi", "shift_x", "max_probability", "flagged"}


@ALL
def test_the_posterior_of_a_particle_and_any_score(kind, star, reference):
    job = KINDS[kind](star, reference)
    job.run(2, progress=False)
    p = job.posterior(7)
    assert 0.99 < float(p.weight.sum()) < 1.001 and p.attrs["n_significant"] >= 1
    best = p.isel(sample=int(p.weight.values.argmax()))
    angles = [float(best[f"angle_{x}"]) for x in ("rot", "tilt", "psi")]
    shift = [float(best.shift_x), float(best.shift_y)]
    s = job.score(7, [angles, [angles[0], angles[1], angles[2] + 90]], [shift, shift], int(best.class_number))
    assert s[0] > s[1]
    with pytest.raises(SettingsError, match=f"rows are 0 to {N - 1}"):
        job.posterior(N)


@ALL
def test_particles_of_classes_now_and_then(kind, star, reference):
    job = KINDS[kind](star, reference)
    job.run(2, progress=False)
    k = job.current.model.n_classes
    everyone = job.select(list(range(1, k + 1)))
    assert everyone.sizes["particle"] == int((job.assignments.class_number > 0).sum())
    assert np.array_equal(everyone.angle_psi.values, job.assignments.angle_psi.values[job.assignments.class_number.values > 0])
    number = job.iterations[1].number
    then = job.select(1, iteration=number)
    now = {it.number: it for it in job.iterations}[number].assignments
    assert then.sizes["particle"] == int((now.class_number == 1).sum())
    if kind == "refine3d":
        assert set(np.unique(everyone.random_subset)) == {1, 2}
    assert then.images.shape[1:] == (BOX, BOX)
    with pytest.raises(SettingsError, match="there is no iteration 77"):
        job.select(1, iteration=77)
    for wrong in (0, k + 1):
        with pytest.raises(SettingsError, match=f"classes must be 1 to {k}"):
            job.select(wrong)
    # what was selected is a particle set like any other
    again = KINDS[kind](everyone, reference)
    assert again.data.n == everyone.sizes["particle"]


@ALL
def test_a_branch_leaves_its_origin_alone(kind, star, reference):
    job = KINDS[kind](star, reference)
    early = job.branch(tau2_fudge=3.0)
    assert early.iteration == 0 and not early.iterations and early.settings.tau2_fudge == 3
    job.run(1, progress=False)
    same, other = job.branch(), job.branch(tau2_fudge=0.1)
    before = bits(job)
    same.iterate()
    other.iterate()
    assert bits(job) == before and job.iteration == 1
    job.iterate()
    assert bits(same) == bits(job)
    assert bits(other) != bits(job)
    with pytest.raises(SettingsError):
        job.branch(no_such=1)


CHANGES = {
    "class2d": {"psi_step": 20, "offset_range_px": 3.5, "padding": 1.5, "mask_diameter": 120.0, "resolution_limit": 60.0},
    "vdam": {"psi_step": 20, "offset_range_px": 3.5, "mask_diameter": 120.0, "inactivity_threshold": 0.9999},
    "class3d": {
        "initial_sampling": 15.0, "offset_range_px": 3.5, "offset_step_px": 0.6, "padding": 1.5, "symmetry": "C2",
        "local_search_range": 40.0, "resolution_limit": 60.0, "mask_diameter": 120.0, "align": False,
    },
    "initial_model": {"symmetry": {"symmetry": "C2", "run_in_c1": False}, "resolution_limit": 60.0, "mask_diameter": 120.0},
    "refine3d": {"symmetry": "C2", "padding": 1.5, "mask_diameter": 120.0, "tau2_fudge": 0.2, "join_below": 100.0},
}  # fmt: skip


@pytest.mark.parametrize("how", ["branch", "resume"])
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, changes in CHANGES.items() for name in changes])
def test_settings_changed_on_the_way_have_their_effect(kind, name, how, star, reference, tmp_path, started):
    change = CHANGES[kind][name]
    change = change if isinstance(change, dict) else {name: change}
    job, folder, unchanged = started(kind)
    other = job.branch(**change) if how == "branch" else type(job).resume(folder, **change)
    other._directory = None
    other.iterate()
    assert bits(other) != unchanged
    assert job.iteration == 2


@pytest.fixture(scope="module")
def started(star, reference, tmp_path_factory):
    """A job of two iterations, the folder it is saved in, and what its third gives."""
    made = {}

    def get(kind):
        if kind not in made:
            job = KINDS[kind](star, reference)
            job.run(2, progress=False)
            folder = tmp_path_factory.mktemp(kind)
            job.save(folder)
            job._directory = None
            onward = job.branch()
            onward.iterate()
            made[kind] = job, folder, bits(onward)
        return made[kind]

    return get


@pytest.mark.parametrize(
    ("kind", "change"), [("refine3d", "initial_sampling"), ("refine3d", "initial_lowpass"), ("class3d", "initial_lowpass"), ("initial_model", "offset_range_px")]
)
def test_settings_of_the_start_say_that_they_come_too_late(kind, change, star, reference):
    job = KINDS[kind](star, reference)
    _ = job.current
    value = 15.0 if change == "initial_sampling" else 12.0
    early = job.branch(**{change: value})
    assert not early.iterations and getattr(early.settings, change) == value
    job.iterate()
    with pytest.warns(DataWarning, match=f"{change}: of the start of a {type(job).__name__}, without effect after iteration 1"):
        job.branch(**{change: value})


def test_a_vdam_run_keeps_its_padding(star, reference):
    job = KINDS["vdam"](star, reference)
    job.iterate()
    with pytest.raises(SettingsError, match="keeps its padding"):
        job.branch(padding=1.5)


@ALL
def test_saved_at_any_time_and_resumed_to_the_same_bits(kind, star, reference, tmp_path):
    job = KINDS[kind](star, reference)
    job.run(2, progress=False)
    job.save(tmp_path / "late")
    again = type(job).resume(tmp_path / "late")
    assert bits(again) == bits(job) and again.settings == job.settings
    assert again.history.iteration.values.tolist() == job.history.iteration.values.tolist()
    job.run(3, progress=False)
    again.run(3, progress=False)
    assert bits(again) == bits(job)
    # what goes on is written on
    assert type(job).resume(tmp_path / "late").iteration == 3 or kind in ("vdam", "initial_model")
    read = ctk.open_iteration(next(iter(sorted((tmp_path / "late").glob("run_it002_optimiser.star")))))
    assert read.number == 2


@ALL
def test_memory_disk_and_time_are_told_before_the_first_iteration(kind, star, reference):
    figures = KINDS[kind](star, reference).estimate()
    for name in ("memory_bytes", "disk_bytes_per_iteration", "seconds_per_iteration"):
        assert np.isfinite(figures[name]) and figures[name] > 0, name


@ALL
def test_an_iteration_takes_the_disk_that_was_told(kind, tmp_path):
    box = 48
    reference = ctk.simulate.volume(ctk.simulate.molecule(), box, 4.0)
    job = KINDS[kind](ctk.simulate.particles(N, box, 4.0, snr=0.5, seed=5, progress=False), reference)
    told = job.estimate()["disk_bytes_per_iteration"]
    job.iterate()
    job.save(tmp_path)
    taken = sum(f.stat().st_size for f in tmp_path.glob("run_it001*"))
    assert 0.75 * taken < told < 1.25 * taken


@ALL
def test_a_full_disk_loses_nothing(kind, star, reference, tmp_path, monkeypatch):
    job = KINDS[kind](star, reference, **({"n_batches": 2} if kind in ("vdam", "initial_model") else {}))
    job.save(tmp_path / "run")
    job.iterate()
    if kind in ("vdam", "initial_model"):
        # between kept mini-batches it is written when it stops
        job._write_last(tmp_path / "run")
    written = {p.name for p in (tmp_path / "run").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    # the files are there already, under their temporary names
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        job.iterate()
    monkeypatch.undo()
    assert job.iteration == 2
    left = {p.name for p in (tmp_path / "run").iterdir()}
    assert not [n for n in left if n.endswith(".tmp")] and written <= left
    assert type(job).resume(tmp_path / "run").iteration == 1
    # it stays in memory and is saved elsewhere
    job.save(tmp_path / "other")
    assert bits(type(job).resume(tmp_path / "other")) == bits(job)


def test_a_full_disk_in_the_background_is_raised_when_waited_for(star, reference, tmp_path, monkeypatch):
    job = KINDS["refine3d"](star, reference)
    phases = []
    job.on_progress(lambda p: phases.append((p.phase, p.message)))
    job.iterate()
    job.save(tmp_path / "run")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    job.start(4)
    with pytest.raises(OSError, match="No space"):
        job.wait()
    assert job.iteration == 2 and not job.running
    assert phases[-1][0] == "failed" and "No space" in phases[-1][1]
    monkeypatch.undo()
    job.run(3, progress=False)
    assert job.iteration == 3


@ALL
def test_checkpoints_that_are_broken_or_of_another_job_are_refused(kind, star, reference, tmp_path):
    job = KINDS[kind](star, reference)
    _ = job.current
    job.save(tmp_path / "run")
    file = tmp_path / "run" / "run_it000.checkpoint"
    for other in (ctk.Class2D, ctk.Class3D, ctk.InitialModel, ctk.Refine3D):
        if other is not type(job):
            with pytest.raises(CheckpointError, match=f"of {type(job).__name__}, not of {other.__name__}"):
                other.resume(file, star)
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:-4000] + b"x" * 4000, b"nothing"):
        file.write_bytes(broken)
        with pytest.raises(CheckpointError):
            type(job).resume(file, star)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        type(job).resume(tmp_path, star)
    checkpoint.save(file, {"of": "something else"}, "Polish")
    with pytest.raises(CheckpointError, match="Polish"):
        type(job).resume(file, star)


# -- bad input --------------------------------------------------------------------------------------------------------


@ALL
def test_images_without_variance_or_numbers_are_left_out(kind, star, reference):
    particles = ctk.open_particles(star)
    images = particles.images.values.copy()
    images[3] = 0
    images[5] = 2.5
    images[7, 5, 5] = np.nan
    images[9, 3, 3] = np.inf
    job = KINDS[kind](particles.assign(images=(("particle", "y", "x"), images)), reference)
    with pytest.warns(DataWarning, match="particles were left out"):
        job.run(2, progress=False)
    flagged = np.nonzero(job.assignments.flagged.values)[0].tolist()
    assert flagged == [3, 5, 7, 9]
    assert (job.assignments.class_number.values[flagged] == 0).all()
    assert np.isfinite(job.classes.values).all() and np.isfinite(job.noise_power()).all()


@ALL
def test_nothing_but_empty_images_is_said(kind, star, reference):
    particles = ctk.open_particles(star)
    for value in (0.0, 2.5, np.nan):
        images = np.full((N, BOX, BOX), value, np.float32)
        job = KINDS[kind](particles.assign(images=(("particle", "y", "x"), images)), reference)
        with pytest.raises(DataError, match="none of the first 60 particles has an image that can be used"):
            job.iterate()


def test_a_half_set_of_empty_images_is_said(star, reference):
    particles = ctk.open_particles(star)
    halves = np.where(np.arange(N) % 2 == 0, 1, 2)
    images = particles.images.values.copy()
    images[halves == 2] = 0
    given = particles.assign(images=(("particle", "y", "x"), images), random_subset=("particle", halves))
    job = KINDS["refine3d"](given, reference)
    with pytest.raises(DataError, match="iteration 1: none of the 30 particles of half-set 2 can be used"):
        job.iterate()
    assert job.iteration == 0


@ALL
def test_particles_without_ctf_are_said(kind, star, reference):
    particles = ctk.open_particles(star)
    bare = particles.drop_vars([v for v in particles if str(v).startswith("defocus")])
    with pytest.raises(DataError, match=r"defocus_u is missing .*do_ctf=False"):
        KINDS[kind](bare, reference)
    KINDS[kind](bare, reference, do_ctf=False).iterate()


@ALL
def test_offsets_that_leave_the_box_are_said(kind, star, reference):
    particles = ctk.open_particles(star)
    far = particles.assign(shift_x=("particle", np.r_[0.0, 0.0, 500.0, np.zeros(N - 3)]), shift_y=("particle", np.zeros(N)))
    with pytest.raises(DataError, match="particle 3 has an offset of 500"):
        KINDS[kind](far, reference)
    with pytest.raises(SettingsError, match="moves particles out of a box of 24 pixels"):
        KINDS[kind](star, reference, offset_range_px=20)


@ALL
def test_an_empty_set_and_too_many_classes_are_said(kind, star, reference):
    particles = ctk.open_particles(star)
    with pytest.raises(DataError, match="empty"):
        KINDS[kind](particles.isel(particle=slice(0, 0)), reference)
    if kind != "refine3d":
        one = particles.isel(particle=slice(0, 1))
        with pytest.raises(SettingsError, match=r"n_classes = \d+ for 1 particles"):
            KINDS[kind](one, reference, **({"n_classes": 2} if kind == "initial_model" else {}))


@pytest.mark.parametrize("kind", ["class3d", "refine3d"])
def test_references_of_noise_zeros_and_wrong_numbers(kind, star, reference):
    noise = reference.copy(data=np.random.default_rng(0).normal(size=(BOX,) * 3).astype(np.float32))
    job = KINDS[kind](star, noise)
    job.run(2, progress=False)
    assert np.isfinite(job.current.model.references).all() and (job.assignments.class_number > 0).all()
    with pytest.raises(DataError, match="the same everywhere"):
        _ = KINDS[kind](star, reference.copy(data=np.zeros((BOX,) * 3, np.float32))).current
    with pytest.raises(DataError, match="not finite"):
        _ = KINDS[kind](star, reference.copy(data=np.full((BOX,) * 3, np.inf, np.float32))).current


@pytest.mark.parametrize("kind", ["class3d", "refine3d"])
def test_masks_that_are_no_masks(kind, star, reference):
    for values, words in ((1.5, "between 0 and 1"), (-0.5, "between 0 and 1"), (np.nan, "between 0 and 1|finite")):
        with pytest.raises(DataError, match=words):
            KINDS[kind](star, reference, mask=reference.copy(data=np.full((BOX,) * 3, values, np.float32)))
    with pytest.raises(DataError, match="box"):
        KINDS[kind](star, reference, mask=ctk.simulate.volume(ctk.simulate.molecule(), BOX + 4, PIXEL))
