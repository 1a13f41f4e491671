"""napari asks here for MRC and STAR files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from cryotk_widgets.napari.layers import LayerData, file_layer

__all__ = ["get_reader", "read"]

_MAPS = (".mrc", ".mrcs", ".map", ".mrc.gz", ".map.gz", ".mrc.bz2", ".map.bz2")


def get_reader(path: str | list[str]) -> Callable[[Any], list[LayerData]] | None:
    """Reader for the path, or None when it is not cryotk's."""
    paths = [path] if isinstance(path, (str, os.PathLike)) else path
    if not paths or not all(os.fspath(p).lower().endswith((*_MAPS, ".star")) for p in paths):
        return None
    return read


def read(path: str | list[str]) -> list[LayerData]:
    """Layers of one or several files.

    Parameters
    ----------
    path : path or list of path

    Returns
    -------
    list of (data, options, kind)

    Raises
    ------
    CryotkError
        Names the file and what is wrong with it.
    """
    out: list[LayerData] = []
    for p in [path] if isinstance(path, (str, os.PathLike)) else path:
        if os.fspath(p).lower().endswith(".star"):
            from cryotk_widgets.napari.star_layers import star_layers

            out += star_layers(p)
        else:
            out.append(file_layer(p))
    return out
