"""The same job on a card: cupy where there is one, else its strict stand-in that runs the CUDA sources on the host."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cryotk as ctk
from cryotk.errors import DataWarning, SettingsError
from cryotk.execution.device import device_backend, resolve_device
from cryotk.jobs.step import run_expectation
from cryotk.kernels.backends import CPU, NUMPY


@pytest.fixture(scope="module")
def particles():
    return ctk.simulate.particles(60, 32, 6.0, seed=5, progress=False)


def _job(particles, device, **more):
    coarse = {"n_iterations": 4, "psi_step": 15, "offset_range_px": 3}
    return ctk.Class2D(particles, 2, mask_diameter=170, seed=1, device=device, **(coarse | more))


def _same(a, b, model=2e-4):
    """One step from one state: the same poses, and numbers as close as float32 sums in another order are."""
    x, y = a.assignments, b.assignments
    agree = (x.class_number.values == y.class_number.values) & (np.abs(x.angle_psi.values - y.angle_psi.values) < 1e-6)
    assert agree.mean() > 0.98
    for name, limit in (("max_probability", 1e-4), ("norm_correction", 1e-5), ("shift_x", 1e-6), ("shift_y", 1e-6)):
        assert np.abs(x[name].values - y[name].values)[agree].max() < limit, name
    assert (np.abs(x.n_significant.values - y.n_significant.values) <= 1).all()
    m, n = a.model, b.model
    for name in ("references", "noise_power", "class_distribution", "data_vs_prior"):
        p, q = np.asarray(getattr(m, name), float), np.asarray(getattr(n, name), float)
        assert np.abs(p - q).max() < model * np.abs(p).max(), name


@pytest.mark.parametrize("options", [{}, {"zero_mask": False}, {"align": False}, {"resolution_limit": 15.0}, {"compat": "relion"}], ids=str)
def test_a_step_on_the_device_is_the_step_on_the_cpu(cupy, particles, options):
    start = _job(particles, "cpu", **{k: v for k, v in options.items() if k != "align"})
    start.run(2, progress=False)
    given = particles.assign({k: start.assignments[k] for k in ("class_number", "angle_psi", "shift_x", "shift_y")})
    a, b = _job(given, "cpu", **options), _job(given, "cuda", **options)
    for job in (a, b):
        job.run(1 if options.get("align") is False else 2, progress=False)
    _same(a.current, b.current)


def test_whole_run_and_its_views(cupy, particles):
    job = _job(particles, "cuda:0")
    job.run(3, progress=False)
    assert job._context().backend.name == "cuda:0"
    if getattr(cupy, "stand_in", False):
        used = set(cupy.launched)
        assert {"ragged_scores", "accumulate_rows", "cut_sets", "posterior_weights", "insert_slices_2d", "shift_and_mask", "ctf_values"} <= used
    reference = _job(particles, "cpu")
    reference.run(3, progress=False)
    _same(reference.current, job.current, model=5e-2)
    p, q = job.posterior(4), reference.posterior(4)
    assert float(p.weight.sum()) == pytest.approx(1, abs=2e-3) and p.attrs["p_max"] == pytest.approx(q.attrs["p_max"], abs=5e-3)
    best = p.isel(sample=int(p.weight.values.argmax()))
    pose = (0, 0, float(best.angle_psi)), (float(best.shift_x), float(best.shift_y)), int(best.class_number)
    assert job.score(4, *pose)[0] == pytest.approx(reference.score(4, *pose)[0], rel=1e-3)


def test_same_bits_for_any_number_of_threads_and_again(cupy, particles):
    results = []
    for threads in (1, 3, 1):
        job = _job(particles, "cuda")
        job.threads = threads
        job.run(2, progress=False)
        results.append((job.classes.values.tobytes(), job.assignments.max_probability.values.tobytes()))
    assert results[0] == results[1] == results[2]


def test_bad_images_are_flagged_and_left_out(cupy, particles):
    images = particles.images.values.copy()
    images[3] = 0
    images[7, 5, 5] = np.nan
    job = _job(particles.assign(images=(("particle", "y", "x"), images)), "cuda")
    with pytest.warns(DataWarning, match="2 particles"):
        job.iterate()
    assert np.nonzero(job.assignments.flagged.values)[0].tolist() == [3, 7]
    assert np.isfinite(job.classes.values).all()


@pytest.mark.parametrize("part", [0.8, 0.5])
def test_a_device_that_runs_out_of_memory_halves_its_blocks(cupy, particles, part):
    if not getattr(cupy, "stand_in", False):
        pytest.skip("needs a device whose memory can be chosen")
    # many offsets: what grows with the block is larger than what does not
    context = _job(particles, "cuda", offset_range_px=8)._context()
    _ = context.step
    cupy.largest(reset=True)
    a = run_expectation(context, threads=1)
    failures = cupy.failures()
    cupy.set_largest_allocation(int(part * cupy.largest()))
    try:
        b = run_expectation(context, threads=1)
    finally:
        cupy.set_largest_allocation(None)
    assert cupy.failures() > failures
    assert np.array_equal(a.poses, b.poses) and np.allclose(a.p_max, b.p_max, atol=1e-5)
    assert a.sums.weight == pytest.approx(b.sums.weight, rel=1e-6) and a.sums.n_particles == b.sums.n_particles == len(a.poses)
    for x, y in zip(a.sums.accumulators, b.sums.accumulators, strict=True):
        assert np.abs(x.data - y.data).max() < 1e-5 * np.abs(x.data).max()


def test_a_device_too_small_for_one_particle_says_so(cupy, particles):
    if not getattr(cupy, "stand_in", False):
        pytest.skip("needs a device whose memory can be chosen")
    context = _job(particles, "cuda")._context()
    for n_bytes in (50_000, 500):
        cupy.set_largest_allocation(n_bytes)
        try:
            with pytest.raises(SettingsError, match="device='cpu'"):
                run_expectation(context, threads=1)
        finally:
            cupy.set_largest_allocation(None)


def test_particles_of_several_images(cupy, particles):
    """Blocks of two images per particle are the same on both devices; so is what is summed over them."""
    contexts = [_job(particles, d)._context() for d in ("cpu", "cuda")]
    out = []
    for context in contexts:
        prepare, d = context.step.tables[0].prepare, context.data
        images, start, zeros = np.arange(7), np.array([0, 2, 3, 7]), np.zeros((3, 2))
        block = prepare(d.read(images), np.arange(3), images, start, zeros, np.ones(7), np.ones(7))
        post = context.step.posterior(block, np.zeros((3, 3)))
        result = context.step.result(block, post, np.zeros((3, 3)))
        sums = context.step.empty_sums(len(d.group_names))
        context.step.accumulate(sums, block, post, result, np.ones(7), 1.0, d.columns.scale_group[images])
        context.step.on_host(sums)
        host = context.backend.to_host
        out.append((
            [host(getattr(block, n)) for n in ("score_image", "score_weight", "data", "data_weight", "constant")], result.angles,
            sums.noise, sums.accumulators[0].data, sums.scale_cross,
        ))  # fmt: skip
    for a, b in zip(out[0][0], out[1][0], strict=True):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())
    assert np.allclose(out[0][1], out[1][1])
    for a, b in zip(out[0][2:], out[1][2:], strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def test_the_plain_definitions_make_a_step(particles):
    """What a student reads gives what runs: one block through the numpy kernels."""
    context = _job(particles.isel(particle=slice(0, 12)), "cpu")._context()
    results = []
    for backend in (CPU, NUMPY):
        step = context._step_on(backend)
        rows = np.arange(6)
        images, start = context.data.images_of(rows)
        block = step.tables[0].prepare(context.data.read(images), rows, images, start, np.zeros((6, 2)), np.ones(6), np.ones(6))
        post = step.posterior(block, np.zeros((6, 3)))
        result = step.result(block, post, np.zeros((6, 3)))
        sums = step.empty_sums(len(context.data.group_names))
        step.accumulate(sums, block, post, result, np.ones(6), 1.0, context.data.columns.scale_group[images])
        results.append((result.angles, result.p_max, sums.noise, sums.accumulators[1].data, sums.class_weight))
    for a, b in zip(*results, strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def test_auto_and_named_devices(cupy):
    assert resolve_device("auto") == resolve_device("cuda") == resolve_device("cuda:0") == "cuda:0"
    assert resolve_device("cpu") == "cpu" and device_backend("cpu") is CPU
    with pytest.raises(SettingsError, match="from cuda:0"):
        resolve_device("cuda:99")


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:0,", "cuda:0;1", "gpu"])
def test_other_words_are_refused(device):
    with pytest.raises(SettingsError, match="device ="):
        resolve_device(device)


def _bench_gpu():
    path = Path(__file__).parents[2] / "benchmarks" / "bench_gpu.py"
    spec = importlib.util.spec_from_file_location("bench_gpu", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_measures_every_pass(cupy, particles, capsys, monkeypatch):
    bench = _bench_gpu()
    monkeypatch.setattr(bench, "tf32_rate", lambda device, size: None)
    rates = bench.measure(particles, 2, "cuda:0", 170, gemm=64, more={"psi_step": 15, "offset_range_px": 3})
    assert {"prepare", "coarse", "fine", "posterior", "accumulate", "insert", "noise", "whole"} <= set(rates)
    assert "TFLOP/s" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["global", "local"])
def test_the_benchmark_measures_maps_too(cupy, particles, capsys, monkeypatch, case):
    bench = _bench_gpu()
    monkeypatch.setattr(bench, "tf32_rate", lambda device, size: None)
    few = ctk.select_particles(particles, np.arange(16))
    true = {f"angle_{a}": few[f"true_angle_{a}"] for a in ("rot", "tilt", "psi")} | {f"shift_{a}": few[f"true_shift_{a}"] for a in "xy"}
    posed = few.assign(true)
    map_ = ctk.simulate.volume(ctk.simulate.molecule(), 32, 6.0, amplitude=particles.attrs["amplitude"])
    more = {"initial_lowpass": 25.0, "offset_range_px": 2, "offset_step_px": 2} | ({"initial_sampling": 30} if case == "global" else {})
    rates = bench.measure(posed, 2, "cuda:0", 170, gemm=64, more=more, case=case, map_=map_)
    assert {"prepare", "coarse", "slices", "fine", "posterior", "accumulate", "insert", "noise", "whole"} <= set(rates)
    assert f"{case}: 16 particles of 32 px" in capsys.readouterr().out


def test_the_benchmark_says_that_there_is_no_card(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert _bench_gpu().main([]) == 1
    assert "No card, nothing measured" in capsys.readouterr().out


WITHOUT = """
import sys
{prepare}
from cryotk.errors import SettingsError
from cryotk.execution.device import resolve_device
assert resolve_device("auto") == "cpu"
try:
    resolve_device("cuda")
except SettingsError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        ("sys.modules['cupy'] = None", ("cupy is not installed", "cryotk[cuda12]", "device='cpu'")),
        (
            "import types\ndef none(): raise RuntimeError('cudaErrorInsufficientDriver')\n"
            "sys.modules['cupy'] = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=none)))",
            ("no CUDA device or driver", "InsufficientDriver", "device='cpu'"),
        ),
    ],
    ids=["no cupy", "no driver"],
)
def test_without_a_card_auto_is_the_cpu_and_cuda_says_what_to_do(prepare, words):
    done = subprocess.run([sys.executable, "-c", WITHOUT.format(prepare=prepare)], capture_output=True, text=True, check=True)
    assert all(w in done.stdout for w in words), done.stdout
