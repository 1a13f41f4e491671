"""Post-processing against RELION 5.0.1 on the same half-maps, and against others' RELION projects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

import cryotk as ctk
from cryotk.errors import DataWarning
from cryotk.io import read_mrc, read_star
from cryotk.maps import curves, gains
from cryotk.maps.curves import correct_for_mask, fit_guinier, last_shell_above, randomisation_shell, resolution_of_shell
from cryotk.maps.postprocess_result import FSC_LABELS, GUINIER_LABELS
from cryotk.maps.transform import shell_means

pytestmark = [pytest.mark.golden, pytest.mark.filterwarnings("ignore::cryotk.errors.DataWarning")]

VARIANTS = {
    "auto": {"b_factor_lowres": 20}, "nomask": {"b_factor_lowres": 20}, "mtf": {"b_factor_lowres": 20, "mtf_pixel_size": 0.885, "compat": "relion"},
    "adhoc": {"b_factor": -150, "lowpass": 15}, "skipfsc": {"b_factor": -150, "fsc_weighting": False},
    "molweight": {"b_factor_lowres": 20, "molecular_weight": 460}, "randA": {"b_factor_lowres": 20, "randomise_from": 18},
    "highres": {"b_factor_lowres": 25, "b_factor_highres": 12},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(half1, mask, detector):
    done = {}

    def running(name):
        if name not in done:
            options = dict(VARIANTS[name])
            if name == "mtf":
                options |= {"mtf": detector}
            done[name] = ctk.postprocess(half1, mask=None if name == "nomask" else mask, pixel_size=3.54, **options)
        return done[name]

    return running


@pytest.fixture(scope="module")
def detector(half1, reference):
    """The made-up detector of RELION's run, whose file is not kept: the table of 51 rows that its printed Guinier points determine.

    14 rows lie inside Nyquist, 33 points are printed; the maps compared below took no part. RELION's reading of a table (between
    which rows, where it begins) is in the equations: another number of rows leaves 20 times the printed digits unexplained.
    """
    printed = ctk.open_postprocess(reference / "postprocess/mtf.star").guinier["mtf"].values
    by_radius = ctk.postprocess(half1, pixel_size=3.54, b_factor=0.0)._need_spectrum().by_radius

    def table(logarithms, rows):
        inner = np.exp(logarithms)
        return np.linspace(0, 0.5, rows), np.concatenate([[1.0], inner, np.full(rows - 1 - len(inner), inner[-1])])

    def left(logarithms, rows):
        gain = gains.mtf_gain(64, 3.54, table(logarithms, rows), 0.885, "relion")
        return np.log(shell_means(by_radius, 64, gain)) - printed

    found = {}
    for rows in (51, 60):
        start = -7 * (np.linspace(0, 0.5, rows)[1 : 2 + int(0.125 * 2 * (rows - 1))]) ** 2
        found[rows] = least_squares(left, start, args=(rows,), xtol=1e-14, ftol=1e-14)
    assert np.abs(found[51].fun).max() < 5.1e-6  # negative numbers are printed with 5 decimals
    assert np.abs(found[60].fun).max() > 1e-4
    return table(found[51].x, 51)


@pytest.mark.parametrize("name", VARIANTS)
def test_deterministic_curves(run, reference, name):
    ours, theirs = run(name), ctk.open_postprocess(reference / f"postprocess/{name}.star")
    for variable in ("unmasked", "masked", "particle_fraction_mask", "particle_fraction_weight"):
        assert (variable in ours.fsc) == (variable in theirs.fsc), variable
        if variable in theirs.fsc:
            np.testing.assert_allclose(ours.fsc[variable], theirs.fsc[variable], atol=1e-4, err_msg=variable)
    np.testing.assert_allclose(ours.fsc.frequency[1:], theirs.fsc.frequency[1:], rtol=1e-6)
    np.testing.assert_allclose(ours.guinier.inverse_resolution_squared, theirs.guinier.inverse_resolution_squared, atol=5.1e-7)
    np.testing.assert_allclose(ours.guinier["original"], theirs.guinier["original"], atol=1e-4)
    if theirs.randomise_from is not None:
        assert ours.randomise_from == pytest.approx(theirs.randomise_from, abs=1e-5)
        assert ours.box_fraction_mask == pytest.approx(theirs.box_fraction_mask, abs=1e-5)
    if theirs.molecular_weight is not None:
        assert ours.box_fraction_weight == pytest.approx(theirs.box_fraction_weight, rel=1e-6)


@pytest.mark.parametrize(("name", "masked"), [(n, m) for n in ("nomask", "adhoc", "mtf", "auto") for m in (False, True) if (n, m) != ("nomask", True)])
def test_sharpened_maps_given_relions_curve(run, reference, name, masked):
    """The map that RELION's own corrected FSC and B-factor give is RELION's map."""
    ours, theirs = run(name), ctk.open_postprocess(reference / f"postprocess/{name}.star")
    ours.fsc["corrected"].values[:] = theirs.fsc["corrected"].values
    volume = ours.sharpened(theirs.b_factor, VARIANTS[name].get("lowpass"))
    if masked:
        volume = volume * ours.mask
    n = ours.box_size // 2
    slices = np.stack([volume.values[n], volume.values[:, n], volume.values[:, :, n]])
    expected, _ = read_mrc(reference / f"postprocess/{name}{'_masked' if masked else ''}_slices.mrcs")
    assert np.corrcoef(slices.ravel(), expected.ravel())[0, 1] > 1 - 1e-9
    assert np.abs(slices - expected).max() < 1e-4 * expected.std()


@pytest.mark.parametrize("name", ["auto", "mtf", "molweight", "randA", "highres", "nomask"])
def test_guinier_given_relions_curve(run, reference, name):
    """Weighted points, fit and sharpened points, with RELION's corrected FSC."""
    ours, theirs = run(name), ctk.open_postprocess(reference / f"postprocess/{name}.star")
    spectrum = ours._need_spectrum()
    ours.fsc["corrected"].values[:] = theirs.fsc["corrected"].values
    from cryotk.maps.postprocess import _guinier
    from cryotk.maps.postprocess_result import Spectrum

    spectrum = Spectrum(spectrum.transform, spectrum.by_radius, spectrum.mtf, curves.fsc_weights(theirs.fsc["corrected"].values))
    options = VARIANTS[name]
    points, fit = _guinier(spectrum, ours.box_size, ours.pixel_size, True, options["b_factor_lowres"], options.get("b_factor_highres"), True)
    # the FSC is printed with 6 decimals (its logarithm enters)
    curve = np.maximum(theirs.fsc["corrected"].values, 1e-4)
    tolerance = 2e-5 + 5e-7 / (2 * curve)
    for ours_, theirs_ in ((points["weighted"].values, theirs.guinier["weighted"].values),
                           (ours.sharpened_amplitudes(theirs.b_factor), theirs.guinier["sharpened"].values)):  # fmt: skip
        np.testing.assert_array_equal(np.isnan(ours_), np.isnan(theirs_))
        assert np.all(np.nan_to_num(np.abs(ours_ - theirs_)) <= tolerance)
    assert fit.slope == pytest.approx(theirs.guinier.attrs["slope"], rel=2e-5)
    assert fit.intercept == pytest.approx(theirs.guinier.attrs["intercept"], abs=5e-5)
    assert fit.correlation == pytest.approx(theirs.guinier.attrs["correlation"], abs=2e-5)
    assert fit.b_factor == pytest.approx(theirs.b_factor, rel=2e-5)


