"""Post-processing: FSC with and without mask, what the mask itself contributes, sharpening by a fitted B-factor."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data import as_volume, pixel_size_of
from cryotk.errors import DataError, SettingsError
from cryotk.execution import Steps, pulse
from cryotk.maps import curves, gains
from cryotk.maps.half_maps import judge_half_maps, names_of, note, open_half_maps
from cryotk.maps.inputs import check_mask, map_of, open_like, require_cube, require_number, require_seed, values_of
from cryotk.maps.postprocess_result import PostprocessResult, Spectrum, fsc_dataset, guinier_dataset, log_amplitudes
from cryotk.maps.transform import (
    amplitudes_by_radius,
    apply_gain,
    cross_sums,
    forward,
    inverse,
    mask_transform,
    random_phases,
    shell_means,
)

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["postprocess"]

_POOR_FIT = 0.5
_FIT_NEEDS = 10.0
_CHANCE = 3  # shells
_STEEPEST = -2000.0  # Å^2


def postprocess(
    half1: Any,
    half2: Any = None,
    mask: Any = None,
    pixel_size: float | None = None,
    auto_b_factor: bool = True,
    b_factor: float | None = None,
    b_factor_lowres: float = 10.0,
    b_factor_highres: float | None = None,
    mtf: Any = None,
    mtf_pixel_size: float | None = None,
    fsc_weighting: bool = True,
    lowpass: float | None = None,
    molecular_weight: float | None = None,
    seed: int = 0,
    compat: str | None = None,
    *,
    randomise_at_fsc: float = 0.8,
    randomise_from: float | None = None,
    force_mask: bool = False,
    progress: bool | Callable[[int, int], object] = True,
) -> PostprocessResult:
    """Measure the resolution of two half-maps and sharpen their average.

    Parameters
    ----------
    half1 : path, DataArray or array
        Unfiltered half-map.
    half2 : path, DataArray or array, optional
        The other; for a file found by its name (``half1`` becomes ``half2``).
    mask : path, DataArray or array, optional
        Soft mask, 0 to 1.
    pixel_size : float, Å, optional
        Calibrated pixel size; overrides the headers in everything, the mask's too.
    auto_b_factor : bool
        Fit the B-factor in the Guinier plot; a given ``b_factor`` switches it off.
    b_factor : float, Å^2, optional
        Negative sharpens.
    b_factor_lowres, b_factor_highres : float, Å
        Range of the fit.
    mtf : path or pair of arrays, optional
        The detector's curve.
    mtf_pixel_size : float, Å, optional
        Physical pixel of the detector on the specimen; the map's by default.
    fsc_weighting : bool
        Multiply by ``sqrt(2 FSC / (1 + FSC))``.
    lowpass : float, Å, optional
    molecular_weight : float, kDa, optional
        Adds the FSC that a particle of that weight alone would have.
    seed : int
        Of the random phases.
    compat : {None, "relion"}
        ``"relion"`` reads the MTF between its points as RELION does.
    randomise_at_fsc : float
        Phases are randomised from the first shell on whose unmasked FSC is below.
    randomise_from : float, Å, optional
        Instead of it.
    force_mask : bool
        Keep the corrected curve even when the unmasked one reaches further.
    progress : bool or callable
        A bar (after a second), or a function of (done, total), which may raise to cancel.

    Returns
    -------
    PostprocessResult

    Raises
    ------
    DataError, MissingFileError, SettingsError
        For maps or masks that do not fit, identical half-maps, an MTF that is none.

    Warns
    -----
    DataWarning
        For a mask that is too tight, a poor Guinier fit, an automatic B-factor beyond its range, half-maps that look filtered or
        masked or do not correlate.

    Notes
    -----
    Rosenthal & Henderson 2003, J. Mol. Biol. 333, 721; Chen et al. 2013, Ultramicroscopy 135, 24. RELION's program is
    ``relion_postprocess``.
    """
    settings = {k: v for k, v in locals().items() if k not in ("half1", "half2", "mask", "mtf", "progress")}
    _check_settings(settings, mtf)
    detector = None if mtf is None else gains.mtf_curve(mtf)
    # passes over a volume, counted in cryotk.maps.transform
    with Steps(progress, 14 if mask is None else 35, "post-process"):
        notes: list[str] = []
        h1, h2 = open_half_maps(half1, half2, pixel_size)
        pulse(2)
        source2 = half2 if half2 is not None else h2.attrs["source"]
        n, a = require_cube(h1, "half1"), float(pixel_size_of(h1) or 1)
        mask_map, fraction = None, None
        if mask is not None:
            mask_map = open_like(mask, "mask", h1, pixel_size)
            fraction = check_mask(mask_map, h1)
            pulse(1)
            if fraction is not None and fraction >= 1:
                notes.append("the mask is one everywhere")
        measured = _Measured(h1, h2, None if mask_map is None else values_of(mask_map))
        template = as_volume(np.zeros((1, 1, 1), np.float32), a, str(h1.attrs.get("source", "")))
        template.attrs = {**h1.attrs, **template.attrs}
        # the half-maps' memory is not needed any more when they came from files
        sources = (half1 if _is_path(half1) else h1, source2 if _is_path(source2) else h2)
        del h1, h2
        found = measured.curves(n, a, randomise_at_fsc, randomise_from, seed, notes)
        resolution = _choose(found, n, a, force_mask, notes)
        if _uncorrelated(resolution, n, a):
            note(
                notes, f"the half-maps do not correlate at all{_but_for(resolution)}: are they of one refinement, one hand, one "
                "contrast? There is no resolution, and the map of them means nothing",
            )  # fmt: skip
        extra: dict[str, Any] = {}
        if fraction is not None:
            extra.update(
                box_fraction_mask=curves.fraction_of_solvent_removed(fraction),
                weight_in_mask=curves.protein_weight_in_mask(fraction, n, a),
            )
            found["particle_fraction_mask"] = curves.particle_fsc(found["unmasked"], extra["box_fraction_mask"])
        if molecular_weight:
            extra.update(
                molecular_weight=float(molecular_weight), box_fraction_weight=curves.weight_fraction(molecular_weight, n, a)
            )
            found["particle_fraction_weight"] = curves.particle_fsc(found["unmasked"], extra["box_fraction_weight"])
        shell = measured.shell
        fsc = fsc_dataset(
            found, n, a, resolution=resolution, resolution_interpolated=curves.interpolated_resolution(found["corrected"], n, a)
        )

        transform = measured.average()
        by_radius = amplitudes_by_radius(transform)
        mtf_table = None if detector is None else gains.mtf_gain(n, a, detector, mtf_pixel_size, compat)
        weights = curves.fsc_weights(found["corrected"])
        spectrum = Spectrum(transform, by_radius, mtf_table, weights)
        guinier, fit = _guinier(
            spectrum, n, a, fsc_weighting, b_factor_lowres, b_factor_highres, auto_b_factor and b_factor is None
        )
        b = b_factor if b_factor is not None else (fit.b_factor if fit else 0.0)
        if _uncorrelated(resolution, n, a):
            pass  # nothing can be said of a fit
        elif fit is not None:
            _judge_fit(fit, resolution, b_factor_lowres, notes)
        elif b > 0:
            note(notes, f"a B-factor of {b:g} Å² is positive: it damps high resolution; negative values sharpen")
        out = PostprocessResult(
            resolution=resolution,
            b_factor=float(b),
            fsc=fsc,
            guinier=guinier,
            pixel_size=a,
            box_size=n,
            mask=mask_map,
            half1=sources[0],
            half2=sources[1],
            mask_source=mask if _is_path(mask) else mask_map,
            fitted=fit is not None and fit.n_points > 1,
            warnings=notes,
            settings=settings,
            randomise_from=n * a / shell if shell else None,
            _spectrum=spectrum,
            **extra,
        )
        gain = out._gain(spectrum, b, lowpass, fsc_weighting)
        guinier["sharpened"].values[:] = log_amplitudes(shell_means(by_radius, n, gain))[: guinier.sizes["shell"]]
        data = inverse(apply_gain(transform, gain), n, overwrite=True)
        out.volume = map_of(data, template, a, history=f"post-processed, B={b:.1f} Å^2, {resolution:.2f} Å")
        return out


def _is_path(x: Any) -> bool:
    return isinstance(x, (str, os.PathLike))


def _check_settings(s: dict[str, Any], mtf: Any) -> None:
    if s["compat"] not in (None, "relion"):
        raise SettingsError(f"compat must be None or 'relion', not {s['compat']!r}")
    units = {"molecular_weight": "kDa"}
    for name in ("b_factor_lowres", "b_factor_highres", "lowpass", "mtf_pixel_size", "molecular_weight", "randomise_from"):
        if s[name] is not None:
            require_number(name, s[name], units.get(name, "Å"), positive=True)
    if s["b_factor"] is not None:
        require_number("b_factor", s["b_factor"], "Å^2")
    require_number("randomise_at_fsc", s["randomise_at_fsc"])
    require_seed(s["seed"])
    if s["b_factor_highres"] and s["b_factor_highres"] >= s["b_factor_lowres"]:
        raise SettingsError(
            f"b_factor_highres ({s['b_factor_highres']} Å) must be finer than b_factor_lowres ({s['b_factor_lowres']} Å)"
        )
    if s["mtf_pixel_size"] is not None and mtf is None:
        raise SettingsError("mtf_pixel_size says nothing without mtf=; give the detector's curve too")
    if not 0 < s["randomise_at_fsc"] < 1:
        raise SettingsError(f"randomise_at_fsc must be between 0 and 1, not {s['randomise_at_fsc']}")


class _Measured:
    """Transforms of the half-maps; as little at once as the curves allow (at most five volumes)."""

    def __init__(self, h1: xr.DataArray, h2: xr.DataArray, mask: Any) -> None:
        self.mask, self.shell = mask, 0
        self.masked_sums = None
        self.names = names_of(h1, h2)
        x1, x2 = values_of(h1), values_of(h2)
        self.voxels: Any = (x1, x2)
        if mask is not None:
            self.masked_sums = cross_sums(forward(x1, mask), forward(x2, mask))
        self.f1, self.f2 = forward(x1), forward(x2)

    def curves(self, n: int, a: float, at_fsc: float, from_: float | None, seed: int, notes: list[str]) -> dict[str, np.ndarray]:
        sums = cross_sums(self.f1, self.f2)
        unmasked = curves.fsc_from_sums(sums)
        judge_half_maps(self.names, self.voxels, sums, n, a, notes)
        self.voxels = None
        found = {"corrected": unmasked, "unmasked": unmasked.copy()}
        total = self.f1 + self.f2
        if self.mask is not None and self.masked_sums is not None:
            masked = curves.fsc_from_sums(self.masked_sums)
            shell = int(n * a / from_) if from_ else curves.randomisation_shell(unmasked, at_fsc)
            if not shell or shell > n // 2:
                raise DataError(
                    f"the unmasked FSC of {self.names[0]} and {self.names[1]} never falls below {at_fsc:g} (lowest "
                    f"{unmasked[1:].min():.3f}), "
                    "so there is nothing to randomise: are these really independent half-maps, unfiltered and "
                    "unmasked? Otherwise give randomise_from= in Å"
                )
            self.shell = shell
            f1 = mask_transform(random_phases(self.f1, shell, seed, 1, overwrite=True), self.mask)
            f2 = mask_transform(random_phases(self.f2, shell, seed, 2, overwrite=True), self.mask)
            randomised = curves.fsc_from_sums(cross_sums(f1, f2))
            for c in (masked, randomised):
                c[0] = 1.0 if c[0] <= 0 else c[0]
            found.update(corrected=curves.correct_for_mask(masked, randomised, shell), masked=masked, randomised=randomised)
        for c in (found["corrected"], found["unmasked"]):
            c[0] = 1.0 if c[0] <= 0 else c[0]
        del self.f1, self.f2
        self._total = total
        return {k: found[k] for k in ("corrected", "unmasked", "masked", "randomised") if k in found}

    def average(self) -> Any:
        total, self._total = self._total, None
        total *= 0.5
        return total


def _uncorrelated(resolution: float, n: int, a: float) -> bool:
    """Whether only shells agree that have a few coefficients, which chance does too."""
    return resolution > n * a / _CHANCE


def _but_for(resolution: float) -> str:
    return f" but for what is coarser than {resolution:.0f} Å" if np.isfinite(resolution) else ""


def _choose(found: dict[str, np.ndarray], n: int, a: float, force_mask: bool, notes: list[str]) -> float:
    """Resolution, after what the curves say about the mask."""
    last, last_unmasked = curves.last_shell_above(found["corrected"]), curves.last_shell_above(found["unmasked"])
    if "masked" not in found:
        return curves.resolution_of_shell(last, n, a)
    if last_unmasked > last and not force_mask:
        note(
            notes, f"the unmasked FSC reaches further ({curves.resolution_of_shell(last_unmasked, n, a):.2f} Å) "
            "than the one corrected for the "
            f"mask ({curves.resolution_of_shell(last, n, a):.2f} Å): the mask is probably too tight or cuts "
            "the particle; the unmasked curve is taken. "
            "Make a wider, softer mask, or keep the corrected curve with force_mask=True",
        )  # fmt: skip
        found["corrected"] = found["unmasked"].copy()
        return curves.resolution_of_shell(last_unmasked, n, a)
    left = found["randomised"][last]
    if left > 0.1 and last > 0:
        note(
            notes, f"with random phases the masked maps still correlate by {left:.2f} at "
            f"{curves.resolution_of_shell(last, n, a):.2f} Å: "
            "the mask is too tight or too sharp; make it softer (soft_edge_px) or wider (extend_px)",
        )  # fmt: skip
    return curves.resolution_of_shell(last, n, a)


def _guinier(s: Spectrum, n: int, a: float, weighted: bool, lowest: float, highest: float | None, fit_it: bool) -> Any:
    n_points = int(np.count_nonzero(np.arange(n // 2 + 1) * 2 <= n))
    x = (np.arange(n_points) / (n * a)) ** 2

    def points(gain: np.ndarray | None) -> np.ndarray:
        return log_amplitudes(shell_means(s.by_radius, n, gain))[:n_points]

    lines = {"original": points(None)}
    gain = np.ones_like(s.by_radius)
    if s.mtf is not None:
        gain = s.mtf
        lines["mtf"] = points(gain)
    if weighted:
        gain = gain * gains.weight_gain(n, s.weights)
    lines["weighted"] = points(gain)
    lines["sharpened"] = lines["weighted"].copy()
    attrs: dict[str, Any] = {}
    fit = None
    if fit_it:
        fit = curves.fit_guinier(x, lines["weighted"], lowest, highest)
    if fit is not None and fit.n_points > 1:
        lines["intercept"] = np.full(n_points, fit.intercept)
        used = 1 / np.sqrt(x[curves.guinier_range(x, lines["weighted"], lowest, highest)])
        attrs = {
            "slope": fit.slope, "intercept": fit.intercept, "correlation": fit.correlation, "n_points": fit.n_points,
            "fit_lowres": float(lowest), "fit_highres": float(highest or 0.0),
            "fit_from": float(used.max()), "fit_to": float(used.min()),
        }  # fmt: skip
    return guinier_dataset(x, lines, **attrs), fit


def _judge_fit(fit: curves.GuinierFit, resolution: float, lowest: float, notes: list[str]) -> None:
    if resolution > _FIT_NEEDS:
        note(
            notes, f"the map reaches {resolution:.1f} Å: an automatic B-factor does not work at worse than 10 Å, "
            "where amplitudes follow the "
            f"particle's shape (the fit gave {fit.b_factor:.0f} Å² from {fit.n_points} points). Give "
            "b_factor= by hand instead, for example -100 to "
            "-1000 Å², and look at the map",
        )  # fmt: skip
    elif fit.n_points < 3:
        note(
            notes,
            f"only {fit.n_points} points lie between {lowest:g} Å and the end of the signal: no B-factor can "
            "be fitted; give b_factor=",
        )
    elif fit.b_factor < _STEEPEST:
        note(
            notes, f"the fitted B-factor of {fit.b_factor:.0f} Å² is steeper than that of any map: are the half-maps filtered, the "
            "pixel size wrong? Give b_factor= by hand",
        )  # fmt: skip
    elif fit.correlation < _POOR_FIT:
        note(
            notes, f"the Guinier fit is poor (correlation {fit.correlation:.2f} over {fit.n_points} points): the "
            f"B-factor of {fit.b_factor:.0f} Å² "
            "says little; look at .guinier, fit another range with b_factor_lowres/b_factor_highres, or give b_factor= by hand",
        )  # fmt: skip
    elif fit.b_factor > 0:
        note(notes, f"the fitted B-factor is positive ({fit.b_factor:.0f} Å²): it damps high resolution; give b_factor= by hand")
