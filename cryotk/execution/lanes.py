"""Blocks of work in lanes: the same bits for any number of threads or workers.

Particles are cut into blocks in a fixed order; a lane is a fixed list of blocks whose results are added one after the other; the
lanes' results are added in a fixed order. How many threads or dask workers run the lanes does not enter the arithmetic.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np

from cryotk.errors import CryotkError, ExecutionError

__all__ = ["Stopped", "Turns", "cut_lanes", "default_threads", "each_lane", "in_turns", "on_cluster", "run_lanes", "side_by_side", "tree_sum", "use"]

S = TypeVar("S")
T = TypeVar("T")
_client: Any = None


class Stopped(CryotkError):
    """The run was asked to stop; the last finished iteration stands."""

    def __init__(self, text: str = "stopped before the iteration was finished: the last finished one stands, and can be gone on from") -> None:
        super().__init__(text)


def use(client: Any) -> None:
    """Send lanes to a ``dask.distributed`` client from now on; ``None`` goes back to threads."""
    global _client
    if client is not None and not (hasattr(client, "submit") and hasattr(client, "scheduler_info")):
        raise ExecutionError(f"execution.use() takes a dask.distributed.Client, or None for threads; not {client!r}")
    _client = client


def on_cluster() -> bool:
    """Whether lanes go to a dask cluster."""
    return _client is not None


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


def side_by_side(function: Callable[[S], T], items: Sequence[S], threads: int | None = None) -> list[T]:
    """``function`` of each item, several at a time; results in the order of the items.

    Parameters
    ----------
    function : callable
        What it does for one item must not touch what it does for another.
    items : sequence
    threads : int, optional
        All processors by default.
    """
    from threadpoolctl import threadpool_limits

    n = min(threads or default_threads(), len(items))
    if n <= 1:
        return [function(item) for item in items]
    with threadpool_limits(1), ThreadPoolExecutor(n, thread_name_prefix="cryotk-part") as pool:
        return list(pool.map(function, items))


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
    return list(each_lane(function, context, lanes, threads=threads, stop=stop, on_block=on_block))


def each_lane(
    function: Callable[..., T],
    context: Any,
    lanes: Sequence[Any],
    *,
    threads: int | None = None,
    stop: threading.Event | None = None,
    on_block: Callable[[int], None] | None = None,
) -> Generator[T, None, None]:
    """Run lanes as :func:`run_lanes` does and give each result as soon as its turn comes.

    With threads, no more lanes are under way or waiting for their turn than there are threads: a caller that adds up what comes
    holds one result more than that.
    """
    if _client is not None:
        yield from _run_distributed(function, context, lanes, stop, on_block)
        return
    from threadpoolctl import threadpool_limits

    n = min(threads or default_threads(), len(lanes))
    with threadpool_limits(1):
        if n <= 1:
            for lane in lanes:
                yield function(context, lane, stop, on_block)
            return
        with ThreadPoolExecutor(n, thread_name_prefix="cryotk-lane") as pool:
            futures: list[Future[T]] = []
            try:
                for i in range(len(lanes)):
                    while len(futures) < min(n, len(lanes) - i):
                        futures.append(pool.submit(function, context, lanes[i + len(futures)], stop, on_block))
                    # popped before it is handed on: nothing here holds a result that the caller is done with
                    yield futures.pop(0).result()
            except BaseException:
                if stop is not None:
                    stop.set()
                for f in futures:
                    f.cancel()
                wait(futures)
                raise


class Turns:
    """Lets threads that work on blocks side by side add their results in the order of the blocks."""

    def __init__(self) -> None:
        self._next, self._broken, self._changed = 0, False, threading.Condition()

    def wait(self, i: int) -> None:
        """Wait until all before block ``i`` have been added; raise :class:`Stopped` when one of them failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == i or self._broken)
            if self._broken:
                raise Stopped

    def done(self, i: int) -> None:
        """Block ``i`` has been added."""
        with self._changed:
            self._next = i + 1
            self._changed.notify_all()

    def fail(self) -> None:
        """A block failed: nobody waits any longer."""
        with self._changed:
            self._broken = True
            self._changed.notify_all()


