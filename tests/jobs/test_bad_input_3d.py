"""What is wrong with particles, maps and settings of 3D jobs is said, with the remedy."""

import numpy as np
import pytest
import xarray as xr

import cryotk as ctk
from cryotk.errors import DataError, DataWarning, ExecutionError, SettingsError
from cryotk.jobs.half_sets import same_image, split_halves

MAPS = {"mask_diameter": 170.0, "initial_lowpass": 40.0, "initial_sampling": 30.0, "offset_range_px": 2.0, "seed": 1}
FIXED = {
    "no alignment": lambda p, v: ctk.Class3D(p, v, align=False, **MAPS),
    "local": lambda p, v: ctk.Class3D(p, v, local_search_range=10, **MAPS),
    "local refinement": lambda p, v: ctk.Refine3D(p, v, **(MAPS | {"initial_sampling": 15.0, "local_search_from": 15.0})),
}


# -- poses -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", FIXED.values(), ids=FIXED.keys())
def test_poses_that_are_not_there(small_star, small_posed, small_map, make):
    with pytest.raises(DataError, match=r"the particles have none \(rlnAngleRot.*job\.particles"):
        make(small_star, small_map).iterate(progress=False)
    broken = small_posed.copy()
    broken["angle_tilt"] = broken.angle_tilt.copy()
    broken["angle_tilt"][4] = np.nan
    with pytest.raises(DataError, match="particle 5 has none"):
        make(broken, small_map).iterate(progress=False)
    broken["angle_tilt"][4] = np.inf
    with pytest.raises(DataError, match="particle 5: angle_tilt is infinite"):
        make(broken, small_map)


def test_prior_angles_serve_where_there_are_no_others(small_posed, small_map):
    names = {"angle_rot": "rlnAngleRotPrior", "angle_tilt": "rlnAngleTiltPrior", "angle_psi": "rlnAnglePsiPrior"}
    job = FIXED["local"](small_posed.rename(names), small_map)
    assert np.array_equal(job.data.poses, FIXED["local"](small_posed, small_map).data.poses) and np.any(job.data.poses)
    job.iterate(progress=False)


def test_prior_columns_of_a_file(small_posed, small_map, tmp_path):
    names = {"angle_rot": "rlnAngleRotPrior", "angle_tilt": "rlnAngleTiltPrior", "angle_psi": "rlnAnglePsiPrior"}
    renamed = small_posed.rename(names)
    for name in names.values():
        renamed[name].attrs = {"relion_label": name}
    ctk.write_particles(renamed, tmp_path / "prior.star")
    found = ctk.open_particles(tmp_path / "prior.star", images=False)
    assert set(names.values()) <= set(found) and "angle_rot" not in found


# -- half-sets ---------------------------------------------------------------------------------------------------------


def test_copies_of_an_image_share_a_half_set(small_posed, small_map):
    copies = ctk.symmetry_expand(small_posed, "D2")
    job = ctk.Refine3D(copies, small_map, **MAPS)
    halves = job.half_sets.reshape(-1, 4)
    assert (halves == halves[:, :1]).all() and 20 <= (halves[:, 0] == 1).sum() <= 40
    assert same_image(small_posed) is None


def test_half_sets_that_are_no_numbers():
    with pytest.raises(DataError, match="particle 2 has random_subset 0"):
        split_halves(3, np.array([1, np.nan, 2]), 1)


# -- maps --------------------------------------------------------------------------------------------------------------


def test_a_reference_with_nothing_left(small_star, small_map):
    checks = xr.zeros_like(small_map) + np.indices(small_map.shape).sum(0) % 2
    checks.attrs = dict(small_map.attrs)
    with pytest.raises(DataError, match=r"reference 1 holds nothing that is coarser than 40 .*initial_lowpass"):
        ctk.Refine3D(small_star, checks, **MAPS).iterate(progress=False)


