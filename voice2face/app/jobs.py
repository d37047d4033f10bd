"""One worker makes portraits; visitors wait for it in a queue of bounded length."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from voice2face.app.limits import Limits
from voice2face.errors import AppError, RefusedError, Voice2FaceError

logger = logging.getLogger("voice2face")

Tell = Callable[[str, dict[str, Any]], None]
GoOn = Callable[[], None]
Work = Callable[[Tell, GoOn], None]


class Event(NamedTuple):
    """What a visitor is told: ``waiting``, what the work tells, ``error``."""

    name: str
    content: dict[str, Any]


class VisitorLeft(Exception):
    """Ends the work for somebody who is not there any more."""


class Job:
    """One visitor's place in the queue, from the first byte of the upload to the last event.

    It lives on the event loop; ``tell`` alone may be called from the worker.
    """

    def __init__(self) -> None:
        self.work: Work | None = None
        self.task: asyncio.Task[None] | None = None
        self.ahead = 0
        self.left = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()

    def tell(self, name: str, content: dict[str, Any]) -> None:
        """Pass an event on to the visitor."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, Event(name, content))

    def end(self) -> None:
        """Let the events end."""
        self._loop.call_soon_threadsafe(self._events.put_nowait, None)

    async def events(self) -> AsyncIterator[Event]:
        """What the visitor is told, until the work is done."""
        while (event := await self._events.get()) is not None:
            yield event


class JobQueue:
    """Serves one job at a time, first come, first served.

    Args:
        limits: how many jobs there may be, and how long the work for one may take.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._jobs: list[Job] = []
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="voice2face-app")

    def admit(self) -> Job:
        """Give a visitor a place.

        Raises:
            RefusedError: all places are taken.
        """
        if len(self._jobs) >= self._limits.jobs:
            raise RefusedError(
                f"{len(self._jobs)} others are being served already; try again in a minute", 503
            )
        job = Job()
        self._jobs.append(job)
        return job

    def start(self, job: Job, work: Work) -> None:
        """Put a job at the end of the line, now that its recording is there."""
        self._jobs.remove(job)
        self._jobs.append(job)
        job.work = work
        job.task = asyncio.create_task(self._serve(job))
        self._tell_places()

    def dismiss(self, job: Job) -> None:
        """Forget a job and its recording; if it is being worked on, that ends at its next step."""
        job.left.set()
        job.work = None  # the worker's own queue keeps the job until its turn comes
        if job in self._jobs:
            self._jobs.remove(job)
            self._tell_places()
        if job.task is not None:
            job.task.cancel()

    def close(self) -> None:
        """End all work, because the page is being closed."""
        for job in [job for job in self._jobs if job.task is not None]:
            job.tell("error", {"message": "the page was closed before the portraits were drawn"})
            job.end()
            self.dismiss(job)

    async def _serve(self, job: Job) -> None:
        await asyncio.get_running_loop().run_in_executor(self._worker, self._do, job)
        self._jobs.remove(job)
        self._tell_places()
        job.end()

    def _do(self, job: Job) -> None:
        """Run a job's work in the worker's thread; every error becomes an event."""
        work = job.work
        if work is None:
            return
        deadline = time.monotonic() + self._limits.drawing_seconds

        def go_on() -> None:
            if job.left.is_set():
                raise VisitorLeft
            if time.monotonic() > deadline:
                raise AppError(
                    f"the portraits took more than {self._limits.drawing_seconds:g} s; "
                    "ask for fewer steps or cut the recording"
                )

        def tell(name: str, content: dict[str, Any]) -> None:
            go_on()
            job.tell(name, content)

        try:
            work(tell, go_on)
        except VisitorLeft:
            pass
        except Voice2FaceError as error:
            job.tell("error", {"message": str(error)})
        except Exception:
            logger.exception("a portrait failed")
            message = "something went wrong here; whoever runs this page finds it in the log"
            job.tell("error", {"message": message})

    def _tell_places(self) -> None:
        line = [job for job in self._jobs if job.task is not None]
        for ahead, job in enumerate(line):
            if ahead and ahead != job.ahead:
                job.tell("waiting", {"ahead": ahead})
            job.ahead = ahead
