"""Figures of agreement between iterations."""

import numpy as np
import pytest
import xarray as xr

from cryotk.data import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.errors import DataError
from cryotk.testing import RELION_DEMANDS, compare_iterations, figures_table, unmet_demands


def iteration(n=100, names=None, **columns):
    rng = np.random.default_rng(3)
    s = np.ones((2, 9))
    model = RefinementModel(
        rng.normal(size=(2, 16, 16)), 2.0, np.ones((1, 9)), np.array([0.5, 0.5]), s, s.copy(), s.copy(), s.copy(), 0 * s,
        group_scales=np.ones(3), current_size=12, current_resolution=8.0,
    )  # fmt: skip
    table = {
        "class_number": rng.integers(1, 3, n), "angle_rot": np.zeros(n), "angle_tilt": np.zeros(n),
        "angle_psi": rng.uniform(-180, 180, n), "shift_x": rng.normal(size=n), "shift_y": rng.normal(size=n),
        "max_probability": rng.uniform(0.1, 1, n), "n_significant": rng.integers(1, 9, n), "log_likelihood": rng.normal(size=n),
        "norm_correction": np.ones(n),
    }  # fmt: skip
    table |= columns
    if names is not None:
        table["image_name"] = np.array(names, object)
    data = xr.Dataset({k: ("particle", v) for k, v in table.items()})
    return Iteration(1, model, SamplingSettings(), Convergence(), data, {})


def test_an_iteration_equals_itself():
    figures = compare_iterations(iteration(), iteration())
    assert not unmet_demands(figures)
    assert figures["same_pose"] == figures["same_class"] == 1
    assert figures["map_relative_rms"] == figures["noise_power"] == 0


def test_each_figure_sees_its_own_difference():
    base = iteration()
    other = iteration()
    other.assignments["angle_psi"][:5] += 1
    other.assignments["class_number"][:] = np.where(np.arange(100) < 3, 9, base.assignments["class_number"])
    other.assignments["shift_x"][:2] += 0.5
    other.assignments["n_significant"][:20] += 1
    other.assignments["max_probability"][:7] *= 1.05
    other.model.noise_power[0, 3] *= 1.01
    other.model.prior_power[0, 8] *= 5  # outside the window of 12 px: not compared
    other.model.references[0] *= 1.02
    figures = compare_iterations(other, base)
    assert figures["same_pose"] == 0.95
    assert figures["same_class"] == 0.97
    assert figures["same_offset"] == 0.98
    assert figures["same_significant"] == 0.80
    assert figures["p_max_within_1_percent"] == 0.93
    assert figures["noise_power"] == pytest.approx(0.01, rel=1e-3)
    assert figures["prior_power"] == 0
    assert figures["map_relative_rms"] == pytest.approx(0.02)
    missed = unmet_demands(figures)
    assert {m.split(" ")[0] for m in missed} == {
        "same_pose", "same_class", "same_offset", "same_significant", "p_max_within_1_percent", "noise_power", "map_relative_rms",
    }  # fmt: skip


def test_angles_wrap():
    a, b = iteration(), iteration()
    a.assignments["angle_psi"][:] = 180.0
    b.assignments["angle_psi"][:] = -180.0
    assert compare_iterations(a, b)["same_pose"] == 1


def test_particles_are_matched_by_image_name_whatever_the_zeros():
    a = iteration(names=[f"{i + 1}@s.mrcs" for i in range(100)])
    b = iteration(names=[f"{i + 1:06d}@s.mrcs" for i in range(100)])
    b.assignments = b.assignments.isel(particle=np.random.default_rng(0).permutation(100))
    assert compare_iterations(a, b)["same_class"] == 1


def test_maps_that_the_other_does_not_have_are_left_out():
    a, b = iteration(), iteration()
    b.model.references[1] = 0
    assert compare_iterations(a, b)["map_relative_rms"] == 0
    b.model.references[:] = 0
    figures = compare_iterations(a, b)
    assert "map_relative_rms" not in figures
    assert unmet_demands(figures) == ["map_relative_rms is not known, wanted <= 0.005"]


def test_what_cannot_be_compared_says_why():
    with pytest.raises(DataError, match="numbers of particles differ: 100 and 50"):
        compare_iterations(iteration(), iteration(50))
    other = iteration()
    other.model.references = other.model.references[:1]
    with pytest.raises(DataError, match="differ in shape"):
        compare_iterations(iteration(), other)


def test_the_table_has_a_line_per_figure():
    figures = compare_iterations(iteration(), iteration())
    text = figures_table({"a": figures, "b": {"same_pose": 0.5}})
    assert len(text.splitlines()) == len(figures) + 1
    assert "demand" in text and ">= 0.99" in text
    assert set(RELION_DEMANDS) <= set(figures)
