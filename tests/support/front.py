"""A small app behind the real front, for tests of the front alone: its routes do what routes do, no database behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI, Request
from pydantic import BaseModel

from config import Settings
from database.accounts import Identity
from database.connection import Database
from serving import front

ANNA = Identity(tenant="acme", user_id=UUID(int=1), user_name="anna", key_id=UUID(int=0xABC << 100))
BERT = Identity(tenant="default", user_id=UUID(int=2), user_name="bert", key_id=UUID(int=0xDEF << 100))
KEYS = {"synapse_acme.anna": ANNA, "synapse_default.bert": BERT}
AS_ANNA = {"Authorization": "Bearer synapse_acme.anna"}
AS_BERT = {"Authorization": "Bearer synapse_default.bert"}


class Question(BaseModel):
    question: str
    top_k: int = 10


@dataclass
class FrontAccounts:
    """The accounts of the tests' service: `KEYS`, or what a test puts in their place."""

    lookup: Callable[[str], Identity | None] = KEYS.get
    asked: list[str] = field(default_factory=list)

    async def authenticate_key_async(self, text: str) -> Identity | None:
        self.asked.append(text)
        return self.lookup(text)

    def ensure_user(self, tenant: str, name: str) -> Identity:
        return Identity(tenant=tenant, user_id=UUID(int=3), user_name=name)


@dataclass
class FrontService:
    """What the front needs of a service."""

    settings: Settings = field(default_factory=Settings)
    accounts: FrontAccounts = field(default_factory=FrontAccounts)
    found: dict[str, Any] = field(default_factory=lambda: {"database": True, "schema": True, "model": True})

    database: Database = field(default_factory=lambda: Database("host=127.0.0.1 port=1 user=nobody"))

    uploads: Any = field(default_factory=lambda: SimpleNamespace(_turns={}))

    async def ready(self) -> dict[str, Any]:
        return self.found


def small_app(service: FrontService | None = None, *, auth: bool = True, **settings: Any) -> FastAPI:
    """An app of four routes behind the whole front; tests add what else they need before the first request."""
    app = FastAPI(openapi_url=None)

    @app.get("/whoami")
    async def whoami(request: Request) -> dict[str, Any]:
        identity = request.state.identity
        return {"tenant": identity.tenant, "user": identity.user_name}

    @app.post("/ask")
    async def ask(given: Question) -> dict[str, Any]:
        return {"answer": given.question}

    @app.get("/documents/{source:path}")
    async def document(source: str) -> dict[str, Any]:
        return {"source": source}

    @app.post("/v1/chat/completions")
    async def complete(given: Question) -> dict[str, Any]:
        return {"answer": given.question}

    front.install(app, service or FrontService(Settings(**settings)), auth=auth)  # type: ignore[arg-type]
    return app


def client_of(app: FastAPI, *, address: str = "127.0.0.1", **options: Any) -> httpx.AsyncClient:
    """A client of an app in this process."""
    transport = httpx.ASGITransport(app=app, client=(address, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", **options)
