"""
The database that the doctor looks at: how it is asked, what it holds, and what machine it runs on.

Not through the pool: the pool opens no connection to a database without pgvector, and hides why one fails. One connection as
the application and one as the owner, where that is known; each question in a transaction of its own that is rolled back, with a
time limit, so that a look changes nothing and nobody waits for it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier, Literal

from database.connection import Row, wrapped
from database.health.finding import Finding, Kind
from database.health.releases import MAJORS, Major
from database.sql import statements
from database.tenancy import schema_of, search_path, takes_roles, transaction_settings

if TYPE_CHECKING:
    from psycopg.abc import Params

    from database.connection import Database

_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """
    From where on something is said.

    :param first_connection_ms: Milliseconds that a first connection may take.
    :param round_trip_ms: Milliseconds that an open one may take to answer.
    :param clock_skew: Seconds between the server's clock and this machine's.
    :param idle_transaction: Seconds that a session may idle in a transaction.
    :param long_transaction: Seconds that a transaction may run.
    :param transaction_age: Transactions since the oldest that is not frozen; at about 2 billion PostgreSQL refuses to write.
    :param slot_bytes: Write-ahead log that a replication slot may hold back.
    :param replica_lag: Seconds that a standby may be behind.
    :param little_disk: Bytes that must be free where the data is: half of the log that may gather in minutes.
    :param check_ms: Milliseconds that one statement of the doctor's may take.
    """

    first_connection_ms: float = 1000.0
    round_trip_ms: float = 50.0
    clock_skew: float = 5.0
    idle_transaction: float = 300.0
    long_transaction: float = 3600.0
    transaction_age: int = 1_000_000_000
    slot_bytes: int = 2**30
    replica_lag: float = 10.0
    little_disk: int = 2**29
    check_ms: int = 1500


@dataclass(frozen=True, kw_only=True)
class Machine:
    """
    What is known of the machine that the server runs on; `None` where it is another one, or not told.

    :param free_disk: Bytes that are free where the data is.
    :param shared_memory: Bytes that /dev/shm may hold.
    :param memory: Bytes that the machine can still give.
    """

    free_disk: int | None = None
    shared_memory: int | None = None
    memory: int | None = None

    @classmethod
    def of_server(cls, database: Database, *, data: str | None) -> Machine:
        """
        The machine of a server: this one, where it is the embedded server or is reached by a socket.

        :param data: The server's data folder, where it tells.
        """
        from database.index_build import machine_memory

        folder = database.server.data if database.server else Path(data) if data else None
        host = str(conninfo_to_dict(database.conninfo).get("host") or "")
        if database.server is None and not host.startswith("/"):
            return cls()
        free = shared = None
        with suppress(OSError):  # another user's folder, or a socket that is passed in from elsewhere
            free = shutil.disk_usage(folder).free if folder else None
        with suppress(OSError):
            shared = shutil.disk_usage("/dev/shm").total
        return cls(free_disk=free, shared_memory=shared, memory=machine_memory())


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """
    What the files of an embedding model say, without loading it.

    :param name: The model, as sentence-transformers knows it.
    :param dimension: Of its vectors; `None` where the files do not say.
    :param problem: Why it could not be loaded; `None` if it could.
    :param cure: What mends that.
    :param downloadable: Whether it would be fetched from the hub when it is used.
    """

    name: str
    dimension: int | None = None
    problem: str | None = None
    cure: str = ""
    downloadable: bool = False


@dataclass(frozen=True, kw_only=True)
class Configured:
    """
    What the program is set up with.

    :param embedding_model: As `Settings.embedding_model`.
    :param table_name: As `Settings.table_name`.
    :param ef_search: As `Settings.ef_search`.
    :param secret_files: Files that hold secrets, where they are there.
    :param model_files: Looks at a model's files; `None` where another machine embeds.
    :param read_url: A standby's connection string; `None` without one.
    """

    embedding_model: str | None = None
    table_name: str | None = None
    ef_search: int = 200
    secret_files: tuple[Path, ...] = ()
    model_files: Callable[[str], ModelFiles] | None = None
    read_url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """
    A documents table of a tenant, as the catalog has it, beside what the registry says of it.

    :param tenant: Whose.
    :param name: In its schema.
    :param model: The model, as sentence-transformers knows it.
    :param registered: The registry's name of the model.
    :param dimension: The registry's.
    :param vector_type: The registry's.
    :param oid: `None` where there is no such table.
    :param column_type: Type of its embeddings, such as `vector`.
    :param column_dimension: Their dimension.
    :param rows: About how many; of partitions, all.
    :param bytes: Of the table alone.
    :param note: Its comment.
    """

    tenant: str
    name: str
    model: str
    registered: str
    language: str
    dimension: int
    vector_type: str
    active: bool
    oid: int | None
    column_type: str | None
    column_dimension: int | None
    rows: int
    bytes: int
    note: str | None

    @property
    def schema(self) -> str:
        """The schema that it stands in."""
        return schema_of(self.tenant)

    @property
    def identifier(self) -> Identifier:
        """Its name, for statements."""
        return Identifier(self.schema, self.name)

    @property
    def quoted(self) -> str:
        """Its name with its schema, as SQL has it."""
        return self.identifier.as_string()

    @property
    def shown(self) -> str:
        """Its name for people; the tenant `default` needs no schema."""
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"

    @property
    def is_loading(self) -> bool:
        """Whether a bulk load has taken its indexes away."""
        return (self.note or "").startswith("synapse bulk load ")


@dataclass(kw_only=True)
class Patient:
    """
    A database under examination.

    :param application: As who the program connects; tenants are named below.
    :param owner: The same as the owner of the schema; `None` where that is not known.
    :param tenants: Whose tables are looked at.
    :param machine: `None` means that it is found out.
    :param now: What this machine's clock says, in seconds since 1970.
    """

    application: Database
    owner: Database | None = None
    tenants: tuple[str, ...] = ("default",)
    configured: Configured = field(default_factory=Configured)
    limits: Limits = field(default_factory=Limits)
    releases: Mapping[int, Major] = field(default_factory=lambda: MAJORS)
    machine_facts: Machine | None = None
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._connections: dict[bool, psycopg.Connection[Row]] = {}

    @property
    def today(self) -> date:
        """The day, by this machine's clock."""
        return datetime.fromtimestamp(self.now(), UTC).date()

    @property
    def name(self) -> str:
        """Where the database is, without secrets."""
        return self.application.name

    def connect(self) -> None:
        """
        Look whether the application can connect.

        :raises DatabaseUnavailableError: If it cannot.
        """
        try:
            with psycopg.connect(self.application.conninfo, autocommit=True, prepare_threshold=None) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error as exc:
            raise wrapped(exc, name=self.name) from exc

    def close(self) -> None:
        """Close them."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def ask(
        self,
        statement: str | Composed,
        params: Params | None = None,
        *,
        as_owner: bool = False,
        tenant: str | None = None,
    ) -> list[Row]:
        """
        Ask one question, in a transaction that is rolled back.

        :param as_owner: Whether the owner asks, where it is known: some views show others' sessions and settings to it alone.
        :param tenant: Whose role the transaction takes, as the program's own do.
        :raises psycopg.Error: If the server refuses.
        """
        with self.transaction(as_owner=as_owner, tenant=tenant) as connection:
            return connection.execute(statement, params).fetchall()  # type: ignore[arg-type]

    @contextmanager
    def transaction(self, *, as_owner: bool = False, tenant: str | None = None) -> Iterator[psycopg.Connection[Row]]:
        """A transaction that is rolled back; see `ask`."""
        connection = self.connection(as_owner=as_owner)
        limit = str(self.limits.check_ms)
        local = {"statement_timeout": limit, "lock_timeout": limit}
        if tenant is not None and not (as_owner and self.owner):
            local |= transaction_settings(tenant) if self.takes_roles else {"search_path": search_path(tenant)}
        try:
            calls = ", ".join("set_config(%s, %s, true)" for _ in local)
            connection.execute(f"SELECT {calls}", [text for pair in local.items() for text in pair])
            yield connection
        finally:
            with suppress(psycopg.Error):
                connection.rollback()

    def connection(self, *, as_owner: bool = False) -> psycopg.Connection[Row]:
        """The connection of either; a lost one is opened again."""
        key = as_owner and self.owner is not None
        known = self._connections.get(key)
        if known is None or known.closed or known.broken:
            database = self.owner if key and self.owner else self.application
            known = psycopg.connect(database.conninfo, prepare_threshold=None, row_factory=dict_row)
            self._connections[key] = known
        return known

    @cached_property
    def takes_roles(self) -> bool:
        """Whether the application works through the roles of tenants."""
        connection = self.connection()
        found = takes_roles(connection)
        connection.rollback()
        return found

    def has_tenant(self, tenant: str) -> bool:
        """Whether a transaction can become a tenant's: its role is there, or none is taken."""
        return not self.takes_roles or bool(self.ask(_SQL["has_role"], {"tenant": tenant})[0]["found"])

    @cached_property
    def settings(self) -> dict[str, Row]:
        """PostgreSQL's settings that are looked at, by name; those that are hidden from us are missing."""
        return {row["name"]: row for row in self.ask(_SQL["settings"], as_owner=True)}

    def setting(self, name: str) -> int | None:
        """A setting that is a number, in bytes where it is a size; `None` where it is hidden."""
        row = self.settings.get(name)
        return None if row is None else int(float(row["setting"]) * row["unit_bytes"])

    def mending(self, kind: Kind, what: str, *, setting: str, value: str) -> Finding:
        """A finding about a setting of the server: where it is set decides how it is changed."""
        row = self.settings[setting]
        if self.application.server is not None and row["source"] == "command line":
            return kind.text(
                what, "The embedded server is started with it; a server of one's own has its own: docs/moving.md."
            )
        if row["source"] == "command line":
            return kind.text(what, f"Start the server with -c {setting}={value}.")
        if row["source"] == "database":
            database = Identifier(self.ask("SELECT current_database() AS name")[0]["name"])
            return kind.sql(what, SQL("ALTER DATABASE {} RESET {}").format(database, Identifier(setting)).as_string())
        change = SQL("ALTER SYSTEM SET {} = {}").format(Identifier(setting), Literal(value)).as_string()
        if row["context"] == "postmaster":
            return kind.text(what, f"{change}; then restart the server.")
        return kind.sql(what, change, "SELECT pg_reload_conf()")

    @cached_property
    def machine(self) -> Machine:
        """The server's machine."""
        if self.machine_facts is not None:
            return self.machine_facts
        known = self.settings.get("data_directory")
        return Machine.of_server(self.application, data=known["setting"] if known else None)

    @cached_property
    def tables(self) -> list[Table]:
        """The documents tables of all registered models, for each tenant that is looked at."""
        found = []
        for tenant in self.tenants:
            rows = self.ask(_SQL["tables"], {"schema": schema_of(tenant)}, as_owner=True)
            found += [Table(tenant=tenant, **row) for row in rows]
        return found

    @property
    def present_tables(self) -> list[Table]:
        """Those that are there and hold vectors."""
        return [table for table in self.tables if table.oid is not None and table.column_dimension is not None]

    def is_superuser(self, *, as_owner: bool = True) -> bool:
        """Whether everything is shown: other sessions' statements, and all settings."""
        return bool(self.ask(_SQL["sees_all"], as_owner=as_owner)[0]["sees_all"])

    def formatted(self, statement: str, table: Table, **parts: Any) -> Composed:
        """A statement on a table: `{table}`, `{keywords}`, `{terms}`."""
        names = {suffix: Identifier(table.schema, f"{table.name}_{suffix}") for suffix in ("keywords", "terms")}
        return SQL(statement).format(table=table.identifier, **names, **parts)  # type: ignore[arg-type]

    def said(self, exc: psycopg.Error) -> str:
        """A driver's error, in a sentence without secrets."""
        return str(wrapped(exc, name=self.name).message)
