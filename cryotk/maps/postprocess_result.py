"""What a post-process gives: numbers, curves, maps; saved as RELION's files and read from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.errors import DataError
from cryotk.maps import gains
from cryotk.maps.curves import fsc_weights
from cryotk.maps.inputs import map_of
from cryotk.maps.report import plot_with, table_html, table_text
from cryotk.maps.transform import apply_gain, inverse, shell_means

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PostprocessResult", "fsc_dataset", "guinier_dataset"]

FSC_LABELS = {
    "corrected": "rlnFourierShellCorrelationCorrected",
    "particle_fraction_mask": "rlnFourierShellCorrelationParticleMaskFraction",
    "particle_fraction_weight": "rlnFourierShellCorrelationParticleMolWeight",
    "unmasked": "rlnFourierShellCorrelationUnmaskedMaps",
    "masked": "rlnFourierShellCorrelationMaskedMaps",
    "randomised": "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
}
"""Variables of ``.fsc`` and RELION's columns, in its order."""

GUINIER_LABELS = {
    "original": "rlnLogAmplitudesOriginal",
    "mtf": "rlnLogAmplitudesMTFCorrected",
    "weighted": "rlnLogAmplitudesWeighted",
    "sharpened": "rlnLogAmplitudesSharpened",
    "intercept": "rlnLogAmplitudesIntercept",
}
"""Variables of ``.guinier`` and RELION's columns, in its order."""


def fsc_dataset(curves: dict[str, np.ndarray], box: int, pixel_size: float, **attrs: Any) -> xr.Dataset:
    """Curves over ``shell`` with coordinates ``frequency`` (1/Å) and ``resolution`` (Å, infinite for shell 0)."""
    import xarray as xr

    n = len(next(iter(curves.values())))
    shell = np.arange(n)
    with np.errstate(divide="ignore"):
        resolution = np.where(shell > 0, box * pixel_size / np.where(shell > 0, shell, 1), np.inf)
    return xr.Dataset(
        {k: ("shell", np.asarray(v, float), {"relion_label": FSC_LABELS[k]} if k in FSC_LABELS else {}) for k, v in curves.items()},
        coords={
            "shell": shell,
            "frequency": ("shell", shell / (box * pixel_size), {"units": "1/Å", "relion_label": "rlnResolution"}),
            "resolution": ("shell", resolution, {"units": "Å", "relion_label": "rlnAngstromResolution"}),
        },
        attrs={"pixel_size": float(pixel_size), "box_size": int(box), **attrs},
    )


def guinier_dataset(x: np.ndarray, curves: dict[str, np.ndarray], **attrs: Any) -> xr.Dataset:
    """Logarithms of mean amplitudes over ``shell``; NaN where a shell is empty."""
    import xarray as xr

    return xr.Dataset(
        {k: ("shell", np.asarray(v, float), {"relion_label": GUINIER_LABELS[k]}) for k, v in curves.items()},
        coords={
            "shell": np.arange(len(x)),
            "inverse_resolution_squared": (
                "shell",
                np.asarray(x, float),
                {"units": "1/Å^2", "relion_label": "rlnResolutionSquared"},
            ),
        },
        attrs=attrs,
    )


@dataclass(frozen=True)
class Spectrum:
    """What sharpening anew needs: the unsharpened average's transform and its amplitudes per ``k^2``."""

    transform: Any
    by_radius: np.ndarray
    mtf: np.ndarray | None
    weights: np.ndarray


