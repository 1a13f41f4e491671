"""What all step-by-step algorithms share: one iteration at a time, in the background or not, stopped and resumed."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cryotk.data import Iteration
from cryotk.errors import DiskError, SettingsError
from cryotk.execution.lanes import Stopped
from cryotk.execution.memory import give_back
from cryotk.execution.progress import Progress, ProgressReporter, Steps

if TYPE_CHECKING:
    import xarray as xr

    from cryotk.jobs.step import Expectation

__all__ = ["IterativeJob"]


class IterativeJob(ABC):
    """A refinement that a step advances.

    ``iterate()`` does one iteration and returns it; ``expectation()`` and ``maximization(e)`` are its halves;
    ``run()`` blocks, ``start()`` works in the background. The last finished iteration always stands.
    """

    settings: Any
    input_particles: xr.Dataset
    """The particles as they were given."""

    def __init__(self) -> None:
        self.iterations: list[Iteration] = []
        self._listeners: list[Callable[[Progress], None]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._working = threading.Lock()
        self._error: BaseException | None = None
        self._directory: Path | None = None
        self._relion: Literal["5", "3.1"] = "5"
        self.threads: int | None = None
        self.progress: Progress | None = None
        self.target: int | None = None
        """Iteration at which the run under way ends; None when nothing runs."""
        self._listeners.append(self._remember)

    def _remember(self, p: Progress) -> None:
        self.progress = p

    # -- what a job defines --------------------------------------------------------------------------------------

    @abstractmethod
    def _initialise(self) -> Iteration:
        """Make iteration 0."""

    @abstractmethod
    def _expectation(self, on_block: Callable[[int], None]) -> Expectation:
        """Run the expectation step of the next iteration."""

    @abstractmethod
    def _maximization(self, e: Expectation) -> Iteration:
        """Make the next iteration from an expectation."""

    @property
    @abstractmethod
    def n_iterations(self) -> int:
        """Iterations that a run does."""

    @property
    def _ended(self) -> bool:
        """Whether a run ends here, whatever its number of iterations (convergence)."""
        return False

    @abstractmethod
    def _write(self, directory: Path, iteration: Iteration) -> None:
        """Write one iteration, checkpoint last."""

    # -- steps ---------------------------------------------------------------------------------------------------

    @property
    def iteration(self) -> int:
        """Number of the last finished iteration; 0 is the start."""
        return self.iterations[-1].number if self.iterations else 0

    @property
    def current(self) -> Iteration:
        """The last finished iteration; makes the start when there is none yet."""
        self._ensure_start()
        return self.iterations[-1]

    def _ensure_start(self) -> None:
        if not self.iterations:
            start = self._initialise()
            give_back()
            self.iterations.append(start)
            if self._directory is not None:
                self._write_or_say(self._directory, start)

    def _write_or_say(self, directory: Path, iteration: Iteration, write: Callable[[Path, Iteration], None] | None = None) -> None:
        """Write an iteration; a full disk ends the run, not the iteration: it stays in memory and can be saved elsewhere."""
        try:
            (write or self._write)(directory, iteration)
        except OSError as error:
            self._directory = None
            raise DiskError(
                f"iteration {iteration.number} is in memory, but could not be written to {directory}: {error}. Nothing is written "
                "from now on; make room, or take another folder, and call job.save(folder): it writes all iterations"
            ) from error

    def expectation(self) -> Expectation:
        """First half-step: compare every particle with the current model.

        Returns
        -------
        Expectation
            Sums and best poses; changes nothing until :meth:`maximization` takes it.
        """
        if not self._working.locked():
            # what stopped an earlier run does not stop this
            self._stop.clear()
        return self._compare()

    def _compare(self) -> Expectation:
        self._ensure_start()
        reporter = ProgressReporter(self._listeners, self.iteration + 1, self.input_particles.sizes["particle"])
        reporter.tell("expectation", 0.0)
        return self._expectation(reporter.add)

    def maximization(self, e: Expectation) -> Iteration:
        """Second half-step: the next model from an expectation's sums.

        Raises
        ------
        SettingsError
            When ``e`` is not of the current iteration.
        """
        origin = e.context.model if e.context.origin is None else e.context.origin
        if origin is not self.current.model:
            raise SettingsError("this expectation belongs to another iteration; call job.expectation() again")
        reporter = ProgressReporter(self._listeners, self.iteration + 1, 1)
        reporter.tell("maximization", 1.0)
        new = self._maximization(e)
        self.iterations.append(new)
        if self._directory is not None:
            self._write_or_say(self._directory, new)
        self._shelve()
        reporter.tell("finished", 1.0)
        return new

    def iterate(self, *, progress: bool = True) -> Iteration:
        """Do one iteration and return it.

        Parameters
        ----------
        progress : bool
            Show a bar when it takes longer than a second.
        """
        self._take_over("the job is running in the background; call job.stop() or job.wait() first")
        try:
            with Steps(progress, 1, f"{type(self).__name__}, iteration {self.iteration + 1}") as steps:
                forget = self.on_progress(lambda p: steps.reach(p.fraction))
                try:
                    return self._iterate()
                finally:
                    forget()
        finally:
            self._working.release()

    def _iterate(self) -> Iteration:
        return self.maximization(self._compare())

    def _take_over(self, text: str) -> None:
        """Be the one who works: after a run that is about to stop, never beside one that goes on."""
        if self._stop.is_set() and self._thread is not None:
            self._thread.join()
        if not self._working.acquire(blocking=False):
            raise SettingsError(text)
        self._stop.clear()

    def run(self, until: int | None = None, *, progress: bool = True) -> Iteration:
        """Iterate until iteration ``until`` (all by default), with a progress bar.

        An interrupt (Ctrl-C, the notebook's stop button) ends after the current block and keeps the last finished iteration.
        """
        from tqdm.auto import tqdm

        target = self.n_iterations if until is None else until
        self._take_over("the job is running in the background already")
        self.target = target
        bar = tqdm(total=target, initial=self.iteration, desc=type(self).__name__, unit="it", disable=not progress)
        try:
            while self.iteration < target and not self._ended and not self._stop.is_set():
                it = self._iterate()
                bar.update(1)
                bar.set_postfix_str(f"{it.numbers.get('resolution', float('nan')):.1f} Å")
            self._tell_end()
        except (Stopped, KeyboardInterrupt):
            self._stop.set()
            ProgressReporter(self._listeners, self.iteration, 1).tell("stopped", 1.0)
        except Exception as error:
            ProgressReporter(self._listeners, self.iteration, 1).tell("failed", 1.0, message=str(error))
            raise
        finally:
            self.target = None
            bar.close()
            self._working.release()
        return self.current

    def _tell_end(self) -> None:
        """A run is over, at its end or on the way; jobs that do not write every iteration write the last one now."""
        if self._stop.is_set():
            ProgressReporter(self._listeners, self.iteration, 1).tell("stopped", 1.0)

    # -- background ----------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the job works in the background."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, until: int | None = None) -> IterativeJob:
        """Run in a background thread and return at once."""
        if self.running and not self._stop.is_set():
            return self
        if self._thread is not None:
            # one that was told to stop ends first
            self._thread.join()
        self._stop.clear()
        self._error = None
        self.target = target = self.n_iterations if until is None else until

        def work() -> None:
            with self._working:
                try:
                    while self.iteration < target and not self._ended and not self._stop.is_set():
                        self._iterate()
                    self._tell_end()
                except Stopped:
                    ProgressReporter(self._listeners, self.iteration, 1).tell("stopped", 1.0)
                except BaseException as error:
                    self._error = error
                    ProgressReporter(self._listeners, self.iteration, 1).tell("failed", 1.0, message=str(error))
                finally:
                    self.target = None

        self._thread = threading.Thread(target=work, name="cryotk-job", daemon=True)
        self._thread.start()
        return self

    def stop(self, *, wait: bool = False) -> None:
        """Stop after the current block; the last finished iteration stands."""
        self._stop.set()
        if wait:
            self.wait()

    def wait(self, timeout: float | None = None) -> IterativeJob:
        """Wait for the background run; raise what it raised."""
        if self._thread is not None:
            self._thread.join(timeout)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self

    def __await__(self) -> Any:
        """``await job`` in a notebook: waits for the background run and lets buttons work meanwhile."""
        import asyncio

        async def watch() -> IterativeJob:
            while self.running:
                await asyncio.sleep(0.05)
            return self.wait()

        return watch().__await__()

    def on_progress(self, listener: Callable[[Progress], None]) -> Callable[[], None]:
        """Call ``listener(progress)`` from now on; returns a function that ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    # -- results -------------------------------------------------------------------------------------------------

    @property
    def history(self) -> xr.Dataset:
        """Numbers of every iteration, over ``iteration``; occupancy and resolution per class."""
        import xarray as xr

        its = self.iterations
        names = sorted({name for it in its for name in it.numbers})
        variables: dict[str, Any] = {
            name: ("iteration", np.array([it.numbers.get(name, np.nan) for it in its], float)) for name in names
        }
        if its:
            over = ("iteration", "class_number")
            variables["occupancy"] = (over, np.stack([it.model.class_distribution for it in its]))
            variables["class_resolution"] = (over, np.stack([it.model.class_resolution for it in its]))
        coords: dict[str, Any] = {"iteration": [it.number for it in its]}
        if its:
            coords["class_number"] = np.arange(1, its[0].model.n_classes + 1)
        return xr.Dataset(variables, coords=coords)

    @property
    def classes(self) -> xr.DataArray:
        """Classes of the last iteration."""
        return self.current.classes

    @property
    def assignments(self) -> xr.Dataset:
        """Assignments of the last iteration, over ``particle``."""
        return self.current.assignments

    def noise_power(self) -> xr.DataArray:
        """Noise power of the last iteration (optics_group, shell)."""
        return self.current.noise_power()

    def data_vs_prior(self) -> xr.DataArray:
        """Signal-to-noise ratio of the last iteration's classes (class_number, shell)."""
        return self.current.data_vs_prior()

    @property
    def group_scales(self) -> xr.DataArray:
        """Intensity scale of each group (micrograph) in the last iteration."""
        import xarray as xr

        m = self.current.model
        return xr.DataArray(np.asarray(m.group_scales), dims=("group",), coords={"group": list(m.group_names)}, name="scale")

    @property
    def particles(self) -> xr.Dataset:
        """The particles with the poses, classes and numbers that the last iteration found; before the first, as they were given."""
        return self.input_particles if self.iteration == 0 else self._with_assignments(self.iterations[-1])

    def _with_assignments(self, it: Iteration, keep: np.ndarray | None = None) -> xr.Dataset:
        """Particles, or rows ``keep`` of them, with what an iteration found of them."""
        from cryotk.data import select_particles

        table = it.assignments if keep is None else it.assignments.isel(particle=keep)
        out = self.input_particles.copy() if keep is None else select_particles(self.input_particles, keep)
        for name, values in table.data_vars.items():
            attrs = dict(out[name].attrs) if name in out else dict(values.attrs)
            out[name] = ("particle", values.values, attrs)
        return out

    def select(self, classes: Any, iteration: int | None = None) -> xr.Dataset:
        """Particles of some classes, with their assignments.

        Parameters
        ----------
        classes : int or sequence of int
            Class numbers, from 1.
        iteration : int, optional
            The last by default.
        """
        it = self.current if iteration is None else next((i for i in self.iterations if i.number == iteration), None)
        if it is None:
            raise SettingsError(f"there is no iteration {iteration}; there are 0 to {self.iteration}")
        try:
            wanted = np.atleast_1d(np.asarray(classes, int))
        except (TypeError, ValueError):
            raise SettingsError(f"classes are numbers, from 1, e.g. [1, 3]; not {classes!r}") from None
        k = it.model.n_classes
        if wanted.size and (wanted.min() < 1 or wanted.max() > k):
            raise SettingsError(f"classes must be 1 to {k}, not {sorted(set(wanted.tolist()))}")
        return self._with_assignments(it, np.nonzero(np.isin(it.assignments["class_number"].values, wanted))[0])

    def view(self) -> Any:
        """Live view of the job (needs the ``lab`` extra)."""
        from importlib import import_module

        try:
            widgets = import_module("cryotk_widgets")
        except ImportError as error:
            raise SettingsError(f"job.view() needs the notebook packages ({error}): pip install 'cryotk[lab]'") from None
        return widgets.view_job(self)

    def save(self, directory: str | Path, *, relion: Literal["5", "3.1"] = "5") -> Path:
        """Write every iteration, past and to come, into a directory: RELION's files and one exact checkpoint each.

        Parameters
        ----------
        directory : path
            In the particles' project, names in the files are relative to it, and RELION, started there, goes on from
            ``directory/run_itNNN_optimiser.star``.
        relion : {"5", "3.1"}
            Whose files: those of RELION 4 and 5, or those of 3.1, which Debian has.
        """
        path = Path(directory)
        if path.exists() and not path.is_dir():
            raise SettingsError(f"{path} is a file; name a folder for the iterations")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"{path} cannot be made ({error.strerror or error}): name a folder that you may write in") from None
        self._relion = relion
        self._before_saving(path)
        for it in self.iterations:
            self._write_or_say(path, it)
        self._directory = path
        return path

    @abstractmethod
    def _before_saving(self, directory: Path) -> None:
        """Look at what is in a folder already."""

    @abstractmethod
    def _shelve(self) -> None:
        """Give up memory that only past iterations need."""
