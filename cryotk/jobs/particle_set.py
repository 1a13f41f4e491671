"""A Dataset of particles as the plain arrays that iterations work on, in RELION's order of micrographs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.data import ImageSource, image_source, optics_groups
from cryotk.errors import DataError
from cryotk.likelihood.prepare import ParticleColumns
from cryotk.optics import OpticsGroup

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ParticleSet"]


@dataclass
class ParticleSet:
    """Particles, their images and what is known of them.

    Attributes of images have one value per image; a particle has the images ``image_start[i] .. image_start[i + 1]``.
    """

    sources: list[ImageSource]
    """One per optics group."""
    source_index: np.ndarray
    """(n_images,) position of each image in its group's source."""
    optics: list[OpticsGroup]
    optics_numbers: list[int]
    columns: ParticleColumns
    image_start: np.ndarray
    group_names: list[str]
    group_counts: np.ndarray
    poses: np.ndarray
    """(n, 3) degrees."""
    without_pose: np.ndarray
    """(n,) bool: particles of which an angle or an offset is not known; it is 0 then."""
    shifts: np.ndarray
    """(n, 2) Å."""
    norm: np.ndarray
    """(n_images,)"""
    class_number: np.ndarray
    micrograph_order: np.ndarray
    """Row numbers sorted by micrograph, stable: RELION's order."""

    @property
    def n(self) -> int:
        """Number of particles."""
        return len(self.image_start) - 1

    @classmethod
    def from_dataset(cls, particles: xr.Dataset, *, do_ctf: bool = True) -> ParticleSet:
        """Collect what a refinement needs.

        Raises
        ------
        DataError
            For missing CTF columns or images, with the remedy.
        """
        several = "particle_of_image" in particles
        per = "image" if several else "particle"
        n = particles.sizes["particle"]
        n_images = particles.sizes[per]
        if n == 0:
            raise DataError("the particle set is empty")
        if "tilt_rotation" in particles:
            raise DataError(
                "these are tilt images, each seen along its own direction (tilt_rotation): classification and refinement do not use that; "
                "ctk.reconstruct and ctk.project do"
            )
        groups = optics_groups(particles)
        numbers = sorted(groups)
        group_of_particle = np.asarray(particles["optics_group"].values, int)
        start = np.arange(n + 1, dtype=np.int64)
        if several:
            of = np.asarray(particles["particle_of_image"].values, int)
            if np.any(np.diff(of) < 0):
                raise DataError("images must be sorted by particle: particle_of_image has to be ascending")
            start = np.searchsorted(of, np.arange(n + 1)).astype(np.int64)
            group_of_image = group_of_particle[of]
        else:
            of, group_of_image = np.arange(n), group_of_particle

        def column(name: str, default: float | None) -> np.ndarray:
            if name in particles:
                values = np.asarray(particles[name].values, float)
                return values[of] if len(values) == n and several and particles[name].dims == ("particle",) else values
            if default is None:
                raise DataError(f"{name} is missing ({_label(name)} in the STAR file): estimate the CTF first, or use do_ctf=False")
            return np.full(n_images, default)

        needed = None if do_ctf else 0.0
        u = column("defocus_u", needed)
        names, group_index, counts = _scale_groups(particles)
        columns = ParticleColumns(
            defocus_u=u,
            defocus_v=column("defocus_v", None) if do_ctf and "defocus_v" in particles else u.copy(),
            defocus_angle=column("defocus_angle", 0.0),
            phase_shift=column("phase_shift", 0.0),
            b_factor=column("ctf_b_factor", 0.0),
            ctf_scale=column("ctf_scale", 1.0),
            scale_group=group_index[of],
            optics_group=np.searchsorted(numbers, group_of_image),
        )
        _check_finite(columns, do_ctf)

        without_pose = np.zeros(n, bool)

        def pose(name: str, prior: str | None = None) -> np.ndarray:
            # a table may hold where to search instead of what was found
            name = prior if name not in particles and prior is not None and prior in particles else name
            if name not in particles:
                without_pose[:] |= name.startswith("angle")
                return np.zeros(n)
            values = np.asarray(particles[name].values, float)
            if np.isinf(values).any():
                raise DataError(f"particle {int(np.isinf(values).argmax()) + 1}: {name} is infinite; correct or remove that particle")
            without_pose[:] |= np.isnan(values)
            return np.nan_to_num(values)

        poses = np.stack([pose(f"angle_{x}", f"rlnAngle{x.capitalize()}Prior") for x in ("rot", "tilt", "psi")], -1)
        shifts = np.stack([pose("shift_x"), pose("shift_y")], -1)
        norm = np.ones(n_images)
        if "norm_correction" in particles:
            norm = np.asarray(particles["norm_correction"].values, float)
            norm = np.where(np.isfinite(norm) & (norm > 0), norm, 1.0)[of]
        sources, index = _sources(particles, numbers, columns.optics_group)
        micrograph = np.asarray(particles["micrograph"].values, str) if "micrograph" in particles else np.full(n, "")
        return cls(
            sources,
            index,
            [groups[g] for g in numbers],
            numbers,
            columns,
            start,
            names,
            counts,
            poses,
            without_pose,
            shifts,
            norm,
            np.nan_to_num(np.asarray(particles["class_number"].values, float)).astype(int) if "class_number" in particles else np.zeros(n, int),
            np.argsort(micrograph, kind="stable"),
        )

    def group_of_particle(self) -> np.ndarray:
        """(n,) optics group position of each particle."""
        return self.columns.optics_group[self.image_start[:-1]]

    def images_of(self, particles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image indices of some particles, and where each particle's start."""
        counts = self.image_start[particles + 1] - self.image_start[particles]
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        first = np.repeat(self.image_start[particles] - start[:-1], counts)
        return np.arange(start[-1]) + first, start

    def read(self, images: np.ndarray) -> np.ndarray:
        """Pixels of images of one optics group."""
        group = int(self.columns.optics_group[images[0]])
        return self.sources[group].read(self.source_index[images])


def _label(name: str) -> str:
    return "rln" + "".join(p.capitalize() for p in name.split("_"))


def _check_finite(columns: ParticleColumns, do_ctf: bool) -> None:
    if not do_ctf:
        return
    for name in ("defocus_u", "defocus_v", "defocus_angle", "phase_shift", "b_factor", "ctf_scale"):
        bad = ~np.isfinite(getattr(columns, name))
        if bad.any():
            raise DataError(f"particle {int(np.nonzero(bad)[0][0]) + 1}: {name} is not a number; correct or remove that particle")


def _scale_groups(particles: xr.Dataset) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Groups that share an intensity scale: group names, or else micrographs."""
    for name in ("group_name", "micrograph"):
        if name in particles:
            values = np.asarray(particles[name].values, str)
            names, index, counts = np.unique(values, return_inverse=True, return_counts=True)
            return list(map(str, names)), index, counts
    n = particles.sizes["particle"]
    return ["all"], np.zeros(n, int), np.array([n])


def _sources(particles: xr.Dataset, numbers: list[int], group_of_image: np.ndarray) -> tuple[list[ImageSource], np.ndarray]:
    n_images = len(group_of_image)
    boxes = {int(b) for b in particles["box_size"].values} if "box_size" in particles else set()
    if "images" in particles or len(boxes) <= 1:
        source = image_source(particles)
        return [source] * len(numbers), np.arange(n_images)
    sources: list[Any] = []
    index = np.zeros(n_images, np.int64)
    for g, number in enumerate(numbers):
        rows = np.nonzero(group_of_image == g)[0]
        i = int(np.nonzero(particles["optics"].values == number)[0][0])
        sub = particles.isel(particle=rows, optics=[i])
        sources.append(image_source(sub))
        index[rows] = np.arange(len(rows))
    return sources, index
