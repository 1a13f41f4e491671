"""StackView in Python: lazily, page by page."""

import time

import numpy as np
import pytest
import xarray as xr
from cryotk_widgets import StackView

import cryotk as ctk
from cryotk.errors import DataError, SettingsError


def stack(k=100, n=16):
    """Image i holds one bright pixel at its own place."""
    images = np.zeros((k, n, n), np.float32)
    images[np.arange(k), np.arange(k) // n % n, np.arange(k) % n] = 1
    return xr.DataArray(images, dims=("image", "y", "x"), attrs={"pixel_size": 2.0})


def shown(view):
    return np.frombuffer(view.sprite, np.uint8).reshape(len(view.rows), view.tile_pixels, view.tile_pixels)


def test_pages_and_what_is_on_them():
    view = StackView(stack(), per_page=30)
    assert view.rows == list(range(1, 31)) and view.captions[4] == "image 5" and view.n_images == 100
    view.show(90)
    assert view.rows == list(range(91, 101)) and view.first == 90
    assert [np.argmax(t) for t in shown(view)] == list(range(90, 100))


def test_only_what_is_shown_is_read(tmp_path):
    ctk.write_stack(stack(1000), tmp_path / "s.mrcs")
    lazy = ctk.open_stack(tmp_path / "s.mrcs")
    reads = []
    import cryotk.data.volumes as module

    original = module.read_images
    module.read_images = lambda header, indices: (reads.append(len(np.atleast_1d(indices))), original(header, indices))[1]
    try:
        view = lazy.cryo.view(per_page=25)
        view.show(500)
        view._read(np.array([7, 900, 3]))
    finally:
        module.read_images = original
    assert sum(reads) == 25 + 25 + 3 and view.rows[0] == 501 and np.argmax(shown(view)[0]) == 500 % 256


def particles():
    ds = ctk.simulate.example()
    return ds.cryo.select(np.arange(60))


def test_particles_sorted_with_their_table():
    ds = particles()
    view = ds.cryo.view(per_page=20, sort="defocus_u")
    order = np.argsort(ds.defocus_u.values, kind="stable")
    assert view.rows == [int(i) + 1 for i in order[:20]]
    mean = (ds.defocus_u.values + ds.defocus_v.values)[order[0]] / 2e4
    assert view.captions[0] == f"{mean:.2f} µm" and f"particle {order[0] + 1}" in view.details[0] and "defocus u" in view.details[0]
    images = ds.images.values[order[:20]]
    correlation = [np.corrcoef(shown(view)[i].ravel(), images[i].ravel())[0, 1] for i in range(20)]
    assert min(correlation) > 0.99
    assert StackView(ds, columns=["micrograph", "coordinate_x"]).captions[0].startswith(str(ds.micrograph.values[0]).split("/")[-1])


def test_messages_of_the_page_and_selection():
    ds = particles()
    view = StackView(ds, per_page=20)
    said = []
    view.send = lambda content, buffers=None: said.append(content)
    view._on_message(view, {"cmd": "page", "first": 40}, [])
    deadline = time.monotonic() + 10
    while view.first != 40 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert view.rows == list(range(41, 61))
    view._on_message(view, {"cmd": "select", "rows": [60, 3], "serial": 4}, [])
    assert view.selected == [3, 60] and said == [{"selected": 4}]
    chosen = view.selected_particles()
    assert np.array_equal(chosen.image_name.values, ds.image_name.values[[2, 59]])
    view._on_message(view, {"cmd": "set", "name": "lowpass", "value": 12}, [])
    view._on_message(view, {"cmd": "set", "name": "first", "value": 7}, [])
    assert view.lowpass == 12 and view.first == 40
    with pytest.raises(SettingsError, match="1 to 60"):
        view.selected = [61]
    assert StackView(stack(), selected=[2]).selected_particles().shape == (1, 16, 16)


def test_a_file_that_vanished_is_said(tmp_path):
    ctk.write_stack(stack(), tmp_path / "s.mrcs")
    view = ctk.open_stack(tmp_path / "s.mrcs").cryo.view(per_page=10)
    (tmp_path / "s.mrcs").unlink()
    said = []
    view.send = lambda content, buffers=None: said.append(content)
    view._later(50)
    deadline = time.monotonic() + 10
    while not said and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "s.mrcs" in said[0]["failed"] and view.first == 0


def test_picture_and_bad_input():
    data, _ = StackView(stack())._repr_mimebundle_()
    assert "image/png" in data and "100 images" in data["text/plain"]
    with pytest.raises(DataError, match="square"):
        StackView(np.zeros((3, 8, 9)))
    with pytest.raises(DataError, match="image, y, x"):
        StackView(np.zeros((8, 9)))
    with pytest.raises(DataError, match="group"):
        StackView(particles().drop_vars("images"))
    with pytest.raises(SettingsError, match="no column nothing"):
        StackView(particles(), columns=["nothing"])
    with pytest.raises(SettingsError, match="sort"):
        StackView(stack(), sort="defocus_u")
