"""VDAM in RELION's files: momenta there and back, runs that go on from them, RELION that goes on from ours."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import DataWarning, FileFormatError
from cryotk.fourier.resample import resize
from cryotk.geometry import angular_distance, euler_to_matrix
from cryotk.io import read_star, write_mrc
from cryotk.io.relion_moments import read_moments, write_moments

BOX, PIXEL = 24, 8.0
JOBS = {
    "class2d": (ctk.Class2D, {"n_classes": 3, "algorithm": "vdam", "n_batches": 12, "mask_diameter": 170, "seed": 1}),
    "initial_model": (
        ctk.InitialModel, {"n_batches": 12, "mask_diameter": 170, "seed": 1, "initial_sampling": 30, "offset_range_px": 2},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def star(tmp_path_factory, write_project):
    return write_project(ctk.simulate.particles(220, BOX, PIXEL, seed=5, progress=False), tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module", params=JOBS)
def run(request, star):
    """Kind of job, its class, and the folder of ten mini-batches."""
    kind, settings = JOBS[request.param]
    job = kind(star, **settings)
    folder = star.parent / request.param
    job.save(folder)
    job.run(10, progress=False)
    return request.param, kind, job, folder


def test_momenta_come_back_from_relions_files_to_the_same_bits(run):
    name, kind, job, folder = run
    again = kind.resume(folder / "run_it010_optimiser.star")
    assert len(again._momenta) == len(job._momenta)
    for a, b in zip(again._momenta, job._momenta, strict=True):
        assert np.array_equal(a.first, b.first) and np.array_equal(a.second, b.second)
        assert a.first.any() and (a.second != 1).any()
    classes = read_star(folder / "run_it010_model.star")["model_classes"]
    assert list(classes.columns)[:3] == ["rlnReferenceImage", "rlnGradMoment1", "rlnGradMoment2"]
    # names as RELION gives them
    names = [re.split("[/@]", classes[label][0])[-1] for label in ("rlnGradMoment1", "rlnGradMoment2")]
    if name == "class2d":
        assert names == ["run_it010_1moment.mrcs", "run_it010_2moment.mrcs"] and classes["rlnGradMoment1"][2].startswith("00000003@")
    else:
        assert names == ["run_it010_1moment001.mrc", "run_it010_2moment001.mrc"] and (folder / "run_it010_1moment002.mrc").exists()


def test_from_relions_files_the_next_mini_batch_is_that_of_the_exact_state(run):
    """As far as six digits and 32-bit maps allow; without the momenta the maps part."""
    _, kind, _, folder = run
    exact = kind.resume(folder / "run_it010.checkpoint")
    files = kind.resume(folder / "run_it010_optimiser.star")
    forgetful = kind.resume(folder / "run_it010_optimiser.star")
    forgetful._momenta = None
    for job in (exact, files, forgetful):
        job.iterate()
    maps = [job.current.model.references for job in (exact, files, forgetful)]
    size = np.linalg.norm(maps[0])
    near, far = np.linalg.norm(maps[1] - maps[0]) / size, np.linalg.norm(maps[2] - maps[0]) / size
    assert near < 1e-3 and far > 5 * near
    first = [job._momenta[0].first for job in (exact, files)]
    assert np.linalg.norm(first[1] - first[0]) < 1e-3 * np.linalg.norm(first[0])


@pytest.mark.parametrize("dims", [2, 3])
def test_where_each_frequency_lies_in_a_file(dims, tmp_path):
    """Written by hand as RELION lays them out: row n/2 + ky, columns in pairs, halves after classes."""
    box, pad, k = 8, 2, 2
    n = box * pad
    ky, kx = np.arange(-n // 2, n // 2).astype(float), np.arange(n // 2 + 1).astype(float)
    real = np.broadcast_to(ky[:, None] + (0 if dims == 2 else 100 * ky[:, None, None]), (n,) * (dims - 1) + (n // 2 + 1,))
    imag = np.broadcast_to(kx, real.shape)
    for i in range(2 * k):
        pixels = np.stack([real + 1000 * i, imag], -1).reshape(*real.shape[:-1], n + 2)
        if dims == 3:
            write_mrc(tmp_path / f"r_it001_1moment{i + 1:03d}.mrc", pixels, 1.0)
        elif i == 0:
            stack = [pixels]
        else:
            stack.append(pixels)
    second = np.stack([np.full(real.shape, 3.0), np.zeros(real.shape)], -1).reshape(*real.shape[:-1], n + 2)
    if dims == 3:
        for i in range(k):
            write_mrc(tmp_path / f"r_it001_2moment{i + 1:03d}.mrc", second, 1.0)
        one, two = ([f"r_it001_{x}moment{i + 1:03d}.mrc" for i in range(k)] for x in "12")
    else:
        write_mrc(tmp_path / "r_it001_1moment.mrcs", np.stack(stack), 1.0, is_stack=True)
        write_mrc(tmp_path / "r_it001_2moment.mrcs", np.stack([second] * k), 1.0, is_stack=True)
        one, two = ([f"{i + 1:08d}@r_it001_{x}moment.mrcs" for i in range(k)] for x in "12")
    text = f"data_model_general\n_rlnOriginalImageSize {box}\n_rlnPaddingFactor {pad}\n\ndata_model_classes\nloop_\n_rlnReferenceImage\n"
    text += "_rlnGradMoment1\n_rlnGradMoment2\n" + "".join(f"c{i} {one[i]} {two[i]}\n" for i in range(k))
    (tmp_path / "r_it001_model.star").write_text(text)
    moments = read_moments(tmp_path / "r_it001_model.star")
    assert len(moments) == k
    r = n // 2
    for c in range(k):
        first, learned = moments[c]
        for h in range(2):
            for y, x in ((0, 0), (3, 2), (-r, 5), (r - 1, r)):
                at = (r + 1 + y, x) if dims == 2 else (r + 1, r + 1 + y, x)
                assert first[h][at] == y + 1000 * (c + h * k) + 1j * x
        assert learned[(r + 1,) * (dims - 1) + (1,)] == 3
        # beyond the file nothing was learned
        assert learned[(0,) * dims] == 1 and first[0][(0,) * dims] == 0
    named = write_moments(tmp_path, "again", moments, 1.0)
    assert named["rlnGradMoment1"].tolist() == [v.replace("r_it001", "again") for v in one]
    files = sorted(p.name for p in tmp_path.glob("again*"))
    for name in files:
        a, b = (ctk.io.read_mrc(tmp_path / v)[0] for v in (name, name.replace("again", "r_it001")))
        assert np.array_equal(a, b)


def test_missing_momenta_are_said_and_foreign_ones_refused(run, tmp_path):
    _, kind, _, folder = run
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for path in copy.glob("run_it010_1moment*"):
        path.unlink()
    # names in the files lead to the run itself when it is found: only bare names are looked for beside them
    for path in copy.glob("run_it010_*.star"):
        path.write_text(re.sub(rf"{folder.name}/", "", path.read_text()))
    with pytest.warns(DataWarning, match="_1moment, _2moment"):
        job = kind.resume(copy / "run_it010_optimiser.star", folder.parent / "particles.star")
    assert job._momenta is None
    for path in folder.glob("run_it010_1moment*"):
        write_mrc(copy / path.name, np.zeros((6, 6, 6), np.float32), 1.0, is_stack=path.suffix == ".mrcs")
    with pytest.raises(FileFormatError, match="another run"):
        kind.resume(copy / "run_it010_optimiser.star", folder.parent / "particles.star")


def test_a_branch_or_another_class_count_keeps_momenta_with_their_classes(run):
    _, kind, job, folder = run
    again = kind.resume(folder / "run_it010_optimiser.star", n_batches=14)
    other = again.branch(tau2_fudge=3)
    assert len(other._momenta) == job.settings.n_classes and other._momenta[0].first is not None
    assert other.iterate().number == 11 and again.iteration == 10


def test_an_initial_model_of_relion_goes_on(shared, tmp_path):
    """Model, poses, schedule and sampling are RELION's; its map is kept to 11 Å."""
    source = shared / "reference" / "initial_model"
    for path in source.glob("run_it060_*.star"):
        shutil.copy(path, tmp_path)
    whole = resize(ctk.io.read_mrc(source / "C1_it060_cropped40.mrc")[0].astype(float), 64)
    write_mrc(tmp_path / "run_it060_class001.mrc", whole, 3.54)
    with pytest.warns(DataWarning, match="momenta"):
        job = ctk.InitialModel.resume(tmp_path / "run_it060_optimiser.star", shared / "reference/betagal_noisy/subset500.star", n_batches=61)
    assert job.iteration == 60 and job.settings.resolution_limit is None and job.settings.tau2_fudge == 4
    before = job.current
    it = job.iterate()
    assert it.number == 61 and it.numbers["batch_size"] == 500
    coarse = [ctk.fourier.lowpass(np.asarray(m, float), 3.54, 20.0) for m in (it.model.references[0], whole)]
    assert np.corrcoef(coarse[0].ravel(), coarse[1].ravel())[0, 1] > 0.95
    a, b = (euler_to_matrix(*(i.assignments[f"angle_{x}"].values for x in ("rot", "tilt", "psi"))) for i in (before, it))
    assert np.median(angular_distance(a, b)) < 10


