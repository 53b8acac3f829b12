"""init.sql and the login script, as Docker's image runs them; and that init.sql and Alembic make the same database."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from database import models, schema
from database.connection import Database
from database.errors import DatabaseUnavailableError
from database.tenancy import require_bound
from deploy.write_init_sql import init_sql
from tests.acceptance.program import Program
from tests.tcp_server import APPLICATION_PASSWORD, PROJECT, TcpServer, drop_roles, psql

CATALOG = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage, a.attnum,
               pg_get_expr(d.adbin, d.adrelid)
          FROM pg_attribute a
          JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r'
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, contype::text, pg_get_constraintdef(oid) FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace""",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "functions": """
        SELECT p.proname, pg_get_functiondef(p.oid) FROM pg_proc p
         WHERE p.pronamespace = 'public'::regnamespace
           AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')""",
    "table grants": """
        SELECT c.relname, a.grantee::regrole::text, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> 0""",
    "open tables": """
        SELECT c.relname FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.relnamespace = 'public'::regnamespace AND a.grantee = 0""",
    "function grants": """
        SELECT p.proname, a.grantee, a.privilege_type FROM pg_proc p, aclexplode(p.proacl) a
         WHERE p.pronamespace = 'public'::regnamespace
           AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')""",
    "types and views": """
        SELECT relname, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace""",
    "views": """
        SELECT relname, reloptions, pg_get_viewdef(oid) FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'""",
    "policies": """
        SELECT schemaname, tablename, policyname, permissive, roles::text, cmd, qual, with_check FROM pg_policies""",
    "row security": """
        SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class
         WHERE relnamespace = 'public'::regnamespace""",
    "triggers": "SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "extensions": "SELECT extname, extversion FROM pg_extension",
    "version": "SELECT version_num FROM alembic_version",
    "models": "SELECT name, model, dimension, vector_type, language, table_name, active FROM embedding_models",
}


@pytest.fixture
def create(tcp_server: TcpServer) -> Iterator[Callable[[], str]]:
    """Makes empty databases; returns their names."""
    names: list[str] = []
    with psycopg.connect(tcp_server.tcp(dbname="postgres"), autocommit=True) as connection:

        def created() -> str:
            names.append(f"empty_{os.urandom(4).hex()}")
            connection.execute(f"CREATE DATABASE {names[-1]}")
            return names[-1]

        yield created
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        drop_roles(connection)


def catalog(conninfo: str) -> dict[str, list[Any]]:
    """What a database holds, as text."""
    with psycopg.connect(conninfo) as connection:
        return {name: sorted(map(repr, connection.execute(query).fetchall())) for name, query in CATALOG.items()}


def tables(conninfo: str) -> list[str]:
    with psycopg.connect(conninfo) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        return [name for (name,) in rows]


def test_it_is_written_from_the_schema_versions() -> None:
    assert (PROJECT / "init.sql").read_text(encoding="utf-8") == init_sql(), "run `make init-sql`"


def test_it_has_no_psql_commands() -> None:
    assert not re.search(r"(?m)^\s*\\", (PROJECT / "init.sql").read_text(encoding="utf-8"))


def test_it_makes_what_the_upgrade_makes(tcp_server: TcpServer, create: Callable[[], str]) -> None:
    by_alembic, by_init_sql = (tcp_server.tcp(dbname=create()) for _ in range(2))
    schema.upgrade(by_alembic)
    done = psql(by_init_sql, "-f", "init.sql")
    assert done.returncode == 0, done.stderr
    for conninfo in (by_alembic, by_init_sql):
        database = Database(conninfo).for_tenant("default")
        models.add_model(database, models.EmbeddingModel.named("other/model", dimension=3000, language="german"))
        database.close()

    one, other = catalog(by_alembic), catalog(by_init_sql)
    for name in CATALOG:
        assert one[name] == other[name], name
    assert one["open tables"] == []
    assert one["version"] == [f"('{schema.SCHEMA_VERSION}',)"]
    assert len(one["models"]) == 2
    assert any("halfvec(3000)" in column for column in one["columns"])


def test_run_twice_it_changes_nothing(tcp_server: TcpServer, create: Callable[[], str]) -> None:
    conninfo = tcp_server.tcp(dbname=create())
    assert psql(conninfo, "-f", "init.sql").returncode == 0
    database = Database(conninfo).for_tenant("default")
    models.add_model(database, models.EmbeddingModel.named("other/model", dimension=3))
    models.switch_model(database, "model")
    models.drop_model(database, "all-minilm-l6-v2")
    database.close()

    before = catalog(conninfo)
    done = psql(conninfo, "-f", "init.sql")
    assert done.returncode == 0, done.stderr
    assert catalog(conninfo) == before


@pytest.mark.parametrize("version", ["0000", "9999"])
def test_a_database_at_another_version_is_refused(
    tcp_server: TcpServer, create: Callable[[], str], version: str
) -> None:
    conninfo = tcp_server.tcp(dbname=create())
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES (%s)", (version,))
    before = tables(conninfo)

    refused = psql(conninfo, "-f", "init.sql")
    assert refused.returncode != 0
    assert f"this database is at version {version}" in refused.stderr
    assert "database upgrade" in refused.stderr
    assert tables(conninfo) == before == ["alembic_version"]


