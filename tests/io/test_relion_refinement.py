"""RELION's refinement files as iterations, and back to files that RELION reads."""

import shutil
import subprocess
import warnings

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import DataWarning, FileFormatError, MissingFileError, SettingsError
from cryotk.io import StarBlock, read_star, write_mrc, write_star
from cryotk.io.relion_read import find_near
from cryotk.io.relion_refinement import open_iteration, open_sampling
from cryotk.io.relion_write import OPTIMISER_DEFAULTS, write_iteration


@pytest.fixture
def step2d(golden):
    return golden / "one_step" / "step2d"


def test_a_2d_classification_of_relion_5(step2d):
    it = open_iteration(step2d / "run_it001_optimiser.star")
    m = it.model
    assert it.number == 1 and m.references.shape == (6, 64, 64) and not m.is_3d
    assert m.pixel_size == 3.54 and m.current_size == 42 and m.current_resolution == 20.596363
    assert m.norm_average == 0.779745 and m.sigma_offset == 4.200467 and m.tau2_fudge == 2
    assert m.class_distribution.sum() == pytest.approx(1, abs=1e-5) and m.class_distribution[3] == 0.306001
    assert m.noise_power.shape == (1, 33) and m.prior_offset[0].tolist() == [-0.02948, 0.015002]
    assert len(m.group_names) == len(m.group_scales) == 25 and m.group_counts.sum() == 200
    assert it.sampling.psi_step == 11.25 and it.sampling.offset_range == 17.7 and not it.sampling.is_3d
    assert it.convergence.changes_class == 1 and it.convergence.accuracy_translation == 4.3188
    a = it.assignments
    assert a.sizes["particle"] == 200 and a.class_number.values[0] == 6 and a.shift_x.attrs["units"] == "Å"
    assert a.max_probability.values[0] == 0.239988 and a.image_name.values[1] == "000006@betagal_noisy/particles.mrcs"
    assert it.numbers["mean_significant"] == pytest.approx(a.n_significant.mean())
    assert it.optimiser["rlnParticleDiameter"] == 200


def test_a_3d_refinement_with_directions_and_local_priors(golden):
    it = open_iteration(golden / "one_step/step3d_local/run_it001_optimiser.star")
    assert it.model.is_3d and it.model.references.shape == (1, 48, 48, 48) and it.model.references.any()
    assert it.sampling.healpix_order == 4 and it.sampling.symmetry == "D2"
    assert it.model.direction_distribution.shape[1] == len(it.sampling.directions)
    assert it.model.sigma_rot == pytest.approx(1.667) and it.model.orientational_prior_mode == 1
    assert it.model.prior_offset is None


def test_a_model_file_alone_and_maps_that_are_gone(step2d):
    with pytest.warns(DataWarning, match="6 of 6 reference maps are not there"):
        it = open_iteration(step2d / "run_it000_model.star")
    assert it.number == 0 and not it.model.references.any() and it.assignments.sizes.get("particle", 0) == 0
    assert np.isinf(it.model.current_resolution) and it.optimiser == {}


def test_a_job_folder_in_its_project_or_copied_elsewhere(step2d, tmp_path):
    project = tmp_path / "project"
    it = open_iteration(step2d / "run_it001_optimiser.star")
    path = write_iteration(project / "Class2D" / "job003", it, project_dir=project)
    assert read_star(path)["optimiser_general"]["rlnModelStarFile"] == "Class2D/job003/run_it001_model.star"
    inside = open_iteration(path)
    shutil.move(path.parent, tmp_path / "copy")
    moved = open_iteration(tmp_path / "copy" / path.name)
    for other in (inside, moved):
        assert np.array_equal(other.model.references, it.model.references)
        assert other.assignments.sizes["particle"] == 200


def test_files_that_are_something_else(step2d, tmp_path):
    with pytest.raises(FileFormatError, match="neither an optimiser nor a model file: it has data_optics"):
        open_iteration(step2d / "run_it001_data.star")
    with pytest.raises(MissingFileError, match="no such file"):
        open_iteration(tmp_path / "run_it001_optimiser.star")
    shutil.copy(step2d / "run_it001_optimiser.star", tmp_path)
    with pytest.raises(MissingFileError, match=r"names the model file 'run_it001_model\.star'.*copy it beside"):
        open_iteration(tmp_path / "run_it001_optimiser.star")
    with pytest.raises(FileFormatError, match="not a sampling file"):
        open_sampling(step2d / "run_it001_model.star")


def test_a_map_of_another_size_is_not_taken(step2d, tmp_path):
    for f in step2d.glob("run_it001_model.star"):
        shutil.copy(f, tmp_path)
    write_mrc(tmp_path / "run_it001_classes.mrcs", np.zeros((6, 32, 32)), 3.54, is_stack=True)
    with pytest.raises(FileFormatError, match=r"map of class 1 has \(32, 32\) voxels"):
        open_iteration(tmp_path / "run_it001_model.star")


