"""Upgrades and downgrades that are killed, take turns, are refused, or come to a database that is not as they expect."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from database import online, schema
from database.connection import Database
from database.embedded import APPLICATION_ROLE
from database.errors import DatabaseError, GuardError, SchemaError
from database.models import EmbeddingModel, add_model
from database.online import SchemaProgress
from database.schema_status import status
from database.tenancy import create_tenant, require_bound
from tests.support.schema_versions import TABLE, catalog, checksum, fill, require_keywords
from tests.tcp_server import PROJECT


class Killed(Exception):
    """Stands for whatever ends the process: the connection goes, and with it the transaction and the turn."""


class AtEachStep:
    """Ends a change at the first step that it has not ended yet."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []

    def __call__(self, step: SchemaProgress) -> None:
        if (step.version, step.step) not in self.steps:
            self.steps.append((step.version, step.step))
            raise Killed


def until_done(change: Callable[[AtEachStep], Any]) -> AtEachStep:
    """Begin it again and again, until nothing is left to be killed at."""
    steps = AtEachStep()
    while True:
        try:
            change(steps)
        except Killed:
            continue
        return steps


@pytest.fixture
def first(empty_conninfo: str) -> str:
    """A database at the first version, with documents."""
    with psycopg.connect(empty_conninfo, autocommit=True) as connection:
        fill(connection, 100)
    return empty_conninfo


def state(conninfo: str) -> tuple[dict[str, list[str]], Any]:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return catalog(connection), checksum(connection)


def test_killed_at_each_step_it_goes_on(first: str) -> None:
    with psycopg.connect(first, autocommit=True) as connection:
        before = checksum(connection)
        steps = until_done(lambda steps: schema.upgrade(first, finish=True, on_progress=steps))
        assert len(steps.steps) > 20
        up = catalog(connection)
        require_keywords(connection)

        until_done(lambda steps: schema.downgrade(first, "0001", on_progress=steps))
        down = catalog(connection)
        schema.upgrade(first, finish=True)
        assert catalog(connection) == up
        schema.downgrade(first, "0001")
        assert catalog(connection) == down
        assert checksum(connection) == before


@pytest.mark.slow
def test_a_downgrade_that_was_killed_is_taken_back_by_an_upgrade(first: str) -> None:
    schema.upgrade(first, finish=True)
    up = state(first)
    steps = AtEachStep()
    while True:
        try:
            schema.downgrade(first, "0001", on_progress=steps)
        except Killed:
            noted = status(Database(first)).upgrade
            assert noted == {"before": "0006", "after": "0001", "running": False} or len(steps.steps) == 1
            schema.upgrade(first, finish=True)
            assert state(first) == up
            if len(steps.steps) > 8:  # the versions' first steps, and the tables' of 0004
                break
    assert status(Database(first)).upgrade is None


def test_an_upgrade_that_was_killed_is_taken_back_by_a_downgrade(first: str) -> None:
    def kill(step: SchemaProgress) -> None:
        if step.step.startswith("building"):
            raise Killed

    with pytest.raises(Killed):
        schema.upgrade(first, on_progress=kill)
    found = status(Database(first))
    assert found.schema_version == "0001"
    assert found.upgrade == {"before": "0001", "after": schema.SCHEMA_VERSION, "running": False}
    done = schema.downgrade(first, "0001")
    assert done.after == "0001"
    assert status(Database(first)).upgrade is None
    with psycopg.connect(first) as connection:
        assert connection.execute("SELECT to_regclass(%s)", (f"{TABLE}_keywords",)).fetchone() == (None,)


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", ["0002  keyword tables", "0002  keywords of", "0002  building", "0004  binding", "0006"]
)
def test_kill_9(first: str, place: str) -> None:
    with psycopg.connect(first, autocommit=True) as connection:
        before = checksum(connection)
        program = (
            "import os, signal, sys; from database import schema\n"
            f"def kill(step):\n    if f'{{step.version}}  {{step.step}}'.startswith({place!r}):\n"
            "        if step.done or step.total is None: os.kill(os.getpid(), signal.SIGKILL)\n"
            "schema.upgrade(sys.argv[1], on_progress=kill)"
        )
        done = subprocess.run([sys.executable, "-c", program, first], cwd=PROJECT, check=False)
        assert done.returncode == -9
        assert schema.upgrade(first, finish=True).after == schema.SCHEMA_VERSION
        require_keywords(connection)
        assert checksum(connection) == before
        assert status(Database(first)).invalid_indexes == []


def test_an_index_build_that_was_killed_is_begun_again(first: str) -> None:
    """The server's process is killed while it builds, and leaves an index that is not valid."""
    name = f"{TABLE}_keywords_terms"
    with psycopg.connect(first, autocommit=True) as connection:

        def kill(step: SchemaProgress) -> None:
            if step.step == f"building {name}":
                raise Killed

        with pytest.raises(Killed):
            schema.upgrade(first, on_progress=kill)
        connection.execute(f"CREATE INDEX {name} ON {TABLE}_keywords USING gin (terms)")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", (name,))
        found = status(Database(first))
        assert found.invalid_indexes == [{"name": f"public.{name}", "cure": f"DROP INDEX CONCURRENTLY public.{name}"}]
        schema.upgrade(first, finish=True)
        assert status(Database(first)).invalid_indexes == []
        definition = connection.execute("SELECT indexdef FROM pg_indexes WHERE indexname = %s", (name,)).fetchone()
        assert definition is not None
        assert "gin_pending_list_limit" in definition[0]


