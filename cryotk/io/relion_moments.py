"""The momenta of RELION's VDAM: ``_1moment`` and ``_2moment`` files, which RELION 4 and 5 go on from.

In a file rows are frequencies from ``-n/2`` to ``n/2 - 1`` (n is the padded box), columns from 0 to ``n/2``, real and imaginary
part beside each other. Of the first moment there are two per class, one of each half of the mini-batches: those of all classes
of the first half, then those of the second. The second moment is real; its imaginary part is 1 where nothing was learned yet.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from cryotk.errors import FileFormatError
from cryotk.io.mrc import read_header, read_images, read_mrc, write_mrc
from cryotk.io.relion_read import find_near
from cryotk.io.star import read_star

__all__ = ["Moments", "read_moments", "write_moments"]

Moments = tuple[np.ndarray, np.ndarray]
"""Of a class: first ``(2, [z,] y, x)`` complex, second ``([z,] y, x)``, on the grid of a padded half transform: frequencies
``-(r + 1) .. r + 1`` in rows, ``0 .. r + 1`` in columns."""

FIRST, SECOND = "rlnGradMoment1", "rlnGradMoment2"


def _to_file(values: np.ndarray) -> np.ndarray:
    """(2r, ..., 2 (r + 1)) float32 of a file, from our grid; real and imaginary part beside each other."""
    dims, r = values.ndim, values.shape[-1] - 2
    part = values[(slice(1, 2 * r + 1),) * (dims - 1) + (slice(0, r + 1),)]
    out = np.empty((*part.shape[:-1], 2 * (r + 1)), np.float32)
    out[..., 0::2], out[..., 1::2] = part.real, part.imag
    return out


def _from_file(pixels: np.ndarray, r: int, path: Path) -> np.ndarray:
    """Complex values on our grid from a file's, 0 where it has none."""
    dims = pixels.ndim
    expected = (2 * r,) * (dims - 1) + (2 * (r + 1),)
    if pixels.shape != expected:
        raise FileFormatError(
            f"{path}: moments of {pixels.shape} values, but the model's padded box of {2 * r} pixels needs {expected}: the file is "
            "of another run"
        )
    out = np.zeros((2 * (r + 1) + 1,) * (dims - 1) + (r + 2,), np.complex64)
    inside = (slice(1, 2 * r + 1),) * (dims - 1) + (slice(0, r + 1),)
    out[inside] = pixels[..., 0::2] + 1j * pixels[..., 1::2]
    return out


def write_moments(
    folder: Path, stem: str, moments: list[Moments], pixel_size: float, inside: str = ""
) -> dict[str, np.ndarray]:
    """Write the momenta of all classes; returns the columns that the model file names them in.

    Parameters
    ----------
    folder : path
    stem : str
        ``run_it010``.
    moments : list
        One :data:`Moments` per class.
    pixel_size : float
        Å.
    inside : str
        Put before each name.
    """
    k, is_3d = len(moments), moments[0][1].ndim == 3
    firsts = [moments[i % k][0][i // k] for i in range(2 * k)]
    # an imaginary part of 1 says that nothing was learned there
    seconds = [second + 1j * (second == 1) for _, second in moments]
    names = {}
    for label, kind, values in ((FIRST, "1moment", firsts), (SECOND, "2moment", seconds)):
        if is_3d:
            files = [f"{stem}_{kind}{i + 1:03d}.mrc" for i in range(len(values))]
            for file, v in zip(files, values, strict=True):
                write_mrc(folder / file, _to_file(v), pixel_size)
            names[label] = np.array([inside + file for file in files[:k]], object)
        else:
            file = f"{stem}_{kind}.mrcs"
            write_mrc(folder / file, np.stack([_to_file(v) for v in values]), pixel_size, is_stack=True)
            names[label] = np.array([f"{i + 1:08d}@{inside}{file}" for i in range(k)], object)
    return names


def read_moments(model_file: str | Path) -> list[Moments] | None:
    """Momenta that a model file names, one pair per class; None where it names none, or they are not there.

    Raises
    ------
    FileFormatError
        For files of another size than the model's.
    """
    p = Path(model_file)
    blocks = read_star(p)
    classes, general = blocks.get("model_classes"), blocks["model_general"]
    if classes is None or FIRST not in classes or SECOND not in classes:
        return None
    k, folder = len(classes), p.parent
    r = int(np.floor(float(general.get("rlnPaddingFactor", 2)) * int(general["rlnOriginalImageSize"]) / 2 + 0.5))
    out = []
    for i in range(k):
        parts = []
        for name, shift in ((classes[FIRST][i], 0), (classes[FIRST][i], k), (classes[SECOND][i], 0)):
            found = _one(str(name), shift, folder)
            if found is None:
                return None
            parts.append(_from_file(found[0], r, found[1]))
        second = parts[2].real.astype(np.float32)
        # the rim that the file does not have was never learned
        rim = np.ones(second.shape, bool)
        rim[(slice(1, 2 * r + 1),) * (second.ndim - 1) + (slice(0, r + 1),)] = False
        second[rim] = 1
        out.append((np.stack(parts[:2]), second))
    return out


def _one(name: str, shift: int, folder: Path) -> tuple[np.ndarray, Path] | None:
    """Pixels of an image ``NNN@stack`` or a volume ``...NNN.mrc``, ``shift`` numbers further."""
    number, at, file = name.partition("@")
    if at:
        found = find_near(file, folder)
        if found is None:
            return None
        header = read_header(found)
        index = int(number) - 1 + shift
        if index >= header.images_present:
            raise FileFormatError(f"{found} holds {header.images_present} moments, {name} and its second half need {index + 1}")
        return read_images(header, np.array([index]))[0], found
    moved = re.sub(r"(\d+)(\.mrc)$", lambda m: f"{int(m[1]) + shift:0{len(m[1])}d}{m[2]}", name)
    found = find_near(moved, folder)
    return None if found is None else (read_mrc(found)[0], found)