def _old_files(folder, per_angstrom):
    """RELION 3.1 (per Å) or older (per pixel): noise spectra per scale group, maybe offsets in pixels."""
    offset, accuracy = (
        ("SigmaOffsetsAngst", "AccuracyTranslationsAngst") if per_angstrom else ("SigmaOffsets", "AccuracyTranslations")
    )
    shells = np.arange(9)
    general = {
        "rlnReferenceDimensionality": 2, "rlnDataDimensionality": 2, "rlnOriginalImageSize": 16, "rlnCurrentResolution": 8.0,
        "rlnCurrentImageSize": 12, "rlnPixelSize": 2.0, "rlnNrClasses": 1, "rlnNrGroups": 2, f"rln{offset}": 3.0,
    }  # fmt: skip
    write_mrc(folder / "run_it007_classes.mrcs", np.ones((1, 16, 16)), 2.0, is_stack=True)
    blocks = [
        StarBlock("model_general", general, False),
        StarBlock("model_classes", {
            "rlnReferenceImage": np.array(["000001@Class2D/job1/run_it007_classes.mrcs"], object),
            "rlnClassDistribution": np.ones(1),
            f"rln{accuracy}": np.array([0.5]), "rlnClassPriorOffsetX": np.array([0.25]), "rlnClassPriorOffsetY": np.array([-0.5]),
        }),
        StarBlock("model_groups", {
            "rlnGroupNumber": np.array([1, 2]), "rlnGroupName": np.array(["a", "b"], object),
            "rlnGroupNrParticles": np.array([3, 1]),
            "rlnGroupScaleCorrection": np.array([0.9, 1.1]),
        }),
    ]  # fmt: skip
    for g, level in ((1, 1.0), (2, 5.0)):
        blocks.append(StarBlock(f"model_group_{g}", {"rlnSpectralIndex": shells, "rlnSigma2Noise": np.full(9, level)}))
    write_star(folder / "run_it007_model.star", {b.name: b for b in blocks})
    table = {
        "rlnImageName": np.array([f"{i + 1}@s.mrcs" for i in range(4)], object), "rlnGroupNumber": np.array([1, 1, 1, 2]),
        "rlnClassNumber": np.ones(4, int), "rlnAnglePsi": np.zeros(4),
    }  # fmt: skip
    table |= (
        {"rlnOriginXAngst": np.full(4, 1.5)} if per_angstrom else {"rlnOriginX": np.full(4, 1.5), "rlnOriginY": np.full(4, -2.0)}
    )
    name = "particles" if per_angstrom else ""
    write_star(folder / "run_it007_data.star", {name: StarBlock(name, table)})
    sampling = {"rlnIs3DSampling": False, "rlnPsiStep": 6.0, "rlnOffsetRange": 5.0, "rlnOffsetStep": 2.0}
    write_star(folder / "run_it007_sampling.star", {"sampling_general": StarBlock("sampling_general", sampling, False)})
    optimiser = {
        "rlnOutputRootName": "Class2D/job1/run", "rlnModelStarFile": "Class2D/job1/run_it007_model.star",
        "rlnExperimentalDataStarFile": "Class2D/job1/run_it007_data.star", "rlnCurrentIteration": 7,
        "rlnOrientSamplingStarFile": "Class2D/job1/run_it007_sampling.star", "rlnChangesOptimalOffsets": 0.5,
        f"rlnOverall{accuracy}": 0.25, "rlnSmallestChangesOffsets": 999.0,
    }  # fmt: skip
    write_star(folder / "run_it007_optimiser.star", {"optimiser_general": StarBlock("optimiser_general", optimiser, False)})
    return folder / "run_it007_optimiser.star"


@pytest.mark.parametrize(("per_angstrom", "unit"), [(True, 1.0), (False, 2.0)])
def test_old_dialects_come_in_angstrom(tmp_path, per_angstrom, unit):
    it = open_iteration(_old_files(tmp_path, per_angstrom))
    assert it.number == 7 and it.model.references.all()
    assert it.model.sigma_offset == 3 * unit and it.model.accuracy_translation.tolist() == [0.5 * unit]
    assert it.model.prior_offset.tolist() == [[0.25 * unit, -0.5 * unit]]
    assert (it.sampling.offset_range, it.sampling.offset_step) == (5 * unit, 2 * unit)
    assert (it.sampling.offset_range_original, it.sampling.offset_step_original) == (5 * unit, 2 * unit)
    assert it.assignments.shift_x.values[0] == 1.5 * unit
    assert it.convergence.changes_offset == 0.5 * unit and it.convergence.accuracy_translation == 0.25 * unit
    assert it.convergence.smallest_changes_offset == 999, "999 means unknown in any unit"


