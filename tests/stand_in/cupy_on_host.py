"""The part of cupy that cryotk uses, on numpy arrays and a C++ compiler, stricter than cupy.

CUDA sources are compiled by g++ with ``cuda_on_host.h``; a block's threads run between barriers one after the other, forwards or
backwards (:func:`set_order`), so that a missing barrier shows. An array of the "device" is no numpy array: mixing the two, or
giving a kernel an argument of another type than its source names, raises. This is no GPU: it shows that the code is right, not
that it is fast.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import types
from pathlib import Path

import numpy as np
import scipy.fft

__version__ = "13.0.0"
stand_in = True

_limit = [None]
_backwards = [0]
_guards = [False]
launched: dict[str, int] = {}
"""How often each kernel ran."""
transfers = {"to_device": 0, "to_host": 0}
launched_on: dict[int, int] = {}
"""How many kernels ran on each "device"."""
_devices = [1]
_thread = threading.local()


def set_device_count(n: int) -> None:
    """Pretend that there are ``n`` devices. An array belongs to the one that was current when it was made."""
    _devices[0] = n


def _current() -> int:
    return getattr(_thread, "stack", [0])[-1]


def set_order(backwards: bool) -> None:
    """Run the threads of a block from the last to the first."""
    _backwards[0] = int(backwards)


def set_guards(guards: bool) -> None:
    """Put NaN (-1) around every array a kernel gets, and look afterwards whether it wrote there."""
    _guards[0] = guards


def set_largest_allocation(n_bytes: int | None) -> None:
    """Arrays larger than this do not fit the "device"."""
    _limit[0] = n_bytes


class OutOfMemoryError(MemoryError):
    """An allocation that does not fit."""


_failures, _largest = [0], [0]


def largest(*, reset: bool = False) -> int:
    """Bytes of the largest array so far; ``reset`` counts from now on."""
    if reset:
        _largest[0] = 0
    return _largest[0]


def failures() -> int:
    """How many allocations did not fit so far."""
    return _failures[0]


class ndarray:
    """An array of the "device"."""

    __array_ufunc__ = None
    __array_priority__ = 100

    def __init__(self, values):
        if values.base is None:
            _largest[0] = builtins.max(_largest[0], values.nbytes)
        if _limit[0] is not None and values.nbytes > _limit[0] and values.base is None:
            _failures[0] += 1
            raise OutOfMemoryError(f"allocating {values.nbytes} bytes")
        self._raw, self.device_id = values, _current()

    @property
    def _a(self):
        """The values, for work on the current device alone."""
        if self.device_id != _current():
            raise RuntimeError(f"an array of device {self.device_id} is used on device {_current()}")
        return self._raw

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_function__(self, function, types, args, kwargs):
        # as cupy: numpy's functions (not its ufuncs, here) of device arrays are this module's of the same name
        mine = globals().get(function.__name__)
        return NotImplemented if mine is None or function.__module__ != "numpy" else mine(*args, **kwargs)

    def __iter__(self):
        raise TypeError("looping over a device array is one transfer per element")

    shape = property(lambda self: self._raw.shape)
    dtype = property(lambda self: self._raw.dtype)
    ndim = property(lambda self: self._raw.ndim)
    size = property(lambda self: self._raw.size)
    nbytes = property(lambda self: self._raw.nbytes)
    flags = property(lambda self: self._raw.flags)
    T = property(lambda self: ndarray(self._a.T))
    device = property(lambda self: Device(0))

    @property
    def real(self):
        return ndarray(self._a.real)

    @real.setter
    def real(self, value):
        self._a.real = _plain(value)

    @property
    def imag(self):
        return ndarray(self._a.imag)

    @imag.setter
    def imag(self, value):
        self._a.imag = _plain(value)

    def __len__(self):
        return len(self._raw)

    def __repr__(self):
        return f"device {self._raw!r}"

    def __float__(self):
        return float(self._a)

    def __int__(self):
        return int(self._a)

    def __bool__(self):
        return bool(self._a)

    def __getitem__(self, index):
        return ndarray(np.asarray(self._a[_index(index)]))

    def __setitem__(self, index, value):
        self._a[_index(index)] = _plain(value)

    def view(self, dtype):
        if not self._a.flags.c_contiguous:
            raise ValueError("views of another type are of contiguous arrays here")
        return ndarray(self._a.view(dtype))

    def get(self):
        transfers["to_host"] += 1
        return self._raw.copy()

    def set(self, values):
        if not isinstance(values, np.ndarray) or values.dtype != self.dtype or not values.flags.c_contiguous:
            raise TypeError("set takes a contiguous numpy array of the same type")
        transfers["to_device"] += 1
        self._a[...] = values

    def copy(self):
        return ndarray(self._a.copy())

    def astype(self, dtype, copy=True):
        return ndarray(self._a.astype(dtype, copy=copy))

    def reshape(self, *shape):
        return ndarray(self._a.reshape(*shape))

    def ravel(self):
        return ndarray(self._a.ravel())

    def transpose(self, *axes):
        return ndarray(self._a.transpose(*axes))

    def fill(self, value):
        self._a.fill(_plain(value))

    def __abs__(self):
        return ndarray(np.abs(self._a))

    def __neg__(self):
        return ndarray(-self._a)

    def __invert__(self):
        return ndarray(~self._a)


def _reduction(name):
    def method(self, axis=None, **kwargs):
        return ndarray(np.asarray(getattr(self._a, name)(axis, **kwargs)))

    return method


for _name in ("sum", "max", "min", "mean", "any", "all", "argmax"):
    setattr(ndarray, _name, _reduction(_name))


def _plain(value):
    """The numpy array or scalar behind an operand; host arrays are refused."""
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: a host array where a device array belongs")
    if not isinstance(value, (int, float, complex, bool, np.generic)):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _index(index):
    def one(i):
        if isinstance(i, ndarray):
            return i._a
        if isinstance(i, slice) or i is None or i is Ellipsis or isinstance(i, (int, np.integer)):
            return i
        raise TypeError(f"index of type {type(i)}: device arrays are indexed with device arrays")

    return tuple(one(i) for i in index) if isinstance(index, tuple) else one(index)


def _operator(name):
    def method(self, other):
        return ndarray(np.asarray(getattr(np.ndarray, name)(self._a, _plain(other))))

    return method


def _in_place(name):
    def method(self, other):
        getattr(np.ndarray, name)(self._a, _plain(other))
        return self

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
    if _name != "matmul":
        setattr(ndarray, f"__r{_name}__", _operator(f"__r{_name}__"))
        setattr(ndarray, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
ndarray.__hash__ = None


def _function(numpy_function):
    """A function of device arrays and scalars that gives a device array."""

    @functools.wraps(numpy_function)
    def call(*args, **kwargs):
        def plain(v):
            if isinstance(v, (list, tuple)) and builtins.any(isinstance(x, (ndarray, np.ndarray)) for x in v):
                return [_plain(x) for x in v]
            if v is None or isinstance(v, (str, type, np.dtype, tuple, list)):
                return v
            return _plain(v)

        out = numpy_function(*(plain(a) for a in args), **{k: plain(v) for k, v in kwargs.items()})
        return tuple(ndarray(np.asarray(o)) for o in out) if isinstance(out, tuple) else ndarray(np.asarray(out))

    return call


for _name in (
    "empty zeros ones full empty_like zeros_like ones_like full_like arange concatenate stack where cumsum flatnonzero unique "
    "searchsorted divmod exp log sqrt cos sin floor sign isfinite isnan minimum maximum clip broadcast_to tile matmul abs real "
    "imag conj flip roll transpose take reshape sum mean std max min all any argmax sort logical_and logical_or logical_not "
    "logical_xor expand_dims"
).split():  # fmt: skip
    globals()[_name] = _function(getattr(np, _name))
for _name in (
    "float32 float64 complex64 complex128 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool_ integer dtype issubdtype "
    "finfo iinfo pi e inf nan newaxis"
).split():
    globals()[_name] = getattr(np, _name)
round = _function(np.round)


def __getattr__(name):
    """Names that array_api_compat looks for when it is imported; whoever calls one learns that it is not there."""
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(f"the stand-in has no {name}")

    missing.__name__ = name
    return missing


def result_type(*values):
    """As numpy's."""
    return np.result_type(*(v._a if isinstance(v, ndarray) else v for v in values))


