"""One table: which function runs a kernel on which kind of array. The expectation step and what is done to maps are written once,
over this table.

``numpy`` runs the plain definitions, ``cpu`` the numba twins, a CUDA backend the CUDA twins on cupy arrays.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from cryotk.kernels._cuda import Gpu

__all__ = ["CPU", "KERNELS", "NUMPY", "Backend", "backend_of", "cuda_backend"]

KERNELS = {
    "shift_and_mask": "images",
    "gather_lattice": "images",
    "shell_power": "images",
    "ctf_values": "ctf_values",
    "shift_transforms": "weighing",
    "weigh_images": "weighing",
    "extract_slices_2d": "slice_extraction",
    "extract_slices_3d": "slice_extraction",
    "shifted_rows": "coarse_rows",
    "select_dense": "selection",
    "select_ragged": "selection",
    "ragged_scores": "fine_scores",
    "posterior_weights": "posterior",
    "accumulate": "accumulation",
    "insert_slices_2d": "slice_insertion",
    "insert_slices_3d": "slice_insertion",
    "add_symmetry_mates": "slice_symmetry",
    "cross_sums": "shell_sums",
    "amplitude_sums": "shell_sums",
    "apply_gain": "shell_sums",
    "randomise_phases": "shell_sums",
    "distance_in_planes": "distance",
    "distance_across_planes": "distance",
    "look_up": "distance",
    "cut_parts": "local_windows",
    "add_products": "local_windows",
    "products_to_shells": "local_windows",
    "coefficients_around": "local_windows",
    "join_parts": "local_windows",
    "add_window": "local_windows",
    "mean_over_rotations": "rotate_volume",
    "spline_filter": "rotate_volume",
    "mean_over_rotations_spline": "rotate_volume",
}
"""Name of each kernel that has twins, and its file."""


class Backend:
    """An array module and the kernels that work on its arrays, as attributes.

    Parameters
    ----------
    name : str
        ``"cpu"``, ``"numpy"`` or ``"cuda:0"``.
    xp : module
        numpy or cupy.
    find : callable
        ``find(kernel, file)`` gives the function of a kernel.
    """

    block_bytes = 96_000_000
    """A block of images."""
    max_block = 512
    sample_bytes = 128_000_000
    """Weights of all fine samples of a block: at a random start nearly all of them count."""
    coarse_bytes = 16_000_000
    """Scores of the coarse pass held at once."""
    slice_bytes = 192_000_000
    """Fine slices made once for all blocks; when they need more, each block makes its own."""
    slot_bytes = 160_000_000
    """Slices and sums of the orientations of a block held at once."""
    insert_slices_at_once = 1024
    readers = 1
    """Threads that read blocks ahead of each lane."""
    lanes: int | None = None
    """Lanes an iteration is cut into, where that is not the caller's choice."""
    out_of_memory: tuple[type[BaseException], ...] = ()
    """What an allocation that does not fit raises."""

    def __init__(self, name: str, xp: Any, find: Callable[[str, str], Callable[..., Any]]) -> None:
        self.name, self.xp, self._find = name, xp, find

    def __getattr__(self, kernel: str) -> Callable[..., Any]:
        if kernel not in KERNELS:
            raise AttributeError(kernel)
        function = self._find(kernel, KERNELS[kernel])
        # found once, then an ordinary attribute
        setattr(self, kernel, function)
        return function

    def __reduce__(self) -> Any:
        return _by_name, (self.name,)

    @property
    def on_device(self) -> bool:
        """Whether arrays live on a card."""
        return self.xp is not np

    def to_device(self, array: Any, dtype: Any = None) -> Any:
        """An array of this backend from a numpy array: contiguous, converted where ``dtype`` is given."""
        return np.ascontiguousarray(array, dtype)

    def to_host(self, array: Any) -> np.ndarray:
        """A numpy array from one of this backend."""
        return array

    def staged(self, images: np.ndarray) -> np.ndarray:
        """Images in host memory that goes to the device fastest; called by the thread that read them."""
        return images

    def upload(self, images: np.ndarray) -> Any:
        """What :meth:`staged` gave as float32 on the device; the host's array must not change while it is in use there."""
        return np.ascontiguousarray(images, np.float32)

    def repeat(self, values: np.ndarray, counts: np.ndarray) -> Any:
        """``numpy.repeat`` of numpy arrays, made where this backend's arrays are."""
        return np.repeat(values, counts)

    def insertion_units(self, rows: Any, weights: Any) -> dict[str, Any]:
        """What ``insert_slices_*`` wants to know of all rows, found once for calls with different ones of them picked."""
        return {}

    def rfft2(self, images: Any, columns: int | None = None) -> Any:
        """Half transforms of a stack, complex64; with ``columns``, only the first of each are sure to be there."""
        import scipy.fft

        if columns is None:
            return scipy.fft.rfft2(images, workers=1)
        return scipy.fft.fft(scipy.fft.rfft(images, workers=1)[..., :columns], axis=-2, workers=1)

    def use(self) -> Any:
        """Context in which this backend's device is the current one of the thread."""
        from contextlib import nullcontext

        return nullcontext()

    def turn(self) -> Any:
        """Context that lets in as many lanes at once as the device bears."""
        from contextlib import nullcontext

        return nullcontext()

    def free(self) -> None:
        """Give unused memory back."""

    def synchronize(self) -> None:
        """Wait until all kernels that were started are done."""


