"""VDAM's schedules against RELION's own iterations."""

import numpy as np
import pytest

from cryotk.data import Convergence, RefinementModel, SamplingSettings
from cryotk.jobs.initial_model_schedule import InitialModelSettings, next_sampling, with_directions
from cryotk.jobs.updates import next_image_size, round_int
from cryotk.jobs.vdam_schedule import Phases, Schedule, batch_sizes, mini_batch

pytestmark = pytest.mark.golden

RUNS = {
    "class2d_vdam": Schedule("class2d", 200, 1000, 2.0, n_classes=6),
    "initial_model": Schedule("initial_model", 60, 500, 4.0),
}


def history(shared, name):
    """Columns of RELION's history, by name."""
    lines = (shared / "reference" / name / "history.tsv").read_text().splitlines()
    names, rows = lines[0].split("\t"), [line.split("\t") for line in lines[1:]]
    return {n: [r[i] for r in rows] for i, n in enumerate(names)}


@pytest.mark.parametrize("name", RUNS)
def test_schedules_are_relions_to_all_digits(shared, name):
    table, s = history(shared, name), RUNS[name]
    iterations = [int(i) for i in table["iter"]]
    assert len(iterations) > 30
    assert [s.subset_size(i) for i in iterations[1:]] == [int(v) for v in table["subset_size"][1:]]
    for i, step, tau2 in zip(iterations, table["grad_stepsize"], table["tau2_fudge"], strict=True):
        if i > 0:
            assert s.step_size(i) == pytest.approx(float(step), abs=6e-7)
            assert s.tau2(i) == pytest.approx(float(tau2), abs=6e-7)


def test_phases_leave_room_for_the_transition():
    assert Phases.of(200) == Phases(60, 100, 40)
    assert Phases.of(60) == Phases(18, 30, 12)
    assert Phases.of(10, 0.8, 0.6) == Phases(5, 1, 4)


@pytest.mark.parametrize(
    ("kind", "n", "expected"),
    [
        ("class2d", 1000, (200, 1000)), ("class2d", 400_000, (2000, 20_000)), ("class2d", 10_000_000, (10_000, 100_000)),
        ("initial_model", 500, (200, 1000)), ("initial_model", 2_000_000, (5000, 50_000)), ("class3d", 50_000, (5000, 5000)),
    ],
)  # fmt: skip
def test_batch_sizes(kind, n, expected):
    b = batch_sizes(kind, n)
    assert (b.initial, b.final) == expected


def test_every_particle_gets_a_class_in_the_end():
    assert Schedule("class2d", 200, 50_000, 2.0, n_classes=6).subset_size(200) == -1
    assert Schedule("class2d", 200, 50_000, 2.0, n_classes=1).subset_size(200) == 2500


def test_mini_batches_are_fresh_and_depend_on_the_seed_alone():
    a, b = mini_batch(1000, 200, 1, 5), mini_batch(1000, 200, 1, 5)
    assert np.array_equal(a, b) and len(np.unique(a)) == 200
    assert not np.array_equal(a, mini_batch(1000, 200, 1, 6))
    assert not np.array_equal(a, mini_batch(1000, 200, 2, 5))
    assert np.array_equal(mini_batch(10, 20, 1, 1), np.arange(10))


@pytest.mark.parametrize(("name", "least"), [("class2d_vdam", 35), ("initial_model", 30)])
def test_each_iterations_image_size_follows_from_the_last_ones_resolution(shared, name, least):
    """Ten shells beyond the resolution; with the window of 15 A that initial models have by default this ends at 32 pixels."""
    table = history(shared, name)
    iterations = [int(i) for i in table["iter"]]
    pairs = [j for j in range(1, len(iterations)) if iterations[j] == iterations[j - 1] + 1]
    assert len(pairs) >= least
    for j in pairs:
        shell = round_int(64 * 3.54 / float(table["resolution_A"][j - 1]))
        assert next_image_size(shell, 64, 10, float(table["ave_Pmax"][j - 1]), False) == int(table["image_size"][j])


def test_relions_offsets_and_angles_get_finer_as_its_files_say(shared):
    """At mini-batch 10: half the angles, 3 A (1.5 A oversampled) and a range of five times the last change."""
    table = history(shared, "initial_model")
    j = table["iter"].index("10")
    c = Convergence(iterations_without_resolution_gain=3, changes_offset=float(table["offset_range_A"][j]) / 5)
    start = with_directions(
        SamplingSettings(
            is_3d=True, healpix_order=1, psi_step=30, offset_range=6 * 3.54, offset_step=2 * 3.54, offset_range_original=6 * 3.54
        )
    )
    a, k = 3.54, np.zeros((1, 33))
    model = RefinementModel(
        references=np.zeros((1, 64, 64, 64)), pixel_size=a, noise_power=k, class_distribution=np.ones(1), prior_power=k,
        data_vs_prior=k, reference_noise=k, fourier_completeness=k, gold_standard_fsc=k, current_resolution=45.312,
        accuracy_rotation=np.array([float(table["acc_rot_deg"][j])]),
        accuracy_translation=np.array([float(table["acc_trans_A"][j])]),
    )  # fmt: skip
    settings = InitialModelSettings(seed=1, compat="relion")
    finer, after = next_sampling(start, c, model, settings)
    assert finer.healpix_order == int(table["healpix_order"][j]) and finer.psi_step == float(table["psi_step"][j])
    assert finer.offset_step == pytest.approx(float(table["offset_step_A"][j]))
    assert finer.offset_range == pytest.approx(float(table["offset_range_A"][j]))
    assert after.iterations_without_resolution_gain == 0 and len(finer.directions) == 192
    # at 20 the angles are fine enough for the accuracy that is estimated then: 7.5 < 0.75 * 10.55
    j = table["iter"].index("20")
    model.accuracy_rotation[:] = float(table["acc_rot_deg"][j])
    assert next_sampling(finer, c, model, settings)[0].healpix_order == int(table["healpix_order"][j])
    # without RELION's Å for pixels: no finer than offsets can be told, no further than they are spread
    model.accuracy_rotation[:], model.sigma_offset = 5.0, 3.0
    ours, _ = next_sampling(start, c, model, InitialModelSettings(seed=1))
    assert ours.offset_step == pytest.approx(2 * 3.54) and ours.offset_range == pytest.approx(1.5 * 2 * 3.54)
    # 15 degrees are enough at 45 Å for 200 Å particles, but not at 25 Å
    assert ours.healpix_order == 1
    model.current_resolution = 25.0
    assert next_sampling(start, c, model, InitialModelSettings(seed=1))[0].healpix_order == 2
    # 7.5 degrees are enough at 20 Å
    model.current_resolution = 20.0
    assert next_sampling(finer, c, model, InitialModelSettings(seed=1))[0].healpix_order == 2
    assert next_sampling(finer, c, model, settings)[0].healpix_order == 3
