"""One expectation step over a whole particle set: blocks, lanes, and the merged result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from cryotk.data.refinement import RefinementModel, SamplingSettings
from cryotk.data.source import read_ahead
from cryotk.errors import SettingsError
from cryotk.execution.device import Lane, device_backend, devices_of, on_devices
from cryotk.execution.lanes import Stopped, cut_lanes, default_threads, each_lane, in_turns, on_cluster
from cryotk.execution.memory import give_back
from cryotk.jobs.blocks import cut_blocks, lanes_at_once, most_lanes, sums_on_disk
from cryotk.jobs.particle_set import ParticleSet
from cryotk.jobs.updates import coarse_window, image_window, reference_power
from cryotk.kernels.backends import CPU, Backend
from cryotk.likelihood.expectation import ExpectationOptions, ExpectationStep
from cryotk.likelihood.parts import Run, one_by_one
from cryotk.likelihood.portions import Scratch
from cryotk.likelihood.posterior import BlockPosterior
from cryotk.likelihood.prepare import Block, ImagePreparation
from cryotk.likelihood.sampling import Sampling
from cryotk.likelihood.sums import Sums
from cryotk.projection import DiskAccumulator, FourierReference

__all__ = ["Expectation", "Particles", "StepContext", "StepSettings", "merge_expectations", "run_expectation"]

@dataclass(frozen=True)
class StepSettings:
    """How an expectation step compares images with references."""

    mask_diameter: float = 200.0
    adaptive_fraction: float = 0.999
    oversampling: int = 1
    max_significant: int = 0
    align: bool = True
    do_ctf: bool = True
    do_scale: bool = True
    do_norm: bool = True
    zero_mask: bool = True
    ctf_intact_first_peak: bool = False
    resolution_limit: float | None = None
    seed: int = 0
    compat: str | None = None
    relax_symmetry: str | None = None
    device: str = "cpu"
    """``"cpu"``, ``"cuda:0"`` or ``"cuda:0,1"``, see :func:`cryotk.execution.device.resolve_device`."""


@dataclass
class Particles:
    """Per-particle state that changes between iterations."""

    poses: np.ndarray
    shifts: np.ndarray
    norm: np.ndarray


@dataclass
class StepContext:
    """All that lanes share; picklable, its tables are made where it is used."""

    model: RefinementModel
    sampling_settings: SamplingSettings
    settings: StepSettings
    data: ParticleSet
    state: Particles
    size: int
    coarse_step: float
    """Coarse angular step in degrees that sets the coarse window."""
    references: list[FourierReference] = field(default_factory=list)
    rows: np.ndarray | None = None
    """Particles that take part, ascending; all by default."""
    origin: RefinementModel | None = None
    """Model of the last iteration, where ``model`` is not that itself (a finer sampling, one half-set)."""
    step_type: ClassVar[type[ExpectationStep]] = ExpectationStep

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._others: dict[str, StepContext] = {}
        if not self.references:
            m = self.model
            self.references = [FourierReference.from_map(r, m.pixel_size, self.size, m.padding) for r in m.references]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_others", "step", "sampling")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._others = {}

    @cached_property
    def reference_power(self) -> np.ndarray:
        """(K, S) prior power of the references."""
        return np.stack([reference_power(r, self.model.box_size // 2 + 1) for r in self.references])

    def release(self) -> None:
        """Give up the references' transforms and the tables after the expectation; what the maximisation needs stays."""
        _ = self.reference_power
        self.references = []
        self._others = {}
        self.__dict__.pop("step", None)
        give_back()

    @property
    def local(self) -> bool:
        """Whether particles are searched around their poses."""
        m = self.model
        return self.settings.align and m.is_3d and m.orientational_prior_mode > 0 and m.sigma_psi > 0

    @cached_property
    def sampling(self) -> Sampling:
        """The grids of this iteration."""
        return Sampling(self.sampling_settings, self.settings.oversampling if self.settings.align else 0)

    def score_window(self, g: int) -> int:
        """Image window that an optics group's scores use."""
        optics, s = self.data.optics[g], self.settings
        window = image_window(optics.box_size, self._rho(g), self.size)
        if s.resolution_limit:
            window = min(window, 2 * int(np.floor(optics.box_size * optics.pixel_size / s.resolution_limit + 0.5)))
        return window

    def _rho(self, g: int) -> float:
        optics, m = self.data.optics[g], self.model
        return (optics.box_size * optics.pixel_size) / (m.box_size * m.pixel_size)

    @property
    def backend(self) -> Backend:
        """Arrays and kernels of the expectation's device, the first of several."""
        return device_backend(self.devices[0])

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices that lanes run on."""
        return devices_of(self.settings.device) if self.step_type.any_backend else ("cpu",)

    def on(self, device: str) -> StepContext:
        """The same step on another one of its devices: tables of its own there, particles and references shared."""
        if device == self.devices[0]:
            return self
        with self._lock:
            if device not in self._others:
                self._others[device] = replace(self, settings=replace(self.settings, device=device))
            return self._others[device]

    @property
    def seconds(self) -> dict[str, float]:
        """Time of each pass, summed over lanes; empty where all lanes ran elsewhere."""
        out: dict[str, float] = {}
        for context in (self, *self._others.values()):
            if "step" in context.__dict__:
                for name, value in context.step.seconds.items():
                    out[name] = out.get(name, 0.0) + value
        return out

    def preparation(self, g: int, backend: Backend = CPU) -> ImagePreparation:
        """How images of an optics group are made ready."""
        optics, s, rho = self.data.optics[g], self.settings, self._rho(g)
        return ImagePreparation(
            optics, g, image_window(optics.box_size, rho, self.size), rho, self.model.noise_power[g], s.mask_diameter,
            self.data.columns, ctf_intact_first_peak=s.ctf_intact_first_peak, do_ctf=s.do_ctf, zero_mask=s.zero_mask, seed=s.seed,
            score_window=self.score_window(g), backend=backend,
        )

    @cached_property
    def step(self) -> ExpectationStep:
        """The tables of this iteration."""
        with self.backend.use():
            return self._step_on(self.backend)

    def _step_on(self, backend: Backend) -> ExpectationStep:
        m, s = self.model.copy(current_size=self.size), self.settings
        preparations, coarse = [], {}
        for g, optics in enumerate(self.data.optics):
            preparations.append(self.preparation(g, backend))
            if s.align and s.oversampling > 0 and not s.resolution_limit:
                window = image_window(optics.box_size, self._rho(g), self.size)
                coarse[g] = coarse_window(optics.box_size, optics.pixel_size, self.coarse_step, s.mask_diameter, window, m.is_3d)
            else:
                coarse[g] = self.score_window(g)
        options = ExpectationOptions(
            adaptive_fraction=s.adaptive_fraction, max_significant=s.max_significant, align=s.align, compat=s.compat,
            coarse_window=coarse, relax_symmetry=s.relax_symmetry,
        )
        return self.step_type(m, self.sampling, self.references, preparations, options)

    def pixels(self, particles: np.ndarray) -> np.ndarray:
        """Read the images of particles of one optics group."""
        return self.backend.staged(self.data.read(self.data.images_of(particles)[0]))

    def prepare(self, particles: np.ndarray, pixels: np.ndarray | None = None, scratch: Scratch | None = None) -> Block:
        """Prepare particles of one optics group; their images are read unless ``pixels`` brings them."""
        d, m = self.data, self.model
        images, start = d.images_of(particles)
        group = int(d.columns.optics_group[images[0]])
        scale_group = d.columns.scale_group[images]
        use_scale = self.settings.do_scale and len(m.group_scales) > 1
        scales = np.asarray(m.group_scales)[scale_group] if use_scale else np.ones(len(images))
        factor = m.norm_average / self.state.norm[images] if self.settings.do_norm else np.ones(len(images))
        with self.backend.use():
            return self.step.tables[group].prepare(
                d.read(images) if pixels is None else pixels,
                particles, images, start, self.state.shifts[particles], factor, scales, not self.settings.align, scratch,
            )

    def posterior(self, block: Block, run: Run = one_by_one) -> BlockPosterior:
        """Posterior of a prepared block, whose parts ``run`` does."""
        with self.backend.use():
            return self.step.posterior(block, self.state.poses[block.particles], run=run)


@dataclass
class Expectation:
    """What an expectation step found: sums for the maximisation and the particles' best poses."""

    sums: Sums
    class_number: np.ndarray
    poses: np.ndarray
    shifts: np.ndarray
    p_max: np.ndarray
    n_significant: np.ndarray
    log_likelihood: np.ndarray
    norm: np.ndarray
    flagged: np.ndarray
    """(n,) True for particles with empty or broken images, or without any likely pose: they are left out."""
    seconds: dict[str, float]
    context: StepContext
    parts: list[Expectation] = field(default_factory=list)
    """Of half-sets: one each, whose sums count; ``sums`` is then the first's."""


