"""One point of local resolution: the FSC inside its window, and the map filtered by it, both only where the window is.

Sums over whole shells of the box's own transform, to rounding, at a fraction of its cost: a window of ``2 q + 1`` voxels is
transformed by cosine and sine matrices of ``(q + 1) x (n / 2 + 1)``, part by part (see ``kernels/local_windows.py``).
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from cryotk.execution import Stopped, pulse
from cryotk.kernels.backends import CPU, Backend
from cryotk.maps.transform import shells_of_radii

__all__ = ["WindowFilter", "WindowSums", "lattice", "window_profile"]

_BLOCK_BYTES, _ROWS = 400_000, 16
_DEVICE_BLOCK_BYTES = 64_000_000


def window_profile(radius: int, edge: int) -> np.ndarray:
    """Raised-cosine ball in a box of ``2 (radius + edge) + 1`` voxels, float32."""
    q = radius + edge
    k = np.arange(-q, q + 1)
    d = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    soft = 0.5 - 0.5 * np.cos(np.pi * (radius + edge - d) / max(edge, 1))
    return np.where(d < radius, 1.0, np.where(d > radius + edge, 0.0, soft)).astype(np.float32)


def lattice(n: int, step: int, radius: int) -> np.ndarray:
    """Sampling points (z, y, x) as indices, in RELION's order: a lattice inside the sphere of ``n / 2 - radius``.

    Returns
    -------
    (m, 3) int64
    """
    k = np.arange(-(n // 2), n - n // 2, step)
    z, y, x = (v.ravel() for v in np.meshgrid(k, k, k, indexing="ij"))
    keep = np.sqrt(z * z + y * y + x * x) < n // 2 - radius
    return np.stack([z, y, x], -1)[keep] + n // 2


def _waves(n: int, q: int) -> np.ndarray:
    """Cosines and minus sines ``(2, q + 1, n // 2 + 1)`` of distances and frequencies."""
    angle = 2 * np.pi * ((np.arange(q + 1)[:, None] * np.arange(n // 2 + 1)) % n) / n
    return np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32)


def _multiply(backend: Backend, a: Any, b: Any, out: Any) -> None:
    """``out = a @ b``."""
    if backend.on_device:
        out[...] = backend.xp.matmul(a, b)  # cupy writes into contiguous memory only
    else:
        np.matmul(a, b, out=out)


class WindowSums:
    """FSC sums inside windows, for two pairs of maps at once.

    Parameters
    ----------
    maps : (4, n, n, n) float32
        Half 1, half 2, and the same with random phases.
    window : (2 q + 1,) * 3 float32
        Of numpy.
    backend : Backend
        Of the maps.
    stop : threading.Event, optional
        Once set, whatever is under way raises :class:`cryotk.execution.Stopped`.
    """

    def __init__(self, maps: Any, window: np.ndarray, backend: Backend = CPU, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()
        self.backend, self.maps, self.window = backend, maps, backend.to_device(window)
        self.n, self.q = maps.shape[-1], window.shape[0] // 2
        self.half = self.n // 2
        self.shells = backend.to_device(shells_of_radii(self.n))
        waves = _waves(self.n, self.q)
        self.waves = [backend.to_device(w) for w in waves]
        self.turned = [backend.to_device(w.T) for w in waves]
        self._local = threading.local()
        m = self.half + 1
        rows = min(m, max(1, (_DEVICE_BLOCK_BYTES if backend.on_device else _BLOCK_BYTES) // (24 * m * m)))
        self.blocks = []
        # rows of ky whose products stay in the cache, several of them per product along y
        many = rows * -(-_ROWS // rows)
        for first in range(0, m, many):
            last = min(m, first + many)
            top = self._top(first)
            inner = [(a, min(last, a + rows), self._top(a) if rows == 1 else top) for a in range(first, last, rows)]
            self.blocks.append((first, last, top, inner))

    def _top(self, ky: int) -> int:
        """Number of kx or kz that shells up to ``half + 0.5`` have at a ky."""
        return min(self.half, int(np.sqrt(max((self.half + 0.5) ** 2 - ky * ky, 0)))) + 1

    def _scratch(self) -> Any:
        s = self._local
        if not hasattr(s, "parts"):
            xp, m, k = self.backend.xp, self.q + 1, self.half + 1
            s.parts = xp.empty((2, 2, 2, 4, m, m, m), np.float32)
            s.along_x = xp.empty((2, 2, 2, 4, m, k, m), np.float32)
            rows = max(b - a for _, _, _, inner in self.blocks for a, b, _ in inner)
            s.along_y = xp.empty(32 * max(b - a for a, b, _, _ in self.blocks) * k * m, np.float32)
            s.along_z = xp.empty(4 * rows * k * k, np.float32)
            s.products = xp.empty(6 * rows * k * k, np.float32)
        return s

    def __call__(self, point: np.ndarray) -> np.ndarray:
        """Sums ``12, 11, 22`` of the maps, then of the randomised ones, per shell: (6, n // 2 + 1) float64 of numpy."""
        kernels, s, m, k = self.backend, self._scratch(), self.q + 1, self.half + 1
        z, y, x = (int(v) for v in point)
        kernels.cut_parts(self.maps, z, y, x, self.window, s.parts)
        for px in range(2):
            _multiply(kernels, self.turned[px], s.parts[:, px], s.along_x[:, px])
        along_x = s.along_x.reshape(2, 16, m, k * m)
        out = kernels.xp.zeros((k, 6))
        for first, last, top, inner in self.blocks:
            pulse()
            if self.stop.is_set():
                raise Stopped
            along_y = s.along_y[: 32 * (last - first) * top * m].reshape(2, 16, last - first, top * m)
            for py in range(2):
                _multiply(kernels, self.turned[py][first:last], along_x[py, :, :, : top * m], along_y[py])
            parts = along_y.reshape(8, 4, last - first, top, m)
            for a, b, narrow in inner:
                size = (b - a) * narrow
                along_z = s.along_z[: 4 * size * narrow].reshape(4, size, narrow)
                products = s.products[: 6 * size * narrow].reshape(6, size, narrow)
                for part in range(8):
                    values = parts[part, :, a - first : b - first, :narrow].reshape(4, size, m)
                    _multiply(kernels, values, self.waves[part % 2][:, :narrow], along_z)
                    kernels.add_products(along_z.reshape(4, size * narrow), part == 0, products.reshape(6, size * narrow))
                kernels.products_to_shells(products, a, narrow, self.n, self.shells, out)
        return kernels.to_host(out).T.copy()


class WindowFilter:
    """A map filtered by radial gains, evaluated inside a box around a point.

    Parameters
    ----------
    transform : (n, n, n // 2 + 1) complex64
        Divided by the number of voxels.
    q : int
        Half side of the box.
    backend : Backend
        Of the transform.
    """

    def __init__(self, transform: Any, q: int, backend: Backend = CPU) -> None:
        self.backend, self.f, self.n, self.q = backend, transform, transform.shape[0], q
        self.half = self.n // 2
        self.turned = [backend.to_device(w) for w in _waves(self.n, q)]
        k, x = np.arange(self.half + 1), np.arange(-q, q + 1)
        angle = 2 * np.pi * ((k[:, None] * x) % self.n) / self.n
        weight = np.where((k == 0) | (2 * k == self.n), 1.0, 2.0)[:, None]
        last = np.stack([weight * np.cos(angle), -weight * np.sin(angle)], 1).reshape(2 * (self.half + 1), 2 * q + 1)
        self.last = backend.to_device(last, np.float32)
        self._local = threading.local()

    def _turn(self, index: int) -> Any:
        k = np.arange(self.half + 1)
        return self.backend.to_device(np.exp(2j * np.pi * ((k * index) % self.n) / self.n).astype(np.complex64))

    def _buffer(self, name: str, shape: tuple[int, ...], kind: Any) -> Any:
        size = int(np.prod(shape))
        buffer = getattr(self._local, name, None)
        if buffer is None or buffer.size < size:
            buffer = self.backend.xp.empty(size, kind)
            setattr(self._local, name, buffer)
        return buffer[:size].reshape(shape)

    def __call__(self, point: np.ndarray, gain: np.ndarray, k_max: int) -> Any:
        """Values in the box around a point, (2 q + 1,) * 3 float32.

        Parameters
        ----------
        point : (3,) int
        gain : (m,) float32
            Over ``k^2``; nothing beyond ``k_max``.
        k_max : int
        """
        kernels, m, q, side = self.backend, k_max + 1, self.q, 2 * self.q + 1
        z, y, x = (int(v) for v in point)
        parts = self._buffer("parts", (2, 2, m, m, m), np.complex64)
        kernels.coefficients_around(
            self.f, kernels.to_device(gain), k_max, self._turn(z), self._turn(y), self._turn(x), parts
        )  # fmt: skip
        along_z = self._buffer("along_z", (2, 2, q + 1, m, m), np.complex64)
        along_y = self._buffer("along_y", (2, 2, q + 1, q + 1, m), np.complex64)
        for pz in range(2):
            for py in range(2):
                _multiply(
                    kernels,
                    self.turned[pz][:, :m],
                    parts[pz, py].reshape(m, m * m).view(np.float32),
                    along_z[pz, py].reshape(q + 1, m * m).view(np.float32),
                )
                _multiply(kernels, self.turned[py][:, :m], along_z[pz, py].view(np.float32), along_y[pz, py].view(np.float32))
        both = self._buffer("both", (side, side, m), np.complex64)
        kernels.join_parts(along_y, both)
        return (both.reshape(side * side, m).view(np.float32) @ self.last[: 2 * m]).reshape(side, side, side)
