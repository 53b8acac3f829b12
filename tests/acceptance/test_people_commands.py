"""`users`, `keys`, `conversations`, `usage` and the stored `chat` as processes."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from database.accounts import Accounts
from database.connection import Database
from database.conversations import Conversations, TurnAnswer, Usage
from tests.acceptance.program import Program
from tests.support.answering import index_texts
from tests.support.people import counts, empty

PASSWORD = "correct horse battery"
ME = getpass.getuser()


@pytest.fixture
def people(session_database: Database, owner_conninfo: str, short_folder: Path) -> Iterator[Program]:
    """The program on the tests' database, where nobody is known."""
    empty(owner_conninfo)
    home = short_folder / f"people-{os.urandom(4).hex()}"
    yield Program(home=home, environment={"DATABASE_URL": session_database.conninfo})
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def accounts(session_database: Database) -> Accounts:
    return Accounts(session_database)


def test_users(people: Program, accounts: Accounts) -> None:
    assert people.run("users", "list").stdout == "There are no users yet.\n"
    made = people.json("users", "create", "ann", "--password-stdin", stdin=PASSWORD + "\n")
    assert set(made) == {"id", "name", "tenant", "has_password"}
    assert made["has_password"]
    assert asyncio.run(accounts.authenticate_password_async("ann", PASSWORD)) is not None
    assert people.json("users", "create", "ann", exit_code=2)["error"]["code"] == "invalid_input"

    people.json("users", "password", "ann", "--password-stdin", stdin="another " + PASSWORD)
    assert asyncio.run(accounts.authenticate_password_async("ann", PASSWORD)) is None
    assert people.json("users", "password", "ann", "--remove") == {"name": "ann", "has_password": False}
    (listed,) = people.json("users", "list")["users"]
    assert set(listed) == {"id", "name", "has_password", "created_at"}
    assert not listed["has_password"]


def test_passwords_come_from_no_argument(people: Program, accounts: Accounts) -> None:
    accounts.create_user("default", "ann")
    refused = people.json("users", "password", "ann", exit_code=2)["error"]
    assert "--password-stdin" in refused["hint"]
    assert people.run("users", "password", "ann", PASSWORD).returncode == 2
    short = people.run("users", "create", "bob", "--password-stdin", stdin="sh0rt\n")
    assert short.returncode == 2
    assert "sh0rt" not in short.stdout + short.stderr


def test_keys(people: Program, accounts: Accounts) -> None:
    accounts.create_user("default", "ann")
    made = people.json("keys", "create", "ann", "--label", "laptop", "--daily-tokens", 5)
    text = made.pop("key")
    identity = asyncio.run(accounts.authenticate_key_async(text))
    assert identity is not None
    assert (identity.user_name, identity.daily_tokens) == ("ann", 5)

    printed = people.run("keys", "create", "ann")
    assert asyncio.run(accounts.authenticate_key_async(printed.stdout.strip())) is not None
    listed = people.json("keys", "list")["keys"]
    assert [key["label"] for key in listed] == ["laptop", ""]
    assert set(listed[0]) == set(made)
    shown = people.run("keys", "list")
    assert "laptop" in shown.stdout
    for secret in (text, printed.stdout.strip()):
        assert secret.split(".")[1][:7] not in shown.stdout + json.dumps(listed)

    assert people.json("keys", "revoke", made["id"])["revoked_at"]
    assert asyncio.run(accounts.authenticate_key_async(text)) is None
    assert people.json("keys", "revoke", "nonsense", exit_code=2)["error"]["code"] == "invalid_input"
    unknown = people.json("keys", "revoke", "0f8fad5b-d9cb-469f-a165-70867728950e", exit_code=1)["error"]
    assert unknown["code"] == "not_found"
    assert people.json("keys", "create", "nobody", exit_code=1)["error"]["code"] == "not_found"


@pytest.fixture
def asked(session_database: Database, accounts: Accounts, people: Program) -> Iterator[Conversations]:
    """A conversation of the local user's, with a mark."""
    conversations = Conversations(session_database)
    me = accounts.create_user("default", ME)
    session = conversations.create_session(me, title="Warranty")
    answer = TurnAnswer(
        text="24 months. [1]", supported=True, extractive=True, citations=[{"number": 1, "source": "w"}]
    )
    message = conversations.add_turn(
        me, session.id, question="How long?", answer=answer, usage=Usage(tokens_in=7, supported=False)
    )
    conversations.give_feedback(me, message.id, mark=-1, comment="wrong")
    yield conversations
    conversations.close()


