"""What goes wrong around the service: the database, the model, clients, and the process itself."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.serving_client import Client, Failed
from benchmarks.serving_load import hold_all
from benchmarks.serving_process import Ground, ServiceProcess, client_of, service, settled
from benchmarks.serving_script import TENANTS, Script, reply
from tests.fake_llm import FakeLanguageModel, Message, Reply
from tests.system_service.conftest import users

pytestmark = [pytest.mark.system, pytest.mark.slow]

TENANT = TENANTS[0]
SLOT = 4
WORDS = " ".join(f"word{n}" for n in range(400))


def behaving(messages: list[Message]) -> Reply:
    """Never answers what asks it to hang, takes its time for what asks for many words, and else follows the script."""
    question = str(messages[-1]["content"]).rsplit("\n", 1)[-1]
    if "Rewrite" in str(messages[0]["content"]):
        return question
    if "hang" in question:
        return None
    return f"{WORDS} [1]." if "many words" in question else reply(messages)


@pytest.fixture(scope="module")
def model() -> Iterator[FakeLanguageModel]:
    with FakeLanguageModel(behaving, token_delay=0.01) as server:
        yield server


@pytest.fixture(scope="module")
def environment(model: FakeLanguageModel) -> dict[str, str]:
    return {"LLM_BASE_URL": model.url, "LLM_TIMEOUT": "4", "SERVE_REQUESTS_PER_MINUTE": "100000"}


@pytest.fixture(scope="module")
def running(
    ground: Ground, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    with service(ground, tmp_path_factory.mktemp("service") / "log", **environment) as process:
        yield process


@pytest.fixture
async def client(running: ServiceProcess, keys: dict[str, list[str]], ground: Ground) -> AsyncIterator[Client]:
    """A client, after whom everything is as it was: no request without a reason in the log, no connection in use."""
    async with client_of(running) as http:
        yield Client(http, keys[TENANT][0])
    assert running.unexplained() == []
    assert settled(ground) == []


def question(n: int, words: str = "") -> str:
    return f"{words} {Script(tenant=TENANT, number=1000 + n).question(0)}".strip()


async def test_the_database_goes_and_comes_back(
    ground: Ground, running: ServiceProcess, keys: dict[str, list[str]]
) -> None:
    headers = {"Authorization": f"Bearer {keys[TENANT][1]}"}
    asked = asyncio.create_task(
        hold_all(users(running, keys), conversations=16, seconds=20, most=12, think=0.5, repeats=True)
    )
    await asyncio.sleep(3)
    ground.stop_database()
    async with client_of(running) as http:
        away = await eventually(lambda: http.get("/ready"), lambda response: response.status_code != 200)
        assert away.status_code == 503
        assert (await http.get("/live")).status_code == 200
        await asyncio.sleep(6)
        for _ in range(3):
            began = time.monotonic()
            refused = await http.post("/search", json={"question": "gate"}, headers=headers)
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
            assert time.monotonic() - began < 4, "nobody is kept waiting for a server that is known to be away"
        ground.start_database()
        await eventually(lambda: http.get("/ready"), lambda response: response.status_code == 200)
    found = await asked
    assert found.faults == []
    # A stream that was cut off says so, and a question that was put off is asked again; what was answered is there.
    assert [error for error in found.errors if "in the stream" not in error] == []
    assert found.questions >= 48 - len(found.errors)
    assert found.lost == []
    assert running.unexplained() == []
    assert settled(ground) == []


async def test_a_model_that_hangs_blocks_nobody_else(client: Client) -> None:
    async def hung() -> float:
        began = time.monotonic()
        with pytest.raises(Failed, match="502"):
            await client.ask(question(0, "hang"))
        return time.monotonic() - began

    await client.ask(question(1))
    hanging = [asyncio.create_task(hung()) for _ in range(24)]
    await asyncio.sleep(0.5)
    quick = [(await client.ask(question(n))).whole_ms for n in range(2, 8)]
    assert not any(task.done() for task in hanging), "they were expected to hang meanwhile"
    assert max(quick) < 2500
    took = await asyncio.gather(*hanging)
    assert 3.5 < min(took) <= max(took) < 9


async def test_a_client_that_leaves_takes_nothing_along(
    client: Client, model: FakeLanguageModel, running: ServiceProcess
) -> None:
    session = (await client.ask(question(20))).session_id
    before = model.abandoned
    body = {"model": "synapse", "stream": True, "session_id": session}
    for n in range(6):
        messages = [{"role": "user", "content": question(21 + n, "many words:")}]
        heard = ""
        async with client_of(running) as http:
            events = Client(http, client.key).events({**body, "messages": messages})
            async for _, chunk in events:
                heard += chunk["choices"][0]["delta"].get("content") or ""
                if heard.count("word") > 5:
                    break
            await events.aclose()  # type: ignore[attr-defined]
        assert heard.startswith("word0 word1")
        stored = await eventually(lambda n=n: client.transcript(session), lambda found, n=n: len(found) == 4 + 2 * n)
        assert stored[-2]["content"] == messages[0]["content"]
        assert stored[-1]["interrupted"] is True
        assert stored[-1]["content"].startswith("word0 word1 word2 word3 word4 word5")
        assert len(stored[-1]["content"]) < len(WORDS)
    await eventually(lambda: _value(model.abandoned - before), lambda count: count == 6)
    assert (await client.ask(question(30), session)).session_id == session


async def _value(value: int) -> int:
    return value


async def eventually(read: Callable[[], Any], enough: Callable[[Any], bool], seconds: float = 10.0) -> Any:
    """What is read as soon as it is enough."""
    end = time.monotonic() + seconds
    while not enough(found := await read()):
        assert time.monotonic() < end, f"the last that was read is {found!r:.500}"
        await asyncio.sleep(0.1)
    return found


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("path", ["/documents", "/ask", "/v1/chat/completions", "/mcp"])
async def test_200_megabytes(client: Client, running: ServiceProcess, path: str, announced: bool) -> None:
    await client.ask(question(40))
    running.forget_peak()
    before = running.memory_mb()
    status, sent = await poured(running.url, path, client.key, 200 * 2**20, announced=announced)
    assert status == 413
    assert sent < (140 if path == "/documents" and not announced else 16) * 2**20
    assert running.peak_mb() - before < 64


async def poured(url: str, path: str, key: str, size: int, *, announced: bool) -> tuple[int, int]:
    """
    Send a body until the service answers.

    :returns: The status, and how many bytes were sent by then.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
    length = f"Content-Length: {size}" if announced else "Transfer-Encoding: chunked"
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\n{length}\r\n\r\n".encode()
    )
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="big.txt"\r\n\r\n'.ljust(65536, b"x")
    answer = asyncio.create_task(reader.readline())
    sent = 0
    try:
        while sent < size and not answer.done():
            writer.write(part if announced else b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()
            sent += len(part)
            part = b"x" * 65536
            # What announces too much is answered before any more of it is sent; the rest is only for a service that reads on.
            await asyncio.wait([answer], timeout=5 if announced else 0)
    except ConnectionError:
        pass  # hung up on; the answer was sent before
    line = await asyncio.wait_for(answer, 20)
    writer.close()
    return int(line.split()[1]), sent


BROKEN = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b'{"question": }',
    b'{"question": "\xff"}',
    b'{"question": "\\ud800"}',
    b'{"question": 1}',
    b'{"question": "gate", "top_k": 1e400}',
    b'{"question": "gate", "top_k": NaN}',
    b'{"question": "gate", "filters": {"a": {"b": {"c": []}}}}',
    b'{"question": "gate", "session_id": "../../etc"}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}], "model": "synapse"}',
    b'{"messages": [{"role": "user", "content": "gate"}], "model": "synapse", "stream": true, "filters": 1}',
    b'{"messages": [[]], "model": "synapse"}',
    b'{"messages": 1, "model": "synapse"}',
    b'{"question": "' + b"[" * 100_000 + b'"}',
    b"[" * 100_000,
    b'{"question": ' + b'{"a":' * 50_000,
    b'{"question": "gate", "filters": ' + b"[" * 5000 + b"]" * 5000 + b"}",
]


