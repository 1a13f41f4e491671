"""Transforms of maps and what is done to them, on the array module of the input.

Half transforms ``(n, n, n // 2 + 1)``, divided by the number of voxels. Numpy arrays go through the compiled kernels,
in slabs over a fixed number of pieces, so that results do not depend on the number of threads; cupy's through the kernels'
CUDA twins, whole; other libraries through their own functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import array_api_compat
import numpy as np
import scipy.fft

from cryotk.execution import default_threads, pulse
from cryotk.kernels import shell_sums
from cryotk.kernels.backends import Backend, backend_of

__all__ = [
    "amplitudes_by_radius",
    "apply_gain",
    "cross_sums",
    "filtered",
    "forward",
    "inverse",
    "is_numpy",
    "mask_transform",
    "namespace",
    "plane_sums",
    "radii",
    "random_phases",
    "shell_means",
    "shells_of_radii",
    "to_numpy",
]

_SLABS, _SMALL = 8, 96


def namespace(*arrays: Any) -> Any:
    """Array-API namespace of arrays."""
    return array_api_compat.array_namespace(*arrays)


def is_numpy(x: Any) -> bool:
    """Whether the compiled kernels can take it."""
    return isinstance(x, np.ndarray)


@lru_cache(maxsize=8)
def shells_of_radii(n: int) -> np.ndarray:
    """Shell (rounded radius) of every ``k^2`` of a box, int32."""
    k2 = np.arange(3 * (n // 2) ** 2 + 1)
    return np.floor(np.sqrt(k2) + 0.5).astype(np.int32)


@lru_cache(maxsize=8)
def radii(n: int) -> np.ndarray:
    """Radius of every ``k^2`` of a box, in Fourier pixels."""
    return np.sqrt(np.arange(3 * (n // 2) ** 2 + 1, dtype=float))


@lru_cache(maxsize=8)
def _counts_by_radius(n: int) -> np.ndarray:
    """How many stored coefficients have each ``k^2``."""
    k = np.arange(n)
    k2 = np.bincount(np.where(k <= n // 2, k, n - k) ** 2)
    two = np.zeros(2 * (n // 2) ** 2 + 1, np.int64)
    where = np.nonzero(k2)[0]
    np.add.at(two, (where[:, None] + where).ravel(), (k2[where][:, None] * k2[where]).ravel())
    out = np.zeros(3 * (n // 2) ** 2 + 1, np.int64)
    for x in range(n // 2 + 1):
        out[x * x : x * x + len(two)] += two
    return out


def _slabs(n: int) -> list[tuple[int, int]]:
    edges = np.linspace(0, n, min(max(_SLABS, n // 16), n) + 1).round().astype(int)
    return [(int(a), int(b)) for a, b in pairwise(edges) if b > a]


def each_slab(
    function: Callable[[int, int], Any], n: int, backend: Backend | None = None, share: float = 1.0, box: int | None = None
) -> list[Any]:
    """Run a function over a fixed cut of ``n`` planes, in threads, or on a device over all at once; results in order.

    One step of a call's progress, or a share of it. ``box`` decides whether threads pay, where ``n`` is a part of it.
    """
    if backend is not None and backend.on_device:
        with backend.use():
            out: list[Any] = [function(0, n)]
        pulse(share)
        return out
    slabs, threads = _slabs(n), default_threads()
    out = []
    if threads == 1 or (box or n) < _SMALL:
        for s in slabs:
            out.append(function(*s))
            pulse(share / len(slabs))
        return out
    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(function, *s) for s in slabs]
        try:
            for future in waiting:
                out.append(future.result())
                pulse(share / len(slabs))
        finally:
            for future in waiting:
                future.cancel()
    return out


def _pieces(function: Callable[[int, int], Any], n: int, box: int, share: float = 1.0) -> None:
    """A pass of a transform, or a share of it: slabs of a large box, a small one at once."""
    if box >= _SMALL:
        each_slab(function, n, share=share, box=box)
    else:
        function(0, n)
        pulse(share)


def _contiguous(x: Any) -> Any:
    """As the CUDA kernels want it; other libraries have no such thing."""
    backend = backend_of(x)
    return x if backend is None else backend.to_device(x)


def forward(x: Any, mask: Any = None, reach: int | None = None) -> Any:
    """Half transform of a cube, divided by the number of voxels; of ``x * mask`` when one is given.

    With ``reach`` only what has all three ``|k|`` up to it is right: the rest is left undone, and needs a gain of 0.
    """
    n = x.shape[-1]
    if not is_numpy(x):
        xp = namespace(x)
        out = _contiguous(xp.fft.rfftn(x if mask is None else x * mask, axes=(0, 1, 2), norm="forward"))
        pulse(3.0)
        return out
    if n < _SMALL and reach is None:
        out = scipy.fft.rfftn(x if mask is None else x * mask, norm="forward", workers=1)
        pulse(3.0)
        return out
    f = np.empty((n, n, n // 2 + 1), np.complex128 if x.dtype == np.float64 else np.complex64)

    def lines(a: int, b: int) -> None:
        block = x[a:b] if mask is None else x[a:b] * mask[a:b]
        f[a:b] = scipy.fft.rfft(block, axis=2, norm="forward", workers=1)

    _pieces(lines, n, n)
    return _in_planes(scipy.fft.fft, f, reach)


def _in_planes(transform: Any, f: np.ndarray, reach: int | None = None) -> np.ndarray:
    """Complex transforms along z and y, in place; the forward one is divided by the number of points."""

    def along(axis: int, lines: np.ndarray) -> None:
        out = transform(lines, axis=axis, overwrite_x=True, workers=1, norm="forward")
        if not np.may_share_memory(out, lines):
            lines[...] = out

    n, k = f.shape[0], f.shape[0] // 2 if reach is None else min(reach, f.shape[0] // 2)
    wanted = [slice(0, n)] if 2 * k + 1 >= n else [slice(0, k + 1), slice(n - k, n)]

    def along_y() -> None:
        _pieces(lambda a, b: along(1, f[a:b, :, : k + 1]), n, n)

    def part_along_z(part: np.ndarray, a: int, b: int) -> None:
        along(0, part[:, a:b])

    def along_z() -> None:
        for rows in wanted:
            part = f[:, rows, : k + 1]
            _pieces(partial(part_along_z, part), part.shape[1], n, 1 / len(wanted))

    # rows that nobody wants are left out of z, so it comes after y forwards and before it backwards
    for step in (along_y, along_z) if reach is None or transform is scipy.fft.fft else (along_z, along_y):
        step()
    return f


def inverse(f: Any, n: int, overwrite: bool = False, reach: int | None = None) -> Any:
    """Map of a half transform; ``overwrite`` allows using the transform's memory, ``reach`` says where it is zero beyond."""
    if not is_numpy(f):
        xp = namespace(f)
        out = _contiguous(xp.fft.irfftn(f, s=(n, n, n), axes=(0, 1, 2), norm="forward"))
        pulse(3.0)
        return out
    if n < _SMALL and reach is None:
        out = scipy.fft.irfftn(f, s=(n, n, n), norm="forward", overwrite_x=overwrite, workers=1)
        pulse(3.0)
        return out
    work = _in_planes(scipy.fft.ifft, f if overwrite else f.copy(), reach)
    return _lines_in_place(work, n)


