"""pg_dump, built without TLS, reads a server that takes encrypted connections alone: the system's PostgreSQL 15."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from database.copies.programs import clean_environment, programs_for
from database.copies.relay import _context, reachable
from database.embedded import EmbeddedServer
from tests.tcp_server import free_port

pytestmark = pytest.mark.system

BINARIES = Path("/usr/lib/postgresql/15/bin")
PASSWORD = "p'a$$ \"w\\ö"


class TlsServer(EmbeddedServer):
    """The system's PostgreSQL, which has TLS; over TCP it takes nothing else."""

    def __init__(self, home: Path) -> None:
        self.port, self.certificate = free_port(), home / "server.crt"
        rules, key = home / "pg_hba.conf", home / "server.key"
        settings = {
            **{"listen_addresses": "127.0.0.1", "port": str(self.port), "hba_file": str(rules), "fsync": "off"},
            **{"ssl": "on", "ssl_cert_file": str(self.certificate), "ssl_key_file": str(key)},
        }
        super().__init__(home, settings=settings, major=15, keeps_schema=True)
        self._binaries = BINARIES  # type: ignore[misc]  # the package's otherwise
        home.mkdir(mode=0o755)
        rules.write_text("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key]
        subprocess.run([*request, "-out", self.certificate, *names], check=True, capture_output=True)
        self._give_away(key)


@pytest.fixture(scope="module")
def server(short_folder: Path) -> Iterator[TlsServer]:
    """The server, with a table to be dumped."""
    if not BINARIES.is_dir() or shutil.which("openssl") is None:
        if os.environ.get("SYNAPSE_REQUIRE_SYSTEM"):
            pytest.fail("the system packages postgresql-15 and openssl are required but not installed")
        pytest.skip("the system packages postgresql-15 and openssl are not installed")
    server = TlsServer(short_folder / "tls")
    server.start()
    with psycopg.connect(server.conninfo(owner=True), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE words AS SELECT n, repeat('word ', 2000) || n AS text FROM generate_series(1, 500) n"
        )
        connection.execute(psycopg.sql.SQL("ALTER ROLE postgres PASSWORD {}").format(PASSWORD))
    yield server
    server.stop()


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_pg_dump_through_our_own_encryption(server: TlsServer, tmp_path: Path, mode: str) -> None:
    conninfo = make_conninfo(
        host="localhost", port=server.port, user="postgres", password=PASSWORD, dbname="synapse", sslmode=mode
    )
    if mode == "verify-full":
        conninfo = make_conninfo(conninfo, sslrootcert=str(server.certificate))
    programs = programs_for(18, why="the test")
    with psycopg.connect(conninfo) as connection:
        assert connection.pgconn.ssl_in_use
        with reachable(connection) as environment:
            folder = Path(environment["PGHOST"])
            assert folder.stat().st_mode & 0o077 == 0
            dumped = tmp_path / "dump"
            command = [programs.path("pg_dump"), "--format=directory", "--jobs=3", "--file", str(dumped)]
            done = subprocess.run(
                command, env=clean_environment(environment), capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
    assert not folder.exists()
    listed = subprocess.run([programs.path("pg_restore"), "--list", dumped], capture_output=True, text=True, check=True)
    assert "TABLE DATA public words" in listed.stdout
    rows = subprocess.run(
        [programs.path("pg_restore"), "-f", "-", "-a", dumped], capture_output=True, text=True, check=True
    )
    assert rows.stdout.count("word word") >= 500


def test_a_server_that_is_another_one(server: TlsServer, tmp_path: Path, short_folder: Path) -> None:
    """The relay checks the certificate as libpq did: what comes in between is refused, and pg_dump told so."""
    stranger = TlsServer(short_folder / "stranger")
    conninfo = make_conninfo(
        host="localhost", port=server.port, user="postgres", password=PASSWORD, dbname="synapse", sslmode="verify-full"
    )
    with psycopg.connect(make_conninfo(conninfo, sslrootcert=str(server.certificate))) as connection:
        shutil.copy(stranger.certificate, server.certificate)  # as if somebody else had the name from now on
        with reachable(connection) as environment:
            command = [programs_for(18, why="the test").path("pg_dump"), "--file", str(tmp_path / "dump")]
            done = subprocess.run(
                command, env=clean_environment(environment), capture_output=True, text=True, check=False
            )
    assert done.returncode
    assert "server closed the connection" in done.stderr


@pytest.mark.parametrize(
    ("dsn", "verified", "named"),
    [
        ("sslmode=require", ssl.CERT_NONE, False),
        ("sslmode=verify-ca sslrootcert=system", ssl.CERT_REQUIRED, False),
        ("sslmode=verify-full sslrootcert=system", ssl.CERT_REQUIRED, True),
    ],
    ids=["require", "verify-ca", "verify-full"],
)
def test_the_relay_is_as_strict_as_libpq(dsn: str, verified: ssl.VerifyMode, named: bool) -> None:
    context = _context(dsn)
    assert (context.verify_mode, context.check_hostname) == (verified, named)
