"""Reading the next batch while one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

READING_THREADS = 2


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item], batch_size: int
) -> Iterator[list[Result]]:
    """Apply ``read`` in other threads, and yield its results in order, a batch at a time.

    While a batch is worked on, the next one is read; no more than two are held.

    Args:
        read: safe to be called from several threads.
        items: drawn from as the batches are taken.
        batch_size: results in a batch; the last one may be shorter.
    """
    upcoming = iter(items)
    pool = ThreadPoolExecutor(READING_THREADS)
    try:
        current = [pool.submit(read, item) for item in islice(upcoming, batch_size)]
        while current:
            following = [pool.submit(read, item) for item in islice(upcoming, batch_size)]
            yield [future.result() for future in current]
            current = following
    finally:
        pool.shutdown(cancel_futures=True)