# -- RELION goes on with our files ------------------------------------------------------------------------------------


def _relion():
    found = shutil.which("relion_refine")
    if found is None:
        pytest.skip("needs RELION's relion_refine (Debian: apt-get install relion)")
    said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    match = re.search(r"version:?\s*(\d+)", said)
    return found, int(match[1]) if match else 0


def _continue(program, job, folder, root, version, *more):
    """RELION, started in the project, goes on from what ``save`` writes into a folder of it."""
    job.save(folder / f"to_{root}", relion=version)
    number = job.iteration
    (folder / "on").mkdir(exist_ok=True)
    run = subprocess.run(
        [program, "--continue", f"to_{root}/run_it{number:03d}_optimiser.star", "--o", f"on/{root}", "--iter", str(number + 1), "--j", "1", *more],
        cwd=folder, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return list((folder / "on").glob(f"{root}*it{number + 1:03d}*_model.star")), run.stdout[-3000:] + run.stderr[-3000:]


@pytest.mark.slow
def test_relion_goes_on_with_our_vdam_run(run):
    """RELION 4 and newer by VDAM; RELION 3.1, which has none, takes the maps and poses on by expectation-maximisation."""
    name, _, job, folder = run
    program, version = _relion()
    dialect = "5" if version >= 4 else "3.1"
    written, said = _continue(program, job, folder.parent, name, dialect, *(() if version >= 4 else ("--pad", "1")))
    assert written, said
    model = ctk.open_iteration(written[0]).model
    assert np.isfinite(model.references).all() and model.class_distribution.sum() == pytest.approx(1, abs=1e-3)
    # its map is ours, one iteration on
    k = int(np.argmax(model.class_distribution))
    assert np.corrcoef(model.references[k].ravel(), job.current.model.references[k].ravel())[0, 1] > 0.5


@pytest.mark.slow
def test_relion_goes_on_with_our_2d_classification(star):
    program, version = _relion()
    job = ctk.Class2D(star, 3, mask_diameter=170, seed=1)
    job.run(2, progress=False)
    written, said = _continue(program, job, star.parent, "em", "5" if version >= 4 else "3.1", "--pad", "2")
    assert written, said
    # and back
    again = ctk.Class2D.resume(next((star.parent / "on").glob("em*it003*_optimiser.star")), star)
    assert again.iteration == 3 and again.settings.n_classes == 3
    it = again.iterate()
    moved = (it.assignments.class_number.values != again.iterations[0].assignments.class_number.values).mean()
    assert it.number == 4 and moved < 0.5 and np.isfinite(it.model.references).all()
