"""What the compose files mount and run beside the database, on real servers: health check, PgBouncer, PostgreSQL's settings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from database.connection import Database
from tests.support.compose import PROJECT
from tests.support.pgbouncer import program
from tests.tcp_server import APPLICATION_PASSWORD, OWNER_PASSWORD, TcpServer, drop_roles, free_port, psql

DEPLOY = PROJECT / "deploy"
DATABASE = "composed"


@pytest.fixture(scope="module")
def composed(tcp_server: TcpServer) -> Iterator[str]:
    """A database as init.sql and application_login.sh leave it; the environment of a container is made of it."""
    with psycopg.connect(tcp_server.tcp(dbname="postgres"), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {DATABASE}")
        assert psql(tcp_server.tcp(dbname=DATABASE), "-f", "init.sql").returncode == 0
        environment = tcp_server.socket_environment(DATABASE) | {"SYNAPSE_APP_PASSWORD": APPLICATION_PASSWORD}
        subprocess.run([DEPLOY / "application_login.sh"], env=environment, check=True, capture_output=True)
        yield DATABASE
        server.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        drop_roles(server)


def health(server: TcpServer, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DEPLOY / "postgresql" / "healthcheck.sh", *map(str, arguments)],
        env=server.socket_environment(DATABASE) | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("from_file", [False, True], ids=["variable", "file"])
def test_a_database_that_can_work_is_healthy(
    tcp_server: TcpServer, composed: str, tmp_path: Path, from_file: bool
) -> None:
    for user, name, password in (
        ("postgres", "POSTGRES_PASSWORD", OWNER_PASSWORD),
        ("synapse_app", "SYNAPSE_APP_PASSWORD", APPLICATION_PASSWORD),
    ):
        (tmp_path / name).write_text(f"{password}\n")
        given = {f"{name}_FILE": str(tmp_path / name)} if from_file else {name: password}
        done = health(tcp_server, user, tcp_server.port, **given)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("vector 0.8.5, schema 0")


def test_the_application_logs_in_with_the_password_of_a_file(
    tcp_server: TcpServer, composed: str, tmp_path: Path
) -> None:
    def given(password: str) -> str:
        (tmp_path / "password").write_text(f"{password}\n")
        environment = tcp_server.socket_environment(composed) | {
            "SYNAPSE_APP_PASSWORD_FILE": str(tmp_path / "password")
        }
        command = [DEPLOY / "application_login.sh"]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    try:
        assert re.fullmatch(
            r"init\.sql made schema version \d{4} with pgvector 0\.8\.5; synapse_app can log in\.\n", given("an'other")
        )
        psycopg.connect(tcp_server.tcp(user="synapse_app", password="an'other", dbname=composed)).close()
    finally:
        given(APPLICATION_PASSWORD)
    assert "an'other" not in tcp_server.log.read_text()


def test_one_that_cannot_is_not(tcp_server: TcpServer, composed: str) -> None:
    given = {"POSTGRES_PASSWORD": OWNER_PASSWORD}
    wrong = health(tcp_server, "postgres", tcp_server.port, POSTGRES_PASSWORD="wr0ng")
    assert (wrong.returncode != 0, "wr0ng" in wrong.stderr) == (True, False)
    assert health(tcp_server, "postgres", free_port(), **given).returncode != 0, "nobody listens there"
    without_vectors = health(tcp_server, "postgres", tcp_server.port, POSTGRES_DB="postgres", **given)
    assert without_vectors.returncode != 0
    assert 'type "vector" does not exist' in without_vectors.stderr
    with psycopg.connect(tcp_server.tcp(dbname=DATABASE), autocommit=True) as connection:
        connection.execute("ALTER TABLE alembic_version RENAME TO elsewhere")
        try:
            without_schema = health(tcp_server, "postgres", tcp_server.port, **given)
        finally:
            connection.execute("ALTER TABLE elsewhere RENAME TO alembic_version")
    assert without_schema.returncode != 0
    assert '"alembic_version" does not exist' in without_schema.stderr


@pytest.mark.system
@pytest.mark.parametrize("from_file", [False, True], ids=["variable", "file"])
def test_pgbouncer_as_it_is_configured(
    tcp_server: TcpServer, composed: str, short_folder: Path, from_file: bool
) -> None:
    """start.sh and pgbouncer.ini as they stand, but for where the database is and where they write."""
    folder = short_folder / f"pgbouncer-{os.urandom(4).hex()}"
    folder.mkdir()
    port, users = free_port(), folder / "users.txt"
    settings = (DEPLOY / "pgbouncer" / "pgbouncer.ini").read_text()
    for there, here in (
        ("synapse = host=database port=5432", f"{composed} = host={tcp_server.host} port={tcp_server.port}"),
        ("listen_addr = *", "listen_addr = 127.0.0.1"),
        ("listen_port = 5432", f"listen_port = {port}"),
        ("/tmp/users.txt", str(users)),
    ):
        assert there in settings
        settings = settings.replace(there, here)
    (folder / "pgbouncer.ini").write_text(settings)
    (folder / "password").write_text(f"{APPLICATION_PASSWORD}\n")
    shutil.chown(folder, "nobody", "nogroup")
    given = (
        {"SYNAPSE_APP_PASSWORD_FILE": str(folder / "password")}
        if from_file
        else {"SYNAPSE_APP_PASSWORD": APPLICATION_PASSWORD}
    )
    command = ["sh", str(DEPLOY / "pgbouncer" / "start.sh"), str(folder / "pgbouncer.ini")]
    pgbouncer = Path(program("pgbouncer"))
    process = subprocess.Popen(
        command,
        env={"PATH": f"{pgbouncer.parent}:/usr/bin:/bin", "USERS_FILE": str(users)} | given,
        user="nobody" if os.geteuid() == 0 else None,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while (done := health(tcp_server, "synapse_app", port, **given)).returncode != 0:
            assert process.poll() is None
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.1)
        assert users.stat().st_mode & 0o077 == 0
        application = tcp_server.tcp(user="synapse_app", password=APPLICATION_PASSWORD, dbname=composed, port=port)
        database = Database(application).for_tenant("default")
        assert database.read("SELECT current_user AS who") == [{"who": "synapse_tenant_default"}]
        database.close()
        with pytest.raises(psycopg.OperationalError, match=r"authentication failed|no such user"):
            psycopg.connect(tcp_server.tcp(user="postgres", dbname=composed, port=port))
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_postgresql_starts_with_its_settings(short_folder: Path) -> None:
    """As compose starts it: config_file on the command line, its data elsewhere."""
    path = short_folder / f"small-{os.urandom(4).hex()}.conf"
    lines = (DEPLOY / "postgresql" / "small.conf").read_text().splitlines(keepends=True)
    # Of contrib's modules, which PostgreSQL's image has, the embedded server has none.
    path.write_text("".join(line for line in lines if not line.startswith("shared_preload_libraries")))
    server = TcpServer(short_folder / f"conf-{os.urandom(4).hex()}")
    kept = {name: server._settings[name] for name in ("port", "hba_file", "fsync")}
    server._settings = kept | {"config_file": str(path)}
    server.start()
    try:
        with psycopg.connect(server.tcp(dbname="postgres")) as connection:
            rows = connection.execute(
                "SELECT name, setting FROM pg_settings WHERE sourcefile = %s", (str(path),)
            ).fetchall()
            refused = connection.execute("SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL").fetchall()
            (shared,) = connection.execute("SHOW shared_buffers").fetchone() or ("",)
    finally:
        server.stop()
    assert refused == []
    given = {line.split(" = ")[0] for line in path.read_text().splitlines() if " = " in line and line[0] != "#"}
    assert {name.lower() for name, _ in rows} == given
    assert shared == "1GB"
