"""
Which web pages may call, and under which names the service answers.

A browser sends a foreign page's requests with the user's cookies, and reaches a service on loopback that asks for no
key: what changes something is refused when it comes from another origin, and a service without keys answers to
loopback's names alone, or any web site could point its own name at 127.0.0.1 and read along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from serving.front.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Origins:
    """
    Refuses foreign origins and names. What mounted apps allow on their own account is not passed on.

    :param allowed: Origins that may call: those of the settings, and the service's public one.
    :param hosts: Names that the service answers to; `None` means any.
    """

    def __init__(self, app: ASGIApp, *, allowed: Collection[str], hosts: Collection[str] | None) -> None:
        self.app = app
        self.allowed = {origin.lower() for origin in allowed}
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1").lower() for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        refusal = self._refusal(scope, host, origin)
        if refusal and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif refusal:
            raise refusal
        else:
            await self.app(scope, receive, _without_grants(send))

    def _refusal(self, scope: Scope, host: str, origin: str | None) -> Refusal | None:
        if self.hosts is not None and _name(host) not in self.hosts:
            names = ", ".join(sorted(self.hosts))
            return Refusal(421, f"The service answers to {names} alone, as it asks for no keys.", code="misdirected")
        writes = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if not writes or origin is None or origin in self.allowed or origin.partition("://")[2] == host != "":
            return None
        return Refusal(
            403,
            "Web pages of other origins may not call this service.",
            hint="Name the page's origin in SERVE_CORS_ORIGINS, or the service's own address in SERVE_PUBLIC_URL.",
        )


def allowed_origins(cors_origins: str | None) -> list[str]:
    """The origins of the setting, a list with commas."""
    return [origin.strip().rstrip("/") for origin in (cors_origins or "").split(",") if origin.strip()]


def origin_of(url: str | None) -> list[str]:
    """The origin of an address."""
    parts = urlsplit(url or "")
    return [f"{parts.scheme}://{parts.netloc}"] if parts.netloc else []


def _name(host: str) -> str:
    """A Host header without its port."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _without_grants(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", []) if not pair[0].lower().startswith(b"access-control-")]
            message = {**message, "headers": kept}
        await send(message)

    return sending
