"""Masks: binarise, extend or shrink by exact distances, soften; from one map or from two."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data import write_volume
from cryotk.data.notices import warn_caller
from cryotk.errors import DataError, SettingsError
from cryotk.execution import Steps, pulse
from cryotk.kernels import distance
from cryotk.kernels.backends import backend_of
from cryotk.maps import gains
from cryotk.maps.inputs import (
    fraction_inside,
    map_of,
    on_host,
    open_like,
    open_map,
    require_cube,
    require_number,
    require_same_box,
    values_of,
)
from cryotk.maps.report import plot_with, table_html, table_text
from cryotk.maps.threshold import suggest_threshold
from cryotk.maps.transform import each_slab, filtered, is_numpy, namespace, to_numpy

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MaskResult", "create_mask", "crown_mask", "soft_mask", "solid_pieces"]


@dataclass(repr=False)
class MaskResult:
    """A mask and how it was made. Nothing is computed by looking at it."""

    mask: xr.DataArray
    """0 to 1."""
    threshold: float | None
    """Of the low-passed map."""
    reason: str
    """Why this threshold."""
    fraction: float
    """Of the box's voxels above 0.5."""
    volume_inside: float
    """Å^3 above 0.5."""
    lowpassed: xr.DataArray | None = None
    """The map that was thresholded."""
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    __array_ufunc__ = None  # numpy leaves array * result to __rmul__

    def __mul__(self, volume: Any) -> Any:
        """The map inside the mask: ``volume * result`` is ``volume * result.mask``."""
        return self.__rmul__(volume)

    def __rmul__(self, volume: Any) -> Any:
        """The map inside the mask."""
        if getattr(volume, "shape", ()) not in ((), self.mask.shape):
            raise DataError(f"the mask has box {self.mask.shape}, the map {volume.shape}; make one with ctk.create_mask of the map")
        return volume * self.mask.data

    def save(self, directory: Any, name: str = "mask.mrc") -> Path:
        """Write ``mask.mrc``, as RELION does; returns its path."""
        path = Path(directory) / name
        write_volume(on_host(self.mask), path)
        return path

    def plot(self, **kwargs: Any) -> Any:
        """Central slices of map and mask (needs the lab extra)."""
        return plot_with("mask", self, **kwargs)

    def _rows(self) -> dict[str, str]:
        n, a = self.mask.shape[0], float(self.mask.attrs["pixel_size"])
        rows = {"threshold": f"{self.threshold:.5g} ({self.reason})" if self.threshold is not None else self.reason}
        for k in ("lowpass", "extend_px", "soft_edge_px"):
            if self.settings.get(k) is not None:
                rows[k] = f"{self.settings[k]:g}" + (" Å" if k == "lowpass" else " px")
        rows["inside"] = f"{100 * self.fraction:.1f} % of the box, {self.volume_inside:.4g} Å³"
        rows["map"] = f"{n}³, {a:.4g} Å"
        rows.update({f"warning {i}": w for i, w in enumerate(self.warnings, 1)})
        return rows

    def __repr__(self) -> str:
        return table_text("MaskResult", self._rows())

    def _repr_html_(self) -> str:
        return table_html("Mask", self._rows())