def astype(a, dtype, copy=True):
    """As numpy's."""
    return a.astype(dtype, copy=copy)


def argsort(a):
    """As cupy's: stable."""
    return ndarray(np.argsort(_plain(a), kind="stable"))


def repeat(a, repeats, axis=None):
    """As cupy's: repeats of a device array must be one number."""
    if not isinstance(repeats, int):
        raise TypeError("cupy repeats by numbers of the host")
    return ndarray(np.repeat(_plain(a), repeats, axis))


def asarray(a, dtype=None):
    """To the "device"; an array that is there already stays."""
    if isinstance(a, ndarray):
        return a if dtype is None or a.dtype == dtype else a.astype(dtype)
    transfers["to_device"] += 1
    return ndarray(np.array(a, dtype))


def ascontiguousarray(a, dtype=None):
    """As numpy's."""
    return ndarray(np.ascontiguousarray(_plain(a), dtype))


def asnumpy(a):
    """To the host."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def array(a, dtype=None, copy=True):
    """To the "device", as a copy."""
    out = asarray(a, dtype)
    return out.copy() if copy and out is a else out


fft = types.ModuleType("cupy.fft")
fft.rfft2 = lambda a: ndarray(scipy.fft.rfft2(_plain(a), workers=1))
fft.rfftn = lambda a, s=None, axes=None, norm=None: ndarray(scipy.fft.rfftn(_plain(a), s, axes, norm, workers=1))
fft.irfftn = lambda a, s=None, axes=None, norm=None: ndarray(scipy.fft.irfftn(_plain(a), s, axes, norm, workers=1))
for _name in "fft ifft fftn ifftn rfft irfft hfft ihfft fftfreq rfftfreq fftshift ifftshift".split():
    setattr(fft, _name, __getattr__(f"fft.{_name}"))
linalg = types.ModuleType("cupy.linalg")
for _name in (
    "lstsq eigvals eig eigh cond multi_dot tensorinv tensorsolve matrix_power cholesky matrix_rank pinv svd qr solve inv det slogdet eigh eigvalsh norm cross outer matmul tensordot diagonal trace"
).split():
    setattr(linalg, _name, __getattr__(f"linalg.{_name}"))


class Device:
    """A device as a context."""

    mem_info = (8_000_000_000, 8_000_000_000)
    compute_capability = "00"

    def __init__(self, index=None):
        self.id = _current() if index is None else index
        if not 0 <= self.id < _devices[0]:
            raise RuntimeError(f"cudaErrorInvalidDevice: {self.id} of {_devices[0]}")

    def __enter__(self):
        if not hasattr(_thread, "stack"):
            _thread.stack = [0]
        _thread.stack.append(self.id)
        return self

    def __exit__(self, *error):
        _thread.stack.pop()

    def synchronize(self):
        pass


cuda = types.SimpleNamespace(
    alloc_pinned_memory=bytearray,
    is_available=lambda: True,
    Device=Device,
    runtime=types.SimpleNamespace(getDeviceCount=lambda: _devices[0], getDeviceProperties=lambda i: {"name": b"stand-in"}),
    memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
)


cuda_device = types.ModuleType("cupy.cuda.device")
cuda_device.Device = Device


def get_default_memory_pool():
    """A pool that holds nothing."""
    return types.SimpleNamespace(free_all_blocks=lambda: None)


# -- kernels ---------------------------------------------------------------------------------------------------------

_POINTERS = {
    "float": "float32", "double": "float64", "int": "int32", "long long": "int64", "float2": "complex64", "double2": "complex128",
    "unsigned char": "uint8", "unsigned short": "uint16",
}  # fmt: skip
_SCALARS = {"int": "int32", "long long": "int64", "unsigned long long": "uint64", "float": "float32", "double": "float64"}
_KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
_GUARD = 512
# one "stream"
_running = threading.Lock()


def _signature(text):
    out = []
    for parameter in text.split(","):
        words = parameter.replace("__restrict__", " ").replace("*", " * ").split()
        pointer, constant = "*" in words, "const" in words
        kind = " ".join(w for w in words[:-1] if w not in ("*", "const"))
        out.append((kind, pointer, constant, words[-1]))
    return out


class RawModule:
    """Kernels of a CUDA source, compiled for the host."""

    def __init__(self, *, code, options=()):
        compiler = shutil.which("g++")
        if compiler is None:
            raise RuntimeError("needs g++")
        self._signatures = {m[1]: _signature(m[2]) for m in _KERNEL.finditer(code)}
        wrappers = []
        for name, parameters in self._signatures.items():
            values = ", ".join(f"*({kind}{'*' if pointer else ''}*)v[{i}]" for i, (kind, pointer, *_rest) in enumerate(parameters))
            wrappers.append(
                f"static void call_{name}(void** v) {{ {name}({values}); }}\n"
                f'extern "C" int launch_{name}(void** v, const unsigned* grid, unsigned block, int backwards)\n'
                f"{{ return host::run(call_{name}, v, grid, block, backwards); }}\n"
            )
        source = '#include "cuda_on_host.h"\n' + code + "\n".join(wrappers)
        self._library = _compile(compiler, source)

    def get_function(self, name):
        return functools.partial(self._launch, name)

    def _launch(self, name, grid, block, arguments, **options):
        if options:
            raise TypeError(f"{name}: {options}")
        parameters = self._signatures[name]
        if len(arguments) != len(parameters):
            raise TypeError(f"{name} takes {len(parameters)} arguments, got {len(arguments)}")
        keep, guarded, values = [], [], (ctypes.c_void_p * len(arguments))()
        for i, (a, (kind, pointer, constant, label)) in enumerate(zip(arguments, parameters, strict=True)):
            if pointer:
                if not isinstance(a, ndarray):
                    raise TypeError(f"{name}, {label}: {type(a)} is not on the device")
                if a.dtype.name != _POINTERS[kind]:
                    raise TypeError(f"{name}, {label}: {a.dtype} where the source says {kind}")
                if not a.flags.c_contiguous:
                    raise TypeError(f"{name}, {label}: not contiguous")
                if not constant and not a.flags.writeable:
                    raise TypeError(f"{name}, {label}: not writeable")
                if _guards[0]:
                    room = np.full(a.nbytes + 2 * _GUARD, 255, np.uint8)
                    room[_GUARD : _GUARD + a.nbytes] = np.frombuffer(a._a.tobytes(), np.uint8)
                    guarded.append((label, room, None if constant else a))
                    box = ctypes.c_void_p(room.ctypes.data + _GUARD)
                else:
                    box = ctypes.c_void_p(a._a.ctypes.data)
            else:
                if not isinstance(a, np.generic) or a.dtype.name != _SCALARS[kind]:
                    raise TypeError(f"{name}, {label}: {type(a)} where the source says {kind}")
                box = np.array(a)
                box = (ctypes.c_char * box.nbytes).from_buffer_copy(box.tobytes())
            keep.append(box)
            values[i] = ctypes.cast(ctypes.pointer(box), ctypes.c_void_p)
        if len(block) != 1 or not 0 < block[0] <= 1024:
            raise ValueError(f"{name}: block {block}")
        if len(grid) > 1 and builtins.max(grid[1:]) > 65535:
            raise ValueError(f"{name}: grid {grid}")
        sizes = (ctypes.c_uint * 3)(*(tuple(grid) + (1, 1))[:3])
        with _running:
            launched[name] = launched.get(name, 0) + 1
            launched_on[_current()] = launched_on.get(_current(), 0) + 1
            if getattr(self._library, f"launch_{name}")(values, sizes, ctypes.c_uint(block[0]), _backwards[0]):
                raise RuntimeError(f"{name}: threads of one block are at different barriers")
        for label, room, target in guarded:
            if not (room[:_GUARD] == 255).all() or not (room[room.size - _GUARD :] == 255).all():
                raise RuntimeError(f"{name} wrote outside of {label}")
            if target is not None:
                target._a[...] = room[_GUARD : room.size - _GUARD].view(target.dtype).reshape(target.shape)


def _compile(compiler, source):
    here = Path(__file__).parent
    key = hashlib.sha256((source + (here / "cuda_on_host.h").read_text()).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"cryotk-cuda-on-host-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    library = folder / f"{key}.so"
    if not library.exists():
        file = folder / f"{key}-{os.getpid()}.cpp"
        file.write_text(source)
        made = file.with_suffix(".so")
        command = [compiler, "-std=c++14", "-O3", "-march=native", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-Wno-unused", f"-I{here}", "-shared", "-fPIC"]
        done = subprocess.run([*command, "-o", made, file], capture_output=True, text=True, check=False)
        with contextlib.suppress(OSError):
            file.unlink()
        if done.returncode:
            raise RuntimeError(done.stderr[:4000])
        made.replace(library)
    return ctypes.CDLL(str(library))


submodules = {"cupy.fft": fft, "cupy.linalg": linalg, "cupy.cuda.device": cuda_device}
"""To be found in ``sys.modules``."""