@pytest.mark.parametrize("pixel", [None, 0.0])
def test_a_reference_without_a_pixel_size(small_star, small_map, pixel):
    bare = xr.DataArray(small_map.values, dims=("z", "y", "x"), attrs={} if pixel is None else {"pixel_size": pixel})
    with pytest.raises(DataError, match=r"reference 1 has no pixel size.*pixel_size="):
        ctk.Refine3D(small_star, bare, **MAPS).iterate(progress=False)
    with pytest.raises(DataError, match=r"the mask has no pixel size.*pixel_size="):
        ctk.Refine3D(small_star, small_map, mask=bare * 0 + 1 if pixel is None else (bare * 0 + 1).assign_attrs(bare.attrs), **MAPS)


def test_a_resolution_is_not_beyond_nyquist(small_star, small_map):
    job = ctk.Refine3D(small_star, small_map, **(MAPS | {"initial_lowpass": 2.0}))
    assert job.current.model.current_resolution == pytest.approx(16.0)


# -- settings ----------------------------------------------------------------------------------------------------------


def test_settings_out_of_range(small_star, small_map):
    with pytest.raises(SettingsError, match=r"resolution_limit = 1000 .*less than half of the box"):
        ctk.Class3D(small_star, small_map, resolution_limit=1000, **MAPS)
    with pytest.raises(SettingsError, match="seed = -1"):
        ctk.Class3D(small_star, small_map, **(MAPS | {"seed": -1}))
    with pytest.warns(DataWarning, match=r"initial_sampling = 10: .* 7\.5 is used"):
        ctk.Class3D(small_star, small_map, **(MAPS | {"initial_sampling": 10}))
    with pytest.raises(ExecutionError, match=r"dask\.distributed\.Client"):
        ctk.execution.use("nope")


@pytest.mark.parametrize(("algorithm", "idle"), [("em", {"n_batches": 20}), ("vdam", {"n_iterations": 5})])
def test_the_length_of_the_other_algorithm(small_star, algorithm, idle):
    with pytest.warns(DataWarning, match=rf"{next(iter(idle))} = .* has no part in algorithm='{algorithm}'"):
        ctk.Class2D(small_star, 2, mask_diameter=170, algorithm=algorithm, **idle)


def test_a_voltage_of_zero(small_posed, small_map):
    with pytest.raises(DataError, match="optics group 1: voltage is 0; correct _rlnVoltage"):
        ctk.Class3D(small_posed.assign(voltage=small_posed.voltage * 0), small_map, **MAPS)


def test_questions_that_do_not_fit(small_star, small_map):
    job = ctk.Class3D(small_star, small_map, **MAPS)
    with pytest.raises(SettingsError, match=r"angles \(n, 3\) as rot, tilt, psi"):
        job.score(0, (10, 20), (0, 0))
    with pytest.raises(SettingsError, match="numbers, from 1"):
        job.select("a")


@pytest.mark.parametrize("values", [(1.0, 2.0), np.array([1.0, 2.0])])
def test_a_sweep_over_any_sequence(small_star, small_map, values):
    found = ctk.sweep(ctk.Class3D, small_star, small_map, tau2_fudge=values, run=False, **MAPS)
    assert [job.settings.tau2_fudge for job in found] == [1, 2]


def test_a_sweep_over_masks(small_star, small_map):
    masks = [(small_map * 0 + v).assign_attrs(small_map.attrs) for v in (0.5, 1.0)]
    found = ctk.sweep(ctk.Class3D, small_star, small_map, mask=masks, run=False, **MAPS)
    assert [float(job._mask.max()) for job in found] == [0.5, 1.0]


def test_a_sweep_over_no_seeds(small_star, small_map):
    with pytest.raises(SettingsError, match="seed is an empty list"):
        ctk.sweep(ctk.Class3D, small_star, small_map, run=False, **(MAPS | {"seed": []}))


@pytest.mark.parametrize("seeds", [[3, 4], np.array([3, 4]), range(3, 5)])
def test_a_sweep_over_seeds(small_star, small_map, seeds):
    found = ctk.sweep(ctk.Class3D, small_star, small_map, subset=30, run=False, **(MAPS | {"seed": seeds}))
    assert [job.settings.seed for job in found] == [3, 4]
    assert len({tuple(job.particles.image_name.values) for job in found}) == 1
