"""What the expectation step hands to the maximisation: sums that add."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cryotk.projection import Accumulator

__all__ = ["Sums", "stack_classes"]


@dataclass
class Sums:
    """Posterior-weighted sums over particles. ``a + b`` is the sum over both sets of particles."""

    accumulators: list[Any]
    """One per class: data and weight in the padded transform (``Accumulator``, or ``DiskAccumulator`` where memory is short)."""
    noise: np.ndarray
    """(G, S) summed squared residuals per model shell."""
    noise_weight: np.ndarray
    """(G,) summed weights."""
    ctf_power: np.ndarray
    """(S,) summed CTF^2 of premultiplied data per shell (0 otherwise)."""
    norm: float
    """Sum of the particles' normalisation factors."""
    scale_cross: np.ndarray
    """(M,) per scale group."""
    scale_self: np.ndarray
    class_weight: np.ndarray
    """(K,)"""
    direction_weight: np.ndarray
    """(K, D)"""
    class_offset: np.ndarray
    """(K, 2) Å."""
    offset_squared: float
    """Å^2."""
    weight: float
    """Sum of all significant weights: slightly less than the number of particles."""
    log_likelihood: float
    p_max: float
    n_particles: int

    @classmethod
    def empty(cls, n_classes: int, n_groups: int, n_shells: int, n_scales: int, n_directions: int,
              make_accumulator: Any) -> Sums:
        """Sums over no particles."""
        return cls(
            [make_accumulator() for _ in range(n_classes)],
            np.zeros((n_groups, n_shells)),
            np.zeros(n_groups),
            np.zeros(n_shells),
            0.0,
            np.zeros(n_scales),
            np.zeros(n_scales),
            np.zeros(n_classes),
            np.zeros((n_classes, n_directions)),
            np.zeros((n_classes, 2)),
            0.0,
            0.0,
            0.0,
            0.0,
            0,
        )

    def __iadd__(self, other: Sums) -> Sums:
        for f in fields(self):
            a, b = getattr(self, f.name), getattr(other, f.name)
            if f.name == "accumulators":
                for k in range(len(a)):
                    a[k] += b[k]
            else:
                a += b
                setattr(self, f.name, a)
        return self

    def __add__(self, other: Sums) -> Sums:
        values = []
        for f in fields(self):
            a, b = getattr(self, f.name), getattr(other, f.name)
            values.append([x + y for x, y in zip(a, b, strict=True)] if f.name == "accumulators" else a + b)
        return Sums(*values)


def stack_classes(parts: list[Sums], classes: list[int], n_classes: int) -> Sums:
    """Sums over classes of parts that knew one class each.

    Parameters
    ----------
    parts : list of Sums
        Of one class each, over different particles.
    classes : list of int
        Class of each part, from 0.
    n_classes : int
        Classes without a part get nothing.
    """
    of_class = dict(zip(classes, parts, strict=True))
    first = parts[0].accumulators[0]

    def row(k: int, name: str) -> np.ndarray:
        part = of_class.get(k)
        values = getattr(parts[0], name)[0]
        return np.zeros_like(values) if part is None else getattr(part, name)[0]

    total = {f.name: sum(getattr(p, f.name) for p in parts[1:]) + getattr(parts[0], f.name)
             for f in fields(Sums) if f.name not in ("accumulators", *_PER_CLASS)}  # fmt: skip
    per_class = {name: np.array([row(k, name) for k in range(n_classes)]) for name in _PER_CLASS}
    accumulators = [
        of_class[k].accumulators[0] if k in of_class else Accumulator(first.box, first.current_size, first.padding, first.is_3d)
        for k in range(n_classes)
    ]
    return Sums(accumulators=accumulators, **per_class, **total)


_PER_CLASS = ("class_weight", "direction_weight", "class_offset")
