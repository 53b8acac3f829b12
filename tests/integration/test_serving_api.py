"""The REST routes over real HTTP: which exist, what they answer, to whom."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from database.embedded import EmbeddedServer
from tests.support.serving import RunningService, running

PROJECT = Path(__file__).parents[2]
QUESTION = "How long is the warranty of dishwashers?"

ROUTES = {
    ("GET", "/openapi.json"),
    ("GET", "/live"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("POST", "/ask"),
    ("POST", "/search"),
    ("GET", "/documents"),
    ("POST", "/documents"),
    ("GET", "/documents/jobs/{id}"),
    ("DELETE", "/documents/{source:path}"),
    ("GET", "/fields"),
    ("GET", "/conversations"),
    ("GET", "/conversations/{id}"),
    ("DELETE", "/conversations/{id}"),
    ("POST", "/messages/{id}/feedback"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/mcp"),
    ("DELETE", "/mcp"),
}
"""Every route that exists, without the page."""


@pytest.fixture(scope="module")
def service(server: EmbeddedServer | None, owner_conninfo: str) -> Iterator[RunningService]:
    with running(server, owner_conninfo) as found:
        yield found


@pytest.fixture
def client(service: RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, headers=service.headers("acme"), timeout=30) as found:
        yield found


@pytest.fixture
def stranger(service: RunningService) -> Iterator[httpx.Client]:
    """A user of the other tenant."""
    with httpx.Client(base_url=service.url, headers=service.headers("globex"), timeout=30) as found:
        yield found


def routes_of(app: Any) -> tuple[set[tuple[str, str]], set[str]]:
    """Methods and paths of all routes but HEAD's, and the paths of all mounts."""
    from fastapi.routing import iter_route_contexts
    from starlette.routing import Mount

    routes, mounts = set(), set()
    for context in iter_route_contexts(app.router.routes):
        if isinstance(context.original_route, Mount):
            mounts.add(context.original_route.path)
        else:
            assert context.methods, context.path  # a route without methods would take them all
            routes |= {(method, context.path) for method in context.methods}
    return {(method, path) for method, path in routes if method != "HEAD"}, mounts


def test_every_route_that_exists_is_known(service: RunningService) -> None:
    assert routes_of(service.app) == (ROUTES, set())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/deploy_files"),
        ("POST", "/deploy-yaml"),
        ("POST", "/deploy"),
        ("POST", "/undeploy/synapse"),
        ("GET", "/draw/synapse"),
        ("GET", "/status"),
        ("GET", "/traces"),
        ("GET", "/dashboard"),
        ("POST", "/synapse/run"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/files"),
        ("POST", "/chat/completions"),
        ("GET", "/docs"),
        ("GET", "/redoc"),
        ("GET", "/.well-known/agent-card.json"),
        ("GET", "/mcp"),
    ],
)
def test_what_hayhooks_offers_by_default_is_absent(client: httpx.Client, method: str, path: str) -> None:
    assert client.request(method, path, json={}).status_code in (404, 405)


HOSTILE = """
import json, os, sys
from pathlib import Path
from config import Settings
from serving.app import build_app
from tests.integration.test_serving_api import routes_of

home = Path(sys.argv[1])
app = build_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none", home=home), page=False)
routes, mounts = routes_of(app)
cors = [str(one.cls) for one in app.user_middleware if "CORS" in str(one.cls)]
print(json.dumps({"routes": sorted(routes), "mounts": sorted(mounts), "cors": cors, "leaked": os.environ.get("LEAKED"),
    "pipelines": app.state.pipeline_registry.get_names(), "path": "/hostile" in sys.path}))
"""


