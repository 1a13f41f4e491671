"""Grey images and contact sheets, without a display."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["contact_sheet", "contrast_limits", "to_bytes"]


def contrast_limits(images: np.ndarray, share: np.ndarray | None = None) -> tuple[float, float]:
    """Grey limits of a whole set: 1st and 99.5th percentile inside the inscribed circle of the classes that hold particles."""
    n = images.shape[-1]
    k = np.arange(n) - n // 2
    inside = k[:, None] ** 2 + k[None] ** 2 < (0.45 * n) ** 2
    used = images if share is None or not np.any(np.asarray(share) > 0) else images[np.asarray(share) > 0]
    values = used[:, inside]
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, [1, 99.5]))
    return (low, high) if high > low else (low, low + 1.0)


def to_bytes(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale to 8 bits."""
    scaled = (np.nan_to_num(images) - low) * (255.0 / (high - low))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _font(size: int) -> Any:
    """A font that has Å: matplotlib brings one."""
    from pathlib import Path

    from PIL import ImageFont

    try:
        import matplotlib

        return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
    except (ImportError, OSError):
        return ImageFont.load_default()


def contact_sheet(references: np.ndarray, share: np.ndarray, resolution: np.ndarray, tile: int = 96, pixel_size: float = 1.0,
                  selected: set[int] | None = None, columns: int = 8) -> Any:
    """Class averages by share with captions, a PIL image."""
    from PIL import Image, ImageDraw

    font = _font(11)
    images = np.asarray(references, np.float32)
    if images.ndim == 4:
        images = images.sum(1)
    low, high = contrast_limits(images, share)
    pixels = to_bytes(images, low, high)
    order = np.argsort(-np.asarray(share), kind="stable")
    columns = min(columns, len(order))
    rows = -(-len(order) // columns)
    gap, caption = 6, 14
    sheet = Image.new("RGB", (columns * (tile + gap) + gap, rows * (tile + caption + gap) + gap), (250, 250, 250))
    draw = ImageDraw.Draw(sheet)
    for j, i in enumerate(order):
        x, y = gap + (j % columns) * (tile + gap), gap + (j // columns) * (tile + caption + gap)
        sheet.paste(Image.fromarray(pixels[i]).resize((tile, tile), Image.Resampling.BICUBIC), (x, y))
        if selected and i + 1 in selected:
            draw.rectangle((x - 2, y - 2, x + tile + 1, y + tile + 1), outline=(230, 159, 0), width=2)
        r = float(resolution[i]) if i < len(resolution) else np.inf
        text = f"{100 * float(share[i]):.1f} %" + (f"   {r:.1f} Å" if np.isfinite(r) and 0 < r < 900 else "")
        draw.text((x + 2, y + tile + 1), text if share[i] > 0 else "empty", fill=(60, 60, 60), font=font)
    return sheet