def test_random_parts_are_within_relions_spread(half1, mask, reference):
    """Corrected FSC, resolution and B-factor lie where RELION's seeds lie."""
    table = np.genfromtxt(reference / "postprocess/seed_spread.tsv", names=True)
    label = "rlnFourierShellCorrelationCorrected"
    mean, spread = table[f"{label}_mean"], table[f"{label}_sd"]
    summary = np.genfromtxt(reference / "postprocess/summary.tsv", names=True, dtype=None, encoding="utf8")
    seeds = [row for row in summary if row["run"] == "auto" or row["run"].startswith("seed")]
    resolutions, b = [row["final_resolution"] for row in seeds], np.array([row["bfactor"] for row in seeds])
    ours = [ctk.postprocess(half1, mask=mask, pixel_size=3.54, b_factor_lowres=20, seed=s) for s in range(6)]
    average = np.mean([r.fsc["corrected"].values for r in ours], 0)
    assert np.all(np.abs(average - mean) <= 3 * spread + 1e-4)
    assert all(min(resolutions) - 0.4 < r.resolution < max(resolutions) + 0.4 for r in ours)
    assert np.all(np.abs(np.array([r.b_factor for r in ours]) - b.mean()) <= 3 * b.std(ddof=1))


def test_files_are_relions(run, tmp_path, reference):
    """Labels, order and values of what is saved; reading it gives the result back."""
    for name in ("auto", "molweight", "nomask"):
        star = run(name).save(tmp_path / name)
        ours, theirs = read_star(star), read_star(reference / f"postprocess/{name}.star")
        assert list(ours) == list(theirs) == ["general", "fsc", "guinier"]
        for block in ours:
            assert list(ours[block].columns) == list(theirs[block].columns), (name, block)
        back = ctk.open_postprocess(star)
        assert back.resolution == pytest.approx(run(name).resolution, rel=1e-6) and back.volume is not None
        np.testing.assert_array_equal(back.volume.values, run(name).volume.values)
        for variable in back.fsc:
            np.testing.assert_allclose(back.fsc[variable], run(name).fsc[variable], atol=6e-6)
        assert (tmp_path / name / "postprocess_fsc.xml").read_text().count("<coordinate>") == 33
        assert np.loadtxt(tmp_path / name / "postprocess_fsc.dat").shape == (33, 2)
    masked, _ = read_mrc(tmp_path / "auto/postprocess_masked.mrc")
    np.testing.assert_array_equal(masked, run("auto").masked.values)
    assert back.masked is None
    # CTF refinement and polishing need these
    general = read_star(tmp_path / "auto/postprocess.star")["general"]
    assert all(label in general for label in ("rlnUnfilteredMapHalf1", "rlnUnfilteredMapHalf2", "rlnMaskName"))


