"""Dock: post-process two half-maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, FileEdit, FloatSlider, FloatSpinBox, PushButton
from qtpy.QtWidgets import QTabWidget

from cryotk.execution import Steps
from cryotk_widgets.curves import fitted_points
from cryotk_widgets.napari.curves import Curve, CurvePlot
from cryotk_widgets.napari.dock import HalfMapsDock, file_or_none
from cryotk_widgets.napari.layers import volume_layer, volume_of

__all__ = ["PostprocessDock", "fsc_curves", "guinier_curves"]

_FSC = (("corrected", "corrected", "blue"), ("unmasked", "unmasked", "green"), ("masked", "masked", "orange"),
        ("randomised", "phases randomised", "red"))  # fmt: skip
_GUINIER = (("original", "original", "grey"), ("weighted", "FSC-weighted", "green"), ("sharpened", "sharpened", "blue"))


def fsc_curves(fsc: Any) -> list[Curve]:
    """The four curves of a result, over 1/Å."""
    x = np.asarray(fsc["frequency"].values, float)
    return [Curve(text, x, np.asarray(fsc[key].values, float), colour) for key, text, colour in _FSC if key in fsc]


def guinier_curves(guinier: Any, sharpened: np.ndarray | None = None) -> list[Curve]:
    """Logarithms of amplitudes over 1/Å^2, and the fitted line; ``sharpened`` replaces the result's."""
    x = np.asarray(guinier["inverse_resolution_squared"].values, float)
    out = []
    for key, text, colour in _GUINIER:
        if key in guinier:
            y = np.asarray(guinier[key].values if sharpened is None or key != "sharpened" else sharpened, float)
            out.append(Curve(text, x, np.where(y > -90, y, np.nan), colour))
    fit = guinier.attrs
    if np.isfinite(fit.get("slope", np.nan)) and fit.get("slope"):
        x = fitted_points(guinier)
        out.append(Curve("fit", x, fit["slope"] * x + fit["intercept"], "orange", is_dashed=True))
    return out


def sharpened_anew(result: Any, b_factor: float, lowpass: float) -> Any:
    """A result with another B-factor and low-pass (0: none), as a run with these gives it: no fit, its own map and amplitudes."""
    guinier = result.guinier.copy()
    guinier["sharpened"] = guinier["sharpened"].copy(data=result.sharpened_amplitudes(b_factor, lowpass))
    for name in ("slope", "intercept", "correlation", "fit_from", "fit_to"):
        guinier.attrs.pop(name, None)
    settings = result.settings | {"b_factor": b_factor, "auto_b_factor": False, "lowpass": lowpass or None}
    return replace(
        result, b_factor=b_factor, fitted=False, guinier=guinier, settings=settings, volume=result.sharpened(b_factor, lowpass)
    )


