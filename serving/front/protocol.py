"""
HTTP/1.1 as uvicorn speaks it, with an end to headers: neither how long they are nor how long they take is bounded there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

MOST_CONNECTIONS = 2048
"""Connections that may be open, for uvicorn's `limit_concurrency`: each costs a file descriptor, whatever it waits for."""

MOST_HEADER_BYTES = 64 * 1024
HEADER_SECONDS = 20.0

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class BoundedHeaders(HttpToolsProtocol):
    """Hangs up on a client whose headers do not come to an end."""

    header_seconds = HEADER_SECONDS

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], **options: Any) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state, **options)
        self._header_bytes = 0
        self._in_headers = False
        self._hang_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True

    def on_headers_complete(self) -> None:
        self._headers_came()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """The time of the next request's headers begins, where they were on their way meanwhile."""
        super().on_response_complete()
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_headers or self.transport.is_closing():
            return
        self._header_bytes += len(data)
        if self._header_bytes > MOST_HEADER_BYTES:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        elif self._hang_up is None:
            self._wait_for_headers()

    def _wait_for_headers(self) -> None:
        self._hang_up = self.loop.call_later(self.header_seconds, self._gave_up)

    def _headers_came(self) -> None:
        self._in_headers, self._header_bytes = False, 0
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._hang_up = None

    def _gave_up(self) -> None:
        """Unless an earlier request of the connection is still being answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_for_headers()
        else:
            self.transport.close()
