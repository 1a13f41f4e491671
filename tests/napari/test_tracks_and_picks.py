"""Tracks of polishing, of tilt series and of whole movies; picks in tomograms."""

from __future__ import annotations

import time

import numpy as np
import pytest
from cryotk_widgets.napari.readers import read

import cryotk as ctk
from cryotk.errors import FileFormatError, MissingFileError
from cryotk.io import read_star

napari = [
    pytest.mark.napari,
    pytest.mark.filterwarnings("ignore::FutureWarning:napari"),
    pytest.mark.filterwarnings("ignore:.*viewer.camera.*:FutureWarning"),
]


def star(path, blocks):
    text = ""
    for name, columns in blocks.items():
        if isinstance(columns, dict) and not isinstance(next(iter(columns.values())), (list, np.ndarray)):
            text += f"data_{name}\n\n" + "".join(f"_{k} {v}\n" for k, v in columns.items()) + "\n"
        else:
            text += f"data_{name}\n\nloop_\n" + "".join(f"_{k} #{i}\n" for i, k in enumerate(columns, 1))
            text += "".join(" ".join(map(str, row)) + "\n" for row in zip(*columns.values(), strict=True)) + "\n"
    path.write_text(text)


@pytest.fixture
def polished(tmp_path):
    """A polishing job of RELION's layout: a micrograph, shiny.star, tracks of two of its three particles' micrographs."""
    folder = tmp_path / "Polish" / "job010"
    (folder / "Micrographs").mkdir(parents=True)
    (tmp_path / "MotionCorr").mkdir()
    ctk.write_stack(np.random.default_rng(0).standard_normal((1, 80, 100)).astype(np.float32), tmp_path / "MotionCorr" / "m1.mrc", 2.0)
    star(folder / "shiny.star", {
        "optics": {"rlnOpticsGroup": [1], "rlnImagePixelSize": [3.0], "rlnMicrographOriginalPixelSize": [2.0]},
        "particles": {"rlnCoordinateX": [10, 70, 5], "rlnCoordinateY": [20, 30, 5], "rlnMicrographName": ["MotionCorr/m1.mrc", "MotionCorr/m1.mrc", "MotionCorr/m2.mrc"],
                      "rlnOpticsGroup": [1, 1, 1]},
    })  # fmt: skip
    star(folder / "Micrographs" / "m1_tracks.star", {
        "general": {"rlnParticleNumber": 2},
        "0": {"rlnOriginXAngst": [1.0, 0.5, -0.5], "rlnOriginYAngst": [0.0, 0.1, 0.2]},
        "1": {"rlnOriginXAngst": [0.0, 0.0, 1.0], "rlnOriginYAngst": [-1.0, 0.0, 1.0]},
    })  # fmt: skip
    return folder


def test_tracks_of_polishing_start_at_their_particles(polished):
    (image, _, kind), (data, options, tracks), (starts, _, points) = read(str(polished / "Micrographs" / "m1_tracks.star"))
    assert (kind, tracks, points) == ("image", "tracks", "points") and image.shape == (80, 100)
    assert data[:, :2].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    # Å (y, x): coordinate times the micrograph's 2 Å, plus the motion thirty-fold
    assert np.allclose(data[:3, 2:], [[40 + 0, 20 + 30], [40 + 3, 20 + 15], [40 + 6, 20 - 15]])
    assert np.allclose(data[3:, 2:], [[60 - 30, 140], [60, 140], [60 + 30, 140 + 30]])
    assert np.allclose(starts, data[[0, 3], 2:]) and options["metadata"]["cryotk"]["enlarged"] == 30 and "× 30" in options["name"]
    assert options["tail_length"] >= 3 and options["features"]["frame"].tolist() == [0, 1, 2] * 2


