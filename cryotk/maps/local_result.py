"""What local resolution gives: two maps, the curves of all points, a histogram inside the mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data import write_volume
from cryotk.io import StarBlock, write_star
from cryotk.maps.inputs import on_host
from cryotk.maps.report import plot_with, table_html, table_text

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["LocalResolutionResult", "histogram_inside", "points_dataset"]

_MOST_BINS = 5000


@dataclass(repr=False)
class LocalResolutionResult:
    """Result of :func:`cryotk.local_resolution`. Nothing is computed by looking at it."""

    resolution_map: xr.DataArray
    """Å; 0 where no window reaches."""
    filtered: xr.DataArray
    """Average of the half-maps, filtered (and sharpened) by local FSC and resolution."""
    points: xr.Dataset
    """Over ``point``: ``z, y, x`` (Å) and ``resolution``; over ``point, shell``: ``corrected, masked, randomised``."""
    mask: xr.DataArray | None = None
    pixel_size: float = 1.0
    histogram: xr.Dataset | None = None
    """Inside the mask (> 0.5), over ``bin``: ``count``, coordinate ``resolution`` (middle, Å); attrs ``median, p05, p95``."""
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def save(self, directory: Any, root: str = "relion") -> Path:
        """Write ``<root>_locres.mrc``, ``_locres_filtered.mrc`` and ``_locres_fscs.star``; returns the first."""
        base = Path(directory) / root
        first = Path(f"{base}_locres.mrc")
        write_volume(on_host(self.resolution_map), first, self.pixel_size)
        write_volume(on_host(self.filtered), f"{base}_locres_filtered.mrc", self.pixel_size)
        p = self.points
        n_points, n_shells = p.sizes["point"], p.sizes["shell"]
        spot = {axis: np.repeat(p[axis].values, n_shells) for axis in ("z", "y", "x")}
        table = {
            "cryotkPointZ": spot["z"], "cryotkPointY": spot["y"], "cryotkPointX": spot["x"],
            "rlnSpectralIndex": np.tile(p["shell"].values, n_points), "rlnResolution": np.tile(p["frequency"].values, n_points),
            "rlnFourierShellCorrelationCorrected": p["corrected"].values.ravel(),
            "rlnFourierShellCorrelationMaskedMaps": p["masked"].values.ravel(),
            "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": p["randomised"].values.ravel(),
        }  # fmt: skip
        where = {axis: p[axis].values for axis in ("z", "y", "x")}
        summary = {
            "cryotkPointZ": where["z"], "cryotkPointY": where["y"], "cryotkPointX": where["x"],
            "rlnAngstromResolution": p["resolution"].values,
        }  # fmt: skip
        write_star(
            f"{base}_locres_fscs.star",
            {"points": StarBlock("points", summary), "fsc": StarBlock("fsc", table)},
            header="# cryotk local_resolution\n",
        )
        return first

    def plot(self, **kwargs: Any) -> Any:
        """Slices of the local resolution and its histogram (needs the lab extra)."""
        return plot_with("local_resolution", self, **kwargs)

    def _rows(self) -> dict[str, str]:
        n = self.resolution_map.shape[0]
        rows = {"windows": f"{self.points.sizes['point']}, every {self.settings.get('sampling', 0):g} Å"}
        if self.histogram is not None:
            h = self.histogram.attrs
            rows["inside the mask"] = f"median {h['median']:.2f} Å, 5 to 95 %: {h['p05']:.2f} to {h['p95']:.2f} Å"
        rows["map"] = f"{n}³, {self.pixel_size:.4g} Å"
        rows.update({f"warning {i}": w for i, w in enumerate(self.warnings, 1)})
        return rows

    def __repr__(self) -> str:
        return table_text("LocalResolutionResult", self._rows())

    def _repr_html_(self) -> str:
        return table_html("Local resolution", self._rows())


def points_dataset(points: np.ndarray, measured: dict[str, np.ndarray], n: int, a: float) -> xr.Dataset:
    """Curves and resolution of every point."""
    import xarray as xr

    shell = np.arange(n // 2 + 1)
    with np.errstate(divide="ignore"):
        angstrom = np.where(shell > 0, n * a / np.where(shell > 0, shell, 1), np.inf)
    spot = (points - n // 2) * a
    return xr.Dataset(
        {
            "resolution": ("point", measured["resolution"], {"units": "Å"}),
            **{k: (("point", "shell"), measured[k]) for k in ("corrected", "masked", "randomised")},
        },
        coords={
            **{axis: ("point", spot[:, i], {"units": "Å"}) for i, axis in enumerate(("z", "y", "x"))}, "shell": shell,
            "frequency": ("shell", shell / (n * a), {"units": "1/Å"}), "shell_resolution": ("shell", angstrom, {"units": "Å"}),
        },
        attrs={"pixel_size": a, "box_size": n},
    )  # fmt: skip


def histogram_inside(resolution: xr.DataArray, mask: xr.DataArray) -> xr.Dataset:
    """Histogram of a local-resolution map where a mask is above 0.5; bins of ``2 IQR / n^(1/3)``, as RELION's program means it."""
    import xarray as xr

    r, m = np.asarray(on_host(resolution).data), np.asarray(on_host(mask).data)
    values = r[(m > 0.5) & (r > 0)].astype(float)
    if not len(values):
        return xr.Dataset({"count": ("bin", np.empty(0, int))}, coords={"resolution": ("bin", np.empty(0))},
                          attrs={"median": np.nan, "p05": np.nan, "p95": np.nan, "voxels": 0})  # fmt: skip
    low, high = values.min(), values.max()
    q1, q3 = np.percentile(values, [25, 75])
    width = 2 * (q3 - q1) / len(values) ** (1 / 3)
    bins = int(np.clip(np.ceil((high - low) / width), 1, _MOST_BINS)) if width > 0 else 1
    count, edges = np.histogram(values, bins, (low, high if high > low else low + 1))
    p05, median, p95 = np.percentile(values, [5, 50, 95])
    return xr.Dataset(
        {"count": ("bin", count)},
        coords={"resolution": ("bin", 0.5 * (edges[1:] + edges[:-1]), {"units": "Å"})},
        attrs={"median": float(median), "p05": float(p05), "p95": float(p95), "voxels": len(values)},
    )
