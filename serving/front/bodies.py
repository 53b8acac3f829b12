"""How large a request may be, and how slow: counted while it comes in, whatever it announced."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette._utils import get_route_path

from serving.front.refusals import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD_ROOM = 1024 * 1024
"""Bytes that a form may take beside its file."""

UPLOAD_PREFIX = "/documents"

GRACE = 20.0
"""Seconds that a body may be waited for in any case."""

SLOWEST = 8 * 1024
"""Bytes per second that a body must come in with after that; less is an attempt to keep the service waiting."""


class Bodies:
    """
    Refuses bodies that are too large or too slow, and hangs up on what is still to come of a body that nobody reads.

    :param most: Bytes of a request.
    :param most_upload: Bytes of a request that uploads a file.
    :param grace: Seconds that a body may be waited for in any case.
    """

    def __init__(self, app: ASGIApp, *, most: int, most_upload: int, grace: float = GRACE) -> None:
        self.app = app
        self.most = most
        self.most_upload = most_upload
        self.grace = grace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(receive, send, most=self._most(scope), grace=self.grace, announced=_announced(scope))
        if body.announced is not None and body.announced > body.most:
            raise body.too_large()
        await self.app(scope, body.receive, body.send)

    def _most(self, scope: Scope) -> int:
        path, uploads = get_route_path(scope), scope["method"] in ("POST", "PUT")
        below = path == UPLOAD_PREFIX or path.startswith(f"{UPLOAD_PREFIX}/")
        return self.most_upload if below and uploads else self.most


class _Body:
    """One request's body: what came in, and how long it was waited for."""

    def __init__(self, receive: Receive, send: Send, *, most: int, grace: float, announced: int | None) -> None:
        self._receive = receive
        self._send = send
        self.most = most
        self.grace = grace
        self.announced = announced
        self.received = 0
        self.waited = 0.0
        self.complete = announced == 0

    async def receive(self) -> Message:
        """The next part."""
        if self.complete:
            return await self._receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.grace + self.received / SLOWEST - self.waited):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(408, "The request's body came in too slowly.") from None
        self.waited += time.monotonic() - began
        self.received += len(message.get("body", b""))
        self.complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        if self.received > self.most:
            raise self.too_large()
        return message

    async def send(self, message: Message) -> None:
        """An answer before the whole body is there ends the connection: nobody is going to read the rest."""
        if message["type"] == "http.response.start" and not self.complete:
            kept = [pair for pair in message.get("headers", []) if pair[0].lower() != b"connection"]
            message = {**message, "headers": [*kept, (b"connection", b"close")]}
        await self._send(message)

    def too_large(self) -> Refusal:
        return Refusal(
            413,
            f"A request of at most {self.most} bytes was expected, but it is larger.",
            headers={"Connection": "close"},
        )


def _announced(scope: Scope) -> int | None:
    """The bytes that the headers announce; `None` for a body that comes without its length."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    return int(length) if length.isdigit() and b"transfer-encoding" not in headers else None
