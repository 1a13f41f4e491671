"""Class gallery: what Python sets and is told, what a job's progress does, what goes to the page."""

import base64
import io

import numpy as np
import pytest
import traitlets
import xarray as xr
from cryotk_widgets import ClassGallery
from cryotk_widgets.pictures import contact_sheet, contrast_limits, sprite_of

from cryotk.data import Convergence, Iteration, RefinementModel, SamplingSettings
from cryotk.errors import MissingFileError, SettingsError
from cryotk.execution.progress import Progress

K, N = 5, 24


def make_iteration(number=3, k=K, n=N, seed=0, pixel_size=2.0, share=None):
    rng = np.random.default_rng([seed, number])
    radius = np.hypot(*np.mgrid[-(n // 2) : n - n // 2, -(n // 2) : n - n // 2])
    references = np.stack([np.exp(-((radius / (2 + i)) ** 2)) for i in range(k)]) + 0.02 * rng.normal(size=(k, n, n))
    share = np.array(share if share is not None else [0.1, 0.4, 0.0, 0.3, 0.2][:k])
    shells = np.zeros((k, n // 2 + 1))
    model = RefinementModel(
        references=references, pixel_size=pixel_size, noise_power=np.ones((1, n // 2 + 1)), class_distribution=share, prior_power=shells,
        data_vs_prior=np.geomspace(100, 0.1, n // 2 + 1) * np.ones((k, 1)), reference_noise=shells, fourier_completeness=shells,
        gold_standard_fsc=shells, current_resolution=12.0, average_p_max=0.5, class_resolution=np.array([20.0, 12.0, np.inf, 9.0, 999.0])[:k],
        accuracy_rotation=np.array([2.1, 999.0, 999.0, 3.0, 1.0])[:k], accuracy_translation=np.array([1.3, 999.0, 999.0, 2.0, 1.0])[:k],
    )  # fmt: skip
    numbers = rng.choice(np.arange(1, k + 1), 50, p=share / share.sum())
    table = xr.Dataset({"class_number": ("particle", numbers), "angle_psi": ("particle", np.zeros(50))})
    return Iteration(number, model, SamplingSettings(), Convergence(), table, {"resolution": 12.0, "average_p_max": 0.5})


class FakeJob:
    """The part of a job that a view may use."""

    def __init__(self, n_iterations=4):
        self.iterations, self.n_iterations, self.running, self.target = [make_iteration(0)], n_iterations, False, None
        self.listeners, self.calls = [], []

    @property
    def iteration(self):
        return self.iterations[-1].number

    def iterate(self):
        self.tell("expectation", 0.63, 12.0)
        self.iterations.append(make_iteration(len(self.iterations)))
        self.tell("finished", 1.0, iteration=self.iteration)

    def tell(self, phase, fraction, left=None, message="", iteration=None):
        for listener in list(self.listeners):
            listener(Progress(iteration or self.iteration + 1, fraction, phase, left, message))

    def on_progress(self, listener):
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")

    def select(self, classes, iteration=None):
        self.calls.append(("select", classes, iteration))
        return xr.Dataset()


def test_shows_an_iteration():
    g = ClassGallery(make_iteration())
    assert g.n_classes == K and g.tile_pixels == N and len(g.sprite) == K * N * N
    assert g.sort == "particles" and g.iteration == 3
    assert g.resolution == [20.0, 12.0, 0.0, 9.0, 0.0]
    assert sum(g.counts) == 50 and g.counts[2] == 0
    assert g.details[0] == "accuracy 2.1° / 1.3 Å" and g.details[1] == ""
    assert "12.0 Å" in g.summary and "P_max 0.50" in g.summary
    assert g.pixel_size == 2.0


def test_tiles_carry_their_own_range_and_share_one_contrast():
    it = make_iteration()
    g = ClassGallery(it)
    pixels = np.frombuffer(g.sprite, np.uint8).reshape(K, N, N)
    low, high = np.array(g.tile_ranges).T
    back = low[:, None, None] + (high - low)[:, None, None] * pixels / 255
    assert np.abs(back - it.model.references).max() < (high - low).max() / 400
    assert g.limits == list(contrast_limits(it.model.references.astype(np.float32), it.model.class_distribution))


def test_contrast_ignores_classes_that_hold_nobody():
    images = np.zeros((3, 32, 32), np.float32)
    images[0] = np.random.default_rng(0).normal(size=(32, 32))
    images[1], images[2] = images[0], 1000 * images[0]
    low, high = contrast_limits(images, np.array([0.5, 0.5, 0.0]))
    assert -4 < low < high < 4
    low, high = contrast_limits(images, np.array([0.5, 0.498, 0.002]))
    assert -5 < low < high < 5


def test_a_page_gets_at_most_four_megabytes():
    rng = np.random.default_rng(0)
    big = rng.normal(size=(200, 200, 200)).astype(np.float32)
    s = sprite_of(big, np.full(200, 1 / 200))
    assert len(s.pixels) == 200 * s.edge**2 <= 4_000_000 and s.edge == 141
    # Fourier cropping keeps a slow wave where it was
    n = 256
    y, x = np.mgrid[-n // 2 : n // 2, -n // 2 : n // 2]
    wave = np.cos(2 * np.pi * (3 * x + 5 * y) / n).astype(np.float32)[None]
    s = sprite_of(wave, np.ones(1))
    m = s.edge
    assert m == 160
    lo, hi = s.ranges[0]
    tile = lo + (hi - lo) / 255 * np.frombuffer(s.pixels, np.uint8).reshape(m, m)
    y, x = np.mgrid[-m // 2 : m // 2, -m // 2 : m // 2]
    assert np.abs(tile - np.cos(2 * np.pi * (3 * x + 5 * y) / m)).max() < 0.01


def test_volumes_show_their_projection():
    it = make_iteration(k=2, share=[0.5, 0.5])
    volume = np.zeros((2, 16, 16, 16))
    volume[:, :, 8, 8] = 1
    it.model = it.model.copy(references=volume)
    g = ClassGallery(it)
    tile = np.frombuffer(g.sprite, np.uint8).reshape(2, 16, 16)[0]
    assert tile[8, 8] == 255 and (tile > 0).sum() == 1


def test_selection_is_sorted_checked_and_told_from_both_sides():
    g = ClassGallery(make_iteration(), selected=[4, 2, 4])
    assert g.selected == [2, 4]
    with pytest.raises(SettingsError, match="1 to 5"):
        g.selected = [6]
    assert g.selected == [2, 4]
    answers = []
    g.send = lambda content, buffers=None: answers.append(content)
    g._on_message(g, {"cmd": "select", "classes": [5, 1], "serial": 7}, [])
    assert g.selected == [1, 5] and answers == [{"selected": 7}]
    assert set(np.unique(g.selected_particles().class_number)) == {1, 5}


def test_settings_from_the_page_and_from_python():
    g = ClassGallery(make_iteration(), sort="resolution", lowpass=20)
    for name, value in (("sort", "number"), ("contrast", 2.0), ("lowpass", 12), ("per_tile", True), ("fade", True), ("tile_size", 200)):
        g._on_message(g, {"cmd": "set", "name": name, "value": value}, [])
        assert getattr(g, name) == value
    g._on_message(g, {"cmd": "set", "name": "theme", "value": "dark"}, [])
    assert g.theme == "auto"
    with pytest.raises(traitlets.TraitError):
        g.sort = "beauty"


def test_follows_a_job_and_stops_following_when_one_looks_back():
    job = FakeJob()
    g = ClassGallery(job)
    assert g.summary.startswith("start") and g.progress == {"running": False, "can_run": True}
    job.target = 4
    job.tell("expectation", 0.63, 12.0)
    assert g.progress["running"] and g.progress["fraction"] == 0.63 and g.progress["seconds_left"] == 12.0
    job.iterate()
    job.iterate()
    assert g.iteration == 2 and g.n_iterations == 3 and g.position == 2
    assert g.progress["running"], "more iterations are to come"
    g.position = 1
    assert g.iteration == 1
    job.iterate()
    assert g.iteration == 1 and g.n_iterations == 4, "the page stays where the user looks"
    g.position = 3
    job.iterate()
    assert g.iteration == 4 and not g.progress["running"], "the last one ends the run"


def test_run_stop_failure_and_close():
    job = FakeJob()
    g = ClassGallery(job)
    g._on_message(g, {"cmd": "run"}, [])
    g._on_message(g, {"cmd": "stop"}, [])
    assert job.calls == ["start", "stop"]
    job.tell("stopped", 1.0)
    assert not g.progress["running"] and g.progress["message"] == "stopped: iteration 0 stands"
    job.tell("failed", 1.0, message="disk full")
    assert g.progress["message"] == "failed: disk full"
    g.selected = [2]
    g.selected_particles()
    assert job.calls[-1] == ("select", [2], 0)
    g.close()
    assert not job.listeners


def test_job_without_iterations_says_what_to_do():
    job = FakeJob()
    job.iterations.clear()
    g = ClassGallery(job)
    assert g.n_classes == 0 and "press Run" in g.empty_text and "press Run" in repr(g)
    with pytest.raises(SettingsError, match="run the job first"):
        g.selected_particles()
    assert "image/png" not in g._repr_mimebundle_()[0]
    job.iterations.append(make_iteration(0))
    job.tell("expectation", 0.0)
    assert g.n_classes == K


def test_static_picture_travels_with_the_notebook():
    from PIL import Image

    g = ClassGallery(make_iteration(), selected=[2])
    bundle = g._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in bundle and "5 classes" in bundle["text/plain"]
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert image.width > 5 * 96 and np.ptp(np.asarray(image)) > 200


@pytest.mark.parametrize("sort", ["number", "particles", "resolution"])
def test_contact_sheet_frames_the_selected_class(sort):
    it = make_iteration()
    m = it.model
    sheet = np.asarray(contact_sheet(m.references, m.class_distribution, m.class_resolution, 32, selected={2}, sort=sort))
    column = np.nonzero((sheet == (230, 159, 0)).all(-1).any(0))[0].min() // 38
    assert column == {"number": 1, "particles": 0, "resolution": 1}[sort]


def test_a_class_is_sent_whole_on_demand():
    g = ClassGallery(make_iteration())
    got = []
    g.send = lambda content, buffers=None: got.append((content, buffers))
    g._on_message(g, {"cmd": "full", "index": 1}, [])
    content, buffers = got[0]
    assert content["full"] == 1 and content["n"] == N and len(buffers[0]) == N * N and len(content["curve"]) == N // 2 + 1
    g._on_message(g, {"cmd": "full", "index": 99}, [])
    assert len(got) == 1


def test_saving_a_selection(tmp_path):
    import cryotk as ctk

    particles = ctk.simulate.particles(60, 32, 6.0, seed=1)
    job = ctk.Class2D(particles, 2, mask_diameter=150, n_iterations=2, seed=1)
    g = job.view()
    job.run(progress=False)
    g.selected = [1]
    path = g.save_selection(tmp_path / "good.star")
    back = ctk.open_particles(path)
    expected = int((job.assignments.class_number == 1).sum())
    assert back.sizes["particle"] == expected == g.selected_particles().sizes["particle"]
    assert (back.class_number == 1).all()
    with pytest.raises(SettingsError, match="exists already"):
        g.save_selection(path)
    with pytest.raises(SettingsError, match=r"\.star"):
        g.save_selection(tmp_path / "good.txt")
    g._save_from_page(str(path), [1])
    assert "not written" in g.notice
    g._save_from_page(str(tmp_path / "more.star"), [1, 2])
    assert g.notice.startswith("60 particles written to") and g.selected == [1, 2]
    bare = ClassGallery(make_iteration(), selected=[1])
    with pytest.raises(SettingsError, match="assignments only"):
        bare.save_selection(tmp_path / "x.star")


def test_shows_relions_results(shared):
    g = ClassGallery(shared / "reference" / "class2d_em" / "run_it025_optimiser.star")
    assert g.n_classes == 6 and g.iteration == 25 and sum(g.counts) == 1000
    assert sorted(g.counts, reverse=True)[0] == 313
    g.selected = [int(np.argmax(g.counts)) + 1]
    assert g.selected_particles().sizes["particle"] == 313
    m = ClassGallery(shared / "reference" / "class2d_em" / "run_it025_model.star")
    assert m.sprite == g.sprite


def test_steps_through_a_folder_of_relions_iterations(tmp_path):
    import cryotk as ctk

    particles = ctk.simulate.particles(60, 32, 6.0, seed=1)
    job = ctk.Class2D(particles, 2, mask_diameter=150, n_iterations=2, seed=1)
    job.run(progress=False)
    job.save(tmp_path / "Class2D" / "job003")
    g = ClassGallery(tmp_path / "Class2D" / "job003")
    assert g.n_iterations == 3 and g.iteration == 2 and g.sort == "particles"
    g.position = 1
    assert g.iteration == 1
    assert np.allclose(g.occupancy, job.iterations[1].model.class_distribution, atol=1e-5)


@pytest.mark.parametrize("wrong", [5, None, [1, 2], np.zeros((3, 8, 8))])
def test_says_what_a_gallery_can_show(wrong):
    with pytest.raises(SettingsError, match="shows a job, an Iteration"):
        ClassGallery(wrong)


def test_folder_without_iterations(tmp_path):
    with pytest.raises(MissingFileError, match="no iteration"):
        ClassGallery(tmp_path)