@dataclass(repr=False)
class PostprocessResult:
    """Result of :func:`cryotk.postprocess`, or of RELION's read by :func:`cryotk.open_postprocess`.

    Nothing is computed by looking at it.
    """

    resolution: float
    """Å, where the corrected FSC (without a mask: the unmasked one) falls below 0.143; the last shell before, infinite if none."""
    b_factor: float
    """Å^2 of the sharpening; negative sharpens."""
    fsc: xr.Dataset
    """Over ``shell``: ``corrected, unmasked, masked, randomised`` and, where known,
    ``particle_fraction_mask``, ``particle_fraction_weight``."""
    guinier: xr.Dataset
    """Over ``shell``: ``original, mtf, weighted, sharpened, intercept`` (``guinier["weighted"]``: xarray has a method of that
    name); attrs ``slope, intercept, correlation`` of the fit and, where it was made here, ``fit_from, fit_to``, the coarsest
    and finest resolution (Å) of its points."""
    pixel_size: float
    """Å."""
    box_size: int
    volume: xr.DataArray | None = None
    """Sharpened, unmasked average; None when a result was read whose map is not there."""
    mask: xr.DataArray | None = None
    """On the grid of ``volume``, whatever its file says, so that both can be multiplied."""
    half1: Any = None
    """Path or map of the first half."""
    half2: Any = None
    mask_source: Any = None
    """Path or map of the mask."""
    randomise_from: float | None = None
    """Å from which phases were randomised."""
    molecular_weight: float | None = None
    """kDa."""
    box_fraction_mask: float | None = None
    """RELION's ``rlnParticleBoxFractionSolventMask``."""
    box_fraction_weight: float | None = None
    weight_in_mask: float | None = None
    """kDa of protein that would fill the mask."""
    fitted: bool = False
    """Whether the B-factor was fitted."""
    warnings: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    """File it was read from."""
    _spectrum: Spectrum | None = None

    @property
    def masked(self) -> xr.DataArray | None:
        """``volume`` times the mask; None without either."""
        if self.volume is None or self.mask is None:
            return None
        return map_of(self.volume.data * self.mask.data, self.volume, history="masked")

    def sharpened(
        self, b_factor: float | None = None, lowpass: float | None = None, fsc_weighting: bool | None = None
    ) -> xr.DataArray:
        """Sharpen anew with another B-factor or low-pass; one inverse transform.

        Parameters
        ----------
        b_factor : float, Å^2, optional
            The result's by default.
        lowpass : float, Å, optional
            That of the run by default; 0 for none.
        fsc_weighting : bool, optional
            As in the run by default.

        Raises
        ------
        DataError
            For a result that was read from a file: run :func:`cryotk.postprocess` on its half-maps.
        """
        s = self._need_spectrum()
        b = self.b_factor if b_factor is None else b_factor
        lowpass, fsc_weighting = self._as_run(lowpass, fsc_weighting)
        data = inverse(apply_gain(s.transform, self._gain(s, b, lowpass, fsc_weighting)), self.box_size, overwrite=True)
        assert self.volume is not None
        return map_of(data, self.volume, history=f"sharpened B={b:g} Å^2" + (f", low-pass {lowpass:g} Å" if lowpass else ""))

    def sharpened_amplitudes(
        self, b_factor: float, lowpass: float | None = None, fsc_weighting: bool | None = None
    ) -> np.ndarray:
        """Guinier points that :meth:`sharpened` would have; no transform is made, so a slider can follow."""
        s = self._need_spectrum()
        lowpass, fsc_weighting = self._as_run(lowpass, fsc_weighting)
        means = shell_means(s.by_radius, self.box_size, self._gain(s, b_factor, lowpass, fsc_weighting))
        return log_amplitudes(means[: self.guinier.sizes["shell"]])

    def _as_run(self, lowpass: float | None, fsc_weighting: bool | None) -> tuple[float | None, bool]:
        """What was given, or else what the run had."""
        if lowpass is None:
            lowpass = self.settings.get("lowpass")
        return lowpass or None, self.settings.get("fsc_weighting", True) if fsc_weighting is None else fsc_weighting

    def _gain(self, s: Spectrum, b_factor: float, lowpass: float | None, fsc_weighting: bool) -> np.ndarray:
        n, a = self.box_size, self.pixel_size
        gain = np.ones_like(s.by_radius) if s.mtf is None else s.mtf.copy()
        if fsc_weighting:
            gain *= gains.weight_gain(n, fsc_weights(self.fsc["corrected"].values))
        if b_factor:
            gain *= gains.b_factor_gain(n, a, b_factor)
        if lowpass:
            gain *= gains.lowpass_gain(n, a, lowpass)
        return gain

    def _need_spectrum(self) -> Spectrum:
        if self._spectrum is None:
            raise DataError("a result that was read from files cannot be sharpened anew; run ctk.postprocess on its half-maps")
        return self._spectrum

    def save(self, directory: Any, root: str = "postprocess") -> Path:
        """Write RELION's files: ``postprocess.star``, ``.mrc``, ``_masked.mrc``, ``_fsc.dat``, ``_fsc.xml``.

        Half-maps and masks that came from memory are written beside them, because CTF refinement and polishing read them.

        Returns
        -------
        Path
            The STAR file.
        """
        from cryotk.maps.postprocess_files import write_postprocess

        return write_postprocess(self, Path(directory), root)

    def plot(self, **kwargs: Any) -> Any:
        """Curves and Guinier plot as a figure (needs the lab extra)."""
        return plot_with("postprocess", self, **kwargs)

    def _rows(self) -> dict[str, str]:
        fit = self.guinier.attrs
        rows = {
            "resolution": f"{self.resolution:.2f} Å (FSC 0.143)" if np.isfinite(self.resolution) else "none (FSC below 0.143)",
            "B-factor": f"{self.b_factor:.1f} Å²" + (" (fitted)" if self.fitted else ""),
        }
        if "correlation" in fit:
            rows["Guinier fit"] = (
                f"slope {fit['slope']:.1f} Å², intercept {fit['intercept']:.2f}, correlation {fit['correlation']:.3f}"
            )
        if self.randomise_from:
            rows["phases randomised from"] = f"{self.randomise_from:.1f} Å"
        if self.weight_in_mask:
            rows["protein that would fill the mask"] = f"{self.weight_in_mask:.0f} kDa"
        rows["map"] = f"{self.box_size}³, {self.pixel_size:.4g} Å" + (f", from {self.source}" if self.source else "")
        rows.update({f"warning {i}": w for i, w in enumerate(self.warnings, 1)})
        return rows

    def __repr__(self) -> str:
        return table_text("PostprocessResult", self._rows())

    def _repr_html_(self) -> str:
        return table_html("Post-process", self._rows())


def log_amplitudes(means: np.ndarray) -> np.ndarray:
    """Logarithms; NaN for empty shells."""
    return np.where(means > 0, np.log(np.where(means > 0, means, 1.0)), np.nan)
