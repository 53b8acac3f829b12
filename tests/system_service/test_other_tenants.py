"""More than 1,000 attempts to see or change what is another tenant's: none succeeds, and the victim's rows stay as they were."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import httpx
import psycopg
import pytest
from haystack import Document

from benchmarks.serving_client import Client
from benchmarks.serving_process import Ground, ServiceProcess, client_of, service, settled
from benchmarks.serving_script import TENANTS, WAREHOUSES, Script, code, documents, reply
from database.connection import Database
from database.errors import SynapseError
from tests.fake_llm import FakeLanguageModel
from tests.system_service.attacks import SENT, Attempt, Victim, attempts, dumped

pytestmark = [pytest.mark.system, pytest.mark.slow]

ATTACKER, OWNER = TENANTS
SECRETS = tuple(f"globex-only/{n}" for n in range(6))
AT_ONCE = 8


@pytest.fixture(scope="module")
def attacked(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    secret = [
        Document(
            content=f"The password of gate {n} is {code(OWNER, SENT + n)}.",
            meta={"source": source, "secret": code(OWNER, SENT + n)},
        )
        for n, source in enumerate(SECRETS)
    ]
    ground.tenant(OWNER, [*documents(OWNER), *secret])
    with FakeLanguageModel(reply) as model:
        roomy = {"LLM_BASE_URL": model.url, "SERVE_REQUESTS_PER_MINUTE": "1000000"}
        with service(ground, tmp_path_factory.mktemp("service") / "log", **roomy) as running:
            yield running


async def moved_in(client: Client, ground: Ground) -> Victim:
    """Let the victim hold conversations, mark an answer, upload a file, open a session of MCP."""
    script = Script(tenant=OWNER, number=7)
    first = await client.ask(script.question(0))
    await client.stream(script.question(1), first.session_id)
    second = await client.ask(script.question(2))
    messages = [one["id"] for one in await client.transcript(first.session_id)]
    mark = {"mark": 1, "comment": f"right, {code(OWNER, 31)}"}
    (await client.http.post(f"/messages/{messages[1]}/feedback", json=mark, headers=client.headers)).raise_for_status()
    files = {"files": ("note.txt", f"The note says {code(OWNER, 33)}.".encode())}
    job = (await client.http.post("/documents", files=files, headers=client.headers)).raise_for_status().json()["id"]
    for _ in range(200):
        found = (await client.http.get(f"/documents/jobs/{job}", headers=client.headers)).json()
        if found["stage"] == "done":
            break
        await asyncio.sleep(0.1)
    assert found["stage"] == "done"
    accept = {"Accept": "application/json, text/event-stream"}
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    opened = await client.http.post("/mcp", json=opening, headers={**client.headers, **accept})
    rows = ground.owner.read("SELECT id FROM tenant_globex.documents_all_minilm_l6_v2 ORDER BY id LIMIT 8")
    return Victim(
        sessions=(first.session_id, second.session_id),
        messages=tuple(messages),
        sources=(*SECRETS, *found["sources"]),
        documents=tuple(row["id"] for row in rows),
        job=job,
        mcp=opened.raise_for_status().headers["mcp-session-id"],
    )


def rows_of(ground: Ground, tenant: str) -> dict[str, Any]:
    """A checksum of every table that holds rows of a tenant's, but for when its keys were used last."""
    with psycopg.connect(ground.server.conninfo(owner=True)) as connection:
        own = connection.execute(
            "SELECT format('%%I.%%I', schemaname, tablename), '{}'::text[] FROM pg_tables WHERE schemaname = %s",
            [f"tenant_{tenant}"],
        ).fetchall()
        shared = connection.execute(
            "SELECT format('%I.%I', table_schema, table_name), NULL "
            "FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name) "
            "WHERE column_name = 'tenant' AND table_schema = 'public' AND table_type = 'BASE TABLE'"
        ).fetchall()
        sums = {}
        for table, is_own in [*own, *shared]:
            where = "" if is_own is not None else f"WHERE tenant = '{tenant}'"
            query = f"SELECT count(*), md5(string_agg(row, '' ORDER BY row)) FROM (SELECT (to_jsonb(t) - 'last_used_at')::text AS row FROM {table} t {where}) r"  # noqa: S608
            sums[table] = connection.execute(query).fetchone()
        return sums


async def tried(http: httpx.AsyncClient, attempt: Attempt, key: str) -> httpx.Response:
    """Make an attempt; headers that are no ASCII go as they are."""
    given = {"Authorization": f"Bearer {attempt.key if attempt.key is not None else key}", **attempt.headers}
    headers = [(name.encode(), value.encode()) for name, value in given.items()]
    return await http.request(attempt.method, attempt.path, json=attempt.body, headers=headers)


