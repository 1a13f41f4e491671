"""The CTF explorer: what the page computes is what cryotk.optics computes; sliders, themes, fallback picture."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("anywidget", reason="widgets need the extra 'lab'")

from cryotk_widgets import ctf as ctf_module
from cryotk_widgets.ctf import CtfExplorer

from cryotk import simulate
from cryotk.errors import DataError

SCRIPT = Path(ctf_module.__file__).parent / "static" / "ctf.js"
PARAMETERS = (
    "defocus", "astigmatism", "defocus_angle", "phase_shift", "b_factor", "spherical_aberration", "amplitude_contrast",
    "voltage", "fourfold", "beam_tilt_x", "noise", "correction", "box_length",
)  # fmt: skip
ODD = {
    "defocus": 17000.0, "astigmatism": 2500.0, "defocus_angle": 33.0, "phase_shift": 40.0, "b_factor": 70.0,
    "spherical_aberration": 2.0, "amplitude_contrast": 0.15, "voltage": 200.0, "fourfold": 700.0, "beam_tilt_x": 2.5,
    "box_length": 150.0,
}  # fmt: skip


def _node():
    found = shutil.which("node")
    if found:
        return found
    try:
        from playwright._impl._driver import compute_driver_executable

        return str(compute_driver_executable()[0])
    except ImportError:
        pytest.skip("no JavaScript engine: neither node nor playwright is installed")


def _run(tmp_path, explorer, body):
    """Run JavaScript with the module as ``m``, parameters ``p`` and the explorer's object; return what it prints."""
    shutil.copy(SCRIPT, tmp_path / "ctf.mjs")
    np.frombuffer(explorer.object_pixels, np.float32).tofile(tmp_path / "object.bin")
    script = tmp_path / "run.mjs"
    script.write_text(
        'import * as m from "./ctf.mjs"; import { readFileSync } from "fs";\n'
        f"const p = {json.dumps({k: getattr(explorer, k) for k in PARAMETERS})};\n"
        'const raw = readFileSync("object.bin"), object = new Float32Array(raw.buffer, raw.byteOffset, raw.length / 4);\n'
        f"const scope = new m.Microscope(object, {explorer.box}, {explorer.pixel_size});\n{body}\n"
    )
    done = subprocess.run([_node(), str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def explorer():
    return CtfExplorer(**ODD)


def test_the_pages_ctf_is_that_of_optics(tmp_path, explorer):
    rng = np.random.default_rng(0)
    f = rng.uniform(-0.25, 0.25, (50, 2))
    body = f"const o = m.optics(p); console.log(JSON.stringify({f.tolist()}.map(([x, y]) => m.ctfAt(o, x, y))));"
    assert np.allclose(_run(tmp_path, explorer, body), explorer.ctf(f), atol=2e-6)


def test_the_pages_image_and_its_losses_are_pythons(tmp_path, explorer):
    body = (
        "const r = scope.image(p); console.log(JSON.stringify({image: Array.from(r.shown), a: r.lost, b: r.lostFine}));"
    )
    found = _run(tmp_path, explorer, body)
    expected = explorer.image()
    image = np.array(found["image"]).reshape(expected.shape)
    # the two drop or keep the unpaired Nyquist row
    assert np.abs(image - expected).max() < 2e-3 * np.abs(expected).max()
    assert found["a"] == pytest.approx(explorer.signal_lost(), abs=1e-5)
    assert found["b"] == pytest.approx(explorer.signal_lost(8.0), abs=1e-3)


def test_flipping_phases_brings_the_object_back(tmp_path):
    explorer = CtfExplorer(defocus=15000.0)
    body = """
    const out = {};
    for (const c of ["none", "flip", "wiener"]) out[c] = Array.from(scope.image({ ...p, correction: c }).shown);
    console.log(JSON.stringify(out));"""
    out = _run(tmp_path, explorer, body)
    truth = np.frombuffer(explorer.object_pixels, np.float32)
    alike = {c: np.corrcoef(v, truth)[0, 1] for c, v in out.items()}
    assert alike["none"] < alike["flip"] < alike["wiener"]


def test_parameters_of_a_particle():
    p = simulate.particles(3, 64, 3.5, noise_sigma=0.0, cache=False)
    w = CtfExplorer.of_particle(p, 1)
    u, v = float(p.defocus_u[1]), float(p.defocus_v[1])
    assert w.defocus == pytest.approx((u + v) / 2) and w.astigmatism == pytest.approx(u - v)
    f = np.array([[0.05, 0.08]])
    from cryotk.optics import ctf

    assert np.allclose(w.ctf(f), ctf(w.optics, f, u, v, float(p.defocus_angle[1]))[0])
    with pytest.raises(DataError, match="defocus_u"):
        CtfExplorer.of_particle(p.drop_vars("defocus_u"), 0)


def test_bad_images_are_refused():
    with pytest.raises(DataError, match="square"):
        CtfExplorer(np.zeros((48, 48)), 2.0)
    with pytest.raises(DataError, match="pixel_size"):
        CtfExplorer(np.zeros((64, 64)))


def test_more_defocus_carries_the_signal_farther(explorer):
    near, far = CtfExplorer(defocus=8000.0, box_length=160.0), CtfExplorer(defocus=25000.0, box_length=160.0)
    assert far.signal_lost(8.0) > 3 * near.signal_lost(8.0)
    # lambda dF k - Cs lambda^3 k^3 by hand: 0.0197 Å, 2.5 µm, 1/8 Å
    assert far.delocalisation(8.0) == pytest.approx(0.019687 * 25000 / 8 - 2.7e7 * 0.019687**3 / 512, rel=1e-3)


def test_notebook_files_keep_a_picture_and_no_large_state(explorer):
    pytest.importorskip("matplotlib", reason="the fallback picture is drawn with matplotlib")
    data, _ = explorer._repr_mimebundle_()
    assert base64.b64decode(data["image/png"])[:4] == b"\x89PNG"
    assert "application/vnd.jupyter.widget-view+json" in data
    assert len(explorer.object_pixels) <= 65536
    assert "defocus 17000 Å" in repr(explorer)


SHIM = """<!doctype html><meta charset="utf-8"><style>%s</style><body><div id="w" style="width:1000px"></div>
<script type="module">
const S = %s, raw = atob(%s), u = new Uint8Array(raw.length);
for (let i = 0; i < raw.length; i++) u[i] = raw.charCodeAt(i);
S.object_pixels = new DataView(u.buffer);
const H = {};
window.sent = [];
window.model = { get: k => S[k], set: (k, v) => { S[k] = v; sent.push(k); (H["change:" + k] || []).forEach(f => f()); },
  on: (e, f) => (H[e] ??= []).push(f), off() {}, save_changes() { sent.push("saved"); }, send() {} };
const m = await import(URL.createObjectURL(new Blob([%s], { type: "text/javascript" })));
m.default.render({ model, el: document.getElementById("w") });
</script>"""


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1020, "height": 700})
    page.errors, page.asked = [], []
    page.on("pageerror", lambda e: page.errors.append(str(e)))
    page.on("request", lambda r: page.asked.append(r.url))
    yield page
    page.close()


