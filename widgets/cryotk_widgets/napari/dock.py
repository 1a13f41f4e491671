"""What the dock widgets share: choosing volumes, running work, layers that are replaced by their successors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from magicgui.widgets import ComboBox, Container, FileEdit, FloatSpinBox
from napari.layers import Image
from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtWidgets import QScrollArea

from cryotk_widgets.napari.layers import LayerData, doubt_about
from cryotk_widgets.napari.work import Work

__all__ = ["Dock", "HalfMapsDock", "file_or_none", "later"]


class _Scroll(QScrollArea):
    """A form that is scrolled where the window is too low for it, and never narrower than its fields."""

    def minimumSizeHint(self) -> QSize:
        """Qt's: the form's width, some lines high."""
        inner, bar = self.widget(), self.verticalScrollBar()
        width = 0 if inner is None else inner.minimumSizeHint().width()
        return QSize(width + (0 if bar is None else bar.sizeHint().width()), 160)

    def sizeHint(self) -> QSize:
        """Qt's: the whole form."""
        inner = self.widget()
        return self.minimumSizeHint() if inner is None else inner.sizeHint().expandedTo(self.minimumSizeHint())


class Dock(Container):
    """A form of magicgui with a status line and a cancel button below.

    Attributes
    ----------
    body : QLayout
        Of the form, for what is no widget of magicgui.
    work : Work


    Parameters
    ----------
    viewer : napari.Viewer
    widgets : list
        Of magicgui.
    """

    def __init__(self, viewer: Any, widgets: list[Any]) -> None:
        self.viewer = viewer
        super().__init__(widgets=widgets, labels=True)
        self.work = Work()
        form = super().native
        self.body = form.layout()
        self.body.addWidget(self.work)
        scroll = _Scroll()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setWidget(form)
        self._scroll = scroll
        for signal in (viewer.layers.events.inserted, viewer.layers.events.removed):
            signal.connect(self._on_layers)

    @property
    def native(self) -> Any:
        """What napari puts into its window: the form, which scrolls."""
        return getattr(self, "_scroll", None) or super().native

    def _on_layers(self, event: Any = None) -> None:
        try:
            self.reset_choices()
        except RuntimeError:  # the dock was closed, and Qt has deleted it
            self.viewer.layers.events.disconnect(self._on_layers)

    def volume_choice(self, label: str, *, optional: bool = False, tooltip: str = "") -> Any:
        """A menu of the volumes in the viewer."""
        return ComboBox(label=label, choices=self._volumes, nullable=optional, tooltip=tooltip)

    def _volumes(self, widget: Any) -> list[tuple[str, Any]]:
        return [
            (layer.name, layer) for layer in self.viewer.layers
            if isinstance(layer, Image) and layer.ndim == 3 and layer.metadata.get("cryotk", {}).get("kind", "volume") == "volume"
        ]  # fmt: skip

    @staticmethod
    def pixel_size_choice(label: str = "pixel size (Å)", none: str = "as in the files", tooltip: str = "calibrated, of all maps here") -> Any:
        """A field for a pixel size; 0, when nothing is to be changed, is said in words."""
        field = FloatSpinBox(label=label, min=0, max=100, step=0.0001, value=0, tooltip=f"{tooltip}; 0: {none}")
        field.native.setSpecialValueText(none)
        return field

    def calibrate(self, pixel_size: float, *layers: Any) -> None:
        """Give layers another pixel size in Å, their centres kept; 0 leaves them as they are."""
        for layer in layers if pixel_size > 0 else ():
            if layer is not None:
                ratio = pixel_size / float(layer.scale[-1])
                layer.scale, layer.translate = np.asarray(layer.scale) * ratio, np.asarray(layer.translate) * ratio
                known = dict(layer.metadata.get("cryotk") or {})
                layer.metadata["cryotk"] = known | {"pixel_size": pixel_size, "has_pixel_size": True, "is_calibrated": True}

    @staticmethod
    def doubt(*layers: Any) -> list[str]:
        """Line about layers whose pixel size nobody knows, when there is one to say."""
        line = doubt_about([layer for layer in layers if layer is not None])
        return [line] if line else []

    def add(self, layer: LayerData, like: Any = None) -> Any:
        """Add a layer instead of the one that this dock added before under its name, looking alike.

        Parameters
        ----------
        layer : (data, options, kind)
        like : layer, optional
            Of which the position is taken.
        """
        data, options, kind = layer
        options = dict(options)
        options["metadata"] = dict(options.get("metadata") or {}) | {"cryotk_dock": type(self).__name__}
        if like is not None:
            options["translate"] = tuple(like.translate)
        name = options["name"]
        if name in self.viewer.layers and self.viewer.layers[name].metadata.get("cryotk_dock") == type(self).__name__:
            before = self.viewer.layers[name]
            options |= {"visible": before.visible, "opacity": before.opacity, "colormap": before.colormap}
            self.viewer.layers.remove(before)
        return getattr(self.viewer, f"add_{kind}")(data, **options)


class HalfMapsDock(Dock):
    """A dock that takes two half-maps, ``half1`` and ``half2``."""

    half1: Any
    half2: Any
    pixel_size: Any

    def ready(self) -> list[Any]:
        """The half-maps, with the pixel size of the form."""
        halves = [self.half1.value, self.half2.value]
        self.calibrate(float(self.pixel_size.value), *halves)
        return halves

    def _on_layers(self, event: Any = None) -> None:
        super()._on_layers(event)
        self._choose_halves()

    def _choose_halves(self) -> None:
        """Not the same map twice when there are two."""
        choices = list(self.half2.choices)
        if self.half1.value is not None and self.half1.value is self.half2.value and len(choices) > 1:
            self.half2.value = next(c for c in choices if c is not self.half1.value)
        doubt = self.doubt(self.half1.value, self.half2.value)
        if doubt and hasattr(self, "work") and not self.work.is_running:
            self.work.say(doubt[0], error=True)


def file_or_none(edit: FileEdit) -> Path | None:
    """The file of a field, None for an empty one."""
    text = str(edit.value or "")
    return Path(text).expanduser() if text not in ("", ".") else None


def later(milliseconds: int, function: Callable[[], None], owner: Any) -> QTimer:
    """A timer that, once started, calls when nothing restarted it for a while; it ends with the Qt object ``owner``."""
    timer = QTimer(owner)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(function)
    return timer
