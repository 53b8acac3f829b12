"""The web page: Chainlit at `/chat`, the source viewer at `/sources`, and what guards both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse

from database.errors import ConfigurationError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

    from serving.service import Service


def install(app: FastAPI, service: Service) -> None:
    """
    Mount the page on an app.

    Chainlit is one per process, whatever is mounted: its settings are those of the first call. Users, conversations and
    answers come from each app's own service.

    :param app: Where `/chat` and `/sources` are added.
    :param service: Who signs users in, answers, and keeps conversations.
    :raises ConfigurationError: If Chainlit is not installed.
    """
    try:
        from serving.page.library import load_chainlit
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"The page needs Chainlit, but {exc.name} is not installed.",
            hint="pip install -r requirements-serve.txt",
        ) from exc

    from serving.page.door import PageDoor
    from serving.page.sessions import Sessions, session_secret
    from serving.page.sources import SourceViewer

    sessions = Sessions(session_secret(service.settings))
    app.add_route("/", _to_the_page, methods=["GET"], include_in_schema=False)
    app.mount("/chat", PageDoor(load_chainlit(), service, sessions), name="page")
    app.mount("/sources", SourceViewer(service, sessions), name="sources")


async def _to_the_page(request: Request) -> Response:
    return RedirectResponse(request.url_for("page", path="").path.rstrip("/"))
