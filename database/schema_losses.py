"""What a downgrade of the schema would lose, counted before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from database.errors import GuardError
from database.sql import statements

# By the version that brought them; of the shared ones, each tenant counts its own rows.
SHARED = {
    "0006": ("recall_certificates",),
    "0005": ("users", "api_keys", "chat_sessions", "chat_messages", "feedback", "usage_logs"),
}
OWN = {"0003": ("migration_runs",), "0002": ("metadata_fields",)}

_SQL = statements(Path(__file__).with_suffix(".sql"))

Connection = psycopg.Connection[dict[str, Any]]


def require_possible(connection: Connection, version: str, *, name: str) -> None:
    """
    Check that the schema can be taken back below the version that brought partitions.

    :raises GuardError: If a documents table is cut into partitions.
    """
    if version >= "0006" or not _has(connection, "embedding_models"):
        return
    for row in connection.execute(_SQL["partitioned"]).fetchall():
        raise GuardError(
            f"Version {version} knows no partitions, but {name} has {row['partitions']} of {row['table_name']}.",
            hint=f"Drop that model first: `python synapse.py models drop {row['name']} --yes`.",
        )


def losses(connection: Connection, version: str) -> dict[str, int]:
    """
    Rows that a downgrade to a version would lose, by what they are; only what there is at least one of.

    :param connection: Of the owner, in autocommit mode.
    """
    lost: dict[str, int] = {}
    tenants = _tenants(connection)
    for brought, tables in SHARED.items():
        for table in tables if brought > version else ():
            if _has(connection, table):
                lost[f"rows of {table}"] = sum(_rows(connection, "public", table, tenant) for tenant in tenants)
    if version < "0004":
        others = [tenant for tenant in tenants if tenant != "default"]
        lost["tenants"] = len(others)
        lost["documents of tenants"] = sum(_documents(connection, tenant) for tenant in others)
    for brought, tables in OWN.items():
        for table in tables if brought > version else ():
            if _has(connection, table):
                lost[f"rows of {table}"] = _rows(connection, "public", table)
    return {what: rows for what, rows in lost.items() if rows}


def _documents(connection: Connection, tenant: str) -> int:
    models = connection.execute(_SQL["documents_tables"], {"place": f"tenant_{tenant}"}).fetchall()
    return sum(_rows(connection, f"tenant_{tenant}", row["table_name"]) for row in models)


def _rows(connection: Connection, place: str, table: str, tenant: str | None = None) -> int:
    """How many rows a table has, or a tenant in it."""
    with connection.transaction():
        if tenant is not None:
            connection.execute("SELECT set_config('role', %s, true)", (f"synapse_tenant_{tenant}",))
        row = connection.execute(SQL("SELECT count(*) AS rows FROM {}").format(Identifier(place, table))).fetchone()
    return int(row["rows"]) if row else 0


def _tenants(connection: Connection) -> list[str]:
    if not _has(connection, "tenants"):
        return []
    return [row["name"] for row in connection.execute("SELECT name FROM public.tenants ORDER BY name").fetchall()]


def _has(connection: Connection, table: str) -> bool:
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL AS found", (f"public.{table}",)).fetchone()
    return bool(row and row["found"])