def test_tracks_without_places_are_shown_as_they_are(polished):
    (polished / "shiny.star").unlink()
    [(data, options, kind)] = read(str(polished / "Micrographs" / "m1_tracks.star"))
    assert kind == "tracks" and "places unknown" in options["name"] and np.allclose(data[0, 2:], [0.0, 1.0])
    star(polished / "empty_tracks.star", {"general": {"rlnParticleNumber": 0}})
    with pytest.raises(FileFormatError, match="no tracks"):
        read(str(polished / "empty_tracks.star"))


@pytest.mark.golden
def test_relions_own_tracks(shared):
    file = shared / "reference" / "polish" / "default" / "Micrographs" / "mov001_tracks.star"
    (data, _, _), _ = read(str(file))
    blocks = read_star(file)
    assert data.shape == (25 * 16, 4)
    x = np.asarray(blocks["7"]["rlnOriginXAngst"])
    mine = data[data[:, 0] == 7, 3]
    # the eighth particle's place does not matter for the shape of its track
    assert np.allclose(mine - mine[0], 30 * (x - x[0]), atol=1e-6)


def test_motion_of_a_movie_is_minus_its_shifts(tmp_path):
    coefficients = np.zeros(36)
    coefficients[0], coefficients[3], coefficients[18 + 9] = 0.5, 2.0, -1.0  # x: 0.5 z + 2 z u; y: - z v
    star(tmp_path / "mov.star", {
        "general": {"rlnImageSizeX": 200, "rlnImageSizeY": 100, "rlnImageSizeZ": 3, "rlnMicrographOriginalPixelSize": 1.5, "rlnMicrographStartFrame": 1},
        "global_shift": {"rlnMicrographFrameNumber": [1, 2, 3], "rlnMicrographShiftX": [0.0, 1.0, -9999], "rlnMicrographShiftY": [0.0, -2.0, -9999]},
        "local_motion_model": {"rlnMotionModelCoeffsIdx": np.arange(36), "rlnMotionModelCoeff": coefficients},
    })  # fmt: skip
    (data, options, _), (_, _, kind), (mean, whole, _) = read(str(tmp_path / "mov.star"))
    factor = options["metadata"]["cryotk"]["enlarged"]
    assert kind == "points" and not whole["visible"]
    # the frame that was left out moved as the one before it
    assert np.allclose((mean[:, 2:] - mean[0, 2:]) / factor, [[0, 0], [3.0, -1.5], [3.0, -1.5]])
    corner = data[data[:, 0] == 0]
    u = v = 0.06 - 0.5
    moved = (corner[:, 2:] - corner[0, 2:]) / factor
    want_x = [-1.5 * (shift + 0.5 * z + 2 * z * u) for z, shift in enumerate([0.0, 1.0, 1.0])]
    want_y = [-1.5 * (shift - z * v) for z, shift in enumerate([0.0, -2.0, -2.0])]
    assert np.allclose(moved[:, 1], want_x) and np.allclose(moved[:, 0], want_y)
    assert np.allclose(corner[0, 2:], [1.5 * 0.06 * 100, 1.5 * 0.06 * 200])


