"""The CUDA sources compile: no driver and no card are needed for that, only NVRTC (the extra ``nvrtc``)."""

from __future__ import annotations

import ctypes
from importlib import import_module, util
from pathlib import Path

import numpy as np
import pytest

import cryotk.kernels
from cryotk.kernels._cuda import PRELUDE, Gpu

FILES = sorted(f.stem for f in Path(cryotk.kernels.__file__).parent.glob("*.py") if "CUDA_SOURCE = " in f.read_text())


def _nvrtc() -> ctypes.CDLL | None:
    if util.find_spec("nvidia") is None or util.find_spec("nvidia.cuda_nvrtc") is None:
        return None
    package = import_module("nvidia.cuda_nvrtc")
    found = [p for root in package.__path__ for p in sorted(Path(root).glob("lib/libnvrtc.so*")) if "builtins" not in p.name]
    # the package is there: a library that is not found or does not load is a failure
    return ctypes.CDLL(str(found[0]))


def _compile(nvrtc: ctypes.CDLL, source: str) -> tuple[int, str]:
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None) == 0
    options = (ctypes.c_char_p * 2)(b"--gpu-architecture=compute_75", b"--std=c++14")
    status = nvrtc.nvrtcCompileProgram(program, 2, options)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return status, log.value.decode()


@pytest.fixture(scope="module")
def nvrtc():
    library = _nvrtc()
    if library is None:
        pytest.skip("needs NVRTC: pip install 'cryotk[nvrtc]'")
    return library


def test_there_are_sources():
    assert len(FILES) >= 10 and "fine_scores" in FILES


@pytest.mark.parametrize("file", FILES)
def test_compiles(nvrtc, file):
    module = import_module(f"cryotk.kernels.{file}")
    for variant in ("", *(v for k, v in vars(module).items() if k == "TWO_CHILDREN")):
        status, log = _compile(nvrtc, PRELUDE + variant + module.CUDA_SOURCE)
        assert status == 0 and "warning" not in log, log


def test_an_error_is_seen(nvrtc):
    status, log = _compile(nvrtc, PRELUDE + 'extern "C" __global__ void f(float* x) { x[0] = nothing; }')
    assert status != 0 and "nothing" in log


def test_stand_in_is_strict(cupy):
    """What goes wrong silently or late on a card must raise on the host."""
    if not getattr(cupy, "stand_in", False):
        pytest.skip("about the stand-in")
    source = r"""
    extern "C" __global__ void fill(float* out, int n) { if (threadIdx.x < n) out[threadIdx.x] = threadIdx.x; }
    extern "C" __global__ void beyond(float* out) { out[4] = 1; }
    extern "C" __global__ void half_waits(float* out) { if (threadIdx.x < 2) __syncthreads(); out[0] = 1; }
    """
    gpu, x, host = Gpu(cupy), cupy.zeros(4, np.float32), np.zeros(4, np.float32)
    gpu.launch(source, "fill", 1, 4, x, np.int32(4))
    assert cupy.asnumpy(x).tolist() == [0, 1, 2, 3]
    for wrong in (
        lambda: x + host,
        lambda: host + x,
        lambda: np.add(x, x),
        lambda: np.asarray(x),
        lambda: x[host.astype(int)],
        lambda: x.__setitem__(slice(0, 4), host),
        lambda: cupy.concatenate([x, host]),
        lambda: gpu.launch(source, "fill", 1, 4, x, np.int64(4)),
        lambda: gpu.launch(source, "fill", 1, 4, cupy.zeros(4), np.int32(4)),
        lambda: gpu.launch(source, "fill", 1, 4, x),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError, match="contiguous"):
        gpu.launch(source, "fill", 1, 2, x[::2], np.int32(2))
    cupy.set_guards(True)
    try:
        with pytest.raises(RuntimeError, match="wrote outside of out"):
            gpu.launch(source, "beyond", 1, 1, x)
    finally:
        cupy.set_guards(False)
    with pytest.raises(RuntimeError, match="barriers"):
        gpu.launch(source, "half_waits", 1, 4, x)
