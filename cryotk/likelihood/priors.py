"""Log priors of orientation and offset, in the right form and in RELION's.

Where RELION 5.0.1 departs from its own equations the difference is named in ``docs/relion_differences.md``; the
argument ``compat="relion"`` reproduces it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cryotk.geometry import euler_to_matrix, matrix_to_euler
from cryotk.kernels.local_search import orientations_near

__all__ = ["local_orientations", "log_prior_offsets", "log_prior_orientations"]


def log_prior_orientations(distribution: np.ndarray, n_psi: int) -> np.ndarray:
    """Log prior of every (class, direction, psi), relative to the mean over all.

    Parameters
    ----------
    distribution : (K, D) float
        Probability of each class and direction; sums to 1.
    n_psi : int

    Returns
    -------
    (K * D * n_psi,) float32
    """
    with np.errstate(divide="ignore"):
        log = np.log(distribution / distribution.mean())
    return np.repeat(log.reshape(-1), n_psi).astype(np.float32)


def log_prior_offsets(
    old_offset_px: Any,
    offsets: Any,
    prior: Any,
    sigma: float,
    pixel_size: float,
    is_3d: bool,
    compat: str | None,
) -> Any:
    """Log prior of the offsets of a block, up to the factor that all offsets share; in the array module of its arguments.

    Parameters
    ----------
    old_offset_px : (B, 2) float
        Rounded old offset in pixels, already applied to the image.
    offsets : (T, 2) float
        Coarse, unperturbed offsets in Å.
    prior : (B, 1, 2) or (1, K, 2) float
        Centre of the prior in Å, per particle or per class.
    sigma : float
        Width in Å.
    pixel_size : float
        Å.
    is_3d : bool
        Whether references are volumes.
    compat : {None, "relion"}
        RELION mixes pixels and Å: ``-(a^2 / 2 sigma^2) |o_px + t_A - p|^2``, p in Å in 2D and in pixels in 3D.

    Returns
    -------
    (B, Kt, T) float32
    """
    if compat == "relion":
        centre = prior / pixel_size if is_3d else prior
        delta = old_offset_px[:, None, None, :] + offsets[None, None] - centre[:, :, None, :]
        squared = pixel_size**2 * (delta**2).sum(-1)
    else:
        delta = pixel_size * old_offset_px[:, None, None, :] + offsets[None, None] - prior[:, :, None, :]
        squared = (delta**2).sum(-1)
    # no width: no preference
    factor = 0.0 if sigma * sigma < 1e-4 else -1.0 / (2 * sigma**2)
    return (squared * factor).astype(np.float32)


def mean_offset_prior(log_prior: Any, xp: Any) -> Any:
    """(B,) log of the mean of the prior over (class, offset): the constant RELION's likelihood is relative to."""
    b = len(log_prior)
    return xp.log(xp.exp(log_prior.astype(np.float64)).reshape(b, -1).mean(1))


def local_orientations(
    poses: np.ndarray,
    directions: np.ndarray,
    psi: np.ndarray,
    sigmas: tuple[float, float, float],
    operators: np.ndarray,
    compat: str | None,
    relaxed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Orientations near each particle's pose, or near its mates in a relaxed symmetry, and their log prior.

    Parameters
    ----------
    poses : (B, 3) float
        rot, tilt, psi in degrees around which to search.
    directions : (D, 2) float
        rot, tilt of the grid, unperturbed.
    psi : (n_psi,) float
        In-plane angles of the grid, unperturbed.
    sigmas : (float, float, float)
        Widths for rot, tilt, psi in degrees; 3 sigma are kept.
    operators : (n, 3, 3) float
        Point group. A direction is compared with the nearest mate of the pose.
    compat : {None, "relion"}
        RELION compares psi with the particle's own psi whatever the mate; ours with the psi of that mate, so that
        poses outside the asymmetric unit are not lost.
    relaxed : (m, 3, 3) float, optional
        Rotations of a symmetry that is nearly one (:func:`~cryotk.geometry.relaxation_operators`): the pose turned by each is
        as likely, and all of them are searched around.

    Returns
    -------
    start, orientation, log_prior : (B + 1,) int64, (n,) int32, (n,) float32
        CSR list of orientation indices (direction * n_psi + psi).
    """
    axes = euler_to_matrix(directions[:, 0], directions[:, 1], np.zeros(len(directions)))[:, 2]
    matrices = euler_to_matrix(poses[:, 0], poses[:, 1], poses[:, 2])
    n_relaxed = 1 if relaxed is None else len(relaxed)
    if relaxed is not None:
        matrices = (matrices[:, None] @ relaxed[None]).reshape(-1, 3, 3)
    poses_all = matrices[:, None] @ operators[None]
    mates = poses_all[:, :, 2]
    if compat == "relion":
        mate_psi = np.repeat(poses[:, 2:], n_relaxed, 0).repeat(mates.shape[1], 1)
    else:
        mate_psi = matrix_to_euler(poses_all)[..., 2]
    near: tuple[np.ndarray, np.ndarray, np.ndarray] = orientations_near(
        np.ascontiguousarray(axes), np.ascontiguousarray(psi, float), np.ascontiguousarray(mates),
        np.ascontiguousarray(mate_psi, float), float(max(sigmas[0], sigmas[1])), float(sigmas[2]),
    )
    return near if relaxed is None else _mixed(near[0], near[1], near[2], n_relaxed)


def _mixed(
    start: np.ndarray, orientation: np.ndarray, log_prior: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Even mixture of ``n`` consecutive lists: an orientation that several of them hold is there once, its priors added."""
    particle = np.repeat(np.arange(len(start) - 1) // n, np.diff(start))
    stride = int(orientation.max(initial=0)) + 1
    keys, where = np.unique(particle * stride + orientation.astype(np.int64), return_inverse=True)
    prior = np.bincount(where, np.exp(log_prior.astype(float)), len(keys)) / n
    count = np.bincount(keys // stride, minlength=(len(start) - 1) // n)
    with np.errstate(divide="ignore"):
        log = np.log(prior).astype(np.float32)
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int64), (keys % stride).astype(np.int32), log
