"""Molecules as sums of Gaussian blobs: a procedural D2 tetramer, and any PDB or mmCIF file.

The tetramer stands in for beta-galactosidase: four subunits of seven compact domains, some packed from alpha-helices
and some from layered beta-sheets: projections show secondary structure when sharp and a lobed particle when blurred.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryotk.errors import DataError, MissingFileError, SettingsError
from cryotk.geometry import symmetry_operators

__all__ = ["Molecule", "molecule"]

# Geometry of secondary structure, Å and degrees (textbook values).
_HELIX_RISE, _HELIX_TURN, _HELIX_SPACING = 1.5, 100.0, 9.8
_STRAND_RISE, _STRAND_SPACING, _LAYER_SPACING = 3.3, 4.8, 10.2
_BACKBONE_WEIGHT = 4.0

# Centres of the domains of one subunit, Å: packed so that mates under the two-fold axes touch without overlapping, and
# so that the density differs from its mirror image at low resolution already.
_DOMAINS = (
    (-11.0, 11.0, -29.0, "helix"),
    (38.0, 34.0, -10.0, "sheet"),
    (-13.0, 43.0, -7.0, "helix"),
    (58.0, -13.0, 10.0, "helix"),
    (34.0, 11.0, -25.0, "sheet"),
    (12.0, 30.0, -22.0, "helix"),
    (30.0, 12.0, 7.0, "sheet"),
)
_DOMAIN_RADIUS = 15.5


@dataclass(frozen=True, eq=False)
class Molecule:
    """A density ``rho(r) = sum_j w_j g(r - r_j)``, g a normalised Gaussian of standard deviation ``blob_sigma``.

    Parameters
    ----------
    positions : (n, 3) float64
        x, y, z in Å; the origin is the centre of the box.
    weights : (n,) float64
    blob_sigma : float, Å
    name : str
    symmetry : str
        Point group that the molecule has.
    subunit, domain : (n,) int
        Numbers from 0, for taking parts away.
    """

    positions: np.ndarray
    weights: np.ndarray
    blob_sigma: float = 1.6
    name: str = "molecule"
    symmetry: str = "C1"
    subunit: np.ndarray | None = None
    domain: np.ndarray | None = None

    @property
    def diameter(self) -> float:
        """Diameter in Å of the smallest sphere around the origin that holds all atoms and two widths of a blob."""
        return float(2 * (np.sqrt((self.positions**2).sum(1).max()) + 2 * self.blob_sigma))

    def without_subunit(self, number: int) -> Molecule:
        """Return the molecule without one subunit, in the same frame; the symmetry is lost.

        Raises
        ------
        SettingsError
            When there is no such subunit.
        """
        if self.subunit is None or number not in self.subunit:
            have = [] if self.subunit is None else sorted(set(self.subunit.tolist()))
            raise SettingsError(f"{self.name} has no subunit {number}; it has {have}")
        keep = self.subunit != number
        return replace(
            self, positions=self.positions[keep], weights=self.weights[keep], subunit=self.subunit[keep],
            domain=None if self.domain is None else self.domain[keep], symmetry="C1",
            name=f"{self.name} without subunit {number}",
        )  # fmt: skip

    def __repr__(self) -> str:
        return (
            f"<Molecule {self.name}: {len(self.weights)} blobs of sigma {self.blob_sigma:g} Å, "
            f"symmetry {self.symmetry}, diameter {self.diameter:.0f} Å>"
        )


def _frame(rng: np.random.Generator) -> np.ndarray:
    """Return a random orthonormal frame; rows are axes."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    return (q * np.sign(np.diag(r))).T


