"""VDAM's schedules against RELION's own iterations."""

import numpy as np
import pytest

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
