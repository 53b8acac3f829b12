"""The program on a Supabase project: its owner is no superuser, its extensions stand in a schema of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from database import schema
from database.connection import Database
from database.tenancy import create_tenant, drop_tenant
from deploy.write_supabase import write
from tests.acceptance.program import Program
from tests.integration.test_init_sql import CATALOG, catalog
from tests.support.supabase import OWNER, create_project, owner_conninfo, start
from tests.tcp_server import APPLICATION_PASSWORD, TcpServer, psql

pytestmark = pytest.mark.slow

FOR_THE_API = {
    "document_readers",
    "documents_all_minilm_l6_v2_meta_index",
    "hybrid_search",
    "match_documents",
    "search_documents",
    "synapse_match_count",
    "synapse_may_read",
    "synapse_nearest",
    "synapse_passing",
    "synapse_sees_all",
    "synapse_serve_api",
    "synapse_worded",
}
"""What a project has beyond Alembic's schema; names of keys and indexes begin with that of their table."""


@pytest.fixture(scope="module")
def supabase(short_folder: Path) -> Iterator[TcpServer]:
    server = start(short_folder / "supabase_program")
    yield server
    server.stop()


@pytest.fixture
def migrated(supabase: TcpServer, tmp_path: Path) -> str:
    """The owner's connection string of a project made by the migrations."""
    owner = owner_conninfo(supabase, create_project(supabase))
    write(tmp_path / "migrations")
    for file in sorted((tmp_path / "migrations").iterdir()):
        done = psql(owner, "-f", file)
        assert done.returncode == 0, done.stderr
    return owner


def beyond(migrated: list[str], upgraded: list[str]) -> list[str]:
    """What one has and the other has not, without what is for the API."""
    return [line for line in migrated if line not in upgraded and not any(f"'{name}" in line for name in FOR_THE_API)]


def test_the_migrations_make_what_the_upgrade_makes(supabase: TcpServer, migrated: str) -> None:
    upgraded = owner_conninfo(supabase, create_project(supabase))
    schema.upgrade(upgraded)
    one, other = catalog(migrated), catalog(upgraded)
    for name in CATALOG:
        if name == "function grants":  # the migrations take these from the API, too
            continue
        assert beyond(one[name], other[name]) == [], name
        assert [line for line in other[name] if line not in one[name]] == [], name
    assert one["version"] == [f"('{schema.SCHEMA_VERSION}',)"]


def test_they_may_run_again_and_the_upgrade_finds_its_version(migrated: str, tmp_path: Path) -> None:
    before = catalog(migrated)
    for file in sorted((tmp_path / "migrations").iterdir()):
        assert psql(migrated, "-f", file).returncode == 0
    done = schema.upgrade(migrated)
    assert done.before == done.after == schema.SCHEMA_VERSION
    assert catalog(migrated) == before


@pytest.mark.parametrize("made_by", ["migrations", "upgrade"])
def test_from_nothing_to_an_answer(
    supabase: TcpServer, request: pytest.FixtureRequest, tmp_path: Path, made_by: str
) -> None:
    """As Supabase's owner, and as `synapse_app` with the password of DATABASE_URL."""
    owner = (
        request.getfixturevalue("migrated")
        if made_by == "migrations"
        else owner_conninfo(supabase, create_project(supabase))
    )
    name = psycopg.conninfo.conninfo_to_dict(owner)["dbname"]
    application = supabase.tcp(user="synapse_app", password=APPLICATION_PASSWORD, dbname=name)
    program = Program(home=tmp_path / "home", environment={"DATABASE_URL": application, "DATABASE_OWNER_URL": owner})
    upgraded = program.json("database", "upgrade")
    assert upgraded["after"] == schema.SCHEMA_VERSION
    assert (upgraded["before"], upgraded["application_login"]) == (
        schema.SCHEMA_VERSION if made_by == "migrations" else None,
        True,
    )
    document = tmp_path / "manual.md"
    document.write_text("# Mirror\n\nThe mirror weighs 118 kilograms.\n")
    assert program.json("index", str(document))["added"] == 1
    answer = program.json("ask", "What does the mirror weigh?")
    assert "118 kilograms" in answer["answer"]
    with psycopg.connect(owner) as connection:
        where = "SELECT current_user, extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"
        assert connection.execute(where).fetchone() == (OWNER, "extensions")


def test_a_tenant_is_made_and_dropped(migrated: str) -> None:
    owner = Database(migrated)
    create_tenant(owner, "acme")
    with psycopg.connect(migrated) as connection:
        assert connection.execute(
            "SELECT to_regclass('tenant_acme.documents_all_minilm_l6_v2') IS NOT NULL"
        ).fetchone() == (True,)
    drop_tenant(owner, "acme")
    owner.close()
