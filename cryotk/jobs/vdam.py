"""Mini-batches with momenta in place of full expectation-maximisation, for the jobs that offer it."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cryotk.data import Convergence, Iteration, RefinementModel
from cryotk.errors import DataWarning, SettingsError
from cryotk.geometry import symmetry_operators
from cryotk.jobs.bookkeeping import advance, changes, estimate_model_accuracy
from cryotk.jobs.refinement_job import RefinementJob
from cryotk.jobs.step import Expectation, StepContext
from cryotk.jobs.vdam_maximization import BatchSettings, maximize_batch
from cryotk.jobs.vdam_schedule import REPORT_EVERY, Schedule, mini_batch
from cryotk.jobs.vdam_step import BatchContext, BatchExpectation, run_batch
from cryotk.jobs.vdam_update import MU, Momentum

if TYPE_CHECKING:
    import xarray as xr

    from cryotk.execution.progress import Progress
    from cryotk.io.relion_moments import Moments

__all__ = ["GradientJob"]


class GradientJob(RefinementJob):
    """A refinement that can work by VDAM: it does when :attr:`schedule` says how.

    A VDAM run keeps (and writes) every tenth mini-batch and the last finished one; ``history`` has the numbers of all.
    """

    def __init__(self, particles: xr.Dataset | str | Path, **values: Any) -> None:
        super().__init__(particles, **values)
        self._momenta: list[Momentum] | None = None
        self._log: list[dict[str, Any]] = []
        self._listeners.append(self._write_when_stopped)

    @property
    def schedule(self) -> Schedule | None:
        """Batches, steps and prior of a VDAM run; None for expectation-maximisation."""
        return None

    def _fitted_model(self, model: RefinementModel, changed: dict[str, Any]) -> dict[str, Any]:
        if self.schedule is not None and "padding" in changed:
            raise SettingsError("a VDAM run keeps its padding: its momenta are of that grid; start a new one for another")
        return super()._fitted_model(model, changed)

    def _make_context(self, *parts: Any) -> StepContext:
        """Context of the next step, of residuals when this is VDAM."""
        return BatchContext(*parts) if self.schedule is not None else StepContext(*parts)

    def _batch_settings(self, schedule: Schedule, number: int) -> BatchSettings:
        """How mini-batch ``number`` changes the model."""
        s = self.settings
        return BatchSettings(
            step=schedule.step_size(number), tau2_fudge=schedule.tau2(number), mask_diameter=s.mask_diameter,
            mu=0.0 if schedule.subset_size(number) < 0 else MU, compat=s.compat,
        )  # fmt: skip

    # -- one mini-batch ------------------------------------------------------------------------------------------

    def _expectation(self, on_block: Callable[[int], None]) -> Expectation:
        schedule = self.schedule
        if schedule is None:
            return super()._expectation(on_block)
        clock = time.perf_counter()
        number, n = self.iteration + 1, self.data.n
        batch = mini_batch(n, schedule.subset_size(number), self.settings.seed, number)
        done, lock = 0, threading.Lock()

        def count(k: int) -> None:
            # progress speaks of the whole step, whatever the batch
            nonlocal done
            with lock:
                before, done = done * n // len(batch), done + k
                now = done * n // len(batch)
            on_block(now - before)

        expected = self.current.numbers.get("mean_significant", schedule.max_significant)
        e = run_batch(
            self._context(), batch, significant=expected, threads=self.threads, stop=self._stop, on_block=count
        )
        self._keep_others(e)
        e.seconds["total"] = time.perf_counter() - clock
        return e

    def _keep_others(self, e: BatchExpectation) -> None:
        """What earlier mini-batches found of the particles that are not in this one."""
        a = self.current.assignments
        others = np.ones(self.data.n, bool)
        others[e.batch] = False
        for values, name in (
            (e.class_number, "class_number"), (e.p_max, "max_probability"), (e.n_significant, "n_significant"),
            (e.log_likelihood, "log_likelihood"),
        ):  # fmt: skip
            values[others] = a[name].values[others]

    def _table(self, e: Expectation, norm: np.ndarray) -> xr.Dataset:
        table = super()._table(e, norm)
        if isinstance(e, BatchExpectation):
            flagged = np.array(self.current.assignments["flagged"].values)
            flagged[e.batch] = e.flagged[e.batch]
            table["flagged"] = ("particle", flagged)
        return table

    def _batch_step(self, e: BatchExpectation) -> tuple[RefinementModel, np.ndarray, Convergence, dict[str, float]]:
        """Maximise a mini-batch."""
        schedule, previous = self.schedule, self.current
        assert schedule is not None
        number = previous.number + 1
        if self._momenta is None:
            self._momenta = self._no_momenta(previous.model)
        settings = self._batch_settings(schedule, number)
        model, momenta, report = maximize_batch(e, self._momenta, settings, self.threads)
        self._set_accuracies(e, model, number)
        b, old = e.batch, self._state
        operators = symmetry_operators(e.context.sampling_settings.symmetry) if model.is_3d else None
        moved = changes(
            previous.assignments["class_number"].values[b], e.class_number[b], old.poses[b], e.poses[b], old.shifts[b],
            e.shifts[b], operators,
        )
        planned = getattr(e.context, "convergence", None)
        before = previous if planned is None else replace(previous, convergence=planned)
        self._momenta = momenta
        good = ~e.flagged[b]
        numbers = {
            "mean_significant": float(e.n_significant[b][good].mean()) if good.any() else 0.0,
            "batch_size": float(len(b)),
            "step_size": settings.step,
            "tau2_fudge": settings.tau2_fudge,
        } | report  # fmt: skip
        return model, e.norm, advance(before, model, moved), numbers

    def _no_momenta(self, model: RefinementModel) -> list[Momentum]:
        return [Momentum.empty(model.box_size, model.padding, 3 if model.is_3d else 2) for _ in range(model.n_classes)]

    def _set_accuracies(self, e: BatchExpectation, model: RefinementModel, number: int) -> None:
        """Estimate accuracies when they are due; otherwise the last ones stand."""
        assert self.schedule is not None
        if self.schedule.reports(number):
            accuracy = estimate_model_accuracy(e.context, e.poses, np.random.default_rng([self.settings.seed, number, 1]))
            model.accuracy_rotation, model.accuracy_translation = accuracy

    def _maximization(self, e: Expectation) -> Iteration:
        previous = self.current
        new = super()._maximization(e)
        if self.schedule is not None:
            self._log.append(_entry(new))
            if not self._is_kept(previous.number) and self.iterations and self.iterations[-1] is previous:
                self.iterations.pop()
        return new

    def _is_kept(self, number: int) -> bool:
        return number % REPORT_EVERY == 0 or number >= self.n_iterations or self.schedule is None

    @property
    def history(self) -> xr.Dataset:
        """Numbers of every iteration, over ``iteration``; occupancy and resolution per class."""
        if self.schedule is None or not self.iterations:
            return super().history
        import xarray as xr

        first = _entry(self.iterations[0])
        entries = [first] + [e for e in self._log if e["iteration"] > first["iteration"]]
        names = sorted({name for e in entries for name in e["numbers"]})
        variables: dict[str, Any] = {
            name: ("iteration", np.array([e["numbers"].get(name, np.nan) for e in entries])) for name in names
        }
        over = ("iteration", "class_number")
        for name in ("occupancy", "class_resolution"):
            variables[name] = (over, np.stack([e[name] for e in entries]))
        k = len(first["occupancy"])
        coords = {"iteration": [e["iteration"] for e in entries], "class_number": np.arange(1, k + 1)}
        return xr.Dataset(variables, coords=coords)

    # -- files ---------------------------------------------------------------------------------------------------

    def _write(self, directory: Path, iteration: Iteration) -> None:
        if self._is_kept(iteration.number):
            super()._write(directory, iteration)

    def save(self, directory: str | Path, *, relion: Literal["5", "3.1"] = "5") -> Path:
        """Write the iterations that are kept, past and to come: RELION's files and one exact checkpoint each.

        Parameters
        ----------
        directory : path
            In the particles' project, names in the files are relative to it.
        relion : {"5", "3.1"}
            Whose files. RELION 3.1 has no VDAM and goes on with full iterations.
        """
        path = super().save(directory, relion=relion)
        self._write_last(path)
        return path

    def _write_last(self, directory: Path) -> None:
        if self.iterations and not self._is_kept(self.iterations[-1].number):
            self._write_or_say(directory, self.iterations[-1], super()._write)

    def _tell_end(self) -> None:
        super()._tell_end()
        if self._directory is not None and not self._stop.is_set():
            # a run until a mini-batch that is not one of those that are kept
            self._write_last(self._directory)

    def _write_when_stopped(self, p: Progress) -> None:
        """A run that is stopped between two kept mini-batches loses none."""
        if p.phase == "stopped" and self._directory is not None:
            self._write_last(self._directory)

    def _moments_of(self, iteration: Iteration) -> list[Moments] | None:
        if self.schedule is None or self._momenta is None or not self.iterations or iteration is not self.iterations[-1]:
            return None
        return [(m.first, m.second) for m in self._momenta]

    def _adopt_files(self, path: Path, iteration: Iteration) -> None:
        from cryotk.io.relion_moments import read_moments
        from cryotk.io.relion_read import find_near

        if self.schedule is None or iteration.number < 1:
            return
        model = find_near(str(iteration.optimiser.get("rlnModelStarFile", "")), path.parent)
        found = None if model is None else read_moments(model)
        if found is not None:
            self._momenta = [Momentum(first, second) for first, second in found]
            return
        warnings.warn(
            f"{path}: the files of its momenta (_1moment, _2moment) are not there: they start anew, and the run goes on along "
            "another path than RELION's; copy them beside it",
            DataWarning,
            stacklevel=5,
        )

    def _extra_state(self) -> dict[str, Any]:
        if self.schedule is None:
            return {}
        names = sorted({name for e in self._log for name in e["numbers"]})
        out: dict[str, Any] = {
            "log_names": names,
            "log_iteration": np.array([e["iteration"] for e in self._log], int),
            "log_numbers": np.array([[e["numbers"].get(name, np.nan) for name in names] for e in self._log], float),
            "log_occupancy": np.array([e["occupancy"] for e in self._log], float),
            "log_class_resolution": np.array([e["class_resolution"] for e in self._log], float),
        }
        if self._momenta is not None:
            out["momenta"] = [{"first": m.first, "second": m.second} for m in self._momenta]
        return out

    def _restore_extra(self, extra: dict[str, Any]) -> None:
        if self.schedule is None:
            return
        if "momenta" in extra:
            self._momenta = [Momentum(m["first"], m["second"]) for m in extra["momenta"]]
        elif self.iteration > 0 and self._momenta is None:
            warnings.warn(
                f"iteration {self.iteration} was kept without its momenta: they start anew, and the run goes on along another "
                "path than before",
                DataWarning,
                stacklevel=2,
            )
        names = extra.get("log_names", [])
        self._log = [
            {
                "iteration": int(number),
                "numbers": {n: float(v) for n, v in zip(names, extra["log_numbers"][i], strict=True) if not np.isnan(v)},
                "occupancy": extra["log_occupancy"][i],
                "class_resolution": extra["log_class_resolution"][i],
            }
            for i, number in enumerate(extra.get("log_iteration", []))
        ]

    def _gradient_entries(self) -> dict[str, Any]:
        """RELION's optimiser entries of a VDAM run."""
        schedule = self.schedule
        if schedule is None:
            return {}
        number, size = self.iteration, schedule.batch_sizes
        return {
            "rlnDoGradientRefine": True, "rlnDoStochasticGradientDescent": True, "rlnSgdMuFactor": MU,
            "rlnGradCurrentStepsize": schedule.step_size(number), "rlnSgdSubsetSize": schedule.subset_size(number),
            "rlnSgdInitialSubsetSize": size.initial, "rlnSgdFinalSubsetSize": size.final,
            "rlnSgdWriteEverySubset": REPORT_EVERY,
        }  # fmt: skip


def _entry(it: Iteration) -> dict[str, Any]:
    """What the history keeps of an iteration."""
    return {
        "iteration": it.number,
        "numbers": dict(it.numbers),
        "occupancy": np.asarray(it.model.class_distribution, float),
        "class_resolution": np.asarray(it.model.class_resolution, float),
    }
