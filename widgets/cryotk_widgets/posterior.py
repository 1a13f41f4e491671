"""The posterior of one particle seen: what an expectation step sums over."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import traitlets

from cryotk.errors import CryotkError, DataError, SettingsError
from cryotk_widgets.directions import viridis
from cryotk_widgets.pictures import png_of
from cryotk_widgets.view_base import View, page_text

__all__ = ["PosteriorView"]

_MOST = 600


class PosteriorView(View):
    """Posterior over classes, viewing directions, in-plane angles and offsets.

    Parameters
    ----------
    source : job or Dataset
        A job, whose particles are walked through with the arrow keys, or what ``job.posterior(particle)`` gives.
    particle : int
        Row of the particle set, from 0, of a job.
    **traits
        ``theme``.

    Attributes
    ----------
    particle : int
        Set it to see another one.
    posterior : Dataset
        What is shown.

    Raises
    ------
    DataError
        For things that hold no posterior.

    Notes
    -----
    .. image:: ../figures/posterior_light.png

    Examples
    --------
    >>> PosteriorView(job, particle=17)  # doctest: +SKIP
    """

    _esm = page_text("gallery_core.js", "volume_core.js", "view_core.js", "charts.js", "posterior.js")
    _css = page_text("tokens.css", "views.css", "charts.css")

    classes: Any = traitlets.List().tag(sync=True)
    angles: Any = traitlets.List().tag(sync=True)
    angle_step = traitlets.Float(1.0).tag(sync=True)
    shifts: Any = traitlets.List().tag(sync=True)
    directions: Any = traitlets.List().tag(sync=True)
    reach = traitlets.Float(1.0).tag(sync=True)
    colours = traitlets.Bytes(b"").tag(sync=True)
    summary = traitlets.Unicode("").tag(sync=True)
    empty_text = traitlets.Unicode("").tag(sync=True)
    particle = traitlets.Int(0, min=0).tag(sync=True)
    n_particles = traitlets.Int(1).tag(sync=True)
    can_walk = traitlets.Bool(False).tag(sync=True)

    def __init__(self, source: Any, particle: int = 0, **traits: Any) -> None:
        self._job: Any = source if hasattr(source, "posterior") and hasattr(source, "iterate") else None
        self._wanted: int | None = None
        self.posterior: Any = None
        if self._job is None and not (hasattr(source, "data_vars") and "weight" in source):
            raise DataError(f"PosteriorView shows a job or what job.posterior(particle) gives, not {type(source).__name__}")
        super().__init__(colours=viridis().tobytes(), **traits)
        if self._job is None:
            self._draw(source)
            self.particle = int(source.attrs.get("particle", 0))
            return
        self.can_walk, self.n_particles = True, int(self._job.particles.sizes["particle"])
        self.empty_text = "No iteration yet: call job.iterate() first."
        if not 0 <= particle < self.n_particles:
            raise SettingsError(f"particle {particle} does not exist: rows are 0 to {self.n_particles - 1}")
        self.particle = particle
        self._read()
        self.observe(lambda _change: self._read(), "particle")

    def _read(self) -> None:
        """Ask the job for the posterior of ``particle``."""
        if not len(self._job.iterations):
            return
        try:
            self._draw(self._job.posterior(self.particle))
            self.notice = ""
        except CryotkError as error:
            self.posterior = None
            with self.hold_sync():
                self.shifts, self.notice = [], str(error)

    def _draw(self, p: Any) -> None:
        self.posterior = p
        w = np.asarray(p["weight"].values, float)
        w = w / w.sum() if w.sum() > 0 else w
        numbers = np.asarray(p["class_number"].values, int)
        k = int(p.attrs.get("n_classes", numbers.max() if len(numbers) else 1))
        psi = (np.asarray(p["angle_psi"].values, float) + 180) % 360 - 180
        angles = _summed(psi[:, None], w)
        shifts = _summed(np.stack([p["shift_x"].values, p["shift_y"].values], -1), w)
        poses = np.stack([p["angle_rot"].values, p["angle_tilt"].values], -1).astype(float)
        is_3d = bool(np.ptp(poses, axis=0).any() or poses.any()) if len(poses) else False
        directions = _summed(np.stack([(poses[:, 0] + 180) % 360 - 180, poses[:, 1]], -1), w) if is_3d else np.zeros((0, 3))
        steps = np.diff(np.unique(angles[:, 0]))
        with self.hold_sync():
            self.classes = np.bincount(numbers, w, minlength=k + 1)[1:].tolist()
            self.angles, self.shifts, self.directions = angles.tolist(), shifts.tolist(), directions.tolist()
            self.angle_step = float(np.median(steps)) if len(steps) else 3.0
            self.reach = float(max(4.0, 4.0 * np.ceil(1.1 * np.abs(shifts[:, :2]).max(initial=0.0) / 4)))
            parts = [f"P_max {p.attrs['p_max']:.2f}"] if "p_max" in p.attrs else []
            if "n_significant" in p.attrs:
                parts.append(f"{p.attrs['n_significant']} significant samples")
            parts.append(f"best: {self._best(p)}")
            self.summary = " · ".join(parts)

    @staticmethod
    def _best(p: Any) -> str:
        if not p.sizes["sample"]:
            return "none"
        b = p.isel(sample=int(np.argmax(p["weight"].values)))
        where = (
            f"rot {float(b.angle_rot):.1f}°, tilt {float(b.angle_tilt):.1f}°, " if float(b.angle_tilt) or float(b.angle_rot) else ""
        )
        return f"class {int(b.class_number)}, {where}ψ {float(b.angle_psi):.1f}°, x {float(b.shift_x):.1f} Å, y {float(b.shift_y):.1f} Å"

    def __repr__(self) -> str:
        return f"<PosteriorView: particle {self.particle}, {self.summary or self.empty_text}>"

    def _command(self, command: str, content: dict[str, Any]) -> None:
        if command == "particle" and self._job is not None:
            busy, self._wanted = self._wanted is not None, int(content["index"])
            if not busy:
                threading.Thread(target=self._walk, daemon=True).start()

    def _walk(self) -> None:
        """Go to the particle that was asked for last."""
        while True:
            wanted = self._wanted
            self.particle = int(np.clip(wanted or 0, 0, self.n_particles - 1))
            if self._wanted == wanted:
                self._wanted = None
                return

    def to_png(self) -> bytes:
        """Return bars of classes and in-plane angles as a PNG."""
        if self.posterior is None:
            return b""
        from PIL import Image, ImageDraw

        from cryotk_widgets.pictures import font_of_size

        sheet = Image.new("RGB", (560, 200), (255, 255, 255))
        draw = ImageDraw.Draw(sheet)
        top = max(max(self.classes), 1e-9)
        width = 220 / max(1, len(self.classes))
        for i, v in enumerate(self.classes):
            draw.rectangle((20 + i * width, 150 - 130 * v / top, 20 + (i + 0.8) * width, 150), fill=(0, 114, 178))
        tall = max(max((a[1] for a in self.angles), default=0.0), 1e-9)
        for angle, v in self.angles:
            x = 400 + angle / 180 * 130
            draw.line((x, 150 - 130 * v / tall, x, 150), fill=(230, 159, 0), width=2)
        draw.text((20, 156), f"class (highest {100 * top:.0f} %)", fill=(27, 27, 31), font=font_of_size(12))
        draw.text((270, 156), f"in-plane angle (highest {100 * tall:.0f} %)", fill=(27, 27, 31), font=font_of_size(12))
        draw.text((20, 176), self.summary, fill=(27, 27, 31), font=font_of_size(11))
        return png_of(sheet)


def _summed(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Distinct places with the sum of their weights in the last column; of many, the heaviest."""
    if not len(places):
        return np.zeros((0, places.shape[1] + 1))
    distinct, where = np.unique(np.asarray(places, float).round(3), axis=0, return_inverse=True)
    total = np.bincount(where.ravel(), weights, minlength=len(distinct))
    keep = np.argsort(-total, kind="stable")[:_MOST]
    return np.concatenate([distinct[keep], total[keep, None]], axis=1)
