"""Dock: make a mask, with the threshold live."""

from __future__ import annotations

from typing import Any

import numpy as np
from magicgui.widgets import CheckBox, FloatSlider, FloatSpinBox, Label, PushButton
from qtpy.QtWidgets import QDoubleSpinBox, QSizePolicy

from cryotk.execution import Steps
from cryotk_widgets.napari.dock import Dock, later
from cryotk_widgets.napari.layers import volume_layer, volume_of

__all__ = ["MaskDock"]

_PREVIEW = 96
PREVIEW_NAME = "mask (preview)"


def show_decimals(slider: FloatSlider, span: float) -> None:
    """Show as many decimals beside a slider as part its steps over a span."""
    number = slider.native.findChild(QDoubleSpinBox)
    if number is not None and span > 0:
        number.setDecimals(int(np.clip(3 - np.floor(np.log10(span)), 2, 9)))


class MaskDock(Dock):
    """Threshold, extension and soft edge under sliders; the mask over the map follows them on a small copy.

    "Make mask" runs :func:`cryotk.create_mask` on the whole map.

    Parameters
    ----------
    napari_viewer : napari.Viewer

    Attributes
    ----------
    result : MaskResult or None
    """

    def __init__(self, napari_viewer: Any) -> None:
        self.viewer = napari_viewer
        self.result: Any = None
        self._small: np.ndarray | None = None
        self._loaded: tuple[Any, float, float] | None = None
        self._voxel = self._ratio = 1.0
        self.source = self.volume_choice("map")
        self.pixel_size = self.pixel_size_choice()
        self.lowpass = FloatSpinBox(label="low-pass (Å)", min=0, max=200, step=1, value=15, tooltip="0: none")
        self.threshold = FloatSlider(label="threshold", min=0, max=1, value=0, enabled=False)
        self.reason = Label(value="")
        self.extension = FloatSlider(label="extend (px)", min=-10, max=20, step=0.5, value=3, tooltip="negative shrinks")
        self.edge = FloatSlider(label="soft edge (px)", min=0, max=20, step=0.5, value=3)
        self.largest_only = CheckBox(label="", text="largest piece only")
        self.fill_holes = CheckBox(label="", text="fill holes")
        self.suggest_button, self.make_button = PushButton(text="Suggest a threshold"), PushButton(text="Make mask")
        super().__init__(napari_viewer, [
            self.source, self.pixel_size, self.lowpass, self.suggest_button, self.threshold, self.reason, self.extension, self.edge,
            self.largest_only, self.fill_holes, self.make_button,
        ])  # fmt: skip
        self.reason.native.setWordWrap(True)
        # as high as its lines are, at whatever width
        policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        self.reason.native.setSizePolicy(policy)
        self.body.addStretch(1)
        self._refresh, self._reload = later(30, self.show_preview, self.work), later(300, self.load, self.work)
        for widget in (self.threshold, self.extension, self.edge, self.largest_only, self.fill_holes):
            widget.changed.connect(lambda *_: self._refresh.start())
        for choice in (self.source, self.pixel_size, self.lowpass):
            choice.changed.connect(lambda *_: self._reload.start())
        self.suggest_button.changed.connect(lambda *_: self.load(True))
        self.make_button.changed.connect(self.make)
        self.reset_choices()

    def load(self, again: bool = False) -> None:
        """Low-pass the map, suggest a threshold, keep a small copy for the preview."""
        layer, low = self.source.value, float(self.lowpass.value)
        if layer is None:
            return
        if layer.metadata.get("cryotk_dock") == type(self).__name__:
            return  # its own mask
        if self.work.is_running:
            self._reload.start()  # what was asked for meanwhile comes after
            return
        self.calibrate(float(self.pixel_size.value), layer)
        voxel = float(layer.scale[-1])
        if not again and self._loaded == (layer, low, voxel):
            return

        def work(step: Any) -> Any:
            from cryotk.maps import lowpass, suggest_threshold
            from cryotk_widgets.volume_pictures import cropped

            volume = volume_of(layer, step)
            a = float(volume.attrs["pixel_size"])
            with Steps(step, 8, "low-pass"):
                smooth = np.asarray(lowpass(volume, low).values if low else volume.values, np.float32)
            return cropped(smooth, _PREVIEW), suggest_threshold(smooth, lowpass=None, pixel_size=a), a, smooth.shape[0]

        def done(outcome: Any) -> None:
            small, (level, reason), a, n = outcome
            self._small, self._loaded = small, (layer, low, voxel)
            self._ratio = n / small.shape[0]
            self._voxel = a * self._ratio
            self.threshold.enabled = False  # its changes are ours for a moment
            low_end, top = float(np.quantile(small, 0.2)), float(small.max())
            show_decimals(self.threshold, max(top, level) - min(low_end, level))
            self.threshold.max = max(top, level)
            self.threshold.min = min(low_end, level)
            self.threshold.step = (self.threshold.max - self.threshold.min) / 500
            self.threshold.value = level
            self.threshold.enabled = True
            self.reason.value = f"suggested {level:.4g}: {reason}"
            self.show_preview()

        self.work.run("low-passing", work, done)

    def preview(self) -> np.ndarray | None:
        """The mask on the small copy."""
        if self._small is None:
            return None
        from cryotk.maps import soft_mask
        from cryotk.maps.mask import solid_pieces

        inside = self._small >= float(self.threshold.value)
        if self.largest_only.value or self.fill_holes.value:
            inside = solid_pieces(inside, bool(self.largest_only.value), bool(self.fill_holes.value))
        return np.asarray(soft_mask(inside, float(self.extension.value) / self._ratio, float(self.edge.value) / self._ratio))

    def show_preview(self) -> None:
        """Put the preview over the map."""
        mask, loaded = self.preview(), self._loaded
        if mask is None or loaded is None:
            return
        at = [float(t) + n // 2 * float(s) - mask.shape[0] // 2 * self._voxel
              for t, n, s in zip(loaded[0].translate, loaded[0].data.shape, loaded[0].scale, strict=True)]  # fmt: skip
        if PREVIEW_NAME in self.viewer.layers:
            layer = self.viewer.layers[PREVIEW_NAME]
            layer.data, layer.scale, layer.translate = mask, (self._voxel,) * 3, at
        else:
            self.viewer.add_image(
                mask, name=PREVIEW_NAME, scale=(self._voxel,) * 3, translate=at, units=("angstrom",) * 3, contrast_limits=(0, 1),
                colormap="cyan", blending="additive", opacity=0.35, rendering="iso", iso_threshold=0.5, multiscale=False,
                metadata={"cryotk": {"kind": "preview"}, "cryotk_dock": type(self).__name__},
            )  # fmt: skip
        self.work.say("\n".join([f"{100 * float(mask.mean()):.1f} % of the box", *self.doubt(loaded[0])]))

    def make(self, *_: Any) -> None:
        """Make the mask at full size."""
        layer = self.source.value
        self.calibrate(float(self.pixel_size.value), layer)
        settings: dict[str, Any] = {
            "threshold": None if self._small is None else float(self.threshold.value),
            "lowpass": float(self.lowpass.value) or None, "extend_px": float(self.extension.value),
            "soft_edge_px": float(self.edge.value), "largest_only": bool(self.largest_only.value),
            "fill_holes": bool(self.fill_holes.value),
        }  # fmt: skip

        def work(step: Any) -> Any:
            from cryotk.errors import DataError
            from cryotk.maps import create_mask

            if layer is None:
                raise DataError("open a map first")
            return create_mask(volume_of(layer, step), progress=step, **settings)

        def done(result: Any) -> None:
            self.result = result
            if PREVIEW_NAME in self.viewer.layers:
                self.viewer.layers[PREVIEW_NAME].visible = False
            mask = volume_layer(
                np.asarray(result.mask.values), float(result.mask.attrs["pixel_size"]), "mask", contrast_limits=(0.0, 1.0),
                iso_threshold=0.5, colormap="cyan", blending="additive", opacity=0.35,
            )  # fmt: skip
            self.add(mask, layer)
            self.work.say(f"mask made: {100 * result.fraction:.1f} % of the box; File > Save writes it")

        self.work.run("making the mask", work, done)
