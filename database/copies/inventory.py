"""
What a database holds of ours, and a checksum of each table that its copy must have, too.

A table's checksum is the sum of its rows' hashes, whatever order they are read in, made from the values' binary form: it says
nothing about a server's version, and the same rows have the same on any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable, Composed, Identifier

from database.errors import DatabaseError, SchemaError
from database.sql import statements
from database.tenancy import checked_tenant

VERSION_TABLE = ("public", "alembic_version")
MASK = 2**64 - 1

OnTable = Callable[["Table"], None]
_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class Table:
    """
    A table of ours, or one that stands beside ours in `public`.

    :param size: Bytes on disk, without indexes.
    :param columns: `{name, copied, schema, send}`: the last two name the function that gives a value's bytes.
    :param bound: Whether row-level security binds who connects, so that rows are read as each tenant in turn.
    :param hidden: Whether it hides rows that no tenant's role shows either.
    """

    schema: str
    name: str
    size: int
    columns: tuple[Mapping[str, Any], ...]
    bound: bool = False
    hidden: bool = False

    @property
    def identifier(self) -> Identifier:
        """Its name in SQL."""
        return Identifier(self.schema, self.name)

    @property
    def full_name(self) -> str:
        """Its name for people and manifests."""
        return f"{self.schema}.{self.name}"

    @property
    def copied(self) -> Composed:
        """The columns that are copied, in SQL; the others PostgreSQL generates."""
        return SQL(", ").join(Identifier(column["name"]) for column in self.columns if column["copied"])


@dataclass(frozen=True, kw_only=True)
class Sum:
    """
    A table's rows, and their checksum.

    :param rows: How many.
    :param checksum: The sum of their hashes, 32 hexadecimal digits.
    """

    rows: int
    checksum: str


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """
    What there is in a database, as one transaction sees it.

    :param facts: Versions of server and pgvector, and what else `facts` in the SQL file gives.
    :param schema_version: Of our schema; `None` where there is none.
    :param schemas: `public` and the tenants'.
    :param tables: By schema and name.
    :param sequences: `{schema, name, start_value, last_value}`.
    :param models: The embedding models' rows.
    :param tenants: Their names.
    :param names: Of all tables, `schema.name`.
    :param roles: Ours on the server, with `memberships` among them: `{role, member, inherit, set}`.
    """

    facts: dict[str, Any]
    schema_version: str | None
    schemas: tuple[str, ...]
    tables: tuple[Table, ...]
    sequences: tuple[dict[str, Any], ...] = ()
    models: tuple[dict[str, Any], ...] = ()
    tenants: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    memberships: tuple[dict[str, Any], ...] = ()
    names: frozenset[str] = frozenset()

    @property
    def bound(self) -> bool:
        """Whether some rows are seen only as a tenant."""
        return any(table.bound for table in self.tables)


def take_inventory(connection: psycopg.Connection[Any]) -> Inventory:
    """Look what there is, in the connection's transaction."""
    cursor = connection.cursor(row_factory=dict_row)
    schemas = tuple(row["name"] for row in cursor.execute(_SQL["schemas"]))
    rows = cursor.execute(_SQL["tables"], {"schemas": list(schemas)}).fetchall()
    names = frozenset(f"{row['schema']}.{row['name']}" for row in rows)
    tenants = _names(cursor, "tenants") if "public.tenants" in names else ()
    tables = tuple(
        Table(
            schema=row["schema"],
            name=row["name"],
            size=row["size"],
            columns=tuple(row["columns"]),
            bound=row["bound"] and row["shared"] and not row["open"],
            hidden=row["bound"] and not row["shared"] and not row["open"],
        )
        for row in rows
    )
    roles = _names(cursor, "roles")
    mine = {"synapse_app", "synapse_tenant", *(f"synapse_tenant_{name}" for name in tenants)}
    roles = tuple(name for name in roles if name in mine)
    version = None
    if ".".join(VERSION_TABLE) in names:
        found = cursor.execute(_SQL["version"]).fetchone()
        version = found["version_num"] if found else ""
    return Inventory(
        facts=facts_of(connection),
        schema_version=version,
        schemas=schemas,
        tables=tables,
        sequences=tuple(cursor.execute(_SQL["sequences"], {"schemas": list(schemas)}).fetchall()),
        models=tuple(cursor.execute(_SQL["models"]).fetchall()) if "public.embedding_models" in names else (),
        tenants=tenants,
        roles=roles,
        memberships=tuple(cursor.execute(_SQL["memberships"], {"roles": list(roles)}).fetchall()),
        names=names,
    )