def test_conversations(people: Program, asked: Conversations, tmp_path: Path) -> None:
    (one,) = people.json("conversations", "list")["conversations"]
    assert (one["title"], one["messages"]) == ("Warranty", 2)
    assert people.json("conversations", "list", "--search", "nothing")["conversations"] == []
    assert one["id"] in people.run("conversations", "list", "--user", ME).stdout
    shown = people.run("conversations", "show", one["id"])
    assert shown.stdout == "Warranty\n\n> How long?\n24 months. [1]\n  [1] w\n  marked as bad: wrong\n"
    assert people.json("conversations", "show", one["id"])["messages"][1]["feedback"]["comment"] == "wrong"

    exported = people.json("conversations", "export")
    assert set(exported) == {"user", "conversations", "keys", "usage"}
    file = tmp_path / "export.json"
    assert people.json("conversations", "export", "--output", file) == {"output": str(file), "conversations": 1}
    assert json.loads(file.read_text()) == exported
    assert file.stat().st_mode & 0o777 == 0o600
    assert people.run("conversations", "export", "--output", file).returncode == 2

    assert people.json("conversations", "delete", one["id"], exit_code=4)["error"]["code"] == "refused"
    assert people.json("conversations", "delete", one["id"], "--yes") == {"deleted": one["id"], "messages": 2}
    assert people.json("conversations", "show", one["id"], exit_code=1)["error"]["code"] == "not_found"
    assert people.json("conversations", "list", "--user", "bob", exit_code=1)["error"]["code"] == "not_found"


def test_deleting_a_user(people: Program, asked: Conversations, owner_conninfo: str) -> None:
    refused = people.json("users", "delete", ME, exit_code=4)["error"]
    assert "1 conversation, 2 messages, 1 mark, 1 usage record, 0 keys" in refused["message"]
    gone = people.json("users", "delete", ME, "--yes")
    assert gone == {"deleted": ME, "conversations": 1, "messages": 2, "feedback": 1, "usage": 1, "keys": 0}
    assert set(counts(owner_conninfo).values()) == {0}


def test_usage(people: Program, asked: Conversations) -> None:
    (today,) = people.json("usage")["days"]
    assert today["questions"] == today["empty_answers"] == today["bad_marks"] == 1
    assert today["tokens_in"] == 7
    shown = people.run("usage", "--days", 1).stdout.splitlines()
    assert [line for line in shown if line.split()[:3] == [today["day"], "1", "7"]]


@pytest.mark.parametrize(
    "arguments", [("0f8fad5b-d9cb-469f-a165-70867728950e",), ("--continue", "x"), ("--continue", "--no-store")]
)
def test_chat_says_what_does_not_go_together(people: Program, arguments: tuple[str, ...]) -> None:
    done = people.run("chat", *arguments, stdin="")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.slow
def test_chat_is_stored_and_goes_on(database: Database, people: Program, owner_conninfo: str) -> None:
    index_texts(database)
    done = people.run("chat", "--continue", stdin="")
    assert done.returncode == 1
    assert "there is none yet" in done.stderr

    done = people.run("chat", stdin="What is the default of ef_search?\n/history\n/new\n/history\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("its default is 100. [1]") == 2
    assert "Nothing was said yet." in done.stdout
    people.run("chat", "--no-store", stdin="How long is the warranty?\n/history\n")
    (one,) = people.json("conversations", "list")["conversations"]

    done = people.run("chat", "--continue", stdin="and on Docker?\n")
    assert "Going on with “What is the default of ef_search?” (2 messages)." in done.stdout
    assert "On Docker you set ef_search" in done.stdout
    done = people.run("chat", "--continue", one["id"], stdin="/history\n")
    assert "> and on Docker?" in done.stdout
    assert counts(owner_conninfo)["chat_messages"] == 4
    assert people.json("usage")["days"][0]["questions"] == 2
    refused = people.run("chat", "--continue", "0f8fad5b-d9cb-469f-a165-70867728950e", stdin="")
    assert refused.returncode == 1
