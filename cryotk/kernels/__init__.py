"""The hot loops: each with a plain numpy version (the definition), a numba and a CUDA version; no imports from cryotk.

Kernels are serial and release the GIL; threads are the caller's.
"""

__all__ = ["warmup"]


def warmup() -> float:
    """Compile every kernel ahead of its first use; returns the seconds it took."""
    import time

    from cryotk.kernels import _warmup

    start = time.perf_counter()
    _warmup.run()
    return time.perf_counter() - start
