"""
The service's API on Vercel: an ASGI application, made when an instance starts.

It keeps nothing on disk and nothing running between requests: no page, no uploads, no MCP sessions; see docs/vercel.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("SYNAPSE_HOME", "/tmp/synapse")  # the only place that can be written to, and empty

from config import Settings
from database import connection
from database.errors import ConfigurationError
from serving.app import build_app
from serving.front.refusals import Refusal

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

# Many instances share one pooler: each keeps no connection that it does not use, and few that it does.
connection.POOL_LEAST, connection.POOL_SIZE = 0, 4

LEFT_OUT = {
    "/documents": ("POST",),
    "/documents/jobs/{id}": ("GET",),
    "/documents/{source:path}": ("DELETE",),
    "/mcp": ("GET", "POST", "DELETE"),
}
"""What indexes in the background, which ends with the request here, and what keeps a session in one process."""


def checked(settings: Settings) -> Settings:
    """
    Settings that work without a disk and without a model in the process.

    :raises ConfigurationError: If there is no database or no server for embeddings.
    """
    for name in ("database_url", "embedding_base_url"):
        if not getattr(settings, name):
            raise ConfigurationError(
                f"{name.upper()} was expected in the environment of the deployment, but is not set.",
                hint="There is no embedded PostgreSQL and no embedding model here: docs/vercel.md.",
            )
    return settings


def without(app: FastAPI) -> FastAPI:
    """The app, with a refusal before each route that needs a disk, a background or a session."""
    app.router.routes[:0] = [Route(path, _refuse, methods=list(methods)) for path, methods in LEFT_OUT.items()]
    return app


async def _refuse(_: Request) -> Response:
    raise Refusal(404, "This deployment answers questions alone: documents are indexed elsewhere.")


app = without(build_app(checked(Settings.from_env()), page=False))
