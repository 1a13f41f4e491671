"""Which row of a table read from elsewhere is whose: by image name, or as they stand."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryotk.errors import SettingsError

__all__ = ["matched"]


def matched(table: Any, particles: Any, source: str) -> Any:
    """Rows of a table of assignments in the order of the particles.

    Of an image that is there several times (symmetry copies), the first row is the first's, and so on.

    Raises
    ------
    SettingsError
        When an image is not in the table, or their numbers differ where images have no names.
    """
    n = particles.sizes["particle"]
    if not (table.sizes.get("particle", 0) and "image_name" in table and "image_name" in particles):
        if table.sizes.get("particle", 0) != n:
            raise SettingsError(f"{source} has {table.sizes.get('particle', 0)} particles, the given set {n}")
        return table
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(table["image_name"].values):
        rows.setdefault(_image_key(name), []).append(i)
    index, seen = np.empty(n, int), dict.fromkeys(rows, 0)
    for i, name in enumerate(particles["image_name"].values):
        key = _image_key(name)
        if key not in rows or seen[key] >= len(rows[key]):
            times = "" if key not in rows else f" more than {len(rows[key])} times"
            raise SettingsError(f"particle image {key} is not{times} in {source}'s data file")
        index[i] = rows[key][seen[key]]
        seen[key] += 1
    return table.isel(particle=index)


def _image_key(name: object) -> str:
    """Image name without leading zeros, so that 000001@a and 00000001@a are one."""
    number, at, file = str(name).partition("@")
    return f"{int(number)}@{file}" if at else number
