"""Image layers as MRC files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cryotk.errors import DataError
from cryotk.io.mrc import write_mrc

__all__ = ["write_mrc_layer"]


def write_mrc_layer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write one image layer; the pixel size is the layer's scale.

    Parameters
    ----------
    path : str
        ``.mrcs`` makes a stack; otherwise the layer is what it was read as, by default a volume.
    data : (z, y, x), (image, y, x) or (y, x) array
    meta : dict
        napari's: ``scale`` and ``metadata`` are used.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    DataError
        For other shapes, colours, and voxels that are not cubes.
    """
    if meta.get("rgb") or getattr(data, "ndim", 0) not in (2, 3):
        raise DataError(f"{path}: an MRC file holds a grey image, a stack or a volume, not an array of shape {np.shape(data)}")
    known = dict(meta.get("metadata") or {}).get("cryotk", {})
    is_stack = data.ndim == 2 or path.endswith(".mrcs") or known.get("kind") == "stack"
    scale = [float(s) for s in meta.get("scale", ())][-2 if is_stack else -3 :] or [1.0]
    if max(scale) - min(scale) > 1e-4 * max(scale):
        raise DataError(f"{path}: pixels of {' x '.join(f'{s:.4g}' for s in scale)} Å are not square: set one scale for all axes")
    pixels = np.asarray(data, np.float32)
    write_mrc(Path(path), pixels[None] if pixels.ndim == 2 else pixels, scale[-1], is_stack=is_stack)
    return [path]
