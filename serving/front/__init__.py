"""
What stands before every route, outermost first. The order is the point:

1. `RequestLog`       names the request; sees every answer, also refusals, and notes each once.
2. `SecurityHeaders`  for every answer, also refusals.
3. `TracedRequests`   a span around all that follows; absent without a collector.
4. `CORSMiddleware`   answers preflights of the origins that are named; absent where none is.
5. `Errors`           turns what anything behind it raises into an answer.
6. `Draining`         sends new requests away while the service stops.
7. `Origins`          refuses foreign web pages, before anything is read or looked up.
8. `Bodies`           counts what comes in; nothing has been read before it.
9. `Authentication`   nobody gets further without a key, and strangers take no slots.
10. `Rates`           needs to know who asks.
11. `Lifeline`        gives up on what takes too long, and on clients that left.
12. `Slots`           innermost, so that a slot is taken exactly as long as a route works.

All are plain ASGI: Starlette's BaseHTTPMiddleware would break streams, context variables and cancelling. What a route
raises, and what `Bodies` raises while a route reads, reaches `Errors` or the router's own handlers, which answer alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from serving.observability.traces import Traces
    from serving.service import Service


def install(app: FastAPI, service: Service, *, auth: bool = True) -> None:
    """
    Put the front before an app, and add its own routes.

    :param app: With all its routes; middlewares that others added stay innermost.
    :param service: Whose accounts know the keys.
    :param auth: Whether a key is asked for; without, everyone is the same local user.
    """
    from starlette.middleware.cors import CORSMiddleware

    from serving.front.authentication import Authentication
    from serving.front.bodies import UPLOAD_ROOM, Bodies
    from serving.front.draining import Drain, Draining
    from serving.front.errors import Errors, install_handlers
    from serving.front.headers import SecurityHeaders
    from serving.front.health import Health
    from serving.front.lifeline import Lifeline
    from serving.front.origins import LOOPBACK, Origins, allowed_origins, origin_of
    from serving.front.rates import Rates
    from serving.front.request_log import RequestLog
    from serving.front.scrape import scrape_route
    from serving.front.slots import Slots
    from serving.identity import LocalUser

    settings = service.settings
    origins = allowed_origins(settings.cors_origins)
    local = None if auth else LocalUser(service.accounts, settings.tenant).identity
    app.state.drain = Drain()
    app.router.routes[:0] = [*Health(service, app.state.drain).routes(), scrape_route(service)]
    install_handlers(app)

    # Each is put before those that are there: the innermost comes first.
    app.add_middleware(Slots, most=settings.max_concurrent)
    app.add_middleware(Lifeline, seconds=settings.request_timeout)
    app.add_middleware(Rates, per_minute=settings.requests_per_minute)
    app.add_middleware(Authentication, lookup=service.accounts.authenticate_key_async, local=local)
    app.add_middleware(Bodies, most=settings.max_body_bytes, most_upload=settings.max_file_bytes + UPLOAD_ROOM)
    app.add_middleware(Origins, allowed=[*origins, *origin_of(settings.public_url)], hosts=None if auth else LOOPBACK)
    app.add_middleware(Draining, drain=app.state.drain)
    app.add_middleware(Errors)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=[
                *("Authorization", "Content-Type", "X-Api-Key", "X-Request-Id", "X-Session-Id"),
                *("Mcp-Session-Id", "Mcp-Protocol-Version"),
            ],
            expose_headers=["X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy", "Mcp-Session-Id"],
        )
    if settings.otlp_endpoint:
        _trace(app, settings.otlp_endpoint)
    app.add_middleware(SecurityHeaders, https=(settings.public_url or "").startswith("https://"))
    app.add_middleware(RequestLog, plain=_plain_paths(app))


def _plain_paths(app: FastAPI) -> frozenset[str]:
    """The paths of Starlette's own routes, which leave no template behind; without those that have parameters."""
    paths = (getattr(route, "path", "") for route in app.router.routes)
    return frozenset(path for path in paths if path and "{" not in path)


def _trace(app: FastAPI, endpoint: str) -> None:
    from serving.observability.traces import TracedRequests, Traces

    traces = app.state.traces = Traces(endpoint)
    app.add_middleware(TracedRequests, tracer=traces.tracer)
    app.router.lifespan_context = _closing(app, traces)


def _closing(app: FastAPI, traces: Traces) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """The app's lifespan, at whose end the last spans are sent."""
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(given: Any) -> AsyncIterator[Any]:
        try:
            async with inner(given) as state:
                yield state
        finally:
            await asyncio.to_thread(traces.close)

    return lifespan
