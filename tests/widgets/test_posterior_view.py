"""PosteriorView: the sums it shows are those of the posterior."""

import time

import numpy as np
import pytest
import xarray as xr
from cryotk_widgets import PosteriorView

import cryotk as ctk
from cryotk.errors import DataError, SettingsError


def posterior(n=200, k=3, seed=0):
    rng = np.random.default_rng(seed)
    w = rng.uniform(size=n)
    columns = {
        "weight": w / w.sum(), "class_number": rng.integers(1, k + 1, n), "angle_rot": rng.choice([-170.0, 20.0, 190.0], n),
        "angle_tilt": rng.choice([30.0, 80.0], n), "angle_psi": rng.choice([10.0, 350.0, -10.0], n), "shift_x": rng.choice([-3.0, 0.0, 3.0], n),
        "shift_y": rng.choice([0.0, 7.0], n),
    }  # fmt: skip
    return xr.Dataset(
        {c: ("sample", v) for c, v in columns.items()}, attrs={"particle": 5, "p_max": 0.3, "n_significant": 12, "n_classes": k + 1}
    )


def test_sums_over_all_other_dimensions():
    p = posterior()
    view = PosteriorView(p)
    assert view.particle == 5 and not view.can_walk and "P_max 0.30 · 12 significant samples · best: class" in view.summary
    assert view.classes == pytest.approx([float(p.weight[p.class_number == c].sum()) for c in (1, 2, 3, 4)])
    angles = dict(view.angles)
    # 350 and -10 are one angle, 190 and -170 one direction
    assert set(angles) == {10.0, -10.0} and angles[10.0] == pytest.approx(float(p.weight[p.angle_psi == 10].sum()))
    assert {tuple(d[:2]) for d in view.directions} == {(-170.0, 30.0), (-170.0, 80.0), (20.0, 30.0), (20.0, 80.0)}
    shifts = {(x, y): w for x, y, w in view.shifts}
    assert shifts[(3.0, 7.0)] == pytest.approx(float(p.weight[(p.shift_x == 3) & (p.shift_y == 7)].sum())) and view.reach == 8
    assert sum(w for *_, w in view.directions) == pytest.approx(1) and view.to_png()[:4] == b"\x89PNG"


def test_two_dimensional_classes_have_no_directions():
    p = posterior().assign(angle_rot=("sample", np.zeros(200)), angle_tilt=("sample", np.zeros(200)))
    view = PosteriorView(p)
    assert view.directions == [] and "tilt" not in view.summary


def test_walking_through_a_job():
    particles = ctk.simulate.example().cryo.select(np.arange(40))
    job = ctk.Class2D(particles, n_classes=3, mask_diameter=190, n_iterations=2, seed=1)
    view = PosteriorView(job)
    assert "No iteration yet" in view.empty_text and view.shifts == [] and view.to_png() == b""
    job.iterate()
    view = PosteriorView(job, particle=3)
    p = job.posterior(3)
    assert view.classes == pytest.approx(np.bincount(p.class_number, p.weight / p.weight.sum(), minlength=4)[1:], abs=1e-5)
    first = view.classes
    view._on_message(view, {"cmd": "particle", "index": 12}, [])
    deadline = time.monotonic() + 20
    while view.classes == first and time.monotonic() < deadline:
        time.sleep(0.02)
    assert view.particle == 12 and view.posterior.attrs["particle"] == 12 and view.classes != first
    view.particle = 0
    assert view.posterior.attrs["particle"] == 0
    with pytest.raises(SettingsError, match="0 to 39"):
        PosteriorView(job, particle=40)
    with pytest.raises(DataError, match="not int"):
        PosteriorView(4)
