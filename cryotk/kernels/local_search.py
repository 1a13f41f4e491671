"""Orientations of a grid near given poses, and how probable a Gaussian around them makes each."""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["orientations_near", "orientations_near_numpy"]

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


def orientations_near_numpy(axes, psi, mates, mate_psi, sigma_direction, sigma_psi):
    """Plain version of :func:`orientations_near`."""
    starts, orientations, priors = [0], [], []
    for i in range(len(mates)):
        cosine = axes @ mates[i].T
        best = cosine.argmax(1)
        angle = np.degrees(np.arccos(np.clip(cosine.max(1), -1, 1)))
        near = np.nonzero(angle < 3 * sigma_direction)[0]
        if len(near) == 0:
            near, weight = np.array([angle.argmin()]), np.ones(1)
        else:
            weight = np.exp(-0.5 * (angle[near] / sigma_direction) ** 2)
        for d, w in zip(near, weight / weight.sum(), strict=True):
            delta = np.abs((psi - mate_psi[i, best[d]] + 180.0) % 360.0 - 180.0)
            inside = np.nonzero(delta < 3 * sigma_psi)[0]
            if len(inside) == 0:
                inside, of_psi = np.array([delta.argmin()]), np.ones(1)
            else:
                of_psi = np.exp(-0.5 * (delta[inside] / sigma_psi) ** 2)
            orientations.append(d * len(psi) + inside)
            priors.append(np.log(w * of_psi / of_psi.sum()))
        starts.append(sum(map(len, orientations)))
    return np.array(starts, np.int64), np.concatenate(orientations).astype(np.int32), np.concatenate(priors).astype(np.float32)


@_jit
def _near_directions(axes, mates, limit_cosine, cosines, best):
    """Fill the largest cosine of each direction and its mate; return how many are within the limit and the nearest one."""
    count, nearest, largest = 0, 0, -2.0
    for d in range(axes.shape[0]):
        c, m = -2.0, 0
        for j in range(mates.shape[0]):
            x = axes[d, 0] * mates[j, 0] + axes[d, 1] * mates[j, 1] + axes[d, 2] * mates[j, 2]
            if x > c:
                c, m = x, j
        cosines[d], best[d] = min(c, 1.0), m
        if c > limit_cosine:
            count += 1
        if c > largest:
            largest, nearest = c, d
    return count, nearest


@_jit
def _wrapped(x):
    """|x| in a circle of 360 degrees: the same bits as ``abs((x + 180) % 360 - 180)``, whose division takes ten times as long."""
    x += 180.0
    while x >= 360.0:
        x -= 360.0
    while x < 0.0:
        x += 360.0
    return abs(x - 180.0)


@_jit
def orientations_near(axes, psi, mates, mate_psi, sigma_direction, sigma_psi):
    """Orientations within three widths of poses, with their log probability.

    Parameters
    ----------
    axes : (D, 3) float64
        Directions of the grid.
    psi : (n_psi,) float64
        In-plane angles of the grid in degrees.
    mates : (B, M, 3) float64
        Directions of the M equivalents of each pose; the nearest one counts.
    mate_psi : (B, M) float64
        Their in-plane angles.
    sigma_direction, sigma_psi : float
        Widths in degrees.

    Returns
    -------
    start, orientation, log_prior : (B + 1,) int64, (n,) int32, (n,) float32
        Index direction * n_psi + psi; the nearest alone where none is within the width.
    """
    n_directions, n_psi = axes.shape[0], psi.shape[0]
    limit = np.cos(np.radians(min(3.0 * sigma_direction, 180.0))) if 3.0 * sigma_direction < 180.0 else -2.0
    cosines = np.empty(n_directions, np.float64)
    best = np.empty(n_directions, np.int64)
    start = np.zeros(mates.shape[0] + 1, np.int64)
    capacity = 1024
    orientation = np.empty(capacity, np.int32)
    prior = np.empty(capacity, np.float32)
    weight = np.empty(n_psi, np.float64)
    n = 0
    for i in range(mates.shape[0]):
        count, nearest = _near_directions(axes, mates[i], limit, cosines, best)
        total = 0.0
        if count == 0:
            total = 1.0
        else:
            for d in range(n_directions):
                if cosines[d] > limit:
                    angle = np.degrees(np.arccos(max(cosines[d], -1.0)))
                    total += np.exp(-0.5 * (angle / sigma_direction) ** 2)
        for d in range(n_directions):
            if count == 0:
                if d != nearest:
                    continue
                log_w = 0.0
            elif cosines[d] > limit:
                angle = np.degrees(np.arccos(max(cosines[d], -1.0)))
                log_w = -0.5 * (angle / sigma_direction) ** 2 - np.log(total)
            else:
                continue
            centre = mate_psi[i, best[d]]
            sum_psi, closest, smallest = 0.0, 0, 1e30
            for p in range(n_psi):
                delta = _wrapped(psi[p] - centre)
                weight[p] = -1.0
                if delta < smallest:
                    smallest, closest = delta, p
                if delta < 3.0 * sigma_psi:
                    weight[p] = -0.5 * (delta / sigma_psi) ** 2
                    sum_psi += np.exp(weight[p])
                else:
                    weight[p] = 1.0
            if n + n_psi > capacity:
                capacity = 2 * capacity + n_psi
                wider_o, wider_p = np.empty(capacity, np.int32), np.empty(capacity, np.float32)
                wider_o[:n], wider_p[:n] = orientation[:n], prior[:n]
                orientation, prior = wider_o, wider_p
            if sum_psi == 0.0:
                orientation[n], prior[n] = d * n_psi + closest, log_w
                n += 1
            else:
                log_sum = np.log(sum_psi)
                for p in range(n_psi):
                    if weight[p] <= 0.0:
                        orientation[n] = d * n_psi + p
                        prior[n] = log_w + weight[p] - log_sum
                        n += 1
        start[i + 1] = n
    return start, orientation[:n].copy(), prior[:n].copy()
