"""One expectation and maximisation step from RELION's own state gives RELION's own next state."""

import numpy as np
import pytest

from cryotk.data import RefinementModel, SamplingSettings, open_particles
from cryotk.fourier import lowpass
from cryotk.io import read_mrc, read_star
from cryotk.jobs.maximization import MaximizationSettings, maximize
from cryotk.jobs.particle_set import ParticleSet
from cryotk.jobs.step import Particles, StepContext, StepSettings, run_expectation

pytestmark = pytest.mark.golden

T = "two_states/"
# folder, particles, references, initial low-pass, order, range and step (px), symmetry, T, align, iteration
CASES = {
    "step2d": ("step2d", "betagal_noisy/subset200.star", ["betagal_noisy/refs2d.mrcs"], None, None, 5, 2, "C1", 2, True, 1),
    "step3d": ("step3d", T + "tetramers125.star", [T + "ref40.mrc"], 40, 2, 5, 2, "D2", 4, True, 1),
    "step3d_it2": (
        "step3d", T + "tetramers125.star", ["one_step/step3d/run_it001_class001.mrc"], None, 2, 5, 2, "D2", 4, True, 2,
    ),
    "step3d_local": (
        "step3d_local", T + "tetramers125_perturbed.star", [T + "truth_class1.mrc"], 15, 4, 3, 2, "D2", 4, True, 1,
    ),
    "step3d_k2": (
        "step3d_k2", T + "subset125.star", [T + "truth_class1.mrc", T + "truth_class2.mrc"], 30, 2, 4, 2, "C1", 4, True, 1,
    ),
    "skip_align": (
        "skip_align", T + "particles_true.star", [T + "truth_class1.mrc", T + "truth_class2.mrc", T + "ref40.mrc"], 30, 2, 5, 2, "C1",
        4, False, 1,
    ),
}  # fmt: skip


def _references(root, files, initial):
    maps = []
    for f in files:
        x, h = read_mrc(root / f)
        a = float(np.float32(h.cell[0])) / x.shape[-1]
        x = x.astype(float)
        if f.endswith(".mrcs"):
            return x, a
        maps.append(lowpass(x, a, initial).astype(np.float32).astype(float) if initial else x)
    return np.array(maps), a


def _model(m, refs, a, data):
    k, s = len(refs), refs.shape[-1] // 2 + 1

    def spectra(label):
        return np.array([np.asarray(m[f"model_class_{i + 1}"].get(label, np.zeros(s)), float) for i in range(k)])

    noise = np.zeros((1, s))
    block = m["model_optics_group_1"]
    noise[0, np.asarray(block["rlnSpectralIndex"], int)] = block["rlnSigma2Noise"]
    g = m["model_general"]
    directions = None
    if "model_pdf_orient_class_1" in m:
        directions = np.array([m[f"model_pdf_orient_class_{i + 1}"]["rlnOrientationDistribution"] for i in range(k)], float)
    return RefinementModel(
        references=refs, pixel_size=a, noise_power=noise,
        class_distribution=np.asarray(m["model_classes"]["rlnClassDistribution"], float), prior_power=spectra("rlnReferenceTau2"),
        data_vs_prior=spectra("rlnSsnrMap"), reference_noise=spectra("rlnReferenceSigma2"),
        fourier_completeness=spectra("rlnFourierCompleteness"), gold_standard_fsc=np.zeros((k, s)), group_names=data.group_names,
        group_counts=data.group_counts, group_scales=np.asarray(m["model_groups"]["rlnGroupScaleCorrection"], float),
        direction_distribution=directions, prior_offset=np.zeros((k, 2)) if refs.ndim == 3 else None,
        norm_average=g["rlnNormCorrectionAverage"], sigma_offset=g["rlnSigmaOffsetsAngst"], padding=g["rlnPaddingFactor"],
        tau2_fudge=g["rlnTau2FudgeFactor"], orientational_prior_mode=g["rlnOrientationalPriorMode"],
        sigma_rot=g["rlnSigmaPriorRotAngle"], sigma_tilt=g["rlnSigmaPriorTiltAngle"], sigma_psi=g["rlnSigmaPriorPsiAngle"],
    )  # fmt: skip


def _key(names):
    return np.array([int(str(n).partition("@")[0]) for n in names])


