"""Looking a particle set over before hours are spent on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cryotk.data.particles import image_names, image_source
from cryotk.data.source import StackSource
from cryotk.errors import CryotkError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Report", "check_images", "validate"]


@dataclass
class Report:
    """What was found: ``errors`` stop a job, ``warnings`` spoil its result."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    def __repr__(self) -> str:
        lines = [f"error: {e}" for e in self.errors] + [f"warning: {w}" for w in self.warnings]
        head = "all is well" if not lines else f"{len(self.errors)} errors, {len(self.warnings)} warnings"
        return "\n".join([f"<Report: {head} (checked {', '.join(self.checked)})>", *lines])

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(f"<li style='color:#c0392b'>{escape(e)}</li>" for e in self.errors)
        rows += "".join(f"<li style='color:#b9770e'>{escape(w)}</li>" for w in self.warnings)
        return f"<b>{escape(repr(self).splitlines()[0].strip('<>'))}</b><ul>{rows}</ul>"


def validate(particles: xr.Dataset) -> Report:
    """Check files, sizes, indices, half-sets and CTFs from headers and columns alone; no pixel is read."""
    report = Report()
    if "image_name" in particles and "start_dir" in particles.attrs:
        _check_files(particles, report)
    _check_ctf(particles, report)
    _check_columns(particles, report)
    return report


def _check_files(particles: xr.Dataset, report: Report) -> None:
    report.checked.append("stacks")
    names = image_names(particles)
    numbers = particles["optics"].values.tolist()
    groups = np.asarray(particles["optics_group"].values)
    if "particle_of_image" in particles:
        groups = groups[particles["particle_of_image"].values]
    box = dict(zip(numbers, particles["box_size"].values.tolist(), strict=True)) if "box_size" in particles else {}
    size = dict(zip(numbers, particles["pixel_size"].values.tolist(), strict=True))
    source = StackSource(names, particles.attrs["start_dir"], particles.attrs.get("project_dir") or None, 1)
    what = "image" if "particle_of_image" in particles else "particle"
    order = np.argsort(source.file_of, kind="stable")
    edges = np.searchsorted(source.file_of[order], np.arange(len(source.files) + 1))
    for f, name in enumerate(source.files):
        rows = order[edges[f] : edges[f + 1]]
        try:
            header = source.header(f)
        except CryotkError as error:
            report.errors.append(f"{error} ({len(rows)} {what}s, first: {rows[0] + 1})")
            continue
        for g in np.unique(groups[rows]).tolist():
            if g in box and header.shape[1:] != (box[g], box[g]):
                report.errors.append(
                    f"{name}: images are {header.shape[2]} x {header.shape[1]} px, optics group {g} says {int(box[g])} px "
                    f"(first {what}: {rows[groups[rows] == g][0] + 1})"
                )
            a = header.pixel_size
            if a > 0 and abs(a - 1) > 1e-3 and abs(a - size[g]) > 0.02 * size[g]:
                report.warnings.append(f"{name}: header pixel size {a:.3f} Å, optics group {g} says {size[g]:.3f} Å")
        top = int(source.numbers[rows].max()) + 1
        if top > header.shape[0]:
            worst = rows[int(source.numbers[rows].argmax())]
            report.errors.append(f"{what} {worst + 1}: image {top} of {name}, which has {header.shape[0]}")
        elif "section" in particles and header.shape[0] != len(rows):
            report.errors.append(
                f"{name} has {header.shape[0]} images, _rlnTomoVisibleFrames of particle "
                f"{particles['particle_of_image'].values[rows[0]] + 1} says {len(rows)}: they are not of one extraction"
            )
        elif header.images_present < header.shape[0]:
            report.errors.append(
                f"{name} is cut short: it holds {header.images_present} of {header.shape[0]} images; copy it again"
            )


