"""Pages and pictures of every view, from embedded data: ``python docs/gallery/make.py [--real PROJECT]``.

Writes ``docs/gallery/*.html`` (open them: they answer without a kernel) and screenshots in light and dark to ``docs/figures``.
Needs a Chromium and playwright. ``--real`` names the RELION project with real beta-galactosidase particles.
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
from cryotk_widgets.pictures import contact_sheet

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


def real(project: Path) -> None:
    """Classes of real particles with the right CTFs (above) and with those of a failed fit (below)."""
    from PIL import Image

    right = ctk.open_particles(project / "derived" / "particles_ctf_fixed.star")
    table = ctk.open_particles(project / "Extract" / "job009" / "particles.star", images=False)
    row = {name: i for i, name in enumerate(table.image_name.values)}
    same = [row[name] for name in right.image_name.values]
    wrong = right.copy()
    for name in ("defocus_u", "defocus_v", "defocus_angle"):
        wrong[name] = ("particle", table[name].values[same], right[name].attrs)
    sheets = []
    for particles in (right, wrong):
        job = ctk.Class2D(particles, n_classes=10, mask_diameter=200, n_iterations=25, seed=1)
        job.run(progress=False)
        m = job.current.model
        sheets.append(contact_sheet(m.references, m.class_distribution, m.class_resolution, 112, columns=5))
    both = Image.new("RGB", (sheets[0].width, 2 * sheets[0].height + 12), (250, 250, 250))
    for i, sheet in enumerate(sheets):
        both.paste(sheet, (0, i * (sheet.height + 12)))
    both.save(FIGURES / "gallery_betagal.png", optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path)
    arguments = parser.parse_args()
    FIGURES.mkdir(exist_ok=True)
    shoot(gallery_stories())
    if arguments.real:
        real(arguments.real)
