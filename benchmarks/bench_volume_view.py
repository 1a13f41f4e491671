"""Frames per second of a turning surface in headless Chromium with software GL, and the time of the first picture.

``python benchmarks/bench_volume_view.py [--edge 160] [--size 128] [--seconds 4]``: the goal is 8 frames per second for 160^3 voxels
while dragging (views.md), 20 on a GPU; a map of 256^3 voxels is on the page within seconds.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import cryotk as ctk

DRAG = """async (seconds) => {
  const c = document.querySelector("canvas.ck-surface"), b = c.getBoundingClientRect(), at = (x, y) => ({ clientX: b.left + x, clientY: b.top + y, bubbles: true, pointerId: 1 });
  c.setPointerCapture = () => {};
  // every drawing reads a pixel back, so a counted frame is a finished one
  const next = () => new Promise(requestAnimationFrame);
  c.dispatchEvent(new PointerEvent("pointerdown", at(200, 200)));
  for (let i = 0; i < 5; i++) { c.dispatchEvent(new PointerEvent("pointermove", at(200 + i, 200))); await next(); }
  const first = Number(c.dataset.frames), start = performance.now();
  let i = 0;
  while (performance.now() - start < 1000 * seconds) {
    c.dispatchEvent(new PointerEvent("pointermove", at(200 + 3 * ++i, 200 + 40 * Math.sin(i / 9))));
    await next();
  }
  const frames = Number(c.dataset.frames) - first, ms = performance.now() - start;
  c.dispatchEvent(new PointerEvent("pointerup", at(200, 200)));
  return [frames, ms];
}"""


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=160)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    spec = importlib.util.spec_from_file_location("page_of", Path(__file__).parents[1] / "tests" / "browser" / "page_of.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from cryotk_widgets.volume import VolumeView

    chromium = os.environ.get("CRYOTK_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, software GL (SwiftShader)")
    with sync_playwright() as p, TemporaryDirectory() as folder:
        browser = p.chromium.launch(executable_path=chromium, args=flags)
        for edge, most in ((options.edge, options.edge), (128, 128), (256, 160), (256, 256)):
            volume = ctk.simulate.volume(ctk.simulate.molecule(), edge, 224 / edge)
            start = time.perf_counter()
            view = VolumeView(volume, max_size=most)
            made = time.perf_counter() - start
            path = Path(folder) / "view.html"
            path.write_text(module.page_of(view))
            page = browser.new_page(viewport={"width": 1012, "height": 1000})
            start = time.perf_counter()
            page.goto(path.as_uri())
            page.wait_for_function("window.ready === true")
            page.wait_for_function("Number(document.querySelector('canvas.ck-surface').dataset.frames) > 0")
            shown = time.perf_counter() - start
            frames, milliseconds = page.evaluate(DRAG, options.seconds)
            print(
                f"{edge}^3 voxels ({len(view.data) / 1e6:.1f} MB to the page): made {made:.2f} s, first picture after {shown:.2f} s, "
                f"dragging {1000 * frames / milliseconds:.1f} frames/s; load {os.getloadavg()[0]:.1f}"
            )
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
