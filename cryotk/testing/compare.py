"""How much two iterations of the same refinement agree, in a handful of figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryotk.data.refinement import Iteration
from cryotk.errors import DataError
from cryotk.geometry import euler_to_matrix

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["RELION_DEMANDS", "compare_iterations", "figures_table", "unmet_demands"]

RELION_DEMANDS: dict[str, tuple[str, float]] = {
    "same_pose": (">=", 0.99),
    "same_offset": (">=", 0.99),
    "same_class": (">=", 0.99),
    "p_max_within_1_percent": (">=", 0.95),
    "same_significant": (">=", 0.90),
    "noise_power": ("<=", 0.005),
    "prior_power": ("<=", 0.005),
    "map_relative_rms": ("<=", 0.005),
    "resolution": ("<=", 1e-4),
    "image_size": ("<=", 0),
}
"""What another implementation of RELION's step can be held to: figure -> (comparison, limit)."""

_FILE_RESOLUTION = 1e-6
"""Numbers in STAR files have six decimals."""


def compare_iterations(ours: Iteration, golden: Iteration, *, angle: float = 0.01, offset: float = 0.01) -> dict[str, float]:
    """Compare two iterations, particle by particle and shell by shell.

    Parameters
    ----------
    ours, golden : Iteration
        Particles are matched by image name when both name the same images, else by order.
    angle : float
        Degrees; poses closer than this are the same.
    offset : float
        Å, likewise.

    Returns
    -------
    dict of str to float
        Fractions of particles (``same_pose, same_offset, same_class, same_significant, p_max_within_1_percent``), largest
        differences (``p_max, norm_correction, log_likelihood, group_scales, class_distribution, direction_distribution,
        sigma_offset, norm_average, prior_offset, average_p_max`` absolute; ``noise_power, prior_power, data_vs_prior,
        reference_noise, resolution`` relative, in the shells of the image window), ``map_relative_rms`` (the worst of the
        maps that ``golden`` has), ``image_size`` (difference in pixels). What either does not know is left out.

    Raises
    ------
    DataError
        When the two have different numbers of particles, classes or pixels.
    """
    a, b = ours.model, golden.model
    if a.references.shape != b.references.shape:
        raise DataError(f"the references differ in shape: {a.references.shape} and {b.references.shape}")
    out = _particles(ours.assignments, golden.assignments, a.is_3d, angle, offset)
    inside = slice(0, b.current_size // 2 if b.current_size else None)
    for name in ("noise_power", "prior_power", "data_vs_prior", "reference_noise"):
        x, y = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
        if x.shape == y.shape and np.any(y > 0):
            out[name] = _relative(x[..., inside], y[..., inside])
    for name in ("class_distribution", "direction_distribution", "prior_offset", "group_scales"):
        x, y = getattr(a, name), getattr(b, name)
        if x is not None and y is not None and np.shape(x) == np.shape(y):
            out[name] = _largest(x, y)
    for name in ("sigma_offset", "norm_average", "average_p_max"):
        out[name] = abs(getattr(a, name) - getattr(b, name))
    if np.isfinite(b.current_resolution):
        out["resolution"] = abs(a.current_resolution / b.current_resolution - 1)
    out["image_size"] = float(abs(a.current_size - b.current_size))
    rms = [
        float(np.linalg.norm(x - y) / np.linalg.norm(y)) for x, y in zip(a.references, b.references, strict=True) if np.any(y)
    ]
    if rms:
        out["map_relative_rms"] = max(rms)
    return out


def _largest(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.max(np.abs(np.asarray(x, float) - np.asarray(y, float)), initial=0.0))


def _relative(x: np.ndarray, y: np.ndarray) -> float:
    """Largest relative difference, less what rounding in the file explains."""
    known = y > 0
    return float(np.max(np.maximum(np.abs(x - y)[known] - _FILE_RESOLUTION / 2, 0) / y[known], initial=0.0))


def _key(name: object) -> str:
    number, at, file = str(name).partition("@")
    return f"{int(number)}@{file}" if at else number


def _order(ours: xr.Dataset, golden: xr.Dataset) -> np.ndarray:
    """Rows of ``golden`` in the order of ``ours``."""
    n = ours.sizes.get("particle", 0)
    if golden.sizes.get("particle", 0) != n:
        raise DataError(f"the numbers of particles differ: {n} and {golden.sizes.get('particle', 0)}")
    if "image_name" in ours and "image_name" in golden:
        rows = {_key(v): i for i, v in enumerate(golden["image_name"].values)}
        found = [rows.get(_key(v), -1) for v in ours["image_name"].values]
        if -1 not in found and len(set(found)) == n:
            return np.array(found, int)
    return np.arange(n)


def _particles(ours: xr.Dataset, golden: xr.Dataset, is_3d: bool, angle: float, offset: float) -> dict[str, float]:
    if not golden.sizes.get("particle", 0) or not ours.sizes.get("particle", 0):
        return {}
    order = _order(ours, golden)

    def pair(name: str) -> tuple[np.ndarray, np.ndarray] | None:
        if name not in ours or name not in golden:
            return None
        return np.asarray(ours[name].values, float), np.asarray(golden[name].values, float)[order]

    out: dict[str, float] = {}
    poses = [pair(f"angle_{x}") for x in ("rot", "tilt", "psi")]
    if all(p is not None for p in poses):
        if is_3d:
            x, y = (euler_to_matrix(*(p[i] for p in poses if p is not None)) for i in (0, 1))
            # chord of the largest of the three axes' rotations
            difference = np.degrees(np.linalg.norm(x - y, axis=-1).max(-1))
        else:
            difference = np.abs((poses[2][0] - poses[2][1] + 180) % 360 - 180)  # type: ignore[index]
        out["same_pose"] = float((difference < angle).mean())
    shifts = [pair(f"shift_{x}") for x in "xy"]
    if all(p is not None for p in shifts):
        moved = np.max([np.abs(p[0] - p[1]) for p in shifts if p is not None], axis=0)
        out["same_offset"] = float((moved < offset).mean())
    for name, figure in (("class_number", "same_class"), ("n_significant", "same_significant")):
        values = pair(name)
        if values is not None:
            out[figure] = float((values[0] == values[1]).mean())
    values = pair("max_probability")
    if values is not None:
        difference = np.abs(values[0] - values[1])
        out["p_max_within_1_percent"] = float((difference <= np.maximum(0.01 * values[1], _FILE_RESOLUTION)).mean())
        out["p_max"] = float(difference.max())
    for name in ("norm_correction", "log_likelihood"):
        values = pair(name)
        if values is not None:
            out[name] = _largest(*values)
    return out


def unmet_demands(figures: dict[str, float], demands: dict[str, tuple[str, float]] | None = None) -> list[str]:
    """Sentences on the figures that miss their demand; empty when all is well.

    Parameters
    ----------
    figures : dict
        Of :func:`compare_iterations`. A demanded figure that is not there counts as missed.
    demands : dict, optional
        Figure -> (``">="`` or ``"<="``, limit); :data:`RELION_DEMANDS` by default.
    """
    out = []
    for name, (comparison, limit) in (RELION_DEMANDS if demands is None else demands).items():
        value = figures.get(name)
        if value is None:
            out.append(f"{name} is not known, wanted {comparison} {limit:g}")
        elif not (value >= limit if comparison == ">=" else value <= limit):
            out.append(f"{name} = {value:.4g}, wanted {comparison} {limit:g}")
    return out


def figures_table(columns: dict[str, dict[str, float]], demands: dict[str, tuple[str, float]] | None = None) -> str:
    """Figures of several comparisons as a text table, one column each, with the demands last."""
    wanted = RELION_DEMANDS if demands is None else demands
    names = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    rows = [["", *columns, "demand"]]
    for name in names:
        cells = [f"{figures[name]:.3g}" if name in figures else "-" for figures in columns.values()]
        comparison, limit = wanted.get(name, ("", 0.0))
        rows.append([name, *cells, f"{comparison} {limit:g}" if comparison else ""])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = ([c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
