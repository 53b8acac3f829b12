"""Connections: settings that hold, errors that say what to do, servers that go away."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from database.connection import Database, parse_conninfo
from database.embedded import EmbeddedServer
from database.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailableError,
    ExtensionMissingError,
    SchemaError,
)

SETTING = "SELECT current_setting('hnsw.ef_search', true) AS value, pg_backend_pid() AS pid"


def test_settings_hold_for_one_query_alone(database: Database) -> None:
    for _ in range(3):
        assert database.read(SETTING, settings={"hnsw.ef_search": "123"})[0]["value"] == "123"
        assert database.read(SETTING)[0]["value"] in (None, "", "40")


async def test_settings_hold_for_one_query_alone_async(database: Database) -> None:
    for _ in range(3):
        rows = await database.read_async(SETTING, settings={"hnsw.ef_search": "123"})
        assert rows[0]["value"] == "123"
        assert (await database.read_async(SETTING))[0]["value"] in (None, "", "40")
    await database.close_async()


def test_each_event_loop_has_a_pool_of_its_own(database: Database) -> None:
    async def ask() -> int:
        rows = await database.read_async("SELECT 1 AS one")
        await database.close_async()
        return int(rows[0]["one"])

    assert [asyncio.run(ask()) for _ in range(3)] == [1, 1, 1]


def test_reads_survive_cut_connections(database: Database, owner: Database) -> None:
    """Every connection of every thread is cut, again and again, while 8 threads read."""
    readers, reads_each = 8, 200
    done = [0] * readers

    def reads(thread: int) -> list[int]:
        found = []
        try:
            for number in range(reads_each):
                rows = database.read(
                    "SELECT %(n)s::int AS n, pg_sleep(0.002)", {"n": thread * 1000 + number}, settings={"jit": "off"}
                )
                found.append(rows[0]["n"])
                done[thread] += 1
        finally:
            done[thread] = reads_each  # also where it failed: the cutter ends with the readers
        return found

    def cut() -> int:
        """Cut once every reader has come past what the cut before met: a read is cut once, however slow the machine."""
        cuts = 0
        while min(done) < reads_each:
            rows = owner.read(
                "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND usename = 'synapse_app'"
            )
            cuts += rows[0]["n"]
            past = [min(reads_each, number + 5) for number in done]
            while any(number < limit for number, limit in zip(done, past, strict=True)):
                time.sleep(0.01)
        return cuts

    with ThreadPoolExecutor(readers + 1) as threads:
        cutter = threads.submit(cut)
        results = [threads.submit(reads, thread) for thread in range(readers)]
    assert [result.result() for result in results] == [
        [thread * 1000 + number for number in range(reads_each)] for thread in range(readers)
    ]
    assert cutter.result() > 20


def test_reads_survive_a_restart(database: Database, server: EmbeddedServer | None) -> None:
    if server is None:
        pytest.skip("the test server is not ours to restart")
    assert database.read("SELECT 1 AS one")
    with ThreadPoolExecutor(4) as threads:
        reads = [threads.submit(database.read, "SELECT pg_sleep(0.01), 1 AS one") for _ in range(200)]
        server.restart()
        assert all(read.result()[0]["one"] == 1 for read in reads)


def test_a_write_is_rolled_back_whole(database: Database) -> None:
    with pytest.raises(RuntimeError), database.connection() as connection:  # noqa: PT012
        connection.execute(
            "INSERT INTO sources (model, source, root, size, mtime_ns, checked_at_ns, content_hash, meta_hash, fingerprint)"
            " VALUES ('all-minilm-l6-v2', 'a', '', 0, 0, 0, '', '', '')"
        )
        raise RuntimeError
    assert database.read("SELECT count(*) AS n FROM sources") == [{"n": 0}]


def test_nothing_listens() -> None:
    with pytest.raises(DatabaseUnavailableError, match="nothing listens there") as caught:
        Database("postgresql://user:secret@127.0.0.1:9/name").read("SELECT 1")
    assert "DATABASE_URL" in caught.value.hint
    assert "secret" not in str(caught.value)


def test_database_that_does_not_exist(server: EmbeddedServer | None) -> None:
    if server is None:
        pytest.skip("needs the embedded server")
    with pytest.raises(DatabaseUnavailableError, match="none of that name"):
        Database(server.conninfo(dbname="nowhere")).read("SELECT 1")


def test_no_extension(empty_conninfo: str) -> None:
    database = Database(empty_conninfo)
    with pytest.raises(ExtensionMissingError, match="not installed"):
        database.read("SELECT 1")


def test_no_table(database: Database) -> None:
    with pytest.raises(SchemaError, match="nowhere"):
        database.read("SELECT * FROM nowhere")


def test_a_refused_statement_is_one_line(database: Database) -> None:
    with pytest.raises(DatabaseError) as caught:
        database.read("SELECT\n1/0")
    assert "division by zero" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://u:p%40ss@h:5433/d?sslmode=require",
        "postgres://u:p%40ss@h:5433/d?sslmode=require",
        "postgresql+psycopg://u:p%40ss@h:5433/d?sslmode=require",
        "postgresql+psycopg2://u:p%40ss@h:5433/d?sslmode=require",
        "host=h port=5433 user=u password=p@ss dbname=d sslmode=require",
    ],
)
def test_every_form_of_a_connection_string(conninfo: str) -> None:
    assert parse_conninfo(conninfo) == {
        "host": "h",
        "port": "5433",
        "user": "u",
        "password": "p@ss",
        "dbname": "d",
        "sslmode": "require",
    }


def test_several_hosts() -> None:
    assert parse_conninfo("postgresql://u@a:1,b:2/d")["host"] == "a,b"


def test_malformed_string_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_conninfo("postgresql://u:secret@[h/d")
    assert "secret" not in str(caught.value)


def test_repr_has_no_password() -> None:
    assert repr(Database("postgresql://u:secret@h/d")) == "Database('u@h:5432/d')"


@pytest.mark.parametrize("texts", [["b" * 100_000] * 40, ["b"] * 300_000], ids=["long", "many"])
async def test_a_read_with_megabytes_of_parameters_comes_back(database: Database, texts: list[str]) -> None:
    """psycopg's pipeline hangs once a message is larger than what the socket takes at a time."""
    statement = "SELECT cardinality(%(texts)s::text[]) AS texts"
    assert database.read(statement, {"texts": texts}) == [{"texts": len(texts)}]
    assert await database.read_async(statement, {"texts": texts}) == [{"texts": len(texts)}]
    await database.close_async()


