"""The Model Context Protocol, spoken by its own client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

from database.embedded import EmbeddedServer
from serving.mcp import MOST_SESSIONS
from tests.fake_llm import FakeLanguageModel
from tests.support.serving import RunningService, running

QUESTION = "How long is the warranty of dishwashers?"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def llm() -> Iterator[FakeLanguageModel]:
    with FakeLanguageModel("The warranty is 24 months [1].") as found:
        yield found


@pytest.fixture(scope="module")
def service(server: EmbeddedServer | None, owner_conninfo: str, llm: FakeLanguageModel) -> Iterator[RunningService]:
    with running(server, owner_conninfo, llm_base_url=llm.url, llm_model="fake") as found:
        yield found


@asynccontextmanager
async def session_of(
    service: RunningService, tenant: str = "acme", user: str = "alice"
) -> AsyncIterator[ClientSession]:
    async with (
        httpx.AsyncClient(headers=service.headers(tenant, user), timeout=30) as client,
        streamable_http_client(f"{service.url}/mcp", http_client=client) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        yield session


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_there_are_two_tools_and_nothing_else(service: RunningService) -> None:
    async with session_of(service) as session:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert set(tools) == {"search_documents", "answer_question"}
        assert (await session.list_resources()).resources == []
        assert (await session.list_prompts()).prompts == []
        assert set(tools["search_documents"].inputSchema["properties"]) == {"question", "filters", "top_k"}
        assert set(tools["answer_question"].inputSchema["properties"]) == {"question", "filters", "session_id"}
        assert all(tool.description and tool.outputSchema for tool in tools.values())


@pytest.mark.parametrize("tool", ["deploy_pipeline", "undeploy_pipeline", "get_all_pipeline_statuses", "synapse"])
async def test_hayhooks_own_tools_cannot_be_called(service: RunningService, tool: str) -> None:
    async with session_of(service) as session:
        assert (await session.call_tool(tool, {})).isError


async def test_a_search_is_of_the_callers_tenant(service: RunningService) -> None:
    for tenant, months in (("acme", "24 months"), ("globex", "36 months")):
        async with session_of(service, tenant) as session:
            result = await session.call_tool("search_documents", {"question": QUESTION, "top_k": 1})
            assert not result.isError
            assert result.structuredContent is not None
            (document,) = result.structuredContent["documents"]
            assert months in document["content"]
            assert months in result.content[0].text  # type: ignore[union-attr]


async def test_tenants_at_once_do_not_mix(service: RunningService) -> None:
    async def found(tenant: str) -> str:
        async with session_of(service, tenant) as session:
            results = [await session.call_tool("search_documents", {"question": QUESTION}) for _ in range(5)]
            return str([result.structuredContent for result in results])

    acme, globex = await asyncio.gather(found("acme"), found("globex"))
    assert "Acme" in acme
    assert "Globex" not in acme
    assert "Globex" in globex
    assert "Acme" not in globex


async def test_an_answer_cites_and_can_be_followed_up(service: RunningService) -> None:
    async with session_of(service) as session:
        first = (await session.call_tool("answer_question", {"question": QUESTION})).structuredContent
        assert first is not None
        assert first["answer"] == "The warranty is 24 months [1]."
        assert first["citations"][0]["source"] == "warranty.md"
        again = {"question": "and the receipt?", "session_id": first["session_id"]}
        second = (await session.call_tool("answer_question", again)).structuredContent
        assert second is not None
        assert second["session_id"] == first["session_id"]
    async with httpx.AsyncClient(base_url=service.url, headers=service.headers()) as client:
        stored = (await client.get(f"/conversations/{first['session_id']}")).json()
    assert len(stored["messages"]) == 4


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("search_documents", {"question": QUESTION, "filters": "year >"}, "The filter should have"),
        ("search_documents", {"question": "   "}, "A question must have words"),
        ("search_documents", {"question": QUESTION, "top_k": 1000}, "between 1 and 50"),
        ("search_documents", {}, "question"),
        ("answer_question", {"question": QUESTION, "session_id": "none"}, "UUID"),
        ("answer_question", {"question": QUESTION, "session_id": "00000000-0000-0000-0000-000000000000"}, "expected"),
        ("answer_question", {"question": "x" * 5000}, "at most 4000 characters"),
    ],
)
async def test_what_cannot_be_used_is_said(
    service: RunningService, tool: str, arguments: dict[str, Any], message: str
) -> None:
    async with session_of(service) as session:
        result = await session.call_tool(tool, arguments)
        assert result.isError
        assert message in result.content[0].text  # type: ignore[union-attr]


async def test_a_failing_model_is_said_without_its_words(service: RunningService, llm: FakeLanguageModel) -> None:
    llm.failures = ["401"]
    async with session_of(service) as session:
        result = await session.call_tool("answer_question", {"question": QUESTION})
        assert result.isError
        assert "language model" in result.content[0].text  # type: ignore[union-attr]
        assert "secret" not in result.content[0].text  # type: ignore[union-attr]


async def test_a_call_can_be_cancelled(service: RunningService, llm: FakeLanguageModel) -> None:
    answer, llm.answer, llm.token_delay = llm.answer, " ".join(["word"] * 200), 0.05
    before, asked = llm.abandoned, len(llm.requests)
    try:
        async with session_of(service) as session, anyio.create_task_group() as group:
            request_id = session._request_id  # the one that the call will get

            async def call() -> None:
                with pytest.raises(Exception, match="cancelled"):
                    await session.call_tool("answer_question", {"question": QUESTION})

            group.start_soon(call)
            await until(lambda: len(llm.requests) > asked)
            params = CancelledNotificationParams(requestId=request_id, reason="changed my mind")
            note = CancelledNotification(method="notifications/cancelled", params=params)
            await session.send_notification(ClientNotification(note))
            await until(lambda: llm.abandoned > before)
    finally:
        llm.answer, llm.token_delay = answer, 0.0


def test_no_key_is_no_session(service: RunningService) -> None:
    assert httpx.post(f"{service.url}/mcp", json=INITIALIZE, headers=ACCEPT).status_code == 401


def test_a_session_belongs_to_the_key_that_began_it(service: RunningService) -> None:
    begun = httpx.post(f"{service.url}/mcp", json=INITIALIZE, headers={**ACCEPT, **service.headers("acme")})
    assert begun.status_code == 200
    named = {**ACCEPT, "Mcp-Session-Id": begun.headers["mcp-session-id"]}
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    for tenant, user in (("acme", "bob"), ("globex", "alice")):
        others = {**named, **service.headers(tenant, user)}
        assert httpx.post(f"{service.url}/mcp", json=call, headers=others).status_code == 404
        assert httpx.delete(f"{service.url}/mcp", headers=others).status_code == 404
    own = {**named, **service.headers("acme")}
    assert httpx.post(f"{service.url}/mcp", json=call, headers=own).status_code == 200
    assert httpx.delete(f"{service.url}/mcp", headers=own).status_code == 200
    assert httpx.post(f"{service.url}/mcp", json=call, headers=own).status_code == 404


def test_a_key_has_so_many_sessions_and_takes_none_from_others(service: RunningService) -> None:
    headers = {**ACCEPT, **service.headers("globex", "bob")}
    with httpx.Client() as client:
        ids = [
            client.post(f"{service.url}/mcp", json=INITIALIZE, headers=headers).headers["mcp-session-id"]
            for _ in range(MOST_SESSIONS + 2)
        ]
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        answers = [
            client.post(f"{service.url}/mcp", json=call, headers={**headers, "Mcp-Session-Id": one}).status_code
            for one in (ids[0], ids[1], ids[2], ids[-1])
        ]
    assert answers == [404, 404, 200, 200]


async def test_a_slow_answer_keeps_no_search_waiting(service: RunningService, llm: FakeLanguageModel) -> None:
    answer = llm.answer

    def slow(_: list[dict[str, Any]]) -> str:
        time.sleep(1.0)
        return "Slow [1]."

    llm.answer = slow
    try:
        async with session_of(service) as session:
            asking = asyncio.create_task(session.call_tool("answer_question", {"question": QUESTION}))
            began = time.perf_counter()
            await session.call_tool("search_documents", {"question": QUESTION})
            assert time.perf_counter() - began < 0.8
            assert not (await asking).isError
    finally:
        llm.answer = answer