@pytest.fixture
def tomo(tmp_path):
    """Two tomograms, one of them reconstructed; four particles, two with tracks."""
    rng = np.random.default_rng(0)
    (tmp_path / "Tomograms").mkdir()
    ctk.write_volume(rng.standard_normal((16, 24, 32)).astype(np.float32), tmp_path / "Tomograms" / "rec_A.mrc", 40.0)
    star(tmp_path / "tomograms.star", {"global": {
        "rlnTomoName": ["A", "B"], "rlnTomoTiltSeriesPixelSize": [10.0, 10.0], "rlnTomoTomogramBinning": [4.0, 4.0],
        "rlnTomoSizeX": [128, 128], "rlnTomoSizeY": [96, 96], "rlnTomoSizeZ": [64, 64],
        "rlnTomoReconstructedTomogram": ["Tomograms/rec_A.mrc", "Tomograms/rec_B.mrc"],
    }})  # fmt: skip
    star(tmp_path / "particles.star", {
        "optics": {"rlnOpticsGroup": [1], "rlnImagePixelSize": [20.0], "rlnImageSize": [16], "rlnTomoTiltSeriesPixelSize": [10.0]},
        "particles": {"rlnTomoName": list("ABAA"), "rlnTomoParticleName": ["A/1", "B/1", "A/2", "A/3"],
                      "rlnCenteredCoordinateXAngst": [100.0, 5.0, 0.0, -200.0], "rlnCenteredCoordinateYAngst": [-50.0, 6.0, 0.0, 0.0],
                      "rlnCenteredCoordinateZAngst": [25.0, 7.0, 0.0, 0.0], "rlnOriginXAngst": [0, 0, 4.0, 0], "rlnOriginYAngst": [0, 0, 0, 0],
                      "rlnOriginZAngst": [0, 0, 0, 0], "rlnTomoSubtomogramRot": [0, 0, 90.0, 0], "rlnClassNumber": [1, 1, 2, 3]},
    })  # fmt: skip
    star(tmp_path / "motion.star", {
        "general": {"rlnParticleNumber": 2},
        "A/3": {"rlnOriginXAngst": [0.0, 1.0], "rlnOriginYAngst": [0.0, 2.0], "rlnOriginZAngst": [0.0, 3.0]},
        "B/1": {"rlnOriginXAngst": [0.0, 1.0], "rlnOriginYAngst": [0.0, 0.0], "rlnOriginZAngst": [0.0, 0.0]},
    })  # fmt: skip
    star(tmp_path / "optimisation_set.star", {"": {
        "rlnTomoParticlesFile": "particles.star", "rlnTomoTomogramsFile": "tomograms.star", "rlnTomoTrajectoriesFile": "motion.star"}})  # fmt: skip
    return tmp_path


def test_picks_lie_in_their_tomograms_from_the_centre(tomo):
    (image, options, kind), (points, how, _), (others, hidden, _) = read(str(tomo / "particles.star"))
    assert kind == "image" and image.shape == (16, 24, 32) and options["scale"] == (40.0,) * 3
    # the centre of the tomogram is the origin, as for maps
    assert options["translate"] == (-8 * 40.0, -12 * 40.0, -16 * 40.0) and options["metadata"]["cryotk"]["kind"] == "tomogram"
    from cryotk.geometry import euler_to_matrix

    # the refined offset is in the subtomogram's frame, and is taken off
    moved = euler_to_matrix(90.0, 0.0, 0.0) @ [4.0, 0.0, 0.0]
    assert np.allclose(points, [[25, -50, 100], -moved[::-1], [0, 0, -200]])
    assert others.tolist() == [[7, 6, 5]] and not hidden["visible"] and how["visible"]
    assert how["features"]["class"].tolist() == [1, 2, 3] and how["metadata"]["cryotk"]["rows"].tolist() == [0, 2, 3]
    assert how["size"] == pytest.approx(160.0)  # half of the box


def test_picks_in_pixels_are_centred_by_the_tomograms_table(tomo):
    columns = {"rlnTomoName": ["A"], "rlnCoordinateX": [64 + 10], "rlnCoordinateY": [48 - 5], "rlnCoordinateZ": [32 + 2.5]}
    star(tomo / "relion4.star", {"optics": {"rlnOpticsGroup": [1], "rlnTomoTiltSeriesPixelSize": [10.0]}, "particles": columns})
    _, (points, _, _) = read(str(tomo / "relion4.star"))
    assert points.tolist() == [[25, -50, 100]]
    (tomo / "tomograms.star").unlink(), (tomo / "optimisation_set.star").unlink()
    [(points, options, _)] = read(str(tomo / "relion4.star"))  # nothing says how large the tomogram is
    assert points.tolist() == [[345, 430, 740]] and not options["metadata"]["cryotk"]["centred"]


