"""Dock: local resolution of two half-maps, as a map, a coloured surface and a histogram."""

from __future__ import annotations

from typing import Any

import numpy as np
from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, FileEdit, FloatSpinBox, PushButton

from cryotk_widgets.napari.curves import Curve, CurvePlot
from cryotk_widgets.napari.dock import HalfMapsDock, file_or_none
from cryotk_widgets.napari.layers import LayerData, volume_layer, volume_of

__all__ = ["LocalResolutionDock", "coloured_surface", "resolution_colormap"]


def resolution_colormap() -> Any:
    """Blue (best) to red (worst), as in the notebook's volume view."""
    from napari.utils import Colormap

    from cryotk_widgets.volume_pictures import resolution_colours

    return Colormap(np.asarray(resolution_colours(), float) / 255.0, name="local resolution")


def coloured_surface(
    volume: np.ndarray, colour: np.ndarray, level: float, pixel_size: float, name: str, limits: tuple[float, float]
) -> LayerData | None:
    """The isosurface of a map, coloured by a second one.

    Parameters
    ----------
    volume, colour : (z, y, x) float
    level : float
    pixel_size : float, Å
    name : str
    limits : (low, high)
        Of the colours.

    Returns
    -------
    (data, options, "surface"), or None where no voxel reaches the level.
    """
    from scipy import ndimage
    from skimage.measure import marching_cubes

    if not volume.min() < level < volume.max():
        return None
    step = max(1, round(max(volume.shape) / 192))  # more triangles than pixels serve nobody
    vertices, faces, _, _ = marching_cubes(volume, level, step_size=step)
    values = ndimage.map_coordinates(colour, vertices.T, order=1, mode="nearest")
    options = {
        "name": name, "scale": (pixel_size,) * 3, "translate": tuple(-(n // 2) * pixel_size for n in volume.shape),
        "units": ("angstrom",) * 3, "colormap": resolution_colormap(), "contrast_limits": limits, "shading": "smooth",
    }  # fmt: skip
    return (vertices, faces, values), options, "surface"


class LocalResolutionDock(HalfMapsDock):
    """Half-maps (and mask) in the viewer → local resolution in Å, filtered map, surface coloured by resolution, histogram.

    Parameters
    ----------
    napari_viewer : napari.Viewer

    Attributes
    ----------
    result : LocalResolutionResult or None
    """

    def __init__(self, napari_viewer: Any) -> None:
        self.viewer = napari_viewer
        self.result: Any = None
        self.half1, self.half2 = self.volume_choice("half-map 1"), self.volume_choice("half-map 2")
        self.mask = self.volume_choice("mask", optional=True, tooltip="for the histogram")
        self.inside = CheckBox(label="", text="only inside the mask")
        self.sampling = FloatSpinBox(label="sampling (Å)", min=2, max=200, step=1, value=25, tooltip="distance of the windows")
        self.worst = FloatSpinBox(label="worst (Å)", min=5, max=200, step=1, value=50)
        self.b_factor = FloatSpinBox(
            label="B-factor (Å²)", min=-1000, max=0, step=10, value=0, tooltip="negative sharpens; 0: none"
        )
        self.pixel_size = self.pixel_size_choice()
        self.mtf = FileEdit(label="MTF", mode=FileDialogMode.EXISTING_FILE, filter="*.star", nullable=True, value=None)
        self.mtf_pixel_size = self.pixel_size_choice("MTF pixel size (Å)", "that of the maps", "of the detector's pixels")
        self.run_button = PushButton(text="Local resolution")
        super().__init__(napari_viewer, [
            self.half1, self.half2, self.mask, self.inside, self.pixel_size, self.sampling, self.worst, self.b_factor, self.mtf,
            self.mtf_pixel_size, self.run_button,
        ])  # fmt: skip
        self.plot = CurvePlot("local resolution (Å)", "voxels")
        self.body.addWidget(self.plot, 1)
        self.run_button.changed.connect(self.run)
        self.reset_choices()
        self._choose_halves()

    def run(self, *_: Any) -> None:
        """Start; the result comes when it is there."""
        from cryotk.errors import DataError
        from cryotk.maps import local_resolution

        one, two = self.ready()
        mask, mtf = self.mask.value, file_or_none(self.mtf)
        self.calibrate(float(self.pixel_size.value), mask)
        settings: dict[str, Any] = {
            "sampling": float(self.sampling.value), "min_resolution": float(self.worst.value), "mtf": mtf,
            "mtf_pixel_size": None if mtf is None else float(self.mtf_pixel_size.value) or None,
            "b_factor": float(self.b_factor.value) or None, "only_inside_mask": bool(self.inside.value) and mask is not None,
        }  # fmt: skip

        def work(step: Any) -> Any:
            if one is None or two is None:
                raise DataError("open two half-maps first (File > Open Sample > cryotk has some)")
            half1, half2 = volume_of(one, step), volume_of(two, step)
            inside = None if mask is None else volume_of(mask, step)
            result = local_resolution(half1, half2, inside, progress=step, **settings)
            step(1, 1)
            return result, one, self._surface(result, inside)

        self.work.run("local resolution", work, self._done)

    @staticmethod
    def _surface(result: Any, mask: Any) -> tuple[LayerData | None, tuple[float, float]]:
        from cryotk_widgets.volume_pictures import colour_limits, suggested_threshold

        resolution, filtered = np.asarray(result.resolution_map.values), np.asarray(result.filtered.values)
        level = suggested_threshold(filtered)
        shown = (resolution > 0) & (filtered > level if mask is None else np.asarray(mask.values) > 0.5)
        limits = colour_limits(resolution[shown])
        name = "surface by local resolution"
        return coloured_surface(filtered, resolution, level, result.pixel_size, name, limits), limits

    def _done(self, outcome: Any) -> None:
        result, like, (surface, limits) = outcome
        self.result = result
        a = result.pixel_size
        resolution = np.asarray(result.resolution_map.values)
        self.add(volume_layer(resolution, a, "local resolution", contrast_limits=limits, colormap=resolution_colormap(),
                              rendering="mip", visible=False), like)  # fmt: skip
        self.add(volume_layer(np.asarray(result.filtered.values), a, "locally filtered", visible=surface is None), like)
        if surface is not None:
            self.add(surface, like)
        if result.histogram is not None and result.histogram.sizes["bin"]:
            x, y = np.asarray(result.histogram["resolution"].values), np.asarray(result.histogram["count"].values, float)
            text, middle = "inside the mask", result.histogram.attrs["median"]
        else:
            values = resolution[resolution > 0]
            y, edges = np.histogram(values, 40) if values.size else (np.zeros(1), np.array([0.0, 1.0]))
            x, y, text = (edges[1:] + edges[:-1]) / 2, y.astype(float), "everywhere"
            middle = float(np.median(values)) if values.size else np.nan
        mark = (middle, f"median {middle:.2f} Å") if np.isfinite(middle) else None
        self.plot.show_curves([Curve(text, x, y, is_bars=True)], mark=mark)
        line = f"median {middle:.2f} Å {text}; colours from {limits[0]:.2f} (blue) to {limits[1]:.2f} Å (red)"
        self.work.say("\n".join([line, *self.doubt(like, self.half2.value), *result.warnings]))
