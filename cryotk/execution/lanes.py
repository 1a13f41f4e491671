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


def _run_distributed(
    function: Callable[..., T], context: Any, lanes: Sequence[Any], stop: threading.Event | None,
    on_block: Callable[[int], None] | None,
) -> list[T]:
    """Lanes as tasks of a cluster; the scheduler repeats those of a worker that dies."""
    client = _client
    shared = client.scatter(context, broadcast=False, hash=False)
    futures = [client.submit(_on_worker, function, shared, lane, pure=False, retries=2) for lane in lanes]
    pending = set(range(len(futures)))
    while pending:
        if stop is not None and stop.is_set():
            client.cancel(futures)
            raise Stopped
        for i in [i for i in pending if futures[i].done()]:
            pending.discard(i)
            if on_block is not None:
                on_block(sum(len(b) for b in lanes[i]))
        if pending:
            threading.Event().wait(0.02)
    return [f.result() for f in futures]


def _on_worker(function: Callable[..., T], context: Any, lane: Any) -> T:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return function(context, lane, None, None)
