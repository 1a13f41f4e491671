"""Dask arrays of images that read nothing until asked, and then no more than asked."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np

from cryotk.data.source import ArraySource, ImageSource

__all__ = ["SourceArray", "lazy_images", "source_of"]

CHUNK_BYTES = 32_000_000


class SourceArray:
    """Array-like over an :class:`ImageSource`, for ``dask.array.from_array``.

    Not an array: it holds a source and, after slicing, which images and pixels were asked for.
    """

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self.shape = (source.n, source.box, source.box)
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

    per = int(max(1, min(max_chunk, CHUNK_BYTES // (4 * source.box**2))))
    return da.from_array(
        SourceArray(source), chunks=(per, source.box, source.box), asarray=False, meta=np.empty((0, 0, 0), np.float32),
        name=f"cryotk-images-{uuid.uuid4().hex}",
    )


def source_of(images: Any) -> ImageSource:
    """Return an ImageSource for whatever holds images."""
    return ArraySource(images)
