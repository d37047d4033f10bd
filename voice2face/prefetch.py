"""Reading what comes next while something is worked on."""

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
    upcoming = iter(items)
    pool = ThreadPoolExecutor(READING_THREADS)
    try:
        reading: deque[Future[Result]] = deque()
        while True:
            room = READ_AHEAD + 1 - len(reading)
            reading.extend(pool.submit(read, item) for item in islice(upcoming, room))
            if not reading:
                return
            yield reading.popleft().result()
    finally:
        # the garbage collector may be what ends this, in a thread that others wait for to start
        pool.shutdown(wait=False, cancel_futures=True)