def create_mask(
    volume: Any,
    threshold: float | None = None,
    lowpass: float | None = 15.0,
    extend_px: float = 3.0,
    soft_edge_px: float = 3.0,
    invert: bool = False,
    *,
    and_: Any = None,
    or_: Any = None,
    and_not: Any = None,
    or_not: Any = None,
    helix_fraction: float | None = None,
    largest_only: bool = False,
    fill_holes: bool = False,
    molecular_weight: float | None = None,
    pixel_size: float | None = None,
    lowpass_edge: float = 2.0,
    progress: bool | Callable[[int, int], object] = True,
) -> MaskResult:
    """Make a soft mask from a map.

    The map is low-passed, cut at the threshold, combined with a second map where one is given, extended (or shrunk), and given
    a soft edge of a raised cosine.

    Parameters
    ----------
    volume : path, DataArray or array
    threshold : float, optional
        Voxels at or above are inside. Without one :func:`suggest_threshold` suggests one; the result says why.
    lowpass : float, Å, optional
        None or 0 leaves the map as it is.
    extend_px : float, px
        Every voxel nearer than this to the inside gets inside; negative shrinks.
    soft_edge_px : float, px
        Width of the edge outside of that.
    invert : bool
        Give one minus the mask.
    and_, or_, and_not, or_not : path, DataArray or array, optional
        One second map, cut at the same threshold (and not low-passed).
    helix_fraction : float, optional
        Keep this central fraction along z, with the same soft edge.
    largest_only, fill_holes : bool
        Keep the largest connected piece; fill cavities (before extending).
    molecular_weight : float, kDa, optional
        For the suggestion: the threshold encloses 1.21 Å^3 per Da.
    pixel_size : float, Å, optional
        Overrides the header.
    lowpass_edge : float
        Shells.
    progress : bool or callable
        A bar (after a second), or a function of (done, total), which may raise to cancel.

    Returns
    -------
    MaskResult

    Raises
    ------
    DataError
        For a threshold above the map's maximum, maps that do not fit, a non-cubic map with a low-pass.

    Notes
    -----
    RELION's program is ``relion_mask_create``. Distances are exact here for edges of any width.
    """
    settings = {k: v for k, v in locals().items() if k not in ("volume", "and_", "or_", "and_not", "or_not", "progress")}
    second = {"and": and_, "or": or_, "and_not": and_not, "or_not": or_not}
    given = {k: v for k, v in second.items() if v is not None}
    if len(given) > 1:
        raise SettingsError(
            f"only one of and_, or_, and_not, or_not at a time, not {', '.join(given)}; make one mask after the other"
        )
    _check_numbers(settings)
    if threshold is not None and molecular_weight is not None:
        raise SettingsError("threshold and molecular_weight both say where to cut; give one of them")
    if soft_edge_px < 0:
        raise SettingsError(f"soft_edge_px must not be negative, found {soft_edge_px}")
    if helix_fraction is not None and not 0 < helix_fraction <= 1:
        raise SettingsError(f"helix_fraction must be between 0 and 1, not {helix_fraction}")
    if helix_fraction is not None and not soft_edge_px > 0:
        raise SettingsError("helix_fraction needs a soft edge: give soft_edge_px")
    notes: list[str] = []
    # passes over a volume, counted in cryotk.maps.transform
    with Steps(progress, 15 if lowpass else 8, "mask"):
        v = open_map(volume, "map", pixel_size)
        pulse(1)
        a = float(v.attrs["pixel_size"])
        low = v
        if lowpass:
            n = require_cube(v, "map for a mask with a low-pass (lowpass=None masks others)")
            gain = gains.lowpass_gain(n, a, lowpass, lowpass_edge)
            low = map_of(
                filtered(values_of(v), gain),
                v,
                history=f"low-pass {lowpass:g} Å",
            )
        reason = "as given"
        if threshold is None:
            threshold, reason = suggest_threshold(low, molecular_weight=molecular_weight, lowpass=None)
        xp = namespace(low.data)
        top = float(xp.max(low.data))
        if threshold > top and not {"or", "or_not"} & set(given):
            after = f" after the low-pass of {lowpass:g} Å" if lowpass else ""
            raise DataError(
                f"the threshold {threshold:g} is above the map's maximum{after}, {top:.4g}: the mask would be "
                "empty; leave it out for a suggestion"
            )
        inside = low.data >= threshold
        for how, other in given.items():
            p = open_like(other, f"map of {how}", v, pixel_size)
            require_same_box(v, p, "map", f"map of {how}", pixel_size=False)
            inside = _combine(low.data > threshold, p.data, threshold, how)
            if not bool(xp.any(inside)):
                raise DataError(
                    f"nothing is inside at the threshold {threshold:g}: the map's maximum is {top:.4g}, that of the map of {how} "
                    f"{float(xp.max(p.data)):.4g}; lower the threshold, or look whether the maps lie in the same place"
                )
        pulse(1)
        if largest_only or fill_holes:
            inside = solid_pieces(inside, largest_only, fill_holes)
        data = soft_mask(inside, extend_px, soft_edge_px)
        if helix_fraction is not None:
            data = data * _along_axis(namespace(data), data.shape[0], helix_fraction, soft_edge_px)
        if invert:
            data = 1 - data
    fraction = fraction_inside(data)
    for bad, text in (
        (fraction == 0, "the mask is empty: lower the threshold"),
        (fraction == 1, "the mask is one everywhere: raise the threshold"),
    ):
        if bad:
            notes.append(text)
            warn_caller(text)
    settings["threshold"] = threshold
    return MaskResult(
        mask=map_of(data, v, history="mask"),
        threshold=float(threshold),
        reason=reason,
        fraction=fraction,
        volume_inside=fraction * math.prod(v.shape) * a**3,
        lowpassed=low,
        settings=settings,
        warnings=notes,
    )


