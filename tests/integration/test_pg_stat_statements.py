"""The real pg_stat_statements, which the embedded server has not: the system's PostgreSQL 15 with its contrib modules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from database.embedded import EmbeddedServer
from tests.tcp_server import PROJECT, free_port

pytestmark = pytest.mark.system

BINARIES = Path("/usr/lib/postgresql/15/bin")
VIEWS = PROJECT / "database" / "observation_views.sql"

TABLES = """
    CREATE FUNCTION synapse_tenant() RETURNS text LANGUAGE sql STABLE AS 'SELECT NULL::text';
    CREATE TABLE embedding_models (table_name text);
    INSERT INTO embedding_models VALUES ('documents_x');
    CREATE TABLE documents_x (id text, meta jsonb);
    CREATE TABLE usage_logs (tenant text, at timestamptz, kind text, milliseconds double precision);
"""
"""What the statements' part of the views asks for; the rest of the schema needs pgvector and PostgreSQL 16."""


class SystemServer(EmbeddedServer):
    """The system's PostgreSQL, with pg_stat_statements in its memory unless it is left out."""

    def __init__(self, home: Path, *, loaded: bool) -> None:
        settings = {"fsync": "off", "port": str(free_port())}
        if loaded:
            settings |= {"shared_preload_libraries": "pg_stat_statements"}
        super().__init__(home, settings=settings, major=15)
        self._binaries = BINARIES  # type: ignore[misc]  # the package's otherwise

    def _initialise(self) -> None:
        """PostgreSQL 15 has no locales of its own."""
        self._data.mkdir(mode=0o700)
        self._give_away(self._data)
        self._run(
            "initdb", "-D", self._data, "--username", "postgres", "--auth", "trust", "--locale", "C", "-E", "UTF8"
        )

    def _ensure_schema(self) -> None:
        """Only what the statements' part needs."""


@contextmanager
def running(home: Path, *, loaded: bool) -> Iterator[psycopg.Connection]:
    """A server with the statements' part of the views and the extension in a schema of its own, as Supabase has it."""
    if not BINARIES.is_dir():
        if os.environ.get("SYNAPSE_REQUIRE_SYSTEM"):
            pytest.fail("the system package postgresql-15 is required but not installed")
        pytest.skip("the system package postgresql-15 is not installed")
    server = SystemServer(home, loaded=loaded)
    server.start()
    with psycopg.connect(make_conninfo(server.conninfo(owner=True), dbname="postgres"), autocommit=True) as connection:
        connection.execute(TABLES)
        text = VIEWS.read_text(encoding="utf-8")
        connection.execute(text[text.index("-- What pg_stat_statements") : text.index("-- Closed to everyone")])
        connection.execute("CREATE SCHEMA extensions")
        connection.execute("CREATE EXTENSION pg_stat_statements SCHEMA extensions")
        yield connection
    server.stop()


@pytest.fixture(scope="module")
def connection(short_folder: Path) -> Iterator[psycopg.Connection]:
    with running(short_folder / "pg15", loaded=True) as connection:
        yield connection


def test_its_statements_on_documents_tables(connection: psycopg.Connection) -> None:
    for number in range(5):
        connection.execute(f"SELECT id FROM documents_x WHERE meta @> jsonb_build_object('n', {number}) LIMIT 3")  # noqa: S608
    connection.execute("-- a comment first\nSELECT count(*) FROM documents_x")
    connection.execute("INSERT INTO documents_x (id) VALUES ('1')")
    connection.execute("UPDATE documents_x SET id = '2'")
    connection.execute("SELECT count(*) FROM usage_logs")
    rows = connection.execute(
        "SELECT measured_by, what, calls, mean_ms, max_ms, total_ms FROM synapse_slow_retrievals ORDER BY calls DESC"
    ).fetchall()
    assert [(by, calls) for by, _, calls, *_ in rows] == [("pg_stat_statements", 5), ("pg_stat_statements", 1)]
    assert rows[0][1].startswith("SELECT id FROM documents_x WHERE meta @>")
    known = connection.execute(
        "SELECT calls, mean_exec_time, max_exec_time, total_exec_time FROM extensions.pg_stat_statements"
        " WHERE query LIKE 'SELECT id FROM documents_x%'"
    ).fetchall()
    assert known == [rows[0][2:]]


def test_installed_but_not_loaded(short_folder: Path) -> None:
    with running(short_folder / "pg15-bare", loaded=False) as connection:
        connection.execute("INSERT INTO usage_logs VALUES ('default', now(), 'ask', 10)")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            connection.execute("SELECT * FROM extensions.pg_stat_statements")
        rows = connection.execute("SELECT measured_by, p95_ms FROM synapse_slow_retrievals").fetchall()
        assert rows == [("usage_logs", 10.0)]


def test_a_stranger_sees_none(connection: psycopg.Connection) -> None:
    connection.execute("SELECT id FROM documents_x")
    connection.execute(
        "CREATE ROLE reader; GRANT USAGE ON SCHEMA extensions TO reader;"
        "GRANT SELECT ON embedding_models, usage_logs, synapse_slow_retrievals TO reader"
    )
    connection.execute("SET ROLE reader")
    assert connection.execute("SELECT * FROM synapse_slow_retrievals").fetchall() == []