def test_two_at_once_take_turns(first: str) -> None:
    begun, results, waited = threading.Event(), [], []

    def hold(step: SchemaProgress) -> None:
        begun.set()
        if step.step.startswith("building"):
            time.sleep(0.5)

    one = threading.Thread(target=lambda: results.append(schema.upgrade(first, on_progress=hold)))
    one.start()
    assert begun.wait(30)
    assert (status(Database(first)).upgrade or {})["running"]
    other = schema.upgrade(first, on_progress=lambda step: waited.append((step.step, step.waiting_for)))
    one.join()
    assert (results[0].before, other.before, other.after) == ("0001", schema.SCHEMA_VERSION, schema.SCHEMA_VERSION)
    assert waited[0][0] == "another upgrade of this database"
    assert (waited[0][1] or "").startswith("process ")


def test_a_lock_that_is_never_let_go(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "PATIENCE", 0.6)
    with psycopg.connect(first, application_name="a forgotten session") as holder:
        holder.execute(f"LOCK TABLE {TABLE} IN ACCESS SHARE MODE; LOCK TABLE sources IN ROW EXCLUSIVE MODE")
        with pytest.raises(
            DatabaseError, match=r"waits for process \d+ \(a forgotten session, in a transaction"
        ) as raised:
            schema.upgrade(first)
        assert "goes on where it stopped" in raised.value.hint
    assert schema.upgrade(first).after == schema.SCHEMA_VERSION


def test_a_turn_that_is_lost(first: str) -> None:
    """As behind a pooler that gives each transaction another connection."""

    def lose(step: SchemaProgress) -> None:
        if step.version == "0003":
            with psycopg.connect(first, autocommit=True) as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
                )

    with pytest.raises(DatabaseError):
        schema.upgrade(first, on_progress=lose)
    with online.turn(first, waiting=lambda _: None) as connection:
        steps = online.Online(connection, conninfo=first, name="here", on_progress=online.silent)
        connection.execute("SELECT pg_advisory_unlock_all()")
        with pytest.raises(DatabaseError, match="a pooler gives each transaction another"):
            steps.run("looking", "SELECT 1")
    assert schema.upgrade(first).before == "0002"


def test_what_would_be_lost_is_counted(empty_conninfo: str) -> None:
    schema.upgrade(empty_conninfo)
    owner = Database(empty_conninfo)
    create_tenant(owner, "acme")
    with psycopg.connect(empty_conninfo, autocommit=True) as connection:
        connection.execute(f"INSERT INTO tenant_acme.{TABLE} (id, content) VALUES ('1', 'a'), ('2', 'b')")  # noqa: S608
        connection.execute("INSERT INTO users (tenant, name) VALUES ('acme', 'one'), ('default', 'two')")
        connection.execute(
            "INSERT INTO migration_runs (id, source_kind, source, fingerprint, options) VALUES ('1', '', '', '', '{}')"
        )
        tenants = status(owner).tenants
        assert tenants is not None
        assert tenants["count"] == 2
        assert [tenant["name"] for tenant in tenants["largest"]] == ["default", "acme"]
        assert tenants["size"] == sum(tenant["size"] for tenant in tenants["largest"])
        before = catalog(connection)
        with pytest.raises(GuardError) as refused:
            schema.downgrade(empty_conninfo, "0002")
        assert catalog(connection) == before
    assert refused.value.message.endswith(
        ": 2 rows of users, 1 tenants, 2 documents of tenants, 1 rows of migration_runs."
    )
    assert "--yes" in refused.value.hint
    done = schema.downgrade(empty_conninfo, "0002", yes=True)
    assert done.lost == {"rows of users": 2, "tenants": 1, "documents of tenants": 2, "rows of migration_runs": 1}
    with psycopg.connect(empty_conninfo) as connection:
        assert connection.execute("SELECT to_regnamespace('tenant_acme')").fetchone() == (None,)
    owner.close()


def test_partitions_are_not_taken_back(empty_conninfo: str) -> None:
    schema.upgrade(empty_conninfo)
    owner = Database(empty_conninfo)
    add_model(owner, EmbeddingModel.named("org/cut", dimension=3, partitions=2))
    with pytest.raises(GuardError, match=r"knows no partitions, but .* has 2 of documents_cut") as refused:
        schema.downgrade(empty_conninfo, "0005", yes=True)
    assert "models drop cut --yes" in refused.value.hint
    owner.close()


@pytest.mark.parametrize("version", ["0006", "0007", "0000", "head"])
def test_versions_that_are_not_below(empty_conninfo: str, version: str) -> None:
    schema.upgrade(empty_conninfo)
    with pytest.raises(SchemaError, match="A version below that of"):
        schema.downgrade(empty_conninfo, version)


def test_a_version_of_tomorrow_is_left_alone(empty_conninfo: str) -> None:
    schema.upgrade(empty_conninfo)
    with psycopg.connect(empty_conninfo, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        before = catalog(connection)
        for change in (schema.upgrade, lambda conninfo: schema.downgrade(conninfo, "0005")):
            with pytest.raises(SchemaError, match="9999"):
                change(empty_conninfo)
        assert catalog(connection) == before


def test_serve_waits_until_old_programs_are_shut_out(first: str) -> None:
    assert schema.upgrade(first).old_programs
    application = make_conninfo(first, user=APPLICATION_ROLE)
    database = Database(application).for_tenant("default")
    found = status(database)
    assert found.old_programs
    assert found.missing_indexes == []
    with pytest.raises(GuardError, match="programs from before tenants are let in") as refused:
        require_bound(database)
    assert "database upgrade --finish" in refused.value.hint
    schema.upgrade(first, finish=True)
    require_bound(database)
    assert not status(database).old_programs
    database.close()


def test_without_documents_nobody_old_is_let_in(empty_conninfo: str) -> None:
    with psycopg.connect(empty_conninfo, autocommit=True) as connection:
        fill(connection, 0)
    done = schema.upgrade(empty_conninfo)
    assert (done.before, done.old_programs) == ("0001", False)
