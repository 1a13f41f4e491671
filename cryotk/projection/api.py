"""Functions for users: project, reconstruct, ctf_image. Paths are accepted wherever objects are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft

from cryotk.data import image_source, open_particles, open_volume, optics_groups
from cryotk.errors import DataError, SettingsError
from cryotk.geometry import euler_to_matrix, symmetry_operators
from cryotk.kernels.relion_rounding import beyond_the_sphere, rounded_rotations
from cryotk.optics import OpticsGroup, ctf, dose_weight, odd_phase
from cryotk.projection.predict import group_transform, predict
from cryotk.projection.reconstruction import Accumulator, wiener_reconstruct
from cryotk.projection.reference import FourierReference

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ctf_image", "project", "reconstruct"]

_CTF_COLUMNS = {
    "defocus_u": "defocus_u", "defocus_v": "defocus_v", "defocus_angle": "defocus_angle", "phase_shift": "phase_shift",
    "ctf_b_factor": "b_factor", "ctf_scale": "scale",
}  # fmt: skip


def _half_plane(n: int, radius: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """kx, ky of half-plane pixels up to a radius, in image order; Nyquist row positive."""
    ky = np.arange(n)
    ky = np.where(ky <= n // 2, ky, ky - n)[:, None]
    kx = np.arange(n // 2 + 1)[None]
    keep = ~((kx == 0) & (ky < 0))
    r = n / 2 if radius is None else radius
    keep &= kx**2 + ky**2 <= r * r
    y, x = np.nonzero(keep)
    return x.astype(np.int32), np.broadcast_to(ky, keep.shape)[y, x].astype(np.int32)


def _ctf_parameters(table: dict[str, np.ndarray], rows: Any) -> dict[str, Any]:
    if "defocus_u" not in table:
        raise DataError("particles have no defocus (rlnDefocusU): estimate the CTF first, or switch the CTF off")
    out = {new: np.asarray(table[old], float)[rows] for old, new in _CTF_COLUMNS.items() if old in table}
    out.setdefault("defocus_v", out["defocus_u"])  # no astigmatism known
    out.setdefault("defocus_angle", np.zeros_like(out["defocus_u"]))
    return out


def _columns(particles: xr.Dataset) -> dict[str, np.ndarray]:
    """What is needed of the table, one row per image."""
    names = [*_CTF_COLUMNS, "angle_rot", "angle_tilt", "angle_psi", "shift_x", "shift_y", "shift_z", "optics_group",
             "random_subset", "image_name", "tilt_rotation", "dose"]  # fmt: skip
    table = {n: np.asarray(particles[n].values) for n in names if n in particles}
    if "particle_of_image" in particles:
        of = np.asarray(particles["particle_of_image"].values)
        table = {n: v if particles[n].dims[0] == "image" else v[of] for n, v in table.items()}
    return table


def _poses(
    table: dict[str, np.ndarray], rows: Any, rotations: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    n = len(table["optics_group"])
    missing = [a for a in ("angle_rot", "angle_tilt", "angle_psi") if a not in table]
    if len(missing) == 3:
        raise DataError("particles have no angles (rlnAngleRot, rlnAngleTilt, rlnAnglePsi): refine them first")
    angle = [np.asarray(table.get(a, np.zeros(n)), float)[rows] for a in ("angle_rot", "angle_tilt", "angle_psi")]
    shift = np.stack([np.asarray(table.get(s, np.zeros(n)), float)[rows] for s in ("shift_x", "shift_y", "shift_z")], -1)
    matrices = euler_to_matrix(*angle) if rotations is None else rotations(np.stack(angle, -1))
    if "tilt_rotation" in table:
        turn = table["tilt_rotation"][rows]
        matrices, shift = turn @ matrices, np.einsum("nij,nj->ni", turn, shift)
    return matrices, shift[:, :2]


def _damping(table: dict[str, np.ndarray], rows: Any, frequencies: np.ndarray) -> np.ndarray | None:
    """(n, P) weight of radiation damage of tilt images; None without a dose."""
    if "dose" not in table:
        return None
    return dose_weight(np.hypot(frequencies[:, 0], frequencies[:, 1]), table["dose"][rows]).astype(np.float32)


def project(
    volume: Any, particles: Any, apply_ctf: bool = True, *, apply_aberrations: bool = True, padding: float = 2.0
) -> xr.DataArray:
    """Project a volume at the poses of particles; computed when asked for.

    Parameters
    ----------
    volume : DataArray or path
    particles : Dataset or path
        Poses, offsets, CTF.
    apply_ctf : bool
    apply_aberrations : bool
        Beam tilt and antisymmetric aberrations too.
    padding : float

    Returns
    -------
    xarray.DataArray
        (particle, y, x) float32 over dask; (image, y, x) where a particle has several images. Tilt images are seen along their
        tilts and, with the CTF, damped by their dose.
    """
    import dask.array as da
    import xarray as xr

    v, p = open_volume(volume), open_particles(particles, images=False) if not hasattr(particles, "sizes") else particles
    a = float(v.attrs["pixel_size"])
    groups = optics_groups(p) if "box_size" in p else _groups_for(p, v)
    table = _columns(p)
    boxes = {g.box_size for g in groups.values()}
    if len(boxes) > 1:
        raise DataError("optics groups have different boxes: project one at a time with particles.cryo.group(name)")
    box = boxes.pop()
    reference = FourierReference.from_map(np.asarray(v.data, np.float32), a, None, padding)
    run = partial(_project_rows, reference, groups, table, apply_ctf, apply_aberrations, box)
    n = len(table["optics_group"])
    dim = "image" if "particle_of_image" in p else "particle"
    per = int(max(1, min(500, 32_000_000 // (4 * box * box))))
    rows = da.arange(n, chunks=per)
    data = da.map_blocks(run, rows, dtype=np.float32, chunks=(rows.chunks[0], (box,), (box,)), new_axis=[1, 2],
                         meta=np.empty((0, 0, 0), np.float32))  # fmt: skip
    return xr.DataArray(
        data, dims=(dim, "y", "x"), name="projections", attrs={"pixel_size": next(iter(groups.values())).pixel_size}
    )


def _groups_for(particles: xr.Dataset, volume: xr.DataArray) -> dict[int, OpticsGroup]:
    sized = particles.assign(box_size=("optics", np.full(particles.sizes["optics"], volume.shape[-1])))
    return optics_groups(sized)


def _project_rows(reference: FourierReference, groups: dict[int, OpticsGroup], table: dict[str, np.ndarray], apply_ctf: bool,
                  apply_aberrations: bool, box: int, rows: np.ndarray) -> np.ndarray:
    kx, ky = _half_plane(box)
    out = np.zeros((len(rows), box, box), np.float32)
    number = np.asarray(table["optics_group"])[rows]
    for g, optics in groups.items():
        here = np.nonzero(number == g)[0]
        if not len(here):
            continue
        matrices, shifts = _poses(table, rows[here])
        values = predict(
            reference,
            optics,
            matrices,
            kx,
            ky,
            shifts=shifts,
            ctf_parameters=_ctf_parameters(table, rows[here]) if apply_ctf else None,
            apply_odd_phase=apply_aberrations,
        )
        damping = _damping(table, rows[here], np.stack([kx, ky], -1) / (box * optics.pixel_size)) if apply_ctf else None
        if damping is not None:
            values *= damping**2 if optics.premultiplied else damping
        # on the very surface of the sphere that is looked up: half inside, whichever way a rotation is rounded
        values[:, 4 * (kx**2 + ky**2) == box**2] *= 0.5
        half = np.zeros((len(here), box, box // 2 + 1), np.complex64)
        half[:, ky, kx] = values * (box * box) * (1 - 2 * ((kx + ky) % 2))
        line = np.arange(1, box // 2)
        half[:, -line, 0] = half[:, line, 0].conj()
        out[here] = scipy.fft.irfft2(half, s=(box, box), workers=1)
    return out


def reconstruct(
    particles: Any, symmetry: str = "C1", half: int | None = None, padding: float = 2.0, *, do_ctf: bool = True,
    phase_flip_only: bool = False, intact_first_peak: bool = False, max_resolution: float | None = None,
    compat: str | None = None, progress: bool = True,
) -> xr.DataArray:
    """Reconstruct a map from particles at their poses (unregularised, CTF-weighted).

    Images count without their mean (it says nothing about the particle). Where hardly any image looks, the weight is at
    least 1/1000 of the shell's mean. The inscribed sphere is kept, what lies outside becomes its mean.

    Parameters
    ----------
    particles : Dataset or path
        With angles and offsets.
    symmetry : str
        Point group.
    half : {None, 1, 2}
        Use that half-set only.
    padding : float
    do_ctf : bool
    phase_flip_only : bool
        Correct signs alone.
    intact_first_peak : bool
    max_resolution : float, optional
        Å.
    compat : {None, "relion"}
        "relion": pixels at exactly the radius where the transform ends are in or out as its arithmetic rounds them; else all in.
    progress : bool
        Show a bar when it takes longer than a second.

    Returns
    -------
    xarray.DataArray
        (z, y, x) float32, box and pixel size of the first optics group.

    Raises
    ------
    DataError
        For missing angles, half-sets or CTF columns, an empty half-set, pixels that are not finite.
    SettingsError
        For an unknown ``compat``.
    """
    from tqdm.auto import tqdm

    from cryotk.data import as_volume

    if compat not in (None, "relion"):
        raise SettingsError(f"compat must be None or 'relion', not {compat!r}")
    operators = symmetry_operators(symmetry)
    p = open_particles(particles)
    table = _columns(p)
    groups = optics_groups(p)
    first = groups[min(groups)]
    box, a = first.box_size, first.pixel_size
    size = box if max_resolution is None else min(box, 2 * int(np.ceil(box * a / max_resolution)))
    keep = np.ones(len(table["optics_group"]), bool)
    if half is not None:
        if "random_subset" not in table:
            raise DataError("particles have no half-sets (rlnRandomSubset): leave half out, or take the particles of a refinement")
        keep = np.asarray(table["random_subset"]) == half
        if not keep.any():
            raise DataError(f"half-set {half} is empty")
    accumulator = Accumulator(box, size, padding, True)
    number = np.asarray(table["optics_group"])
    with tqdm(total=int(keep.sum()), desc="reconstruct", unit=" particles", delay=1.0, leave=False, disable=not progress) as bar:
        for g, optics in groups.items():
            rows = np.nonzero((number == g) & keep)[0]
            if not len(rows):
                continue
            source = image_source(p.cryo.group(g)) if "images" not in p else image_source(p)
            local = np.searchsorted(np.nonzero(number == g)[0], rows) if "images" not in p else rows
            _insert_group(
                accumulator,
                optics,
                source,
                local,
                rows,
                table,
                box,
                a,
                size,
                do_ctf,
                phase_flip_only,
                intact_first_peak,
                compat == "relion",
                bar.update,
            )
    accumulator.symmetrise(operators)
    return as_volume(wiener_reconstruct(accumulator, sphere=True).astype(np.float32), a, "cryotk reconstruct")


def _insert_group(
    accumulator: Accumulator,
    optics: OpticsGroup,
    source: Any,
    local: np.ndarray,
    rows: np.ndarray,
    table: dict[str, np.ndarray],
    box: int,
    pixel_size: float,
    size: int,
    do_ctf: bool,
    flip: bool,
    intact: bool,
    rounded: bool,
    done: Callable[[int], object],
) -> None:
    n = optics.box_size
    rho = n * optics.pixel_size / (box * pixel_size)
    kx, ky = _half_plane(n, min(n / 2, np.ceil(rho * size / 2)))
    frequencies = np.stack([kx, ky], -1) / (n * optics.pixel_size)
    transform = group_transform(optics, box, pixel_size)
    remove = np.exp(-1j * odd_phase(optics, frequencies)).astype(np.complex64)
    sign = (1 - 2 * ((kx + ky) % 2)).astype(np.float32)
    per = max(1, 64_000_000 // (16 * n * n))
    for first in range(0, len(rows), per):
        some = rows[first : first + per]
        f = scipy.fft.rfft2(source.read(local[first : first + per]), workers=1)[:, ky, kx] * (sign / n**2) * remove
        broken = some[~np.isfinite(f).all(axis=1)]
        if len(broken):
            name = f" ({table['image_name'][broken[0]]})" if "image_name" in table else ""
            what = "tilt image" if "tilt_rotation" in table else "particle"
            raise DataError(
                f"{len(broken)} images have pixels that are not finite, the first is {what} {broken[0] + 1}{name}; "
                "leave them out: particles.cryo.check_images() lists them"
            )
        f[:, (kx == 0) & (ky == 0)] = 0  # an image's mean says nothing about the particle; its weight stays
        matrices, shifts = _poses(table, some)
        angle = -2 * np.pi * (shifts[:, :1] * frequencies[:, 0] + shifts[:, 1:] * frequencies[:, 1])
        f *= np.exp(1j * angle).astype(np.complex64)
        weight = np.ones(f.shape, np.float32)
        if do_ctf:
            c = ctf(optics, frequencies, **_ctf_parameters(table, some), intact_first_peak=intact, phase_flip_only=flip)
            damping = _damping(table, some, frequencies)
            if damping is not None:
                c *= damping
            if optics.premultiplied:
                weight = c * c
            else:
                f *= c
                weight = c * c
        if rounded:
            matrices = _poses(table, some, rounded_rotations)[0]
            _leave_out_beyond(accumulator, weight, transform @ matrices, kx, ky)
        accumulator.insert(f, weight, transform @ matrices, kx, ky)
        done(len(some))


def _leave_out_beyond(accumulator: Accumulator, weight: np.ndarray, matrices: np.ndarray, kx: np.ndarray, ky: np.ndarray) -> None:
    """Take the weight of pixels on the very surface of the sphere that RELION's rounding finds outside."""
    radius = np.linalg.norm(np.linalg.inv(matrices)[:, :, :2] @ np.stack([kx, ky]).astype(float), axis=1).max(axis=0)
    on = np.nonzero(np.abs(radius * accumulator.padding - accumulator.r_max) < 1e-6)[0]
    beyond = beyond_the_sphere(matrices, kx[on], ky[on], accumulator.padding, accumulator.r_max)
    weight[:, on] = np.where(beyond, 0, weight[:, on])