def test_first_start(tcp_server: TcpServer, create: Callable[[], str], tmp_path: Path) -> None:
    """init.sql, then the login script, then the program with the application's password over TCP."""
    name = create()
    script = PROJECT / "deploy" / "application_login.sh"
    assert os.access(script, os.X_OK), "the image sources scripts that are not executable"
    assert psql(tcp_server.tcp(dbname=name), "-f", "init.sql").returncode == 0

    environment = tcp_server.socket_environment(name)
    without_password = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert without_password.returncode != 0
    assert "SYNAPSE_APP_PASSWORD" in without_password.stderr
    environment["SYNAPSE_APP_PASSWORD"] = APPLICATION_PASSWORD
    subprocess.run([script], env=environment, capture_output=True, check=True)
    assert APPLICATION_PASSWORD not in tcp_server.log.read_text()

    application = tcp_server.tcp(user="synapse_app", password=APPLICATION_PASSWORD, dbname=name)
    database = Database(application).for_tenant("default")
    assert database.read("SELECT current_user AS who, count(*) AS n FROM sources") == [
        {"who": "synapse_tenant_default", "n": 0}
    ]
    database.close()

    program = Program(home=tmp_path, environment={"DATABASE_URL": application})
    status = program.json("database", "status")
    assert (status["embedded"], status["superuser"], status["role"]) == (False, False, "synapse_app")

    wrong = replace(program, environment={"DATABASE_URL": application.replace(APPLICATION_PASSWORD, "wr0ng")})
    done = wrong.run("database", "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"The server of synapse_app@127.0.0.1:{tcp_server.port}/{name} was expected to accept the user and password, "
        "but refused them. Check user and password in DATABASE_URL.\n"
    )


def test_the_application_role_owns_nothing(tcp_server: TcpServer, create: Callable[[], str]) -> None:
    name = create()
    owner = tcp_server.tcp(dbname=name)
    assert psql(owner, "-f", "init.sql").returncode == 0
    application = tcp_server.tcp(user="synapse_app", password=APPLICATION_PASSWORD, dbname=name)
    with pytest.raises(DatabaseUnavailableError, match="refused them"):
        Database(application).read("SELECT 1")

    assert schema.grant_login(owner, application_conninfo=application)
    with psycopg.connect(application, autocommit=True) as connection:
        for statement in (
            "CREATE TABLE mine (n int)",
            "DROP TABLE sources",
            "UPDATE alembic_version SET version_num = '9999'",
            "DELETE FROM embedding_models",
            "ALTER TABLE documents_all_minilm_l6_v2 ADD COLUMN extra int",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


@pytest.mark.parametrize("may_create_roles", [True, False])
def test_as_on_a_managed_server(tcp_server: TcpServer, create: Callable[[], str], may_create_roles: bool) -> None:
    """The owner is no superuser, and new tables are open to the roles of a REST interface by default."""
    name = create()
    admin = psycopg.connect(tcp_server.tcp(dbname=name), autocommit=True)
    with admin:
        admin.execute(f"CREATE ROLE managed LOGIN PASSWORD 'pw' {'CREATEROLE' if may_create_roles else ''}")
        admin.execute(f"ALTER DATABASE {name} OWNER TO managed")
        admin.execute("ALTER SCHEMA public OWNER TO managed")
        admin.execute("CREATE EXTENSION vector")
        admin.execute("CREATE ROLE anon")
        admin.execute("CREATE ROLE authenticated")
        admin.execute("ALTER DEFAULT PRIVILEGES FOR ROLE managed GRANT ALL ON TABLES TO anon, authenticated")
    owner = tcp_server.tcp(user="managed", password="pw", dbname=name)
    try:
        schema.upgrade(owner)
        database = Database(owner)
        models.add_model(database, models.EmbeddingModel.named("other/model", dimension=3))
        database.close()
        application = tcp_server.tcp(user="synapse_app", password=APPLICATION_PASSWORD, dbname=name)
        if may_create_roles:
            assert schema.grant_login(owner, application_conninfo=application)
            tenant = Database(application).for_tenant("default")
            schema.require_current(tenant)
            assert tenant.read("SELECT count(*) AS n FROM sources") == [{"n": 0}]
            require_bound(tenant)
            tenant.close()
        found = catalog(owner)
        assert found["version"] == [f"('{schema.SCHEMA_VERSION}',)"]
        assert not [grant for grant in found["table grants"] if "'anon'" in grant or "'authenticated'" in grant]
    finally:
        with psycopg.connect(tcp_server.tcp(dbname=name), autocommit=True) as admin:
            admin.execute("DROP OWNED BY managed CASCADE")
            admin.execute("REASSIGN OWNED BY managed TO postgres")
            drop_roles(admin)
            for role in ("managed", "anon", "authenticated"):
                admin.execute(f"DROP ROLE {role}")
