"""What a database is and holds, and what is not as it should be, for `database status`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from database.bulk_load import missing_indexes
from database.online import at_work, unfinished
from database.schema import SCHEMA_VERSION, current_version, lets_old_programs_in
from database.sql import statements
from database.tenancy import DEFAULT_TENANT

if TYPE_CHECKING:
    from psycopg import Connection

    from database.connection import Database

LARGEST_TENANTS = 10

_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class Status:
    """
    What a database is and holds; sizes in bytes.

    :param tables: Of `public`, `{name, estimated_rows, size}`.
    :param tenants: `{count, size, largest}`, of which `largest` has `{name, size}`; `None` where there are no tenants.
    :param missing_indexes: As `bulk_load.missing_indexes` finds them.
    :param invalid_indexes: `{name, cure}`: left over from builds that failed, with the statement that clears each.
    :param upgrade: `{before, after, running}`: a change of the schema that is under way, or was interrupted.
    :param old_programs: Whether programs from before tenants are still let in.
    """

    database: str
    server_version: str
    pgvector_version: str | None
    schema_version: str | None
    expected_schema_version: str
    role: str
    superuser: bool
    size: int
    tables: list[dict[str, Any]]
    tenants: dict[str, Any] | None
    missing_indexes: list[dict[str, Any]]
    invalid_indexes: list[dict[str, str]]
    upgrade: dict[str, Any] | None
    old_programs: bool

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def status(database: Database) -> Status:
    """
    Look at a database without changing it; works on one without our schema or the extension, too.

    :raises DatabaseUnavailableError: If there is no connection.
    """
    with database.unpooled() as connection:
        version = current_version(connection)
        current = version == SCHEMA_VERSION
        return Status(
            database=database.name,
            schema_version=version,
            expected_schema_version=SCHEMA_VERSION,
            tables=connection.execute(_SQL["our_tables"]).fetchall(),
            tenants=_tenants(connection) if current else None,
            missing_indexes=missing_indexes(database.for_tenant(database.tenant or DEFAULT_TENANT)) if current else [],
            invalid_indexes=_invalid_indexes(connection),
            upgrade=_upgrade(connection),
            old_programs=lets_old_programs_in(connection),
            **(connection.execute(_SQL["server_facts"]).fetchone() or {}),
        )


def _tenants(connection: Connection[dict[str, Any]]) -> dict[str, Any] | None:
    found = connection.execute(_SQL["tenants"]).fetchall()
    total = sum(row["size"] for row in found)
    return {"count": len(found), "size": total, "largest": found[:LARGEST_TENANTS]} if found else None


def _invalid_indexes(connection: Connection[dict[str, Any]]) -> list[dict[str, str]]:
    rows = connection.execute(_SQL["invalid_indexes"]).fetchall()
    return [{"name": row["name"], "cure": f"DROP INDEX CONCURRENTLY {row['name']}"} for row in rows]


def _upgrade(connection: Connection[dict[str, Any]]) -> dict[str, Any] | None:
    change, running = unfinished(connection), at_work(connection)
    return {**(change or {"before": None, "after": None}), "running": running} if change or running else None
