"""Errors in one form, with their cause in the log and nowhere else; and a log that tells nothing of what was asked."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator

import psycopg
import pytest
from fastapi import FastAPI

from database import errors
from database.errors import (
    DatabaseError,
    DatabaseUnavailableError,
    GuardError,
    InvalidInputError,
    LanguageModelError,
    LimitError,
    NotFoundError,
    SynapseError,
)
from serving.front.refusals import STATUS
from serving.front.request_log import new_request_id
from serving.observability import logs
from tests.support.front import AS_ANNA, client_of, small_app

SECRETS = ("hunter2-question", "hunter2-document", "hunter2-key", "hunter2-password", "hunter2-path", "hunter2-query")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The log of this process, as `serve` writes it."""
    root, stream = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    logs.configure(stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def failing_app(exc: BaseException) -> FastAPI:
    app = small_app()

    @app.get("/fail")
    @app.get("/v1/fail")
    async def fail() -> None:
        raise exc

    return app


def test_every_error_of_ours_has_a_status() -> None:
    def tree(kind: type[SynapseError]) -> Iterator[type[SynapseError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from tree(child)

    ours = {kind.code for kind in tree(SynapseError) if kind.__module__ == errors.__name__}
    assert ours <= STATUS.keys()


@pytest.mark.parametrize(
    ("exc", "status", "told"),
    [
        (InvalidInputError("top_k must be 1 to 50.", hint="Ask for less."), 400, True),
        (NotFoundError("A session was expected."), 404, True),
        (GuardError("Refused."), 409, True),
        (LimitError("Fewer than 5 tokens were expected."), 429, True),
        (LanguageModelError("http://model.internal failed: 401 for key sk-1"), 502, False),
        (DatabaseUnavailableError("synapse_app@db.internal refused."), 503, False),
        (DatabaseError("it failed: duplicate key hunter2"), 500, False),
        (RuntimeError("hunter2-question"), 500, False),
        (KeyError("hunter2-document"), 500, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_an_error_tells_a_client_what_is_its_business(
    exc: Exception, status: int, told: bool, log: io.StringIO
) -> None:
    async with client_of(failing_app(exc), headers={**AS_ANNA, "X-Request-Id": "request-17"}) as client:
        plain, openai = await client.get("/fail"), await client.get("/v1/fail")
    error = plain.json()["error"]
    assert (plain.status_code, openai.status_code) == (status, status)
    assert error.keys() == {"code", "message", "hint", "request_id"}
    assert openai.json()["error"].keys() == {"message", "type", "param", "code", "request_id"}
    assert error["request_id"] == "request-17"
    assert (exc.args[0] in plain.text) == told
    assert ("Retry-After" in plain.headers) == (status in (429, 503))
    causes = [line for line in lines(log) if line["logger"] == "synapse.errors"]
    assert len(causes) == (2 if status >= 500 else 0), "no failure without a cause in the log, each once"
    assert all(cause["request_id"] == "request-17" for cause in causes)


async def test_an_unexpected_error_leaves_where_it_was_but_not_what_it_said(log: io.StringIO) -> None:
    async with client_of(failing_app(ValueError("hunter2-question")), headers=AS_ANNA) as client:
        answer = await client.get("/fail")
    assert answer.json()["error"]["message"] == "An error that was not expected."
    (cause,) = (line for line in lines(log) if line["logger"] == "synapse.errors")
    assert "test_front_errors.py" in str(cause["exception"])
    assert "builtins.ValueError" in str(cause["exception"])
    assert "hunter2" not in log.getvalue()


def test_what_a_driver_says_of_a_row_is_not_logged(log: io.StringIO) -> None:
    try:
        try:
            raise psycopg.errors.UniqueViolation(f"Failing row contains ({SECRETS[1]})")
        except psycopg.Error as exc:
            raise DatabaseUnavailableError("PostgreSQL refused.") from exc
    except DatabaseError:
        logging.getLogger("somebody").exception("failed")
    assert "hunter2" not in log.getvalue()
    assert "UniqueViolation (SQLSTATE 23505)" in log.getvalue()
    assert "PostgreSQL refused." in log.getvalue()


@pytest.mark.parametrize("path", ["/ask", "/v1/chat/completions"])
@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"question": 1}', b"", b'{"top_k": "hunter2-question"}'])
async def test_bodies_that_do_not_fit_are_answered_without_repeating_them(path: str, body: bytes) -> None:
    async with client_of(small_app(), headers={**AS_ANNA, "Content-Type": "application/json"}) as client:
        answer = await client.post(path, content=body)
    assert answer.status_code in (400, 422)
    assert "hunter2" not in answer.text
    assert answer.json()["error"]["code"] == "invalid_input"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/ask", 405)])
async def test_what_does_not_exist_is_said_in_the_same_form(method: str, path: str, status: int) -> None:
    async with client_of(small_app(), headers=AS_ANNA) as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"].keys() == {"code", "message", "hint", "request_id"}


@pytest.mark.parametrize("given", ["abc-12345", "A" * 64])
async def test_a_sane_request_id_is_kept(given: str) -> None:
    async with client_of(small_app()) as client:
        answer = await client.get("/nowhere", headers={"X-Request-Id": given})
    assert answer.headers.get_list("X-Request-Id") == [given]


@pytest.mark.parametrize(
    "given", ["", "short", "A" * 65, "synapse_acme.hunter2-key", "a b c d e f g h", '{"x": 1, "y": 2}']
)
async def test_any_other_is_replaced(given: str) -> None:
    async with client_of(small_app()) as client:
        answer = await client.get("/nowhere", headers={"X-Request-Id": given})
    (made,) = answer.headers.get_list("X-Request-Id")
    assert made != given
    assert answer.json()["error"]["request_id"] == made


def test_made_ids_sort_by_when_they_were_made() -> None:
    made = []
    for _ in range(5):
        made.append(new_request_id())
        time.sleep(0.002)
    assert made == sorted(made)
    assert {(one[14], one[19] in "89ab") for one in made} == {("7", True)}


async def test_a_request_is_one_line_with_its_route_and_not_its_path(log: io.StringIO) -> None:
    async with client_of(small_app(), headers=AS_ANNA) as client:
        await client.get("/documents/hunter2-path.pdf?q=hunter2-query", headers={"X-Request-Id": "request-17"})
    (line,) = (line for line in lines(log) if line["logger"] == "synapse.requests")
    assert line.pop("ms") > 0  # type: ignore[operator]
    assert line.pop("time")
    assert line == {
        "level": "info",
        "logger": "synapse.requests",
        "message": "GET /documents/{source:path} 200",
        "method": "GET",
        "route": "/documents/{source:path}",
        "status": 200,
        "tenant": "acme",
        "key": "0000abc0",
        "request_id": "request-17",
    }


@pytest.mark.parametrize(
    ("path", "route"),
    [("/live", "/live"), ("/metrics", "/metrics"), ("/chat/login", "/chat"), ("/chat", "/chat"), ("/mcp/hunter2", "-")],
)
async def test_routes_without_a_template_and_the_page_are_named_too(path: str, route: str, log: io.StringIO) -> None:
    app, page = small_app(), FastAPI()

    @page.post("/login")
    async def login() -> None:
        return None

    app.mount("/chat", page)
    async with client_of(app) as client:
        await client.post(path, headers=AS_ANNA)
    (line,) = (line for line in lines(log) if line["logger"] == "synapse.requests")
    assert line["route"] == route


async def test_libraries_are_heard_when_they_warn(log: io.StringIO) -> None:
    logging.getLogger("httpx").info("HTTP Request: GET /?q=hunter2-query")
    logging.getLogger("httpx").warning("slow")
    logging.getLogger("synapse.service").info("started")
    assert [line["message"] for line in lines(log)] == ["slow", "started"]


async def test_a_hostile_session_leaves_nothing_in_the_log(log: io.StringIO) -> None:
    app = failing_app(ValueError(SECRETS[1]))
    async with client_of(app) as client:
        for headers in (AS_ANNA, {"Authorization": "Bearer synapse_acme.hunter2-key"}, {"X-Api-Key": "hunter2-key"}):
            await client.post("/ask", json={"question": SECRETS[0], "top_k": "hunter2-query"}, headers=headers)
            await client.post("/ask", content=b'{"question": "hunter2-question', headers=headers)
            await client.get("/hunter2-path/%0d%0ahunter2-query?q=hunter2-query", headers=headers)
            await client.get("/fail?q=hunter2-query", headers=headers)
            await client.request("HUNTER2-QUERY", "/ask", headers=headers)
            await client.get(
                "/whoami", headers={**headers, "X-Request-Id": "hunter2-key\x00", "Referer": "hunter2-path"}
            )
            await client.post("/chat/login", data={"password": SECRETS[3]}, headers=headers)
    assert len(lines(log)) >= 20
    assert "hunter2" not in log.getvalue().lower().replace("hunter2-query ", "")
    assert "HUNTER2" not in log.getvalue()


def test_a_terminal_gets_short_lines_that_steer_nothing() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "GET /a\x1b[2J\nfake line", (), None)
    record.ms, record.tenant, record.request_id = 1.5, "acme", "request-17"
    assert logs.ShortLines().format(record)[8:] == " error: GET /a [2J fake line 1.5 ms acme [request-17]"


def test_loguru_shows_no_values(log: io.StringIO) -> None:
    from loguru import logger

    logs.configure(log)
    secret = "hunter2-document"
    try:
        int(secret)
    except ValueError:
        logger.exception("failed")
    assert "hunter2" not in log.getvalue()
    assert lines(log)[-1]["message"] == "failed"