class CudaBackend(Backend):
    """Kernels and arrays on one CUDA device, through cupy."""

    block_bytes = 1_000_000_000
    max_block = 1024
    sample_bytes = 2_000_000_000
    coarse_bytes = 1_000_000_000
    # a block that does not fit is halved instead
    slot_bytes = 1 << 62
    insert_slices_at_once = 16_384
    lanes = 4
    readers = 3

    def __init__(self, cupy: Any, index: int) -> None:
        gpu = Gpu(cupy)

        def find(kernel: str, file: str) -> Callable[..., Any]:
            return functools.partial(_function(kernel + "_cuda", file), gpu)

        super().__init__(f"cuda:{index}", cupy, find)
        self.index = index
        self._turn = threading.Lock()
        self.out_of_memory = (cupy.cuda.memory.OutOfMemoryError,)
        with self.use():
            self.slice_bytes = int(0.3 * cupy.cuda.Device().mem_info[1])

    def to_device(self, array: Any, dtype: Any = None) -> Any:
        """An array on the card; arrays that are there already stay."""
        return self.xp.ascontiguousarray(self.xp.asarray(array, dtype))

    def to_host(self, array: Any) -> np.ndarray:
        """A numpy array from one on the card."""
        return self.xp.asnumpy(array)

    def staged(self, images: np.ndarray) -> np.ndarray:
        """A copy in page-locked memory, which the device fetches by itself."""
        memory = self.xp.cuda.alloc_pinned_memory(max(images.size * 4, 1))
        out = np.frombuffer(memory, np.float32, images.size).reshape(images.shape)
        out[...] = images
        return out

    def upload(self, images: np.ndarray) -> Any:
        """A copy on the card."""
        out = self.xp.empty(images.shape, np.float32)
        out.set(np.ascontiguousarray(images, np.float32))
        return out

    def repeat(self, values: np.ndarray, counts: np.ndarray) -> Any:
        """``numpy.repeat``; cupy's takes no array of counts."""
        ends = np.cumsum(counts)
        row = self.xp.searchsorted(self.to_device(ends), self.xp.arange(int(ends[-1]) if len(ends) else 0), side="right")
        return self.to_device(values)[row]

    def insertion_units(self, rows: Any, weights: Any) -> dict[str, Any]:
        """Largest of the rows and of the weights, which set the unit of their integers."""
        top, bottom, weight = (float(v) for v in self.to_host(self.xp.stack([rows.max(), rows.min(), weights.max()])))
        return {"tops": (max(top, -bottom), weight)}

    def rfft2(self, images: Any, columns: int | None = None) -> Any:
        """Half transforms of a stack, complex64."""
        return self.xp.ascontiguousarray(self.xp.fft.rfft2(images))

    def use(self) -> Any:
        """Context in which this device is the current one of the thread."""
        return self.xp.cuda.Device(self.index)

    def turn(self) -> Any:
        """Context that lets in one lane at a time."""
        return self._turn

    def free(self) -> None:
        """Give unused memory back to the device."""
        self.xp.get_default_memory_pool().free_all_blocks()

    def synchronize(self) -> None:
        """Wait until all kernels that were started are done."""
        self.xp.cuda.Device(self.index).synchronize()


def _function(name: str, file: str) -> Callable[..., Any]:
    module = import_module(f"cryotk.kernels.{file}")
    if not hasattr(module, name):
        module = import_module(f"cryotk.kernels.{file}_cuda")
    return getattr(module, name)


def _numpy_function(kernel: str, file: str) -> Callable[..., Any]:
    module = import_module(f"cryotk.kernels.{file}")
    # one definition serves images and volumes
    return getattr(module, kernel + "_numpy", None) or getattr(module, kernel[:-3] + "_numpy")


CPU = Backend("cpu", np, _function)
NUMPY = Backend("numpy", np, _numpy_function)


@functools.cache
def cuda_backend(index: int = 0) -> CudaBackend:
    """The backend of one CUDA device; cupy must be installed and the device there."""
    return CudaBackend(import_module("cupy"), index)


def backend_of(array: Any) -> Backend | None:
    """The backend whose compiled kernels take an array: numpy's, or that of the card it lies on; None for other libraries."""
    if isinstance(array, np.ndarray):
        return CPU
    if type(array).__module__.partition(".")[0] == "cupy":
        return cuda_backend(int(array.device.id))
    return None


def _by_name(name: str) -> Backend:
    return {"cpu": CPU, "numpy": NUMPY}.get(name) or cuda_backend(int(name.partition(":")[2] or 0))
