"""Pages and pictures of every view, from embedded data: ``python docs/gallery/make.py``.

Writes ``docs/gallery/*.html`` (open them: they answer without a kernel) and screenshots in light and dark to ``docs/figures``.
Needs a Chromium and playwright. The picture of real particles comes from ``benchmarks/real_betagal.py``.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from cryotk_widgets import ClassGallery

import cryotk as ctk

HERE = Path(__file__).resolve().parent
FIGURES = HERE.parent / "figures"


def page_of(widget: Any, width: int = 980) -> str:
    """Return the page that the browser tests use."""
    spec = importlib.util.spec_from_file_location("page_of", HERE.parents[1] / "tests" / "browser" / "page_of.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page_of(widget, width)


def gallery_stories() -> dict[str, tuple[Any, str]]:
    """Name to (widget, what to do on the page before the picture)."""
    job = ctk.Class2D(ctk.simulate.example(), n_classes=24, mask_diameter=190, n_iterations=15, seed=1)
    job.run(progress=False)
    best = [int(k) + 1 for k in np.argsort(-job.current.model.class_distribution)[[0, 1, 2]]]
    stories: dict[str, tuple[Any, str]] = {}
    for theme in ("light", "dark"):
        finished = ClassGallery(job.iterations, selected=best, theme=theme)
        finished.position = len(job.iterations) - 1
        stories[f"gallery_{theme}"] = (finished, "")
        running = ClassGallery(job, theme=theme, sort="number")
        running.position = 4
        running.progress = {"running": True, "can_run": True, "iteration": 5, "fraction": 0.63, "seconds_left": 12.0}
        stories[f"gallery_running_{theme}"] = (running, "")
        large = ClassGallery(job.iterations[-1], theme=theme)
        answers: list[Any] = []
        large.send = lambda content, buffers=None, answers=answers: answers.append((content, buffers))  # type: ignore[method-assign]
        large._send_full(best[0] - 1)
        content, buffers = answers[0]
        script = (
            "document.querySelector('.ck-tile').dispatchEvent(new MouseEvent('dblclick'));"
            f"model.receive({content!r}, [new DataView(new Uint8Array({list(buffers[0])}).buffer)])"
        )
        stories[f"gallery_large_{theme}"] = (large, script)
    return stories


def shoot(stories: dict[str, tuple[Any, str]]) -> None:
    """Write the pages and take their pictures."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CRYOTK_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("needs a Chromium, or CRYOTK_CHROMIUM")
    with sync_playwright() as p, TemporaryDirectory() as folder:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1012, "height": 1000}, device_scale_factor=1.5)
        for name, (widget, script) in stories.items():
            path = (HERE if name == "gallery_light" else Path(folder)) / f"{name}.html"
            path.write_text(page_of(widget))
            page.goto(path.as_uri())
            page.wait_for_function("window.ready === true")
            if script:
                page.evaluate(script)
            page.wait_for_timeout(300)
            picture = page.locator(".cryotk").first.screenshot()
            Image.open(io.BytesIO(picture)).convert("RGB").quantize(192).save(FIGURES / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    FIGURES.mkdir(exist_ok=True)
    shoot(gallery_stories())
