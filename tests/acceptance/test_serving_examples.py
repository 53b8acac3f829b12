"""The examples for chat code, run as a reader runs them: as programs, from another folder, against real servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from database.connection import Database
from database.embedded import EmbeddedServer
from tests.acceptance.program import PROJECT, Program
from tests.fake_llm import FakeLanguageModel, Message, Reply, ToolCall
from tests.support.answering import index_texts
from tests.support.serving import RunningService, running
from tests.tcp_server import free_port

pytestmark = pytest.mark.slow

HOW_LONG = "How long is the warranty of a dishwasher?"


@pytest.fixture
def elsewhere(database: Database, short_folder: Path) -> Program:
    """A reader's shell: this folder on PYTHONPATH, indexed documents."""
    index_texts(database)
    environment = {"DATABASE_URL": database.conninfo, "PYTHONPATH": str(PROJECT)}
    return Program(home=short_folder / f"examples-{os.urandom(4).hex()}", environment=environment)


def run(program: Program, name: str, folder: Path, *, stdin: str = "", **environment: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}"],
        cwd=folder,
        env={**program.full_environment(), **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_chat_loop_understands_a_follow_up(elsewhere: Program, tmp_path: Path) -> None:
    shown = run(elsewhere, "chat_loop", tmp_path, stdin="What is the default of ef_search?\nand on Docker?\n")
    first, second = shown.strip("> \n").split("\n> ")
    assert "its default is 100. [1]" in first
    assert "\n  [1] search.md: 'The setting ef_search says" in first
    assert "On Docker you set ef_search in the file .env" in second
    loop = (PROJECT / "examples" / "chat_loop.py").read_text()
    assert len(loop.splitlines()) <= 35


def test_an_agent_asks_the_documents(elsewhere: Program, tmp_path: Path) -> None:
    def reply(messages: list[Message]) -> Reply:
        if "<document " in messages[-1]["content"]:
            return "It is 24 months [1]."  # the query pipeline's own question
        if messages[-1]["role"] == "tool":
            return f"The documents say: {messages[-1]['content']}"
        return ToolCall("ask_documents", {"question": HOW_LONG})

    with FakeLanguageModel(reply) as server:
        shown = run(elsewhere, "haystack_agent", tmp_path, LLM_BASE_URL=server.url)
    assert shown.startswith(f"ask_documents: {HOW_LONG}\nThe documents say: It is 24 months [1].")
    assert "[1] warranty.md: Dishwashers carry a warranty of 24 months." in shown
    (tool,) = server.requests[0]["tools"]
    assert list(tool["function"]["parameters"]["properties"]) == ["question"]


def test_an_application_of_ones_own_streams(elsewhere: Program, tmp_path: Path) -> None:
    with FakeLanguageModel("It is 24 months [1].") as server:
        environment = {**elsewhere.full_environment(), "LLM_BASE_URL": server.url}
        with uvicorn("examples.fastapi_streaming:app", tmp_path, environment) as url:
            events = [*asked(url, HOW_LONG)]
            assert [kind for kind, _ in events] == ["text"] * 5 + ["answer"]
            assert "".join(data for kind, data in events if kind == "text") == events[-1][1]["text"]
            assert events[-1][1]["citations"][0]["quote"] == "Dishwashers carry a warranty of 24 months."
            server.forever = "401"
            assert [*asked(url, HOW_LONG)][-1][0] == "error"


VISITS = {
    "visits.md": (
        "A group visit lasts two hours. A group visit must be booked 14 days in advance.",
        {"title": "Visits"},
    )
}


@pytest.fixture(scope="module")
def served(server: EmbeddedServer | None, owner_conninfo: str) -> Iterator[RunningService]:
    def reply(messages: list[Message]) -> Reply:
        if "Rewrite" in messages[0]["content"]:
            return "How far in advance must a group visit be booked?"
        booked = "booked" in messages[-1]["content"].splitlines()[-1]
        return "It must be booked 14 days in advance [1]." if booked else "A group visit lasts two hours [1]."

    with (
        FakeLanguageModel(reply) as model,
        running(server, owner_conninfo, tenants={"observatory": VISITS}, llm_base_url=model.url) as service,
    ):
        yield service


def run_against(served: RunningService, name: str, folder: Path) -> str:
    program = Program(home=folder, environment={"PYTHONPATH": str(PROJECT)})
    key = served.headers("observatory")["Authorization"].removeprefix("Bearer ")
    return run(program, name, folder, SYNAPSE_URL=served.url, SYNAPSE_KEY=key)


def test_openais_client(served: RunningService, tmp_path: Path) -> None:
    shown = run_against(served, "openai_client", tmp_path)
    first, second = shown.removeprefix("> ").split("\n> ")
    assert "A group visit lasts two hours [1].\n  [1] visits.md: 'A group visit lasts two hours.'" in first
    assert "It must be booked 14 days in advance [1].\n  [1] visits.md: 'A group visit must be booked" in second
    listed = httpx.get(f"{served.url}/conversations", headers=served.headers("observatory")).json()["conversations"]
    assert listed[0]["message_count"] == 4, "both questions stand in one conversation"


def test_an_mcp_client(served: RunningService, tmp_path: Path) -> None:
    shown = run_against(served, "mcp_client", tmp_path)
    assert "search_documents: Find passages" in shown
    assert "answer_question: Answer a question" in shown
    assert "  visits.md\n" in shown
    assert shown.endswith("A group visit lasts two hours [1].\n  [1] visits.md: 'A group visit lasts two hours.'\n")


def asked(url: str, question: str) -> Iterator[tuple[str, Any]]:
    """The events of an answer: kind and data."""
    with httpx.stream("GET", f"{url}/ask", params={"question": question}, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        kind = ""
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value)


@contextmanager
def uvicorn(app: str, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of an application that runs as a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            try:
                httpx.get(f"{url}/openapi.json")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        assert process.poll() is None, process.stderr and process.stderr.read()
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=30)
