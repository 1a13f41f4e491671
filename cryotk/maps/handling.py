"""Other pixels, boxes, filters, hands and places of a map; the pixel size stays right through all of them."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data.notices import warn_caller
from cryotk.errors import SettingsError
from cryotk.fourier import resized_box
from cryotk.maps import gains
from cryotk.maps.inputs import map_of, name_of, open_map, require_cube, require_number, require_seed, values_of
from cryotk.maps.transform import filtered, forward, inverse, namespace, random_phases

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "apply_b_factor", "center_of_mass", "flip", "highpass", "lowpass", "map_statistics", "randomise_phases", "rebox", "rescale",
    "shift", "shift_to_center_of_mass",
]  # fmt: skip

_AXES = {"z": 0, "y": 1, "x": 2}


def _filtered(volume: Any, gain_of: Any, history: str, pixel_size: float | None) -> xr.DataArray:
    v = open_map(volume, pixel_size=pixel_size)
    n = require_cube(v)
    return map_of(filtered(values_of(v), gain_of(n, float(v.attrs["pixel_size"]))), v, history=history)


def _check_filter(resolution: Any, width: Any) -> None:
    require_number("resolution", resolution, "Å", positive=True)
    require_number("width", width, "shells")


def lowpass(volume: Any, resolution: float, width: float = 2.0, pixel_size: float | None = None) -> xr.DataArray:
    """Low-pass a map to ``resolution`` Å, with a raised cosine over ``width`` shells around the nearest shell.

    Parameters
    ----------
    volume : path, DataArray or array
        A cube.
    resolution : float, Å
    width : float
        Shells; below 2 the edge is hard.
    pixel_size : float, Å, optional
        Overrides what the map says.

    Examples
    --------
    >>> ctk.lowpass("run_class001.mrc", 20)  # doctest: +SKIP
    """
    _check_filter(resolution, width)
    return _filtered(volume, lambda n, a: gains.lowpass_gain(n, a, resolution, width), f"low-pass {resolution:g} Å", pixel_size)


def highpass(volume: Any, resolution: float, width: float = 2.0, pixel_size: float | None = None) -> xr.DataArray:
    """High-pass a map at ``resolution`` Å; the complement of :func:`lowpass`.

    Parameters
    ----------
    volume : path, DataArray or array
        A cube.
    resolution : float, Å
    width : float
        Shells; below 2 the edge is hard.
    pixel_size : float, Å, optional
        Overrides what the map says.
    """
    _check_filter(resolution, width)
    return _filtered(volume, lambda n, a: gains.highpass_gain(n, a, resolution, width), f"high-pass {resolution:g} Å", pixel_size)


def apply_b_factor(volume: Any, b_factor: float, pixel_size: float | None = None) -> xr.DataArray:
    """Multiply a map's transform by ``exp(-B/4 s^2)``; nothing passes beyond Nyquist's radius.

    Parameters
    ----------
    volume : path, DataArray or array
        A cube.
    b_factor : float, Å^2
        Negative sharpens.
    pixel_size : float, Å, optional
        Overrides what the map says.
    """
    require_number("b_factor", b_factor, "Å^2")
    return _filtered(volume, lambda n, a: gains.b_factor_gain(n, a, b_factor), f"B={b_factor:g} Å^2", pixel_size)


def randomise_phases(volume: Any, resolution: float, seed: int = 0, pixel_size: float | None = None) -> xr.DataArray:
    """Give all coefficients beyond a resolution random phases; amplitudes stay.

    Parameters
    ----------
    volume : path, DataArray or array
        A cube.
    resolution : float, Å
    seed : int
    pixel_size : float, Å, optional
        Overrides what the map says.
    """
    require_number("resolution", resolution, "Å", positive=True)
    require_seed(seed)
    v = open_map(volume, pixel_size=pixel_size)
    n = require_cube(v)
    f = random_phases(forward(values_of(v)), int(n * float(v.attrs["pixel_size"]) / resolution), seed, 0, overwrite=True)
    return map_of(inverse(f, n, overwrite=True), v, history=f"random phases beyond {resolution:g} Å")


def rescale(volume: Any, pixel_size: float) -> xr.DataArray:
    """Give a map another pixel size, in Fourier space; the box stays as large in Å.

    The new box is even, so the pixel size that results may differ a little; it is what the result carries.

    Parameters
    ----------
    volume : path, DataArray or array
        A cube.
    pixel_size : float, Å
        The new one; that of the map itself must be known (:func:`cryotk.open_volume` overrides a header's).

    Warns
    -----
    DataWarning
        When the pixel size that results differs by more than 0.1 % from the one asked for.
    """
    require_number("pixel_size", pixel_size, "Å", positive=True)
    v = open_map(volume, remedy="open it with its own: ctk.open_volume(path, pixel_size) or ctk.data.as_volume(array, pixel_size)")
    n, a = require_cube(v), float(v.attrs["pixel_size"])
    m, real = resized_box(n, a, pixel_size)
    if abs(real - pixel_size) > 1e-3 * pixel_size:
        warn_caller(f"{name_of(v)}: an even box gives {real:.5g} Å, not {pixel_size:g} Å; the result carries it")
    if m == n:
        return map_of(values_of(v) + 0, v, a)
    return map_of(_resized(values_of(v), n, m), v, real, history=f"rescaled to {real:.5g} Å")


def _resized(x: Any, n: int, m: int) -> Any:
    """Crop or pad the transform; the centre ``n // 2`` goes to ``m // 2``."""
    small = min(n, m)
    f = forward(x, reach=small // 2 if small < n else None)
    xp = namespace(f)
    up, down = small // 2 + 1, (small - 1) // 2  # rows of positive (with Nyquist) and negative frequency
    out = xp.zeros((m, m, m // 2 + 1), dtype=f.dtype)
    for target_z, source_z in ((slice(0, up), slice(0, up)), (slice(m - down, m), slice(n - down, n))):
        for target_y, source_y in ((slice(0, up), slice(0, up)), (slice(m - down, m), slice(n - down, n))):
            out[target_z, target_y, : small // 2 + 1] = f[source_z, source_y, : small // 2 + 1]
    k = np.fft.fftfreq(m) * m
    k[m // 2] = abs(k[m // 2]) if m % 2 == 0 else k[m // 2]
    half = np.arange(m // 2 + 1)
    if m > n:
        inside = k[:, None, None] ** 2 + k[:, None] ** 2 + half**2 <= (n / 2) ** 2
        out = xp.where(xp.asarray(inside), out, xp.zeros_like(out))
    # odd boxes: their centre n // 2 is not where index n / 2 would be
    move = n // 2 * m / n - m // 2
    if abs(move) > 1e-9:
        for shape, frequency in (((-1, 1, 1), k), ((1, -1, 1), k), ((1, 1, -1), half)):
            out = out * xp.asarray(
                np.exp(2j * np.pi * frequency * move / m)
                .reshape(shape)
                .astype(np.complex64 if f.dtype == xp.complex64 else complex)
            )
    return inverse(out, m, overwrite=True)


def _whole_box(box: Any) -> tuple[int, int, int]:
    """Three numbers of voxels; whole floats will do."""
    sides: tuple[Any, ...] = (box,) * 3 if isinstance(box, Real) else tuple(box) if isinstance(box, Iterable) else ()
    if len(sides) != 3 or not all(isinstance(n, Real) and float(n) >= 1 and float(n).is_integer() for n in sides):
        raise SettingsError(f"box must be a positive whole number of voxels, or three of them (z, y, x), not {box!r}")
    z, y, x = (int(n) for n in sides)
    return z, y, x


def rebox(volume: Any, box: int | tuple[int, int, int], fill: float = 0.0, pixel_size: float | None = None) -> xr.DataArray:
    """Cut or enlarge the box around its centre ``n // 2``; voxels keep size and place.

    Parameters
    ----------
    volume : path, DataArray or array
        Not only cubes.
    box : int or (z, y, x)
    fill : float
        Value of voxels that the old box does not have.
    pixel_size : float, Å, optional
        Overrides what the map says.
    """
    v = open_map(volume, pixel_size=pixel_size)
    new = _whole_box(box)
    x = values_of(v)
    out = namespace(x).full(new, fill, dtype=x.dtype)
    source, target = [], []
    for m, n in zip(x.shape, new, strict=True):
        first = n // 2 - m // 2
        low, high = max(first, 0), min(first + m, n)
        source.append(slice(low - first, high - first))
        target.append(slice(low, high))
    out[tuple(target)] = x[tuple(source)]
    return _in_place(map_of(out, v, history=f"box {'x'.join(str(i) for i in new)}"), v)


def _in_place(out: xr.DataArray, v: xr.DataArray) -> xr.DataArray:
    """The coordinates of a map that was cut out of another go on where they were."""
    if out.shape == v.shape or any(axis not in v.coords.variables for axis in out.dims):
        return out
    middle = {axis: float(v.coords.variables[axis].values[v.sizes[axis] // 2]) for axis in out.dims}
    if all(abs(at) < 1e-6 for at in middle.values()):
        return out
    return out.assign_coords({axis: out[axis] + at for axis, at in middle.items()})


def flip(volume: Any, axis: str = "hand", pixel_size: float | None = None) -> xr.DataArray:
    """Mirror a map.

    Parameters
    ----------
    volume : path, DataArray or array
    axis : {"hand", "x", "y", "z"}
        ``"hand"`` mirrors x about the centre ``n // 2``, so that symmetry axes stay where they are: the one to use for the
        wrong hand. The others reverse the voxels' order, which in an even box moves the centre by one voxel.
    pixel_size : float, Å, optional
        Overrides what the map says.
    """
    v = open_map(volume, pixel_size=pixel_size)
    x = values_of(v)
    xp = namespace(x)
    if axis == "hand":
        out = xp.flip(x, axis=2)
        if x.shape[2] % 2 == 0:
            out = xp.roll(out, 1, axis=2)
    elif axis in _AXES:
        out = xp.flip(x, axis=_AXES[axis])
    else:
        raise SettingsError(f"axis must be 'hand', 'x', 'y' or 'z', not {axis!r}")
    return map_of(xp.asarray(out, copy=True), v, history=f"flipped ({axis})")


def center_of_mass(volume: Any, pixel_size: float | None = None) -> tuple[float, float, float]:
    """Centre of mass (x, y, z) of the voxels above zero, in pixels from the centre ``n // 2``.

    Parameters
    ----------
    volume : path, DataArray or array
    pixel_size : float, Å, optional
        Overrides what the map says.
    """
    v = open_map(volume, pixel_size=pixel_size)
    x = values_of(v)
    xp = namespace(x)
    mass = xp.astype(xp.where(x > 0, x, xp.zeros_like(x)), xp.float64)
    total = float(xp.sum(mass))
    if total <= 0:
        return 0.0, 0.0, 0.0
    out = []
    for axis in (2, 1, 0):
        profile = xp.sum(mass, axis=tuple(i for i in range(3) if i != axis))
        place = xp.arange(x.shape[axis], dtype=xp.float64) - x.shape[axis] // 2
        out.append(float(xp.sum(profile * place)) / total)
    return out[0], out[1], out[2]


def shift(volume: Any, by: tuple[float, float, float], compat: str | None = None, pixel_size: float | None = None) -> xr.DataArray:
    """Move a map.

    Parameters
    ----------
    volume : path, DataArray or array
    by : (x, y, z)
        Pixels; what is at the centre comes to lie there.
    compat : {None, "relion"}
        By default in Fourier space, where nothing is lost (and what leaves on one side comes back on the other); ``"relion"``
        interpolates linearly and fills with zeros.
    pixel_size : float, Å, optional
        Overrides what the map says.
    """
    steps: tuple[Any, ...] = tuple(by) if isinstance(by, Iterable) else ()
    if len(steps) != 3 or not all(isinstance(s, Real) and np.isfinite(float(s)) for s in steps):
        raise SettingsError(f"by must be three numbers of pixels (x, y, z), not {by!r}")
    v = open_map(volume, pixel_size=pixel_size)
    x = values_of(v)
    text = f"shifted by {', '.join(f'{s:g}' for s in steps)} px"
    if compat == "relion":
        for axis, s in zip((2, 1, 0), steps, strict=True):
            x = _linear_shift(x, axis, float(s))
        return map_of(x, v, history=text)
    if compat is not None:
        raise SettingsError(f"compat must be None or 'relion', not {compat!r}")
    n = require_cube(v)
    f = forward(x)
    xp = namespace(f)
    k = np.fft.fftfreq(n) * n
    for (shape, frequency), s in zip((((1, 1, -1), np.arange(n // 2 + 1)), ((1, -1, 1), k), ((-1, 1, 1), k)), steps, strict=True):
        ramp = np.exp(-2j * np.pi * frequency * s / n)
        if n % 2 == 0:
            ramp[n // 2] = np.cos(np.pi * s)  # real, or the map is not
        f = f * xp.asarray(ramp.reshape(shape).astype(np.complex64 if f.dtype == xp.complex64 else complex))
    return map_of(inverse(f, n, overwrite=True), v, history=text)


def _linear_shift(x: Any, axis: int, s: float) -> Any:
    """``out[i] = x[i - s]``, linearly; zero outside the first to last voxel."""
    xp, n = namespace(x), x.shape[axis]
    p = np.arange(n) - s
    inside = (p >= -1e-6) & (p <= n - 1 + 1e-6)
    low = np.clip(np.floor(p), 0, max(n - 2, 0)).astype(np.int64)
    f = p - low
    shape = tuple(-1 if i == axis else 1 for i in range(3))

    def weight(w: np.ndarray) -> Any:
        return xp.asarray((w * inside).reshape(shape).astype(np.float64))

    one, two = xp.take(x, xp.asarray(low), axis=axis), xp.take(x, xp.asarray(np.minimum(low + 1, n - 1)), axis=axis)
    return xp.astype(xp.astype(one, xp.float64) * weight(1 - f) + xp.astype(two, xp.float64) * weight(f), x.dtype)


def shift_to_center_of_mass(volume: Any, compat: str | None = None, pixel_size: float | None = None) -> xr.DataArray:
    """Move a map so that the centre of mass of its positive voxels lies at the centre ``n // 2``.

    Parameters
    ----------
    volume : path, DataArray or array
    compat : {None, "relion"}
        As in :func:`shift`.
    pixel_size : float, Å, optional
        Overrides what the map says.
    """
    v = open_map(volume, pixel_size=pixel_size)
    x, y, z = center_of_mass(v)
    return shift(v, (-x, -y, -z), compat)


def map_statistics(volume: Any, pixel_size: float | None = None) -> dict[str, float]:
    """Mean, standard deviation, minimum, maximum (float64 sums), box and pixel size of a map.

    Parameters
    ----------
    volume : path, DataArray or array
    pixel_size : float, Å, optional
        Overrides what the map says.
    """
    v = open_map(volume, pixel_size=pixel_size)
    xp = namespace(v.data)
    x = xp.astype(v.data, xp.float64)
    return {
        "mean": float(xp.mean(x)), "std": float(xp.std(x)), "min": float(xp.min(x)), "max": float(xp.max(x)),
        "z": v.shape[0], "y": v.shape[1],
        "x": v.shape[2], "pixel_size": float(v.attrs["pixel_size"]),
    }  # fmt: skip
