"""What `status` shows, against what was done to the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from database.accounts import Accounts
from database.connection import Database
from database.conversations import Conversations, TurnAnswer, Usage
from database.ledger import Ledger
from database.models import active_model
from database.observation import observe
from database.schema import SCHEMA_VERSION
from tests.integration.test_ledger import indexed, state
from tests.tcp_server import PROJECT

TABLE = "documents_all_minilm_l6_v2"


@pytest.fixture
def used(database: Database) -> Database:
    """Two sources, one that is kept out, and four questions of one conversation."""
    ledger = Ledger(database, model=active_model(database))
    ledger.write([indexed("a.md", "one", "two"), indexed("b.md", "three")])
    ledger.quarantine([state("broken.pdf", reason="it is encrypted")])
    identity = Accounts(database).create_user("default", "ada")
    conversations = Conversations(database)
    session = conversations.create_session(identity)
    for milliseconds, supported in ((10.0, True), (20.0, True), (30.0, False), (400.0, True)):
        answer = TurnAnswer(text="yes", supported=supported, extractive=False)
        usage = Usage(milliseconds=milliseconds, supported=supported, tokens_in=100, tokens_out=7, model="m")
        conversations.add_turn(identity, session.id, question="?", answer=answer, usage=usage)
    conversations.close()
    return database


def test_it_tells_what_was_done(used: Database) -> None:
    seen = observe(used)
    today = datetime.now(UTC).date()
    assert seen.tenant == "default"
    assert seen.database == used.name
    assert seen.server["schema_version"] == SCHEMA_VERSION
    assert seen.server["pgvector_version"]
    (sources,) = seen.sources
    assert (sources["model"], sources["active"]) == ("all-minilm-l6-v2", True)
    assert (sources["sources"], sources["chunks"], sources["quarantined"]) == (2, 3, 1)
    assert [(row["source"], row["reason"]) for row in seen.quarantined] == [("broken.pdf", "it is encrypted")]
    (growth,) = seen.growth
    assert growth == {"day": today, "sources": 2, "chunks": 3, "bytes": 2, "conversations": 1}
    (day,) = seen.questions
    assert (day["day"], day["questions"], day["empty_answers"]) == (today, 4, 1)
    assert (day["tokens_in"], day["tokens_out"]) == (400, 28)
    assert (day["p50_ms"], day["max_ms"]) == (25.0, 400.0)
    assert [row["milliseconds"] for row in seen.slowest] == [400.0, 30.0, 20.0, 10.0]
    assert {TABLE, f"{TABLE}_keywords", f"{TABLE}_terms", "sources"} <= {row["name"] for row in seen.tables}
    assert f"{TABLE}_hnsw_index" in {row["name"] for row in seen.indexes}
    assert (seen.builds, seen.replicas, seen.statements) == ([], [], [])


def test_days_before_are_left_out(used: Database, owner_conninfo: str) -> None:
    with psycopg.connect(owner_conninfo) as connection:
        for table, column in (("usage_logs", "at"), ("sources", "indexed_at"), ("chat_sessions", "created_at")):
            connection.execute(f"UPDATE {table} SET {column} = {column} - interval '3 days'")  # noqa: S608
    before = observe(used, days=3)
    assert (before.growth, before.questions, before.slowest) == ([], [], [])
    with_it = observe(used, days=4)
    then = datetime.now(UTC).date() - timedelta(days=3)
    assert ([row["day"] for row in with_it.growth], [row["day"] for row in with_it.questions]) == ([then], [then])
    assert len(with_it.slowest) == 4


def test_connections(used: Database, owner: Database, owner_conninfo: str) -> None:
    before = observe(used, owner=owner).connections
    with psycopg.connect(owner_conninfo) as held:
        held.execute("SELECT 1")
        time.sleep(1.1)
        seen = observe(used, owner=owner).connections
        as_application = observe(used).connections
    assert seen["open"] >= before["open"] + 1
    assert seen["idle_in_transaction"] == before["idle_in_transaction"] + 1
    assert seen["longest_transaction_seconds"] >= 1
    assert seen["hidden"] == 0
    if observe(used).server["role"] != observe(owner.for_tenant("default")).server["role"]:
        assert as_application["hidden"] >= 1  # the owner's state is not the application's to see
    with psycopg.connect(owner_conninfo) as connection:
        (most,) = (
            connection.execute("SELECT setting::integer FROM pg_settings WHERE name = 'max_connections'").fetchone()
            or ()
        )
    assert seen["most"] == most


@contextmanager
def index_build_that_waits(owner_conninfo: str) -> Iterator[None]:
    """A concurrent build that cannot go on, as somebody writes."""
    with psycopg.connect(owner_conninfo) as writer:
        writer.execute(f"INSERT INTO {TABLE} (id) VALUES ('unfinished')")  # noqa: S608

        def build() -> None:
            with psycopg.connect(owner_conninfo, autocommit=True) as builder:
                builder.execute(f"CREATE INDEX CONCURRENTLY watched_build ON {TABLE} (content)")

        building = threading.Thread(target=build)
        building.start()
        yield
        writer.rollback()
        building.join()
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute("DROP INDEX watched_build")


def test_an_index_build(used: Database, owner: Database, owner_conninfo: str) -> None:
    with index_build_that_waits(owner_conninfo):
        deadline = time.monotonic() + 30
        while not (builds := observe(used, owner=owner).builds):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        indexes = {row["name"]: row["valid"] for row in observe(used).indexes}
    (build,) = builds
    assert (build["index"], build["table"]) == ("watched_build", TABLE)
    assert build["phase"].startswith("waiting for writers")
    assert build["seconds"] >= 0
    assert indexes["watched_build"] is False
    assert observe(used, owner=owner).builds == []


def test_the_last_certificate_of_each_table(used: Database) -> None:
    with used.connection() as connection:
        for days, recall in ((2, 0.5), (1, 0.99)):
            connection.execute(
                "INSERT INTO recall_certificates (table_name, measured_at, ef_search, top_k, recall, lower, certificate)"
                " VALUES (%s, now() - make_interval(days => %s), 200, 10, %s, 0.4, '{}')",
                (TABLE, days, recall),
            )
    found = observe(used).certificates
    with used.connection() as connection:
        connection.execute("DELETE FROM recall_certificates")
    assert [(row["table"], row["recall"], row["lower"], row["top_k"]) for row in found] == [(TABLE, 0.99, 0.4, 10)]


def test_no_statement_names_a_table_that_a_tenant_shares_without_its_tenant() -> None:
    """Where a superuser looks, no policy holds the tenants apart: the statements do."""
    text = (PROJECT / "database" / "observation.sql").read_text(encoding="utf-8")
    parts = text.split("\n-- ")
    shared = [
        part for part in parts if "usage_logs" in part or "recall_certificates" in part or "synapse_growth" in part
    ]
    assert len(shared) == 4
    assert all("tenant = %(tenant)s" in part for part in shared)