@pytest.mark.parametrize(
    "path", ["/ask", "/search", "/v1/chat/completions", "/mcp", "/documents", "/messages/1/feedback"]
)
async def test_malformed_json(client: Client, path: str) -> None:
    for body in BROKEN:
        for kind in ("application/json", "text/plain"):
            response = await client.http.post(path, content=body, headers={**client.headers, "Content-Type": kind})
            assert 400 <= response.status_code < 500, (body[:80], response.status_code, response.text[:300])
            if path != "/mcp":  # the protocol has a form of its own
                assert response.json()["error"]["message"], (body[:80], response.text[:300])


async def test_killed_in_the_middle_of_an_answer(
    ground: Ground, environment: dict[str, str], keys: dict[str, list[str]], tmp_path: Path
) -> None:
    with service(ground, tmp_path / "log", **environment) as process:
        async with client_of(process) as http:
            client = Client(http, keys[TENANT][2])
            first = await client.ask(question(50))
            asking = asyncio.create_task(client.stream(question(51, "many words:"), first.session_id))
            await asyncio.sleep(1.5)
            process.send(signal.SIGKILL)
            with pytest.raises((httpx.TransportError, Failed)):
                await asking
        assert process.wait() == -signal.SIGKILL
        process.start()
        async with client_of(process) as http:
            client = Client(http, keys[TENANT][2])
            stored = await client.transcript(first.session_id)
            assert [one["role"] for one in stored] == ["user", "assistant"], "a turn is stored whole or not at all"
            again = await client.ask(question(52), first.session_id)
            assert len(await client.transcript(again.session_id)) == 4
    assert settled(ground) == []


async def test_a_stream_is_finished_before_the_service_ends(
    ground: Ground, environment: dict[str, str], keys: dict[str, list[str]], tmp_path: Path
) -> None:
    with service(ground, tmp_path / "log", **environment) as process:
        async with client_of(process) as http, client_of(process) as late:
            client = Client(http, keys[TENANT][3])
            await client.ask(question(59))
            asking = asyncio.create_task(client.stream(question(60, "many words:")))
            await asyncio.sleep(1.5)
            assert not asking.done()
            await late.get("/live")  # a connection that stays open, as a proxy's do
            process.send(signal.SIGTERM)
            await asyncio.sleep(0.2)
            with suppress(httpx.ConnectError):  # also an answer, which a proxy understands
                response = await late.post("/search", json={"question": "gate"}, headers=client.headers)
                assert response.status_code == 503
                assert int(response.headers["Retry-After"]) >= 1
            heard = await asking
        assert process.wait(20) == 0
        assert WORDS in heard.text
        assert heard.message_id
        assert process.unexplained() == []
        assert "exception" not in json.dumps(process.records())
    assert settled(ground) == []
