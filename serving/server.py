"""The HTTP server: uvicorn, which leaves as the service wants to."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from database.errors import ConfigurationError, SynapseError
from serving.front.protocol import MOST_CONNECTIONS, BoundedHeaders

if TYPE_CHECKING:
    from fastapi import FastAPI


KEEP_ALIVE = 75
"""Seconds that an idle connection is kept: longer than clients and proxies keep theirs (5 to 60), as a request on a connection
that is just being closed is lost."""

NOTICE = 1.0
"""Seconds between saying on /ready that the service leaves and closing its port."""


class Server(uvicorn.Server):
    """
    Serves one app. The first signal lets what is running come to its end, the second ends it at once.

    :param app: As `build_app` made it.
    :param drain_seconds: How long what is running may take.
    :param on_started: Called when requests are taken.
    """

    def __init__(self, app: FastAPI, *, drain_seconds: float, on_started: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",  # a failure to start is no reason to go on without what it starts
                log_config=None,
                access_log=False,  # requests are logged by our own middleware, without what was asked
                server_header=False,
                http=BoundedHeaders,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE,
                forwarded_allow_ips="127.0.0.1,::1",  # uvicorn would read the environment
                timeout_graceful_shutdown=round(drain_seconds),
            )
        )
        self._app = app
        self._leaves_at: float | None = None
        self._on_started = on_started

    @property
    def was_forced(self) -> bool:
        """Whether it was told to end a second time."""
        return self.force_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take requests."""
        await super().startup(sockets)
        if self.started:
            self._on_started()

    def stop(self) -> None:
        """Send new requests away, for long enough that a load balancer sees it, and end when those that are running have."""
        self._app.state.drain.begin()
        self._leaves_at = time.monotonic() + NOTICE

    async def on_tick(self, counter: int) -> bool:
        """Whether to close the port: uvicorn asks every 0.1 s."""
        if self._leaves_at is not None and time.monotonic() >= self._leaves_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """
        A signal came.

        uvicorn would raise it again in the end, and only takes a second Ctrl-C for impatience.
        """
        if self._leaves_at is None:
            self.stop()
        else:
            self.should_exit = self.force_exit = True


def bound_socket(host: str, port: int) -> socket.socket:
    """
    A socket on an address, before anything is loaded that would be in vain.

    :param host: A name or an address of this machine.
    :param port: 0 means a free one.
    :raises ConfigurationError: If the machine has no such address.
    :raises SynapseError: If another program has the port, or it may not be used.
    """
    where = f"port {port} of {host}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as exc:
        raise ConfigurationError(
            f"An address of this machine was expected as the host, but {host!r} is none that is known.",
            hint="127.0.0.1 means this machine alone, 0.0.0.0 every network that it is in.",
        ) from exc
    found = socket.socket(family, kind, protocol)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
    except OSError as exc:
        found.close()
        if exc.errno == errno.EADDRINUSE:
            hint = "Stop it, or choose another with --port; 0 means a free one."
            raise SynapseError(f"A free {where} was expected, but another program listens there.", hint=hint) from exc
        raise SynapseError(f"The {where} was expected to be usable, but is not: {exc.strerror}.") from exc
    return found
