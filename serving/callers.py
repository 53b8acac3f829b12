"""Whom a request is worked on for."""

from __future__ import annotations

from database.accounts import Identity
from serving.front.refusals import Refusal
from serving.identity import current


def caller() -> Identity:
    """
    The identity of the request that is being worked on.

    :raises Refusal: If the front let a request through without one, which it does for no route that asks.
    """
    identity = current.get()
    if identity is None:
        raise Refusal(401, "An API key was expected.", hint="Send it as Authorization: Bearer KEY.")
    return identity
