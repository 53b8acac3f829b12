"""Whether the process lives, and whether it can answer: for those who send it requests, and start it again."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.routing import Route

from serving.front.refusals import RETRY_AFTER

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from serving.front.draining import Drain
    from serving.service import Service

FRESH = 1.0
"""Seconds that an answer of `/ready` holds: anyone may ask, and each time would cost a round trip."""

NOT_NEEDED = ("stopping", "standby")
"""What is told, and is no reason not to be sent requests; without a standby, the primary is read."""


class Health:
    """
    The routes `/live` and `/ready`. They need no key, and tell in words of yes and no.

    :param service: Knows what works.
    :param drain: Knows whether the service is leaving.
    """

    def __init__(self, service: Service, drain: Drain) -> None:
        self._service = service
        self._drain = drain
        self._lock = asyncio.Lock()
        self._found: dict[str, Any] = {}
        self._asked = float("-inf")

    def routes(self) -> list[Route]:
        """To stand before every other."""
        return [Route("/live", self.live), Route("/ready", self.ready)]

    async def live(self, _: Request) -> Response:
        """The process answers."""
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """The primary is there, its schema fits, the models are loaded, and the service is not leaving."""
        async with self._lock:
            if time.monotonic() - self._asked > FRESH:
                self._found = await self._service.ready()
                self._asked = time.monotonic()
        parts = {name: value is True for name, value in self._found.items()} | {"stopping": self._drain.begun}
        ready = all(value for name, value in parts.items() if name not in NOT_NEEDED) and not self._drain.begun
        headers = {} if ready else {"Retry-After": str(RETRY_AFTER)}
        return JSONResponse({"ready": ready, **parts}, 200 if ready else 503, headers)