def test_a_statement_timeout_is_told_as_such_and_not_run_again(database: Database, owner: Database) -> None:
    with owner.connection() as connection:
        connection.execute("CREATE SEQUENCE public.runs")
        connection.execute("GRANT USAGE ON SEQUENCE public.runs TO PUBLIC")
    try:
        with pytest.raises(DatabaseError, match="refused a statement: canceling statement due to statement timeout"):
            database.read("SELECT nextval('public.runs'), pg_sleep(30)", settings={"statement_timeout": "300ms"})
        assert owner.read("SELECT last_value FROM public.runs") == [{"last_value": 1}]
    finally:
        with owner.connection() as connection:
            connection.execute("DROP SEQUENCE public.runs")


def test_an_event_loop_ends_and_takes_its_connections_along(
    owner_conninfo: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(
        logging.CRITICAL, "psycopg.pool"
    )  # a kept record of a cancelled attempt keeps its half-open connection
    database = Database(make_conninfo(owner_conninfo, application_name="loops"))

    async def many() -> None:
        await asyncio.gather(*(database.read_async("SELECT pg_sleep(0.01)") for _ in range(8)))

    for _ in range(5):
        asyncio.run(many())
    gc.collect()
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'loops'"
    until = time.monotonic() + 5
    with psycopg.connect(owner_conninfo, autocommit=True) as watching:
        while (found := watching.execute(left).fetchone()) != (0,) and time.monotonic() < until:
            time.sleep(0.05)
    assert found == (0,)