def _helices(radius: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Residues (backbone, direction of the side chain) of helices packed hexagonally in a sphere."""
    step = _HELIX_SPACING
    backbone, outward = [], []
    for row in range(-3, 4):
        for column in range(-3, 4):
            u, v = (column + 0.5 * (row % 2)) * step, row * step * np.sqrt(0.75)
            half = radius**2 - u * u - v * v
            if half < 12.0:  # less than two turns
                continue
            z = np.arange(-np.sqrt(half), np.sqrt(half), _HELIX_RISE)
            angle = np.radians(_HELIX_TURN) * np.arange(len(z)) + rng.uniform(0, 2 * np.pi)
            if (row + column) % 2:
                z = -z
            around = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], 1)
            backbone.append(np.stack([np.full_like(z, u), np.full_like(z, v), z], 1) + 2.3 * around)
            outward.append(around)
    return np.concatenate(backbone), np.concatenate(outward)


def _sheets(radius: float, _rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Residues of three twisted layers of strands in a sphere; side chains alternate above and below."""
    backbone, outward = [], []
    for layer in (-1, 0, 1):
        for strand in range(-3, 4):
            x, height = strand * _STRAND_SPACING, layer * _LAYER_SPACING
            half = radius**2 - x * x - height * height
            if half < 20.0:
                continue
            z = np.arange(-np.sqrt(half), np.sqrt(half), _STRAND_RISE)
            twist = np.radians(4.0 * strand)
            side = np.where(np.arange(len(z)) % 2 == 0, 1.0, -1.0)
            backbone.append(
                np.stack([np.full_like(z, x), height + 0.9 * side + z * np.sin(twist), z * np.cos(twist)], 1)
            )
            outward.append(np.stack([np.zeros_like(z), side, np.zeros_like(z)], 1))
    return np.concatenate(backbone), np.concatenate(outward)


def _tetramer(seed: int) -> Molecule:
    rng = np.random.default_rng(np.random.SeedSequence([seed, 7]))
    positions, weights, domains = [], [], []
    for number, (x, y, z, kind) in enumerate(_DOMAINS):
        radius = _DOMAIN_RADIUS * rng.uniform(0.94, 1.06)
        backbone, outward = (_helices if kind == "helix" else _sheets)(radius, rng)
        side = backbone + outward * rng.uniform(2.0, 3.6, (len(backbone), 1))
        frame = _frame(rng)
        for part, weight in (
            (backbone, np.full(len(backbone), _BACKBONE_WEIGHT)),
            (side, rng.uniform(0.5, 7.0, len(side))),
        ):
            positions.append(part @ frame + (x, y, z))
            weights.append(weight)
            domains.append(np.full(len(part), number))
    one = np.concatenate(positions)
    w, d = np.concatenate(weights), np.concatenate(domains)
    operators = symmetry_operators("D2")
    everything = np.concatenate([one @ op.T for op in operators])
    return Molecule(
        everything, np.tile(w, len(operators)), name="D2 tetramer", symmetry="D2",
        subunit=np.repeat(np.arange(len(operators)), len(w)), domain=np.tile(d, len(operators)),
    )  # fmt: skip


def _from_file(path: Path, center: bool) -> Molecule:
    try:
        import gemmi
    except ImportError:
        raise SettingsError(
            f"reading {path} needs gemmi, which is not installed; run: pip install 'cryotk[simulate]'"
        ) from None
    if not path.exists():
        raise MissingFileError(f"{path}: no such file; give the path of a PDB or mmCIF file")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path} could not be read as PDB or mmCIF: {error}") from None
    structure.remove_hydrogens()
    structure.remove_waters()
    if len(structure) == 0:
        raise DataError(f"{path} holds no model; give a PDB or mmCIF file with coordinates")
    chains = {chain.name: i for i, chain in enumerate(structure[0])}
    rows = [
        (site.atom.pos.x, site.atom.pos.y, site.atom.pos.z, site.atom.element.atomic_number * site.atom.occ,
         chains[site.chain.name])
        for site in structure[0].all()
    ]  # fmt: skip
    if not rows:
        raise DataError(f"{path} holds no atoms; give a PDB or mmCIF file with coordinates")
    table = np.array(rows)
    xyz, w = table[:, :3], table[:, 3]
    if center:
        xyz = xyz - np.average(xyz, axis=0, weights=w)
    return Molecule(xyz, w, name=structure.name or path.stem, subunit=table[:, 4].astype(int))


def molecule(source: str | os.PathLike[str] | None = None, *, seed: int = 0, center: bool = True) -> Molecule:
    """Make a molecule: the procedural D2 tetramer, or the atoms of a file.

    Parameters
    ----------
    source : path, optional
        PDB or mmCIF file (read with gemmi, an extra). By default the procedural tetramer, about 150 x 110 x 65 Å.
    seed : int
        Of the tetramer: other seeds give other domains in the same places.
    center : bool
        Move the centre of mass of a file's atoms to the origin.

    Returns
    -------
    Molecule

    Raises
    ------
    SettingsError
        When gemmi is needed and not installed.
    MissingFileError, DataError
        When the file is missing or holds no atoms.

    Examples
    --------
    >>> molecule().symmetry
    'D2'
    """
    return _tetramer(seed) if source is None else _from_file(Path(source), center)