async def test_a_thousand_attempts(attacked: ServiceProcess, ground: Ground, keys: dict[str, list[str]]) -> None:
    secrets = {code(OWNER, n) for n in range(SENT, WAREHOUSES)}
    statuses: Counter[tuple[str, int]] = Counter()
    succeeded, broken = [], []
    async with client_of(attacked) as http:
        victim = await moved_in(Client(http, keys[OWNER][0]), ground)
        before = rows_of(ground, OWNER)
        assert sum(count for count, _ in before.values()) > 200
        foreign = [*secrets, Script(tenant=OWNER, number=7).visitor]
        turn = asyncio.Semaphore(AT_ONCE)

        async def attack(attempt: Attempt) -> None:
            async with turn:
                response = await tried(http, attempt, keys[ATTACKER][0])
            statuses[attempt.kind, response.status_code] += 1
            if found := [one for one in foreign if one in response.text]:
                succeeded.append(f"{dumped(attempt)} gave {found}: {response.text[:500]}")
            if response.status_code >= 500:
                broken.append(f"{dumped(attempt)} gave {response.status_code}: {response.text[:300]}")
            if attempt.key is not None and response.status_code not in (400, 401):
                succeeded.append(f"{dumped(attempt)} with the key {attempt.key!r} gave {response.status_code}")
            if attempt.kind in ("session", "message", "job") and response.status_code == 200:
                assert attempt.path.startswith("/conversations?") or not response.text, dumped(attempt)

        made = [*attempts(victim, keys[ATTACKER][0], OWNER)]
        await asyncio.gather(*(attack(one) for one in made))
        assert len(made) >= 1000
        assert succeeded == []
        assert broken == []
        assert rows_of(ground, OWNER) == before
        for kind in {one.kind for one in made}:
            assert sum(count for (k, _), count in statuses.items() if k == kind) > 2
        assert statuses["filter", 200] > 50, "most of them were expected to be understood, and to find nothing foreign"
        # The same requests with the victim's own key do find it: what is looked for would be noticed.
        seen = [await tried(http, one, keys[OWNER][0]) for one in made[:2]]
        assert all(any(one in response.text for one in secrets) for response in seen)
        assert [response.status_code for response in seen] == [200, 200]
        client = Client(http, keys[OWNER][0])
        assert len(await client.transcript(victim.sessions[0])) == 4
    assert attacked.unexplained() == []
    assert settled(ground) == []


async def test_connections_that_another_tenant_used_and_broke(
    attacked: ServiceProcess, ground: Ground, keys: dict[str, list[str]]
) -> None:
    """Both tenants at once over one pool, and every other request fails in the middle of its transaction."""
    async with client_of(attacked) as http:
        users = {tenant: Client(http, keys[tenant][1]) for tenant in TENANTS}
        faults: list[str] = []

        async def ask(tenant: str, number: int) -> None:
            script = Script(tenant=tenant, number=500 + number)
            if number % 2:
                condition = {"field": "meta.floor", "operator": ">", "value": "x\u0000"}
                await http.post(
                    "/search", json={"question": "gate", "filters": condition}, headers=users[tenant].headers
                )
                return
            found = await users[tenant].search(script.question(number), top_k=20)
            assert found.passages
            faults.extend(one for one in script.faults(number, "", found.passages) if "foreign" in one)

        await asyncio.gather(*(ask(tenant, n) for n, tenant in itertools.product(range(60), TENANTS)))
        assert faults == []
    assert settled(ground) == []


BREAKING = (
    "SELECT 1 / 0",
    "SELECT 'x'::int",
    "SET LOCAL ROLE synapse_tenant_globex; SELECT 1 / 0",
    "SELECT set_config('search_path', 'tenant_globex', true)",
    "SET search_path TO tenant_globex",
    "SAVEPOINT one; SET LOCAL ROLE synapse_tenant_globex; ROLLBACK TO one",
    "DISCARD ALL",
    "SELECT pg_terminate_backend(pg_backend_pid())",
)


@pytest.mark.parametrize("statement", BREAKING)
def test_a_connection_after_an_error_has_nobodys_role(ground: Ground, statement: str) -> None:
    """Whatever one tenant's transaction did and however it ended, the next one on its connection is another's alone."""
    database = Database(ground.server.conninfo())
    try:
        for _ in range(3):
            with suppress(SynapseError, ZeroDivisionError), database.for_tenant(ATTACKER).connection() as connection:
                connection.execute(statement)
                raise ZeroDivisionError  # as a bug of ours between two statements would
            read = "SELECT current_user AS role, count(*) AS rows, string_agg(content, ' ') AS texts FROM documents_all_minilm_l6_v2"
            (row,) = database.for_tenant(ATTACKER).read(read)
            assert row["role"] == f"synapse_tenant_{ATTACKER}"
            assert not _secrets_in([row["texts"] or ""])
            with database.connection() as connection:
                nobody = connection.execute(
                    "SELECT current_user AS role, current_setting('search_path') AS path"
                ).fetchone()
            assert nobody is not None
            assert "tenant" not in f"{nobody['role']} {nobody['path']}"
    finally:
        database.close()


def _secrets_in(texts: Sequence[str]) -> list[str]:
    return [secret for n in range(WAREHOUSES) if (secret := code(OWNER, n)) in " ".join(texts)]
