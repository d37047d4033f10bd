"""uvicorn as ``voice2face app`` runs it: nobody is waited for, neither at the end nor before."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from voice2face.app.jobs import JobQueue


class PageServer(uvicorn.Server):
    """Ends the work for all visitors as it shuts down.

    Args:
        config: of the server.
        queue: of the page.
    """

    def __init__(self, config: uvicorn.Config, queue: JobQueue) -> None:
        super().__init__(config)
        self.queue = queue

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.queue.close()
        await super().shutdown(sockets)


class ImpatientProtocol(H11Protocol):
    """Closes connections on which no whole request comes; their number is limited."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        waiting = self.timeout_keep_alive_task
        super().data_received(data)
        asked = self.cycle is not None and not self.cycle.response_complete
        armed = self.timeout_keep_alive_task is not None
        if waiting is None or asked or armed or self.transport.is_closing():
            return
        self.timeout_keep_alive_task = self.loop.call_at(
            waiting.when(), self.timeout_keep_alive_handler
        )
