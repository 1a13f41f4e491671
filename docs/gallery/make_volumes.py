"""Pages and pictures of the views of maps and 3D refinements, from embedded data: ``python docs/gallery/make_volumes.py [--pages FOLDER]``.

Writes screenshots in light and dark to ``docs/figures``; ``--pages`` keeps the pages (some MB each; they answer without a kernel).
Needs a Chromium and playwright.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from cryotk_widgets import ClassView3D, MaskDesigner, PosteriorView, RefineView, StackView, VolumeView

import cryotk as ctk

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from make import FIGURES, page_of  # noqa: E402


def half_maps(box: int = 96, pixel_size: float = 2.0) -> list[Any]:
    """Two noisy halves of a molecule whose right side is blurred."""
    molecule = ctk.simulate.molecule()
    sharp = ctk.simulate.volume(molecule, box, pixel_size, envelope_b_factor=100.0)
    soft = ctk.simulate.volume(molecule, box, pixel_size, envelope_b_factor=900.0)
    floppy = 1 / (1 + np.exp(-sharp.x.values / 12.0))
    mixed = sharp.values * (1 - floppy) + soft.values * floppy
    noise = float(mixed.std()) * np.random.default_rng(7).normal(size=(2, *mixed.shape))
    return [sharp.copy(data=(mixed + n).astype(np.float32)) for n in noise]


def stories() -> dict[str, Any]:
    """Name to widget, light and dark."""
    half1, half2 = half_maps()
    mask = ctk.create_mask(half1, lowpass=15, extend_px=4, soft_edge_px=6)
    result = ctk.postprocess(half1, half2, mask=mask.mask)
    local = ctk.local_resolution(half1, half2, mask=mask.mask, sampling=15, b_factor=result.b_factor, progress=False)
    particles = ctk.simulate.example()
    some = particles.cryo.select(np.arange(400))
    reference = ctk.simulate.volume(ctk.simulate.molecule(), 64, 3.5)
    shared = {"symmetry": "D2", "initial_lowpass": 40.0, "mask_diameter": 190.0, "seed": 1}
    refine = ctk.Refine3D(some, reference, **shared)
    refine.run(until=6, progress=False)
    classes = ctk.Class3D(some, reference, n_classes=3, n_iterations=6, **shared)
    classes.run(progress=False)
    turned = {"rotation": [0.25, 0.35, 0.05, 0.9]}
    out: dict[str, Any] = {}
    for theme in ("light", "dark"):
        view = VolumeView(local.filtered, colour_by=local.resolution_map, symmetry="D2", theme=theme)
        view.camera = view.camera | turned
        out[f"volume_{theme}"] = view
        pair = VolumeView(result.volume, local.filtered, theme=theme, clip=0.5)
        pair.camera = pair.camera | turned
        out[f"volume_pair_{theme}"] = pair
        out[f"mask_designer_{theme}"] = MaskDesigner(half1, lowpass=15, extend_px=4, soft_edge_px=6, theme=theme)
        running = RefineView(refine, theme=theme)
        running.progress = {"running": True, "can_run": True, "iteration": 7, "fraction": 0.63, "seconds_left": 12.0, "phase": "expectation"}
        out[f"refine_{theme}"] = running
        best = int(np.argmax(classes.current.model.class_distribution)) + 1
        out[f"class3d_{theme}"] = ClassView3D(classes, selected=[best], theme=theme)
        out[f"particles_{theme}"] = StackView(particles, lowpass=20, sort="defocus_u", selected=[3, 9], theme=theme)
        out[f"posterior_{theme}"] = PosteriorView(classes, particle=3, theme=theme)
    return out


def main() -> None:
    """Make the pages and take their pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path)
    pages = parser.parse_args().pages
    if pages:
        pages.mkdir(parents=True, exist_ok=True)
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CRYOTK_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("needs a Chromium, or CRYOTK_CHROMIUM")
    FIGURES.mkdir(exist_ok=True)
    with sync_playwright() as p, TemporaryDirectory() as folder:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1012, "height": 1000})
        for name, widget in stories().items():
            path = Path(pages or folder) / f"{name}.html"
            path.write_text(page_of(widget))
            page.goto(path.as_uri())
            page.wait_for_function("window.ready === true")
            page.wait_for_timeout(4000)
            picture = page.locator(".cryotk").first.screenshot()
            image = Image.open(io.BytesIO(picture)).convert("RGB")
            # a coloured surface needs more than a palette
            image = image if name.startswith("volume_") and "pair" not in name else image.quantize(192)
            image.save(FIGURES / f"{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
