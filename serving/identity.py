"""Who is asking: what the front found out, and every room behind it may read."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope

    from database.accounts import Accounts, Identity

LOCAL_USER = "local"
"""The user of a service that asks for no keys."""

current: ContextVar[Identity | None] = ContextVar("identity", default=None)
"""The identity of the request that is being worked on; `None` outside of one, and on routes that ask for no key."""


class LocalUser:
    """
    The user of a service that asks for no keys: made with the first request, and found again after a restart.

    :param accounts: Where users are.
    :param tenant: Whose documents the service shows.
    """

    def __init__(self, accounts: Accounts, tenant: str) -> None:
        self._accounts = accounts
        self._tenant = tenant
        self._identity: Identity | None = None

    async def identity(self) -> Identity:
        """
        Who everyone is.

        :raises DatabaseError: If nobody could be found or made; the next request tries again.
        """
        if self._identity is None:
            self._identity = await asyncio.to_thread(self._accounts.ensure_user, self._tenant, LOCAL_USER)
        return self._identity


def identity_of(scope: Scope) -> Identity | None:
    """The identity of a request's scope; `None` before it is known."""
    found: Identity | None = scope.get("state", {}).get("identity")
    return found


def client_address(scope: Scope) -> str:
    """The client's address, as the server or a trusted proxy tells it; of IPv6 its /64, which one host owns whole."""
    client = scope.get("client")
    host = str(client[0]) if client else "unknown"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(IPv6Network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)
