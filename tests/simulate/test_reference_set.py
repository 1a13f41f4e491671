"""The same images as the reference sets, which were simulated elsewhere and checked against RELION.

Noisy particles are regressed on our noise-free images of the true parameters: the slope is one only if signs, scales,
shifts, CTF and aberrations all agree.
"""

from dataclasses import replace

import numpy as np
import pytest

from cryotk import simulate
from cryotk.data import open_particles, optics_groups, select_particles
from cryotk.data.source import StackSource
from cryotk.geometry import symmetry_operators
from cryotk.io.mrc import read_mrc
from cryotk.io.star import read_star
from cryotk.simulate.images import Renderer
from cryotk.simulate.plan import ParticleSettings


def _molecule(shared):
    table = np.loadtxt(shared / "reference/betagal_noisy/pseudo_atoms.tsv", skiprows=1)
    operators = symmetry_operators("D2")
    return simulate.Molecule(
        np.concatenate([table[:, :3] @ op.T for op in operators]), np.tile(table[:, 3], 4), name="reference",
        symmetry="D2", subunit=np.repeat(np.arange(4), len(table)),
    )  # fmt: skip


def _missing_subunit():
    """Number of the operator that class 2 of ``two_states`` lacks."""
    return next(i for i, op in enumerate(symmetry_operators("D2")) if np.allclose(op, np.diag([-1, 1, -1])))


def _compare(shared, name, star, group, amplitude, change=None, limit=200):
    """Slope of each particle of a group on its noise-free image, and its product with that image at unit length."""
    folder = shared / "reference" / name
    p = open_particles(folder / star, images=False)

    truth = next(b for b in read_star(folder / "truth.star").values() if "rlnAngleRot" in b)
    rows = np.nonzero(p.optics_group.values == group)[0][:limit]
    optics = optics_groups(p)[group]
    p = select_particles(p, rows)
    n = len(rows)

    def column(label):
        return np.asarray(truth[label], float)[rows]

    columns = {c: p[c].values for c in ("defocus_u", "defocus_v", "defocus_angle")}
    columns |= {f"true_angle_{a}": column(f"rlnAngle{a.title()}") for a in ("rot", "tilt", "psi")}
    columns |= {f"true_shift_{a}": column(f"rlnOrigin{a.upper()}Angst") for a in "xy"}
    columns |= {"true_scale": column("trueMicrographScale"), "true_class": column("rlnClassNumber").astype(int)}
    columns |= {"phase_shift": np.zeros(n), "junk_kind": np.full(n, "none", "<U10")}
    whole = _molecule(shared)
    settings = ParticleSettings(
        n, optics.box_size, replace(optics, **(change or {})), (whole, whole.without_subunit(_missing_subunit())),
        (1.0, 1.0), amplitude=amplitude, envelope_b_factor=80.0,
    )  # fmt: skip
    renderer = Renderer(settings, columns, amplitude)
    clean = np.concatenate([renderer.images(np.arange(n)[i : i + 16], 0.0) for i in range(0, n, 16)]).astype(float)
    images = StackSource(p.image_name.values, folder, box=optics.box_size).read(np.arange(n))
    observed = images * column("trueNormDivisor")[:, None, None]
    clean -= clean.mean((1, 2), keepdims=True)
    product, power = (clean * observed).sum((1, 2)), (clean**2).sum((1, 2))
    return product / power, product / np.sqrt(power)


SETS = [
    ("betagal_noisy", "particles.star", 1, 2.0),
    ("premultiplied", "particles_true.star", 1, 12.0),
    ("two_groups", "particles_true.star", 1, 6.0),
    ("two_groups", "particles_true.star", 2, 6.0),
    ("two_states", "particles.star", 1, 3.2),
]


@pytest.mark.parametrize(("name", "star", "group", "amplitude"), SETS, ids=lambda v: str(v))
def test_clean_images_explain_the_reference_particles_with_slope_one(shared, name, star, group, amplitude):
    slope, _ = _compare(shared, name, star, group, amplitude)
    error = slope.std() / np.sqrt(len(slope))
    print(f"{name} group {group}: slope {slope.mean():.4f} +- {error:.4f}")
    assert error < 0.012
    assert abs(slope.mean() - 1) < max(3.5 * error, 0.004)


@pytest.mark.parametrize(
    "change",
    [
        {"beam_tilt": (0.0, 0.0)},
        {"beam_tilt": (-3.0, 2.0)},
        {"even_zernike": ()},
        {"magnification": ((1.0, 0.0), (0.0, 1.0))},
        {"spherical_aberration": 0.0},
    ],
    ids=lambda c: next(iter(c)),
)
def test_leaving_out_an_aberration_shows(shared, change):
    _, right = _compare(shared, "two_groups", "particles_true.star", 2, 6.0)
    _, wrong = _compare(shared, "two_groups", "particles_true.star", 2, 6.0, change)
    assert (right - wrong).mean() > 4 * (right - wrong).std() / np.sqrt(len(right))


def test_volume_is_the_reference_sets_true_map(shared):
    truth, _ = read_mrc(shared / "reference/betagal_noisy/truth_map.mrc")
    ours = simulate.volume(_molecule(shared), 64, 3.54, amplitude=2.0).values
    assert np.sqrt(((ours - truth) ** 2).mean()) < 0.01 * np.sqrt((truth**2).mean())
