"""How many requests a key, or a user without one, may make per minute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.front.areas import Area, area_of
from serving.front.buckets import Buckets, Level
from serving.front.refusals import Refusal
from serving.identity import identity_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Rates:
    """
    Tells everyone what is left of their minute (RateLimit headers, draft-ietf-httpapi-ratelimit-headers), and refuses beyond.

    :param per_minute: Requests per minute, where the key has no limit of its own; `None` means no limit.
    """

    def __init__(self, app: ASGIApp, *, per_minute: int | None) -> None:
        self.app = app
        self.per_minute = per_minute
        self.buckets = Buckets(seconds=60)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        counted = scope["type"] == "http" and area_of(scope) is Area.API  # the page alone asks for dozens of files
        identity = identity_of(scope) if counted else None
        size = (identity.requests_per_minute or self.per_minute) if identity else None
        if identity is None or size is None:
            await self.app(scope, receive, send)
            return
        level = self.buckets.take(f"{identity.tenant}/{identity.key_id or identity.user_id}", size=size)
        headers = _headers(level, size)
        if not level.allowed:
            raise Refusal(
                429,
                f"At most {size} requests per minute are allowed.",
                hint=f"Wait {level.wait} seconds.",
                headers={"Retry-After": str(level.wait), **headers},
            )

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        await self.app(scope, receive, telling)


def _headers(level: Level, size: int) -> dict[str, str]:
    return {"RateLimit-Policy": f'"minute";q={size};w=60', "RateLimit": f'"minute";r={level.remaining};t={level.wait}'}
