"""The web page, served by uvicorn in a thread, and a visitor that talks to it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

BYTES = {"Content-Type": "application/octet-stream"}


@contextmanager
def serve(app: ASGIApp) -> Iterator[int]:
    """Yield the port at which the application answers."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


class Visit:
    """One request for portraits, whose events can be read as they come."""

    def __init__(
        self, port: int, recording: bytes, path: str = "/portraits", **settings: object
    ) -> None:
        query = "&".join(f"{name}={value}" for name, value in settings.items())
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.connection.request("POST", f"{path}?{query}", recording, BYTES)
        self.answer = self.connection.getresponse()

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        assert self.answer.status == 200, self.answer.read()
        assert self.answer.headers["Content-Type"].startswith("text/event-stream")
        while line := self.answer.readline().decode().strip():
            name = line.removeprefix("event: ")
            data = self.answer.readline().decode().removeprefix("data: ")
            assert self.answer.readline() == b"\n"
            yield name, json.loads(data)

    def leave(self) -> None:
        self.answer.close()
        self.connection.close()


def refusal(answer: http.client.HTTPResponse) -> str:
    """The message of an answer that is none of the portraits."""
    return json.loads(answer.read())["error"]
