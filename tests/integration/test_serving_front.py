"""The front over real connections: attacks on it, clients that leave, and the whole service without a key."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.routing import iter_route_contexts
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import StreamingResponse

from database.embedded import EmbeddedServer
from serving.front.areas import HEALTH_PATHS, PAGE_PREFIXES
from serving.front.protocol import MOST_CONNECTIONS, BoundedHeaders
from serving.observability import logs
from tests.fake_llm import FakeLanguageModel
from tests.support.front import AS_ANNA, small_app
from tests.support.otlp_collector import Collector
from tests.support.serving import RunningService, running

KEY = b"Authorization: Bearer synapse_acme.anna\r\n"


class QuickToHangUp(BoundedHeaders):
    header_seconds = 0.5


@dataclass
class Running:
    """A small app behind the front, over real HTTP."""

    port: int
    cancelled: list[str] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    bytes_read: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


def app_of(found: Running) -> FastAPI:
    app = small_app(max_concurrent=3, request_timeout=1.0, max_body_bytes=100_000, requests_per_minute=None)

    @app.get("/stream")
    async def stream(seconds: float = 30) -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            end = time.monotonic() + seconds
            try:
                while time.monotonic() < end:
                    found.parts.append(1)
                    yield "word "
                    await asyncio.sleep(0.02)
                yield "end"
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                found.cancelled.append("stream")
                raise

        return StreamingResponse(words(), media_type="text/event-stream")

    @app.get("/flood")
    async def flood() -> StreamingResponse:
        async def words() -> AsyncIterator[bytes]:
            while True:
                found.parts.append(1)
                yield b"x" * 100_000

        return StreamingResponse(words())

    @app.get("/stops")
    async def stops() -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            yield "begun "
            await asyncio.sleep(30)

        return StreamingResponse(words())

    @app.post("/work")
    async def work(request: Request) -> str:
        await request.body()
        try:
            await asyncio.sleep(0.9)
        except asyncio.CancelledError:
            found.cancelled.append("work")
            raise
        return "done"

    @app.post("/read")
    async def read(request: Request) -> int:
        async for part in request.stream():
            found.bytes_read.append(len(part))
        return sum(found.bytes_read)

    return app


@pytest.fixture(scope="module")
def front() -> Iterator[Running]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        found = Running(port=listening.getsockname()[1])
        config = uvicorn.Config(
            app_of(found), http=QuickToHangUp, limit_concurrency=MOST_CONNECTIONS, log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield found
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> None:
    if "front" in request.fixturenames:
        found = request.getfixturevalue("front")
        found.cancelled.clear(), found.parts.clear(), found.bytes_read.clear()


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            found += part
    return found


def wait_until(condition: Any, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


# Clients that leave


def test_clients_that_leave_mid_stream_free_their_slots_and_stop_the_work(front: Running) -> None:
    for _ in range(2):
        left = [front.connect() for _ in range(3)]
        for connection in left:
            connection.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n" + KEY + b"\r\n")
            assert b"200 OK" in connection.recv(4096)
        assert httpx.get(f"{front.url}/whoami", headers=AS_ANNA).status_code == 503
        for connection in left:
            connection.close()
        wait_until(lambda: httpx.get(f"{front.url}/whoami", headers=AS_ANNA).status_code == 200)
    wait_until(lambda: len(front.cancelled) == 6)
    written = len(front.parts)
    time.sleep(0.1)
    assert len(front.parts) == written, "nobody writes for nobody"


def test_a_client_that_leaves_before_its_answer_stops_the_work(front: Running) -> None:
    connection = front.connect()
    connection.sendall(b"POST /work HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n" + KEY + b"\r\n{}")
    time.sleep(0.2)
    connection.close()
    wait_until(lambda: front.cancelled == ["work"], 0.5)


def test_a_stream_lasts_longer_than_the_timeout_and_one_that_stops_is_cut(front: Running) -> None:
    answer = httpx.get(f"{front.url}/stream", params={"seconds": 1.5}, headers=AS_ANNA, timeout=10)
    assert answer.text.endswith("end")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{front.url}/stops", headers=AS_ANNA, timeout=10)


def test_a_reader_that_does_not_read_is_given_up(front: Running) -> None:
    connection = front.connect()
    connection.sendall(b"GET /flood HTTP/1.1\r\nHost: x\r\n" + KEY + b"\r\n")
    wait_until(lambda: front.parts)
    time.sleep(1.3)
    written = len(front.parts)
    assert connection.recv(15) == b"HTTP/1.1 200 OK"
    assert written < 1000, "the service writes no more than the client's and its own buffers hold"
    time.sleep(0.2)
    assert len(front.parts) == written
    connection.close()
    assert httpx.get(f"{front.url}/whoami", headers=AS_ANNA).status_code == 200


# Bodies


def test_200_megabytes_are_refused_without_being_read(front: Running) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 1_000_000

    answer = httpx.post(f"{front.url}/read", content=endless(), headers=AS_ANNA, timeout=20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert sum(front.bytes_read) <= 100_000
    announced = (
        b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\nExpect: 100-continue\r\n" + KEY + b"\r\n"
    )
    connection = front.connect()
    connection.sendall(announced)
    received = everything(connection)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in received


def test_a_stranger_sends_no_body_at_all(front: Running) -> None:
    connection = front.connect()
    connection.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
    received = everything(connection)
    assert received.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in received


# Headers


@pytest.mark.parametrize("size", [100_000, 5_000_000])
@pytest.mark.parametrize("bomb", [b"X: " + b"a" * 1000 + b"\r\n", b"a" * 1000], ids=["many", "endless"])
def test_headers_come_to_an_end(front: Running, bomb: bytes, size: int) -> None:
    connection = front.connect()
    begun = b"GET /whoami HTTP/1.1\r\nHost: x\r\n" + (b"X-Long: " if b":" not in bomb else b"")
    sent = 0
    with contextlib.suppress(ConnectionError):
        connection.sendall(begun)
        while sent < size:
            connection.sendall(bomb)
            sent += len(bomb)
    received = everything(connection)
    assert received == b"" or received.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert httpx.get(f"{front.url}/whoami", headers=AS_ANNA).status_code == 200


@pytest.mark.parametrize("begun", [b"", b"GET /whoami HTTP/1.1\r\nHost: x\r\n"], ids=["silence", "half"])
def test_a_client_that_never_finishes_its_headers_is_left(front: Running, begun: bytes) -> None:
    connection = front.connect()
    began = time.monotonic()
    connection.sendall(begun)
    with contextlib.suppress(ConnectionError):
        while begun and time.monotonic() - began < 3:
            connection.sendall(b"X: y\r\n")
            time.sleep(0.05)
    assert everything(connection) == b""
    assert time.monotonic() - began < 3


def test_a_slow_answer_is_not_cut_by_the_next_requests_headers(front: Running) -> None:
    connection = front.connect()
    connection.sendall(b"POST /work HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n" + KEY + b"\r\n{}" + b"GET /who")
    received = connection.recv(4096)
    assert received.startswith(b"HTTP/1.1 200 OK")
    connection.sendall(b"ami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + KEY + b"\r\n")
    assert b'"user":"anna"' in everything(connection)


def test_requests_in_a_row_are_answered_in_their_order_each_with_its_own_rights(front: Running) -> None:
    with_key = b"GET /whoami HTTP/1.1\r\nHost: x\r\n" + KEY + b"\r\n"
    without = b"GET /whoami HTTP/1.1\r\nHost: x\r\n\r\n"
    connection = front.connect()
    connection.sendall(with_key + with_key + without + with_key)
    received = everything(connection)
    statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"200", b"401"], "what follows a refusal is not answered: the connection ends"


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer\r\n",
        b"Authorization: Bearer \r\n",
        b"Authorization: " + b"Bearer " * 50 + b"\r\n",
        b"Authorization: Bearer synapse_acme.\xff\xfe\r\n",
        b"Authorization: Bearer synapse_acme.anna\xc2\xa0\r\n",
        b"Authorization: Bearer synapse_acme.anna, Bearer x\r\n",
        b"Authorization: Bearer x\r\nAuthorization: Basic y\r\n",
        b"X-Api-Key: synapse_acme.anna;drop table users\r\n",
        b"Cookie: Authorization=Bearer synapse_acme.anna\r\n",
    ],
)
def test_malformed_keys_are_no_keys(front: Running, line: bytes) -> None:
    connection = front.connect()
    connection.sendall(b"GET /whoami HTTP/1.1\r\nHost: x\r\n" + line + b"Connection: close\r\n\r\n")
    assert everything(connection).split(b" ")[1] in (b"401", b"429")


# The whole service


@pytest.fixture(scope="module")
def model() -> Iterator[FakeLanguageModel]:
    with FakeLanguageModel("The warranty is hunter2-answer [1].") as found:
        yield found


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as found:
        yield found


@pytest.fixture(scope="module")
def service(
    server: EmbeddedServer | None, owner_conninfo: str, model: FakeLanguageModel, collector: Collector
) -> Iterator[RunningService]:
    given = {"llm_base_url": model.url, "llm_timeout": 5.0, "otlp_endpoint": collector.url}
    with running(server, owner_conninfo, page=True, **given) as found:
        yield found


def requests_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """A request for each route that exists, and some for what must not."""
    for context in iter_route_contexts(app.router.routes):
        path = re.sub(r"\{[^}]*\}", "x", context.path or "")
        yield from ((method, path) for method in context.methods or {"GET"})
    for path in ("/", "/nowhere", "/deploy_files", "/undeploy/x", "/draw/x", "/status", "/traces", "/redoc"):
        yield from ((method, path) for method in ("GET", "POST"))


def test_no_route_works_without_a_key(service: RunningService) -> None:
    asked = sorted(set(requests_of(service.app)))
    assert {("POST", "/ask"), ("POST", "/v1/chat/completions"), ("POST", "/mcp"), ("GET", "/openapi.json")} <= set(
        asked
    )
    with httpx.Client(base_url=service.url) as client, ThreadPoolExecutor(8) as threads:

        def statuses(n: int) -> list[tuple[int, bool]]:
            method, path = asked[n]
            # An address of its own for each: the front lets nobody try for long.
            answers = [
                client.request(method, path, headers={"X-Forwarded-For": f"10.9.{n}.1", **given})
                for given in ({}, {"X-Api-Key": "synapse_acme." + "x" * 43})
            ]
            return [(one.status_code, one.headers.get("WWW-Authenticate", "").startswith("Bearer")) for one in answers]

        found = dict(zip(asked, threads.map(statuses, range(len(asked))), strict=True))
    open_ = {one for one, (plain, _) in found.items() if plain != (401, True)}
    assert {path for _, path in open_} == {*HEALTH_PATHS, *PAGE_PREFIXES, "/"}
    assert all(given == found[one][0] for one, (_, given) in found.items()), "a wrong key opens nothing either"


def test_refusals_take_the_same_time_whatever_is_wrong(service: RunningService) -> None:
    accounts = service.service.accounts
    revoked, key = accounts.create_key("acme", "bob", label="revoked")
    accounts.revoke_key("acme", key.id)
    good = service.keys["acme", "alice"]
    wrong = ["x", "synapse_acme." + "x" * 43, revoked, good.replace("acme", "globex"), good.replace("acme", "nobody")]
    took = []
    with httpx.Client(base_url=service.url) as client:
        for n, text in enumerate(wrong):
            headers = {"X-Api-Key": text, "X-Forwarded-For": f"10.7.{n}.1"}
            times = [client.get("/documents", headers=headers).elapsed.total_seconds() for _ in range(5)]
            took.append(sorted(times)[2])
    assert max(took) - min(took) < 0.03, dict(zip(wrong, took, strict=True))


def test_a_revoked_key_and_another_tenants_secret_are_refused(service: RunningService) -> None:
    accounts = service.service.accounts
    text, key = accounts.create_key("acme", "bob", label="short-lived")
    accepted = httpx.get(f"{service.url}/documents", headers={"X-Api-Key": text})
    assert accepted.status_code == 200
    forged = text.replace("synapse_acme.", "synapse_globex.")
    assert httpx.get(f"{service.url}/documents", headers={"X-Api-Key": forged}).status_code == 401
    unknown = text.replace("synapse_acme.", "synapse_nobody.")
    assert httpx.get(f"{service.url}/documents", headers={"X-Api-Key": unknown}).status_code == 401
    accounts.revoke_key("acme", key.id)
    assert httpx.get(f"{service.url}/documents", headers={"X-Api-Key": text}).status_code == 401


def test_what_looking_up_a_key_costs(service: RunningService) -> None:
    text = service.keys["acme", "alice"]

    async def times() -> list[float]:
        took = []
        for _ in range(50):
            began = time.perf_counter()
            assert await service.service.accounts.authenticate_key_async(text)
            took.append(time.perf_counter() - began)
        return sorted(took)

    assert asyncio.run(times())[25] < 0.02, "no cache is needed"


def test_the_service_is_ready_and_counts(service: RunningService) -> None:
    assert httpx.get(f"{service.url}/live").json() == {"live": True}
    assert httpx.get(f"{service.url}/ready", timeout=30).json()["database"] is True
    found = httpx.post(
        f"{service.url}/search", json={"question": "warranty"}, headers=service.headers("acme"), timeout=60
    )
    assert found.status_code == 200, json.dumps(found.json())
    assert httpx.get(f"{service.url}/metrics", headers=service.headers("acme")).status_code == 403
    accounts = service.service.accounts
    accounts.create_user("default", "prometheus")
    try:
        key, _ = accounts.create_key("default", "prometheus", label="scrape")
        shown = httpx.get(f"{service.url}/metrics", headers={"X-Api-Key": key}).text
    finally:
        accounts.delete_user("default", "prometheus")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
    }
    assert samples[("synapse_stage_seconds_count", ("stage", "retriever"))] >= 1
    assert samples[("synapse_pool_connections", ("state", "open"))] >= 1
    searched = ("synapse_requests_total", ("method", "POST"), ("route", "/search"), ("status", "200"))
    assert samples[searched] >= 1
    assert "acme" not in shown, "no label names a tenant"


def test_a_hostile_session_with_the_whole_service_leaves_nothing_in_its_log(
    service: RunningService, model: FakeLanguageModel
) -> None:
    stream, root = io.StringIO(), logging.getLogger()
    before = root.handlers[:]
    logs.configure(stream)
    question = {"question": "hunter2-question: how long is the warranty of dishwashers?"}
    chat = {"model": "synapse", "messages": [{"role": "user", "content": question["question"]}], "stream": True}
    secret = service.keys["acme", "alice"].partition(".")[2]
    try:
        with httpx.Client(base_url=service.url, headers=service.headers("acme"), timeout=60) as client:
            assert "hunter2-answer" in client.post("/ask", json=question).text
            for failure in ("garbage", "401", "404", "cut", "html"):
                model.failures[:] = [failure] * 5
                client.post("/ask", json=question)
                client.post("/v1/chat/completions", json=chat)
            model.failures.clear()
            for filters in (
                'hunter2-field == "hunter2-value"',
                "hunter2 (",
                {"field": "hunter2-x", "operator": "?", "value": 1},
            ):
                client.post("/search", json={**question, "filters": filters})
            client.post(
                "/search",
                json={"question": "hunter2-nul \x00 \ud800".encode("utf-8", "surrogatepass").decode("latin-1")},
            )
            client.post("/documents", files={"file": ("hunter2-name.pdf", b"%PDF hunter2-document")})
            client.delete("/documents/hunter2-source")
            client.get("/conversations/hunter2-session")
            client.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "hunter2-method"})
            client.post("/chat/login", data={"username": "hunter2-user", "password": "hunter2-password"})
            client.get("/sources?source=hunter2-source")
        written = stream.getvalue()
    finally:
        root.handlers[:] = before
    lines = [json.loads(line) for line in written.splitlines()]
    statuses = [line["status"] for line in lines if line["logger"] == "synapse.requests"]
    assert len(statuses) >= 17
    assert {"/ask", "/mcp", "/chat", "/sources"} <= {line.get("route") for line in lines}
    for line in lines:
        assert "hunter2" not in json.dumps(line).lower(), line
        assert secret not in json.dumps(line), "keys stay out, too"
    failed = {line["request_id"] for line in lines if line.get("status", 0) >= 500}
    explained = {line["request_id"] for line in lines if line["logger"] == "synapse.errors"}
    assert failed <= explained, "no 500 without a cause in the log"


def test_each_step_of_a_question_is_a_span_and_no_text_leaves(service: RunningService, collector: Collector) -> None:
    given = {**service.headers("acme"), "X-Request-Id": "traced-request"}
    asked = {"question": "hunter2-question: how long is the warranty of dishwashers?"}
    assert "hunter2-answer" in httpx.post(f"{service.url}/ask", json=asked, headers=given, timeout=60).text
    service.app.state.traces.flush()
    (request,) = [
        span for span in collector.spans if any(one.value.string_value == "traced-request" for one in span.attributes)
    ]
    own = [span for span in collector.spans if span.trace_id == request.trace_id]
    steps = {one.value.string_value for span in own for one in span.attributes if one.key == "haystack.component.name"}
    assert {"embedder", "retriever", "llm"} <= steps
    assert request.name == "POST /ask"
    for text in (b"hunter2", b"warranty", b"Dishwashers", b"receipt", service.keys["acme", "alice"].encode()):
        assert text not in collector.raw
