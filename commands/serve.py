"""`serve`: the chat service, until it is told to stop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from commands.output import errors_reported, note, say
from database.errors import FAILED, ConfigurationError, GuardError, InvalidInputError

if TYPE_CHECKING:
    from config import Settings
    from database.connection import Database

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; SERVE_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Its port, 0 a free one; SERVE_PORT.")
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask nobody for a key or a password; on this machine alone.")
    ] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="Leave the web page out.")] = False,
) -> None:
    """Serve the documents: OpenAI's protocol, REST, MCP and a web page."""
    with errors_reported(False):
        from config import Settings

        settings = _settings(Settings.from_env(), host=host, port=port)
        if no_auth and settings.serve_host not in LOOPBACK:
            raise InvalidInputError(
                f"--no-auth was expected on this machine alone (127.0.0.1), but the host is {settings.serve_host}.",
                hint="Leave one of the two out: whoever reaches the port would read every document.",
            )
        _require_packages()
        from serving.server import bound_socket

        sock = bound_socket(settings.serve_host, settings.serve_port)
        _check(settings, auth=not no_auth)
        forced = _serve(settings, sock, auth=not no_auth, page=not no_page)
    if forced:
        raise typer.Exit(FAILED)


def _settings(settings: Settings, *, host: str | None, port: int | None) -> Settings:
    from dataclasses import replace

    return replace(
        settings,
        serve_host=settings.serve_host if host is None else host,
        serve_port=settings.serve_port if port is None else port,
    )


def _require_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("hayhooks", "mcp", "prometheus_client", "argon2") if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"The service needs packages that are not installed: {', '.join(missing)}.",
            hint="pip install -r requirements-serve.txt (or run `make serve`, which does).",
        )


def _check(settings: Settings, *, auth: bool) -> None:
    """Refuse to start where nobody could use it, or where it would show one tenant's documents to another."""
    from database.connection import open_database
    from database.tenancy import require_bound

    database = open_database(settings)
    require_bound(database)
    if auth and not _anyone_may_enter(database, first=settings.tenant):
        raise GuardError(
            "A user with a key or a password was expected, but there is none.",
            hint="Run `python synapse.py users create NAME --password` for the page, and then "
            "`python synapse.py keys create NAME` for the API; or serve with --no-auth on this machine alone.",
        )


def _anyone_may_enter(database: Database, *, first: str) -> bool:
    from database.accounts import Accounts
    from database.tenancy import list_tenants

    accounts = Accounts(database)
    tenants = sorted((tenant.name for tenant in list_tenants(database)), key=lambda name: (name != first, name))
    return any(
        any(user.has_password for user in accounts.list_users(tenant))
        or any(key.revoked_at is None for key in accounts.list_keys(tenant))
        for tenant in tenants
    )


def _serve(settings: Settings, sock: object, *, auth: bool, page: bool) -> bool:
    """Serve until a signal; whether it took two."""
    import socket

    note("Loading …")
    from serving.app import build_app
    from serving.observability import logs
    from serving.server import Server

    assert isinstance(sock, socket.socket)
    logs.configure()
    app = build_app(settings, auth=auth, page=page)
    app.state.service.assistant(settings.tenant).warm_up()
    host, number = sock.getsockname()[:2]
    address = settings.public_url or f"http://{f'[{host}]' if ':' in host else host}:{number}"

    def started() -> None:
        for line in _places(address, auth=auth, page=page):
            say(line)
        sys.stdout.flush()  # whoever waits for it may read a pipe

    server = Server(app, drain_seconds=settings.drain_seconds, on_started=started)
    server.run(sockets=[sock])
    return server.was_forced


def _places(address: str, *, auth: bool, page: bool) -> list[str]:
    lines = [
        f"API     {address}/v1 for OpenAI's clients (model synapse), and {address}/ask, /search, /documents",
        f"MCP     {address}/mcp",
        f"OpenAPI {address}/openapi.json",
    ]
    if page:
        lines.insert(0, f"Page    {address}/chat")
    if not auth:
        lines.append("No key is asked for: whoever uses this machine reads every document.")
    return [*lines, "Ctrl-C stops it: once, when running answers have ended; twice, at once."]
