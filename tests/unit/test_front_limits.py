"""What the front refuses: too much, too often, too slow, from elsewhere; and what it does with clients that leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse

from serving.front.bodies import UPLOAD_ROOM, Bodies
from serving.front.buckets import MOST_BUCKETS, Buckets
from serving.front.errors import Errors
from tests.support.front import ANNA, AS_ANNA, AS_BERT, FrontAccounts, FrontService, client_of, small_app

SAME = "http://127.0.0.1"


async def chunks(number: int, size: int = 1000, *, sent: list[int] | None = None) -> AsyncIterator[bytes]:
    for n in range(number):
        if sent is not None:
            sent.append(n)
        yield b"x" * size


def reading_app(**settings: Any) -> FastAPI:
    app = small_app(**settings)

    @app.post("/documents")
    async def upload(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @app.post("/read")
    async def read(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    return app


# Bodies


async def test_what_announces_too_much_is_refused_unread() -> None:
    sent: list[int] = []
    async with client_of(reading_app(max_body_bytes=5000)) as client:
        headers = {**AS_ANNA, "Content-Length": "200000000"}
        answer = await client.post("/read", content=chunks(200, sent=sent), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
    assert answer.headers["Connection"] == "close"
    assert sent == []


async def test_what_announces_nothing_is_counted() -> None:
    sent: list[int] = []
    async with client_of(reading_app(max_body_bytes=5000)) as client:
        answer = await client.post("/read", content=chunks(200, sent=sent), headers=AS_ANNA)
        assert answer.status_code == 413
        assert answer.headers["Connection"] == "close"
        assert len(sent) <= 8, "the rest is not read"
        exact = await client.post("/read", content=chunks(5), headers=AS_ANNA)
        assert exact.json() == {"bytes": 5000}


async def test_an_upload_may_be_as_large_as_a_file() -> None:
    async with client_of(reading_app(max_body_bytes=5000, max_file_bytes=20_000)) as client:
        assert (await client.post("/documents", content=b"x" * 20_000, headers=AS_ANNA)).json() == {"bytes": 20_000}
        large = await client.post("/documents", content=b"x" * (20_001 + UPLOAD_ROOM), headers=AS_ANNA)
        assert large.status_code == 413
        assert (await client.post("/documentsx", content=b"x" * 20_000, headers=AS_ANNA)).status_code == 413


async def test_an_answer_before_the_body_hangs_up() -> None:
    async with client_of(reading_app()) as client:
        early = await client.post("/read", content=chunks(500))
        assert (early.status_code, early.headers["Connection"]) == (401, "close")
        whole = await client.post("/read", content=b"x", headers=AS_ANNA)
        assert "Connection" not in whole.headers


async def test_a_body_that_trickles_in_is_given_up() -> None:
    async def read_all(_: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def slowly() -> dict[str, Any]:
        await asyncio.sleep(0.03)
        return {"type": "http.request", "body": b"x", "more_body": True}

    statuses = []

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    app = Errors(Bodies(read_all, most=1000, most_upload=1000, grace=0.2))
    began = time.monotonic()
    await app(
        {"type": "http", "method": "POST", "path": "/", "headers": [(b"transfer-encoding", b"chunked")]}, slowly, send
    )
    assert statuses[0] == 408
    assert time.monotonic() - began < 2


# How many, how often


async def test_beyond_the_slots_requests_are_sent_away_and_health_is_not() -> None:
    app = small_app(max_concurrent=2)
    gate = asyncio.Event()

    @app.get("/wait")
    async def wait() -> str:
        await gate.wait()
        return "done"

    async with client_of(app, headers=AS_ANNA) as client:
        running = [asyncio.create_task(client.get("/wait")) for _ in range(2)]
        await asyncio.sleep(0.05)
        refused = await client.get("/whoami")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "busy")
        assert int(refused.headers["Retry-After"]) > 0
        assert (await client.get("/live")).status_code == 200
        assert (await client.get("/ready")).status_code == 200
        assert (await client.get("/whoami", headers={"Authorization": "x"})).status_code == 401, (
            "strangers take no slots"
        )
        gate.set()
        assert [(await one).status_code for one in running] == [200, 200]
        assert (await client.get("/whoami")).status_code == 200


async def test_64_at_once_are_answered_and_the_65th_is_not_lost() -> None:
    app = small_app(max_concurrent=64, requests_per_minute=None)

    @app.get("/slow")
    async def slow(request: Request) -> dict[str, str]:
        await asyncio.sleep(0.1)
        return {"tenant": request.state.identity.tenant}

    async with client_of(app) as client:
        asked = [client.get("/slow", headers=(AS_ANNA, AS_BERT)[n % 2]) for n in range(80)]
        answers = await asyncio.gather(*asked)
    good = [(n, a.json()["tenant"]) for n, a in enumerate(answers) if a.status_code == 200]
    assert len(good) == 64
    assert all(tenant == ("acme", "default")[n % 2] for n, tenant in good)
    assert {a.status_code for a in answers} == {200, 503}


async def test_a_key_has_so_many_requests_a_minute_and_others_have_their_own() -> None:
    async with client_of(small_app(requests_per_minute=3)) as client:
        first = await client.get("/whoami", headers=AS_ANNA)
        assert first.headers["RateLimit-Policy"] == '"minute";q=3;w=60'
        assert first.headers["RateLimit"].startswith('"minute";r=2;')
        for _ in range(2):
            assert (await client.get("/whoami", headers=AS_ANNA)).status_code == 200
        refused = await client.get("/whoami", headers=AS_ANNA)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 20
        assert (await client.get("/whoami", headers=AS_BERT)).status_code == 200


async def test_a_keys_own_limit_wins() -> None:
    from dataclasses import replace

    service = FrontService(accounts=FrontAccounts(lambda _: replace(ANNA, requests_per_minute=1)))
    async with client_of(small_app(service)) as client:
        assert (await client.get("/whoami", headers=AS_ANNA)).status_code == 200
        assert (await client.get("/whoami", headers=AS_ANNA)).status_code == 429


def test_buckets_fill_up_evenly_and_are_not_kept_forever() -> None:
    now = [0.0]
    buckets = Buckets(seconds=60, clock=lambda: now[0])
    assert [buckets.take("a", size=2).allowed for _ in range(3)] == [True, True, False]
    now[0] = 29.9
    assert (buckets.look("a", size=2).allowed, buckets.look("a", size=2).wait) == (False, 1)
    now[0] = 30.1
    assert buckets.take("a", size=2).allowed
    for n in range(MOST_BUCKETS + 5):
        buckets.take(str(n), size=2)
    assert len(buckets._kept) == MOST_BUCKETS


# How long


async def test_what_takes_too_long_is_given_up() -> None:
    app = small_app(request_timeout=0.2)
    ended = []

    @app.get("/slow")
    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with client_of(app, headers=AS_ANNA) as client:
        answer = await client.get("/slow")
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert ended == ["cancelled"]


async def test_a_thread_that_cannot_be_stopped_does_not_keep_the_client_waiting() -> None:
    app = small_app(request_timeout=0.2)

    @app.get("/stuck")
    def stuck() -> None:
        time.sleep(1.5)

    async with client_of(app, headers=AS_ANNA) as client:
        began = time.monotonic()
        assert (await client.get("/stuck")).status_code == 504
        assert time.monotonic() - began < 1


async def test_a_stream_that_goes_on_may_last() -> None:
    app = small_app(request_timeout=0.3)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            for n in range(12):
                yield f"{n} "
                await asyncio.sleep(0.05)

        return StreamingResponse(words())

    async with client_of(app, headers=AS_ANNA) as client:
        began = time.monotonic()
        assert (await client.get("/stream")).text.endswith("11 ")
        assert time.monotonic() - began > 0.5


# From where


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://127.0.0.1:99"]
)
@pytest.mark.parametrize("auth", [True, False])
async def test_foreign_pages_may_not_write(origin: str, auth: bool) -> None:
    async with client_of(small_app(auth=auth), headers=AS_ANNA) as client:
        answer = await client.post("/ask", json={"question": "?"}, headers={"Origin": origin})
        assert answer.status_code == 403
        assert "Access-Control-Allow-Origin" not in answer.headers
        own = await client.post("/ask", json={"question": "?"}, headers={"Origin": SAME})
        assert own.status_code == 200


async def test_cors_opens_for_named_origins_alone() -> None:
    app = small_app(cors_origins="https://chat.example, https://other.example/")
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    async with client_of(app) as client:
        for origin in ("https://chat.example", "https://other.example"):
            asked = await client.options("/ask", headers={**preflight, "Origin": origin})
            assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (200, origin)
            answer = await client.post("/ask", json={"question": "?"}, headers={**AS_ANNA, "Origin": origin})
            assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, origin)
        refused = await client.post("/ask", json={}, headers={"Origin": "https://chat.example"})
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, "https://chat.example")
        evil = await client.options("/ask", headers={**preflight, "Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in evil.headers
    async with client_of(small_app()) as client:
        closed = await client.options("/ask", headers={**preflight, "Origin": "https://chat.example"})
        assert closed.status_code == 401
        assert not [name for name in closed.headers if name.startswith("access-control")]


async def test_what_a_mounted_app_allows_is_not_passed_on() -> None:
    from starlette.middleware.cors import CORSMiddleware

    app, page = small_app(), FastAPI()
    page.add_middleware(CORSMiddleware, allow_origins=["*"])
    app.mount("/chat", page)
    async with client_of(app) as client:
        answer = await client.get("/chat/x", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 404
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("host", ["rebound.example", "rebound.example:8000", "", "127.0.0.1.nip.io", "[::2]"])
async def test_without_keys_the_service_answers_to_loopbacks_names_alone(host: str) -> None:
    async with client_of(small_app(auth=False)) as client:
        assert (await client.get("/whoami", headers={"Host": host})).status_code == 421
        for good in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
            assert (await client.get("/whoami", headers={"Host": good})).status_code == 200
    async with client_of(small_app()) as client:
        assert (await client.get("/whoami", headers={**AS_ANNA, "Host": host})).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"), [("/live", 200), ("/whoami", 401), ("/chat/x", 404), ("/sources/x", 404), ("/whoami?", 200)]
)
async def test_every_answer_tells_the_browser_what_not_to_do(path: str, status: int) -> None:
    async with client_of(small_app()) as client:
        answer = await client.get(path, headers=AS_ANNA if status == 200 else {})
    assert answer.status_code == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    policy = answer.headers["Content-Security-Policy"]
    assert "frame-ancestors" in policy
    assert policy.startswith("default-src 'self'" if status == 404 else "default-src 'none'")
    assert "Strict-Transport-Security" not in answer.headers


async def test_browsers_are_told_to_keep_to_https_where_it_is_spoken() -> None:
    async with client_of(small_app(public_url="https://chat.example")) as client:
        assert "Strict-Transport-Security" in (await client.get("/live")).headers
        own = await client.post("/ask", json={"question": "?"}, headers={**AS_ANNA, "Origin": "https://chat.example"})
        assert own.status_code == 200
    transport = httpx.ASGITransport(app=small_app())
    async with httpx.AsyncClient(transport=transport, base_url="https://chat.example") as client:
        assert "Strict-Transport-Security" in (await client.get("/live")).headers


# Coming and going


async def test_ready_tells_in_yes_and_no_and_asks_at_most_once_a_second() -> None:
    service = FrontService()
    asked = []

    async def ready() -> dict[str, Any]:
        asked.append(1)
        return {"database": True, "schema": "expected 0004, found 0003 at db.internal", "model": True}

    service.ready = ready  # type: ignore[method-assign]
    async with client_of(small_app(service)) as client:
        answers = await asyncio.gather(*[client.get("/ready") for _ in range(20)])
    assert {a.status_code for a in answers} == {503}
    assert answers[0].json() == {"ready": False, "database": True, "schema": False, "model": True, "stopping": False}
    assert len(asked) == 1


async def test_a_service_that_leaves_says_so_and_finishes_what_runs() -> None:
    app = small_app()
    gate = asyncio.Event()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            yield "begun, "
            await gate.wait()
            yield "ended"

        return StreamingResponse(words())

    async with client_of(app, headers=AS_ANNA) as client:
        running = asyncio.create_task(client.get("/stream"))
        await asyncio.sleep(0.05)
        app.state.drain.begin()
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["stopping"]) == (503, True)
        assert (await client.get("/live")).status_code == 200
        refused = await client.get("/whoami")
        assert (refused.status_code, refused.headers["Connection"]) == (503, "close")
        assert int(refused.headers["Retry-After"]) > 0
        gate.set()
        assert (await running).text == "begun, ended"
