"""
The database that is copied: one snapshot of it, which all connections and pg_dump share.

It is only read. What is written meanwhile is not in the copy; `frozen` keeps writers waiting instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL

from database.connection import Database, wrapped
from database.copies.inventory import Inventory, require_ours, take_inventory
from database.copies.relay import reachable
from database.errors import GuardError

LOCK_PATIENCE = "10s"
"""How long writers that are at work are waited for."""

CONNECT_TIMEOUT = 10


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """
    A source at one moment.

    :param name: Where it is, without secrets.
    :param inventory: What it holds.
    :param exported: PostgreSQL's name of the snapshot, for other connections.
    :param taken_at: ISO 8601, UTC.
    :param connection: Whose transaction keeps the snapshot.
    :param busy: Other connections that read it just now.
    """

    name: str
    conninfo: str
    inventory: Inventory
    exported: str
    taken_at: str
    connection: psycopg.Connection[Any]
    busy: list[psycopg.Connection[Any]] = field(default_factory=list, repr=False)

    @contextmanager
    def reader(self) -> Iterator[psycopg.Connection[Any]]:
        """Another connection that sees the same."""
        with psycopg.connect(self.conninfo, prepare_threshold=None, client_encoding="UTF8") as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.execute(SQL("SET TRANSACTION SNAPSHOT {}").format(self.exported))
            _prepare(connection)
            self.busy.append(connection)
            try:
                yield connection
            finally:
                self.busy.remove(connection)
            connection.rollback()

    def interrupt(self) -> None:
        """Have the server end what it is at for us."""
        for connection in [*self.busy]:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=5)

    @contextmanager
    def programs_environment(self) -> Iterator[dict[str, str]]:
        """What pg_dump must know to reach the same server."""
        with reachable(self.connection) as environment:
            yield environment


@contextmanager
def snapshot(conninfo: str, *, frozen: bool = False, application: str = "synapse copy") -> Iterator[Snapshot]:
    """
    Hold a snapshot of a database.

    :param conninfo: Of the owner, in any form that libpq takes; not through a transaction pooler.
    :param frozen: Whether writers wait until the end; readers go on.
    :raises SchemaError: If it has no schema of ours.
    :raises GuardError: If it is to be frozen, and somebody keeps writing.
    """
    database = Database(conninfo)
    name = database.name
    try:
        with psycopg.connect(
            database.conninfo, prepare_threshold=None, client_encoding="UTF8", application_name=application
        ) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if frozen:
                _freeze(connection, database)
            row = (
                connection.cursor(row_factory=dict_row)
                .execute(
                    "SELECT pg_export_snapshot() AS exported, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS at"
                )
                .fetchone()
            )
            assert row is not None
            _prepare(connection)
            inventory = take_inventory(connection)
            require_ours(inventory, name=name)
            yield Snapshot(
                name=name,
                conninfo=database.conninfo,
                inventory=inventory,
                exported=row["exported"],
                taken_at=row["at"],
                connection=connection,
            )
            connection.rollback()
    except psycopg.Error as exc:
        raise wrapped(exc, name=name) from exc


def _prepare(connection: psycopg.Connection[Any]) -> None:
    """No time limits, and no search path: everything is named in full."""
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"):
        connection.execute("SELECT set_config(%s, '0', true)", (setting,))


def _freeze(connection: psycopg.Connection[Any], database: Database) -> None:
    """
    Take the lock that lets readers read and keeps writers waiting, on all tables, before the snapshot is taken.

    The names come from another transaction, as looking for them would take the snapshot too early.
    """
    with psycopg.connect(database.conninfo) as other:
        tables = take_inventory(other).tables
    if not tables:
        return
    connection.execute(SQL("SET LOCAL lock_timeout = {}").format(LOCK_PATIENCE))
    try:
        connection.execute(
            SQL("LOCK TABLE {} IN SHARE MODE").format(SQL(", ").join(table.identifier for table in tables))
        )
    except psycopg.errors.LockNotAvailable as exc:
        raise GuardError(
            f"Writers of {database.name} were expected to end within {LOCK_PATIENCE}, but one is still at work.",
            hint="Stop indexing and services that write, then run it again; or move without --freeze.",
        ) from exc
