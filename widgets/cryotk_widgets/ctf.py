"""What the contrast transfer function does to a particle: sliders that answer without the kernel."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import scipy.fft
import traitlets

from cryotk.errors import DataError
from cryotk.optics import OpticsGroup, ctf, odd_phase, wavelength

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CtfExplorer"]

_STATIC = Path(__file__).parent / "static"
_BOX, _PIXEL = 128, 1.75


def _default_object() -> tuple[np.ndarray, float]:
    """Projection of the simulated tetramer, oblique, so that no symmetry hides what an aberration does."""
    from cryotk import simulate
    from cryotk.geometry import euler_to_matrix

    m = simulate.molecule()
    turned = simulate.Molecule(m.positions @ euler_to_matrix(25.0, 65.0, 20.0).T, m.weights)
    return simulate.volume(turned, _BOX, _PIXEL).values.sum(0), _PIXEL


class CtfExplorer(anywidget.AnyWidget):
    """CTF curve and image, and their effect on a particle, its power spectrum and its point spread, under sliders.

    Everything is computed in the page, so the sliders work in a busy kernel and in an exported page. The sliders' values are
    attributes here: set one, and the page follows; move one, and it is here.

    Parameters
    ----------
    image : (n, n) array, optional
        Noise-free object on a box of a power of two; by default a projection of the simulated tetramer.
    pixel_size : float, optional
        Å; needed with ``image``.
    **parameters
        Start values: ``defocus`` [Å], ``astigmatism`` [Å] (defocus U minus V), ``defocus_angle`` [degrees], ``phase_shift``
        [degrees], ``b_factor`` [Å^2], ``spherical_aberration`` [mm], ``amplitude_contrast``, ``voltage`` [kV], ``fourfold``
        (even Zernike coefficient 8, n = 4, m = 4), ``beam_tilt_x`` [mrad],
        ``box_length`` [Å] (the box that is cut out), ``noise`` (in standard deviations of the image),
        ``correction`` (none, flip, multiply, wiener), ``theme`` (auto, light, dark).

    Raises
    ------
    DataError
        For an image that is not square of a power of two, or without pixel size.

    Examples
    --------
    >>> explorer = CtfExplorer(defocus=15000.0)
    >>> explorer.defocus = 20000.0
    >>> round(explorer.signal_lost(), 2) < 0.2
    True
    """

    _esm = _STATIC / "ctf.js"
    _css = (_STATIC / "tokens.css").read_text() + (_STATIC / "ctf.css").read_text()

    object_pixels = traitlets.Bytes(b"").tag(sync=True)
    box = traitlets.Int(_BOX).tag(sync=True)
    pixel_size = traitlets.Float(_PIXEL).tag(sync=True)
    defocus = traitlets.Float(12000.0).tag(sync=True)
    astigmatism = traitlets.Float(0.0, min=0.0).tag(sync=True)
    defocus_angle = traitlets.Float(0.0).tag(sync=True)
    phase_shift = traitlets.Float(0.0).tag(sync=True)
    b_factor = traitlets.Float(0.0).tag(sync=True)
    spherical_aberration = traitlets.Float(2.7).tag(sync=True)
    amplitude_contrast = traitlets.Float(0.1, min=0.0, max=0.99).tag(sync=True)
    voltage = traitlets.Float(300.0, min=1.0).tag(sync=True)
    fourfold = traitlets.Float(0.0).tag(sync=True)
    beam_tilt_x = traitlets.Float(0.0).tag(sync=True)
    box_length = traitlets.Float(_BOX * _PIXEL, min=1.0).tag(sync=True)
    noise = traitlets.Float(0.0, min=0.0).tag(sync=True)
    correction = traitlets.Enum(["none", "flip", "multiply", "wiener"], "none").tag(sync=True)
    theme = traitlets.Enum(["auto", "light", "dark"], "auto").tag(sync=True)

    def __init__(self, image: Any = None, pixel_size: float | None = None, **parameters: Any) -> None:
        if image is None:
            image, pixel_size = _default_object()
        self._object = np.ascontiguousarray(image, np.float32)
        n = self._object.shape[-1]
        if self._object.shape != (n, n) or n < 16 or n & (n - 1):
            raise DataError(f"image must be a square of 16, 32, 64, 128 ... pixels, not {self._object.shape}")
        if pixel_size is None:
            raise DataError("pixel_size (Å) is needed with an image")
        parameters.setdefault("box_length", n * float(pixel_size))
        super().__init__(object_pixels=self._object.tobytes(), box=n, pixel_size=float(pixel_size), **parameters)

    @classmethod
    def of_particle(cls, particles: xr.Dataset, index: int, **parameters: Any) -> CtfExplorer:
        """Start from the CTF of one particle of a set.

        Raises
        ------
        DataError
            When the set has no CTF columns.
        """
        from cryotk.data import optics_groups

        missing = [c for c in ("defocus_u", "defocus_v", "defocus_angle") if c not in particles]
        if missing:
            raise DataError(f"the particle set has no {', '.join(missing)}")
        row = particles.isel(particle=index)
        g = optics_groups(particles)[int(row["optics_group"])]
        u, v = float(row["defocus_u"]), float(row["defocus_v"])
        angle = float(row["defocus_angle"]) + (90.0 if v > u else 0.0)
        start = {
            "defocus": (u + v) / 2, "astigmatism": abs(u - v), "defocus_angle": angle % 180,
            "phase_shift": float(row["phase_shift"]) if "phase_shift" in row else 0.0,
            "b_factor": float(row["ctf_b_factor"]) if "ctf_b_factor" in row else 0.0,
            "spherical_aberration": g.spherical_aberration, "amplitude_contrast": g.amplitude_contrast,
            "voltage": g.voltage, "beam_tilt_x": g.beam_tilt[0],
        }  # fmt: skip
        return cls(**(start | parameters))

    @property
    def optics(self) -> OpticsGroup:
        """What the sliders say, as an optics group."""
        even = (0.0,) * 8 + (self.fourfold,) if self.fourfold else ()
        return OpticsGroup(
            self.pixel_size, self.voltage, self.spherical_aberration, self.amplitude_contrast, self.box,
            beam_tilt=(self.beam_tilt_x, 0.0), even_zernike=even,
        )  # fmt: skip

    def ctf(self, frequencies: np.ndarray) -> np.ndarray:
        """CTF at (P, 2) frequencies x, y in 1/Å, with the envelope: (P,)."""
        half = self.astigmatism / 2
        return ctf(
            self.optics, frequencies, self.defocus + half, self.defocus - half, self.defocus_angle, self.phase_shift,
            self.b_factor,
        )[0]  # fmt: skip

    def _field(self) -> tuple[np.ndarray, np.ndarray]:
        """Image and transfer function on the doubled field, centre at element 0."""
        n, field = self.box, 2 * self.box
        y, x = np.meshgrid(
            np.fft.fftfreq(field, self.pixel_size), np.fft.rfftfreq(field, self.pixel_size), indexing="ij"
        )
        f = np.stack([x.ravel(), y.ravel()], -1)
        transfer = (self.ctf(f) * np.exp(1j * odd_phase(self.optics, f))).reshape(x.shape)
        padded = np.zeros((field, field))
        at = np.arange(n) - n // 2
        padded[at[:, None], at] = self._object
        return scipy.fft.irfft2(scipy.fft.rfft2(padded) * transfer, s=padded.shape), transfer

    def image(self) -> np.ndarray:
        """Noise-free image in the box, (n, n), uncorrected."""
        at = np.arange(self.box) - self.box // 2
        return self._field()[0][at[:, None], at]

    def signal_lost(self, finer_than: float | None = None) -> float:
        """Share of the image's signal that falls outside the box of ``box_length``.

        Parameters
        ----------
        finer_than : float, optional
            Å; only the signal of higher resolution is judged.
        """
        whole, _ = self._field()
        if finer_than is not None:
            y, x = np.meshgrid(*[np.fft.fftfreq(len(whole), self.pixel_size)] * 2, indexing="ij")
            k2 = x * x + y * y
            band = (k2 > 1 / finer_than**2) & (k2 < (0.5 / self.pixel_size) ** 2)
            whole = scipy.fft.ifft2(scipy.fft.fft2(whole) * band).real
        half = min(self.box // 2, int(np.floor(self.box_length / self.pixel_size / 2 + 0.5)))
        at = np.arange(-half, half)
        centred = whole - whole.mean()
        return float(1 - (centred[at[:, None], at] ** 2).sum() / (centred**2).sum())

    def delocalisation(self, resolution: float) -> float:
        """Distance in Å by which the signal at a resolution in Å is carried away: ``|lambda dF k - Cs lambda^3 k^3|``."""
        lam, k = wavelength(self.voltage), 1 / resolution
        return float(abs(lam * self.defocus * k - self.spherical_aberration * 1e7 * lam**3 * k**3))

    def figure(self) -> Any:
        """Return a matplotlib figure of what the page shows (without noise and correction)."""
        from matplotlib.figure import Figure

        fig = Figure(figsize=(9, 4.6), dpi=80, layout="constrained")
        axes = fig.subplot_mosaic(
            [["curve"] * 5, ["object", "image", "ctf", "power", "spread"]], height_ratios=(1.1, 1)
        )
        nyquist = 0.5 / self.pixel_size
        k = np.linspace(0, nyquist, 800)
        angle = np.radians(self.defocus_angle)
        for turn, colour, label in ((0.0, "#0072b2", "along defocus U"), (np.pi / 2, "#e69f00", "along defocus V")):
            if turn == 0 or self.astigmatism or self.fourfold:
                f = np.stack([k * np.cos(angle + turn), k * np.sin(angle + turn)], -1)
                axes["curve"].plot(k, self.ctf(f), color=colour, lw=1.2, label=label)
        axes["curve"].set(xlim=(0, nyquist), ylim=(-1.05, 1.05), xlabel="spatial frequency (1/Å)", ylabel="CTF")
        axes["curve"].axhline(0, color="0.7", lw=0.6)
        axes["curve"].legend(loc="lower right", fontsize=7, frameon=False)
        whole, transfer = self._field()
        at = np.arange(self.box) - self.box // 2
        image = whole[at[:, None], at]
        f = np.fft.fftshift(np.fft.fftfreq(self.box, self.pixel_size))
        grid = np.stack([g.ravel() for g in np.meshgrid(f, f)], -1)
        spread = scipy.fft.fftshift(scipy.fft.irfft2(transfer, s=whole.shape))
        power = np.log10(np.abs(np.fft.fftshift(np.fft.fft2(image))) ** 2 + 1e-12)
        pictures = {
            "object": self._object, "image": image, "ctf": self.ctf(grid).reshape(self.box, self.box), "power": power,
            "spread": np.sqrt(np.abs(spread)),
        }  # fmt: skip
        titles = {"ctf": "CTF", "power": "power spectrum", "spread": "point spread"}
        for name, picture in pictures.items():
            low, high = (-1, 1) if name == "ctf" else np.percentile(picture, [0.5 if name != "power" else 5, 99.8])
            axes[name].imshow(picture, cmap="gray", vmin=low, vmax=high)
            axes[name].set_title(titles.get(name, name), fontsize=8)
            axes[name].set_axis_off()
        return fig

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Widget for live pages, a picture for those that show none."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if not bundle:
            return bundle
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        try:
            out = io.BytesIO()
            self.figure().savefig(out, format="png")
        except ImportError:
            return data, metadata
        return {**data, "image/png": base64.b64encode(out.getvalue()).decode()}, metadata

    def __repr__(self) -> str:
        return (
            f"<CtfExplorer: defocus {self.defocus:.0f} Å, astigmatism {self.astigmatism:.0f} Å, phase shift "
            f"{self.phase_shift:.0f}°, B {self.b_factor:.0f} Å², Cs {self.spherical_aberration:g} mm, {self.voltage:.0f} kV>"
        )
