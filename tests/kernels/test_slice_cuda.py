"""The CUDA twins of the slice kernels: their arithmetic, run on the host as C++, and their compilation by NVRTC."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryotk.kernels import slice_extraction, slice_insertion, slice_symmetry

SHIM = """
#define __global__
struct float2 { float x, y; };
struct double2 { double x, y; };
static inline float2 make_float2(float x, float y) { float2 v = {x, y}; return v; }
static struct { int x; } blockIdx = {0}, threadIdx = {0}, blockDim = {1}, gridDim = {1};
static inline double atomicAdd(double* at, double v) { double old = *at; *at += v; return old; }
"""
MODULES = {"extraction": slice_extraction, "insertion": slice_insertion, "symmetry": slice_symmetry}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """The CUDA sources as one library for the host: one thread that walks over all elements."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("host")
    source, library = folder / "slices.cpp", folder / "slices.so"
    source.write_text(SHIM + "".join(m.CUDA_SOURCE for m in MODULES.values()))
    subprocess.run([compiler, "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-o", library, source], check=True)
    return ctypes.CDLL(str(library))


def _call(function, *arguments) -> None:
    out = []
    for a in arguments:
        if isinstance(a, np.ndarray):
            assert a.flags.c_contiguous
            out.append(a.ctypes.data_as(ctypes.c_void_p))
        else:
            out.append(ctypes.c_double(a) if isinstance(a, float) else ctypes.c_int(a))
    function.restype = None
    function(*out)


def _case(dims: int):
    rng, r_max, radius = np.random.default_rng(0), 12, 6
    shape = (2 * (r_max + 1) + 1,) * (dims - 1) + (r_max + 2,)
    volume = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    turns = Rotation.random(7, random_state=0) if dims == 3 else Rotation.from_euler("z", rng.uniform(0, 360, (7, 1)), degrees=True)
    ky, kx = np.meshgrid(np.arange(-radius - 1, radius + 2), np.arange(radius + 2), indexing="ij")
    return rng, volume, np.ascontiguousarray(turns.as_matrix()), kx.ravel().astype(np.int32), ky.ravel().astype(np.int32), r_max


@pytest.mark.parametrize("dims", [2, 3])
def test_extraction(host, dims):
    _, volume, inverse, kx, ky, r_max = _case(dims)
    ours, theirs = (np.full((len(inverse), len(kx)), np.nan, np.complex64) for _ in range(2))
    getattr(slice_extraction, f"extract_slices_{dims}d")(volume, inverse, kx, ky, 2.0, r_max, ours)
    _call(host[f"extract_slices_{dims}d"], volume, *volume.shape[1:], inverse, kx, ky, *ours.shape, 2.0, r_max, theirs)
    assert np.abs(ours - theirs).max() < 2e-6 * np.abs(ours).max()


@pytest.mark.parametrize("dims", [2, 3])
def test_insertion(host, dims):
    rng, volume, inverse, kx, ky, r_max = _case(dims)
    shape = (len(inverse), len(kx))
    s = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    w = rng.uniform(-0.2, 1, shape).astype(np.float32)
    data, weight = np.zeros(volume.shape, complex), np.zeros(volume.shape)
    getattr(slice_insertion, f"insert_slices_{dims}d")(data, weight, s, w, inverse, kx, ky, 2.0, r_max)
    data_2, weight_2 = np.zeros_like(data), np.zeros_like(weight)
    _call(host[f"insert_slices_{dims}d"], data_2, weight_2, *volume.shape[1:], s, w, inverse, kx, ky, *shape, 2.0, r_max)
    assert np.abs(data - data_2).max() < 1e-12 * np.abs(data).max()
    assert np.abs(weight - weight_2).max() < 1e-12 * weight.max()


def test_symmetry(host):
    rng, volume, turns, _, _, r_max = _case(3)
    data, weight = volume.astype(complex), rng.uniform(0, 1, volume.shape)
    a, b, c, d = data.copy(), weight.copy(), data.copy(), weight.copy()
    slice_symmetry.add_symmetry_mates(data, weight, turns, r_max, a, b)
    _call(host["add_symmetry_mates"], data, weight, *data.shape, turns, len(turns), r_max, c, d)
    assert np.abs(a - c).max() < 1e-12 * np.abs(a).max() and np.abs(b - d).max() < 1e-12 * b.max()


def _nvrtc() -> ctypes.CDLL | None:
    try:
        import nvidia.cuda_nvrtc as package
    except ImportError:
        return None
    found = [p for root in package.__path__ for p in Path(root).glob("lib/libnvrtc.so*")]
    return ctypes.CDLL(str(found[0])) if found else None


@pytest.mark.parametrize("name", MODULES)
def test_compiles(name):
    """No driver and no GPU are needed for this."""
    nvrtc = _nvrtc()
    if nvrtc is None:
        pytest.skip("needs the package nvidia-cuda-nvrtc-cu12")
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), MODULES[name].CUDA_SOURCE.encode(), b"slices.cu", 0, None, None) == 0
    options = (ctypes.c_char_p * 1)(b"--gpu-architecture=compute_70")
    status = nvrtc.nvrtcCompileProgram(program, 1, options)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
