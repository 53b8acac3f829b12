"""The page of a service that asks for no login: whoever reaches it is the local user."""

from __future__ import annotations

import httpx

from database.embedded import EmbeddedServer
from tests.support.serving import TENANTS, running


def test_nobody_has_to_sign_in(server: EmbeddedServer | None, owner_conninfo: str) -> None:
    texts = {"hooli": TENANTS["acme"]}
    with running(server, owner_conninfo, page=True, auth=False, tenants=texts, tenant="hooli") as service:
        user = httpx.get(f"{service.url}/chat/user").raise_for_status().json()
        answer = httpx.post(f"{service.url}/ask", json={"question": "How long is the warranty of dishwashers?"}).json()
        source = httpx.get(f"{service.url}/sources/{answer['message_id']}/1")

    assert user["identifier"] == "local@hooli"
    assert "24 months" in source.text
