"""The one door to pixels: read any images of a data set, in any order, from any number of stacks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from cryotk.errors import DataError, MissingFileError
from cryotk.io.mrc import MrcHeader, read_header, read_images
from cryotk.io.paths import folders_above

__all__ = ["ArraySource", "ImageSource", "StackSource", "SubsetSource", "find_project_file", "read_ahead", "split_image_names"]

T = TypeVar("T")
R = TypeVar("R")


@runtime_checkable
class ImageSource(Protocol):
    """Images of one box size, read by index. Picklable, thread-safe, holds no open file."""

    @property
    def n(self) -> int:
        """Number of images."""
        ...

    @property
    def box(self) -> int:
        """Pixels of an image."""
        ...

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return (m, box, box) float32 images in the order asked."""
        ...


def read_ahead(read: Callable[[T], R], blocks: Sequence[T], readers: int = 1) -> Iterator[R]:
    """Read block after block; while one is worked on, the next ones are read by threads of their own.

    Parameters
    ----------
    read : callable
        E.g. :meth:`ImageSource.read`.
    blocks : sequence
        Its arguments, one at a time: indices.
    readers : int
        Threads.

    Yields
    ------
    object
        What ``read`` returned, in the order of the blocks. ``readers`` blocks more than the caller holds are in memory.
    """
    with ThreadPoolExecutor(readers, thread_name_prefix="cryotk-reader") as pool:
        coming = [pool.submit(read, block) for block in blocks[:readers]]
        for i in range(len(blocks)):
            here = coming.pop(0).result()
            coming += [pool.submit(read, block) for block in blocks[i + readers : i + readers + 1]]
            yield here


@dataclass
class ArraySource:
    """Images held in memory or in a dask array."""

    images: object

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.images)  # type: ignore[arg-type]

    @property
    def box(self) -> int:
        """Pixels of an image."""
        return int(self.images.shape[-1])  # type: ignore[attr-defined]

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return (m, box, box) float32 images in the order asked."""
        index = np.asarray(indices)
        order = np.argsort(index, kind="stable")
        part = np.asarray(self.images[index[order]])  # type: ignore[index]
        out = np.empty(part.shape, np.float32)
        out[order] = part
        return out


def split_image_names(names: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Split ``n@file`` names.

    Returns
    -------
    number : (n,) int64, from 0
    file : (n,) int32
        Position in the list of files.
    files : list of str
    """
    numbers = np.empty(len(names), np.int64)
    which = np.empty(len(names), np.int32)
    files: dict[str, int] = {}
    for i, name in enumerate(names):
        number, at, file = str(name).partition("@")
        if not at:
            number, file = "1", str(name)
        try:
            numbers[i] = int(number) - 1
        except ValueError:
            numbers[i] = -1
        if numbers[i] < 0 or not file:
            raise DataError(
                f"particle {i + 1}: image name {name!r} is not of the form 000001@stack.mrcs, counted from 1; correct it"
            )
        which[i] = files.setdefault(file, len(files))
    return numbers, which, list(files)


def find_project_file(name: str, start: Path, project_dir: Path | None = None) -> Path:
    """Find a file named relative to the project directory, walking up from ``start``.

    Raises
    ------
    MissingFileError
        Names all places that were tried.
    """
    text = name.removesuffix(":mrcs").removesuffix(":mrc")
    p = Path(text)
    if p.is_absolute():
        if p.exists():
            return p
        raise MissingFileError(f"{p}: no such file")
    if project_dir is not None:
        found = Path(project_dir) / p
        if found.exists():
            return found
        raise MissingFileError(f"{p} is not in the project directory {project_dir}; correct project_dir=")
    here = Path(os.path.abspath(start))
    for folder in folders_above(here):
        if (folder / p).exists():
            return folder / p
    raise MissingFileError(
        f"{p} was not found in {here} or any folder above it; give project_dir=, the folder in which RELION was run"
    )


class StackSource:
    """Images of MRC stacks.

    Parameters
    ----------
    names : sequence of str
        ``n@file``.
    start, project_dir : path
        Where files are looked for.
    box : int
        Expected pixels of an image.
    """

    def __init__(
        self,
        names: Sequence[str] | np.ndarray,
        start: str | os.PathLike[str],
        project_dir: str | os.PathLike[str] | None = None,
        box: int = 0,
    ) -> None:
        self.numbers, self.file_of, self.files = split_image_names(names)
        self.start = Path(start)
        self.project_dir = None if project_dir is None else Path(project_dir)
        self.box = int(box) or int(self.headers[0].shape[-1])

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.numbers)

    @cached_property
    def headers(self) -> list[MrcHeader]:
        """Header of each stack."""
        return [self.header(i) for i in range(len(self.files))]

    def header(self, file: int) -> MrcHeader:
        """Header of one stack."""
        return read_header(find_project_file(self.files[file], self.start, self.project_dir))

    @cached_property
    def _cache(self) -> dict[int, MrcHeader]:
        return {}

    def _known_header(self, file: int) -> MrcHeader:
        header = self._cache.get(file)
        return self._cache.setdefault(file, self.header(file)) if header is None else header

    def __getstate__(self) -> dict:
        state = dict(self.__dict__)
        state.pop("_cache", None)
        state.pop("headers", None)
        return state

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return (m, box, box) float32 images in the order asked, read file by file in file order."""
        index = np.asarray(indices, np.int64)
        out = np.empty((len(index), self.box, self.box), np.float32)
        files = self.file_of[index]
        for f in np.unique(files):
            header = self._known_header(int(f))
            here = np.nonzero(files == f)[0]
            together = here[-1] - here[0] == len(here) - 1
            if header.shape[1:] != (self.box, self.box):
                raise DataError(
                    f"{header.path}: images are {header.shape[2]} x {header.shape[1]} pixels, particle {index[here[0]] + 1} "
                    f"and its optics group say {self.box} x {self.box}"
                )
            numbers = self.numbers[index[here]]
            if numbers.max() >= header.shape[0]:
                worst = here[int(numbers.argmax())]
                raise DataError(
                    f"particle {index[worst] + 1} wants image {numbers.max() + 1} of {header.path}, "
                    f"which has {header.shape[0]} images; "
                    "the stack was made anew or belongs to another STAR file"
                )
            if together:
                read_images(header, numbers, out[here[0] : here[-1] + 1])
            else:
                out[here] = read_images(header, numbers)
        return out


@dataclass
class SubsetSource:
    """Some images of another source."""

    parent: ImageSource
    index: np.ndarray

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.index)

    @property
    def box(self) -> int:
        """Pixels of an image."""
        return self.parent.box

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return (m, box, box) float32 images in the order asked."""
        return self.parent.read(self.index[np.asarray(indices)])
