"""Every parameter of every signature does something, and what it should where that is quickly seen."""

import inspect

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import DataWarning, SettingsError
from cryotk.geometry import symmetry_operators
from cryotk.jobs.auto_sampling import AutoSettings, angular_step, finer_sampling
from cryotk.jobs.half_sets import join_low_resolution
from cryotk.projection import Accumulator

BOX, PIXEL, N = 24, 8.0, 48


@pytest.fixture(scope="module")
def reference():
    return ctk.simulate.volume(ctk.simulate.molecule(), BOX, PIXEL)


@pytest.fixture(scope="module")
def mask(reference):
    blurred = ctk.fourier.lowpass(np.asarray(reference.values, float), PIXEL, 40.0)
    return reference.copy(data=np.clip(blurred / blurred.max() * 4, 0, 1).astype(np.float32))


@pytest.fixture(scope="module")
def particles():
    return ctk.simulate.particles(N, BOX, PIXEL, snr=0.5, seed=5, poses=True, progress=False)


LOCAL = {"initial_sampling": 7.5, "local_search_from": 7.5}
BASE = {
    "class2d": {"n_classes": 2, "mask_diameter": 160.0, "psi_step": 15, "offset_range_px": 2, "seed": 1},
    "vdam": {
        "n_classes": 3, "algorithm": "vdam", "n_batches": 12, "mask_diameter": 160.0, "psi_step": 15, "offset_range_px": 2, "seed": 1,
    },
    "initial_model": {"n_batches": 12, "mask_diameter": 160.0, "initial_sampling": 30, "offset_range_px": 2, "seed": 1},
    "class3d": {"mask_diameter": 160.0, "initial_lowpass": 40.0, "initial_sampling": 30.0, "offset_range_px": 2.0, "seed": 1},
    "refine3d": {"mask_diameter": 160.0, "initial_lowpass": 40.0, "initial_sampling": 30.0, "offset_range_px": 2.0, "seed": 1},
}  # fmt: skip
COMMON = {
    "mask_diameter": 120.0, "offset_range_px": 3.5, "offset_step_px": 0.6, "zero_mask": False, "do_ctf": False,
    "ctf_intact_first_peak": True, "seed": 2, "compat": "relion", "perturbation_factor": 0.0, "padding": 1.5, "tau2_fudge": 0.3,
}  # fmt: skip
MAPS = {"symmetry": "C2", "initial_lowpass": 60.0, "mask": "the mask", "initial_sampling": 15.0, "absolute_greyscale": True}
CHANGES = {
    "class2d": COMMON | {"n_classes": 3, "psi_step": 20, "resolution_limit": 40.0, "center_classes": False, "align": False, "algorithm": "vdam"},
    "vdam": COMMON | {"n_batches": 20, "inactivity_threshold": 0.9},
    "initial_model": COMMON | {
        "n_classes": 2, "symmetry": {"symmetry": "D2", "run_in_c1": False}, "run_in_c1": {"symmetry": "C2", "run_in_c1": False},
        "n_batches": 20, "initial_sampling": 15, "resolution_limit": 60.0, "flatten_solvent": False,
        "inactivity_threshold": {"n_classes": 2, "inactivity_threshold": 0.9}, "initial_sigma_offset": 20.0,
    },
    "class3d": COMMON | MAPS | {
        "n_classes": 2, "align": {"align": False}, "local_search_range": 20.0, "resolution_limit": 60.0,
        "relax_symmetry": ({"local_search_range": 20.0}, {"relax_symmetry": "D2"}),
    },
    "refine3d": COMMON | MAPS | {
        "solvent_flatten_fsc": ({"mask": "the mask"}, {"solvent_flatten_fsc": True}), "local_search_from": 30.0,
        "join_below": ({"absolute_greyscale": True}, {"join_below": 100.0}), "relax_symmetry": (LOCAL, {"relax_symmetry": "D2"}),
    },
}  # fmt: skip
ELSEWHERE = {
    "particles", "reference", "references", "expert",
    # what runs, not what comes out; and what shows after many iterations: tests below and of their own
    "device", "n_iterations", "max_iterations", "algorithm", "finer_sampling_faster",
}  # fmt: skip
_runs = {}


