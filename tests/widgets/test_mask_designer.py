"""MaskDesigner: the preview is the mask that is made, at reduced size."""

import base64
import json
import shutil
import subprocess
import threading
import time

import cryotk_widgets
import numpy as np
import pytest
from cryotk_widgets import MaskDesigner

import cryotk as ctk
from cryotk.errors import DataError, SettingsError
from cryotk.maps import soft_mask, suggest_threshold

STATIC = next(p for p in cryotk_widgets.__path__) + "/static"


@pytest.fixture(scope="module")
def volume():
    v = ctk.simulate.volume(ctk.simulate.molecule(), 64, 3.5)
    noise = np.random.default_rng(3).normal(size=v.shape) * 0.2 * float(v.std())
    return v.copy(data=(v.values + noise).astype(np.float32))


def in_the_page(data, level, extend, edge, scale=1):
    """What mask_core.js makes of an 8-bit map."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node 20 or newer")
    script = """
      const { readFileSync } = await import("node:fs");
      const core = await import("data:text/javascript," + encodeURIComponent(readFileSync(process.argv[1] + "/mask_core.js", "utf8")));
      const given = JSON.parse(readFileSync(0, "utf8")), data = Buffer.from(given.data, "base64");
      const { mask, fraction } = core.softMask(new Uint8Array(data), given.shape, given.level, given.extend, given.edge, given.scale);
      process.stdout.write(JSON.stringify({ mask: Buffer.from(mask).toString("base64"), fraction }));
    """
    given = {
        "data": base64.b64encode(data.tobytes()).decode(),
        "shape": data.shape,
        "level": level,
        "extend": extend,
        "edge": edge,
        "scale": scale,
    }
    done = subprocess.run(
        [node, "--input-type=module", "-e", script, STATIC], input=json.dumps(given), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    return np.frombuffer(base64.b64decode(out["mask"]), np.uint8).reshape(data.shape), out["fraction"]


@pytest.mark.parametrize(("extend", "edge"), [(0, 0), (3, 0), (0, 4), (2.5, 5.5), (6, 3), (-1, 3), (-2, 0)])
def test_the_page_s_mask_is_the_exact_one(extend, edge):
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(*[np.arange(30)] * 3, indexing="ij"))
    data = np.zeros((30, 30, 30), np.uint8)
    for centre in rng.uniform(8, 22, (5, 3)):
        data[np.linalg.norm(at - centre[:, None, None, None], axis=0) < 4.2] = 200
    mask, fraction = in_the_page(data, 100, extend, edge)
    expected = np.asarray(soft_mask(data >= 100, float(extend), float(edge)))
    assert np.abs(mask / 255 - expected).max() <= 0.51 / 255
    assert fraction == pytest.approx((mask > 127).mean())


def test_suggestion_and_preview(volume):
    designer = MaskDesigner(volume, preview_size=48, lowpass=20)
    expected, reason = suggest_threshold(volume, lowpass=20)
    assert designer.threshold == pytest.approx(expected, rel=0.005) and designer.reason.split(" ")[0] == reason.split(" ")[0]
    assert designer.shape == [48, 48, 48] and designer.voxel == pytest.approx(3.5 * 64 / 48)
    low, high = designer.value_range
    small = np.frombuffer(designer.data, np.uint8).reshape(48, 48, 48)
    preview = low + small / 255 * (high - low)
    _, fraction = in_the_page(small, 255 * (designer.threshold - low) / (high - low), 3, 3, 48 / 64)
    made = designer.make()
    assert designer.made and made is designer.result and made.threshold == designer.threshold
    assert fraction == pytest.approx(made.fraction, rel=0.1) and preview.max() == pytest.approx(
        float(made.lowpassed.max()), rel=0.05
    )


@pytest.mark.parametrize(("extend", "edge"), [(0, 4), (3, 6), (8, 2), (-2, 4)])
def test_a_small_preview_has_the_outline_of_the_whole(volume, extend, edge):
    # a preview has few voxels, but what was low-passed has no finer detail
    designer = MaskDesigner(volume, preview_size=40, extend_px=extend, soft_edge_px=edge, lowpass=30)
    low, high = designer.value_range
    small = np.frombuffer(designer.data, np.uint8).reshape(40, 40, 40)
    _, fraction = in_the_page(small, 255 * (designer.threshold - low) / (high - low), extend, edge, 40 / 64)
    # a tenth of the volume is a thirtieth of the radius
    assert fraction == pytest.approx(designer.make().fraction, rel=0.1)


def test_the_page_asks_for_the_mask_and_saves_it(volume, tmp_path):
    designer = MaskDesigner(volume)
    with pytest.raises(SettingsError, match="no mask was made"):
        designer.save(tmp_path / "m.mrc")
    designer._on_message(
        designer,
        {"cmd": "make", "threshold": 0.02, "extend_px": 1, "soft_edge_px": 2, "largest_only": True, "fill_holes": True},
        [],
    )
    deadline = time.monotonic() + 60
    while (designer.making or not designer.made) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (
        designer.result.settings["extend_px"] == 1
        and designer.result.settings["largest_only"]
        and designer.result.threshold == 0.02
    )
    assert "% of the box" in designer.notice
    designer._on_message(designer, {"cmd": "save", "path": str(tmp_path / "m.mrc")}, [])
    assert "written to" in designer.notice
    assert np.array_equal(ctk.open_volume(tmp_path / "m.mrc").values, designer.result.mask.values.astype(np.float32))
    # a threshold that leaves nothing is said, not raised, on the page
    designer._on_message(designer, {"cmd": "make", "threshold": 1e3}, [])
    deadline = time.monotonic() + 60
    while not designer.notice.startswith("no mask") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "above the map's maximum" in designer.notice and not designer.making


def test_the_low_pass_makes_a_new_preview(volume):
    designer = MaskDesigner(volume)
    before, first = designer.data, designer.suggested
    designer._on_message(designer, {"cmd": "set", "name": "lowpass", "value": 40}, [])
    deadline = time.monotonic() + 30
    while designer.data == before and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    assert designer.data != before and designer.suggested != first and designer.threshold == designer.suggested
    # a threshold of one's own stays
    designer.threshold = 0.5 * designer.suggested
    mine, before = designer.threshold, designer.data
    designer.lowpass = 20
    deadline = time.monotonic() + 30
    while designer.data == before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert designer.threshold == mine and designer.settings["lowpass"] == 20
    designer.lowpass = 0
    assert designer.settings["lowpass"] is None


def test_the_preview_comes_before_the_suggestion_and_is_that_of_the_whole_map(volume, monkeypatch):
    from cryotk_widgets.volume_pictures import page_map

    import cryotk.maps

    designer = MaskDesigner(volume, preview_size=40)
    whole, before = ctk.lowpass(volume, 25), designer.data
    seen, real = [], cryotk.maps.suggest_threshold

    def watched(low, **kwargs):
        seen.append((low.shape[0], designer.data != before))
        return real(low, **kwargs)

    monkeypatch.setattr(cryotk.maps, "suggest_threshold", watched)
    designer.unobserve_all("lowpass")
    designer.lowpass = 25
    designer._load()
    assert seen == [(64, True)]
    expected = np.frombuffer(page_map(whole.values, 3.5, 40).data, np.uint8).astype(int)
    assert np.abs(np.frombuffer(designer.data, np.uint8) - expected).max() <= 1
    assert designer.suggested == pytest.approx(real(whole, lowpass=None)[0])


def test_the_last_low_pass_wins(volume, monkeypatch):
    designer = MaskDesigner(volume, preview_size=40)
    gate, asked = threading.Event(), threading.Event()
    real = MaskDesigner._lowpassed

    def slow(self, array):
        low = self.lowpass
        if low == 40:
            asked.set()
            gate.wait(30)
            return real(self, array) * 0 + 7  # what was wanted first comes last
        return real(self, array)

    monkeypatch.setattr(MaskDesigner, "_lowpassed", slow)
    designer.lowpass = 40
    assert asked.wait(30)
    designer.lowpass = 25
    deadline = time.monotonic() + 30
    while not designer.value_range[1] < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    kept = designer.data
    gate.set()
    time.sleep(0.3)
    assert designer.data == kept and designer.suggested < 6


def test_picture_and_bad_input(volume):
    data, _ = MaskDesigner(volume)._repr_mimebundle_()
    assert "image/png" in data and "MaskDesigner" in data["text/plain"]
    with pytest.raises(DataError, match="cube"):
        MaskDesigner(np.zeros((20, 20, 22)))
