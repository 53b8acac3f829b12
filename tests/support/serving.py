"""
The running service: real HTTP on a free port, two tenants with documents of their own, users and keys.

    with running(server, owner_conninfo) as service:
        httpx.post(f"{service.url}/search", json={"question": "…"}, headers=service.headers("acme"))
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from config import Settings
from database.accounts import Accounts
from database.connection import Database
from database.embedded import EmbeddedServer
from database.tenancy import create_tenant, drop_tenant
from serving.app import build_app
from serving.server import Server, bound_socket
from serving.service import Service
from tests.support.answering import index_texts

Texts = Mapping[str, tuple[str, dict[str, Any]]]

TENANTS: dict[str, Texts] = {
    "acme": {
        "warranty.md": (
            "# Warranty\n\nDishwashers of Acme carry a warranty of 24 months. Keep the receipt in a drawer.",
            {"title": "Warranty", "lang": "en", "year": 2024},
        ),
        "acme-only.md": (
            "The secret colour of Acme is vermilion. Only employees of Acme know the secret colour.",
            {"title": "Colours", "lang": "en", "year": 2020},
        ),
    },
    "globex": {
        "warranty.md": (
            "# Warranty\n\nDishwashers of Globex carry a warranty of 36 months. Send the receipt to Globex.",
            {"title": "Warranty", "lang": "en", "year": 2023},
        ),
        "globex-only.md": (
            "The secret colour of Globex is turquoise. Only employees of Globex know the secret colour.",
            {"title": "Colours", "lang": "en", "year": 2021},
        ),
    },
}
"""What each tenant knows: a source of the same name and with other facts, and one of its own."""

USERS = ("alice", "bob")
PASSWORD = "correct horse battery"


@dataclass
class RunningService:
    """
    Where it is, and who may use it.

    :param url: Without a slash at its end.
    :param keys: API keys, by tenant and user.
    :param database: As the application's role sees it; `for_tenant` shows a tenant's rows.
    """

    url: str
    app: FastAPI
    service: Service
    settings: Settings
    database: Database
    server: Server
    keys: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)

    def headers(self, tenant: str = "acme", user: str = "alice") -> dict[str, str]:
        """What a request of a user's carries."""
        return {"Authorization": f"Bearer {self.keys[tenant, user]}"}


@contextmanager
def running(
    server: EmbeddedServer | None,
    owner_conninfo: str,
    *,
    auth: bool = True,
    page: bool = False,
    tenants: Mapping[str, Texts] = TENANTS,
    **settings: Any,
) -> Iterator[RunningService]:
    """
    Start the service in a thread, and take everything away again afterwards.

    :param server: The embedded server of the run, as the fixture `server` has it.
    :param owner_conninfo: As the fixture of that name.
    :param auth: As in `build_app`.
    :param page: Likewise.
    :param tenants: Their documents.
    :param settings: Whatever else `Settings` takes, such as `llm_base_url`.
    """
    conninfo = server.conninfo() if server else owner_conninfo
    owner, database = Database(owner_conninfo), Database(conninfo, server=server)
    with tempfile.TemporaryDirectory(prefix="synapse-serving-") as home:
        chosen = Settings(**{"database_url": conninfo, "home": Path(home), "requests_per_minute": None, **settings})
        keys = _fill(owner, database, tenants)
        app = build_app(chosen, auth=auth, page=page)
        try:
            with _listening(app, drain_seconds=chosen.drain_seconds) as (url, http_server):
                yield RunningService(url, app, app.state.service, chosen, database, http_server, keys)
        finally:
            for tenant in tenants:
                drop_tenant(owner, tenant)
            owner.close()
            database.close()


def _fill(owner: Database, database: Database, tenants: Mapping[str, Texts]) -> dict[tuple[str, str], str]:
    accounts, keys = Accounts(database), {}
    for tenant, texts in tenants.items():
        create_tenant(owner, tenant)
        index_texts(database.for_tenant(tenant), texts)
        for user in USERS:
            accounts.create_user(tenant, user, password=PASSWORD)
            keys[tenant, user], _ = accounts.create_key(tenant, user, label="tests")
    return keys


@contextmanager
def _listening(app: FastAPI, *, drain_seconds: float) -> Iterator[tuple[str, Server]]:
    server, sock = Server(app, drain_seconds=drain_seconds), bound_socket("127.0.0.1", 0)
    port = sock.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([sock],), name="synapse-test-server", daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        assert time.monotonic() < deadline, "the service was not ready after 60 s"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.stop()
        thread.join(timeout=drain_seconds + 20)
        assert not thread.is_alive(), "the service did not stop"
