"""Grey images, sprites and contact sheets, without a display."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Sprite", "contact_sheet", "contrast_limits", "flat_images", "font_of_size", "png_of", "sprite_of", "to_bytes", "to_tile_bytes"]

MAX_TILE = 160
MAX_BYTES = 4_000_000


@dataclass(frozen=True)
class Sprite:
    """Tiles for the page: ``pixels`` (classes, edge, edge) uint8, each over its own ``ranges``; ``limits`` of grey for all."""

    pixels: bytes
    edge: int
    ranges: list[list[float]]
    limits: tuple[float, float]


def flat_images(references: np.ndarray) -> np.ndarray:
    """(K, N, N) float32: averages as they are, volumes as their projection along z."""
    images = np.asarray(references, np.float32)
    if images.ndim == 4:
        images = images.sum(1)
    # one pass to look, a slow one only when there is something to mend
    return images if np.isfinite(images.sum()) else np.nan_to_num(images, posinf=0.0, neginf=0.0)


@lru_cache(maxsize=8)
def _resampling(n: int, m: int) -> np.ndarray:
    """(m, n) matrix that crops a line's Fourier transform from n to m points, centres kept at n // 2 and m // 2."""
    half = (m - 1) // 2
    k = np.arange(-half, half + 1)
    x, y = np.arange(n) - n // 2, (np.arange(m) - m // 2) * (n / m)
    return (np.cos(2 * np.pi * k[:, None, None] * (y[None, :, None] - x[None, None]) / n).sum(0) / n).astype(np.float32)


def sprite_of(references: np.ndarray, share: np.ndarray, max_bytes: int = MAX_BYTES) -> Sprite:
    """Tiles that fit a page's budget; larger averages are cropped in Fourier space."""
    images = flat_images(references)
    n = images.shape[-1]
    edge = min(n, MAX_TILE, int(np.sqrt(max_bytes / len(images))))
    if edge < n:
        a = _resampling(n, edge)
        images = np.matmul(np.matmul(a, images), a.T)
    pixels, ranges = to_tile_bytes(images)
    return Sprite(pixels.tobytes(), edge, ranges, contrast_limits(images, share))


def to_tile_bytes(images: np.ndarray) -> tuple[np.ndarray, list[list[float]]]:
    """Scale each image from its own range to 8 bits; returns pixels and ranges."""
    low = images.min((1, 2), keepdims=True)
    high = images.max((1, 2), keepdims=True)
    high = np.where(high > low, high, low + 1)
    pixels = np.rint((images - low) * (255.0 / (high - low))).astype(np.uint8)
    return pixels, np.stack([low.ravel(), high.ravel()], -1).astype(float).tolist()


def contrast_limits(images: np.ndarray, share: np.ndarray | None = None) -> tuple[float, float]:
    """Grey limits of a whole set: 1st and 99.5th percentile inside the inscribed circle.

    Classes count by their share of the particles, so that a handful of ice edges does not darken everything else.
    """
    n = images.shape[-1]
    k = np.arange(n) - n // 2
    inside = k[:, None] ** 2 + k[None] ** 2 < (0.45 * n) ** 2
    weight = np.ones(len(images)) if share is None else np.clip(np.nan_to_num(np.asarray(share, float)), 0, None)
    if not weight.any():
        weight = np.ones(len(images))
    used = np.nonzero(weight > 0)[0]
    # a quarter of a million pixels tell the percentiles of any set
    step = (len(used) * int(inside.sum()) // 250_000) | 1
    values = images.reshape(len(images), -1)[used[:, None], np.nonzero(inside.ravel())[0][None, ::step]]
    order = np.argsort(values, axis=None)
    sorted_values = values.ravel()[order]
    cumulated = np.cumsum(np.repeat(weight[used], values.shape[1])[order])
    low, high = (float(sorted_values[np.searchsorted(cumulated, q * cumulated[-1])]) for q in (0.01, 0.995))
    return (low, high) if high > low else (low, low + 1.0)


def to_bytes(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale to 8 bits between two limits."""
    scaled = (np.nan_to_num(images) - low) * (255.0 / (high - low))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def png_of(image: Any) -> bytes:
    """Encode a PIL image."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def font_of_size(size: int) -> Any:
    """A font that has Å: matplotlib brings one."""
    from PIL import ImageFont

    try:
        import matplotlib

        return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
    except (ImportError, OSError):
        return ImageFont.load_default()


def contact_sheet(
    references: np.ndarray,
    share: np.ndarray,
    resolution: np.ndarray,
    tile: int = 96,
    *,
    selected: set[int] | None = None,
    columns: int = 8,
    sort: str = "particles",
) -> Any:
    """Class averages with captions.

    Parameters
    ----------
    references : (K, N, N) or (K, N, N, N) float
    share : (K,) float
    resolution : (K,) float
        Å.
    tile : int
        Edge in pixels.
    selected : set of int, optional
        Class numbers, from 1, to frame.
    columns : int
    sort : {"number", "particles", "resolution"}

    Returns
    -------
    PIL.Image
    """
    from PIL import Image, ImageDraw

    font = font_of_size(11)
    images, share = flat_images(references), np.nan_to_num(np.asarray(share, float))
    pixels = to_bytes(images, *contrast_limits(images, share))
    known = np.array([float(r) if np.isfinite(r) and 0 < r < 900 else np.inf for r in resolution])
    keys = {"number": np.zeros(len(images)), "particles": -share, "resolution": known}[sort]
    order = np.lexsort((np.arange(len(images)), keys, share <= 0)) if sort != "number" else np.arange(len(images))
    columns = min(columns, len(order))
    rows = -(-len(order) // columns)
    gap, caption = 6, 14
    size = columns * (tile + gap) + gap, rows * (tile + caption + gap) + gap
    sheet = Image.new("RGB", size, (250, 250, 250))
    draw = ImageDraw.Draw(sheet)
    for j, i in enumerate(order):
        x, y = gap + (j % columns) * (tile + gap), gap + (j // columns) * (tile + caption + gap)
        if share[i] > 0:
            sheet.paste(Image.fromarray(pixels[i]).resize((tile, tile), Image.Resampling.BICUBIC), (x, y))
        else:
            draw.rectangle((x, y, x + tile - 1, y + tile - 1), outline=(200, 200, 200))
        if selected and i + 1 in selected:
            draw.rectangle((x - 2, y - 2, x + tile + 1, y + tile + 1), outline=(230, 159, 0), width=2)
        text = f"{100 * share[i]:.1f} %" if share[i] > 0 else "empty"
        draw.text((x + 2, y + tile + 1), text, fill=(60, 60, 60), font=font)
        if share[i] > 0 and np.isfinite(known[i]):
            draw.text((x + tile - 2, y + tile + 1), f"{known[i]:.1f} Å", fill=(60, 60, 60), font=font, anchor="ra")
    return sheet
