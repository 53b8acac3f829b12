"""The service on a primary and its standby: what was uploaded is found, and searches go on while the primary is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.serving import RunningService, running
from tests.support.standby import Pair, pair

pytestmark = pytest.mark.slow

COLOUR = {"question": "What is the secret colour of Acme?"}
LIGHTHOUSE = {"question": "How tall is the lighthouse of Kap Arkona?"}


@pytest.fixture(scope="module")
def servers(short_folder: Path) -> Iterator[Pair]:
    with pair(short_folder / "serving") as made:
        yield made


@pytest.fixture(scope="module")
def service(servers: Pair) -> Iterator[RunningService]:
    urls = {"database_url": servers.url, "database_read_url": servers.read_url, "database_max_lag_seconds": 2.0}
    with running(None, servers.primary.tcp(), **urls) as found:
        yield found


@pytest.fixture
def client(service: RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, headers=service.headers("acme"), timeout=30) as found:
        eventually(lambda: search(found, COLOUR) and reads(service, "standby", "fresh"))
        yield found


def eventually(condition: Callable[[], Any], *, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def search(client: httpx.Client, question: dict[str, str]) -> str:
    found = client.post("/search", json=question)
    assert found.status_code == 200, found.text
    return found.text


def reads(service: RunningService, server: str, why: str) -> int:
    replica = service.service.database.replica
    assert replica is not None
    return replica.reads[server, why]


def test_what_was_uploaded_is_found_at_once(servers: Pair, service: RunningService, client: httpx.Client) -> None:
    """Although the standby has nothing of it."""
    servers.standby.execute("SELECT pg_wal_replay_pause()")
    try:
        text = b"The lighthouse of Kap Arkona is 35 metres tall, and was built of brick."
        taken = client.post("/documents", files={"files": ("lighthouse.txt", text)})
        assert taken.status_code == 202, taken.text
        job = f"/documents/jobs/{taken.json()['id']}"
        eventually(lambda: client.get(job).json()["stage"] in ("done", "failed"))
        assert "35 metres" in search(client, LIGHTHOUSE)
    finally:
        servers.standby.execute("SELECT pg_wal_replay_resume()")
    before = reads(service, "standby", "fresh")
    eventually(lambda: "35 metres" in search(client, LIGHTHOUSE) and reads(service, "standby", "fresh") > before)


def test_searches_go_on_while_the_primary_is_away(servers: Pair, service: RunningService, client: httpx.Client) -> None:
    servers.primary.kill()
    try:
        for _ in range(5):
            began = time.monotonic()
            assert "vermilion" in search(client, COLOUR)
            assert time.monotonic() - began < 3
        assert client.post("/ask", json=COLOUR).status_code == 503
        unready = client.get("/ready")
        assert (unready.status_code, unready.json()["database"], unready.json()["standby"]) == (503, False, True)
        assert (
            httpx.post(f"{service.url}/search", json=COLOUR, headers={"Authorization": "Bearer x"}).status_code == 401
        )
    finally:
        servers.primary.go_on()
    eventually(lambda: client.post("/ask", json=COLOUR).status_code == 200)
    eventually(lambda: client.get("/ready").status_code == 200)
    assert client.get("/ready").json()["standby"]
    answer = client.post("/ask", json=COLOUR)
    assert "vermilion" in answer.text
