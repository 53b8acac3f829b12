"""`ask`, `search` and `chat` as processes."""

from __future__ import annotations

import importlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from database.connection import Database
from tests.acceptance.program import PROJECT, Program
from tests.fake_llm import FakeLanguageModel
from tests.support.answering import index_texts

HOW_LONG = "How long is the warranty of a dishwasher?"


@pytest.fixture
def asking(database: Database, short_folder: Path) -> Program:
    index_texts(database)
    home = short_folder / f"asking-{os.urandom(4).hex()}"
    return Program(home=home, environment={"DATABASE_URL": database.conninfo, "HF_HUB_OFFLINE": "1"})


def test_ask_in_json(asking: Program) -> None:
    found = asking.json("ask", HOW_LONG, "What is the capital of Mongolia?")["answers"]
    assert set(found[0]) == {
        *("answer", "supported", "extractive", "citations", "documents", "unsupported", "timings_ms"),
    }
    assert found[0]["supported"]
    assert found[0]["extractive"]
    citation = found[0]["citations"][0]
    assert set(citation) == {"number", "source", "page", "heading", "quote", "span", "document_id"}
    assert citation["quote"] == "Dishwashers carry a warranty of 24 months."
    assert found[0]["documents"][0]["id"] == citation["document_id"]
    assert not found[1]["supported"]


def test_ask_for_people(asking: Program) -> None:
    done = asking.run("ask", "What is the default of ef_search?", "--filter", "year == 2023", "--top-k", 2)
    assert done.returncode == 0, done.stderr
    assert "[1] search.md (page 3, Settings > Search)" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_search(asking: Program) -> None:
    found = asking.json("search", "warranty", "--top-k", 1, "--filter", "lang == 'en'", "--explain")
    assert [document["meta"]["source"] for document in found["documents"]] == ["warranty.md"]
    plan = found["explain"]
    assert plan["dense"]["way"] == f"every document that passes compared: {plan['dense']['looked_at']} read"
    assert plan["keyword"]["proposed"] >= 1
    assert plan["execution_ms"] > 0
    assert set(found["documents"][0]) == {"id", "score", "content", "meta"}
    assert found["timings_ms"]["total"] > 0


@pytest.mark.parametrize("command", ["ask", "search"])
def test_a_malformed_filter_is_refused_before_anything_is_loaded(program: Program, command: str) -> None:
    began = time.monotonic()
    error = program.json(command, "x", "--filter", "lang ==", exit_code=2)["error"]
    assert error["code"] == "invalid_input"
    assert error["message"].splitlines()[-1].endswith("^")
    assert not program.home.exists()
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_a_language_model_that_fails(asking: Program) -> None:
    with FakeLanguageModel(forever="500") as server:
        environment = {**asking.environment, "LLM_BASE_URL": server.url, "OPENAI_API_KEY": "sk-very-secret"}
        failing = Program(home=asking.home, environment=environment)
        done = failing.run("ask", HOW_LONG, "--json")
        assert done.returncode == 1
        assert '"language_model"' in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        assert "sk-very-secret" not in done.stdout + done.stderr
        assert failing.json("ask", HOW_LONG, "--no-llm")["extractive"]


@pytest.mark.slow
def test_chat_from_a_file(asking: Program) -> None:
    lines = [
        *(
            "What is the default of ef_search?",
            "and on Docker?",
            "/sources",
            "/sources 1",
            "/sources 99",
            "/filter lang =",
        ),
        *('/filter lang == "de"', "Welche Garantie hat der Kaffeeautomat?", "/filter", "/new", "/sources", "/bogus"),
        *("/help", "/quit", "never asked"),
    ]
    done = asking.run("chat", stdin="\n".join(lines))
    assert done.returncode == 0, done.stderr
    assert "its default is 100. [1]" in done.stdout
    assert "the file .env of the project. [1]" in done.stdout
    assert "eine Garantie von 12 Monaten. [1]" in done.stdout
    assert "The last answer has no documents." in done.stdout
    assert "never asked" not in done.stdout
    assert "no command /bogus" in done.stderr
    assert "a number from 1 to" in done.stderr
    assert "at character 7" in done.stderr


@pytest.mark.slow
def test_chat_in_a_terminal_survives_ctrl_c(asking: Program) -> None:
    with FakeLanguageModel("slow " * 400 + "[1].", token_delay=0.05) as server:
        environment = {**asking.environment, "LLM_BASE_URL": server.url, "TERM": "dumb"}
        program = Program(home=asking.home, environment=environment)
        controller, terminal = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "synapse.py"), "chat"],
            env=program.full_environment(),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        try:
            read_until(controller, "/help for more")
            os.write(controller, f"{HOW_LONG}\n".encode())
            read_until(controller, "slow slow")
            process.send_signal(signal.SIGINT)
            # What was interrupted is part of the conversation: the question is rewritten with it.
            server.answer = lambda messages: HOW_LONG if "Rewrite" in str(messages[0]) else "It is 24 months [1]."
            read_until(controller, "> $")
            os.write(controller, f"{HOW_LONG}\n".encode())
            read_until(controller, r"Sources\s.*warranty\.md.*> $")
            os.write(controller, b"\x04")
            assert process.wait(30) == 0
        finally:
            process.kill()
            os.close(controller)
    history = asking.home / "chat_history"
    assert HOW_LONG in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


def read_until(controller: int, pattern: str, patience: float = 90.0) -> str:
    """What a terminal showed, up to a pattern."""
    shown = ""
    end = time.monotonic() + patience
    while not re.search(pattern, shown, re.DOTALL):
        ready, _, _ = select.select([controller], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"{pattern!r} was expected; the terminal showed {shown!r}"
        shown += os.read(controller, 4096).decode(errors="replace")
    return shown


@pytest.mark.parametrize("name", ["demo", "ask", "streaming", "filters", "own_pipeline"])
def test_examples_run(
    name: str, asking: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, value in asking.environment.items():
        monkeypatch.setenv(variable, value)
    importlib.import_module(f"examples.{name}").main()
    assert capsys.readouterr().out.strip()