def test_an_optimisation_set_shows_particles_and_tracks(tomo):
    layers = read(str(tomo / "optimisation_set.star"))
    assert [k for _, _, k in layers] == ["image", "points", "points", "tracks", "tracks"]
    data, options, _ = layers[3]
    assert options["name"].startswith("A (1") and np.allclose(data[:, 2:], [[0, 0, -200], [90, 60, -170]])
    assert np.allclose(layers[4][0][:, 2:], [[7, 6, 5], [7, 6, 35]]) and not layers[4][1]["visible"]
    (tomo / "particles.star").unlink()
    with pytest.raises(MissingFileError, match=r"particles\.star"):
        read(str(tomo / "optimisation_set.star"))
    assert "places unknown" in read(str(tomo / "motion.star"))[0][1]["name"]


def test_tomograms_are_listed_by_their_table(tomo):
    [(array, options, _)] = read(str(tomo / "tomograms.star"))
    assert array.bytes_read < array.nbytes and options["name"] == "A"
    (tomo / "Tomograms" / "rec_A.mrc").unlink()
    with pytest.raises(MissingFileError, match="2 tomograms"):
        read(str(tomo / "tomograms.star"))


@pytest.mark.parametrize("name", [
    "data/sta_meta/cryocat/relion_4.0.star", "data/sta_meta/cryocat/warp2_particles_matching.star", "data/sta_meta/cryocat/relion_3.0.star",
    "data/sta_meta/cylindra_relion_jobs/Picks/job_picks/optimisation_set.star", "reference/tomo/in/optimisation_set.star",
])  # fmt: skip
def test_files_of_real_projects(shared, name):
    layers = read(str(shared / name))
    assert layers and all(np.isfinite(data).all() for data, _, kind in layers if kind != "image")


class TestInAViewer:
    pytestmark = napari

    @pytest.fixture
    def viewer(self, screen, request):
        return request.getfixturevalue("make_napari_viewer")(show=True)

    def test_tracks_and_picks_are_drawn(self, viewer, polished, tomo, qtbot):
        viewer.open(str(polished / "Micrographs" / "m1_tracks.star"), plugin="cryotk")
        assert [type(layer).__name__ for layer in viewer.layers] == ["Image", "Tracks", "Points"]
        viewer.layers[0].visible = viewer.layers[2].visible = False
        qtbot.wait(50)
        picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
        # colours, where everything else is grey
        coloured = (picture.max(-1) - picture.min(-1) > 60).sum()
        assert coloured > 50
        viewer.layers.clear()
        viewer.open(str(tomo / "optimisation_set.star"), plugin="cryotk")
        assert [type(layer).__name__ for layer in viewer.layers] == ["Image", "Points", "Points", "Tracks", "Tracks"]
        viewer.dims.ndisplay = 3
        viewer.reset_view()

    def test_a_512_map_opens_at_once(self, viewer, tmp_path):
        path = tmp_path / "large.mrc"
        section = 4 * 512**2
        ctk.write_volume(np.zeros((2, 512, 512), np.float32), path, 1.0)
        raw = bytearray(path.read_bytes()[:1024])
        for at in (0, 28):
            raw[at : at + 12] = np.array([512] * 3, "<i4").tobytes()
        noise = np.random.default_rng(0).standard_normal((8, 512, 512)).astype(np.float32).tobytes()
        with open(path, "wb") as f:
            f.write(raw)
            for _ in range(64):
                f.write(noise)
        used = time.thread_time()
        [(array, _, _)] = read(str(path))
        used = time.thread_time() - used
        assert array.bytes_read == 3 * section and used < 0.5, used
        begun, used = time.perf_counter(), time.process_time()
        viewer.open(str(path), plugin="cryotk")
        viewer.screenshot(flash=False)  # drawn
        used = time.process_time() - used
        print(f"512^3 opened and drawn: {used:.2f} s of processor, {time.perf_counter() - begun:.2f} s")
        assert used < 3.0, used