def test_noise_per_scale_group_becomes_noise_per_optics_group(tmp_path):
    path = _old_files(tmp_path, True)
    assert open_iteration(path).model.noise_power.tolist() == [[2.0] * 9], "three particles of level 1, one of level 5"
    blocks = read_star(tmp_path / "run_it007_data.star")
    blocks["particles"].columns["rlnOpticsGroup"] = np.array([1, 1, 2, 2])
    write_star(tmp_path / "run_it007_data.star", blocks)
    assert open_iteration(path).model.noise_power.tolist() == [[1.0] * 9, [3.0] * 9]


@pytest.mark.parametrize("name", ["step2d/run_it001", "step3d/run_it001", "step3d_k2/run_it001", "step3d_local/run_it001"])
def test_relions_own_files_are_rewritten_to_the_byte(golden, tmp_path, name):
    original = golden / "one_step" / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        it = open_iteration(f"{original}_optimiser.star")
    header = original.with_name(original.name + "_optimiser.star").read_text().splitlines()[1]
    path = write_iteration(tmp_path, it, command=header.removeprefix("# ").removesuffix(" "))
    for what in ("data", "sampling", "optimiser"):
        file = f"{original.name}_{what}.star"
        assert (path.parent / file).read_bytes() == (original.parent / file).read_bytes(), file
    ours, theirs = (read_star(p / f"{original.name}_model.star") for p in (tmp_path, original.parent))
    assert list(ours) == list(theirs)
    for block in theirs:
        extra = set(theirs[block].columns) - set(ours[block].columns)
        assert extra <= {"rlnSpectralOrientabilityContribution"}
        for label, values in ours[block].columns.items():
            if label == "rlnAngstromResolution":
                # RELION computes it from a pixel size with more digits than it writes
                assert np.allclose(values, theirs[block][label], rtol=1e-6)
            else:
                assert np.array_equal(values, theirs[block][label]), (block, label)


def test_writing_and_opening_keeps_everything(golden, tmp_path):
    it = open_iteration(golden / "one_step/step3d/run_it001_optimiser.star")
    again = open_iteration(write_iteration(tmp_path / "new" / "folder", it))
    for field in it.model.__dataclass_fields__:
        assert np.array_equal(getattr(again.model, field), getattr(it.model, field)), field
    for name, values in it.assignments.data_vars.items():
        assert np.array_equal(again.assignments[name], values), name
    assert again.convergence == it.convergence
    assert np.array_equal(again.sampling.directions, it.sampling.directions)


def test_optimiser_entries_unknown_to_us_stay_and_settings_win(step2d, tmp_path):
    it = open_iteration(step2d / "run_it001_optimiser.star")
    it.optimiser |= {"rlnFromTheFuture": 7, "rlnParticleDiameter": 180.0}
    path = write_iteration(tmp_path, it, settings={"rlnParticleDiameter": 190.0, "rlnCurrentIteration": 99})
    entries = read_star(path)["optimiser_general"]
    assert entries["rlnFromTheFuture"] == 7 and entries["rlnParticleDiameter"] == 190
    assert entries["rlnCurrentIteration"] == 1, "what the iteration says is not for settings to change"
    assert list(entries.columns)[: len(OPTIMISER_DEFAULTS)] == list(OPTIMISER_DEFAULTS)


def test_the_optimiser_file_comes_last_and_nothing_half_written_stays(step2d, tmp_path, monkeypatch):
    import cryotk.io.relion_write as module

    it = open_iteration(step2d / "run_it001_optimiser.star")
    written = []
    real = module.write_star

    def failing(path, *args, **kwargs):
        written.append(path.name)
        if path.name.endswith("_sampling.star"):
            raise OSError("no space left on device")
        real(path, *args, **kwargs)

    monkeypatch.setattr(module, "write_star", failing)
    with pytest.raises(OSError, match="no space"):
        write_iteration(tmp_path, it)
    assert written[-1].endswith("_sampling.star") and not list(tmp_path.glob("*_optimiser.star"))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    monkeypatch.undo()
    assert open_iteration(write_iteration(tmp_path, it)).number == 1


def test_particles_must_fit_the_assignments(golden, step2d, tmp_path):
    it = open_iteration(step2d / "run_it001_optimiser.star")
    particles = ctk.open_particles(golden / "betagal_noisy/subset200.star")
    with pytest.raises(SettingsError, match="results for 200 particles, the particle set has 150"):
        write_iteration(tmp_path, it, particles=particles.isel(particle=slice(150)).drop_vars("images", errors="ignore"))