def test_names_of_columns_are_in_the_attributes(run):
    r = run("auto")
    assert all(r.fsc[k].attrs["relion_label"] == FSC_LABELS[k] for k in r.fsc)
    assert all(r.guinier[k].attrs["relion_label"] == GUINIER_LABELS[k] for k in r.guinier)


@pytest.mark.parametrize("path", [
    "relion31_spa_betagal/PostProcess/job021/postprocess.star", "relion31_spa_betagal/PostProcess/job030/postprocess.star",
    "postprocess_empiar11233/iter0.star",
])  # fmt: skip
def test_real_projects(shared, path):
    """Corrected FSC from its parts and the Guinier fit from its points, to the printed digits."""
    r = ctk.open_postprocess(shared / "data" / path)
    f, g = r.fsc, r.guinier
    shell = round(f.attrs["box_size"] * r.pixel_size / r.randomise_from)
    assert randomisation_shell(f["unmasked"].values) == shell
    # printed with 6 decimals, negative ones with 5: the parts' rounding is what is left
    m, n = f["masked"].values, f["randomised"].values
    rest = np.where(np.arange(len(m)) < shell + 2, 1.0, 1 - n)
    rounding = np.where(m < 0, 5e-6, 5e-7) / rest + np.where(n < 0, 5e-6, 5e-7) * np.abs(1 - m) / rest**2
    rounding = np.where(np.arange(len(m)) < shell + 2, 0, rounding) + np.where(f["corrected"] < 0, 5e-6, 5e-7)
    assert np.all(np.abs(correct_for_mask(m, n, shell) - f["corrected"]) <= 1.01 * rounding)
    fit = fit_guinier(g.inverse_resolution_squared.values, g["weighted"].values, 10)
    assert fit.slope == pytest.approx(g.attrs["slope"], abs=2e-5) and fit.intercept == pytest.approx(g.attrs["intercept"], abs=1e-5)
    assert fit.correlation == pytest.approx(g.attrs["correlation"], abs=2e-6)
    assert fit.b_factor == pytest.approx(r.b_factor, abs=1e-4)
    assert resolution_of_shell(last_shell_above(f["corrected"].values), f.attrs["box_size"], r.pixel_size) == pytest.approx(r.resolution, rel=1e-6)
    assert r.volume is None and r.masked is None and "Å" in repr(r)


def test_real_half_maps_end_to_end(shared, tmp_path):
    """Two half-maps of a real refinement: mask, resolution, B-factor; 0.5 and 0.143 where they are known to be."""
    half1 = shared / "data/relion2_spa_betagal/Refine3D/job020/run_half1_class001_unfil.mrc"
    unmasked = ctk.postprocess(half1, pixel_size=3.54, b_factor=-300)
    assert unmasked.fsc.attrs["resolution_interpolated"] == pytest.approx(7.4, abs=0.1)
    below = unmasked.fsc.resolution.values[1:][unmasked.fsc["unmasked"].values[1:] < 0.5][0]
    assert below == pytest.approx(9.3, abs=0.35)
    m = ctk.create_mask(half1, soft_edge_px=6, pixel_size=3.54)
    r = ctk.postprocess(half1, mask=m.mask, pixel_size=3.54)
    assert r.resolution == pytest.approx(7.08, abs=0.01)  # Nyquist
    # RELION 3.1.3 on these maps and a similar mask: -523 to -527
    assert -560 < r.b_factor < -490 and r.guinier.attrs["correlation"] > 0.95 and not r.warnings
    back = ctk.open_postprocess(r.save(tmp_path))
    assert back.b_factor == pytest.approx(r.b_factor, rel=1e-5)
    assert (tmp_path / "postprocess_mask.mrc").exists()


def test_warning_worse_than_10(half1):
    with pytest.warns(DataWarning, match=r"does not work at worse than 10 Å.*Give b_factor= by hand"):
        ctk.postprocess(half1, pixel_size=3.54)
