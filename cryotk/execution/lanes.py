"""Blocks of work in lanes: the same bits for any number of threads or workers.

Particles are cut into blocks in a fixed order; a lane is a fixed list of blocks done one after the other; the lanes'
results are added in a fixed tree. How many threads or dask workers run the lanes does not enter the arithmetic.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np

from cryotk.errors import ExecutionError

__all__ = ["Stopped", "cut_lanes", "default_threads", "run_lanes", "tree_sum", "use"]

T = TypeVar("T")
_client: Any = None


class Stopped(Exception):
    """The run was asked to stop; the last finished iteration stands."""


def use(client: Any) -> None:
    """Send lanes to a ``dask.distributed`` client from now on; ``None`` goes back to threads."""
    global _client
    _client = client


def default_threads() -> int:
    """Threads for lanes: the processors this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:
        return max(1, os.cpu_count() or 1)


def cut_lanes(n_blocks: int, max_lanes: int) -> list[range]:
    """Contiguous, even lists of block numbers; depends on nothing but its arguments."""
    n = max(1, min(n_blocks, max_lanes))
    edges = np.linspace(0, n_blocks, n + 1).round().astype(int)
    return [range(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a]


def tree_sum(parts: Sequence[T]) -> T:
    """Add pairwise in a fixed order."""
    items = list(parts)
    while len(items) > 1:
        items = [items[i] + items[i + 1] if i + 1 < len(items) else items[i] for i in range(0, len(items), 2)]  # type: ignore[operator]
    return items[0]


def run_lanes(
    function: Callable[..., T],
    context: Any,
    lanes: Sequence[Any],
    *,
    threads: int | None = None,
    stop: threading.Event | None = None,
    on_block: Callable[[int], None] | None = None,
) -> list[T]:
    """Run ``function(context, lane, stop, on_block)`` for every lane; results in the order of the lanes.

    Parameters
    ----------
    function : callable
        Picklable; must check ``stop`` between blocks and raise :class:`Stopped`.
    context : object
        Shared by all lanes, picklable.
    lanes : sequence
    threads : int, optional
        Python threads; all processors by default.
    stop : threading.Event, optional
    on_block : callable, optional
        Called with the number of particles of each finished block.
    """
    if _client is not None:
        return _run_distributed(function, context, lanes, stop, on_block)
    from threadpoolctl import threadpool_limits

    n = min(threads or default_threads(), len(lanes))
    with threadpool_limits(1):
        if n <= 1:
            return [function(context, lane, stop, on_block) for lane in lanes]
        with ThreadPoolExecutor(n, thread_name_prefix="cryotk-lane") as pool:
            futures = [pool.submit(function, context, lane, stop, on_block) for lane in lanes]
            try:
                return [f.result() for f in futures]
            except BaseException:
                if stop is not None:
                    stop.set()
                for f in futures:
                    f.cancel()
                wait(futures)
                raise


MAX_TRIES = 3
"""Times that a lane is sent out anew when its worker died with what it needed."""


def _share(client: Any, context: Any) -> Any:
    """Put the context on a worker; one that has just died is found out about by trying."""
    for wait_seconds in (0.2, 0.5, 1.0, 2.0, 4.0):
        try:
            return client.scatter([context], broadcast=False, hash=False)[0]
        except OSError:
            threading.Event().wait(wait_seconds)
    return client.scatter([context], broadcast=False, hash=False)[0]


def _run_distributed(
    function: Callable[..., T], context: Any, lanes: Sequence[Any], stop: threading.Event | None,
    on_block: Callable[[int], None] | None,
) -> list[T]:
    """Lanes as tasks of a cluster.

    The scheduler repeats the lanes of a worker that dies; when the worker took the shared context with it, the context and the
    lanes that are not finished are sent again.
    """
    client = _client
    results: dict[int, T] = {}
    failure: tuple[int, BaseException | None] | None = None
    for _ in range(MAX_TRIES):
        shared = _share(client, context)
        # the worker that counts a lane may be the one that dies with it
        futures = {
            i: client.submit(_on_worker, function, shared, lane, pure=False, retries=2)
            for i, lane in enumerate(lanes)
            if i not in results
        }
        failure = None
        while futures:
            if stop is not None and stop.is_set():
                client.cancel(list(futures.values()))
                raise Stopped
            for i in [i for i, f in futures.items() if f.done() or f.status == "lost"]:
                future = futures.pop(i)
                if future.status == "finished":
                    # results are fetched at once: a worker that dies later takes nothing along
                    try:
                        results[i] = future.result()
                    except Exception as lost:
                        failure = (i, lost)
                        continue
                    if on_block is not None:
                        on_block(sum(len(b) if hasattr(b, "__len__") else 1 for b in lanes[i]))
                    continue
                error = future.exception() if future.status == "error" else None
                if error is not None and type(error).__name__ != "KilledWorker":
                    client.cancel(list(futures.values()))
                    raise error
                failure = (i, error)
            if futures:
                threading.Event().wait(0.02)
        if failure is None:
            return [results[i] for i in range(len(lanes))]
    lane, cause = failure or (0, None)
    raise ExecutionError(
        f"lane {lane + 1} of {len(lanes)} did not finish in {MAX_TRIES} tries: its dask workers died, which most often means that "
        "their memory did not suffice; give the workers more memory (LocalCluster(memory_limit=…)) or run fewer of them"
    ) from cause


def _on_worker(function: Callable[..., T], context: Any, lane: Any) -> T:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return function(context, lane, None, None)
