"""The doctor behind PgBouncer in each of its modes."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from database import schema
from database.connection import Database
from database.health.examination import examine
from database.health.pooling import pool_mode
from tests.support.clinic import Clinic, codes
from tests.tcp_server import APPLICATION_PASSWORD, OWNER_PASSWORD, TcpServer, drop_roles, free_port

POOLED = ("pooler_statement", "pooler_owner")
"""What is planted here."""

DATABASE = "doctor_pooled"

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def clinic(tcp_server: TcpServer) -> Iterator[Clinic]:
    with psycopg.connect(tcp_server.tcp(dbname="postgres"), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {DATABASE}")
        schema.upgrade(tcp_server.tcp(dbname=DATABASE))
        application = tcp_server.tcp(user="synapse_app", password=APPLICATION_PASSWORD, dbname=DATABASE)
        schema.grant_login(tcp_server.tcp(dbname=DATABASE), application_conninfo=application)
        yield Clinic(application, tcp_server.tcp(dbname=DATABASE), folder=tcp_server.home)
        server.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        drop_roles(server)


@contextmanager
def bouncer(server: TcpServer, folder: Path, *, mode: str) -> Iterator[int]:
    """PgBouncer before the server, in one of its modes; gives its port."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if program is None:
        if os.environ.get("SYNAPSE_REQUIRE_SYSTEM"):
            pytest.fail("pgbouncer is required but not installed")
        pytest.skip("pgbouncer is not installed")
    place = folder / f"doctor-bouncer-{os.urandom(3).hex()}"
    place.mkdir()
    port, users, settings = free_port(), place / "users.txt", place / "pgbouncer.ini"
    users.write_text(f'"synapse_app" "{APPLICATION_PASSWORD}"\n"postgres" "{OWNER_PASSWORD}"\n')
    settings.write_text(
        f"[databases]\n{DATABASE} = host={server.host} port={server.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n"
        f"auth_file = {users}\npool_mode = {mode}\ndefault_pool_size = 4\nlogfile = {place / 'log'}\n"
    )
    command = [program, str(settings)]
    if os.geteuid() == 0:  # it refuses to run as root
        nobody = pwd.getpwnam("nobody")
        for path in (place, users, settings):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        command += ["-u", "nobody"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(server.tcp(user="postgres", dbname=DATABASE, port=port)).close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < until
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_the_mode_is_told(clinic: Clinic, tcp_server: TcpServer, short_folder: Path, mode: str) -> None:
    assert pool_mode(clinic.application) == "none"
    with bouncer(tcp_server, short_folder, mode=mode) as port:
        through = tcp_server.tcp(user="synapse_app", password=APPLICATION_PASSWORD, dbname=DATABASE, port=port)
        assert {pool_mode(through) for _ in range(5)} == {mode}
        found = clinic.found(application=Database(through))
        assert codes(found) - {"fsync_off"} == ({"pooler_statement"} if mode == "statement" else set())


def test_the_owner_needs_sessions(clinic: Clinic, tcp_server: TcpServer, short_folder: Path) -> None:
    with bouncer(tcp_server, short_folder, mode="transaction") as port:
        through = tcp_server.tcp(dbname=DATABASE, port=port)
        assert codes(clinic.found(owner=Database(through))) - {"fsync_off"} == {"pooler_owner"}


def test_behind_a_pooler_everything_is_looked_at(clinic: Clinic, tcp_server: TcpServer, short_folder: Path) -> None:
    with bouncer(tcp_server, short_folder, mode="transaction") as port:
        through = tcp_server.tcp(user="synapse_app", password=APPLICATION_PASSWORD, dbname=DATABASE, port=port)
        patient = clinic.patient(application=Database(through))
        found = examine(patient)
        patient.close()
        assert "through a pooler in transaction mode" in [finding.what for finding in found]
        assert {finding.subject for finding in found if finding.severity == "unknown"} == {"disk"}
