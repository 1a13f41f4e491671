"""Dock: classes of a refinement as tiles to look at and select."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, FileEdit, PushButton, Slider
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QListView, QListWidget, QListWidgetItem

from cryotk.errors import SettingsError
from cryotk_widgets.napari.dock import Dock, file_or_none
from cryotk_widgets.napari.layers import image_layer, volume_layer
from cryotk_widgets.pictures import contrast_limits, flat_images, to_bytes
from cryotk_widgets.sources import iterations_of

__all__ = ["ClassDock"]

_TILE = 96
_NUMBER = Qt.ItemDataRole.UserRole


class ClassDock(Dock):
    """Classes of RELION's or cryotk's jobs: share and resolution under each; chosen ones become layers, or a file of particles.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    source : Iteration, list of them or path, optional
        As for :class:`cryotk_widgets.ClassGallery`; otherwise chosen in the dock.
    """

    def __init__(self, napari_viewer: Any, source: Any = None) -> None:
        self.viewer = napari_viewer
        self._iterations: Any = []
        self._shown: Any = None
        self.path = FileEdit(label="model", mode=FileDialogMode.EXISTING_FILE, filter="*.star", nullable=True, value=None,
                             tooltip="_model.star or _optimiser.star")  # fmt: skip
        self.whole_job = CheckBox(label="", text="all iterations of its folder")
        self.iteration = Slider(label="iteration", min=0, max=1, value=0, visible=False)
        self.sort = ComboBox(label="sort by", choices=["particles", "resolution", "number"], value="particles")
        self.show_button = PushButton(text="Show the chosen as layers")
        self.save_to = FileEdit(label="particles to", mode=FileDialogMode.OPTIONAL_FILE, filter="*.star", nullable=True, value=None)
        self.save_button = PushButton(text="Write particles of the chosen")
        super().__init__(napari_viewer, [self.path, self.whole_job, self.iteration, self.sort])
        self.tiles = QListWidget()
        self.tiles.setViewMode(QListView.ViewMode.IconMode)
        self.tiles.setIconSize(QSize(_TILE, _TILE))
        self.tiles.setResizeMode(QListView.ResizeMode.Adjust)
        self.tiles.setMovement(QListView.Movement.Static)
        self.tiles.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.tiles.setUniformItemSizes(True)
        self.tiles.setSpacing(4)
        self.tiles.setMinimumHeight(260)
        self.tiles.setStyleSheet("QListWidget::item:selected { background: #e69f00; color: black; }")
        self.body.addWidget(self.tiles, 1)
        for widget in (self.show_button, self.save_to, self.save_button):
            self.append(widget)
        self.body.addWidget(self.work)
        self.path.changed.connect(self.load)
        self.whole_job.changed.connect(self.load)
        self.iteration.changed.connect(self._open)
        self.sort.changed.connect(self.draw)
        self.show_button.changed.connect(self.show_chosen)
        self.save_button.changed.connect(self.save_particles)
        self.tiles.itemDoubleClicked.connect(lambda item: self.show_chosen())
        self.tiles.itemSelectionChanged.connect(self._count)
        if source is not None:
            self.open_source(source)

    def load(self, *_: Any) -> None:
        """Open what the form names."""
        path = file_or_none(self.path)
        if path is not None:
            self.open_source(path.parent if self.whole_job.value else path)

    def open_source(self, source: Any) -> None:
        """Show iterations of whatever a gallery takes; files are read in a thread, the last iteration first."""

        def work(step: Any) -> Any:
            iterations = iterations_of(source)
            return iterations, len(iterations), iterations[-1]

        def done(outcome: Any) -> None:
            self._iterations, n, last = outcome
            with self.iteration.changed.blocked():
                self.iteration.max = max(1, n - 1)
                self.iteration.value = n - 1
            self.iteration.visible = n > 1
            self._shown = last
            self.draw()

        self.work.run("opening", work, done)

    def _open(self, index: int) -> None:
        if index >= len(self._iterations):
            return

        def done(iteration: Any) -> None:
            self._shown = iteration
            self.draw()
            if self.iteration.value != index:  # moved on meanwhile
                self._open(int(self.iteration.value))

        self.work.run("opening", lambda step: self._iterations[index], done)

    @property
    def selected(self) -> list[int]:
        """Class numbers, from 1."""
        return sorted(int(item.data(_NUMBER)) for item in self.tiles.selectedItems())

    @selected.setter
    def selected(self, numbers: Any) -> None:
        wanted = {int(n) for n in numbers}
        for i in range(self.tiles.count()):
            item = self.tiles.item(i)
            if item is not None:
                item.setSelected(int(item.data(_NUMBER)) in wanted)

    def draw(self, *_: Any) -> None:
        """Fill the tiles; the choice stays."""
        if self._shown is None:
            return
        chosen, m = self.selected, self._shown.model
        images = flat_images(m.references)
        share = np.nan_to_num(np.asarray(m.class_distribution, float))
        stated = np.asarray(m.class_resolution, float)
        if len(stated) != len(images):
            stated = np.full(len(images), np.inf)
        resolution = np.where(np.isfinite(stated) & (stated > 0) & (stated < 900), stated, np.inf)
        grey = to_bytes(images, *contrast_limits(images, share))
        keys = {"number": np.zeros(len(images)), "particles": -share, "resolution": resolution}[self.sort.value]
        self.tiles.blockSignals(True)
        self.tiles.clear()
        for i in np.lexsort((np.arange(len(images)), keys)).tolist():
            edge = grey.shape[-1]
            picture = QImage(grey[i].tobytes(), edge, edge, edge, QImage.Format.Format_Grayscale8).copy()
            pixmap = QPixmap.fromImage(picture).scaled(_TILE, _TILE, transformMode=Qt.TransformationMode.SmoothTransformation)
            text = f"{i + 1}: {100 * share[i]:.1f} %" + (f"\n{resolution[i]:.1f} Å" if np.isfinite(resolution[i]) else "\n")
            item = QListWidgetItem(QIcon(pixmap), text)
            item.setData(_NUMBER, i + 1)
            self.tiles.addItem(item)
        self.tiles.blockSignals(False)
        self.selected = chosen
        number = self._shown.number
        self.work.say(f"{len(images)} classes" + (f", iteration {number}" if number >= 0 else ""))

    def _count(self) -> None:
        share = np.nan_to_num(np.asarray(self._shown.model.class_distribution, float))
        chosen = self.selected
        self.work.say(f"{len(chosen)} chosen: {100 * sum(share[i - 1] for i in chosen):.1f} % of the particles")

    def show_chosen(self, *_: Any) -> None:
        """Chosen averages as one stack; chosen maps as one layer each."""
        chosen = self.selected
        if self._shown is None or not chosen:
            self.work.say("choose classes first", error=True)
            return
        m = self._shown.model
        rows = np.array(chosen) - 1
        if m.is_3d:
            for i in rows.tolist():
                self.add(volume_layer(np.asarray(m.references[i]), m.pixel_size, f"class {i + 1}"))
        else:
            self.add(image_layer(np.asarray(m.references[rows]), m.pixel_size, "chosen classes"))
        self.viewer.reset_view()

    def save_particles(self, *_: Any) -> None:
        """Write the particles of the chosen classes as a STAR file."""
        target, chosen, shown = file_or_none(self.save_to), self.selected, self._shown

        def work(step: Any) -> tuple[int, Path]:
            if shown is None or not chosen:
                raise SettingsError("choose classes first")
            if target is None or target.suffix != ".star":
                raise SettingsError("name a .star file to write to")
            if target.exists():
                raise SettingsError(f"{target} exists already; choose another name")
            return _write_particles(shown, chosen, target), target

        def done(outcome: tuple[int, Path]) -> None:
            self.work.say(f"{outcome[0]} particles written to {outcome[1]}")

        self.work.run("writing", work, done)


def _write_particles(iteration: Any, classes: list[int], target: Path) -> int:
    from cryotk.data import open_particles, select_particles, write_particles

    particles = iteration.particles
    if particles is None:
        source = iteration.assignments.attrs.get("source")
        if not source:
            raise SettingsError("this iteration has no _data.star beside it: nothing says which particle is in which class")
        particles = open_particles(source, images=False)
    keep = np.nonzero(np.isin(iteration.assignments["class_number"].values, classes))[0]
    if not len(keep):
        raise SettingsError("no particle is in the chosen classes")
    out = select_particles(particles, keep)
    for name, values in iteration.assignments.isel(particle=keep).data_vars.items():
        out[name] = ("particle", values.values, dict(out[name].attrs) if name in out else dict(values.attrs))
    write_particles(out, target)
    return len(keep)
