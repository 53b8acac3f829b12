"""`serve` as a process: when it refuses to start, where it says it is, and how it leaves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.acceptance.program import Program
from tests.fake_llm import FakeLanguageModel

QUESTION = {
    "model": "synapse",
    "stream": True,
    "messages": [{"role": "user", "content": "How long is the warranty of dishwashers?"}],
}


@pytest.fixture(scope="module")
def program(short_folder: Path) -> Iterator[Program]:
    """A home with a user, a key and a document."""
    home = short_folder / f"serve-{os.urandom(4).hex()}"
    found = Program(home=home, environment={"HAYSTACK_TELEMETRY_ENABLED": "false"})
    yield found
    shutil.rmtree(home, ignore_errors=True)


@contextmanager
def served(program: Program, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str], list[str]]]:
    """The service on a free port: its address, the process, and the lines that it wrote so far."""
    process = program.start("serve", "--port", "0", *arguments)
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    for stream in (process.stdout, process.stderr):
        threading.Thread(target=lines.extend, args=(stream,), daemon=True).start()
    try:
        deadline = time.monotonic() + 90
        while not any(line.startswith("MCP") for line in lines):
            assert process.poll() is None, "".join(lines)
            assert time.monotonic() < deadline, "".join(lines)
            time.sleep(0.05)
        address = next(re.search(r"http://\S+?:\d+", line) for line in lines if line.startswith("MCP"))
        assert address is not None
        yield address[0], process, lines
    finally:
        process.kill()
        process.wait()


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What an error says: no traceback, nothing on standard output."""
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def test_without_a_user_it_says_how_to_make_one(program: Program) -> None:
    done = program.run("serve")
    assert done.returncode == 4
    assert "python synapse.py users create NAME --password" in one_sentence(done)
    assert "python synapse.py keys create NAME" in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_keys_it_serves_this_machine_alone(program: Program, host: str) -> None:
    done = program.run("serve", "--no-auth", "--host", host)
    assert done.returncode == 2
    assert "--no-auth was expected on this machine alone" in one_sentence(done)


def test_a_port_that_is_taken_is_one_sentence(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = program.run("serve", "--no-auth", "--port", other.getsockname()[1])
    assert done.returncode == 1
    assert "another program listens there" in one_sentence(done)


def test_an_address_that_is_none_is_one_sentence(program: Program) -> None:
    done = program.run("serve", "--host", "no such host")
    assert done.returncode == 2
    assert "is none that is known" in one_sentence(done)


def test_a_role_that_comes_past_the_policies_is_refused(program: Program) -> None:
    started = program.json("database", "status")  # starts the server, and says where
    assert started
    superuser = f"host={program.home / 'postgres'} user=postgres dbname=synapse"
    with _kept_running(program):
        done = replace(program, environment={**program.environment, "DATABASE_URL": superuser}).run(
            "serve", "--no-auth"
        )
    assert done.returncode == 4, done.stderr
    assert "row-level security binds was expected" in one_sentence(done)
    assert "SUPERUSER" in done.stderr.upper()


@pytest.mark.slow
def gone(url: str, *, within: float) -> bool:
    """Whether the port is closed in time."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            httpx.get(f"{url}/live", timeout=1)
        except httpx.TransportError:
            return True
    return False


def test_it_serves_drains_and_leaves(program: Program, tmp_path: Path) -> None:
    program.json("users", "create", "alice")
    key = program.json("keys", "create", "alice")["key"]
    (tmp_path / "warranty.md").write_text("The warranty of dishwashers is 24 months.")
    program.json("index", tmp_path)
    headers = {"Authorization": f"Bearer {key}"}
    with FakeLanguageModel(" ".join(["word"] * 40) + " [1].", token_delay=0.1) as llm:
        with_model = replace(program, environment={**program.environment, "LLM_BASE_URL": llm.url})
        with served(with_model, "--no-page") as (url, process, lines):
            assert httpx.get(f"{url}/ready").json()["ready"]
            assert httpx.get(f"{url}/v1/models").status_code == 401
            found = httpx.post(f"{url}/search", json={"question": "warranty"}, headers=headers).json()
            assert "24 months" in found["documents"][0]["content"]

            with httpx.stream(
                "POST", f"{url}/v1/chat/completions", json=QUESTION, headers=headers, timeout=30
            ) as stream:
                events = stream.iter_lines()
                next(events)
                process.send_signal(signal.SIGTERM)
                time.sleep(0.2)
                leaving = httpx.get(f"{url}/ready", timeout=5)  # so that a load balancer sends nobody else
                assert (leaving.status_code, leaving.json()["stopping"]) == (503, True)
                assert httpx.post(f"{url}/search", json={"question": "x"}, headers=headers).status_code == 503
                assert gone(url, within=10)
                rest = [event for event in events if event]
            assert rest[-1] == "data: [DONE]"
            assert sum("word" in event for event in rest) > 20
            assert process.wait(timeout=30) == 0
        assert "24 months" not in "".join(lines)
        assert key not in "".join(lines)

        llm.token_delay = 1.0
        with (
            served(with_model, "--no-page") as (url, process, _),
            httpx.stream("POST", f"{url}/v1/chat/completions", json=QUESTION, headers=headers, timeout=30) as stream,
        ):
            events = stream.iter_lines()
            next(events)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert process.poll() is None  # it waits for the answer
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 1
            assert time.monotonic() - began < 20  # the model alone takes 40
    assert "whole" in conversations(program)  # of the other, as much as could be stored at once


def conversations(program: Program) -> list[str]:
    """How the answers that are stored ended, sorted."""
    told = program.json("conversations", "export", "--user", "alice")
    answers = [
        message for one in told["conversations"] for message in one["messages"] if message["role"] == "assistant"
    ]
    return sorted("interrupted" if answer["interrupted"] else "whole" for answer in answers)


@contextmanager
def _kept_running(program: Program) -> Iterator[None]:
    """The embedded server, while another program connects to it by its socket."""
    from database.embedded import server_for

    server = server_for(program.home)
    server.start()
    try:
        yield
    finally:
        server.stop()
