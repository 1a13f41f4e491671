"""Compiles the CUDA sources at run time and starts them; the array module (cupy) is handed in, nothing here imports it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

__all__ = ["PRELUDE", "Gpu", "for_types"]

# In front of every source. Reductions have a fixed order, so that results do not depend on which thread came first.
PRELUDE = r"""
// Position i with start[i] <= value < start[i + 1]; empty intervals are skipped.
inline __device__ int interval_of(const long long* start, int n, long long value)
{
    int low = 0, high = n;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (start[middle] <= value) low = middle; else high = middle;
    }
    return low;
}

// Sum over the threads of a block, a power of two; all threads call it and all get the result.
inline __device__ double block_sum(double value, double* room)
{
    const int t = threadIdx.x;
    __syncthreads();
    room[t] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) room[t] += room[t + half];
        __syncthreads();
    }
    return room[0];
}
"""


def for_types(source: str) -> str:
    """A source for single and for double precision: ``REAL``, ``REAL2`` (complex) and ``SUFFIX`` stand for ``float``, ``double``."""
    return "".join(source.replace("SUFFIX", t).replace("REAL", t) for t in ("float", "double"))


class Gpu:
    """One array module on one device, and the kernels compiled for it.

    Parameters
    ----------
    xp : module
        cupy.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self._modules: dict[str, Any] = {}
        self._lock = threading.Lock()

    def launch(self, source: str, name: str, grid: int | tuple[int, ...], block: int, *arguments: Any) -> None:
        """Start kernel ``name`` of a source on ``grid`` blocks of ``block`` threads; nothing for an empty grid.

        ``arguments`` are device arrays (contiguous) and numpy scalars of exactly the C type.
        """
        grid = grid if isinstance(grid, tuple) else (grid,)
        if min(grid) <= 0:
            return
        for a in arguments:
            # cupy would pass an int as 64 bits and a slice with wrong strides, silently
            if not isinstance(a, np.generic) and not a.flags.c_contiguous:
                raise ValueError(f"{name}: arrays must be contiguous")
        with self._lock:
            if source not in self._modules:
                self._modules[source] = self.xp.RawModule(code=PRELUDE + source, options=("--std=c++14",))
            function = self._modules[source].get_function(name)
        function(grid, (block,), arguments)

    def spread(self, n: int, block: int = 256) -> int:
        """Blocks for a loop over ``n`` elements in which every thread takes strides."""
        return int(min(-(-n // block), 1 << 20))
