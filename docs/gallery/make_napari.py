"""Pictures of the napari docks at work: ``python docs/gallery/make_napari.py [--halves HALF1 HALF2] [--model MODEL.star] [--tracks TRACKS.star] [--picks SET.star]``.

Writes ``docs/figures/napari_*.png``. Needs the napari extra and a screen
(``xvfb-run -s "-screen 0 1400x900x24 +extension GLX" python …``); in software, a picture in 3D takes minutes.
Without files the half-maps are simulated, and class viewer, tracks and picks are left out.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import napari
from cryotk_widgets.napari.samples import noisy_half_maps
from PIL import Image
from qtpy.QtWidgets import QApplication

import cryotk as ctk

FIGURES = Path(__file__).resolve().parent.parent / "figures"


def settle(dock: Any = None, rounds: int = 12) -> None:
    """Let Qt work until the dock's work is done."""
    i = 0
    while i < rounds or (dock is not None and dock.work.is_running):
        QApplication.processEvents()
        time.sleep(0.01)
        i += 1


def window() -> Any:
    """A viewer of the pictures' size."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1380, 860)
    viewer.scale_bar.visible = True
    settle()
    return viewer


def dock_of(viewer: Any, name: str) -> Any:
    """A dock of the plugin."""
    dock = viewer.window.add_plugin_dock_widget("cryotk", name)[1]
    settle()
    return dock


def in_3d(viewer: Any, zoom: float = 1.4) -> None:
    """Turn the view."""
    viewer.dims.ndisplay = 3
    settle(rounds=4)
    viewer.reset_view()
    viewer.scene.camera.angles = (20, 35, 60)
    viewer.scene.camera.zoom *= zoom


def keep(viewer: Any, name: str, width: int = 920, colours: int = 256) -> None:
    """Write the window as a small picture, and close it."""
    settle(rounds=4)
    picture = Image.fromarray(viewer.window.screenshot(canvas_only=False, flash=False)[..., :3])
    picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    # few pixels are of a curve's colour, which has to stay what the legend says
    picture = picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE)
    picture.save(FIGURES / f"napari_{name}.png", optimize=True)
    viewer.close()


def main() -> None:
    """Make all pictures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--halves", nargs=2, type=Path)
    arguments.add_argument("--model", type=Path)
    arguments.add_argument("--tracks", type=Path)
    arguments.add_argument("--picks", type=Path)
    given = arguments.parse_args()
    halves = [ctk.open_volume(p) for p in given.halves] if given.halves else noisy_half_maps()
    density = halves[0].copy(data=0.5 * (halves[0].values + halves[1].values))
    mask = ctk.create_mask(density, lowpass=15, extend_px=3, soft_edge_px=6).mask
    for name, title in (("postprocess", "Post-process"), ("local_resolution", "Local resolution")):
        viewer = window()
        for i, half in enumerate(halves, 1):
            half.cryo.to_napari(viewer, name=f"half-map {i}", visible=False)
        mask.cryo.to_napari(viewer, name="mask", visible=False)
        dock = dock_of(viewer, title)
        dock.mask.value = viewer.layers["mask"]
        if name == "local_resolution":
            dock.inside.value = True
        dock.run()
        settle(dock)
        in_3d(viewer)
        keep(viewer, name)
    viewer = window()
    density.cryo.to_napari(viewer, name="map")
    dock = dock_of(viewer, "Mask creation")
    dock.load()
    settle(dock)
    keep(viewer, "mask")
    if given.model:
        viewer = window()
        dock = dock_of(viewer, "Class viewer")
        dock.open_source(given.model)
        settle(dock)
        dock.selected = [1, 2, 3]
        dock.show_chosen()
        keep(viewer, "classes")
    viewer = window()
    viewer.open_sample("cryotk", "micrograph")
    viewer.reset_view()
    keep(viewer, "micrograph", 700, 24)
    for name, file in (("tracks", given.tracks), ("picks", given.picks)):
        if file:
            viewer = window()
            viewer.open(str(file), plugin="cryotk")
            settle()
            viewer.reset_view()
            if name == "picks":
                in_3d(viewer, 0.8)
                for layer in viewer.layers:  # the second tomogram
                    layer.visible = not layer.visible
            keep(viewer, name, 700, 64)


if __name__ == "__main__":
    main()