def facts_of(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """Versions of a server and its pgvector, and what tells one database from another."""
    return connection.cursor(row_factory=dict_row).execute(_SQL["facts"]).fetchone() or {}


def require_ours(inventory: Inventory, *, name: str) -> None:
    """
    Check that there is something to copy.

    :raises SchemaError: If the database has no schema of ours, or a restore into it did not end.
    """
    if not inventory.schema_version:
        raise SchemaError(
            f"A schema of ours was expected in {name}, but it has none.", hint="Check which database is meant."
        )
    if inventory.schema_version == UNFINISHED:
        raise SchemaError(
            f"A whole database was expected at {name}, but a restore into it did not end.", hint="Repeat the restore."
        )


UNFINISHED = "restoring"
"""Stands for the schema's version while a copy is made: no program works with it, and no upgrade knows it."""


def checksum(connection: psycopg.Connection[Any], table: Table, tenants: tuple[str, ...]) -> Sum:
    """
    Count a table's rows and sum their hashes, in the connection's transaction.

    :param tenants: Whose rows there are, where row-level security binds who connects.
    """
    columns = SQL(", ").join(_bytes_of(column) for column in table.columns)
    statement = SQL(_SQL["checksum"]).format(columns=columns, table=table.identifier)
    rows = high = low = 0
    for _ in seen_as(connection, table, tenants):
        found = connection.cursor(row_factory=dict_row).execute(statement).fetchone() or {}
        rows, high, low = rows + found["rows"], high + int(found["high"]), low + int(found["low"])
    return Sum(rows=rows, checksum=f"{high & MASK:016x}{low & MASK:016x}")


def has_rows(connection: psycopg.Connection[Any], table: Table, tenants: tuple[str, ...]) -> bool:
    """Whether a table has any."""
    statement = SQL(_SQL["has_rows"]).format(table=table.identifier)
    found = [
        connection.cursor(row_factory=dict_row).execute(statement).fetchone()
        for _ in seen_as(connection, table, tenants)
    ]
    return any(row["found"] for row in found if row)


def seen_as(connection: psycopg.Connection[Any], table: Table, tenants: tuple[str, ...]) -> Iterator[str | None]:
    """
    As whom a table's rows are read, one after the other, in an open transaction: who connects sees all of them, or else each
    tenant its own.

    :raises DatabaseError: If row-level security hides rows from all of them.
    """
    if table.hidden:
        raise DatabaseError(
            f"All rows of {table.full_name} were expected to be visible, but row-level security hides some from this role.",
            hint="Connect as the owner of the schema (DATABASE_OWNER_URL), or give the role BYPASSRLS.",
        )
    if not table.bound:
        yield None
        return
    for tenant in tenants:
        with _as_tenant(connection, tenant):
            yield tenant


@contextmanager
def _as_tenant(connection: psycopg.Connection[Any], tenant: str) -> Iterator[None]:
    connection.execute("SELECT set_config('role', %s, true)", (f"synapse_tenant_{checked_tenant(tenant)}",))
    yield
    connection.execute("SELECT set_config('role', 'none', true)")


def _bytes_of(column: Mapping[str, Any]) -> Composable:
    name = Identifier(column["name"])
    if column["send"] is None:
        return SQL("textsend({}::text)").format(name)
    return SQL("{}({})").format(Identifier(column["schema"], column["send"]), name)


def _names(cursor: psycopg.Cursor[dict[str, Any]], statement: str) -> tuple[str, ...]:
    return tuple(row["name"] for row in cursor.execute(_SQL[statement]))
