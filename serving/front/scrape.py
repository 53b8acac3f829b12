"""
The route `/metrics`, for Prometheus.

It asks for a key like every other route, also on loopback: behind a proxy on the same machine, everybody comes from
there. The key is one of the service's own tenant: what all tenants do together is the operator's to know.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response
from starlette.routing import Route

from serving.front.refusals import Refusal
from serving.identity import identity_of
from serving.observability.metrics import exposition

if TYPE_CHECKING:
    from starlette.requests import Request

    from serving.service import Service


def scrape_route(service: Service) -> Route:
    """The route of a service."""

    async def metrics(request: Request) -> Response:
        identity = identity_of(request.scope)
        if identity is None or identity.tenant != service.settings.tenant:
            raise Refusal(403, "Metrics are shown to keys of the service's own tenant alone.")
        jobs = sum(map(len, list(service.uploads._turns.values())))
        text = await asyncio.to_thread(exposition, service.database, upload_jobs=jobs)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", metrics)
