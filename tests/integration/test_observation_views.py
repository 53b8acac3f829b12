"""The views for whoever watches the database: their values against the catalog's, and who sees what."""

# ruff: noqa: S608

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from database.accounts import Accounts
from database.connection import Database
from database.conversations import Conversations, TurnAnswer, Usage
from database.embedded import EmbeddedServer
from database.errors import DatabaseError
from database.ledger import Ledger
from database.models import active_model
from database.schema import upgrade
from database.tenancy import create_tenant
from tests.integration.test_ledger import indexed, state
from tests.tcp_server import PROJECT, TcpServer, drop_roles

TABLE = "documents_all_minilm_l6_v2"
VIEWS = (
    "synapse_cache_hits",
    "synapse_growth",
    "synapse_index_use",
    "synapse_quarantined_sources",
    "synapse_slow_retrievals",
    "synapse_table_sizes",
    "synapse_tables",
)
TENANTS = ("default", "watched")
PAGE = (PROJECT / "docs" / "watching.md").read_text(encoding="utf-8")

STATEMENTS = """
    CREATE TABLE pg_stat_statements (
        userid oid, dbid oid, toplevel bool, queryid bigint, query text, plans bigint, calls bigint,
        total_exec_time double precision, min_exec_time double precision, max_exec_time double precision,
        mean_exec_time double precision, stddev_exec_time double precision, rows bigint
    );
    GRANT SELECT ON pg_stat_statements TO PUBLIC;
"""
"""The columns of pg_stat_statements 1.10 to 1.12 up to those that a plain table would need rows of."""


@pytest.fixture(scope="module")
def place(owner_conninfo: str) -> Iterator[str]:
    """The superuser's connection string of a database of its own, with the tenants `default` and `watched`."""
    name = f"watched_{os.urandom(4).hex()}"
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        place = make_conninfo(owner_conninfo, dbname=name)
        upgrade(place)
        owner = Database(place)
        create_tenant(owner, "watched")
        owner.close()
        yield place
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute("DROP ROLE synapse_tenant_watched")


@pytest.fixture(scope="module")
def application(place: str) -> Iterator[Database]:
    """The application's role, in no tenant; on whatever server the tests run."""
    with psycopg.connect(place) as connection:
        connection.execute("ALTER ROLE synapse_app LOGIN PASSWORD 'watching'")
    database = Database(make_conninfo(place, user="synapse_app", password="watching"))
    yield database
    database.close()


@pytest.fixture(scope="module")
def filled(application: Database) -> Database:
    """Two sources and one that is kept out for `default`, one for `watched`, and a question of each."""
    for tenant in TENANTS:
        database = application.for_tenant(tenant)
        ledger = Ledger(database, model=active_model(database))
        ledger.write([indexed(f"{tenant}/a.md", "one", "two")])
        identity = Accounts(database).create_user(tenant, "ada")
        conversations = Conversations(database)
        for milliseconds in (10.0, 20.0, 30.0, 400.0):
            session = conversations.create_session(identity, title="?")
            answer = TurnAnswer(text="yes", supported=True, extractive=True)
            usage = Usage(milliseconds=milliseconds)
            conversations.add_turn(identity, session.id, question="?", answer=answer, usage=usage)
        conversations.close()
    database = application.for_tenant("default")
    ledger = Ledger(database, model=active_model(database))
    ledger.write([indexed("default/b.md", "three")])
    ledger.quarantine([state("default/broken.pdf", reason="it is encrypted")])
    return application


def seen(database: Database | str, view: str) -> list[dict[str, Any]]:
    if isinstance(database, Database):
        return database.read(f"SELECT * FROM {view}")
    with psycopg.connect(database, row_factory=dict_row) as connection:
        return connection.execute(f"SELECT * FROM {view}").fetchall()


def test_every_table_is_known(place: str) -> None:
    found = {(row["schema_name"], row["table_name"]) for row in seen(place, "synapse_tables")}
    with psycopg.connect(place) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = 'public' OR starts_with(schemaname, 'tenant_')"
        ).fetchall()
    assert found == set(tables)


