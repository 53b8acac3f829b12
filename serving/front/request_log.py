"""A name for every request, in the answer and in the log; and one line about it, which tells nothing of what was asked."""

from __future__ import annotations

import logging
import os
import re
import time
from typing import TYPE_CHECKING
from uuid import UUID

from serving.front.areas import note_route, route_of
from serving.identity import identity_of
from serving.observability.metrics import RUNNING, observe_request

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("synapse.requests")

CLIENT_GONE = 499
"""What the log notes where the client left before an answer; nginx's number, as HTTP has none."""

_SANE = re.compile(rb"[A-Za-z0-9-]{8,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestLog:
    """
    Names a request, and notes at its end how it went.

    :param plain: The paths of routes that are no templates.
    """

    def __init__(self, app: ASGIApp, *, plain: Collection[str] = ()) -> None:
        self.app = app
        self.plain = plain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        note_route(scope, self.plain)
        began, status = time.perf_counter(), CLIENT_GONE

        async def naming(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                kept = [pair for pair in message.get("headers", []) if pair[0].lower() != b"x-request-id"]
                message = {**message, "headers": [*kept, (b"x-request-id", request_id.encode())]}
            await send(message)

        RUNNING.inc()
        try:
            await self.app(scope, receive, naming)
        finally:
            RUNNING.dec()
            _note(scope, request_id, status, time.perf_counter() - began)


def _note(scope: Scope, request_id: str, status: int, seconds: float) -> None:
    identity = identity_of(scope)
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    route = route_of(scope)
    fields = {
        "method": method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "tenant": identity.tenant if identity else None,
        "key": str(identity.key_id)[:8] if identity and identity.key_id else None,
        "request_id": request_id,
    }
    observe_request(method, route, status, seconds)
    log.info("%s %s %d", method, route, status, extra=fields)


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _SANE.fullmatch(given) else new_request_id()


def new_request_id() -> str:
    """A UUID of version 7 (RFC 9562): ids sort by when they were made."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) & ~(0x3 << 62) | (0x7 << 76) | (0x2 << 62)
    return str(UUID(int=value))
