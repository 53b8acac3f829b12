"""
The PostgreSQL of the tests: one server for the run, without fsync; tables are emptied between tests.

`SYNAPSE_TEST_DSN`, the owner's connection string of an empty database, makes them run against another server, and
`SYNAPSE_TEST_APPLICATION_DSN` makes them connect to it as `synapse_app`, such as through a pooler.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from database import schema
from database.connection import Database
from database.embedded import EmbeddedServer
from database.tenancy import DEFAULT_TENANT

PROJECT = Path(__file__).parents[1]

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
for variable in ("DATABASE_URL", "DATABASE_OWNER_URL", "PG_CONN_STR", "OPENAI_API_KEY", "LLM_BASE_URL"):
    os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder that any user may enter and whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="synapse-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server(short_folder: Path) -> Iterator[EmbeddedServer | None]:
    """The embedded server of this run; `None` with `SYNAPSE_TEST_DSN`."""
    if os.environ.get("SYNAPSE_TEST_DSN"):
        yield None
        return
    quick = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    embedded = EmbeddedServer(short_folder / "home", settings=quick)
    embedded.start()
    yield embedded
    embedded.stop()


@pytest.fixture(scope="session")
def owner_conninfo(server: EmbeddedServer | None) -> str:
    """The owner's connection string of a database with our schema."""
    if server is not None:
        return server.conninfo(owner=True)
    elsewhere = os.environ["SYNAPSE_TEST_DSN"]
    schema.upgrade(elsewhere)
    schema.grant_login(elsewhere, application_conninfo=os.environ.get("SYNAPSE_TEST_APPLICATION_DSN", ""))
    return elsewhere


@pytest.fixture(scope="session")
def session_database(server: EmbeddedServer | None, owner_conninfo: str) -> Iterator[Database]:
    """The database of this run, as the application role, in the tenant default; for tests use `database`, which comes empty."""
    elsewhere = os.environ.get("SYNAPSE_TEST_APPLICATION_DSN", owner_conninfo)
    database = Database(server.conninfo() if server else elsewhere, server=server).for_tenant(DEFAULT_TENANT)
    yield database
    database.close()


@pytest.fixture(scope="session")
def owner(owner_conninfo: str) -> Iterator[Database]:
    """The same, as the owner of the schema."""
    database = Database(owner_conninfo)
    yield database
    database.close()


@pytest.fixture
def database(session_database: Database, owner_conninfo: str) -> Database:
    """The database, with no documents, no sources and the default model alone."""
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        extra = connection.execute(
            "SELECT format('%I', table_name) FROM embedding_models WHERE name <> 'all-minilm-l6-v2'"
        ).fetchall()
        connection.execute("TRUNCATE sources, documents_all_minilm_l6_v2, users, recall_certificates CASCADE")
        for (table,) in extra:
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute("DELETE FROM embedding_models WHERE name <> 'all-minilm-l6-v2'")
        connection.execute("UPDATE embedding_models SET active = true")
    return session_database


@pytest.fixture
def empty_conninfo(owner_conninfo: str) -> Iterator[str]:
    """The owner's connection string of a database of its own, with nothing in it."""
    name = f"empty_{os.urandom(4).hex()}"
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield psycopg.conninfo.make_conninfo(owner_conninfo, dbname=name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