def test_views_run_as_who_asks(place: str) -> None:
    with psycopg.connect(place) as connection:
        views = connection.execute(
            "SELECT relname, reloptions FROM pg_class WHERE relkind = 'v' AND starts_with(relname, 'synapse_')"
        ).fetchall()
    assert sorted(views) == [(name, ["security_invoker=true"]) for name in VIEWS]


def test_the_page_has_every_column(place: str) -> None:
    rows = re.findall(r"(?m)^\| `(synapse_\w+)` \| ([^|:]+)", PAGE)
    documented = {view: re.findall(r"`(\w+)`", columns) for view, columns in rows}
    with psycopg.connect(place) as connection:
        described = {view: connection.execute(f"SELECT * FROM {view} LIMIT 0").description or () for view in VIEWS}
    assert documented == {view: [column.name for column in columns] for view, columns in described.items()}


def test_queries_on_the_page_run(filled: Database, place: str) -> None:
    (queries,) = re.findall(r"(?ms)^```text\n(-- .*?)^```", PAGE)
    with psycopg.connect(place) as connection:
        results = [connection.execute(query).fetchall() for query in queries.split(";") if query.strip()]
    assert len(results) == 3
    assert all(results)


@pytest.mark.parametrize("view", VIEWS)
def test_a_tenant_sees_its_own(filled: Database, view: str) -> None:
    for tenant in TENANTS:
        tenants = {row["tenant"] for row in seen(filled.for_tenant(tenant), view)}
        if view == "synapse_quarantined_sources" and tenant == "watched":
            assert tenants == set()
        else:
            assert tenants - {None} == {tenant}


@pytest.mark.parametrize("view", VIEWS)
def test_without_a_tenant_the_application_sees_no_tenant(filled: Database, view: str) -> None:
    if view in ("synapse_growth", "synapse_slow_retrievals"):  # conversations and usage are closed to it altogether
        with pytest.raises(DatabaseError, match="permission denied"):
            seen(filled, view)
    else:
        assert {row["tenant"] for row in seen(filled, view)} <= {None}


@pytest.mark.parametrize("view", VIEWS)
def test_other_roles_see_nothing(place: str, view: str) -> None:
    with psycopg.connect(place) as connection:
        connection.execute("CREATE ROLE watching_stranger")
        connection.execute("SET LOCAL ROLE watching_stranger")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT * FROM {view}")
        connection.rollback()


def test_sizes(filled: Database, place: str) -> None:
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute(f"VACUUM ANALYZE {TABLE}")
    found = {(row["schema_name"], row["table_name"]): row for row in seen(place, "synapse_table_sizes")}
    with psycopg.connect(place) as connection:
        for (schema, table), row in found.items():
            expected = connection.execute(
                "SELECT pg_relation_size(t), pg_indexes_size(t), pg_total_relation_size(t) FROM (SELECT %s::regclass AS t) AS x",
                (f"{schema}.{table}",),
            ).fetchone()
            assert (row["heap_bytes"], row["index_bytes"], row["total_bytes"]) == expected
            assert row["heap_bytes"] + row["index_bytes"] + row["other_bytes"] == row["total_bytes"]
    documents = found["public", TABLE]
    assert documents["estimated_rows"] == 3
    assert documents["last_vacuum"] is not None


def test_index_use_counts_searches(filled: Database, place: str) -> None:
    def use() -> dict[str, Any]:
        with psycopg.connect(place, row_factory=dict_row, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT * FROM synapse_index_use WHERE schema_name = 'public' AND index_name = %s",
                (f"{TABLE}_hnsw_index",),
            ).fetchall()
        assert len(rows) == 1
        return rows[0]

    before = use()
    began = datetime.now(UTC)
    with filled.for_tenant("default").connection() as connection:
        connection.execute("SET LOCAL enable_seqscan = off")
        for _ in range(5):
            query = f"SELECT id FROM {TABLE} ORDER BY embedding <=> %s::vector LIMIT 2"
            connection.execute(query, (str([1.0] * 384),))
        connection.execute("SELECT pg_stat_force_next_flush()")
    after = use()
    assert after["scans"] - before["scans"] == 5
    assert after["rows_read"] - before["rows_read"] >= 10
    assert after["last_used"] >= began
    assert (after["method"], after["valid"], after["is_unique"]) == ("hnsw", True, False)
    assert after["bytes"] > 0