def run_lane(
    context: StepContext, blocks: list[np.ndarray], stop: threading.Event | None, on_block: Callable[[int], None] | None,
    threads: int = 1,
) -> tuple[Sums, list[Any]]:
    """Do the blocks of one lane on its device; ``threads`` of them side by side, added one after the other."""
    if isinstance(blocks, Lane):
        context = context.on(blocks.device)
    backend = context.backend
    try:
        with backend.turn(), backend.use():
            return _do_lane(context, blocks, stop, on_block, threads)
    except backend.out_of_memory:
        raise SettingsError(
            f"{backend.name}: its memory is too small for the tables of this iteration and one particle; use device='cpu', "
            "fewer classes or a coarser sampling"
        ) from None


def _do_lane(
    context: StepContext, blocks: list[np.ndarray], stop: threading.Event | None, on_block: Callable[[int], None] | None,
    threads: int,
) -> tuple[Sums, list[Any]]:
    with context._lock:
        step = context.step
    sums = step.empty_sums(len(context.data.group_names))
    # threads beyond the number of blocks share the parts of a block
    inner = 1 if step.backend.on_device else max(1, threads // len(blocks))
    threads = min(threads, len(blocks))
    run = _stoppable(partial(in_turns, threads=inner) if inner > 1 else one_by_one, stop)

    def work(item: tuple[np.ndarray, np.ndarray], ready: Callable[[], None] | None) -> list[Any]:
        particles, pixels = item
        if stop is not None and stop.is_set():
            raise Stopped
        seen = 0

        def halfway() -> None:
            # on a device the block may be too large, and be done again in halves
            nonlocal seen
            if on_block is not None and not step.backend.on_device:
                seen = len(particles) // 2
                on_block(seen)

        found = _fitting(context, step, sums, particles, pixels, _Way(ready, run, halfway))
        if on_block is not None:
            on_block(len(particles) - seen)
        return found

    coming = zip(blocks, read_ahead(context.pixels, blocks, context.backend.readers), strict=True)
    found = [work(item, None) for item in coming] if threads <= 1 else in_turns(work, coming, threads)
    return step.on_host(sums), [r for some in found for r in some]


def _stoppable(run: Run, stop: threading.Event | None) -> Run:
    """The same, but nothing more is begun once ``stop`` is set."""

    def until_stopped(work: Callable[[Any, Callable[[], None]], None], items: Iterable[Any], /) -> None:
        def one(item: Any, ready: Callable[[], None]) -> None:
            if stop is not None and stop.is_set():
                raise Stopped
            work(item, ready)

        run(one, items)

    return until_stopped


class _Way(NamedTuple):
    """How a block is done: what waits for its turn, who does its parts, whom to tell when its posterior is known."""

    ready: Callable[[], None] | None
    run: Run
    halfway: Callable[[], None]


def _fitting(
    context: StepContext, step: ExpectationStep, sums: Sums, particles: np.ndarray, pixels: np.ndarray, way: _Way
) -> list[Any]:
    """Do one block, in halves where the device's memory is too small for it."""
    try:
        return [_do_block(context, step, sums, particles, pixels, way)]
    except step.backend.out_of_memory:
        if len(particles) == 1:
            raise
    step.backend.free()
    half = len(particles) // 2
    first = len(context.data.images_of(particles[:half])[0])
    return [
        *_fitting(context, step, sums, particles[:half], pixels[:first], way),
        *_fitting(context, step, sums, particles[half:], pixels[first:], way),
    ]


def _do_block(
    context: StepContext, step: ExpectationStep, sums: Sums, particles: np.ndarray, pixels: np.ndarray, way: _Way
) -> tuple[Any, np.ndarray]:
    clock = time.perf_counter()
    block = context.prepare(particles, pixels, step.scratch)
    step._lap("prepare", clock)
    poses = context.state.poses[particles]
    post = context.posterior(block, way.run)
    result = step.result(block, post, poses)
    way.halfway()
    norm = context.state.norm[block.images]
    groups = context.data.columns.scale_group[block.images]
    step.accumulate(sums, block, post, result, norm, context.model.norm_average, groups, way.ready, way.run)
    return result, block.images


def run_expectation(
    context: StepContext,
    *,
    threads: int | None = None,
    stop: threading.Event | None = None,
    on_block: Callable[[int], None] | None = None,
) -> Expectation:
    """Run the expectation step over all particles."""
    blocks = cut_blocks(context)
    m = context.model
    n = sum(len(b) for b in blocks)
    most = most_lanes(n, m.n_classes, context.size, m.padding, m.is_3d, context.settings.align, context.backend)
    lanes = [[blocks[i] for i in lane] for lane in cut_lanes(len(blocks), most)]
    threads = threads or default_threads()
    on_disk = sums_on_disk(context)
    at_once = 1 if on_disk else lanes_at_once(context, min(threads, len(lanes)))
    function = partial(run_lane, threads=1 if on_cluster() or context.backend.on_device else -(-threads // at_once))
    sums: Sums | None = None
    found: list[tuple[Any, np.ndarray]] = []
    for part, results in each_lane(function, context, on_devices(lanes, context.devices), threads=at_once, stop=stop, on_block=on_block):
        if sums is None:
            sums = part
            if on_disk:
                # each is copied and given up before the next
                for k in range(len(sums.accumulators)):
                    sums.accumulators[k] = DiskAccumulator(sums.accumulators[k])
        else:
            sums += part
        del part
        give_back()
        found += results
    assert sums is not None
    give_back()
    n = context.data.n
    out = Expectation(
        sums, np.zeros(n, int), context.state.poses.copy(), context.state.shifts.copy(), np.zeros(n), np.zeros(n, int), np.zeros(n),
        context.state.norm.copy(), np.zeros(n, bool), {}, context,
    )
    for r, images in found:
        p = r.particles
        out.class_number[p] = r.class_number
        out.poses[p] = r.angles
        known = np.isfinite(r.shifts).all(1)
        out.shifts[p[known]] = r.shifts[known]
        out.p_max[p], out.n_significant[p] = r.p_max, r.n_significant
        out.log_likelihood[p], out.flagged[p] = r.log_likelihood, r.flagged
        out.norm[images] = r.norm_correction
    out.seconds = context.seconds
    return out


def merge_expectations(parts: list[Expectation], sums: Sums, context: StepContext) -> Expectation:
    """One expectation of parts that hold different particles (``context.rows`` of each)."""
    first = parts[0]
    names = ("class_number", "poses", "shifts", "p_max", "n_significant", "log_likelihood", "norm", "flagged")
    merged = {name: getattr(first, name).copy() for name in names}
    seconds = dict(first.seconds)
    for part in parts[1:]:
        rows = part.context.rows
        assert rows is not None
        images, _ = context.data.images_of(rows)
        for name in names:
            some = images if name == "norm" else rows
            merged[name][some] = getattr(part, name)[some]
        for name, value in part.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
    return Expectation(sums=sums, seconds=seconds, context=context, **merged)