def _lines_in_place(work: np.ndarray, n: int) -> np.ndarray:
    """Real lines of a transform along x, in its own memory: new memory of this size is slow to get and a volume more."""
    if not work.flags.c_contiguous:
        return np.ascontiguousarray(scipy.fft.irfft(work, n, axis=2, norm="forward", workers=1))
    memory = work.reshape(-1).view(work.real.dtype)
    stride = n * (2 * work.shape[2])

    def lines(a: int, b: int) -> None:
        memory[a * stride : a * stride + (b - a) * n * n] = scipy.fft.irfft(
            work[a:b], n, axis=2, norm="forward", workers=1
        ).reshape(-1)

    _pieces(lines, n, n)
    slabs = _slabs(n) if n >= _SMALL else []
    for a, b in slabs[1:]:  # close the gaps between slabs
        memory[a * n * n : b * n * n] = memory[a * stride : a * stride + (b - a) * n * n]
    return memory[: n**3].reshape(n, n, n)


def filtered(x: Any, gain: np.ndarray) -> Any:
    """A map through a gain that is a table over ``k^2``; what the gain erases is not transformed."""
    n = x.shape[-1]
    passed = np.nonzero(gain)[0]
    last = math.isqrt(int(passed[-1])) if len(passed) else 0
    reach = last if last < n // 2 else None
    return inverse(apply_gain(forward(x, reach=reach), gain, overwrite=True), n, overwrite=True, reach=reach)


