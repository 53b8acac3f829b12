"""`status`, as a user runs it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from tests.acceptance.program import PROJECT, Program

HEADING = "PostgreSQL 1"


def test_it_is_plain_where_it_is_piped(program: Program) -> None:
    done = program.run("status")
    assert done.returncode == 0, done.stderr
    assert HEADING in done.stdout
    assert "documents_all_minilm_l6_v2_hnsw_index" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_json(program: Program) -> None:
    seen = program.json("status", "--days", "3")
    assert seen["days"] == 3
    assert seen["connections"]["open"] >= 1
    assert {row["name"] for row in seen["tables"]} >= {"documents_all_minilm_l6_v2", "sources"}


def test_watch_and_json_exclude_each_other(program: Program) -> None:
    refused = program.json("status", "--watch", "1", exit_code=2)
    assert refused["error"]["code"] == "invalid_input"


def test_watch_goes_on_until_ctrl_c(program: Program) -> None:
    watching = program.start("status", "--watch", "0.1")
    assert watching.stdout is not None
    found = 0
    while found < 3:
        found += HEADING in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, stderr = watching.communicate(timeout=30)
    assert watching.returncode == 0, stderr
    assert stderr == ""


@pytest.mark.slow
def test_watch_draws_over_itself_in_a_terminal(program: Program) -> None:
    controller, terminal = pty.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    shell = replace(program, environment=program.environment | environment)
    watching = subprocess.Popen(
        [sys.executable, str(PROJECT / "synapse.py"), "status", "--watch", "0.2"],
        env=shell.full_environment(), stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    written, deadline = b"", time.monotonic() + 60
    while written.count(HEADING.encode()) < 3:
        assert time.monotonic() < deadline, written
        written += os.read(controller, 65536)
    watching.send_signal(signal.SIGINT)
    _, stderr = watching.communicate(timeout=30)
    assert watching.returncode == 0, stderr
    assert b"\x1b[?1049h" in written  # the other screen, so that what stood there comes back
    os.close(controller)
