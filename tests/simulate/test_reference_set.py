"""The same images as the reference set, which was simulated elsewhere and checked against RELION."""

import numpy as np

from cryotk import simulate
from cryotk.data import open_particles, optics_groups
from cryotk.geometry import symmetry_operators
from cryotk.io.mrc import read_mrc
from cryotk.io.star import read_star
from cryotk.simulate.images import Renderer
from cryotk.simulate.plan import ParticleSettings


def _reference_molecule(shared):
    table = np.loadtxt(shared / "reference/betagal_noisy/pseudo_atoms.tsv", skiprows=1)
    operators = symmetry_operators("D2")
    return simulate.Molecule(
        np.concatenate([table[:, :3] @ op.T for op in operators]),
        np.tile(table[:, 3], 4),
        name="reference",
        symmetry="D2",
    )


def test_volume_is_the_reference_sets_true_map(shared):
    truth, _ = read_mrc(shared / "reference/betagal_noisy/truth_map.mrc")
    ours = simulate.volume(_reference_molecule(shared), 64, 3.54, amplitude=2.0).values
    assert np.sqrt(((ours - truth) ** 2).mean()) < 0.01 * np.sqrt((truth**2).mean())


def test_clean_images_explain_the_reference_particles_with_amplitude_one(shared):
    """Regression of the noisy particles on our noise-free ones; errors of sign or scale anywhere would show."""
    folder = shared / "reference/betagal_noisy"
    p = open_particles(folder / "particles.star")
    truth = next(b for b in read_star(folder / "truth.star").values() if "rlnAngleRot" in b)
    n = 200
    columns = {name: p[name].values[:n] for name in ("defocus_u", "defocus_v", "defocus_angle")}
    columns |= {f"true_angle_{a}": np.asarray(truth[f"rlnAngle{a.title()}"], float)[:n] for a in ("rot", "tilt", "psi")}
    columns |= {f"true_shift_{a}": np.asarray(truth[f"rlnOrigin{a.upper()}Angst"], float)[:n] for a in "xy"}
    columns |= {"true_scale": np.asarray(truth["trueMicrographScale"], float)[:n]}
    columns |= {"phase_shift": np.zeros(n), "true_class": np.ones(n, int), "junk_kind": np.full(n, "none", "<U10")}
    settings = ParticleSettings(
        n, 64, optics_groups(p)[1], (_reference_molecule(shared),), (1.0,), amplitude=2.0, envelope_b_factor=80.0
    )
    clean = Renderer(settings, columns, 2.0).images(np.arange(n), 0.0).astype(float)
    observed = p.images.values[:n] * np.asarray(truth["trueNormDivisor"], float)[:n, None, None]
    clean -= clean.mean((1, 2), keepdims=True)
    slope = (clean * observed).sum((1, 2)) / (clean**2).sum((1, 2))
    assert abs(slope.mean() - 1) < 4 * slope.std() / np.sqrt(n)
    assert slope.std() / np.sqrt(n) < 0.01
    # what is left is noise of the variance it was given: nothing of the particles remains
    left = observed - clean
    left -= left.mean((1, 2), keepdims=True)
    power = [(np.abs(np.fft.rfft2(v)) ** 2).mean(0) for v in (left, observed, clean)]
    assert np.allclose((power[0] + power[2]).sum(), power[1].sum(), rtol=0.01)
