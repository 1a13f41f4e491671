"""Images of a stack or a particle set, looked through page by page; only what is on screen is read."""

from __future__ import annotations

import threading
from pathlib import PurePath
from typing import Any

import numpy as np
import traitlets

from cryotk.errors import CryotkError, DataError, SettingsError
from cryotk_widgets.pictures import contrast_limits, png_of, sprite_of, to_bytes
from cryotk_widgets.view_base import View, page_text

__all__ = ["StackView", "view_particles", "view_stack"]

_CAPTION = ("class_number", "defocus_u", "max_probability")
_WORDS = {"class_number": "class {:.0f}", "defocus_u": "{:.2f} µm", "max_probability": "P {:.2f}"}


class StackView(View):
    """Images page by page, with contrast and low-pass, a line of the table under each, and a selection.

    Click selects (again: no longer), shift-click extends; ``a`` the page, ``n`` none, ``i`` inverts the page, arrows move, space
    toggles, page up and down turn pages.

    Parameters
    ----------
    images : particles, stack, or path
        A Dataset over ``particle`` with ``images``, a DataArray (image, y, x), or the path of a stack or STAR file.
    columns : sequence of str, optional
        Columns of the table for the line under each picture.
    per_page : int
    **traits
        Start values of the attributes below.

    Attributes
    ----------
    selected : list of int
        Numbers of the images, from 1, in the order of the set.
    first : int
        Place of the first image on screen, from 0, in the order shown.
    sort : str
        "number" or a numeric column.
    contrast, lowpass, tile_size, per_tile, theme
        As in :class:`ClassGallery`.

    Raises
    ------
    DataError
        For sets without images (several boxes: take one with ``.cryo.group(name)``).

    Notes
    -----
    One page (40 tiles of at most 160 pixels, 1 MB) goes to the browser; paging reads those images alone.

    .. image:: ../figures/particles_light.png

    Examples
    --------
    >>> view = particles.cryo.view()  # doctest: +SKIP
    >>> kept = view.selected_particles()  # doctest: +SKIP
    """

    _esm = page_text("gallery_core.js", "view_core.js", "stack.js")
    _css = page_text("tokens.css", "views.css", "stack.css")
    _settable = ("contrast", "lowpass", "tile_size", "per_tile", "sort")

    sprite = traitlets.Bytes(b"").tag(sync=True)
    tile_pixels = traitlets.Int(1).tag(sync=True)
    tile_ranges: Any = traitlets.List().tag(sync=True)
    limits: Any = traitlets.List([0.0, 1.0]).tag(sync=True)
    pixel_size = traitlets.Float(1.0).tag(sync=True)
    rows: Any = traitlets.List().tag(sync=True)
    captions: Any = traitlets.List().tag(sync=True)
    details: Any = traitlets.List().tag(sync=True)
    columns: Any = traitlets.List().tag(sync=True)
    n_images = traitlets.Int(0).tag(sync=True)
    per_page = traitlets.Int(40, min=1, max=400).tag(sync=True)
    about = traitlets.Unicode("").tag(sync=True)
    first = traitlets.Int(0, min=0).tag(sync=True)
    selected = traitlets.List(traitlets.Int()).tag(sync=True)
    sort = traitlets.Unicode("number").tag(sync=True)
    tile_size = traitlets.Int(112, min=32, max=512).tag(sync=True)
    contrast = traitlets.Float(1.0, min=0.05, max=20.0).tag(sync=True)
    lowpass = traitlets.Float(0.0, min=0.0).tag(sync=True)
    per_tile = traitlets.Bool(False).tag(sync=True)

    def __init__(self, images: Any, columns: Any = None, **traits: Any) -> None:
        from pathlib import Path

        import cryotk

        if isinstance(images, (str, Path)):
            images = cryotk.open_particles(images) if Path(images).suffix in (".star", ".cs") else cryotk.open_stack(images)
        self._set: Any = images if hasattr(images, "data_vars") else None
        if self._set is not None and "images" not in self._set:
            raise DataError(
                "this particle set has no images to show: take one optics group with .cryo.group(name), or open it with images=True"
            )
        self._images: Any = images["images"] if self._set is not None else images
        if getattr(self._images, "ndim", 0) != 3:
            raise DataError(f"images are (image, y, x); this array has the shape {getattr(self._images, 'shape', '?')}")
        if self._images.shape[1] != self._images.shape[2]:
            raise DataError(
                f"images of {self._images.shape[2]} by {self._images.shape[1]} pixels: this view shows square ones, such as particles"
            )
        self._lines = [str(c) for c in columns] if columns is not None else [c for c in _CAPTION if self._column(c) is not None]
        for c in self._lines:
            if self._column(c) is None:
                raise SettingsError(f"there is no column {c}; there are {', '.join(self._names())}")
        self._lock = threading.RLock()
        self._wanted: int | None = None
        self._order: Any = np.arange(self._images.shape[0])
        super().__init__(**traits)
        self.n_images = int(self._images.shape[0])
        self.columns = ["number", *(n for n in self._names() if np.asarray(self._column(n)).dtype.kind in "fiu")]
        n = self._images.shape[-1]
        self.about = f"{n} × {n} pixels of {self._pixel_size():.4g} Å"
        if self.sort not in self.columns:
            raise SettingsError(f"sort = {self.sort!r}: there are {', '.join(self.columns)}")
        self._arrange()
        self.show(self.first)
        self.observe(self._on_sort, "sort")

    def _names(self) -> list[str]:
        if self._set is None:
            return []
        dim = self._images.dims[0]
        return [str(k) for k, v in self._set.data_vars.items() if v.dims == (dim,) and v.dtype.kind in "fiuUO"]

    def _column(self, name: str) -> Any:
        return self._set[name].values if name in self._names() else None

    def _pixel_size(self) -> float:
        if self._set is not None and "pixel_size" in self._set:
            return float(np.atleast_1d(self._set["pixel_size"].values)[0])
        return float(self._images.attrs.get("pixel_size", 1.0))

    @traitlets.validate("selected")
    def _valid_selected(self, proposal: Any) -> list[int]:
        wanted = sorted({int(k) for k in proposal["value"]})
        if self.n_images and wanted and not (1 <= wanted[0] and wanted[-1] <= self.n_images):
            raise SettingsError(f"selected: images are numbered from 1 to {self.n_images}, found {wanted[0]} to {wanted[-1]}")
        return wanted

    @traitlets.validate("sort")
    def _valid_sort(self, proposal: Any) -> str:
        if self.columns and proposal["value"] not in self.columns:
            raise SettingsError(f"sort = {proposal['value']!r}: there are {', '.join(self.columns)}")
        return str(proposal["value"])

    def __repr__(self) -> str:
        return f"<StackView: {self.n_images} images, {self.about}, {len(self.selected)} selected>"

    # -- pages -----------------------------------------------------------------------------------------------------

    def _arrange(self) -> None:
        values = self._column(self.sort) if self.sort != "number" else None
        self._order = np.arange(self.n_images) if values is None else np.argsort(values, kind="stable")

    def _on_sort(self, _change: Any) -> None:
        self._arrange()
        self._later(0)

    def show(self, first: int) -> None:
        """Show the page that starts at a place of the order, from 0."""
        with self._lock:
            first = int(np.clip(first, 0, max(0, self.n_images - 1)))
            places = self._order[first : first + self.per_page]
            pixels = np.nan_to_num(self._read(places), posinf=0.0, neginf=0.0)
            with self.hold_sync():
                self.first = first
                self.rows = [int(i) + 1 for i in places]
                self.captions, self.details = [self._caption(i) for i in places], [self._detail(i) for i in places]
                if len(pixels):
                    sprite = sprite_of(pixels, np.ones(len(pixels)))
                    self.tile_pixels, self.tile_ranges = sprite.edge, sprite.ranges
                    self.pixel_size = self._pixel_size() * pixels.shape[-1] / sprite.edge
                    self.limits = list(contrast_limits(pixels))
                    self.sprite = sprite.pixels

    def _read(self, places: np.ndarray) -> np.ndarray:
        """Pixels of some images and of no others: dask reads whole chunks for lists of numbers, but single images and slices alone."""
        images = getattr(self._images, "data", self._images)
        if len(places) and (np.diff(places) == 1).all():
            return np.asarray(images[int(places[0]) : int(places[-1]) + 1], np.float32)
        if hasattr(images, "dask"):
            # one by one: computed together they would share, and read, the chunk
            return np.stack([np.asarray(images[int(i)], np.float32) for i in places])
        return np.asarray(images[places], np.float32)

    def _caption(self, i: int) -> str:
        parts = [] if self._lines and self._set is not None else [f"image {i + 1}"]
        for name in self._lines:
            v = self._column(name)[i]
            if name == "defocus_u" and self._column("defocus_v") is not None:
                v = 0.5 * (v + self._column("defocus_v")[i])
            v = v / 1e4 if name == "defocus_u" else v
            parts.append(_WORDS[name].format(v) if name in _WORDS else PurePath(v).name if isinstance(v, str) else f"{v:.4g}")
        return " · ".join(parts)

    def _detail(self, i: int) -> str:
        if self._set is None:
            return f"image {i + 1}"
        out = [f"particle {i + 1}"]
        for name in self._names():
            v, units = self._column(name)[i], self._set[name].attrs.get("units", "")
            out.append(f"{name.replace('_', ' ')} {v if isinstance(v, str) else f'{v:.5g}'} {units}".rstrip())
        return "\n".join(out[:14])

    def _later(self, first: int) -> None:
        """Show a page from another thread; the last one asked for wins."""
        busy, self._wanted = self._wanted is not None, first
        if not busy:
            threading.Thread(target=self._read_wanted, daemon=True).start()

    def _read_wanted(self) -> None:
        while True:
            first = self._wanted
            try:
                self.show(int(first or 0))
            except (CryotkError, OSError) as error:
                self.send({"failed": str(error)})
            if self._wanted == first:
                self._wanted = None
                return

    def _command(self, command: str, content: dict[str, Any]) -> None:
        if command == "page":
            self._later(int(content["first"]))
        elif command == "select":
            try:
                self.selected = content["rows"]
            finally:
                self.send({"selected": content["serial"]})

    # -- what was chosen -------------------------------------------------------------------------------------------

    def selected_particles(self) -> Any:
        """Return the selected particles (or images) as a set of their own."""
        rows = np.array(self.selected, int) - 1
        if self._set is None:
            return self._images[rows]
        from cryotk.data import select_particles

        return select_particles(self._set, rows)

    def to_png(self, tile: int = 96) -> bytes:
        """Return the page on screen as a PNG."""
        from PIL import Image

        if not self.rows:
            return b""
        pixels = np.frombuffer(self.sprite, np.uint8).reshape(len(self.rows), self.tile_pixels, self.tile_pixels).astype(np.float32)
        ranges = np.array(self.tile_ranges)[:, :, None, None]
        pixels = ranges[:, 0] + pixels / 255 * (ranges[:, 1] - ranges[:, 0])
        grey = to_bytes(pixels, *self.limits)
        columns = min(8, len(grey))
        sheet = Image.new("L", (columns * (tile + 4) - 4, -(-len(grey) // columns) * (tile + 4) - 4), 250)
        for i, g in enumerate(grey):
            sheet.paste(
                Image.fromarray(g).resize((tile, tile), Image.Resampling.BICUBIC),
                (i % columns * (tile + 4), i // columns * (tile + 4)),
            )
        return png_of(sheet)


def view_stack(stack: Any, **options: Any) -> StackView:
    """Show a stack: what ``stack.cryo.view()`` calls; parameters are those of :class:`StackView`."""
    return StackView(stack, **options)


def view_particles(particles: Any, **options: Any) -> StackView:
    """Show particles: what ``particles.cryo.view()`` calls; parameters are those of :class:`StackView`."""
    return StackView(particles, **options)
