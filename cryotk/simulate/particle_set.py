"""Simulated particle sets, as ``open_particles`` would give them, with the truth beside."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data.lazy_images import lazy_images
from cryotk.data.source import StackSource
from cryotk.errors import DataError, SettingsError
from cryotk.io.labels import OPTICS_NAMES, OPTICS_UNITS, PARTICLE_NAMES, PARTICLE_UNITS
from cryotk.io.mrc import write_mrc
from cryotk.optics import OpticsGroup
from cryotk.simulate.cache import cache_dir
from cryotk.simulate.images import Renderer, render, signal_amplitude
from cryotk.simulate.molecules import Molecule
from cryotk.simulate.molecules import molecule as make_molecule
from cryotk.simulate.plan import ParticleSettings, draw_table, parse_junk

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["example", "particles", "with_true_poses"]

_LABELS = {name: label for label, name in PARTICLE_NAMES.items()}
_TRUE_UNITS = {
    "true_angle_rot": "degree", "true_angle_tilt": "degree", "true_angle_psi": "degree", "true_shift_x": "Å",
    "true_shift_y": "Å",
}  # fmt: skip


def particles(
    n: int = 1000,
    box: int = 64,
    pixel_size: float = 3.5,
    molecules: Molecule | Sequence[Molecule] | None = None,
    *,
    class_weights: Sequence[float] | None = None,
    snr: float = 0.1,
    junk: float | Mapping[str, float] = 0.0,
    poses: bool = False,
    seed: int = 0,
    optics: OpticsGroup | None = None,
    normalised: bool = True,
    cache: bool = True,
    progress: bool = True,
    threads: int | None = None,
    **more: Any,
) -> xr.Dataset:
    """Simulate a particle set with known truth.

    Parameters
    ----------
    n : int
        Particles.
    box : int
        Even number of pixels; ``pixel_size`` in Å. The box must hold the molecule.
    molecules : Molecule or sequence of them, optional
        One per class; by default the procedural D2 tetramer.
    class_weights : sequence of float, optional
        Share of each class, equal by default.
    snr : float
        Variance of the signal over that of the noise, inside the circle of the particle's diameter.
    junk : float or mapping
        Fraction of false particles, shared evenly among pure ``noise``, ``ice_edge``, ``off_centre`` and
        ``neighbours``, or a fraction per kind.
    poses : bool
        Put the true poses and shifts into ``angle_*`` and ``shift_*`` too. By default there are none, as after
        extraction.
    seed : int
        The same seed gives the same bits, for any number of threads.
    optics : OpticsGroup, optional
        Voltage, aberrations, magnification, premultiplication; 300 kV, Cs 2.7 mm, amplitude contrast 0.1 by default.
        Its box and pixel size are replaced by those given here.
    normalised : bool
        Whether each image's background gets mean 0 and standard deviation 1.
    cache : bool
        Keep the images as an MRC stack in the user's cache folder (``CRYOTK_CACHE`` overrides it) and read them from
        there, lazily; otherwise they are a numpy array.
    progress : bool
        Show a progress bar when it takes longer than a second.
    threads : int, optional
        All processors by default.
    **more
        Fields of :class:`ParticleSettings`: ``amplitude`` (instead of ``snr``), ``envelope_b_factor`` (Å^2, not in the
        table), ``offset_sigma`` (Å), ``n_micrographs``, ``defocus`` and ``astigmatism`` (ranges in Å),
        ``defocus_spread`` (Å), ``phase_shift`` (degrees), ``scale_sigma``,
        ``preferred_views`` (a number of directions near which ``preferred_fraction`` of the particles lie, within
        ``preferred_spread`` degrees), ``noise`` (a, b, c of ``a + b exp(-k / c)``), ``noise_sigma``.

    Returns
    -------
    xarray.Dataset
        Like that of ``open_particles``, and beside it ``true_angle_rot/tilt/psi``, ``true_shift_x/y`` [Å],
        ``true_class`` (from 1), ``true_scale`` (of the micrograph), ``true_norm`` (divisor of the normalisation),
        ``is_junk``, ``junk_kind`` ("none" for particles). They are written to STAR files under these names.
        ``attrs["amplitude"]``: see :func:`cryotk.simulate.volume`.

    Raises
    ------
    SettingsError

    Examples
    --------
    >>> p = particles(8, 64, 3.5, junk=0.5, cache=False)
    >>> p.images.shape
    (8, 64, 64)
    """
    if molecules is None:
        molecules = make_molecule()
    chosen = (molecules,) if isinstance(molecules, Molecule) else tuple(molecules)
    base = OpticsGroup(pixel_size) if optics is None else optics
    group = OpticsGroup(**{**base.__dict__, "pixel_size": float(pixel_size), "box_size": int(box)})
    weights = tuple(float(w) for w in class_weights) if class_weights is not None else (1.0,) * len(chosen)
    try:
        settings = ParticleSettings(
            int(n), int(box), group, chosen, weights, snr=float(snr), junk=parse_junk(junk), seed=int(seed), **more
        )
    except TypeError as error:
        raise SettingsError(f"simulate.particles: {error}; see ParticleSettings for the names") from None
    key = settings.key() + ("" if normalised else "raw")
    if cache and (found := _from_cache(cache_dir() / key)) is not None:
        table, images = found
    else:
        table, stack = _make(settings, normalised, progress, threads)
        stored = _store(cache_dir() / key, table, stack, pixel_size) if cache else None
        table, images = stored if stored is not None else (table, stack)
    dataset = _dataset(settings, table, images, cache_dir() / key)
    return with_true_poses(dataset) if poses else dataset


def example(n: int = 1500, *, cache: bool = True, progress: bool = True) -> xr.Dataset:
    """Return the small set of the first notebook: D2 tetramers of 64 x 64 px of 3.5 Å, one in six of them junk.

    The directions crowd around eight views, as they do in thin ice. Made on first use (a few seconds), kept in the
    user's cache folder.
    """
    return particles(
        n, 64, 3.5, snr=0.3, junk={"noise": 0.06, "ice_edge": 0.03, "off_centre": 0.04, "neighbours": 0.04}, seed=2026,
        preferred_views=8, preferred_spread=8.0, envelope_b_factor=60.0, cache=cache, progress=progress,
    )  # fmt: skip


def with_true_poses(particles: xr.Dataset, classes: bool = True) -> xr.Dataset:
    """Return the set with the true angles, shifts (and classes) where a refinement would have put its own.

    Raises
    ------
    DataError
        For a set that is not simulated.
    """
    names = {f"angle_{a}": f"true_angle_{a}" for a in ("rot", "tilt", "psi")}
    names |= {f"shift_{a}": f"true_shift_{a}" for a in "xy"} | ({"class_number": "true_class"} if classes else {})
    missing = [t for t in names.values() if t not in particles]
    if missing:
        raise DataError(f"the set has no truth: {', '.join(missing)} missing; only simulated sets know their poses")
    return particles.assign({n: ("particle", particles[t].values, _attributes(n)) for n, t in names.items()})


def _make(
    settings: ParticleSettings, normalised: bool, progress: bool, threads: int | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    from tqdm.auto import tqdm

    table = draw_table(settings)
    amplitude = signal_amplitude(settings, table)
    workers = threads or _processors()
    shown = {"desc": "simulating", "unit": " particles", "delay": 1.0, "leave": False, "mininterval": 0.3}
    with tqdm(total=settings.n, disable=not progress, **shown) as bar:
        images, divisors = render(Renderer(settings, table, amplitude), workers, bar.update, normalised=normalised)
    table["true_norm"] = divisors
    table["amplitude"] = np.array(amplitude)
    return table, images


def _processors() -> int:
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return max(1, os.cpu_count() or 1)


def _dataset(settings: ParticleSettings, table: dict[str, np.ndarray], images: Any, where: Path) -> xr.Dataset:
    import xarray as xr

    n, g = settings.n, settings.optics
    stack = str(where / "particles.mrcs") if not isinstance(images, np.ndarray) else "simulated/particles.mrcs"
    columns = {
        "image_name": np.array([f"{i + 1:06d}@{stack}" for i in range(n)], dtype=object),
        "optics_group": np.ones(n, np.int64),
        **{k: v for k, v in table.items() if k != "amplitude"},
    }
    variables: dict[str, Any] = {
        k: ("particle", v.astype(object) if v.dtype.kind == "U" else v, _attributes(k)) for k, v in columns.items()
    }
    variables |= _optics_variables(g)
    variables["images"] = (("particle", "y", "x"), images, {"units": "normalised density"})
    attrs = {
        "source": f"simulated: {', '.join(m.name for m in settings.molecules)}",
        "simulated": True, "seed": settings.seed, "amplitude": float(table["amplitude"]),
        "envelope_b_factor": settings.envelope_b_factor, "project_dir": "",
        "star_columns": [_LABELS.get(k, k) for k in columns],
    }  # fmt: skip
    if not isinstance(images, np.ndarray):
        attrs["start_dir"] = str(where)
    return xr.Dataset(variables, coords={"optics": np.array([1])}, attrs=attrs)


def _optics_variables(g: OpticsGroup) -> dict[str, Any]:
    """Variables on dimension ``optics``; those at their default are left out, as in most files."""
    variables: dict[str, Any] = {}
    per_group: dict[str, Any] = {
        "optics_name": np.array(["simulated"], dtype=object), "pixel_size": g.pixel_size, "voltage": g.voltage,
        "spherical_aberration": g.spherical_aberration, "amplitude_contrast": g.amplitude_contrast,
        "box_size": g.box_size, "dimensionality": 2,
    }  # fmt: skip
    if any(g.beam_tilt):
        per_group |= {"beam_tilt_x": g.beam_tilt[0], "beam_tilt_y": g.beam_tilt[1]}
    if g.premultiplied:
        per_group["ctf_premultiplied"] = 1
    labels = {name: label for label, name in OPTICS_NAMES.items()}
    for name, value in per_group.items():
        attrs = {"relion_label": labels[name]} | ({"units": OPTICS_UNITS[name]} if name in OPTICS_UNITS else {})
        variables[name] = ("optics", np.atleast_1d(value), attrs)
    for name, label in (("odd_zernike", "rlnOddZernike"), ("even_zernike", "rlnEvenZernike")):
        if any(getattr(g, name)):
            dims = ("optics", name.split("_")[0] + "_term")
            variables[name] = (dims, np.array([getattr(g, name)]), {"relion_label": label})
    if not np.array_equal(g.magnification, np.eye(2)):
        variables["magnification_matrix"] = (("optics", "mag_row", "mag_column"), np.array([g.magnification]), {})
    return variables


def _attributes(name: str) -> dict[str, str]:
    units = PARTICLE_UNITS.get(name) or _TRUE_UNITS.get(name)
    return ({"relion_label": _LABELS[name]} if name in _LABELS else {}) | ({"units": units} if units else {})


def _from_cache(folder: Path) -> tuple[dict[str, np.ndarray], Any] | None:
    """Table and lazy images of an earlier simulation; None when there is none that is whole."""
    try:
        with np.load(folder / "table.npz", allow_pickle=False) as file:
            table = {k: file[k] for k in file.files}
        table["micrograph"] = table["micrograph"].astype(object)
        n = len(table["true_class"])
        source = StackSource([f"{i + 1}@{folder / 'particles.mrcs'}" for i in range(n)], folder)
        if source.header(0).images_present != n:
            return None
        return table, lazy_images(source)
    except (OSError, KeyError, ValueError):
        return None


def _store(
    folder: Path, table: dict[str, np.ndarray], images: np.ndarray, pixel_size: float
) -> tuple[dict[str, np.ndarray], Any] | None:
    """Write a finished simulation in one rename, so that nobody sees half of it; None where that cannot be."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError:
        return None
    try:
        write_mrc(temporary / "particles.mrcs", images, pixel_size, is_stack=True)
        plain: dict[str, Any] = {k: v.astype(str) if v.dtype == object else v for k, v in table.items()}
        np.savez(temporary / "table.npz", **plain)
        if folder.exists() and _from_cache(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except OSError:
        # disk full, read-only, or another process was faster: what is there is used if it is whole
        shutil.rmtree(temporary, ignore_errors=True)
    return _from_cache(folder)