def _check_numbers(settings: dict[str, Any]) -> None:
    for name in ("threshold", "lowpass", "extend_px", "soft_edge_px", "lowpass_edge", "helix_fraction", "molecular_weight"):
        if settings[name] is not None:
            require_number(name, settings[name], {"lowpass": "Å", "molecular_weight": "kDa"}.get(name, ""))


def _combine(first: Any, other: Any, threshold: float, how: str) -> Any:
    if how == "and":
        return first & (other > threshold)
    if how == "or":
        return first | (other > threshold)
    return first & (other < threshold) if how == "and_not" else first | (other < threshold)


def solid_pieces(inside: Any, largest_only: bool, fill_holes: bool) -> Any:
    """Points inside (z, y, x) without the smaller pieces, with their cavities filled, as asked for."""
    from scipy import ndimage

    out = to_numpy(inside)
    if largest_only:
        labels, n = ndimage.label(out)
        if n > 1:
            out = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
        pulse()
    if fill_holes:
        # what of the outside does not reach the box's faces; binary_fill_holes grows it from there, voxel by voxel
        labels, n = ndimage.label(~out)
        open_ = np.zeros(n + 1, bool)
        for axis in range(3):
            for face in (0, -1):
                open_[np.unique(np.take(labels, face, axis))] = True
        open_[0] = False
        out = ~open_[labels]
        pulse()
    return out if is_numpy(inside) else namespace(inside).asarray(out)


