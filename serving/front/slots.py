"""How many requests are worked on at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.front.areas import Area, area_of
from serving.front.refusals import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

RETRY_AFTER = 2


class Slots:
    """
    Sends those away that come while all slots are taken: waiting in line would only make everyone late.

    The page's own requests take none: they ask for files, or wait for news.

    :param most: Requests at once.
    """

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self.app = app
        self.most = most
        self.taken = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or area_of(scope) is not Area.API:
            await self.app(scope, receive, send)
            return
        if self.taken >= self.most:
            raise Refusal(
                503,
                f"The service works on {self.most} requests already.",
                code="busy",
                hint=f"Come back in {RETRY_AFTER} seconds.",
                headers={"Retry-After": str(RETRY_AFTER)},
            )
        self.taken += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.taken -= 1
