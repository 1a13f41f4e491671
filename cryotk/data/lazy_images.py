"""Dask arrays of images that read nothing until asked, and then no more than asked."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np

from cryotk.data.source import ImageSource
from cryotk.errors import CryotkError

__all__ = ["SourceArray", "is_untouched", "lazy_images"]

CHUNK_BYTES = 32_000_000


class SourceArray:
    """Array-like over an :class:`ImageSource`, for ``dask.array.from_array``.

    Not an array: it holds a source and, after slicing, which images and pixels were asked for.
    """

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self.shape = (source.n, *getattr(source, "image_shape", (source.box, source.box)))
        self.dtype = np.dtype(np.float32)
        self.ndim = 3

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        index = np.arange(self.shape[0])[first]
        if np.ndim(index) == 0:
            return self.source.read(np.array([index]))[(0, *rest)]
        return self.source.read(index)[(slice(None), *rest)]


def lazy_images(source: ImageSource, max_chunk: int = 2000) -> Any:
    """Dask array ``(particle, y, x)`` float32 over a source, chunked over particles."""
    import dask.array as da

    array = SourceArray(source)
    per = int(max(1, min(max_chunk, CHUNK_BYTES // (4 * array.shape[1] * array.shape[2]))))
    return da.from_array(
        array, chunks=(per, *array.shape[1:]), asarray=False, meta=np.empty((0, 0, 0), np.float32),
        name=f"cryotk-images-{uuid.uuid4().hex}",
    )


def is_untouched(images: Any, source: ImageSource) -> bool:
    """Whether a dask array holds what the stacks hold, in the order of ``source``: nothing was computed from the pixels.

    An array that was sliced, joined or rechunked is compared with the stacks in three images, since it may also have been cropped,
    flipped or put into another order than its names.
    """
    graph = getattr(images, "dask", None)
    names = [str(k) for k in getattr(graph, "layers", ())]
    ours = ("cryotk-images", "original-cryotk-images")
    if not any(n.startswith(ours) for n in names) or not all(
        n.startswith((*ours, "getitem", "rechunk-merge", "rechunk-split", "concatenate")) for n in names
    ):
        return False
    if len(images) != source.n:
        return False
    if all(n.startswith(ours) for n in names):
        return True
    try:
        rows = np.unique([0, source.n // 2, source.n - 1]) if source.n else np.empty(0, int)
        return all(np.array_equal(np.asarray(images[int(r)]), source.read(np.array([r]))[0], equal_nan=True) for r in rows)
    except CryotkError:
        return False
