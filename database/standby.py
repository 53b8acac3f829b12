"""
A standby, and a thread that looks after it and its primary: which of them is away, and since when it is back.

A server that is stopped says so, and its connections break. One whose network is cut says nothing: reads wait, and TCP itself
gives up after minutes. Where a read has waited for a second, the thread knocks at that server's door, and where nobody opens,
ends all reads that wait there, so that they go to the other server.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from database.connection import KNOCK_TIMEOUT, Database, Row, parse_conninfo
from database.errors import SynapseError
from database.running_reads import Address
from database.sql import statements

CONNECT_TIMEOUT = 3
"""Seconds until a connection attempt to the standby is given up: there is another server to ask."""

OVERDUE = 1.0
"""Seconds that a read may take before somebody looks whether its server is still there; if it is, the read goes on."""

TICK = 0.25
"""Seconds between two looks at the reads, while there are any."""

NOT_SEEN_YET = "Nobody has looked for it yet."

LOOK_EVERY = 1.0
"""Seconds between two looks for a server that is away."""

_CLUSTER = statements(Path(__file__).with_name("reading.sql"))["cluster"]
log = logging.getLogger("synapse.database")


class Standby(Database):
    """
    A standby as a `Database`: each of its connections leads to the right cluster, and none is waited for long.

    :param conninfo: Any form that libpq takes.
    :param check: Called with the `cluster` of each new connection; raises where it is another than the primary's.
    """

    def __init__(self, conninfo: str, check: Callable[[int], None]) -> None:
        parameters = {"connect_timeout": CONNECT_TIMEOUT, "tcp_user_timeout": 1000 * CONNECT_TIMEOUT}
        super().__init__(make_conninfo(**(parameters | parse_conninfo(conninfo))))
        self._check = check
        self._attempts, self._patience = 2, 0.0

    def _pool_arguments(self) -> dict[str, Any]:
        # No attempt pauses and tries again: when the server is back, the next read connects at once.
        return {**super()._pool_arguments(), "reconnect_timeout": 0.1}

    def _prepare(self, connection: psycopg.Connection[Any]) -> None:
        super()._prepare(connection)
        with connection.cursor(row_factory=dict_row) as cursor:
            self._judge(cursor.execute(_CLUSTER).fetchone())
        connection.commit()

    async def _prepare_async(self, connection: psycopg.AsyncConnection[Any]) -> None:
        await super()._prepare_async(connection)
        async with connection.cursor(row_factory=dict_row) as cursor:
            self._judge(await (await cursor.execute(_CLUSTER)).fetchone())
        await connection.commit()

    def _judge(self, row: Row | None) -> None:
        if row and row["cluster"] is not None:
            self._check(row["cluster"])


class Side:
    """
    One of two servers that can answer a read.

    :param trouble: Why it is not asked; `None`: it is.
    :param is_known: Whether enough is known to look for it.
    """

    def __init__(self, database: Database, *, trouble: str | None = None, is_known: bool = True) -> None:
        self.database = database
        self.trouble = trouble
        self.is_known = is_known
        self.looked_at = self._left_at = float("-inf")

    @property
    def is_away(self) -> bool:
        """Whether it is not asked. One that took a write meanwhile is back, whoever may have noticed."""
        if self.trouble is not None and self.database._pools.wrote_at > self._left_at:
            self.come_back()
        return self.trouble is not None

    def leave(self, exc: SynapseError) -> None:
        """Ask it no more, until somebody has seen it."""
        if self.trouble in (None, NOT_SEEN_YET):
            log.warning("not read from: %s", exc.message)
        self.trouble, self._left_at = exc.message, time.monotonic()
        self.database._pools.silent = True

    def come_back(self) -> None:
        """Ask it again."""
        if self.trouble is not None:
            log.info("read from: %s", self.database.name)
        self.database._pools.silent = False
        self.trouble = None

    def look(self) -> None:
        """See whether it is there, by a connection of its own."""
        self.looked_at = time.monotonic()
        try:
            with (
                self.database._errors_wrapped(),
                psycopg.connect(make_conninfo(self.database.conninfo, connect_timeout=KNOCK_TIMEOUT)) as connection,
            ):
                self.database._prepare(connection)
        except SynapseError as exc:
            self.leave(exc)
        else:
            self.come_back()

    def answers_at(self, address: Address) -> bool:
        """Whether one of its hosts is there."""
        host, port = address
        parameters = {
            **parse_conninfo(self.database.conninfo),
            "host": host,
            "port": port,
            "target_session_attrs": "any",
        }
        parameters.pop("hostaddr", None)
        try:
            psycopg.connect(make_conninfo(**parameters | {"connect_timeout": KNOCK_TIMEOUT})).close()
        except psycopg.Error:
            return False
        return True

    def give_up_silent_reads(self) -> None:
        """End the reads whose server does not answer any more, and ask this side no more where none of its hosts does."""
        running = self.database._pools.running
        for address in running.overdue(OVERDUE):
            if not self.answers_at(address):
                if "," in str(parse_conninfo(self.database.conninfo).get("host")):
                    self.look()
                else:
                    self.leave(self.database.silence())
                log.warning("%s:%s fell silent: %d reads go elsewhere", *address, running.cut(address))


class Watch:
    """
    A thread that looks after the servers while they are read from, and after those that are away.

    :param sides: The servers.
    """

    def __init__(self, sides: Sequence[Side]) -> None:
        self._sides = sides
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._stopped: threading.Event | None = None

    def begin(self) -> None:
        """Look from now on; said with each read."""
        if not self._wanted.is_set():
            self._wanted.set()
        if self._stopped is None:
            with self._lock:
                if self._stopped is None:
                    self._stopped = threading.Event()
                    threading.Thread(
                        target=self._run, args=(self._stopped,), name="synapse-watch-servers", daemon=True
                    ).start()

    def end(self) -> None:
        """Look no more, until the next read."""
        with self._lock:
            if self._stopped is not None:
                self._stopped.set()
                self._wanted.set()
                self._stopped = None

    def _run(self, stopped: threading.Event) -> None:
        while self._wanted.wait() and not stopped.is_set():
            self._wanted.clear()
            for side in self._sides:
                side.give_up_silent_reads()
                if side.is_away and side.is_known and side.looked_at < time.monotonic() - LOOK_EVERY:
                    side.look()
            if any(side.is_away or side.database._pools.running for side in self._sides):
                self._wanted.set()
            stopped.wait(TICK)
