"""What commands print for people."""

from __future__ import annotations

import io

import pytest

from commands import output

STEERING = "before\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp.exe\rafter\ttab\nline"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_documents_say_steers_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    output.say(STEERING)
    assert terminal.getvalue() == "before�]0;title��[2J�31m�gnp.exe�after\ttab\nline\n"


def test_a_file_gets_it_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr("sys.stdout", file)
    output.say(STEERING)
    assert file.getvalue() == STEERING + "\n"