def _along_axis(xp: Any, n: int, fraction: float, width: float) -> Any:
    z = np.abs(np.arange(n) - n // 2)
    edge = fraction * n / 2
    profile = np.where(z < edge, 1.0, np.where(z > edge + width, 0.0, 0.5 + 0.5 * np.cos(np.pi * (z - edge) / width)))
    return xp.asarray(profile.astype(np.float32))[:, None, None]


def soft_mask(inside: Any, extend_px: float = 0.0, soft_edge_px: float = 0.0) -> Any:
    """Extend (or shrink) a set of voxels and give it a soft edge.

    Parameters
    ----------
    inside : (z, y, x) bool
    extend_px : float
        A voxel nearer than this to the set joins it (strictly); negative: a voxel of the set nearer than this to what is
        outside leaves it.
    soft_edge_px : float
        A voxel at distance ``D`` smaller than this gets ``0.5 + 0.5 cos(pi D / soft_edge_px)``.

    Returns
    -------
    (z, y, x) float32
    """
    e2 = extend_px * extend_px - 1e-9  # distances are whole numbers squared
    if extend_px > 1:
        d, _ = _squared_distance(inside, extend_px)
        inside = _table_of(d, [float(i < e2) for i in range(math.ceil(extend_px * extend_px) + 1)], np.uint8) != 0
    elif extend_px < -1:
        d, _ = _squared_distance(~inside, -extend_px)
        inside = _table_of(d, [float(i >= e2) for i in range(math.ceil(extend_px * extend_px) + 1)], np.uint8) != 0
    if soft_edge_px <= 1:
        xp = namespace(inside)
        return xp.astype(inside, xp.float32)
    d, _ = _squared_distance(inside, soft_edge_px)
    w2 = soft_edge_px * soft_edge_px - 1e-9
    profile = [
        0.5 + 0.5 * math.cos(math.pi * math.sqrt(i) / soft_edge_px) if i < w2 else 0.0
        for i in range(math.ceil(soft_edge_px**2) + 1)
    ]
    return _table_of(d, profile, np.float32)


def _squared_distance(inside: Any, reach: float) -> tuple[Any, int]:
    """Squared distances up to ``reach``, and the value that stands for farther."""
    cap = math.ceil(reach)
    kind, far = distance.integer_type(cap)
    backend = backend_of(inside)
    if backend is None:
        return distance.squared_distance(inside, cap, namespace(inside)), far
    cap = min(cap, max(inside.shape))
    bytes_ = inside.view(np.uint8) if inside.dtype == bool else inside.astype(np.uint8)
    out = backend.xp.empty(inside.shape, kind)
    each_slab(lambda a, b: backend.distance_in_planes(bytes_, cap, far, a, b, out), inside.shape[0], backend)
    each_slab(lambda a, b: backend.distance_across_planes(out, cap, far, a, b), inside.shape[1], backend)
    return out, far


def _table_of(d: Any, table: list[float], kind: Any) -> Any:
    backend = backend_of(d)
    if backend is not None:
        values, out = backend.to_device(np.asarray(table, kind)), backend.xp.empty(d.shape, kind)
        each_slab(lambda a, b: backend.look_up(d, values, a, b, out), d.shape[0], backend)
        return out
    xp = namespace(d)
    values = xp.asarray(np.asarray(table, kind))
    index = xp.where(d < len(table) - 1, d, xp.asarray(len(table) - 1, dtype=d.dtype))
    return xp.reshape(xp.take(values, xp.reshape(index, (-1,))), d.shape)


def crown_mask(
    box: int,
    pixel_size: float,
    outer_radius: float = 99999.0,
    inner_radius: float = 0.0,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    soft_edge_px: float = 3.0,
) -> MaskResult:
    """Make a sphere or a hollow sphere without a map, as ``relion_mask_create --denovo``.

    Parameters
    ----------
    box : int
    pixel_size : float, Å
    outer_radius, inner_radius : float, px
    centre : x, y, z
        Pixels from the box's centre.
    soft_edge_px : float, px

    Returns
    -------
    MaskResult
    """
    from cryotk.data import as_volume

    if box < 1 or not pixel_size > 0:
        raise SettingsError(f"box and pixel_size must be positive, not {box} and {pixel_size}")
    if inner_radius > outer_radius:
        raise SettingsError(f"the inner radius ({inner_radius:g} px) must not be larger than the outer ({outer_radius:g} px)")
    k = np.arange(box) - box // 2
    d = np.sqrt((k - centre[2])[:, None, None] ** 2 + (k - centre[1])[:, None] ** 2 + (k - centre[0]) ** 2)
    w = soft_edge_px
    data = np.where(d < inner_radius - w, 0.0, np.where(d < outer_radius, 1.0, 0.0))
    if w > 0:
        data = np.where((d >= inner_radius - w) & (d < inner_radius), 0.5 - 0.5 * np.cos(np.pi * (d - inner_radius + w) / w), data)
        data = np.where((d >= outer_radius) & (d <= outer_radius + w), 0.5 - 0.5 * np.cos(np.pi * (outer_radius + w - d) / w), data)
    mask = as_volume(data.astype(np.float32), pixel_size, "crown")
    fraction = float((mask.values > 0.5).mean())
    return MaskResult(
        mask=mask,
        threshold=None,
        reason=f"between {inner_radius:g} and {outer_radius:g} px",
        fraction=fraction,
        volume_inside=fraction * box**3 * pixel_size**3,
        settings={"soft_edge_px": soft_edge_px},
    )