def _rows(table, label):
    return np.asarray(table[label], float)[np.argsort(_key(table["rlnImageName"]))]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_one_step_is_relions(shared, case):
    root = shared / "reference"
    folder, star, files, initial, order, offset_range, offset_step, symmetry, t, align, number = CASES[case]
    where = root / "one_step" / folder
    particles = open_particles(root / star)
    data = ParticleSet.from_dataset(particles)
    refs, a = _references(root, files, initial)
    before, after = (read_star(where / f"run_it{i:03d}_model.star") for i in (number - 1, number))
    model = _model(before, refs, a, data)
    is_3d = refs.ndim == 4
    back = np.argsort(np.argsort(_key(particles.image_name.values)))
    poses, shifts, norm = data.poses, data.shifts, data.norm
    if number == 2:
        table = read_star(where / "run_it001_data.star")["particles"]
        poses = np.stack([_rows(table, f"rlnAngle{x}") for x in ("Rot", "Tilt", "Psi")], -1)[back]
        shifts = np.stack([_rows(table, f"rlnOrigin{x}Angst") for x in "XY"], -1)[back]
        norm = _rows(table, "rlnNormCorrection")[back]
    if is_3d:
        # the header's pixel is a little smaller than the optics pixel: offsets of half a pixel round towards zero
        shifts = shifts * (1 - 1e-8)
    settings = SamplingSettings(
        is_3d, order or 2, symmetry, psi_step=11.25, offset_range=offset_range * a, offset_step=offset_step * a, perturbation=0.0
    )
    step = 11.25 if not is_3d else 360 / (6 * 2**order)
    size = int(after["model_general"]["rlnCurrentImageSize"])
    context = StepContext(model, settings, StepSettings(compat="relion", align=align), data, Particles(poses, shifts, norm), size, step)
    e = run_expectation(context)
    new, _ = maximize(e, MaximizationSettings(tau2_fudge=t, align=align, compat="relion"))

    table = read_star(where / f"run_it{number:03d}_data.star")["particles"]
    mine = np.argsort(_key(particles.image_name.values))
    assert np.array_equal(_rows(table, "rlnClassNumber"), e.class_number[mine])
    for i, label in enumerate(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")):
        if is_3d or label == "rlnAnglePsi":
            off = (_rows(table, label) - e.poses[mine, i] + 180) % 360 - 180
            assert np.abs(off).max() < 1e-3
    for i, x in enumerate("XY"):
        assert np.abs(_rows(table, f"rlnOrigin{x}Angst") - e.shifts[mine, i]).max() < 1e-3
    assert np.array_equal(_rows(table, "rlnNrOfSignificantSamples"), e.n_significant[mine])
    assert np.abs(_rows(table, "rlnMaxValueProbDistribution") - e.p_max[mine]).max() < 3e-5
    assert np.abs(_rows(table, "rlnNormCorrection") - e.norm[mine]).max() < 3e-6
    assert np.abs(_rows(table, "rlnLogLikeliContribution") - e.log_likelihood[mine]).max() < 1e-2

    golden = _model(after, refs, a, data)
    inside = slice(0, size // 2)

    def relative(x, y):
        x, y = np.asarray(x)[..., inside], np.asarray(y)[..., inside]
        return np.abs(x / np.where(y > 0, y, np.inf) - 1)[y > 0].max()

    assert relative(new.noise_power, golden.noise_power) < 1e-5
    assert relative(new.prior_power, golden.prior_power) < 5e-3
    assert relative(new.data_vs_prior, golden.data_vs_prior) < 5e-3
    assert relative(new.reference_noise, golden.reference_noise) < 5e-3
    assert np.abs(new.group_scales - golden.group_scales).max() < 5e-6
    assert np.abs(new.class_distribution - golden.class_distribution).max() < 5e-6
    assert abs(new.sigma_offset - golden.sigma_offset) < 1e-5
    assert abs(new.norm_average - golden.norm_average) < 1e-5
    assert new.current_resolution == pytest.approx(after["model_general"]["rlnCurrentResolution"], rel=1e-4)
    for i in range(len(refs)):
        path = where / (f"run_it{number:03d}_class{i + 1:03d}.mrc" if is_3d else f"run_it{number:03d}_classes.mrcs")
        if path.exists():
            stored = read_mrc(path)[0]
            stored = stored if is_3d else stored[i]
            assert np.linalg.norm(new.references[i] - stored) / np.linalg.norm(stored) < 5e-3