@pytest.mark.browser
def test_sliders_answer_in_the_page_without_a_kernel(page, tmp_path):
    w = CtfExplorer(defocus=12000.0, box_length=150.5)
    state = {k: getattr(w, k) for k in (*PARAMETERS, "box", "pixel_size", "theme")}
    html = SHIM % (w._css, json.dumps(state), json.dumps(base64.b64encode(w.object_pixels).decode()),
                   json.dumps(SCRIPT.read_text()).replace("</", "<\\/"))  # fmt: skip
    (tmp_path / "page.html").write_text(html)
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector("[data-ready=yes]")
    root = page.locator(".ck-ctf")
    before = float(root.get_attribute("data-lost-fine"))
    assert before == pytest.approx(w.signal_lost(8.0), abs=1e-3)
    slider = page.locator("input[data-name=defocus]")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("PageUp")
    page.wait_for_timeout(400)
    assert float(root.get_attribute("data-lost-fine")) > before
    assert page.evaluate("model.get('defocus')") > 12000
    assert page.evaluate("sent.includes('saved')"), "Python hears of it"
    # set from Python: the slider follows
    page.evaluate("model.set('defocus', 9000)")
    page.wait_for_timeout(200)
    assert float(slider.input_value()) == pytest.approx(0.9)
    page.get_by_role("button", name="Reset").click()
    assert page.evaluate("model.get('defocus')") == 12000
    page.evaluate("model.set('theme', 'dark')")
    assert "dark" in root.get_attribute("class")
    assert page.errors == []
    assert all(u.startswith(("file:", "blob:", "data:")) for u in page.asked)
