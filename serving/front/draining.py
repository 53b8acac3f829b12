"""How the service leaves: no new work, and what is running comes to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.front.areas import Area, area_of
from serving.front.refusals import RETRY_AFTER, Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Drain:
    """Whether the service is leaving. `begin` is called when it is told to stop, before it closes its port."""

    def __init__(self) -> None:
        self.begun = False

    def begin(self) -> None:
        """From now on, `/ready` says no and new requests are sent away."""
        self.begun = True


class Draining:
    """
    Sends new requests away once the service is leaving; running ones never pass here again.

    :param drain: Tells whether it is.
    """

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self.app = app
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.drain.begun or scope["type"] == "lifespan" or area_of(scope) is Area.HEALTH:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1012})
        else:
            headers = {"Retry-After": str(RETRY_AFTER), "Connection": "close"}
            raise Refusal(503, "The service is stopping.", code="stopping", headers=headers)