def test_an_invalid_index_shows(filled: Database, place: str) -> None:
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute(f"INSERT INTO {TABLE}_terms (term, documents) VALUES (-1, 1), (-1, 1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(f"CREATE UNIQUE INDEX CONCURRENTLY half_made ON {TABLE}_terms (term, documents)")
    found = [row for row in seen(filled.for_tenant("default"), "synapse_index_use") if not row["valid"]]
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("DROP INDEX half_made")
        connection.execute(f"DELETE FROM {TABLE}_terms WHERE term = -1")
    assert [(row["index_name"], row["table_name"]) for row in found] == [("half_made", f"{TABLE}_terms")]


def test_cache_hits_are_the_catalogs(filled: Database, place: str) -> None:
    with psycopg.connect(place, autocommit=True, row_factory=dict_row) as connection:
        connection.execute(f"SELECT count(*) FROM {TABLE}")
        connection.execute("SELECT pg_stat_force_next_flush()")
        found = connection.execute(
            "SELECT v.*, s.heap_blks_hit, s.heap_blks_read, s.idx_blks_hit, s.idx_blks_read FROM synapse_cache_hits v"
            " JOIN pg_statio_user_tables s ON (s.schemaname, s.relname) = (v.schema_name, v.table_name)"
        ).fetchall()
    assert found
    for row in found:
        assert (row["heap_hits"], row["heap_reads"]) == (row["heap_blks_hit"], row["heap_blks_read"])
        assert (row["index_hits"], row["index_reads"]) == (row["idx_blks_hit"], row["idx_blks_read"])
        looked = row["heap_hits"] + row["heap_reads"]
        assert row["heap_hit_ratio"] == (row["heap_hits"] / looked if looked else None)
    documents = next(row for row in found if row["table_name"] == TABLE and row["schema_name"] == "public")
    assert documents["heap_hits"] > 0
    assert 0 < documents["heap_hit_ratio"] <= 1


def test_growth(filled: Database, place: str) -> None:
    today = datetime.now(UTC).date()
    with psycopg.connect(place) as connection:
        connection.execute("UPDATE sources SET indexed_at = '2026-01-31 23:30+00' WHERE source = 'default/b.md'")
    rows = {(row["tenant"], row["day"].isoformat()): row for row in seen(place, "synapse_growth")}
    assert rows.pop(("default", "2026-01-31")) == {
        "tenant": "default", "day": datetime(2026, 1, 31, tzinfo=UTC).date(), "sources": 1, "chunks": 1, "bytes": 1,
        "conversations": 0,
    }  # fmt: skip
    for tenant in TENANTS:  # what is kept out is no growth
        row = rows.pop((tenant, today.isoformat()))
        assert (row["sources"], row["chunks"], row["bytes"], row["conversations"]) == (1, 2, 1, 4)
    assert rows == {}


def test_quarantined_sources(filled: Database, place: str) -> None:
    (row,) = seen(place, "synapse_quarantined_sources")
    assert (row["tenant"], row["model"], row["source"], row["reason"]) == (
        "default", "all-minilm-l6-v2", "default/broken.pdf", "it is encrypted",
    )  # fmt: skip
    assert abs((datetime.now(UTC) - row["since"]).total_seconds()) < 300


def test_slow_retrievals_of_usage(filled: Database) -> None:
    (row,) = seen(filled.for_tenant("watched"), "synapse_slow_retrievals")
    assert (row["measured_by"], row["tenant"], row["what"]) == ("usage_logs", "watched", "ask")
    assert row["day"] == datetime.now(UTC).date()
    assert (row["calls"], row["mean_ms"], row["max_ms"], row["total_ms"]) == (4, 115.0, 400.0, 460.0)
    assert row["p50_ms"] == pytest.approx(25.0)
    assert row["p95_ms"] == pytest.approx(30 + 0.85 * 370)


@pytest.fixture
def planted(filled: Database, place: str, server: EmbeddedServer | None, short_folder: Path) -> Iterator[str]:
    """An extension of that name with those columns, in a schema of its own, and statements in it."""
    if server is None:
        pytest.skip("the extension is planted on the embedded server's disk")
    folder = short_folder / "extension"
    folder.mkdir(exist_ok=True)
    (folder / "pg_stat_statements.control").write_text("default_version = '1.0'\nrelocatable = true\n")
    (folder / "pg_stat_statements--1.0.sql").write_text(STATEMENTS)
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("SELECT set_config('extension_control_path', %s, false)", (f"{short_folder}:$system",))
        connection.execute('CREATE SCHEMA "Extra tools"')
        connection.execute('GRANT USAGE ON SCHEMA "Extra tools" TO PUBLIC')
        connection.execute('CREATE EXTENSION pg_stat_statements SCHEMA "Extra tools"')
        for role, statement, calls in (
            ("synapse_tenant_watched", f"SELECT id FROM tenant_watched.{TABLE} ORDER BY embedding <=> $1 LIMIT $2", 7),
            ("synapse_tenant_watched", f"WITH found AS (SELECT id FROM {TABLE}) SELECT * FROM found", 2),
            ("synapse_tenant_watched", f"INSERT INTO {TABLE} (id) SELECT $1", 9),
            ("synapse_tenant_default", "SELECT $1", 100),
            ("synapse_tenant_default", "<insufficient privilege>", 100),
        ):
            connection.execute(
                'INSERT INTO "Extra tools".pg_stat_statements'
                " (userid, dbid, query, calls, total_exec_time, max_exec_time, mean_exec_time)"
                " SELECT %s::regrole, oid, %s, %s, 70, 40, 10 FROM pg_database WHERE datname = current_database()",
                (role, statement, calls),
            )
            connection.execute(
                'INSERT INTO "Extra tools".pg_stat_statements (userid, dbid, query, calls) VALUES (%s::regrole, 1, %s, 1)',
                (role, f"SELECT of another database FROM {TABLE}"),
            )
        yield place
        connection.execute('DROP SCHEMA "Extra tools" CASCADE')


def test_slow_retrievals_of_pg_stat_statements(planted: str) -> None:
    rows = [row for row in seen(planted, "synapse_slow_retrievals") if row["measured_by"] == "pg_stat_statements"]
    assert sorted(row["calls"] for row in rows) == [2, 7]
    search = next(row for row in rows if row["calls"] == 7)
    assert search["what"].startswith("SELECT id FROM tenant_watched.")
    assert (search["tenant"], search["day"], search["p50_ms"], search["p95_ms"]) == ("watched", None, None, None)
    assert (search["mean_ms"], search["max_ms"], search["total_ms"]) == (10, 40, 70)


def test_an_extension_that_is_closed_to_the_role_does_not_fail(planted: str, filled: Database) -> None:
    with psycopg.connect(planted, autocommit=True) as connection:
        connection.execute('REVOKE USAGE ON SCHEMA "Extra tools" FROM PUBLIC')
    rows = seen(filled.for_tenant("watched"), "synapse_slow_retrievals")
    assert [row["measured_by"] for row in rows] == ["usage_logs"]


def test_an_owner_who_is_no_superuser(tcp_server: TcpServer) -> None:
    name = f"plain_{os.urandom(4).hex()}"
    with psycopg.connect(tcp_server.tcp(dbname="postgres"), autocommit=True) as server:
        server.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'plain'")
        server.execute(f"CREATE DATABASE {name} OWNER {name}")
        place = tcp_server.tcp(user=name, password="plain", dbname=name)
        try:
            with psycopg.connect(tcp_server.tcp(dbname=name), autocommit=True) as superuser:
                superuser.execute("CREATE EXTENSION vector")
            upgrade(place)
            owner = Database(place)
            create_tenant(owner, "watched")
            default = owner.for_tenant("default")
            Ledger(default, model=active_model(default)).write([indexed("a.md", "one")])
            growth = seen(place, "synapse_growth")
            assert [(row["sources"], row["conversations"]) for row in growth] == [(1, None)]
            assert {row["tenant"] for row in seen(place, "synapse_table_sizes")} == {"default", "watched", None}
            assert seen(place, "synapse_slow_retrievals") == []
            assert seen(place, "synapse_index_use")
            owner.close()
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")
            drop_roles(server)
            server.execute(f"DROP ROLE {name}")
