"""Which part of the service a path belongs to: one answer for authentication, limits, headers and errors."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from starlette._utils import get_route_path

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import Scope

HEALTH_PATHS = frozenset({"/live", "/ready"})
PAGE_PREFIXES = ("/chat", "/sources")
OPENAI_PREFIX = "/v1"


class Area(Enum):
    """
    What rules hold.

    `HEALTH` answers everyone, at once. `PAGE` has a login and sessions of its own; `/` leads there. `API` is everything else: also what
    does not exist, so that a stranger learns nothing about routes.
    """

    HEALTH = "health"
    PAGE = "page"
    API = "api"


def area_of(scope: Scope) -> Area:
    """
    The area of a request.

    The path is taken as the router takes it (decoded, without the root path), as a rule that read it otherwise could be
    talked round.
    """
    path = get_route_path(scope)
    if path in HEALTH_PATHS:
        return Area.HEALTH
    return Area.PAGE if path == "/" or any(_is_below(path, prefix) for prefix in PAGE_PREFIXES) else Area.API


def speaks_openai(scope: Scope) -> bool:
    """Whether the caller expects errors in OpenAI's form."""
    return _is_below(get_route_path(scope), OPENAI_PREFIX)


def note_route(scope: Scope, plain: Collection[str]) -> None:
    """
    Note the route of a request whose path is all there is to tell. Before routing: mounted apps change a request's paths.

    :param plain: The paths of routes that are no templates.
    """
    path = get_route_path(scope)
    page = next((prefix for prefix in PAGE_PREFIXES if _is_below(path, prefix)), None)
    scope.setdefault("state", {})["route"] = page or (path if path in plain else None)


def route_of(scope: Scope) -> str:
    """
    The template of the route that took a request, such as `/documents/{source}`: a path may hold a document's name.

    :returns: `-` where no route did.
    """
    noted = scope.get("state", {}).get("route")
    return noted or getattr(scope.get("route"), "path", None) or "-"


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")
