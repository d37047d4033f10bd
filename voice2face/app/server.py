"""The web page as an ASGI application that a server runs or another application mounts.

A recording is posted, and the answer streams what becomes of it as Server-Sent Events, to the
finished portraits in the last one. So nothing has to be kept for anybody: a visitor who leaves
ends the work, and the recording and the portraits are gone with the request.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders, QueryParams
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voice2face import __version__
from voice2face.app.drawing import PORTRAITS, Order, draw_portraits
from voice2face.app.jobs import Job, JobQueue
from voice2face.app.limits import Limits
from voice2face.argument_checks import check_whole
from voice2face.errors import RefusedError, SettingError, Voice2FaceError
from voice2face.pipeline import Voice2FacePipeline
from voice2face.seeds import choose_seeds
from voice2face.settings import DEFAULT_VARIETY

PAGE = Path(__file__).parent / "page"
mimetypes.add_type("text/javascript", ".js")  # some programs tell Windows otherwise
RECORDING_TYPE = "application/octet-stream"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data: blob:; media-src blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def create_app(
    pipe: Voice2FacePipeline,
    limits: Limits | None = None,
    *,
    allowed_hosts: Sequence[str] = ("*",),
) -> Starlette:
    """Make the web page of a pipeline.

    It runs by itself under any ASGI server with one worker, or inside another application:
    ``Mount("/voice", create_app(pipe))``.

    ``app.state.queue.close()`` ends the work for all visitors, which a server that shuts down would
    wait for.

    Args:
        pipe: makes the portraits, one visitor's at a time.
        limits: what is taken from visitors.
        allowed_hosts: names by which the page may be called; others are refused, so that no
            foreign page reaches it under a name that was pointed here (DNS rebinding).
    """
    limits = limits or Limits()
    queue = JobQueue(limits)
    usual = pipe.settings()

    async def about(_: Request) -> Response:
        return JSONResponse(
            {
                "version": __version__,
                "checkpoint": pipe.name,
                "portraits": PORTRAITS,
                "recording_bytes": limits.recording_bytes,
                "recording_seconds": limits.recording_seconds,
                "steps": limits.steps,
                "usual": {
                    "steps": min(usual.num_inference_steps, limits.steps),
                    "guidance": usual.guidance_scale,
                    "variety": DEFAULT_VARIETY,
                },
            }
        )

    async def portraits(request: Request) -> Response:
        order = read_order(request.query_params, limits, pipe)
        job = queue.admit()
        try:
            recording = await read_recording(request, limits)
        except BaseException:
            queue.dismiss(job)
            raise
        queue.start(job, partial(draw_portraits, pipe, recording, order, limits))
        return EventStream(queue, job)

    app = Starlette(
        routes=[
            Route("/about", about),
            Route("/portraits", portraits, methods=["POST"]),
            Mount("/", StaticFiles(directory=PAGE, html=True, follow_symlink=True)),
        ],
        middleware=[
            Middleware(SafeHeaders),
            Middleware(
                TrustedHostMiddleware, allowed_hosts=list(allowed_hosts), www_redirect=False
            ),
        ],
        exception_handlers={Voice2FaceError: refuse},
    )
    app.state.queue = queue
    return app


class EventStream(StreamingResponse):
    """A job's events; the job is dismissed when the visitor has them all, or leaves."""

    def __init__(self, queue: JobQueue, job: Job) -> None:
        super().__init__(encoded(job), media_type="text/event-stream")
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"
        self._queue, self._job = queue, job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._queue.dismiss(self._job)


class SafeHeaders:
    """Adds the headers that keep browsers from doing more than the page needs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self._app(scope, receive, send_safely)


async def encoded(job: Job) -> AsyncIterator[str]:
    """A job's events in the format of Server-Sent Events."""
    async for event in job.events():
        yield f"event: {event.name}\ndata: {json.dumps(event.content)}\n\n"


async def refuse(_: Request, error: Exception) -> Response:
    """Answer with the error's own words."""
    status = error.status if isinstance(error, RefusedError) else 400
    headers = {"Retry-After": "30"} if status == 503 else None
    return JSONResponse({"error": str(error)}, status, headers)


def read_order(query: QueryParams, limits: Limits, pipe: Voice2FacePipeline) -> Order:
    """Check what a request asks for, before its recording is read.

    Raises:
        SettingError: says which number is wrong, and its range.
    """
    try:
        seed = int(query["seed"]) if query.get("seed") else None
        steps = int(query["steps"]) if "steps" in query else None
        guidance = float(query["guidance"]) if "guidance" in query else None
        variety = float(query.get("variety", DEFAULT_VARIETY))
    except ValueError as error:
        raise SettingError(
            f"seed and steps are whole numbers, guidance and variety are numbers: {error}"
        ) from error
    if steps is not None:
        check_whole("num_inference_steps", steps, limits.steps)
    settings = pipe.settings(num_inference_steps=steps, guidance_scale=guidance, variety=variety)
    steps, guidance = settings.num_inference_steps, settings.guidance_scale
    steps = min(steps, limits.steps)
    return Order(tuple(choose_seeds(PORTRAITS, seed, None)), steps, guidance, variety)


async def read_recording(request: Request, limits: Limits) -> bytes:
    """Receive the body, and stop as soon as it is too long or takes too long.

    Raises:
        RefusedError: of another type, too large, too slow or empty.
    """
    if request.headers.get("content-type") != RECORDING_TYPE:
        # No foreign page can send this type without asking first, and it is told no.
        raise RefusedError(f"send the recording's bytes as {RECORDING_TYPE}", 415)
    too_large = RefusedError(
        f"the recording is over {limits.recording_bytes / 1e6:.0f} MB; "
        "cut out a part, or save it as FLAC or MP3",
        413,
    )
    if int(request.headers.get("content-length", 0)) > limits.recording_bytes:
        raise too_large
    recording = bytearray()
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for part in request.stream():
                recording += part
                if len(recording) > limits.recording_bytes:
                    raise too_large
    except ClientDisconnect:
        raise RefusedError("the visitor left before the recording was there", 499) from None
    except TimeoutError:
        raise RefusedError(
            f"the recording did not arrive within {limits.upload_seconds:g} s; "
            "send a shorter one, or try a faster connection",
            408,
        ) from None
    if not recording:
        raise RefusedError("there is no recording in the request; send one", 400)
    return bytes(recording)