def test_group_numbers_point_into_the_models_list(golden, step2d, tmp_path):
    it = open_iteration(step2d / "run_it001_optimiser.star")
    particles = ctk.open_particles(golden / "betagal_noisy/subset200.star").drop_vars("images", errors="ignore")
    path = write_iteration(tmp_path, it, particles=particles)
    table = read_star(path.with_name("run_it001_data.star"))["particles"]
    names = [it.model.group_names[i - 1] for i in table["rlnGroupNumber"]]
    assert names == list(map(str, table["rlnMicrographName"]))


def test_a_finished_refinement_has_names_without_iteration(golden, tmp_path):
    it = open_iteration(golden / "one_step/step3d/run_it001_optimiser.star")
    it.number = -1
    path = write_iteration(tmp_path, it)
    assert path.name == "run_optimiser.star" and (tmp_path / "run_class001.mrc").exists()
    assert open_iteration(path).number == open_iteration(tmp_path / "run_model.star").number == -1


def test_find_near_prefers_the_project_and_takes_what_is_beside(tmp_path):
    job = tmp_path / "Class2D" / "job1"
    job.mkdir(parents=True)
    (job / "a.star").touch()
    assert find_near("Class2D/job1/a.star", job) == (job / "a.star").resolve()
    assert find_near("Gone/job7/a.star", job) == (job / "a.star").resolve()
    assert find_near(str(job / "a.star"), tmp_path) == job / "a.star"
    assert find_near("b.star", job) is None and find_near("", job) is None and find_near("None", job) is None


FIELD = {
    "data/relion5_spa_betagal/Class2D/job010/run_it000_optimiser.star": (0, (50, 64, 64), 10.0),
    "data/relion31_spa_betagal/Class2D/job008/run_it025_optimiser.star": (25, (50, 64, 64), 6.573379),
    "data/relion31_spa_betagal/InitialModel/job015/run_it150_optimiser.star": (150, (1, 64, 64, 64), 9.33204),
    "data/relion2_spa_betagal/Class2D/job006/run_it025_optimiser.star": (25, (10, 100, 100), 5.528807 * 3.54),
    "data/relion2_spa_betagal/Class3D/job018/run_it025_optimiser.star": (25, (4, 100, 100, 100), 1.833866 * 3.54),
    "reference/class2d_em/run_it025_optimiser.star": (25, (6, 64, 64), 5.897224),
    "reference/class2d_vdam/run_it200_optimiser.star": (200, (6, 64, 64), 5.921549),
    "reference/refine3d/run_optimiser.star": (-1, (1, 64, 64, 64), 4.000297),
    "reference/class3d/alignment/run_it025_optimiser.star": (25, (2, 48, 48, 48), 6.439073),
    "reference/initial_model/run_it060_optimiser.star": (60, (1, 64, 64, 64), 3.309897),
}


@pytest.mark.parametrize("name", FIELD)
def test_files_from_the_field(shared, name):
    number, shape, sigma = FIELD[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        it = open_iteration(shared / name)
    assert it.number == number and it.model.references.shape == shape
    assert it.model.sigma_offset == pytest.approx(sigma)
    assert len(it.model.class_distribution) == shape[0] and np.any(it.model.noise_power > 0)


def test_relion_2_class_averages_are_the_stack(shared):
    it = open_iteration(shared / "data/relion2_spa_betagal/Class2D/job006/run_it025_optimiser.star")
    assert it.model.references.std(axis=(1, 2)).min() > 0
    assert it.sampling.offset_range == pytest.approx(5 * 3.54) and it.convergence.accuracy_translation == pytest.approx(0.53 * 3.54)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="needs relion_refine on the PATH")
def test_relion_3_1_goes_on_from_our_files(golden, step2d, tmp_path):
    version = subprocess.run(["relion_refine", "--version"], capture_output=True, text=True).stdout
    if "3.1" not in version:
        pytest.skip(f"relion_refine is not 3.1: {version.splitlines()[:1]}")
    for file in ("subset200.mrcs", "refs2d.mrcs", "subset200.star"):
        (tmp_path / "betagal_noisy").mkdir(exist_ok=True)
        shutil.copy(golden / "betagal_noisy" / file, tmp_path / "betagal_noisy")
    it = open_iteration(step2d / "run_it001_optimiser.star")
    particles = ctk.open_particles(tmp_path / "betagal_noisy/subset200.star").drop_vars("images", errors="ignore")
    write_iteration(tmp_path / "ours", it, particles=particles, project_dir=tmp_path, version="3.1")
    (tmp_path / "out").mkdir()
    command = ["relion_refine", "--continue", "ours/run_it001_optimiser.star", "--iter", "2", "--o", "out/run", "--j", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    new = open_iteration(tmp_path / "out/run_it002_optimiser.star")
    assert new.number == 2 and new.model.average_p_max > it.model.average_p_max
    assert (new.assignments.class_number.values == it.assignments.class_number.values).mean() > 0.6
