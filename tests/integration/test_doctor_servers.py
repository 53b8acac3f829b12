"""The doctor on servers that are set up in odd ways, over TCP, and beside a standby; each is a server of its own."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from database import schema
from database.embedded import EmbeddedServer
from database.health.patient import Configured, Limits
from tests.acceptance.program import Program
from tests.support.clinic import Clinic, codes, cured, files_of, fill
from tests.support.plants import PLANTS
from tests.support.standby import pair
from tests.tcp_server import APPLICATION_PASSWORD, TcpServer, drop_roles

ELSEWHERE = (
    "checksums_off",
    "index_beyond_shared_buffers",
    "index_beyond_memory",
    "connections_nearly_used",
    "tenant_roles_missing",
    "replica_other",
    "replica_behind",
)
"""What is planted here."""

pytestmark = pytest.mark.slow


class SmallServer(EmbeddedServer):
    """One with little memory, few connections, and no checksums."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, settings={"shared_buffers": "512kB", "max_connections": "24", "fsync": "on"})

    def _initialise(self) -> None:
        super()._initialise()
        self.checksums("--disable")

    def checksums(self, option: str) -> None:
        """Turn them on or off, while it is stopped."""
        self._run("pg_checksums", option, "-D", self._data)


def test_a_small_server(short_folder: Path) -> None:
    home = short_folder / "small"
    server = SmallServer(home)
    server.start()
    clinic = Clinic(server.conninfo(), server.conninfo(owner=True), folder=home, server=server)
    try:
        assert codes(clinic.found()) == {"checksums_off"}
        fill(clinic)
        assert codes(clinic.found()) == {"checksums_off", "index_beyond_shared_buffers"}
        clinic.run("ALTER DATABASE synapse SET effective_cache_size = '8kB'")
        assert codes(clinic.found()) == {"checksums_off", "index_beyond_memory"}
        clinic.run("ALTER DATABASE synapse RESET effective_cache_size")
        with ExitStack() as stack:
            for _ in range(18):
                stack.enter_context(psycopg.connect(clinic.application))
            found = clinic.found()
            assert codes(found) == {"checksums_off", "index_beyond_shared_buffers", "connections_nearly_used"}
        server.stop()
        server.checksums("--enable")
        larger = EmbeddedServer(home)
        larger.start()
        assert clinic.found() == [], "with checksums, and memory for the index"
        larger.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_the_major_version_before_last(short_folder: Path) -> None:
    """PostgreSQL 16, which makes no checksums unless it is asked to; what is planted there is found there, too."""
    home = short_folder / "sixteen"
    server = EmbeddedServer(home, major=16)
    server.start()
    clinic = Clinic(server.conninfo(), server.conninfo(owner=True), folder=home, server=server)
    try:
        assert codes(clinic.found()) == {"checksums_off"}
        fill(clinic)
        assert codes(clinic.found()) == {"checksums_off"}
        for plant in PLANTS:
            if plant.code in ("index_invalid", "field_statistics_missing", "index_unused", "keyword_triggers_off"):
                clinic.run(*plant.sql)
                found = [finding for finding in clinic.found() if finding.code != "checksums_off"]
                assert codes(found) == {plant.code}
                cured(clinic, found, invoke=lambda _: 1)
                assert codes(clinic.found()) == {"checksums_off"}
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


def test_a_server_over_tcp(short_folder: Path) -> None:
    server = TcpServer(short_folder / "doctor-tcp")
    server.start()
    try:
        with psycopg.connect(server.tcp(dbname="postgres"), autocommit=True) as connection:
            connection.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
            connection.execute("CREATE DATABASE plain OWNER plain")
        as_superuser = server.tcp(dbname="plain")
        with psycopg.connect(as_superuser, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        plain = server.tcp(user="plain", password="plain", dbname="plain")
        schema.upgrade(plain)
        without_roles = Clinic(plain, plain, folder=server.home)
        assert fsync_aside(without_roles) == {"tenant_roles_missing"}
        with psycopg.connect(as_superuser, autocommit=True) as connection:
            connection.execute("DELETE FROM alembic_version")
        schema.upgrade(as_superuser)
        assert fsync_aside(without_roles) == {"role_unbound"}, "the roles are there, and the application is the owner"

        schema.upgrade(server.tcp())
        application = server.tcp(user="synapse_app", password=APPLICATION_PASSWORD)
        schema.grant_login(server.tcp(), application_conninfo=application)
        clinic = Clinic(application, server.tcp(), folder=server.home)
        assert fsync_aside(clinic) == set(), "a database that was made a moment ago"
        fill(clinic)
        assert fsync_aside(clinic) == set(), "and one with documents"

        with psycopg.connect(server.tcp(dbname="postgres"), autocommit=True) as connection:
            connection.execute("DROP DATABASE plain WITH (FORCE)")
            connection.execute("DROP DATABASE synapse WITH (FORCE)")
            drop_roles(connection)
    finally:
        server.stop()
        shutil.rmtree(server.home, ignore_errors=True)


def fsync_aside(clinic: Clinic) -> set[str]:
    """What is found, but for what the tests' server is started with."""
    found = clinic.found()
    assert "fsync_off" in codes(found)
    return codes(found) - {"fsync_off"}


def test_a_standby(short_folder: Path, tcp_server: TcpServer) -> None:
    with pair(short_folder / "doctor-pair") as servers:
        clinic = Clinic(servers.primary.application(), servers.primary.tcp(), folder=short_folder)

        def found(read_url: str) -> set[str]:
            configured = Configured(model_files=files_of, read_url=read_url)
            return codes(clinic.found(configured=configured, limits=Limits(replica_lag=0.2))) - {"fsync_off"}

        servers.caught_up()
        assert found(servers.read_url) == set()
        assert found(tcp_server.tcp(dbname="postgres")) == {"replica_other"}
        servers.standby.execute("SELECT pg_wal_replay_pause()")
        time.sleep(0.3)
        clinic.run("CREATE TABLE written ()", "DROP TABLE written")
        assert found(servers.read_url) == {"replica_behind"}
        servers.standby.execute("SELECT pg_wal_replay_resume()")
        servers.caught_up()
        assert found(servers.read_url) == set()


def test_after_indexing_and_measuring(short_folder: Path) -> None:
    """As a user gets there."""
    program = Program(home=short_folder / "doctor-home", environment={})
    assert program.json("doctor", "--strict")["findings"] == []
    assert program.run("index", "examples/documents").returncode == 0
    program.json("recall", "--sample", 20)
    healthy = program.json("doctor", "--strict")
    assert healthy["findings"] == []
    assert any("100.0%" in line["what"] for line in healthy["right"] if line["subject"] == "recall")
    assert healthy["seconds"] < 3
    shutil.rmtree(program.home, ignore_errors=True)
