"""Tenants with users, and what the owner of the schema sees of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from database.connection import Database
from database.tenancy import create_tenant, drop_tenant

TABLES = ("users", "api_keys", "chat_sessions", "chat_messages", "feedback", "usage_logs")


@contextmanager
def other_tenant(owner: Database, name: str = "acme") -> Iterator[str]:
    """A tenant beside the tenant `default`."""
    create_tenant(owner, name)
    yield name
    drop_tenant(owner, name)


def empty(owner_conninfo: str) -> None:
    """Nobody is known, and nothing was asked."""
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute("TRUNCATE users CASCADE")


def stored(owner_conninfo: str, table: str) -> list[dict[str, Any]]:
    """All rows of a table, whose-ever they are: a superuser is bound by no policy."""
    with psycopg.connect(owner_conninfo, row_factory=psycopg.rows.dict_row) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608


def counts(owner_conninfo: str) -> dict[str, int]:
    """Rows of each table."""
    return {table: len(stored(owner_conninfo, table)) for table in TABLES}
