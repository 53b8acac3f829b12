"""The service's application, put together: Hayhooks' app with our routes, MCP, the front before them and the page beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from serving.front import install as install_front
from serving.hayhooks_host import bare_app
from serving.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

    from config import Settings

DESCRIPTION = """\
Answers from your own documents, with citations. Every route asks for an API key: `Authorization: Bearer KEY`.
"""


def build_app(settings: Settings, *, auth: bool = True, page: bool = True, service: Service | None = None) -> FastAPI:
    """
    The whole service as an ASGI application.

    :param settings: Which database, which models, which limits.
    :param auth: Whether routes ask for a key; without, everyone is the same local user.
    :param page: Whether the web page is served, too.
    :param service: What does the work; `None` means one of its own. The app's lifespan starts and closes it.
    """
    service = service or Service(settings)
    sources = f"{settings.public_url or ''}/sources" if page else None
    app = bare_app(_wrappers(service, sources_url=sources))
    app.title, app.description, app.version = "Synapse", DESCRIPTION, "1"
    app.state.service = service
    _include_routes(app)
    from serving.mcp import mcp_endpoint

    endpoint = mcp_endpoint(service)
    app.router.routes.append(endpoint.route)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        async with endpoint.running():
            yield
        await service.close()

    app.router.lifespan_context = lifespan
    if page:
        from serving.page import install as install_page  # needs Chainlit, which may be left out

        install_page(app, service)
    install_front(app, service, auth=auth)
    return app


def _wrappers(service: Service, *, sources_url: str | None) -> dict[str, Any]:
    from serving.routes.asking import ANSWERING, SEARCHING
    from serving.wrappers.answering import AnsweringWrapper
    from serving.wrappers.searching import SearchingWrapper

    return {ANSWERING: AnsweringWrapper(service, sources_url=sources_url), SEARCHING: SearchingWrapper(service)}


def _include_routes(app: FastAPI) -> None:
    from serving.routes import asking, conversations, documents, openai

    for module in (asking, documents, conversations, openai):
        app.include_router(module.router)