def _run(kind, settings, particles, reference, mask):
    key = kind, tuple(sorted((k, str(v)) for k, v in settings.items()))
    if key not in _runs:
        settings = {k: mask if isinstance(v, str) and v == "the mask" else v for k, v in settings.items()}
        if kind in ("class2d", "vdam"):
            job = ctk.Class2D(particles, **settings)
        elif kind == "initial_model":
            job = ctk.InitialModel(particles, **settings)
        else:
            job = (ctk.Class3D if kind == "class3d" else ctk.Refine3D)(particles, reference, **settings)
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            # a replaced class and finer steps show after a few mini-batches
            job.run(9 if "inactivity_threshold" in settings or "n_batches" in settings else 2, progress=False)
        _runs[key] = job.current.model.references.tobytes()
    return _runs[key]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, changes in CHANGES.items() for name in changes])
def test_a_parameter_changes_the_result(kind, name, particles, reference, mask):
    change = CHANGES[kind][name]
    base, change = change if isinstance(change, tuple) else ({}, change if isinstance(change, dict) else {name: change})
    base = BASE[kind] | base
    same = _run(kind, base, particles, reference, mask)
    other = _run(kind, base | change, particles, reference, mask)
    assert same != other


@pytest.mark.parametrize("kind", CHANGES)
def test_no_parameter_is_forgotten_here(kind):
    job = {"class2d": ctk.Class2D, "vdam": ctk.Class2D, "class3d": ctk.Class3D, "initial_model": ctk.InitialModel, "refine3d": ctk.Refine3D}[kind]
    names = set(inspect.signature(job).parameters) | set(job.settings_type.model_fields)
    if kind == "vdam":
        # the others are those of class2d
        names = {"n_batches", "inactivity_threshold"}
    if kind == "class2d":
        names -= {"n_batches", "inactivity_threshold"}
    assert names - ELSEWHERE <= set(CHANGES[kind]), names - ELSEWHERE - set(CHANGES[kind])


# -- what some of them do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetry", ["C3", "D3", "T", "O", "I1", "I2", "I3", "I4"])
def test_maps_have_the_symmetry_that_was_asked_for(symmetry, particles, reference):
    """Of all point groups: turned by any operator the map is itself."""
    job = ctk.Refine3D(particles, reference, symmetry=symmetry, **BASE["refine3d"])
    job.iterate()
    whole = len(ctk.Refine3D(particles, reference, **BASE["refine3d"]).current.sampling.directions)
    assert len(job.current.sampling.directions) <= max(1.5 * whole / len(symmetry_operators(symmetry)), 3)
    m = ctk.fourier.lowpass(job.current.model.references[0], PIXEL, 40.0)
    again = ctk.symmetrise(job.volume.copy(data=m.astype(np.float32)), symmetry)
    inside = np.s_[4:-4, 4:-4, 4:-4]
    assert np.corrcoef(m[inside].ravel(), again.values[inside].ravel())[0, 1] > 0.98