def mask_transform(f: Any, mask: Any) -> Any:
    """Transform of the map of a transform times a mask; uses the transform's memory."""
    n = mask.shape[-1]
    if not is_numpy(f):
        return forward(inverse(f, n), mask)
    work = _in_planes(scipy.fft.ifft, f)

    def lines(a: int, b: int) -> None:
        block = scipy.fft.irfft(work[a:b], n, axis=2, norm="forward", workers=1)
        block *= mask[a:b]
        work[a:b] = scipy.fft.rfft(block, axis=2, norm="forward", overwrite_x=True, workers=1)

    _pieces(lines, n, n)
    return _in_planes(scipy.fft.fft, work)


def _squared_radius(xp: Any, n: int) -> Any:
    i, j = xp.arange(n, dtype=xp.int64), xp.arange(n // 2 + 1, dtype=xp.int64)
    k2 = xp.where(i <= n // 2, i, i - n) ** 2
    return k2[:, None, None] + k2[None, :, None] + (j**2)[None, None, :]


def _bin_sums(xp: Any, index: Any, values: list[Any], length: int) -> np.ndarray:
    """Sums of values with the same index, for libraries that have no bincount in their standard."""
    flat = xp.reshape(index, (-1,))
    out = []
    if hasattr(xp, "bincount"):
        for v in values:
            out.append(to_numpy(xp.bincount(flat, weights=xp.reshape(v, (-1,)), minlength=length))[:length])
        return np.stack(out)
    order = xp.argsort(flat)
    edges = xp.searchsorted(xp.take(flat, order), xp.arange(length + 1, dtype=flat.dtype))
    for v in values:
        total = xp.cumulative_sum(xp.take(xp.reshape(v, (-1,)), order), include_initial=True)
        at = xp.take(total, edges)
        out.append(to_numpy(at[1:] - at[:-1]))
    return np.stack(out)


def to_numpy(x: Any) -> np.ndarray:
    """On the host."""
    return np.asarray(x.get() if hasattr(x, "get") else x)


def cross_sums(a: Any, b: Any) -> np.ndarray:
    """Sums of ``Re(conj(a) b)``, ``|a|^2``, ``|b|^2`` over shells 0 to n // 2.

    Returns
    -------
    (3, n // 2 + 1) float64
    """
    n = a.shape[0]
    backend = backend_of(a)
    if backend is not None:
        table = backend.to_device(shells_of_radii(n))

        def part(first: int, last: int) -> np.ndarray:
            out = backend.xp.zeros((3, n // 2 + 1))
            backend.cross_sums(a, b, table, first, last, out)
            return backend.to_host(out)

        return np.sum(each_slab(part, n, backend), axis=0)
    xp = namespace(a, b)
    shell = xp.reshape(xp.take(xp.asarray(shells_of_radii(n)), xp.reshape(_squared_radius(xp, n), (-1,))), a.shape)
    double = xp.float64
    products = [
        xp.astype(xp.real(xp.conj(a) * b), double),
        xp.astype(xp.real(a), double) ** 2 + xp.astype(xp.imag(a), double) ** 2,
        xp.astype(xp.real(b), double) ** 2 + xp.astype(xp.imag(b), double) ** 2,
    ]
    return _bin_sums(xp, shell, products, int(shells_of_radii(n)[-1]) + 1)[:, : n // 2 + 1]


def plane_sums(a: Any, b: Any) -> np.ndarray:
    """What of :func:`cross_sums` lies on the planes kx = 0 and, in even boxes, kx = n / 2, whose mates are stored too.

    The sums over the whole transform are ``2 cross_sums - plane_sums``.
    """
    n = a.shape[0]
    shell = shells_of_radii(n)
    k2 = np.where(np.arange(n) <= n // 2, np.arange(n), np.arange(n) - n) ** 2
    out = np.zeros((3, n // 2 + 1))
    for kx in {0, n // 2} if n % 2 == 0 else {0}:
        p, q = (to_numpy(f[:, :, kx]).astype(complex) for f in (a, b))
        s = shell[k2[:, None] + k2 + kx * kx]
        use = s <= n // 2
        for i, v in enumerate(((p.conj() * q).real, np.abs(p) ** 2, np.abs(q) ** 2)):
            out[i] += np.bincount(s[use], v[use], n // 2 + 1)
    return out


def amplitudes_by_radius(f: Any) -> np.ndarray:
    """Sum of ``|f|`` over the coefficients of each ``k^2``: all radial averages, of the map and of any radial filter of it.

    Returns
    -------
    (3 (n // 2)^2 + 1,) float64
    """
    n = f.shape[0]
    length = 3 * (n // 2) ** 2 + 1
    backend = backend_of(f)
    if backend is not None:

        def part(first: int, last: int) -> np.ndarray:
            out = backend.xp.zeros(length)
            backend.amplitude_sums(f, first, last, out)
            return backend.to_host(out)

        return np.sum(each_slab(part, n, backend), axis=0)
    xp = namespace(f)
    return _bin_sums(xp, _squared_radius(xp, n), [xp.astype(xp.abs(f), xp.float64)], length)[0]


def shell_means(by_radius: np.ndarray, n: int, gain: np.ndarray | None = None) -> np.ndarray:
    """Mean over the stored coefficients of shells 0 to n // 2, of sums over ``k^2`` that a radial gain may multiply."""
    shell = shells_of_radii(n)
    values = by_radius if gain is None else by_radius * gain
    total = np.bincount(shell, values, n // 2 + 1)[: n // 2 + 1]
    return total / np.bincount(shell, _counts_by_radius(n), n // 2 + 1)[: n // 2 + 1]


def apply_gain(f: Any, gain: np.ndarray, overwrite: bool = False) -> Any:
    """Multiply a transform by a gain that is a table over ``k^2``."""
    n = f.shape[0]
    backend = backend_of(f)
    if backend is not None:
        out = f if overwrite else backend.xp.empty_like(f)
        table = backend.to_device(gain.astype(np.float32 if f.dtype.itemsize == 8 else np.float64))
        each_slab(lambda first, last: backend.apply_gain(f, table, first, last, out), n, backend)
        return out
    xp = namespace(f)
    table = xp.asarray(gain.astype(np.float32 if f.dtype == xp.complex64 else np.float64))
    return f * xp.reshape(xp.take(table, xp.reshape(_squared_radius(xp, n), (-1,))), f.shape)


def random_phases(f: Any, shell: int, seed: int, half: int, overwrite: bool = False) -> Any:
    """Randomise the phases of all coefficients with ``|k| >= shell``.

    Phases are a function of the seed, the half and the place alone, not of threads or libraries.
    """
    n = f.shape[0]
    key = np.random.SeedSequence([seed, half]).generate_state(1, np.uint64)[0]
    backend = backend_of(f)
    if backend is not None:
        out = f if overwrite else f.copy()
        circle = backend.to_device(shell_sums.unit_circle())
        each_slab(lambda first, last: backend.randomise_phases(out, shell * shell, key, circle, first, last), n, backend)
        return out
    xp = namespace(f)
    return shell_sums.with_random_phases(f, shell * shell, int(key), xp.asarray(shell_sums.unit_circle()), xp)
