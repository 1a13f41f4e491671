"""Looking into the posterior of single particles: what an expectation step sums over."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from cryotk.errors import SettingsError
from cryotk.geometry import euler_to_matrix

if TYPE_CHECKING:
    import xarray as xr

    from cryotk.jobs.step import StepContext

__all__ = ["PosteriorMixin"]


class PosteriorMixin:
    """``posterior(particle)`` and ``score(particle, ...)`` at a job's current model."""

    @abstractmethod
    def _context(self) -> StepContext:
        """Everything the next expectation needs."""

    def _contexts(self) -> list[StepContext]:
        """Contexts of the parts of the particle set that are compared with models of their own (half-sets)."""
        return [self._context()]

    def _cached_context(self, particle: int) -> StepContext:
        current = self.current.model  # type: ignore[attr-defined]
        cached: tuple[Any, list[StepContext]] | None = getattr(self, "_posterior_contexts", None)
        if cached is None or cached[0] is not current:
            cached = current, self._contexts()
            self._posterior_contexts = cached
        contexts = cached[1]
        n = contexts[0].data.n
        if not 0 <= particle < n:
            raise SettingsError(f"particle {particle} does not exist: rows are 0 to {n - 1}")
        return next(c for c in contexts if c.rows is None or particle in c.rows)

    def posterior(self, particle: int) -> xr.Dataset:
        """Full posterior of one particle at the current model.

        Parameters
        ----------
        particle : int
            Row of the particle set, from 0.

        Returns
        -------
        xarray.Dataset
            ``weight`` over ``sample`` with ``class_number``, ``angle_rot``, ``angle_tilt``, ``angle_psi`` (degrees), ``shift_x``,
            ``shift_y`` (Å): the evaluated fine samples with weight; attributes ``p_max``, ``n_significant``,
            ``log_likelihood``.
        """
        import xarray as xr

        context = self._cached_context(particle)
        block = context.prepare(np.array([particle]))
        post = context.posterior(block).on_host()
        position = np.nonzero(post.weights > 0)[0]
        parent, child, offset = post.locate(position)
        s = context.sampling
        a = context.data.optics[block.optics_group].pixel_size
        if context.settings.align:
            angles = s.pose(post.parent_orientation[parent], child)
            shift = block.old_offset_px[0] * a + s.fine_offsets[offset]
        else:
            angles = np.repeat(context.state.poses[[particle]], len(position), 0)
            shift = np.repeat(context.state.shifts[[particle]], len(position), 0)
        columns: dict[str, Any] = {
            "weight": post.weights[position],
            "class_number": post.parent_class[parent] + 1,
            "angle_rot": angles[:, 0],
            "angle_tilt": angles[:, 1],
            "angle_psi": angles[:, 2],
            "shift_x": shift[:, 0],
            "shift_y": shift[:, 1],
        }
        return xr.Dataset(
            {k: ("sample", v) for k, v in columns.items()},
            attrs={
                "particle": particle,
                "p_max": float(post.p_max[0]),
                "n_significant": int(post.n_significant[0]),
                "log_likelihood": float(post.log_likelihood[0]),
                "n_classes": context.model.n_classes,
            },
        )

    def score(self, particle: int, angles: Any, shifts: Any, class_number: int = 1) -> np.ndarray:
        """Log likelihood of one particle at any poses, relative to an image without signal.

        Parameters
        ----------
        particle : int
        angles : (n, 3) or (3,) float
            rot, tilt, psi in degrees (2D references use psi alone).
        shifts : (n, 2) or (2,) float
            Offsets in Å to apply, as in the particle table.
        class_number : int
            From 1.

        Returns
        -------
        (n,) float64
        """
        context = self._cached_context(particle)
        block = context.prepare(np.array([particle]))
        tables = context.step.tables[block.optics_group]
        angles_, shifts_ = np.atleast_2d(np.asarray(angles, float)), np.atleast_2d(np.asarray(shifts, float))
        if angles_.shape[-1] != 3 or shifts_.shape[-1] != 2 or 1 < len(angles_) != len(shifts_) > 1:
            raise SettingsError(
                f"score() takes angles (n, 3) as rot, tilt, psi and shifts (n, 2), or one of either; not {angles_.shape} and {shifts_.shape}"
            )
        angles_, shifts_ = np.broadcast_arrays(angles_, np.zeros((max(len(angles_), len(shifts_)), 3)))[0], shifts_
        if not context.model.is_3d:
            angles_ = angles_ * np.array([0.0, 0.0, 1.0])
        host = context.step.backend.to_host
        with context.backend.use():
            v = host(tables.maker.slices(np.full(len(angles_), class_number - 1), euler_to_matrix(*angles_.T))).astype(float)
        a = tables.prepare.optics.pixel_size
        ramps = tables.prepare.lattice.ramps(shifts_ / a - block.old_offset_px[0]).astype(float)
        y, w = host(block.score_image[0]).astype(float), host(block.score_weight[0])
        shifted = np.stack([y[0] * ramps[:, 0] - y[1] * ramps[:, 1], y[0] * ramps[:, 1] + y[1] * ramps[:, 0]], 1)
        return (shifted * v).sum((1, 2)) - 0.5 * ((v**2).sum(1) * w).sum(1)