def test_variables_and_files_of_hayhooks_open_nothing_up(tmp_path: Path) -> None:
    """Its settings come from the environment, and its import reads the `.env` of the working folder."""
    import json

    (tmp_path / ".env").write_text("LEAKED=1\nHAYHOOKS_TRACING_ENABLED=true\n")
    (tmp_path / "pipelines" / "evil").mkdir(parents=True)
    (tmp_path / "pipelines" / "evil" / "pipeline_wrapper.py").write_text("raise SystemExit('was run')\n")
    hostile = {
        "HAYHOOKS_PIPELINES_DIR": str(tmp_path / "pipelines"),
        "HAYHOOKS_DURABLE_MODE": "true",
        "HAYHOOKS_DURABLE_STORE": "memory",
        "HAYHOOKS_TRACING_ENABLED": "true",
        "HAYHOOKS_MONITORING_ENABLED": "true",
        "HAYHOOKS_CHAINLIT_ENABLED": "true",
        "HAYHOOKS_CORS_ALLOW_ORIGINS": '["*"]',
        "HAYHOOKS_ADDITIONAL_PYTHON_PATH": "/hostile",
        "HAYHOOKS_ROOT_PATH": "/elsewhere",
        "HAYHOOKS_PORT": "no number",
        "HAYHOOKS_LOG_LEVEL": "no level",
        "LOG": "no level",
    }
    environment = {**os.environ, **hostile, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, str(tmp_path / "home")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "routes": sorted(map(list, ROUTES)),
        "mounts": [],
        "cors": [],
        "leaked": None,
        "pipelines": ["synapse", "search"],
        "path": False,
    }


def test_a_search_finds_passages_of_the_callers_tenant_alone(client: httpx.Client, stranger: httpx.Client) -> None:
    ours = client.post("/search", json={"question": QUESTION, "top_k": 2}).json()
    theirs = stranger.post("/search", json={"question": QUESTION, "top_k": 2}).json()
    assert "24 months" in ours["documents"][0]["content"]
    assert "36 months" in theirs["documents"][0]["content"]
    assert len(ours["documents"]) == 2
    assert ours["documents"][0]["meta"]["source"] == "warranty.md"
    assert ours["timings_ms"]["total"] > 0


@pytest.mark.parametrize(
    "filters",
    ["year < 2022", {"field": "meta.year", "operator": "<", "value": 2022}],
    ids=["an expression", "Haystack's form"],
)
def test_filters_narrow_a_search(client: httpx.Client, filters: Any) -> None:
    found = client.post("/search", json={"question": QUESTION, "filters": filters}).json()["documents"]
    assert {document["meta"]["source"] for document in found} == {"acme-only.md"}


def test_an_answer_cites_and_is_stored(client: httpx.Client) -> None:
    answer = client.post("/ask", json={"question": QUESTION}).json()
    assert answer["supported"]
    assert answer["extractive"]
    assert "24 months" in answer["answer"]
    (citation, *_) = answer["citations"]
    assert f"[{citation['number']}]" in answer["answer"]
    assert citation["source"] == "warranty.md"
    kept = client.get(f"/conversations/{answer['session_id']}").json()
    assert [message["role"] for message in kept["messages"]] == ["user", "assistant"]
    assert kept["messages"][0]["content"] == QUESTION
    assert kept["messages"][1]["id"] == answer["message_id"]
    assert kept["messages"][1]["citations"] == answer["citations"]


def test_a_question_can_follow_up(client: httpx.Client) -> None:
    first = client.post("/ask", json={"question": "What is the secret colour of Acme?"}).json()
    again = client.post("/ask", json={"question": "who knows it?", "session_id": first["session_id"]}).json()
    assert again["session_id"] == first["session_id"]
    assert "employees" in again["answer"]
    assert len(client.get(f"/conversations/{first['session_id']}").json()["messages"]) == 4


def test_conversations_are_listed_page_by_page_and_deleted(service: RunningService) -> None:
    with httpx.Client(base_url=service.url, headers=service.headers("acme", "bob"), timeout=30) as bob:
        made = [bob.post("/ask", json={"question": f"Question {n}?"}).json()["session_id"] for n in range(3)]
        first = bob.get("/conversations", params={"limit": 2}).json()
        rest = bob.get("/conversations", params={"limit": 2, "before": first["next_before"]}).json()
        assert [one["id"] for one in first["conversations"] + rest["conversations"]] == made[::-1]
        assert rest["next_before"] is None
        assert bob.delete(f"/conversations/{made[0]}").status_code == 204
        assert bob.get(f"/conversations/{made[0]}").status_code == 404


