"""The store's own tests, run once more: through PgBouncer in transaction mode, and on PostgreSQL 16."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from database import schema
from tests.support.pgbouncer import pooled
from tests.tcp_server import APPLICATION_PASSWORD, PROJECT, TcpServer, drop_roles

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

STORE = [
    "test_document_store.py",
    "test_document_store_haystack.py",
    "test_document_store_search.py",
    "test_filters_against_reference.py",
    "test_keywords.py",
    "test_search_queries.py",
    "test_writes.py",
    "test_bulk_load.py",
    "test_ledger.py",
    "test_source_writer.py",
    "test_metadata_fields.py",
    "test_index_recall.py",
    "test_connection.py",
    "test_tenancy.py",
    "test_migration.py",
]
SKIPS = {
    "delete_all_documents has no recreate_index": "Haystack's tests ask for a parameter that the store has not",
    "delete_all_documents_async has no recreate_index": "likewise",
    "the relay stands before a socket": "it counts round trips, which a pooler does not change",
    "the test server is not ours to restart": "a restart ends the pooler's connections, as the cuts before it do",
    "needs the embedded server": "asks for a database that is not there by the socket of the embedded server",
}
"""Reasons of tests that skip themselves on a server elsewhere, and why they may."""

SERVER_CONNECTIONS = 20
"""Fewer than the tests' threads and pools together have, so that these share them."""


@pytest.fixture(scope="module")
def server16(short_folder: Path) -> Iterator[TcpServer]:
    server = TcpServer(short_folder / "server16", major=16)
    server.start()
    yield server
    server.stop()


def prepared(server: TcpServer) -> tuple[str, str]:
    """
    Make a database with our schema.

    :returns: The connection strings of its owner and of the application.
    """
    name = f"store_{os.urandom(4).hex()}"
    with psycopg.connect(server.tcp(dbname="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    owner = server.tcp(dbname=name)
    application = server.tcp(user="synapse_app", password=APPLICATION_PASSWORD, dbname=name)
    schema.upgrade(owner)
    schema.grant_login(owner, application_conninfo=application)
    return owner, application


def run_store(*, owner: str, application: str) -> None:
    """Run the store's tests with these connection strings; each that skips must have one of the known reasons."""
    environment = os.environ | {"SYNAPSE_TEST_DSN": owner, "SYNAPSE_TEST_APPLICATION_DSN": application}
    options = ["-q", "-rs", "--tb=short", "-p", "no:cacheprovider", "-m", "not system and not slow"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(f"tests/integration/{name}" for name in STORE)],
        cwd=PROJECT,
        env={name: value for name, value in environment.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    for line in done.stdout.splitlines():
        if line.startswith("SKIPPED"):
            assert any(reason in line for reason in SKIPS), line


def test_through_pgbouncer_in_transaction_mode(tcp_server: TcpServer, short_folder: Path) -> None:
    owner, application = prepared(tcp_server)
    with pooled(application, short_folder / "pooler", server_connections=SERVER_CONNECTIONS) as through:
        run_store(owner=owner, application=through)
    dropped(tcp_server, owner)


def test_on_postgresql_16(server16: TcpServer) -> None:
    owner, application = prepared(server16)
    with psycopg.connect(owner) as connection:
        assert connection.info.server_version // 10_000 == 16
    run_store(owner=owner, application=application)


def dropped(server: TcpServer, conninfo: str) -> None:
    """Remove a database of the session's server, and the roles, which belong to all of them."""
    with psycopg.connect(server.tcp(dbname="postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {psycopg.conninfo.conninfo_to_dict(conninfo)['dbname']} WITH (FORCE)")
        drop_roles(connection)
