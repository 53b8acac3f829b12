"""
Who is asking. Nothing of the API works without a key; what may be reached without one is listed in `front.areas`.

Keys are looked up with every request, in one round trip, and never remembered: a key that is revoked is refused from the
next request on.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from serving.front.areas import Area, area_of
from serving.front.buckets import Buckets
from serving.front.refusals import Refusal
from serving.identity import client_address, current

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from database.accounts import Identity

ATTEMPTS_PER_MINUTE = 20
"""Keys that one address may get wrong per minute."""

FAILURE_SECONDS = 0.1
"""A refusal takes at least this long, whether a key is malformed, unknown, revoked or another tenant's."""

LONGEST_KEY = 200
"""Characters; a longer text is no key and is not looked up."""

KNOWN_KEYS = 10_000

Lookup = Callable[[str], Awaitable["Identity | None"]]
Everyone = Callable[[], Awaitable["Identity"]]


class Authentication:
    """
    Finds the identity of a request, or refuses it.

    :param lookup: Finds the identity of a key.
    :param local: Finds the identity of everyone, where the service asks for no keys; `None` means that it does.
    """

    def __init__(self, app: ASGIApp, *, lookup: Lookup, local: Everyone | None) -> None:
        self.app = app
        self.lookup = lookup
        self.local = local
        self.failures = Buckets()
        self._worked: OrderedDict[bytes, None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        area = area_of(scope)
        if area is Area.HEALTH:
            await self.app(scope, receive, send)
        elif area is Area.PAGE and self.local is None:
            await self.app(scope, receive, send)  # it has logins and sessions of its own
        elif area is Area.API and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # nothing of the API speaks it
        else:
            identity = await (self.local() if self.local else self._identified(scope))
            scope.setdefault("state", {})["identity"] = identity
            token = current.set(identity)
            try:
                await self.app(scope, receive, send)
            finally:
                current.reset(token)

    async def _identified(self, scope: Scope) -> Identity:
        text, began = key_of(scope), time.monotonic()
        digest = hashlib.sha256((text or "").encode()).digest()
        address = client_address(scope)
        if digest not in self._worked:  # whoever has a good key is not locked out by a neighbour who guesses
            self._require_attempts(address)
        identity = await self.lookup(text) if text else None
        if identity is not None:
            self._remember(digest)
            return identity
        self._worked.pop(digest, None)
        self.failures.take(address, size=ATTEMPTS_PER_MINUTE)
        await asyncio.sleep(began + FAILURE_SECONDS - time.monotonic())
        raise Refusal(
            401,
            "A valid API key was expected.",
            hint="Send it as Authorization: Bearer synapse_…; `python synapse.py keys create` makes one.",
            headers={"WWW-Authenticate": 'Bearer realm="synapse"', "Connection": "close"},
        )

    def _require_attempts(self, address: str) -> None:
        level = self.failures.look(address, size=ATTEMPTS_PER_MINUTE)
        if not level.allowed:
            raise Refusal(
                429,
                "Too many wrong keys came from this address.",
                hint=f"Wait {level.wait} seconds.",
                headers={"Retry-After": str(level.wait), "Connection": "close"},
            )

    def _remember(self, digest: bytes) -> None:
        self._worked[digest] = None
        self._worked.move_to_end(digest)
        if len(self._worked) > KNOWN_KEYS:
            self._worked.popitem(last=False)


def key_of(scope: Scope) -> str | None:
    """The key of a request, from `Authorization: Bearer …` or `X-Api-Key`; `None` without one that could be looked up."""
    given: dict[bytes, bytes] = {
        name: value for name, value in scope["headers"] if name in (b"authorization", b"x-api-key")
    }
    kind, _, credentials = given.get(b"authorization", b"").partition(b" ")
    raw = credentials.strip() if kind.lower() == b"bearer" else given.get(b"x-api-key", b"").strip()
    if not 0 < len(raw) <= LONGEST_KEY or not raw.isascii():
        return None
    return raw.decode("ascii")
