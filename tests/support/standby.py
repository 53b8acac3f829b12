"""A primary and its standby by streaming replication, on the embedded server's binaries: made, stopped, started, promoted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from database import schema
from database.embedded import APPLICATION_ROLE, DATABASE, OWNER, EmbeddedServer
from tests.support.relay import TcpRelay
from tests.tcp_server import APPLICATION_PASSWORD, OWNER_PASSWORD, TcpServer, free_port

SMALL = {"shared_buffers": "64MB", "maintenance_work_mem": "64MB", "max_connections": "100", "fsync": "off"}


class Primary(TcpServer):
    """A server that sends its write-ahead log to standbys."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._settings |= {**SMALL, "wal_keep_size": "256MB", "wal_sender_timeout": "5s"}
        with (home / "pg_hba.conf").open("a") as rules:
            rules.write("local replication all trust\nhost replication all 127.0.0.1/32 scram-sha-256\n")

    def application(self, *, port: int = 0) -> str:
        """The application role's connection string."""
        return self.tcp(user=APPLICATION_ROLE, password=APPLICATION_PASSWORD, port=port)

    def kill(self) -> None:
        """Stop it as a power cut does."""
        self._run("pg_ctl", "stop", "-D", self._data, "-m", "immediate", "-w")

    def go_on(self) -> None:
        """Start it again."""
        self._start()

    def confirm_on_standby(self) -> None:
        """Acknowledge a commit only when a standby has it, too: nothing acknowledged is lost with the primary."""
        with psycopg.connect(self.tcp(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")


class StandbyServer(EmbeddedServer):
    """
    A copy of a primary that follows it.

    :param home: Its folder; any user must be able to enter it.
    :param primary: Whom it follows.
    :param through: Port where it reaches the primary; 0 means the primary's own.
    """

    host = "127.0.0.1"

    def __init__(self, home: Path, primary: Primary, *, through: int = 0) -> None:
        self.port = free_port()
        settings = {"listen_addresses": self.host, "port": str(self.port), "wal_receiver_timeout": "5s"}
        settings |= {"hba_file": str(primary.home / "pg_hba.conf"), "wal_retrieve_retry_interval": "500ms"}
        settings["max_standby_streaming_delay"] = "100ms"  # longer queries than that meet recovery conflicts
        super().__init__(home, settings=SMALL | settings)
        home.mkdir(mode=0o755)
        self._data.mkdir(mode=0o700)
        self._give_away(self._data)
        source = primary.tcp(port=through, dbname="postgres")
        self._run(*("pg_basebackup", "-d", source, "-D", self._data, "-R", "-X", "stream", "-c", "fast"))
        self._start()

    def tcp(self, *, user: str = OWNER, password: str = OWNER_PASSWORD, port: int = 0) -> str:
        """The connection string of a client elsewhere."""
        return make_conninfo(host=self.host, port=port or self.port, user=user, password=password, dbname=DATABASE)

    def application(self, *, port: int = 0) -> str:
        """The application role's connection string."""
        return self.tcp(user=APPLICATION_ROLE, password=APPLICATION_PASSWORD, port=port)

    def kill(self) -> None:
        """Stop it as a power cut does."""
        self._run("pg_ctl", "stop", "-D", self._data, "-m", "immediate", "-w")

    def go_on(self) -> None:
        """Start it again."""
        self._start()

    def promote(self) -> None:
        """Make it a primary."""
        self._run("pg_ctl", "promote", "-D", self._data, "-w")

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement there as the owner."""
        with psycopg.connect(self.tcp(), autocommit=True) as connection:
            while True:
                try:
                    return connection.execute(statement).fetchall()
                except psycopg.errors.SerializationFailure:  # what the catalog's rows were replaced by is replayed now
                    time.sleep(0.05)


class Pair:
    """A primary with our schema and a standby of it, which follows it, and is reached by clients, through relays."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o755)
        self.primary = Primary(home / "primary")
        self.primary.start()
        schema.upgrade(self.primary.tcp())
        schema.grant_login(self.primary.tcp(), application_conninfo=self.primary.application())
        self.to_primary = TcpRelay(self.primary.port)
        self.replication = TcpRelay(self.primary.port)
        self.standby = StandbyServer(home / "standby", self.primary, through=self.replication.port)
        self.to_standby = TcpRelay(self.standby.port)

    @property
    def url(self) -> str:
        """The primary, as the application reaches it."""
        return self.primary.application(port=self.to_primary.port)

    @property
    def read_url(self) -> str:
        """The standby, likewise."""
        return self.standby.application(port=self.to_standby.port)

    def caught_up(self) -> None:
        """Wait until the standby has everything that was committed."""
        with psycopg.connect(self.primary.tcp(), autocommit=True) as primary:
            row = primary.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert row is not None
        until = time.monotonic() + 30
        while self.standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{row[0]}'") != [(True,)]:
            assert time.monotonic() < until, "the standby does not follow"
            time.sleep(0.05)

    def close(self) -> None:
        """Stop everything."""
        for relay in (self.to_primary, self.to_standby, self.replication):
            relay.close()
        self.standby.kill()
        self.primary.stop()


@contextmanager
def pair(home: Path) -> Iterator[Pair]:
    """A pair for as long as it is wanted."""
    made = Pair(home)
    try:
        yield made
    finally:
        made.close()