def _check_ctf(particles: xr.Dataset, report: Report) -> None:
    report.checked.append("CTF")
    if "defocus_u" in particles and "defocus_v" not in particles:
        report.errors.append("defocus_u is there and defocus_v (_rlnDefocusV) is not: add the column")
        return
    if "defocus_u" not in particles and "frame" in particles:
        report.warnings.append(
            "tilt images without angles, dose and CTF: open them with tomograms=, the tomograms.star that they were extracted with"
        )
        return
    if "defocus_u" not in particles:
        report.warnings.append("there are no CTF parameters: estimate the CTF first, or use do_ctf=False")
        return
    u, v = np.asarray(particles["defocus_u"].values, float), np.asarray(particles["defocus_v"].values, float)
    bad = ~np.isfinite(u) | ~np.isfinite(v)
    if bad.any():
        report.errors.append(f"particle {np.nonzero(bad)[0][0] + 1}: defocus is not a number ({bad.sum()} such particles)")
        return
    mean = (u + v) / 2
    if (mean < 1000).any():
        report.warnings.append(f"{(mean < 1000).sum()} particles have a defocus below 1000 Å; is it in Å, underfocus positive?")
    if (mean > 50_000).any():
        report.warnings.append(f"{(mean > 50_000).sum()} particles have a defocus above 5 µm")
    if (np.abs(u) + np.abs(v) == 0).any():
        report.errors.append(f"{(np.abs(u) + np.abs(v) == 0).sum()} particles have no defocus (0): estimate the CTF first")
    if (np.abs(u - v) > 5000).any():
        report.warnings.append(f"{(np.abs(u - v) > 5000).sum()} particles have more than 5000 Å astigmatism")
    for name, low, high in (("voltage", 60, 400), ("spherical_aberration", 0, 10), ("amplitude_contrast", 0, 0.5)):
        if name in particles:
            values = np.asarray(particles[name].values, float)
            bad = ~((values >= low) & (values <= high))
            if bad.any():
                report.warnings.append(f"{name} {values[bad][0]:g} is outside {low} to {high}")
    if "rlnCtfMaxResolution" in particles:
        fit = np.asarray(particles["rlnCtfMaxResolution"].values, float)
        if np.median(fit) > 6:
            report.warnings.append(
                f"the CTF fits reach {np.median(fit):.1f} Å only (median rlnCtfMaxResolution): the fit may have failed; compare "
                "with power spectra"
            )


def _check_columns(particles: xr.Dataset, report: Report) -> None:
    report.checked.append("columns")
    if "random_subset" in particles:
        values, counts = np.unique(particles["random_subset"].values, return_counts=True)
        if not set(values.tolist()) <= {1, 2}:
            report.errors.append(f"random_subset must be 1 or 2, found {values.tolist()}")
        elif len(values) < 2:
            report.warnings.append(f"all particles are in half-set {values[0]}")
        elif counts.max() > 1.5 * counts.min():
            report.warnings.append(f"half-sets are uneven: {counts.tolist()}")
    if "image_name" in particles:
        names = particles["image_name"].values.astype(str)
        if len(np.unique(names)) < len(names):
            report.warnings.append(f"{len(names) - len(np.unique(names))} images are listed more than once")
    if "shift_x" in particles and "box_size" in particles and particles["shift_x"].dims == ("particle",):
        sorter = np.argsort(particles["optics"].values)
        position = np.searchsorted(particles["optics"].values[sorter], particles["optics_group"].values)
        half = (particles["box_size"].values * particles["pixel_size"].values / 2)[sorter][position]
        far = np.hypot(particles["shift_x"].values.astype(float), particles["shift_y"].values.astype(float)) > half
        if far.any():
            report.warnings.append(f"{far.sum()} particles have offsets that leave the box")


def check_images(particles: xr.Dataset, n: int = 100) -> Report:
    """Read some images: contrast, normalisation, NaN, zero variance.

    Parameters
    ----------
    particles : Dataset
    n : int
        Images read, evenly spread.
    """
    source = image_source(particles)
    total = source.n
    rows = np.unique(np.linspace(0, total - 1, min(n, total)).astype(int))
    images = source.read(rows)
    report = Report(checked=[f"{len(rows)} images"])
    flat = images.reshape(len(images), -1)
    names = image_names(particles) if "image_name" in particles else [""] * total
    what = "image" if "particle_of_image" in particles else "particle"
    for i in np.nonzero(~np.isfinite(flat).all(1))[0]:
        report.errors.append(f"{what} {rows[i] + 1} ({names[rows[i]]}) has pixels that are not numbers; remove it")
    good = np.isfinite(flat).all(1)
    for i in np.nonzero(good & (flat.std(1) == 0))[0]:
        report.errors.append(f"{what} {rows[i] + 1} ({names[rows[i]]}) is constant; remove it")
    box = images.shape[-1]
    k = np.arange(box) - box // 2
    r2 = k[:, None] ** 2 + k[None] ** 2
    outside, inside = r2 > (0.375 * box) ** 2, r2 < (0.2 * box) ** 2
    if good.any():
        background = images[good][:, outside]
        mean, spread = background.mean(1), background.std(1)
        report.figures = {
            "background_mean": float(np.median(mean)), "background_std": float(np.median(spread)),
            "contrast": float((images[good][:, inside].mean(1) - mean).mean()),
        }
        if (np.abs(mean) > 0.5 * np.maximum(spread, 1e-9)).mean() > 0.2 or not 0.5 < np.median(spread) < 2:
            report.warnings.append(
                f"images do not look normalised: background {np.median(mean):.2f} ± {np.median(spread):.2f}, expected 0 ± 1; "
                "extract again "
                "with normalisation"
            )
        if report.figures["contrast"] < -0.02:
            report.warnings.append(
                "particles look dark on bright: RELION's methods want white particles; extract again with inverted contrast"
            )
    return report


