"""The server before the front: uvicorn, told what to trust and when to hang up."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import uvicorn

from serving.front.protocol import BoundedHeaders

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI

    from config import Settings

NOTICE = 1.0
"""Seconds that `/ready` says no before the port is closed, so that whoever sends requests can look elsewhere."""

CONNECTIONS_PER_SLOT = 16
"""Connections that may be open for each request that may run: browsers keep several, and wait for news on them."""


class Server(uvicorn.Server):
    """
    Serves an app, and leaves in order: first it says that it will, then it takes no more, then what runs comes to its end.

    :param app: Behind its front.
    :param settings: Where to listen, how long to wait at the end.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(uvicorn.Config(app, **options(settings)))
        self._drain = app.state.drain
        self._notice = min(NOTICE, settings.drain_seconds)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal starts the leaving; a second one ends it at once."""
        if self._drain.begun or self._loop is None or not self.started:
            super().handle_exit(sig, frame)
            return
        self._drain.begin()
        self._loop.call_soon_threadsafe(self._loop.call_later, self._notice, super().handle_exit, sig, frame)


def options(settings: Settings) -> dict[str, Any]:
    """
    What uvicorn is told.

    Forwarded addresses are believed from loopback alone: of anyone else they would be a choice of address to be throttled
    by. The log is ours, and nobody learns which server answers.
    """
    return {
        "host": settings.serve_host,
        "port": settings.serve_port,
        "http": BoundedHeaders,
        "proxy_headers": True,
        "forwarded_allow_ips": "127.0.0.1,::1",
        "server_header": False,
        "log_config": None,
        "access_log": False,
        "limit_concurrency": max(1024, settings.max_concurrent * CONNECTIONS_PER_SLOT),
        "timeout_graceful_shutdown": round(settings.drain_seconds),
        "ws_max_size": settings.max_body_bytes,
    }
