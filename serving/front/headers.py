"""What every answer tells the browser not to do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.front.areas import Area, area_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}

API = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}

PAGE = {
    # Scripts and styles stand in the page's own HTML, too. Whatever an answer shows, nothing is fetched from elsewhere.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; "
        "connect-src 'self'; frame-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; "
        "frame-ancestors 'self'"
    ),
    "X-Frame-Options": "SAMEORIGIN",
}

HSTS = "max-age=31536000"


class SecurityHeaders:
    """
    Adds the headers that an answer does not have: what a route says itself holds.

    :param https: Whether users reach the service by https alone; otherwise only what came that way says so.
    """

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self.app = app
        self.https = https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted = {**EVERYWHERE, **(PAGE if area_of(scope) is Area.PAGE else API)}
        if self.https or scope.get("scheme") == "https":
            wanted["Strict-Transport-Security"] = HSTS
        more = [(name.lower().encode(), value.encode()) for name, value in wanted.items()]

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", [])
                names = {name.lower() for name, _ in given}
                message = {**message, "headers": [*given, *(pair for pair in more if pair[0] not in names)]}
            await send(message)

        await self.app(scope, receive, adding)