class PostprocessDock(HalfMapsDock):
    """Half-maps (and mask) in the viewer → resolution, FSC and Guinier curves, sharpened map.

    Parameters
    ----------
    napari_viewer : napari.Viewer

    Attributes
    ----------
    result : PostprocessResult or None
        What *Save* writes: of the last run, or sharpened anew.
    """

    def __init__(self, napari_viewer: Any) -> None:
        self.viewer = napari_viewer
        self.result: Any = None
        self._run: Any = None
        self.half1 = self.volume_choice("half-map 1", tooltip="unfiltered")
        self.half2 = self.volume_choice("half-map 2", tooltip="unfiltered")
        self.mask = self.volume_choice("mask", optional=True, tooltip="soft, 0 to 1")
        self.auto_b_factor = CheckBox(label="", text="fit the B-factor", value=True)
        self.b_factor = FloatSlider(label="B-factor (Å²)", min=-400, max=0, value=0, enabled=False, tooltip="negative sharpens")
        self.lowpass = FloatSpinBox(label="low-pass (Å)", min=0, max=100, step=0.5, value=0, tooltip="0: none")
        self.pixel_size = self.pixel_size_choice()
        self.mtf = FileEdit(label="MTF", mode=FileDialogMode.EXISTING_FILE, filter="*.star", nullable=True, value=None)
        self.mtf_pixel_size = self.pixel_size_choice("MTF pixel size (Å)", "that of the maps", "of the detector's pixels")
        self.run_button, self.again_button = (
            PushButton(text="Post-process"),
            PushButton(text="Sharpen with this B-factor", enabled=False),
        )
        self.save_to = FileEdit(label="save to", mode=FileDialogMode.EXISTING_DIRECTORY, nullable=True, value=None)
        self.save_button = PushButton(text="Save RELION's files", enabled=False)
        super().__init__(napari_viewer, [
            self.half1, self.half2, self.mask, self.pixel_size, self.mtf, self.mtf_pixel_size, self.lowpass, self.auto_b_factor,
            self.run_button, self.b_factor, self.again_button, self.save_to, self.save_button,
        ])  # fmt: skip
        self.fsc_plot = CurvePlot("resolution (Å)", "FSC", lambda v: f"{1 / v:.1f}" if v > 0 else "∞")
        self.guinier_plot = CurvePlot("1 / resolution² (1/Å²)", "ln amplitude")
        self.tabs = QTabWidget()
        self.tabs.addTab(self.fsc_plot, "FSC")
        self.tabs.addTab(self.guinier_plot, "Guinier")
        self.body.addWidget(self.tabs, 1)
        self.auto_b_factor.changed.connect(lambda on: setattr(self.b_factor, "enabled", not on or self.result is not None))
        self.run_button.changed.connect(self.run)
        self.b_factor.changed.connect(self._preview)
        self.again_button.changed.connect(self.sharpen)
        self.save_button.changed.connect(self.save)
        self.reset_choices()
        self._choose_halves()

    def run(self, *_: Any) -> None:
        """Start; the result comes when it is there."""
        from cryotk.errors import DataError
        from cryotk.maps import postprocess

        one, two = self.ready()
        mask = self.mask.value
        self.calibrate(float(self.pixel_size.value), mask)
        mtf_pixel_size = float(self.mtf_pixel_size.value) or None
        settings: dict[str, Any] = {
            "auto_b_factor": bool(self.auto_b_factor.value), "lowpass": float(self.lowpass.value) or None,
            "mtf": file_or_none(self.mtf), "mtf_pixel_size": mtf_pixel_size, "b_factor": None if self.auto_b_factor.value else float(self.b_factor.value),
        }  # fmt: skip

        def work(step: Any) -> Any:
            if one is None or two is None:
                raise DataError("open two half-maps first (File > Open Sample > cryotk has some)")
            half1, half2 = volume_of(one, step), volume_of(two, step)
            inside = None if mask is None else volume_of(mask, step)
            return postprocess(half1, half2, inside, progress=step, **settings), one

        self.work.run("post-processing", work, self._done)

    def _done(self, outcome: Any) -> None:
        result, like = outcome
        self.result = self._run = result
        self._show_maps(result, like)
        fit = f", B {result.b_factor:.0f} Å²" + (" (fitted)" if result.fitted else "") if result.b_factor else ""
        self.work.say("\n".join([f"{result.resolution:.2f} Å at FSC 0.143{fit}", *self.doubt(like, self.half2.value), *result.warnings]))
        self.b_factor.min = min(-400.0, 2 * result.b_factor)
        self.b_factor.value = min(0.0, result.b_factor)
        self.b_factor.enabled = self.again_button.enabled = self.save_button.enabled = True
        mark = (
            (1 / result.resolution, f"{result.resolution:.2f} Å") if np.isfinite(result.resolution) and result.resolution else None
        )
        self.fsc_plot.show_curves(fsc_curves(result.fsc), level=0.143, mark=mark, y_range=(-0.1, 1.03))
        self.guinier_plot.show_curves(guinier_curves(result.guinier))

    def _show_maps(self, result: Any, like: Any) -> None:
        a = result.pixel_size
        self.add(volume_layer(np.asarray(result.volume.values), a, "post-processed"), like)
        if result.masked is not None:
            self.add(volume_layer(np.asarray(result.masked.values), a, "post-processed, masked", visible=False), like)

    def _preview(self, *_: Any) -> None:
        """The Guinier plot follows the slider; the map waits for the button."""
        if self.result is not None and self.b_factor.enabled:
            y = self._run.sharpened_amplitudes(float(self.b_factor.value), float(self.lowpass.value))
            self.guinier_plot.show_curves(guinier_curves(self._run.guinier, y))

    def sharpen(self, *_: Any) -> None:
        """Sharpen anew with the slider's B-factor: one transform. What is saved from then on is this."""
        run, b, low, like = self._run, float(self.b_factor.value), float(self.lowpass.value), self.half1.value

        def done(result: Any) -> None:
            self.result = result
            self._show_maps(result, like)
            self.work.say(f"sharpened with {b:.0f} Å²")

        if run is not None:

            def work(step: Any) -> Any:
                with Steps(step, 4, "sharpening"):
                    return sharpened_anew(run, b, low)

            self.work.run("sharpening", work, done)

    def save(self, *_: Any) -> None:
        """Write ``postprocess.star`` and RELION's other files."""
        result, folder = self.result, file_or_none(self.save_to)
        if folder is None:
            self.work.say("choose a folder to save to", error=True)
        elif result is not None:

            def done(path: Path) -> None:
                self.work.say(f"written: {path}")

            self.work.run("writing", lambda step: result.save(folder), done)
