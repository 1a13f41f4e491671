"""A map seen: surface, slices, a second map beside it, colours of another."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import traitlets

from cryotk.errors import DataError, SettingsError
from cryotk_widgets.given_maps import GivenMap, as_map, called
from cryotk_widgets.pictures import png_of
from cryotk_widgets.view_base import View, page_text
from cryotk_widgets.volume_pictures import (
    COOL,
    WARM,
    colour_limits,
    cropped,
    fitting_zoom,
    legend_image,
    on_grid,
    page_map,
    plane_image,
    resolution_colours,
    suggested_threshold,
    surface_image,
    to_byte_map,
)

__all__ = ["VolumeView", "symmetry_axes", "view_volume"]

_FULL = 256


class VolumeView(View):
    """A map as a surface with slices; two maps side by side; a surface coloured by another map.

    Drag turns, shift-drag pans, wheel zooms, double click resets; arrow keys turn, ``+`` and ``-`` zoom. The histogram holds the
    threshold: drag it, or use the arrow keys, or type the value. A click in a slice moves the cross-hair of all three.
    Nothing of this asks the kernel. The hand is ChimeraX's: x to the right, y up, z towards the viewer.

    Parameters
    ----------
    volume : path, DataArray, (z, y, x) array or result
        Of a post-process its map, of a local resolution the filtered map, of a mask the mask.
    second : as ``volume``, optional
        Shown beside the first, turned together with it.
    colour_by : path, DataArray, array or LocalResolutionResult, optional
        On the grid of ``volume``, such as a local resolution in Å; NaN and 0 are not coloured.
    colour_range : (float, float), optional
        Values of the first and the last colour; by default the 2nd and 98th percentile above the suggested threshold, and no
        narrower than a tenth of the value between them.
    colour_label : str
    mask : path, DataArray, array or result with a mask, optional
        On the grid of ``volume``; shown over the slices, full line where it is one and dashed where it ends.
    names : str or (str, str), optional
        What is written over the maps; by default what they are: the DataArray's name, what was done to it last, or its file.
    symmetry : str
        Point group whose axes are drawn.
    pixel_size : float, optional
        Å, for arrays without one. Where nobody knows it, 1 Å is drawn, and said below the picture.
    max_size : int
        Points a side that go to the page at first (128: 2 MB); "Full size" there asks for up to 256.
    **traits
        Start values of the attributes below.

    Attributes
    ----------
    threshold, threshold_2 : float
        In the map's own units.
    camera : dict
        ``rotation`` (quaternion x, y, z, w), ``zoom`` (1: the box fills the picture), ``pan`` [Å].
    cursor : list of float
        x, y, z in Å from the centre: where the slices are.
    clip : float
        Share of the depth cut away in front, 0 to 1.
    show_axes, coloured : bool
    layout_mode : {"both", "surface", "slices"}
    theme : {"auto", "light", "dark"}

    Raises
    ------
    DataError
        For things that are no map, such as a stack of images, and for a colour map on another grid.

    Notes
    -----
    .. image:: ../figures/volume_light.png

    Examples
    --------
    >>> view = VolumeView("run_class001.mrc", threshold=0.02)  # doctest: +SKIP
    >>> view.threshold = 0.03  # doctest: +SKIP
    """

    _esm = page_text("volume_core.js", "view_core.js", "volume_gl.js", "surface.js", "slices.js", "volume.js")
    _css = page_text("tokens.css", "views.css")
    _settable = ("threshold", "threshold_2", "camera", "cursor", "clip", "show_axes", "coloured")

    data = traitlets.Bytes(b"").tag(sync=True)
    shape: Any = traitlets.List([1, 1, 1]).tag(sync=True)
    voxel = traitlets.Float(1.0).tag(sync=True)
    value_range: Any = traitlets.List([0.0, 1.0]).tag(sync=True)
    limits: Any = traitlets.List([0.0, 1.0]).tag(sync=True)
    data_2 = traitlets.Bytes(b"").tag(sync=True)
    shape_2: Any = traitlets.List([1, 1, 1]).tag(sync=True)
    voxel_2 = traitlets.Float(1.0).tag(sync=True)
    range_2: Any = traitlets.List([0.0, 1.0]).tag(sync=True)
    colour_data = traitlets.Bytes(b"").tag(sync=True)
    colour_span: Any = traitlets.List([0.0, 1.0]).tag(sync=True)
    colour_range: Any = traitlets.List([0.0, 1.0]).tag(sync=True)
    colour_label = traitlets.Unicode("").tag(sync=True)
    palette = traitlets.Bytes(b"").tag(sync=True)
    mask_data = traitlets.Bytes(b"").tag(sync=True)
    names: Any = traitlets.List(["", ""]).tag(sync=True)
    sources: Any = traitlets.List(["", ""]).tag(sync=True)
    suggested: Any = traitlets.List([0.0, 0.0]).tag(sync=True)
    extent = traitlets.Float(1.0).tag(sync=True)
    radius = traitlets.Float(1.0).tag(sync=True)
    start: Any = traitlets.Dict().tag(sync=True)
    axes: Any = traitlets.List().tag(sync=True)
    about = traitlets.Unicode("").tag(sync=True)
    can_enlarge = traitlets.Bool(False).tag(sync=True)

    threshold = traitlets.Float(0.0).tag(sync=True)
    threshold_2 = traitlets.Float(0.0).tag(sync=True)
    camera: Any = traitlets.Dict({"rotation": [0.0, 0.0, 0.0, 1.0], "zoom": 1.0, "pan": [0.0, 0.0]}).tag(sync=True)
    cursor: Any = traitlets.List([0.0, 0.0, 0.0]).tag(sync=True)
    clip = traitlets.Float(0.0, min=0.0, max=1.0).tag(sync=True)
    show_axes = traitlets.Bool(False).tag(sync=True)
    coloured = traitlets.Bool(True).tag(sync=True)
    layout_mode = traitlets.Enum(["both", "surface", "slices"], "both").tag(sync=True)

    def __init__(
        self, volume: Any, second: Any = None, *, colour_by: Any = None, colour_range: Any = None, colour_label: str = "local resolution (Å)",
        mask: Any = None, names: Any = None, symmetry: str = "C1", pixel_size: float | None = None, max_size: int = 128, **traits: Any,
    ) -> None:  # fmt: skip
        if max_size < 16:
            raise SettingsError(f"max_size = {max_size}: at least 16 points a side")
        self._max_size = max_size
        self._maps: list[GivenMap] = []
        self._tint: Any = None
        self._mask: Any = None
        super().__init__(palette=resolution_colours().tobytes())
        self.set_volume(
            volume, second, colour_by=colour_by, colour_range=colour_range, colour_label=colour_label, names=names,
            pixel_size=pixel_size,
        )  # fmt: skip
        if mask is not None:
            self.set_mask(mask)
        self.axes = symmetry_axes(symmetry)
        self.show_axes = bool(self.axes)
        for name, value in traits.items():
            if not self.has_trait(name):
                raise SettingsError(f"{type(self).__name__} has no {name}; it has {', '.join(self._settable)}, layout_mode, theme")
            setattr(self, name, value)

    def set_volume(
        self, volume: Any, second: Any = None, *, colour_by: Any = None, colour_range: Any = None, colour_label: str = "local resolution (Å)",
        names: Any = None, pixel_size: float | None = None, keep: bool = False,
    ) -> None:  # fmt: skip
        """Show another map.

        Parameters
        ----------
        keep : bool
            Keep threshold and camera.
        """
        given = [as_map(v, pixel_size) for v in (volume, second) if v is not None]
        if not given:
            raise DataError("there is no map to show: give a path, a DataArray, an array (z, y, x) or a result that holds one")
        titles = called(names, given)
        tint = None if colour_by is None else as_map(colour_by, pixel_size, "colour").array
        first, a = given[0].array, given[0].pixel_size
        if tint is not None and tint.shape != first.shape:
            raise DataError(f"the map has {first.shape} voxels and the one that colours it {tint.shape}; they must have one grid")
        self._maps, self._tint = given, None if tint is None else np.where(tint > 0, tint, np.nan)
        levels = [suggested_threshold(g.array) for g in given]
        with self.hold_sync():
            p = page_map(first, a, self._max_size)
            self.data, self.shape, self.voxel, self.value_range, self.limits = p.data, p.shape, p.voxel, p.span, p.limits
            self.data_2 = b""
            if len(given) > 1:
                q = page_map(given[1].array, given[1].pixel_size, self._max_size)
                self.data_2, self.shape_2, self.voxel_2, self.range_2 = q.data, q.shape, q.voxel, q.span
            rest = [""] * (2 - len(given))
            self.names, self.sources = titles + rest, [g.source for g in given] + rest
            self.suggested = [float(v) for v in levels] + [0.0] * (2 - len(given))
            extents = [max(g.array.shape) * g.pixel_size for g in given]
            self.extent = float(max(extents))
            zoom, r = fitting_zoom(first, levels[0])
            self.radius = r * extents[0] / 2
            zoom *= self.extent / extents[0]
            self.start = {"rotation": [0.0, 0.0, 0.0, 1.0], "zoom": zoom, "pan": [0.0, 0.0]}
            if not keep:
                self.threshold, self.threshold_2 = levels[0], levels[-1]
                self.camera, self.clip, self.cursor = dict(self.start), 0.0, [0.0, 0.0, 0.0]
            self._set_colours(colour_range, colour_label)
            self.can_enlarge = max(first.shape) > max(p.shape)
            self.about = given[0].about

    def _set_colours(self, shown: Any, label: str) -> None:
        tint = self._tint
        if tint is None or not np.isfinite(tint).any():
            self.colour_data = b""
            return
        span = [float(np.nanmin(tint)), float(np.nanmax(tint))]
        self.colour_span = [span[0], max(span[1], span[0] + 1e-3)]
        self.colour_data = self._tint_bytes(tint, tuple(self.shape))
        # the colours are for the molecule: solvent has the worst resolution there is, and most of the box
        seen = tint[(self._maps[0].array >= self.suggested[0]) & np.isfinite(tint)]
        low, high = (float(v) for v in (shown if shown is not None else colour_limits(seen if seen.size else tint)))
        self.colour_range, self.colour_label = [low, high if high > low else low + 1.0], label

    def set_mask(self, mask: Any) -> None:
        """Show a mask over the slices; None takes it away."""
        if mask is None:
            self.mask_data, self._mask = b"", None
            return
        array, first = as_map(mask, kind="mask").array, self._maps[0].array
        if array.shape != first.shape:
            raise DataError(f"the map has {first.shape} voxels and the mask {array.shape}; they must have one grid")
        self._mask = array
        self.mask_data = to_byte_map(on_grid(array, tuple(self.shape)), (0.0, 1.0))[0].tobytes()

    def _tint_bytes(self, tint: np.ndarray, shape: tuple[int, ...]) -> bytes:
        """Colour values on the page's grid: 1 to 255 over ``colour_span``, 0 where there are none."""
        from scipy.ndimage import distance_transform_edt

        small = on_grid(tint, shape)
        known = np.isfinite(small)
        # a surface may lie just outside of what was measured: the nearest value, for a few voxels
        distance, nearest = distance_transform_edt(~known, return_indices=True)
        low, high = self.colour_span
        values = np.clip(1 + np.rint(254 * (small[tuple(nearest)] - low) / (high - low)), 1, 255)
        return np.where(distance <= 5, values, 0).astype(np.uint8).tobytes()

    def __repr__(self) -> str:
        return f"<VolumeView: {self.about}, threshold {self.threshold:.4g}{', coloured' if self.colour_data else ''}>"

    def _command(self, command: str, content: dict[str, Any]) -> None:
        if command == "full":
            threading.Thread(target=self._send_full, daemon=True).start()

    def _send_full(self) -> None:
        array, a = self._maps[0].array, self._maps[0].pixel_size
        small = cropped(array, _FULL)
        pixels, _ = to_byte_map(small, tuple(self.value_range))
        buffers = [pixels.tobytes()]
        if self._tint is not None and self.colour_data:
            buffers.append(self._tint_bytes(self._tint, small.shape))
        self.send({"full": True, "shape": list(small.shape), "voxel": a * array.shape[-1] / small.shape[-1]}, buffers=buffers)

    def to_image(self, edge: int = 300) -> Any:
        """Return the surfaces and slices as a PIL image, drawn without a browser."""
        from PIL import Image

        dark = self.theme == "dark"
        background = (22, 22, 26) if dark else (255, 255, 255)
        parts = []
        for i, given in enumerate(self._maps):
            array, a = given.array, given.pixel_size
            tinted = self._tint if i == 0 and self.coloured else None
            zoom = float(self.camera["zoom"]) * array.shape[-1] * a / self.extent
            parts.append(
                surface_image(
                    array, self.threshold_2 if i else self.threshold, self.camera["rotation"], zoom, edge, colour=COOL if i else WARM, clip=self.clip,
                    background=background, tint=tinted, tint_range=tuple(self.colour_range),
                    radius=2 * self.radius / (max(array.shape) * a),
                )
            )  # fmt: skip
        if len(parts) == 1 and self.layout_mode != "surface":
            third = (edge - 8) // 3
            column = np.full((edge, third, 3), background, np.uint8)
            for k, plane in enumerate(self._planes(third)):
                column[k * (third + 4) : k * (third + 4) + third] = plane
            parts.append(column)
        parts += self._legend(edge)
        gap = np.full((edge, 8, 3), background, np.uint8)
        return Image.fromarray(np.concatenate([p for part in parts for p in (part, gap)][:-1], axis=1))

    def _planes(self, edge: int) -> list[np.ndarray]:
        """The slices as pictures, with colours and mask."""
        tint = self._tint if self.coloured and self.colour_data else None
        nothing = [None] * 3
        tints, masks = (nothing if v is None else self._cuts(v) for v in (tint, self._mask))
        return [
            plane_image(p, self.limits, edge, tint=t, tint_range=self.colour_range, level=self.threshold, mask=m)
            for p, t, m in zip(self.slices(), tints, masks, strict=True)
        ]

    def _legend(self, height: int) -> list[np.ndarray]:
        """The legend as a picture, where there are colours."""
        if not (self.coloured and self.colour_data):
            return []
        paper, ink = ((22, 22, 26), (236, 236, 240)) if self.theme == "dark" else ((255, 255, 255), (27, 27, 31))
        return [legend_image(self.colour_range, self.colour_label, height, paper, ink)]

    def slices(self) -> list[np.ndarray]:
        """Planes xy, xz, yz through the cursor, z or y upwards (the last row of the map on top)."""
        return self._cuts(self._maps[0].array)

    def _cuts(self, array: np.ndarray) -> list[np.ndarray]:
        a = self._maps[0].pixel_size
        x, y, z = (int(np.clip(round(c / a) + n // 2, 0, n - 1)) for c, n in zip(self.cursor, array.shape[::-1], strict=True))
        return [array[z, ::-1], array[::-1, y], array[::-1, :, x]]

    def to_png(self) -> bytes:
        """Return surfaces and slices as a PNG, drawn without a browser."""
        return png_of(self.to_image())


def symmetry_axes(symmetry: str) -> list[list[float]]:
    """Axes of a point group, each once: unit vector x, y, z and order."""
    from cryotk.geometry import symmetry_operators

    found: dict[tuple[float, ...], int] = {}
    for m in symmetry_operators(symmetry):
        angle = np.arccos(np.clip((np.trace(m) - 1) / 2, -1, 1))
        if angle < 1e-4:
            continue
        values, vectors = np.linalg.eig(m)
        axis = np.real(vectors[:, np.argmin(np.abs(values - 1))])
        # one of the two ends
        lead = axis[np.nonzero(np.abs(axis) > 1e-3)[0][-1]]
        key = tuple(float(v) for v in np.round(axis * np.sign(lead), 3) + 0.0)
        found[key] = max(found.get(key, 1), round(2 * np.pi / angle))
    return [[*k, order] for k, order in found.items()]


def view_volume(volume: Any, second: Any = None, **options: Any) -> VolumeView:
    """Show a map: what ``volume.cryo.view()`` calls; parameters are those of :class:`VolumeView`."""
    return VolumeView(volume, second, **options)
