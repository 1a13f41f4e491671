"""How soon the mask follows a slider: ``python benchmarks/bench_mask_designer.py [--edge 256] [--repeats 12]``.

In headless Chromium with software GL, where nothing is drawn by a card. "Answer" is from the slider's event to the drawn picture
(the drawing reads a pixel back, so it is finished); goal 300 ms for a map of 256^3. "Python" is what a new low-pass costs; nothing else
of the sliders asks Python.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import cryotk as ctk

ANSWER = """async ([name, values]) => {
  const c = document.querySelector("canvas.ck-surface"), s = document.querySelector(`input[aria-label="${name}"]`);
  const next = () => new Promise(requestAnimationFrame), out = [];
  for (const v of values) {
    await new Promise((r) => setTimeout(r, 700));  // at rest, smooth edges drawn
    const frames = Number(c.dataset.frames), start = performance.now();
    s.value = v;
    s.dispatchEvent(new Event("input", { bubbles: true }));
    while (Number(c.dataset.frames) === frames) await next();
    out.push([performance.now() - start, Number(document.querySelector(".ck-mask").dataset.milliseconds)]);
  }
  return out;
}"""
DRAG = """async ([name, low, high, seconds]) => {
  const c = document.querySelector("canvas.ck-surface"), s = document.querySelector(`input[aria-label="${name}"]`);
  const next = () => new Promise(requestAnimationFrame), start = performance.now(), first = Number(c.dataset.frames);
  for (let i = 0; performance.now() - start < 1000 * seconds; i++) {
    s.value = low + (high - low) * (0.5 + 0.5 * Math.sin(i / 5));
    s.dispatchEvent(new Event("input", { bubbles: true }));
    await next();
  }
  return 1000 * (Number(c.dataset.frames) - first) / (performance.now() - start);
}"""


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=12)
    options = parser.parse_args()
    spec = importlib.util.spec_from_file_location("page_of", Path(__file__).parents[1] / "tests" / "browser" / "page_of.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from cryotk_widgets import MaskDesigner

    chromium = os.environ.get("CRYOTK_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    volume = ctk.simulate.volume(ctk.simulate.molecule(), options.edge, 224 / options.edge)
    start = time.perf_counter()
    designer = MaskDesigner(volume)
    print(f"{options.edge}^3: made in {time.perf_counter() - start:.2f} s (the first transforms compile)")
    python = []
    designer.unobserve_all("lowpass")
    for low in (12.0, 18.0, 13.0, 20.0):
        begun: list[float] = []
        designer.observe(lambda _, begun=begun: begun.append(time.perf_counter()), "data")
        designer.lowpass = low
        wall = time.perf_counter()
        designer._load()
        python.append((begun[0] - wall, time.perf_counter() - wall))
        designer.unobserve_all("data")
    preview, whole = 1000 * np.median(python, axis=0)
    print(f"Python, a new low-pass: copy for the page after {preview:.0f} ms, suggestion after {whole:.0f}, load {os.getloadavg()[0]:.1f}")
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as p, TemporaryDirectory() as folder:
        browser = p.chromium.launch(executable_path=chromium, args=flags)
        path = Path(folder) / "view.html"
        path.write_text(module.page_of(designer))
        page = browser.new_page(viewport={"width": 1012, "height": 1000})
        page.goto(path.as_uri())
        page.wait_for_function("window.ready === true")
        page.wait_for_timeout(1500)
        for name, low, high in (("Extend", -4, 12), ("Soft edge", 0, 20)):
            values = np.linspace(low, high, options.repeats).round().tolist()
            total, made = np.array(page.evaluate(ANSWER, [name, values])).T
            print(
                f"{name} {low} to {high} px: answer {np.median(total):.0f} ms (worst {total.max():.0f}), of it the mask {np.median(made):.0f}, "
                f"dragging {page.evaluate(DRAG, [name, low, high, 3]):.1f} frames/s; load {os.getloadavg()[0]:.1f}"
            )
        browser.close()


if __name__ == "__main__":
    main()
