"""Items read ahead and in batches; what came before an error of theirs comes first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

READING_THREADS = 2
READ_AHEAD = 3


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Apply ``read`` in other threads, and yield its results in order.

    While a result is worked on, ``READ_AHEAD`` more are read; so few are held at a time.

    Args:
        read: safe to be called from several threads.
        items: drawn from as the results are taken.
    """
    pool = ThreadPoolExecutor(READING_THREADS)
    begun = _begin(pool, read, items)
    try:
        reading: deque[Future[Result]] = deque()
        while True:
            reading.extend(islice(begun, READ_AHEAD + 1 - len(reading)))
            if not reading:
                return
            yield reading.popleft().result()
    finally:
        # the garbage collector may be what ends this, in a thread that others wait for to start
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(
    pool: ThreadPoolExecutor, read: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Future[Result]]:
    """One result to come for each item, and one more for what ``items`` raises."""
    try:
        for item in items:
            yield pool.submit(read, item)
    except Exception as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        yield failed


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items, the last one of what is left, or came before ``items`` raised."""
    batch: list[Item] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
