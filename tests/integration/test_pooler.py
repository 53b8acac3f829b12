"""Behind a transaction pooler: PgBouncer hands each transaction to whichever server connection is free."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psycopg
import pytest

from database.connection import Database
from tests.support import pgbouncer
from tests.tcp_server import APPLICATION_PASSWORD, PROJECT, TcpServer, drop_roles, psql

pytestmark = pytest.mark.system

DATABASE = "pooled"
SERVER_CONNECTIONS = 3
THREADS, QUERIES = 16, 50
OBSERVED = """
    SELECT current_setting('hnsw.ef_search', true) AS ef_search,
           current_setting('hnsw.iterative_scan', true) AS iterative_scan,
           pg_backend_pid() AS pid
      FROM (SELECT id FROM documents_all_minilm_l6_v2 ORDER BY embedding <=> %(query)b LIMIT 1) AS nearest"""


@pytest.fixture(scope="module")
def schema_made_by_psql(tcp_server: TcpServer) -> Iterator[None]:
    """A database with our schema, made by the system's psql, and two documents in it."""
    with psycopg.connect(tcp_server.tcp(dbname="postgres"), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {DATABASE}")
        done = psql(tcp_server.tcp(dbname=DATABASE), "-f", "init.sql", program=pgbouncer.program("psql"))
        assert done.returncode == 0, done.stderr
        environment = tcp_server.socket_environment(DATABASE) | {"SYNAPSE_APP_PASSWORD": APPLICATION_PASSWORD}
        subprocess.run([PROJECT / "deploy" / "application_login.sh"], env=environment, check=True)
        with psycopg.connect(tcp_server.tcp(dbname=DATABASE)) as connection:
            connection.execute(
                "INSERT INTO documents_all_minilm_l6_v2 (id, embedding)"
                " SELECT n::text, array_fill(n, ARRAY[384])::vector FROM generate_series(1, 2) AS n"
            )
        yield
        server.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        drop_roles(server)


@pytest.fixture
def pooled(tcp_server: TcpServer, schema_made_by_psql: None, short_folder: Path) -> Iterator[Database]:
    """The database, through PgBouncer in transaction mode with few server connections."""
    application = tcp_server.tcp(user="synapse_app", password=APPLICATION_PASSWORD, dbname=DATABASE)
    folder = short_folder / f"pgbouncer-{os.urandom(4).hex()}"
    with pgbouncer.pooled(application, folder, server_connections=SERVER_CONNECTIONS) as through:
        database = Database(through).for_tenant("default")
        yield database
        database.close()


def read_many(database: Database, thread: int) -> set[int]:
    """Queries with this thread's own settings; returns the server processes that answered."""
    wanted = {"hnsw.ef_search": str(100 + thread), "hnsw.iterative_scan": ("off", "relaxed_order")[thread % 2]}
    query = np.ones(384, dtype=np.float32)
    pids = set()
    for _ in range(QUERIES):
        (row,) = database.read(OBSERVED, {"query": query}, settings=wanted)
        assert (row["ef_search"], row["iterative_scan"]) == tuple(wanted.values())
        pids.add(row["pid"])
    return pids


def test_settings_hold_for_every_query_and_no_other(pooled: Database) -> None:
    with ThreadPoolExecutor(THREADS) as threads:
        pids = set().union(*threads.map(lambda thread: read_many(pooled, thread), range(THREADS)))
    assert 1 < len(pids) <= SERVER_CONNECTIONS, "the threads must have shared server connections"

    for _ in range(2 * SERVER_CONNECTIONS):
        (row,) = pooled.read(OBSERVED, {"query": np.ones(384, dtype=np.float32)})
        assert (row["ef_search"], row["iterative_scan"]) == ("40", "off"), "settings must not outlive their query"


def test_settings_hold_after_every_connection_was_cut(pooled: Database, tcp_server: TcpServer) -> None:
    with ThreadPoolExecutor(THREADS) as threads:
        running = [threads.submit(read_many, pooled, thread) for thread in range(THREADS)]
        with psycopg.connect(tcp_server.tcp(dbname=DATABASE)) as connection:
            cut = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'synapse_app'"
            ).fetchall()
        assert cut
        assert not all(each.done() for each in running)
        for each in running:
            each.result(timeout=60)


async def test_settings_hold_for_asyncio_too(pooled: Database) -> None:
    for number in range(5):
        wanted = {"hnsw.ef_search": str(50 + number), "hnsw.iterative_scan": "strict_order"}
        (row,) = await pooled.read_async(OBSERVED, {"query": np.ones(384, dtype=np.float32)}, settings=wanted)
        assert (row["ef_search"], row["iterative_scan"]) == tuple(wanted.values())
    await pooled.close_async()
