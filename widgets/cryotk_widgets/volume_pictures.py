"""Maps for the page and for paper: 8-bit copies within a budget, a surface drawn without a browser, colours of resolutions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cryotk.execution import default_threads

__all__ = [
    "COOL",
    "WARM",
    "PageMap",
    "colour_limits",
    "cropped",
    "fitting_zoom",
    "legend_image",
    "legend_texts",
    "on_grid",
    "page_map",
    "plane_image",
    "resolution_colours",
    "suggested_threshold",
    "surface_image",
    "to_byte_map",
]

WARM, COOL = (0xE8, 0xB4, 0x63), (0x6A, 0xA5, 0xD9)


def cropped(array: np.ndarray, most: int) -> np.ndarray:
    """The map on at most ``most`` points a side, its Fourier transform cropped."""
    import scipy.fft

    if max(array.shape) <= most:
        return array
    shape = tuple(max(2, round(n * most / max(array.shape))) for n in array.shape)
    # centres stay at n // 2; between even numbers of points they do so by themselves
    even = all(n % 2 == 0 for n in (*array.shape, *shape))
    f = scipy.fft.rfftn(array if even else np.fft.ifftshift(array), workers=default_threads())
    out = np.zeros((*shape[:2], shape[2] // 2 + 1), np.complex64)
    a, b = (shape[0] - 1) // 2, (shape[1] - 1) // 2
    z = np.r_[0 : a + 1, -a:0] if a else np.array([0])
    y = np.r_[0 : b + 1, -b:0] if b else np.array([0])
    c = (shape[2] - 1) // 2 + 1
    out[z[:, None], y[None], :c] = f[z[:, None], y[None], :c]
    small = scipy.fft.irfftn(out, s=shape) * (np.prod(shape) / array.size)
    return (small if even else np.fft.fftshift(small)).astype(np.float32)


def on_grid(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The nearest values on another number of points over the same box, centres at n // 2."""
    at = [
        np.clip(np.rint((np.arange(m) - m // 2) * (n / m) + n // 2), 0, n - 1).astype(int)
        for m, n in zip(shape, array.shape, strict=True)
    ]
    return array[np.ix_(*at)]


def to_byte_map(array: np.ndarray, span: tuple[float, float] | None = None) -> tuple[np.ndarray, tuple[float, float]]:
    """8-bit copy and the values of 0 and 255. The darkest hundredth of a per cent is cut: surfaces are about what is bright."""
    if span is None:
        low, high = float(np.quantile(array[::2, ::2, ::2], 1e-4)), float(array.max())
        span = (low, high if high > low else low + 1.0)
    return np.clip(np.rint((array - span[0]) * (255.0 / (span[1] - span[0]))), 0, 255).astype(np.uint8), span


@dataclass(frozen=True)
class PageMap:
    """What goes to a page: ``data`` uint8, ``shape`` (z, y, x), ``voxel`` in Å, values of 0 and 255, grey ``limits`` of slices."""

    data: bytes
    shape: list[int]
    voxel: float
    span: list[float]
    limits: list[float]


def page_map(array: np.ndarray, pixel_size: float, most: int = 128) -> PageMap:
    """Copy of a map that fits the budget of a page (128^3: 2 MB)."""
    small = cropped(array, most)
    pixels, span = to_byte_map(small)
    n = small.shape
    inner = small[tuple(slice(k // 4, k - k // 4) for k in n)]
    low, high = (float(v) for v in np.quantile(inner, (0.01, 0.998)))
    # a map inside a mask is mostly nothing: the mean of the edges is then its black
    low = min(low, float(np.median(small[0])))
    return PageMap(
        pixels.tobytes(), list(n), pixel_size * array.shape[-1] / n[-1], list(span), [low, high if high > low else low + 1.0]
    )


def suggested_threshold(array: np.ndarray) -> float:
    """Level at which a map usually shows its outline.

    The brightest voxels are parted from the rest at the mean of those above two standard deviations, less half the spread of the
    background; it is a start for the slider, no measurement.
    """
    flat = array.ravel()[:: max(1, array.size // 2_000_000)]
    mean, std = float(flat.mean()), float(flat.std())
    bright = flat[flat > mean + 2.0 * std]
    level = mean + 0.75 * (float(bright.mean()) - mean) if bright.size else mean + 0.5 * (float(flat.max()) - mean)
    return float(min(level, 0.95 * float(array.max()) + 0.05 * mean))


def fitting_zoom(array: np.ndarray, level: float) -> tuple[float, float]:
    """Zoom that fills the picture with what lies above a level, and its radius as a share of half the longest edge."""
    step = max(1, max(array.shape) // 64)
    inside = np.argwhere(array[::step, ::step, ::step] >= level) * step
    if not len(inside):
        return 1.0, 1.0
    r = np.quantile(np.linalg.norm(inside - np.array(array.shape) // 2, axis=1), 0.998) / (max(array.shape) / 2)
    return float(np.clip(0.92 / max(r, 1e-3), 0.6, 4.0)), float(r)


def colour_limits(values: np.ndarray) -> tuple[float, float]:
    """First and last colour for values such as local resolutions: 2nd to 98th percentile, and no narrower than a tenth of their middle.

    What differs by less than that is noise of the measurement, and would run from blue to red.
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.quantile(known, (0.02, 0.98)))
    short = 0.1 * abs(low + high) / 2 - (high - low)
    if short > 0:
        low, high = low - short / 2, high + short / 2
    return (low, high) if high > low else (low, low + 1.0)


@lru_cache(maxsize=1)
def resolution_colours() -> np.ndarray:
    """(256, 3) uint8 from blue (best) over green and yellow to red (worst), in even steps of the OKLab colour space."""
    knots = np.array(
        [[0.50, 0.17, 262.0], [0.68, 0.12, 225.0], [0.78, 0.14, 160.0], [0.86, 0.16, 105.0], [0.74, 0.16, 60.0], [0.56, 0.20, 27.0]]
    )
    t = np.linspace(0, len(knots) - 1, 2048)
    lightness, chroma, hue = (np.interp(t, np.arange(len(knots)), knots[:, i]) for i in range(3))
    lab = np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], -1)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(lab, axis=0), axis=1))])
    lab = np.stack([np.interp(np.linspace(0, length[-1], 256), length, lab[:, i]) for i in range(3)], -1)
    # OKLab to linear sRGB (B. Ottosson, 2020)
    lms = (
        lab @ np.array([[1, 1, 1], [0.3963377774, -0.1055613458, -0.0894841775], [0.2158037573, -0.0638541728, -1.2914855480]])
    ) ** 3
    rgb = lms @ np.array(
        [
            [4.0767416621, -1.2684380046, -0.0041960863],
            [-3.3077115913, 2.6097574011, -0.7034186147],
            [0.2309699292, -0.3413193965, 1.7076147010],
        ]
    )
    rgb = np.clip(rgb, 0, 1)
    return np.rint(255 * np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)).astype(np.uint8)


def plane_image(
    plane: np.ndarray, limits: Any, edge: int, *, tint: np.ndarray | None = None, tint_range: Any = (0.0, 1.0), level: float = 0.0,
    mask: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """(edge, edge, 3) uint8: a plane in grey, coloured by values where it is above a level, a mask in blue over it, as in the page."""
    from PIL import Image

    low, high = limits
    grey = np.clip(255.0 * (plane - low) / (high - low), 0, 255)
    out = np.repeat(grey[..., None], 3, -1)
    if tint is not None:
        share = np.nan_to_num((tint - tint_range[0]) / max(tint_range[1] - tint_range[0], 1e-9))
        colours = resolution_colours()[np.clip(255 * share, 0, 255).astype(int)] * (0.35 + 0.65 * grey[..., None] / 255)
        out = np.where((np.isfinite(tint) & (plane >= 0.75 * level))[..., None], colours, out)
    if mask is not None:
        covered = 0.45 * np.clip(mask, 0, 1)[..., None] * np.array([0.6, 1.0, 1.0])
        out = out * (1 - covered) + covered * np.array([86.0, 180.0, 233.0])
    return np.asarray(Image.fromarray(out.astype(np.uint8)).resize((edge, edge), Image.Resampling.BICUBIC))


def legend_texts(limits: Any) -> list[str]:
    """Five values from first to last, with as many figures as part them."""
    low, high = (float(v) for v in limits)
    step = abs(high - low) / 4
    digits = max(0 if max(abs(low), abs(high)) >= 100 else 1, int(np.ceil(-np.log10(step) - 1e-9)) if step > 0 else 1)
    return [f"{low + q * (high - low):.{min(digits, 6)}f}" for q in (0, 0.25, 0.5, 0.75, 1)]


def legend_image(limits: Any, label: str, height: int, background: Any, ink: Any) -> np.ndarray:
    """(height, width, 3) uint8: the colours from top to bottom with their values beside them."""
    from PIL import Image, ImageDraw

    from cryotk_widgets.pictures import font_of_size

    font, texts = font_of_size(11), legend_texts(limits)
    length = min(height - 34, 160)
    width = int(max(font.getlength(label), 18 + max(font.getlength(t) for t in texts))) + 8
    picture = Image.new("RGB", (width, height), tuple(background))
    draw = ImageDraw.Draw(picture)
    draw.text((0, 2), label, fill=tuple(ink), font=font)
    colours = resolution_colours()[np.linspace(0, 255, length).astype(int)]
    picture.paste(Image.fromarray(np.repeat(colours[:, None], 12, 1)), (0, 24))
    for i, text in enumerate(texts):
        draw.text((18, 24 + i * (length - 1) / 4), text, fill=tuple(ink), font=font, anchor="lm")
    return np.asarray(picture)


def _turn(q: Any) -> np.ndarray:
    """Rotation matrix, map to view, of a quaternion (x, y, z, w)."""
    x, y, z, w = np.asarray(q, float) / np.linalg.norm(q)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def surface_image(
    array: np.ndarray, level: float, rotation: Any = (0, 0, 0, 1), zoom: float = 1.0, edge: int = 300, *, colour: Any = WARM,
    background: Any = (255, 255, 255), tint: np.ndarray | None = None, tint_range: tuple[float, float] = (0.0, 1.0), clip: float = 0.0, radius: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """Draw a surface without a browser.

    Parameters
    ----------
    array : (z, y, x) float
    level : float
        Threshold.
    rotation : 4 floats
        Quaternion x, y, z, w that turns the map; x right, y up, z towards the viewer.
    zoom : float
        1: the longest edge fills the picture.
    edge : int
        Pixels of the picture.
    tint : (z, y, x) float, optional
        Values that colour the surface by ``resolution_colours``; NaN stays grey.
    clip : float
        Share of the depth that is cut away in front.
    radius : float
        Of the sphere whose depth is meant, in half edges.

    Returns
    -------
    (edge, edge, 3) uint8
    """
    from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates

    array = cropped(array, 96)
    n = np.array(array.shape)
    depth = int(max(n))
    # view (depth from the front, row from the top, column) to index (z, y, x)
    r = _turn(rotation)
    scale = max(n) / zoom / edge
    to_view = np.array([[0, 0, scale], [0, -scale, 0], [-1.0, 0, 0]])  # (depth, row, column) to (x, y, z) of the view
    matrix = (r.T @ to_view)[::-1]
    middle = np.array([depth / 2, edge / 2 - 0.5, edge / 2 - 0.5])
    seen = affine_transform(array, matrix, n // 2 - matrix @ middle, (depth, edge, edge), order=1, cval=float(array.min()))
    first_plane = max(0, round(depth / 2 * (1 + (2 * clip - 1) * radius))) if clip > 0 else 0
    inside = seen[first_plane:] >= level
    hit = inside.any(0)
    front = inside.argmax(0) + first_plane
    rows, columns = np.nonzero(hit)
    d = front[rows, columns].astype(float)
    here = seen[front[rows, columns], rows, columns]
    before = seen[np.maximum(front[rows, columns] - 1, 0), rows, columns]
    cut = front[rows, columns] == first_plane
    part = np.where(here > before, (here - level) / np.maximum(here - before, 1e-12), 0.0)
    d = d - np.where(cut, 0.0, np.clip(part, 0, 1))
    at = matrix @ np.stack([d, rows, columns]) + (n // 2 - matrix @ middle)[:, None]
    gradient = np.stack(
        [map_coordinates(array, at + h, order=1) - map_coordinates(array, at - h, order=1) for h in 1.2 * np.eye(3)[:, :, None]]
    )
    normal = -gradient / np.maximum(np.linalg.norm(gradient, axis=0), 1e-12)
    view = r @ normal[::-1]
    view[:, cut] = np.array([0.0, 0.0, 1.0])[:, None]
    view = np.where(view[2] < 0, -view, view)
    dense = gaussian_filter((array >= level).astype(np.float32), 3.0)
    open_ = 1 - np.clip(1.6 * (map_coordinates(dense, at + 4 * normal, order=1) - 0.15), 0, 0.75)
    key = np.clip(np.array([-0.42, 0.56, 0.71]) @ view, 0, None)
    base = np.broadcast_to(np.array(colour) / 255.0, (len(rows), 3))
    if tint is not None:
        small = tint[tuple(slice(None, None, max(1, round(t / k))) for t, k in zip(tint.shape, array.shape, strict=True))]
        place = tuple(np.clip(np.rint(at[i] * small.shape[i] / n[i]).astype(int), 0, small.shape[i] - 1) for i in range(3))
        values = small[place]
        share = np.nan_to_num((values - tint_range[0]) / max(tint_range[1] - tint_range[0], 1e-9))
        base = np.where(np.isfinite(values)[:, None], resolution_colours()[np.clip(255 * share, 0, 255).astype(int)] / 255.0, 0.62)
    light = base**2 * (open_ * (0.20 + 0.11 * (1 + view[1])) + 0.72 * key * (0.45 + 0.55 * open_))[:, None]
    far = np.clip((((2 * d / depth - 1) / max(radius, 0.1) + 1) / 2 - 0.25) / 0.75, 0, 1)[:, None]
    picture = np.empty((edge, edge, 3), np.float32)
    picture[:] = np.array(background) / 255.0
    picture[rows, columns] = np.sqrt(light) * (1 - 0.5 * far**2) + picture[rows, columns] * 0.5 * far**2
    return np.clip(255 * picture, 0, 255).astype(np.uint8)
