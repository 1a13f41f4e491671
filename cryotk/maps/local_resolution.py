"""Local resolution: the FSC inside windows on a lattice, a map of it, and the map filtered by it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from cryotk.data import pixel_size_of
from cryotk.errors import SettingsError
from cryotk.execution import Steps, default_threads, pulse
from cryotk.kernels.backends import backend_of
from cryotk.maps import curves, gains
from cryotk.maps.half_maps import judge_half_maps, names_of, note, open_half_maps
from cryotk.maps.inputs import check_mask, map_of, open_like, require_cube, require_number, require_seed, values_of
from cryotk.maps.local_result import LocalResolutionResult, histogram_inside, points_dataset
from cryotk.maps.local_windows import WindowFilter, WindowSums, lattice, window_profile
from cryotk.maps.transform import apply_gain, cross_sums, forward, inverse, is_numpy, namespace, random_phases, to_numpy

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["local_resolution"]

_THRESHOLD = 0.143


def local_resolution(
    half1: Any,
    half2: Any = None,
    mask: Any = None,
    b_factor: float | None = None,
    mtf: Any = None,
    sampling: float = 25.0,
    min_resolution: float = 50.0,
    *,
    mask_radius: float | None = None,
    edge_width: float | None = None,
    randomise_at: float = 25.0,
    mtf_pixel_size: float | None = None,
    pixel_size: float | None = None,
    only_inside_mask: bool = False,
    seed: int = 0,
    threads: int | None = None,
    progress: bool | Callable[[int, int], object] = True,
    compat: str | None = None,
    true_fsc: np.ndarray | None = None,
) -> LocalResolutionResult:
    """Measure how the resolution varies over a map, and filter and sharpen the map by it.

    On a lattice of points the FSC of the half-maps is taken inside a soft spherical window, corrected for the window by phase
    randomisation; the average map is filtered by each point's FSC and resolution; both are blended with the windows as weights.

    Parameters
    ----------
    half1, half2 : path, DataArray or array
        Unfiltered half-maps; the second is found by name.
    mask : path, DataArray or array, optional
        For the histogram; windows outside are measured all the same unless ``only_inside_mask``.
    b_factor : float, Å^2, optional
        Sharpening of the filtered map, negative; none by default.
    mtf, mtf_pixel_size : optional
        As in :func:`cryotk.postprocess`.
    sampling : float, Å
        Distance of the points.
    min_resolution : float, Å
        Worst value given.
    mask_radius, edge_width : float, Å, optional
        Of the window; half the sampling and the sampling by default.
    randomise_at : float, Å
        Phases are randomised beyond.
    pixel_size : float, Å, optional
        Overrides the headers.
    only_inside_mask : bool
        Leave out points whose window does not touch the mask.
    seed : int
    threads : int, optional
        All processors by default; the result does not depend on it.
    progress : bool or callable
        A bar (after a second), or a function of (done, total), which may raise to cancel.
    compat : {None, "relion"}
        As in :func:`cryotk.postprocess`.
    true_fsc : (points, n // 2 + 1) float, optional
        Corrected curves to use instead of measured ones, to compare with another program's random phases.

    Returns
    -------
    LocalResolutionResult

    Raises
    ------
    DataError, MissingFileError, SettingsError

    Warns
    -----
    DataWarning
        For half-maps that look filtered or masked, or show no signal in any window.

    Notes
    -----
    RELION's option is ``relion_postprocess --locres``. Equal to evaluating every window on the whole box to rounding.
    """
    settings = {k: v for k, v in locals().items() if k not in ("half1", "half2", "mask", "mtf", "true_fsc", "progress")}
    for name in ("sampling", "min_resolution", "randomise_at", "mask_radius", "edge_width"):
        if settings[name] is not None:
            require_number(name, settings[name], "Å", positive=True)
    if b_factor is not None:
        require_number("b_factor", b_factor, "Å^2")
    require_seed(seed)
    if mtf_pixel_size is not None:
        require_number("mtf_pixel_size", mtf_pixel_size, "Å", positive=True)
        if mtf is None:
            raise SettingsError("mtf_pixel_size says nothing without mtf=; give the detector's curve too")
    detector = None if mtf is None else gains.mtf_curve(mtf)
    if compat not in (None, "relion"):
        raise SettingsError(f"compat must be None or 'relion', not {compat!r}")
    h1, h2 = open_half_maps(half1, half2, pixel_size)
    n, a = require_cube(h1, "half1"), float(pixel_size_of(h1) or 1)
    mask_map = None if mask is None else open_like(mask, "mask", h1, pixel_size)
    if mask_map is not None:
        check_mask(mask_map, h1)
    elif only_inside_mask:
        raise SettingsError("only_inside_mask needs mask=")
    step, radius, edge = (_whole(v / a) for v in (sampling, mask_radius or 0.5 * sampling, edge_width or sampling))
    if step < 1 or radius >= n // 2:
        raise SettingsError(f"sampling of {sampling:g} Å does not fit a box of {n * a:.0f} Å with pixels of {a:.3g} Å; "
                            f"take between {a:.1f} and {n * a / 2:.0f} Å")  # fmt: skip
    points = lattice(n, step, radius)
    window = window_profile(radius, edge)
    if only_inside_mask and mask_map is not None:
        points = _touching(points, mask_map, radius + edge)
    shell = int(n * a / randomise_at)
    notes: list[str] = []
    mtf_table = None if detector is None else gains.mtf_gain(n, a, detector, mtf_pixel_size, compat)
    # passes over a volume, counted in cryotk.maps.transform, and windows
    with Steps(progress, 17 + len(points), "local resolution"), threadpool_limits(1):
        work = _Work(h1, h2, window, n, a, shell, seed, b_factor or 0.0, mtf_table, min_resolution, notes)
        with work.device():
            measured = work.run(points, true_fsc, threads or default_threads())
            resolution_map, filtered = work.maps()
    out = LocalResolutionResult(
        resolution_map=map_of(resolution_map, h1, a, history="local resolution"),
        filtered=map_of(filtered, h1, a, history="locally filtered"),
        points=points_dataset(points, measured, n, a),
        mask=mask_map,
        pixel_size=a,
        settings=settings,
        warnings=notes,
    )
    out.resolution_map.name = "local_resolution"
    out.resolution_map.attrs["units"] = "Å"
    _judge(out, notes)
    out.histogram = None if mask_map is None else histogram_inside(out.resolution_map, mask_map)
    return out


def _whole(v: float) -> int:
    return int(np.floor(v + 0.5))


def _judge(out: LocalResolutionResult, notes: list[str]) -> None:
    found = out.points["resolution"].values
    if len(found) and np.all(found >= out.settings["min_resolution"]):
        text = (f"no window shows signal beyond min_resolution ({out.settings['min_resolution']:g} Å): are these "
                "half-maps of one refinement? "
                "Larger windows (sampling=) need less signal")  # fmt: skip
        note(notes, text)


def _touching(points: np.ndarray, mask: Any, reach: int) -> np.ndarray:
    """Points with a mask voxel above zero within a distance."""
    from cryotk.maps.mask import soft_mask

    near = soft_mask(mask.data > 0, reach + 1, 0)
    near = to_numpy(near)
    return points[near[points[:, 0], points[:, 1], points[:, 2]] > 0]


class _Work:
    """Transforms, sums over points, and one point's measurement."""

    def __init__(
        self, h1: xr.DataArray, h2: xr.DataArray, window: np.ndarray, n: int, a: float, shell: int, seed: int, b: float,
        mtf: np.ndarray | None, worst: float, notes: list[str],
    ) -> None:  # fmt: skip
        self.n, self.a, self.shell, self.worst, self.window, self.q = n, a, shell, worst, window, window.shape[0] // 2
        self.stop = threading.Event()
        x1, x2 = values_of(h1), values_of(h2)
        f1, f2 = forward(x1), forward(x2)
        judge_half_maps(names_of(h1, h2), (x1, x2), cross_sums(f1, f2), n, a, notes)
        gain = gains.b_factor_gain(n, a, b)
        self.average = apply_gain(0.5 * (f1 + f2), gain if mtf is None else gain * mtf)
        r1 = inverse(random_phases(f1, shell, seed, 1, overwrite=True), n, overwrite=True)
        r2 = inverse(random_phases(f2, shell, seed, 2, overwrite=True), n, overwrite=True)
        self.backend = backend_of(x1)
        self.xp = namespace(x1)
        self.total, self.frequencies, self.weights = (self.xp.zeros((n, n, n), dtype=self.xp.float64) for _ in range(3))
        if self.backend is None:
            self.plain = (x1, x2, r1, r2)
            return
        maps = self.backend.xp.stack([v.astype(np.float32, copy=False) for v in (x1, x2, r1, r2)])
        self.average = self.average.astype(np.complex64, copy=False)
        self.window = self.backend.to_device(window)
        self.sums_of = WindowSums(maps, window, self.backend, self.stop)
        self.filter = WindowFilter(self.average, self.q, self.backend)

    def device(self) -> Any:
        """Context in which the maps' device is the current one."""
        return nullcontext() if self.backend is None else self.backend.use()

    def run(self, points: np.ndarray, true_fsc: np.ndarray | None, threads: int) -> dict[str, np.ndarray]:
        """Measure all points; sums are added in the points' order, whoever measured them."""
        half = self.n // 2 + 1
        out: dict[str, Any] = {k: np.full((len(points), half), np.nan) for k in ("corrected", "masked", "randomised")}
        out["resolution"] = np.full(len(points), np.nan)

        def one(i: int) -> tuple[dict[str, Any], Any]:
            return self._measure(points[i], None if true_fsc is None else np.asarray(true_fsc[i], float))

        for i, (found, box) in enumerate(_in_order(one, len(points), threads if is_numpy(self.total) else 1, self.stop)):
            for k, v in found.items():
                out[k][i] = v
            pulse()
            self._add(points[i], box, 1 / found["resolution"])
            pulse(1)
        return out

    def _measure(self, point: np.ndarray, true_fsc: np.ndarray | None) -> tuple[dict[str, Any], Any]:
        sums = self._plain_sums(point) if self.backend is None else self.sums_of(point)
        masked, randomised = curves.fsc_from_sums(sums[:3]), curves.fsc_from_sums(sums[3:])
        for c in (masked, randomised):
            c[0] = 1.0 if c[0] <= 0 else c[0]
        corrected = curves.correct_for_mask(masked, randomised, self.shell) if true_fsc is None else true_fsc
        resolution = min(self.worst, curves.resolution_of_shell(curves.last_shell_above(corrected, _THRESHOLD), self.n, self.a))
        weights = curves.fsc_weights(corrected)
        gain = gains.weight_gain(self.n, weights) * gains.lowpass_gain(self.n, self.a, resolution)
        edge = int(np.floor(self.n * self.a / resolution + 0.5)) + 1
        found = {"corrected": corrected, "masked": masked, "randomised": randomised, "resolution": resolution}
        if self.backend is None:
            return found, inverse(apply_gain(self.average, gain), self.n)
        k_max = min(edge, self.n // 2, int(np.count_nonzero(np.cumprod(weights > 0))))
        return found, self.filter(point, gain.astype(np.float32), k_max)

    def _add(self, point: np.ndarray, box: Any, frequency: float) -> None:
        z, y, x = (int(v) for v in point)
        if self.backend is not None:
            self.backend.add_window(box, self.window, frequency, z, y, x, self.total, self.frequencies, self.weights)
            return
        w = self._whole_window(point)
        self.total += w * self.xp.astype(box, self.xp.float64)
        self.frequencies += w * frequency
        self.weights += w

    def _whole_window(self, point: np.ndarray) -> Any:
        """The window in the whole box, for libraries without compiled kernels."""
        whole = np.zeros((self.n,) * 3)
        target, source = [], []
        for p in point:
            low, high = max(0, p - self.q), min(self.n, p + self.q + 1)
            target.append(slice(low, high))
            source.append(slice(low - p + self.q, high - p + self.q))
        whole[tuple(target)] = self.window[tuple(source)]
        return self.xp.asarray(whole)

    def _plain_sums(self, point: np.ndarray) -> np.ndarray:
        w = self.xp.astype(self._whole_window(point), self.plain[0].dtype)
        f = [forward(v * w) for v in self.plain]
        return np.concatenate([cross_sums(f[0], f[1]), cross_sums(f[2], f[3])])

    def maps(self) -> tuple[Any, Any]:
        """Local resolution (Å) and filtered map, 0 where no window reaches."""
        xp = self.xp
        inside = self.weights > 0
        safe = xp.where(inside, self.weights, xp.ones_like(self.weights))
        pulse()
        frequency = xp.where(inside, self.frequencies, xp.ones_like(safe))
        pulse()
        resolution = xp.where(inside, safe / frequency, xp.zeros_like(safe))
        pulse()
        return xp.astype(resolution, xp.float32), xp.astype(self.total / safe, xp.float32)


def _in_order(function: Callable[[int], Any], n: int, threads: int, stop: threading.Event) -> Iterator[Any]:
    """Results of ``function(0 ... n - 1)`` in order, a few ahead in threads; ``stop`` is set when nobody wants more of them."""

    def result(future: Future[Any]) -> Any:
        while not future.done():  # a window may take seconds: who listens is heard meanwhile
            wait([future], timeout=0.1)
            pulse()
        return future.result()

    if threads <= 1:
        yield from map(function, range(n))
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Any]] = deque()
        following = iter(range(n))
        try:
            for i in following:
                waiting.append(pool.submit(function, i))
                if len(waiting) >= 3 * threads:
                    yield result(waiting.popleft())
            while waiting:
                yield result(waiting.popleft())
        finally:
            stop.set()
            for f in waiting:
                f.cancel()
