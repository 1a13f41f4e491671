"""A mask made by hand and eye: threshold, extension and edge move, the mask follows."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import traitlets

from cryotk.errors import CryotkError, DataError, SettingsError
from cryotk_widgets.given_maps import as_map
from cryotk_widgets.pictures import png_of, to_bytes
from cryotk_widgets.view_base import View, page_text
from cryotk_widgets.volume_pictures import cropped, fitting_zoom, page_map

__all__ = ["MaskDesigner"]


class MaskDesigner(View):
    """Threshold, extension and soft edge under sliders; the mask over the map, as slices and as glass around the surface.

    The sliders answer in the page on a copy of at most ``preview_size`` points a side; only the low-pass asks Python. "Make mask"
    runs :func:`cryotk.create_mask` on the whole map in the background.

    Parameters
    ----------
    volume : path, DataArray, (z, y, x) array or PostprocessResult
    threshold : float, optional
        By default the suggestion of :func:`cryotk.maps.suggest_threshold`, with its reason.
    preview_size : int
    **traits
        Start values of the attributes below.

    Attributes
    ----------
    threshold : float
        Of the low-passed map.
    extend_px, soft_edge_px : float
        Pixels of the whole map; a negative extension shrinks.
    lowpass : float
        Å; 0 leaves the map as it is.
    largest_only, fill_holes : bool
        Applied when the mask is made.
    result : MaskResult or None
        What "Make mask" made last.
    camera, cursor, theme
        As in :class:`VolumeView`.

    Notes
    -----
    .. image:: ../figures/mask_designer_light.png

    Examples
    --------
    >>> designer = MaskDesigner("run_class001.mrc")  # doctest: +SKIP
    >>> mask = designer.make().mask  # doctest: +SKIP
    """

    _esm = page_text("volume_core.js", "mask_core.js", "view_core.js", "volume_gl.js", "surface.js", "slices.js", "mask.js")
    _css = page_text("tokens.css", "views.css", "mask.css")
    _settable = ("threshold", "extend_px", "soft_edge_px", "lowpass", "largest_only", "fill_holes", "camera", "cursor")

    data = traitlets.Bytes(b"").tag(sync=True)
    shape: Any = traitlets.List([1, 1, 1]).tag(sync=True)
    voxel = traitlets.Float(1.0).tag(sync=True)
    pixel_size = traitlets.Float(1.0).tag(sync=True)
    value_range: Any = traitlets.List([0.0, 1.0]).tag(sync=True)
    limits: Any = traitlets.List([0.0, 1.0]).tag(sync=True)
    extent = traitlets.Float(1.0).tag(sync=True)
    radius = traitlets.Float(1.0).tag(sync=True)
    start: Any = traitlets.Dict().tag(sync=True)
    suggested = traitlets.Float(0.0).tag(sync=True)
    reason = traitlets.Unicode("").tag(sync=True)
    about = traitlets.Unicode("").tag(sync=True)
    making = traitlets.Bool(False).tag(sync=True)
    made = traitlets.Bool(False).tag(sync=True)

    threshold = traitlets.Float(0.0).tag(sync=True)
    extend_px = traitlets.Float(3.0).tag(sync=True)
    soft_edge_px = traitlets.Float(3.0, min=0.0).tag(sync=True)
    lowpass = traitlets.Float(15.0, min=0.0).tag(sync=True)
    largest_only = traitlets.Bool(False).tag(sync=True)
    fill_holes = traitlets.Bool(False).tag(sync=True)
    camera: Any = traitlets.Dict({"rotation": [0.0, 0.0, 0.0, 1.0], "zoom": 1.0, "pan": [0.0, 0.0]}).tag(sync=True)
    cursor: Any = traitlets.List([0.0, 0.0, 0.0]).tag(sync=True)

    def __init__(
        self, volume: Any, threshold: float | None = None, *, pixel_size: float | None = None, preview_size: int = 80, **traits: Any
    ) -> None:
        import xarray as xr

        given = as_map(volume, pixel_size)
        array, a = given.array, given.pixel_size
        if len(set(array.shape)) != 1:
            raise DataError(f"a mask is designed on a cube, this map has {array.shape} voxels: rebox it first")
        if not given.is_scaled:
            raise DataError("this map has no pixel size, and the low-pass needs it: give pixel_size= in Å")
        self._array, self._preview_size = array, preview_size
        self._volume = xr.DataArray(array, dims=("z", "y", "x"), attrs={"pixel_size": a, "source": given.source or given.name})
        self._small = cropped(array, preview_size)
        # the last low-pass that was asked for wins
        self._lock, self._wanted = threading.Lock(), 0
        self.result: Any = None
        super().__init__(**traits)
        self.pixel_size, self.extent = a, array.shape[0] * a
        self._load()
        if threshold is not None:
            self.threshold = float(threshold)
        self._look()
        self.about = f"{array.shape[0]}³ voxels of {a:.4g} Å, preview {self.shape[0]}³"
        self.observe(self._on_lowpass, "lowpass")

    def _lowpassed(self, array: np.ndarray) -> np.ndarray:
        if not self.lowpass:
            return array
        from cryotk.maps import lowpass

        return np.asarray(lowpass(array, self.lowpass, pixel_size=self.extent / array.shape[0]).values, np.float32)

    def _load(self) -> None:
        """Low-pass: first the copy, which goes to the page at once, then the whole map, for the suggestion.

        The copy is the map with its transform cropped, so its low-pass is that of the map.
        """
        from cryotk.maps import suggest_threshold

        with self._lock:
            self._wanted += 1
            mine = self._wanted
        low = self._lowpassed(self._small)
        p = page_map(low, self.extent / low.shape[0], self._preview_size)
        with self._lock, self.hold_sync():
            if mine != self._wanted:
                return
            self.data, self.shape, self.voxel, self.value_range, self.limits = p.data, p.shape, p.voxel, p.span, p.limits
        if low.shape != self._array.shape:
            low = self._lowpassed(self._array)
        try:
            suggested, reason = suggest_threshold(low, lowpass=None, pixel_size=self.pixel_size)
        except CryotkError as error:
            suggested, reason = float(low.max()), str(error)
        with self._lock, self.hold_sync():
            if mine != self._wanted:
                return
            follows = self.threshold in (0.0, self.suggested)
            self.suggested, self.reason, self.notice = float(suggested), reason, ""
            if follows:
                self.threshold = float(suggested)

    def _look(self) -> None:
        preview = np.frombuffer(self.data, np.uint8).reshape(self.shape)
        zoom, r = fitting_zoom(preview, 255 * (self.threshold - self.value_range[0]) / (self.value_range[1] - self.value_range[0]))
        self.radius = r * self.extent / 2
        self.start = {"rotation": [0.0, 0.0, 0.0, 1.0], "zoom": 0.8 * zoom, "pan": [0.0, 0.0]}
        if self.camera["zoom"] == 1.0:
            self.camera = dict(self.start)

    def _on_lowpass(self, _change: Any) -> None:
        threading.Thread(target=self._load, daemon=True).start()

    def __repr__(self) -> str:
        return (
            f"<MaskDesigner: {self.about}, threshold {self.threshold:.4g}, extend {self.extend_px:g} px, edge {self.soft_edge_px:g} px"
            f"{', made' if self.made else ''}>"
        )

    # -- the real mask ---------------------------------------------------------------------------------------------

    @property
    def settings(self) -> dict[str, Any]:
        """What the sliders say, as parameters of :func:`cryotk.create_mask`."""
        return {
            "threshold": self.threshold, "lowpass": self.lowpass or None, "extend_px": self.extend_px, "soft_edge_px": self.soft_edge_px,
            "largest_only": self.largest_only, "fill_holes": self.fill_holes,
        }  # fmt: skip

    def make(self) -> Any:
        """Make the mask at full size and return it.

        Returns
        -------
        MaskResult
        """
        from cryotk.maps import create_mask

        self.making = True
        try:
            self.result = create_mask(self._volume, **self.settings)
            self.made = True
            self.notice = f"mask made: {100 * self.result.fraction:.1f} % of the box; it is designer.result.mask"
        finally:
            self.making = False
        return self.result

    def save(self, path: str | Path) -> Path:
        """Write the mask that was made.

        Raises
        ------
        SettingsError
            Before one was made.
        """
        if self.result is None:
            raise SettingsError("no mask was made yet: press Make mask, or call make()")
        target = Path(path).expanduser()
        return self.result.save(target.parent, target.name)

    def _command(self, command: str, content: dict[str, Any]) -> None:
        if command == "make":
            with self.hold_trait_notifications():
                for name in ("threshold", "extend_px", "soft_edge_px", "largest_only", "fill_holes"):
                    if name in content:
                        setattr(self, name, content[name])
            if not self.making:
                threading.Thread(target=self._make_from_page, daemon=True).start()
        elif command == "save":
            try:
                self.notice = f"written to {self.save(content['path']).resolve()}"
            except (CryotkError, OSError) as error:
                self.notice = f"not written: {error}"

    def _make_from_page(self) -> None:
        try:
            self.make()
        except CryotkError as error:
            self.notice = f"no mask: {error}"

    # -- a picture where widgets do not run ------------------------------------------------------------------------

    def to_png(self, edge: int = 220) -> bytes:
        """Return three planes of the low-passed map with the mask over them as a PNG."""
        from PIL import Image

        from cryotk.maps import soft_mask

        data = np.frombuffer(self.data, np.uint8).reshape(self.shape).astype(np.float32)
        low, high = self.value_range
        values = low + data / 255 * (high - low)
        scale = self.pixel_size / self.voxel
        mask = np.asarray(soft_mask(values >= self.threshold, self.extend_px * scale, self.soft_edge_px * scale))
        sheet = Image.new("RGB", (3 * (edge + 4) - 4, edge), (255, 255, 255))
        blue = np.array([86.0, 180.0, 233.0])
        for i in range(3):
            middle = self.shape[i] // 2
            grey = to_bytes(np.take(values, middle, i)[::-1], *self.limits)[..., None].astype(float)
            share = 0.45 * np.take(mask, middle, i)[::-1][..., None]
            plane = Image.fromarray((grey * (1 - share) + blue * share).astype(np.uint8))
            sheet.paste(plane.resize((edge, edge), Image.Resampling.BICUBIC), (i * (edge + 4), 0))
        return png_of(sheet)