def in_turns(work: Callable[[S, Callable[[], None]], T], items: Iterable[S], threads: int) -> list[T]:
    """Do a lane's blocks in several threads that add their results in turn.

    Parameters
    ----------
    work : callable
        ``work(item, ready)`` calls ``ready()`` before it changes what blocks share: it returns when all earlier blocks are done.
    items : iterable
        Asked for one at a time, in order.
    threads : int
    """
    coming, lock, turns, results = iter(enumerate(items)), threading.Lock(), Turns(), {}
    failure: list[BaseException] = []

    def run() -> None:
        try:
            while True:
                with lock:
                    i, item = next(coming, (-1, None))
                if i < 0:
                    return

                def ready(i: int = i) -> None:
                    turns.wait(i)

                results[i] = work(item, ready)  # type: ignore[arg-type]
                del item
                turns.wait(i)
                turns.done(i)
        except BaseException as error:
            # those that only waited for the one that failed come later
            failure.append(error)
            turns.fail()

    helpers = [threading.Thread(target=run, name="cryotk-block", daemon=True) for _ in range(threads - 1)]
    for h in helpers:
        h.start()
    try:
        run()
        for h in helpers:
            h.join()
    except BaseException:
        # an interrupt while waiting for the others
        turns.fail()
        raise
    if failure:
        raise failure[0]
    return [results[i] for i in range(len(results))]


MAX_TRIES = 3
"""Times that a lane is sent out anew when its worker died with what it needed."""


def _share(client: Any, context: Any) -> Any:
    """Put the context on a worker; one that has just died is found out about by trying."""
    for wait_seconds in (0.2, 0.5, 1.0, 2.0, 4.0):
        _wait_for_a_worker(client)
        try:
            return client.scatter([context], broadcast=False, hash=False)[0]
        except OSError:
            threading.Event().wait(wait_seconds)
    return client.scatter([context], broadcast=False, hash=False)[0]


WORKER_TIMEOUT = 60.0
"""Seconds that a cluster without any worker is given to start one."""


def _wait_for_a_worker(client: Any) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKER_TIMEOUT)
    except TimeoutError as none:
        raise ExecutionError(
            f"the dask cluster {client.scheduler.address if client.scheduler else ''} had no worker for {WORKER_TIMEOUT:.0f} s: start "
            "workers (cluster.scale(2), or `dask worker ADDRESS`), or compute in this process with cryotk.execution.use(None)"
        ) from none


def _run_distributed(
    function: Callable[..., T], context: Any, lanes: Sequence[Any], stop: threading.Event | None,
    on_block: Callable[[int], None] | None,
) -> Generator[T, None, None]:
    """Lanes as tasks of a cluster.

    The scheduler repeats the lanes of a worker that dies; when the worker took the shared context with it, the context and the
    lanes that are not finished are sent again.
    """
    client = _client
    results: dict[int, T] = {}
    finished, given = set[int](), 0
    failure: tuple[int, BaseException | None] | None = None
    for _ in range(MAX_TRIES):
        shared = _share(client, context)
        # the worker that counts a lane may be the one that dies with it
        futures = {
            i: client.submit(_on_worker, function, shared, lane, pure=False, retries=2)
            for i, lane in enumerate(lanes)
            if i not in finished
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
                    finished.add(i)
                    if on_block is not None:
                        on_block(sum(len(b) if hasattr(b, "__len__") else 1 for b in lanes[i]))
                    while given in results:
                        yield results.pop(given)
                        given += 1
                    continue
                error = future.exception() if future.status == "error" else None
                if error is not None and type(error).__name__ != "KilledWorker":
                    client.cancel(list(futures.values()))
                    raise error
                failure = (i, error)
            if futures:
                threading.Event().wait(0.02)
        if failure is None:
            return
    lane, cause = failure or (0, None)
    raise ExecutionError(
        f"lane {lane + 1} of {len(lanes)} did not finish in {MAX_TRIES} tries: its dask workers died, which most often means that "
        "their memory did not suffice; give the workers more memory (LocalCluster(memory_limit=…)) or run fewer of them"
    ) from cause


def _on_worker(function: Callable[..., T], context: Any, lane: Any) -> T:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return function(context, lane, None, None)