def test_an_answer_can_be_marked(client: httpx.Client) -> None:
    answer = client.post("/ask", json={"question": QUESTION}).json()
    given = {"mark": -1, "comment": "too long"}
    assert client.post(f"/messages/{answer['message_id']}/feedback", json=given).status_code == 204
    kept = client.get(f"/conversations/{answer['session_id']}").json()["messages"][1]
    assert kept["feedback"] == given


def test_what_is_another_users_or_tenants_is_not_found(service: RunningService, client: httpx.Client) -> None:
    answer = client.post("/ask", json={"question": QUESTION}).json()
    session, message = answer["session_id"], answer["message_id"]
    for tenant, user in (("acme", "bob"), ("globex", "alice")):
        with httpx.Client(base_url=service.url, headers=service.headers(tenant, user), timeout=30) as other:
            assert other.get(f"/conversations/{session}").status_code == 404
            assert other.delete(f"/conversations/{session}").status_code == 404
            assert other.post("/ask", json={"question": QUESTION, "session_id": session}).status_code == 404
            assert other.post(f"/messages/{message}/feedback", json={"mark": 1}).status_code == 404
            assert other.get("/conversations").json()["conversations"] == [] or tenant == "acme"
    assert len(client.get(f"/conversations/{session}").json()["messages"]) == 2


def test_sources_are_listed_page_by_page(client: httpx.Client) -> None:
    first = client.get("/documents", params={"limit": 1}).json()
    rest = client.get("/documents", params={"limit": 1, "after": first["next_after"]}).json()
    assert [one["source"] for one in first["sources"] + rest["sources"]] == ["acme-only.md", "warranty.md"]
    assert rest["next_after"] is None
    assert first["sources"][0]["chunks"] == 1


def test_fields_are_listed_with_values(client: httpx.Client, stranger: httpx.Client) -> None:
    ours = {one["field"]: one for one in client.get("/fields").json()["fields"]}
    assert ours["year"]["types"] == ["number"]
    assert sorted(ours["year"]["examples"]) == [2020, 2024]
    theirs = {one["field"]: one for one in stranger.get("/fields").json()["fields"]}
    assert sorted(theirs["year"]["examples"]) == [2021, 2023]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"question": ""}, 422),
        ({"question": "   "}, 400),
        ({}, 422),
        ({"question": "x", "top_k": 0}, 422),
        ({"question": "x", "top_k": 51}, 400),
        ({"question": "x" * 4001}, 400),
        ({"question": "x", "filters": "year >"}, 400),
        ({"question": "x", "filters": {"operator": "!!"}}, 400),
        ({"question": "x", "filters": 7}, 422),
        ({"question": "x", "topk": 3}, 422),
        ({"question": "nul \x00"}, 400),
    ],
)
@pytest.mark.parametrize("path", ["/ask", "/search"])
def test_what_cannot_be_used_is_said_in_one_form(
    client: httpx.Client, path: str, body: dict[str, Any], status: int
) -> None:
    if path == "/search" and "\x00" in str(body.get("question")):
        pytest.skip("nothing of a search is stored")
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "hint", "request_id"}
    assert error["message"]


def test_ids_that_are_none_are_refused(client: httpx.Client) -> None:
    assert client.get("/conversations/none").status_code == 422
    assert client.get(f"/conversations/{uuid4()}").status_code == 404
    assert client.get(f"/documents/jobs/{UUID(int=0)}").status_code == 404
    assert client.delete("/documents/nothing.md").status_code == 404


def test_every_route_is_described_with_its_errors(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    ours = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    hidden = {"/openapi.json", "/live", "/ready", "/metrics", "/mcp"}
    expected = {(method, path.replace(":path", "")) for method, path in ROUTES if path not in hidden}
    assert {(method, path) for method, path in ours if path not in hidden} == expected
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if path in hidden:
                continue
            assert {"401", "422", "429", "500", "503"} <= operation["responses"].keys(), (method, path)
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    name = answer["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]
                    assert name == ("OpenAIErrorBody" if path.startswith("/v1/") else "ErrorBody")
