"""Who is signed in: a signed cookie, and patience with wrong passwords."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from uuid import UUID

from database.accounts import Identity
from database.errors import DatabaseError, NotFoundError, UnknownTenantError

if TYPE_CHECKING:
    from config import Settings
    from serving.service import Service

COOKIE = "synapse_session"
LIFETIME = 12 * 3600
"""Seconds that somebody stays signed in."""

WINDOW = 300.0
"""Seconds within which wrong passwords are counted."""

TRIES, TRIES_OF_LOGIN, TRIES_OF_ADDRESS = 5, 25, 100
"""Wrong passwords of one login from one address, of one login, and of one address; then they wait. The first is the
smallest, so that a stranger's tries lock nobody out who comes from elsewhere; the last is for an office behind one address.
"""

CHECKED = 60.0
"""Seconds for which a user who was there is taken to be there."""

REMEMBERED = 10_000
"""Sessions that were ended, and logins that went wrong, which are kept in memory."""


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """
    Whom a request of the page comes from.

    :param identity: Whose documents and conversations.
    :param session: The session's own name; empty where nobody had to sign in.
    :param service: The service that the request was sent to.
    :param is_gone: Whether the session was ended after the request, which may be a connection that lasts.
    """

    identity: Identity
    session: str
    service: Service
    is_gone: Callable[[], bool] = lambda: False

    @property
    def login(self) -> str:
        """The name to sign in with, which Chainlit knows its user by."""
        return f"{self.identity.user_name}@{self.identity.tenant}"


_seen: OrderedDict[str, float] = OrderedDict()
current: ContextVar[Visitor] = ContextVar("synapse_page_visitor")
"""Set around whatever Chainlit does for a request; the tasks that it starts inherit it."""


def session_secret(settings: Settings) -> bytes:
    """The key that signs sessions: the settings', or one that is made once and kept in `home` for nobody else to read."""
    if settings.page_secret:
        return settings.page_secret.encode()
    path = settings.home / "page_secret"
    settings.home.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        partial = path.with_name(f"page_secret.{os.getpid()}")
        with open(os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            file.write(secrets.token_hex(32).encode())
        try:
            os.link(partial, path)  # refused where another process was first
        finally:
            partial.unlink()
    return path.read_bytes()


class Sessions:
    """
    Makes, checks and ends sessions. What is in the cookie is readable, but cannot be changed.

    :param secret: The key that signs them.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hashlib.sha256(b"synapse page session" + secret).digest()
        self._ended: OrderedDict[str, float] = OrderedDict()

    def start(self, identity: Identity) -> str:
        """The text of a cookie for a user who has just signed in."""
        told = {
            "tenant": identity.tenant,
            "user": str(identity.user_id),
            "name": identity.user_name,
            "until": int(time.time()) + LIFETIME,
            "session": secrets.token_urlsafe(12),
        }
        body = base64.urlsafe_b64encode(json.dumps(told).encode()).decode()
        return f"{body}.{self._signature(body)}"

    def read(self, text: str | None) -> tuple[Identity, str] | None:
        """Whom a cookie's text belongs to, and the session's name; `None` where it is forged, ended or too old."""
        body, _, signature = (text or "").partition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(body).encode()):
            return None
        told: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body))
        if told["until"] < time.time() or told["session"] in self._ended:
            return None
        identity = Identity(tenant=told["tenant"], user_id=UUID(told["user"]), user_name=told["name"])
        return identity, told["session"]

    def end(self, text: str | None) -> None:
        """Let a session be none from now on, also for whoever has copied its cookie."""
        if found := self.read(text):
            self._ended[found[1]] = time.time()
            while len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)

    def is_over(self, session: str) -> bool:
        """Whether a session was ended since its connection was opened."""
        return session in self._ended

    def _signature(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()


async def is_still_there(visitor: Visitor) -> bool:
    """Whether the user of a session still exists; asked for at most once a minute. A database that is away decides nothing."""
    if not visitor.session or time.monotonic() - _seen.get(visitor.session, -CHECKED) < CHECKED:
        return True
    service, identity = visitor.service, visitor.identity
    try:
        found = await service.in_thread(service.accounts.identity, identity.tenant, identity.user_name)
    except (NotFoundError, UnknownTenantError):
        return False
    except DatabaseError:
        return True
    if found.user_id != identity.user_id:  # a new user of an old name
        return False
    _seen[visitor.session] = time.monotonic()
    while len(_seen) > REMEMBERED:
        _seen.popitem(last=False)
    return True


class Patience:
    """Counts wrong passwords, by login and by address, so that nobody tries them all."""

    def __init__(self) -> None:
        self._failures: OrderedDict[tuple[str, str], list[float]] = OrderedDict()

    def wait(self, login: str, address: str) -> float:
        """Seconds until the next try is allowed; 0 means now."""
        return max(self._left(key, tries) for key, tries in _counted(login, address).items())

    def failed(self, login: str, address: str) -> None:
        """Remember a wrong password."""
        for key in _counted(login, address):
            self._failures[key] = [*self._recent(key), time.monotonic()]
            self._failures.move_to_end(key)
        while len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)

    def succeeded(self, login: str, address: str) -> None:
        """Take the last one back, and forget those of this login from this address."""
        for key in _counted(login, address):
            self._failures[key] = self._failures.get(key, [])[:-1]
        self._failures.pop((login, address), None)

    def _left(self, key: tuple[str, str], tries: int) -> float:
        recent = self._recent(key)
        return 0.0 if len(recent) < tries else max(0.0, recent[-tries] + WINDOW - time.monotonic())

    def _recent(self, key: tuple[str, str]) -> list[float]:
        return [at for at in self._failures.get(key, []) if at > time.monotonic() - WINDOW]


def _counted(login: str, address: str) -> dict[tuple[str, str], int]:
    return {(login, address): TRIES, (login, ""): TRIES_OF_LOGIN, ("", address): TRIES_OF_ADDRESS}


def cookies(headers: Mapping[str, str]) -> dict[str, str]:
    """The cookies of a request; of a malformed header, none."""
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}