def ctf_image(particles: Any, row: int = 0, box_size: int | None = None, pixel_size: float | None = None) -> xr.DataArray:
    """Two-dimensional CTF of one particle, origin in the centre.

    Parameters
    ----------
    particles : Dataset or path
    row : int
    box_size, pixel_size : optional
        Of the picture; the particle's by default.

    Returns
    -------
    xarray.DataArray
        (ky, kx) with coordinates in 1/Å.
    """
    import xarray as xr

    p = open_particles(particles, images=False) if not hasattr(particles, "sizes") else particles
    table = _columns(p)
    groups = optics_groups(p if "box_size" in p else p.assign(box_size=("optics", np.full(p.sizes["optics"], box_size or 128))))
    optics = groups[int(table["optics_group"][row])]
    n, a = box_size or optics.box_size, pixel_size or optics.pixel_size
    k = (np.arange(n) - n // 2) / (n * a)
    y, x = np.meshgrid(k, k, indexing="ij")
    values = ctf(optics, np.stack([x.ravel(), y.ravel()], -1), **_ctf_parameters(table, [row]))[0].reshape(n, n)
    return xr.DataArray(
        values, dims=("ky", "kx"), coords={"ky": ("ky", k, {"units": "1/Å"}), "kx": ("kx", k, {"units": "1/Å"})}, name="ctf"
    )