def test_half_sets_are_kept_or_made_from_the_seed(particles, reference):
    given = np.r_[np.ones(40, int), np.full(8, 2)]
    job = ctk.Refine3D(particles.assign(random_subset=("particle", given)), reference, **BASE["refine3d"])
    job.iterate()
    assert np.array_equal(job.half_sets, given) and np.array_equal(job.assignments.random_subset.values, given)
    made = [ctk.Refine3D(particles, reference, **(BASE["refine3d"] | {"seed": s})).half_sets for s in (1, 1, 2)]
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])
    assert all((h == 1).sum() == N // 2 for h in made)


def test_low_resolution_is_shared_and_the_rest_is_not():
    rng = np.random.default_rng(1)
    a, b = Accumulator(16, 16, 2.0), Accumulator(16, 16, 2.0)
    for x in (a, b):
        x.data[...] = rng.normal(size=x.data.shape) + 1j * rng.normal(size=x.data.shape)
        x.weight[...] = rng.uniform(size=x.weight.shape)
    mean = (a.data + b.data) / 2
    before = a.data.copy()
    join_low_resolution(a, b, 3)
    same = a.data == b.data
    assert same.any() and not same.all()
    assert np.allclose(a.data[same], mean[same]) and np.array_equal(a.data[~same], before[~same])


def test_the_last_iteration_is_of_all_particles_to_nyquist_and_a_limit_ends_a_run_before(particles, reference):
    job = ctk.Refine3D(particles, reference, max_iterations=3, **(BASE["refine3d"] | {"symmetry": "D2"}))
    job.run(progress=False)
    assert job.iteration <= 3
    whole = ctk.Refine3D(particles, reference, **(BASE["refine3d"] | {"symmetry": "D2"}))
    whole.run(progress=False)
    assert whole.converged and whole.current.model.current_size == BOX and whole.current.half2 is None
    assert whole.current.half_maps.shape == (2, BOX, BOX, BOX)


def test_finer_sampling_faster_waits_for_no_angles(particles, reference):
    from dataclasses import replace

    job = ctk.Refine3D(particles, reference, **BASE["refine3d"])
    sampling = job.current.sampling
    still_moving = replace(
        job.current.convergence, iterations_without_resolution_gain=1, iterations_without_large_changes=0, accuracy_rotation=2.0,
        accuracy_translation=2.0, changes_offset=2.0,
    )  # fmt: skip
    settings = AutoSettings(mask_diameter=160.0, pixel_size=PIXEL)
    waits, _ = finer_sampling(sampling, still_moving, 1 / 30, settings)
    goes, _ = finer_sampling(sampling, still_moving, 1 / 30, replace(settings, finer_sampling_faster=True))
    assert waits is sampling and angular_step(goes.healpix_order) < angular_step(sampling.healpix_order)
    faster = ctk.Refine3D(particles, reference, finer_sampling_faster=True, **BASE["refine3d"])
    assert faster._auto.finer_sampling_faster and not job._auto.finer_sampling_faster


def test_one_class_is_a_fast_alignment(particles, reference):
    """All particles in one map: angles and offsets come near the truth."""
    blind = particles.drop_vars([f"angle_{x}" for x in ("rot", "tilt", "psi")] + ["shift_x", "shift_y"])
    job = ctk.Class3D(blind, reference, symmetry="D2", **(BASE["class3d"] | {"initial_lowpass": 25.0, "initial_sampling": 15.0}))
    job.run(3, progress=False)
    assert (job.assignments.class_number == 1).all() and job.settings.n_classes == 1
    from cryotk.geometry import angular_distance, euler_to_matrix

    names = ("rot", "tilt", "psi")
    found, true = (
        euler_to_matrix(*(t[f"{p}angle_{x}"].values for x in names)) for t, p in ((job.assignments, ""), (particles, "true_"))
    )
    assert np.median(angular_distance(found, true, symmetry_operators("D2"))) < 15


def test_a_class_that_loses_all_its_particles_stays_out(particles):
    """2D: the class shows nothing more, the others go on."""
    job = ctk.Class2D(particles, **(BASE["class2d"] | {"n_classes": 3}))
    job.iterate()
    job.current.model.class_distribution = np.array([0.6, 0.4, 0.0])
    job.iterate()
    m = job.current.model
    assert m.class_distribution[2] == 0 and m.class_distribution.sum() == pytest.approx(1)
    assert (job.assignments.class_number != 3).all() and np.isfinite(m.references).all()
    assert (m.references[2] == 0).all()
    job.iterate()
    assert job.history.occupancy.values[-1, 2] == 0


def test_variants_of_a_3d_classification_side_by_side(particles, reference):
    settings = {k: v for k, v in BASE["class3d"].items() if k != "seed"}
    s = ctk.sweep(
        ctk.Class3D, particles, reference, tau2_fudge=[0.5, 1.0, 2.0], n_classes=2, subset=30, until=2, progress=False,
        **settings,
    )  # fmt: skip
    assert list(s.table.tau2_fudge) == [0.5, 1.0, 2.0] and (s.table.iteration == 2).all()
    assert all(job.data.n == 30 for job in s)
    assert s._repr_html_().count("<tr") == 4
    with pytest.raises(SettingsError, match="tau2_fudge"):
        ctk.sweep(ctk.Class3D, particles, reference, tau2_fudge=[1.0, -1.0], run=False, **settings)
