"""RefineView and ClassView3D in Python: what they show of an iteration, whoever made it, and how they follow a job."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cryotk_widgets import ClassGallery, ClassView3D, RefineView, view_job
from cryotk_widgets.directions import direction_map, mollweide_angles

import cryotk as ctk
from cryotk.errors import DataError, SettingsError

_spec = importlib.util.spec_from_file_location("cryotk_test_volumes", Path(__file__).with_name("volumes.py"))
volumes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(volumes)
iteration = volumes.iteration


def values(view, k=1):
    low, high = view.value_range
    return low + np.frombuffer(view.data, np.uint8).reshape(k, *view.shape) / 255 * (high - low)


def test_an_iteration_with_its_numbers():
    view = RefineView([iteration(i) for i in range(5)])
    assert view.iteration == 4 and view.n_iterations == 5 and len(view.history) == 5
    it = iteration(4)
    assert np.abs(values(view)[0] - it.model.references[0]).max() < 0.01
    row = view.history[4]
    assert row["curve"] == pytest.approx(it.model.gold_standard_fsc[0], abs=1e-4)
    # RELION counts the last shell before the curve is below 0.143
    shell = int(np.nonzero(it.model.gold_standard_fsc[0] < 0.143)[0][0]) - 1
    assert row["resolution"] == pytest.approx(32 * 4.0 / shell)
    assert view.summary == f"1.88° · 1.0 px · P_max 0.60 · {128 / shell:.1f} Å"
    assert row["words"]["size"] == "12 px" and row["words"]["accuracy"] == "2.00°" and row["words"]["changes"] == "2.5°"
    assert view.frequency[1] == pytest.approx(1 / 128) and view.curve_kind == "FSC"
    view.position = 1
    assert view.iteration == 1 and np.abs(values(view)[0] - iteration(1).model.references[0]).max() < 0.01


def test_threshold_follows_the_maps_until_it_is_set():
    its = [iteration(0), iteration(4)]
    its[1].model.references *= 10
    view = RefineView(its, position=0)
    assert view.threshold == view.suggested
    view.position = 0
    first = view.threshold
    view.position = 1
    assert view.threshold == view.suggested > 5 * first
    view._on_message(view, {"cmd": "set", "name": "threshold", "value": 3.0}, [])
    view.position = 0
    assert view.threshold == 3.0


def test_without_half_sets_the_signal_to_noise_is_shown():
    view = RefineView(iteration(2, halves=False))
    assert view.curve_kind == "data vs prior" and view.history[0]["curve"][0] == 100.0
    assert view.history[0]["resolution"] == pytest.approx(32.0)


def test_relion_s_own_refinement(shared):
    view = RefineView(shared / "reference" / "refine3d" / "run_model.star")
    assert view.summary.endswith("10.8 Å") and view.history[0]["words"]["iteration"] == "last"
    halves = [ctk.open_volume(shared / "reference" / "refine3d" / f"run_half{h}_class001_unfil.mrc").values for h in (1, 2)]
    # the joined map is not there: the mean of its halves
    low, high = view.value_range
    assert np.abs(np.clip(np.mean(halves, 0), low, high) - values(view)[0]).max() < (high - low) / 250
    assert "D2" in view.directions_text and len(view.directions) == 240 * 120
    assert view.to_png()[:4] == b"\x89PNG"


def test_relion_s_own_classification(shared):
    view = ClassView3D(shared / "reference" / "class3d" / "alignment" / "run_it025_optimiser.star")
    assert view.n_classes == 2 and sum(view.counts) == 500 and view.occupancy == pytest.approx([0.542, 0.458], abs=1e-3)
    assert view.details[0] == "accuracy 5.3° / 3.8 Å" and "25.2 Å" in view.summary
    view.selected = [2]
    assert view.selected_particles().sizes["particle"] == view.counts[1]


def test_classes_selected_and_saved(tmp_path):
    view = ClassView3D([iteration(2, k=3), iteration(3, k=3)], selected=[1])
    assert view.occupancy == [0.6, 0.4, 0.0] and len(view.data) == 3 * 32**3
    assert np.abs(values(view, 3)[:2] - iteration(3, k=3).model.references[:2]).max() < 0.01
    said = []
    view.send = lambda content, buffers=None: said.append(content)
    view._on_message(view, {"cmd": "select", "classes": [2, 1], "serial": 5}, [])
    assert view.selected == [1, 2] and said == [{"selected": 5}]
    with pytest.raises(SettingsError, match="1 to 3"):
        view.selected = [4]
    view._save_from_page(str(tmp_path / "x.star"), [2])
    assert view.notice.startswith("not written") and "assignments only" in view.notice
    assert view.history[0]["occupancy"] == [0.6, 0.4, 0.0]
    data, _ = view._repr_mimebundle_()
    assert "image/png" in data and "3 classes" in data["text/plain"]
    # eight maps keep the budget
    assert len(ClassView3D(iteration(3, k=4, n=90)).data) <= 2.05e6


class Job:
    """What a view needs of a job."""

    def __init__(self, its, **settings):
        self.iterations, self.running, self.target, self.done = its, False, 9, []
        self.settings = SimpleNamespace(**settings)

    def iterate(self):
        self.iterations.append(iteration(len(self.iterations)))

    @property
    def iteration(self):
        return len(self.iterations) - 1

    def on_progress(self, f):
        self.listener = f
        return lambda: self.done.append("gone")

    def stop(self):
        self.done.append("stop")

    def start(self):
        self.done.append("start")


def test_following_a_job():
    job = Job([])
    view = RefineView(job)
    assert view.empty_text.startswith("No iteration yet") and view.to_png() == b"" and view.shown is None
    view._on_message(view, {"cmd": "run"}, [])
    job.iterate()
    job.listener(SimpleNamespace(phase="expectation", iteration=1, fraction=0.5, seconds_left=3.0, message=""))
    assert view.iteration == 0 and view.progress["running"] and view.progress["fraction"] == 0.5
    job.iterate()
    job.listener(SimpleNamespace(phase="finished", iteration=1, fraction=1.0, seconds_left=None, message=""))
    assert view.iteration == 1 and view.progress["running"]
    # who looks back is not pulled forward
    view.position = 0
    job.iterate()
    job.listener(SimpleNamespace(phase="finished", iteration=2, fraction=1.0, seconds_left=None, message=""))
    assert view.iteration == 0 and view.n_iterations == 3
    view._on_message(view, {"cmd": "stop"}, [])
    job.listener(SimpleNamespace(phase="stopped", iteration=3, fraction=0.2, seconds_left=None, message=""))
    assert not view.progress["running"] and view.progress["message"] == "stopped: iteration 2 stands"
    view.close()
    assert job.done == ["start", "stop", "gone"]


def test_which_view_fits_which_job():
    assert isinstance(view_job(Job([iteration(0)], symmetry="D2")), RefineView)
    assert isinstance(view_job(Job([iteration(0, k=2)], symmetry="C1", n_classes=2)), ClassView3D)
    assert isinstance(view_job(Job([], n_classes=5)), ClassGallery)
    flat = iteration(0)
    flat.model.references = flat.model.references[0]
    with pytest.raises(DataError, match="ClassGallery"):
        RefineView(flat)


def test_a_real_job_is_followed():
    particles = ctk.simulate.example().cryo.select(np.arange(60))
    reference = ctk.simulate.volume(ctk.simulate.molecule(), 64, 3.5)
    job = ctk.Refine3D(particles, reference, symmetry="D2", initial_lowpass=40, mask_diameter=190, seed=1)
    view = job.view()
    job.run(until=1, progress=False)
    assert isinstance(view, RefineView) and view.iteration == 1 and not view.progress["running"]
    assert view.directions and view.history[1]["curve"]


def test_directions_lie_where_they_belong():
    rot, tilt, inside = mollweide_angles(240)
    # equal area: the share of the map within 30 degrees of the pole is (1 - cos 30) / 2
    assert (inside & (tilt < 30)).sum() / inside.sum() == pytest.approx((1 - np.cos(np.radians(30))) / 2, abs=0.003)
    assert abs(rot[60, 120]) < 2 and abs(tilt[60, 120] - 90) < 1 and tilt[0][inside[0]].max() < 15
    image, most = direction_map(np.full(1600, 90.0), np.full(1600, 60.0))
    bright = image == 255
    assert abs(np.median(rot[bright]) - 90) < 20 and abs(np.median(tilt[bright]) - 60) < 20 and most > 20
    assert (image[~inside] == 0).all() and (image[inside] > 0).all()
    # D2: the mates are filled, too
    mates, _ = direction_map(np.full(400, 90.0), np.full(400, 60.0), "D2")
    assert (mates == 255).sum() > 2.5 * bright.sum()
    even = np.random.default_rng(0)
    _, most = direction_map(even.uniform(-180, 180, 40000), np.degrees(np.arccos(even.uniform(-1, 1, 40000))))
    assert 1 < most < 2.5
    assert direction_map([], [])[1] == 0
