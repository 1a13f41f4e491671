"""The Fourier pixels that enter the likelihood: a disc of the half plane, in one fixed order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["Lattice"]


def _round(values: np.ndarray) -> np.ndarray:
    return np.floor(values + 0.5).astype(np.int32)


@dataclass(frozen=True)
class Lattice:
    """Pixels ``x^2 + y^2 <= (window / 2)^2`` of the half plane ``x >= 0`` (without ``x = 0, y < 0``), origin first.

    Pixels between that disc and the last shell are compared with a slice that is zero there: they add a constant to
    every score and are kept apart, as power per shell (:attr:`outside_shell`).

    Parameters
    ----------
    box : int
        Pixels of the image.
    window : int
        Even number of pixels of the window that is used.
    """

    box: int
    window: int

    @cached_property
    def _grid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n = self.box
        ky = np.arange(n)
        ky = np.where(ky <= n // 2, ky, ky - n)[:, None]
        kx = np.arange(n // 2 + 1)[None, :]
        counts = ~((kx == 0) & (ky < 0))
        return np.broadcast_to(ky, (n, n // 2 + 1)), np.broadcast_to(kx, (n, n // 2 + 1)), counts

    @cached_property
    def _inside(self) -> np.ndarray:
        ky, kx, counts = self._grid
        half = self.window // 2
        return (kx * kx + ky * ky <= half * half) & counts & (ky > -half if half > 0 else counts)

    @cached_property
    def rows(self) -> np.ndarray:
        """(P,) row of each pixel in the full half transform."""
        return np.nonzero(self._inside)[0].astype(np.int32)

    @cached_property
    def columns(self) -> np.ndarray:
        """(P,) column of each pixel in the full half transform."""
        return np.nonzero(self._inside)[1].astype(np.int32)

    @cached_property
    def ky(self) -> np.ndarray:
        """(P,) signed row frequency."""
        return self._grid[0][self.rows, self.columns].astype(np.int32)

    @cached_property
    def kx(self) -> np.ndarray:
        """(P,) column frequency."""
        return self.columns.copy()

    @cached_property
    def shell(self) -> np.ndarray:
        """(P,) shell of each pixel: the rounded radius."""
        return _round(np.hypot(self.kx, self.ky))

    @cached_property
    def signs(self) -> np.ndarray:
        """(P,) float32, ``(-1)^(kx + ky)``."""
        return (1 - 2 * ((self.kx + self.ky) % 2)).astype(np.float32)

    @cached_property
    def outside_shell(self) -> np.ndarray:
        """(box, box // 2 + 1) int32: shell of half-plane pixels not on the lattice, up to box / 2; -1 elsewhere."""
        ky, kx, counts = self._grid
        shell = _round(np.hypot(kx, ky))
        counted = counts & ~self._inside & (shell <= self.box // 2) & ~self._missing_row
        return np.where(counted, shell, -1).astype(np.int32)

    @cached_property
    def _missing_row(self) -> np.ndarray:
        """A window of even size has its last row once, at positive frequency: the mates of that row do not count."""
        ky, kx, _ = self._grid
        return (ky == -(self.window // 2)) & (_round(np.hypot(kx, ky)) == self.window // 2)

    @cached_property
    def window_pixels_per_shell(self) -> np.ndarray:
        """(box // 2 + 1,) pixels of each shell that a window of this size holds."""
        ky, kx, counts = self._grid
        shell = _round(np.hypot(kx, ky))
        half = self.window // 2
        held = counts & (shell <= half) & ~self._missing_row
        return np.bincount(shell[held], minlength=self.box // 2 + 1)

    @cached_property
    def pixels_per_shell(self) -> np.ndarray:
        """(box // 2 + 1,) half-plane pixels of each shell, on the lattice or not."""
        ky, kx, counts = self._grid
        shell = _round(np.hypot(kx, ky))
        return np.bincount(shell[counts & (shell <= self.box // 2)], minlength=self.box // 2 + 1)

    def __len__(self) -> int:
        return len(self.rows)

    def frequencies(self, pixel_size: float) -> np.ndarray:
        """(P, 2) x and y frequency in 1/Å."""
        return np.stack([self.kx, self.ky], -1) / (self.box * pixel_size)

    def subset(self, window: int) -> np.ndarray:
        """Positions on this lattice of the pixels of a smaller window, in this lattice's order."""
        half = window // 2
        inside = (self.kx.astype(int) ** 2 + self.ky.astype(int) ** 2 <= half * half) & (self.ky > -half)
        return np.nonzero(inside)[0]

    def ramps(self, shifts_px: np.ndarray) -> np.ndarray:
        """Phase ramps ``exp(-2 pi i k.t / box)`` of shifts (T, 2) in pixels: (T, 2, P) float32, real part first."""
        angle = (-2 * np.pi / self.box) * (shifts_px[:, :1] * self.kx + shifts_px[:, 1:] * self.ky)
        return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
