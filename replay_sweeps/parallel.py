"""Work spread over processes or threads, with results in the order of the input and constant memory."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import TypeVar

from replay_sweeps.child_process import end_with_parent, exit_at_once

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 2  # batches; no more than these are done in place, since starting a process takes longer


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare_worker() -> None:
    """In a worker: let the parent handle Ctrl-C, and end when the parent is gone, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(exit_at_once)


@contextmanager
def process_pool(workers: int) -> Iterator[Executor | None]:
    """A pool of `workers` processes, started when first used; None for one worker."""
    if workers <= 1:
        yield None
        return
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def ordered_map(
    pool: Executor | None, function: Callable[[Item], Result], items: Iterable[Item], ahead: int = 8
) -> Iterator[Result]:
    """Yield `function(item)` in the order of `items`, at most `ahead` of them at work."""
    items = iter(items)
    first = list(islice(items, FEW + 1))
    if pool is None or len(first) <= FEW:
        yield from map(function, chain(first, items))
        return
    waiting: deque[Future[Result]] = deque()
    try:
        for item in chain(first, items):
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def batched(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    """`texts` in lists of about `characters` characters."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
