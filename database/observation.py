"""What `status` shows: how a database is used, as its own statistics and the tables of usage tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from database.replicas import lag
from database.sql import statements
from database.tenancy import DEFAULT_TENANT

if TYPE_CHECKING:
    from database.connection import Database, Row

MOST = 5
"""Items of a list of which there may be many: slow questions, sources that are kept out."""

_SQL = statements(Path(__file__).with_suffix(".sql"))
_OF_A_TENANT = (
    "server",
    "tables",
    "indexes",
    "sources",
    "quarantined",
    "growth",
    "questions",
    "slowest",
    "statements",
    "certificates",
)
_OF_THE_SERVER = ("connections", "builds")


@dataclass(frozen=True, kw_only=True)
class Observation:
    """
    A database at one moment. Sizes are in bytes, times in the unit that their names end in, days are those of UTC.

    :param database: Where it is, without secrets.
    :param tenant: Whose tables, sources and questions.
    :param days: How many days `growth`, `questions` and `slowest` go back, today included.
    :param server: Versions, role, size of the database, since when the statistics count.
    :param tables: Largest first: rows as the planner estimates them, sizes, share of the reads that memory answered.
    :param indexes: How often each was used; those that are not valid first.
    :param sources: Per embedding model, the active one first.
    :param quarantined: The latest sources that are kept out.
    :param growth: What came in, per day.
    :param questions: Per day, with median and 95th percentile of their times.
    :param slowest: The slowest questions; no texts.
    :param statements: The statements that took most time, where pg_stat_statements is there and open to this role.
    :param certificates: The last certificate of recall of each table.
    :param connections: To this database, by state.
    :param builds: Indexes that are being built.
    :param replicas: How far standbys are behind; see `database.replicas.Lag`.
    """

    at: datetime
    database: str
    tenant: str
    days: int
    server: Row
    tables: list[Row]
    indexes: list[Row]
    sources: list[Row]
    quarantined: list[Row]
    growth: list[Row]
    questions: list[Row]
    slowest: list[Row]
    statements: list[Row]
    certificates: list[Row]
    connections: Row
    builds: list[Row]
    replicas: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def observe(database: Database, *, owner: Database | None = None, days: int = 7) -> Observation:
    """
    Look at a database as a tenant sees it, without changing it; at the primary, as a standby counts its own reads alone.

    :param database: In a tenant.
    :param owner: The same, connected as a role that may see other roles' connections and index builds; `None` means that
        the connecting role of `database` looks, without its tenant.
    :param days: How many days back, today included.
    :raises SchemaError: If the views are not there.
    """
    tenant = database.tenant or DEFAULT_TENANT
    parameters = {"tenant": tenant, "days": days, "most": MOST}
    with database.connection() as connection:
        rows: dict[str, Any] = {name: connection.execute(_SQL[name], parameters).fetchall() for name in _OF_A_TENANT}
    looker = (owner or database).without_tenant()
    with looker.connection() as connection:
        rows |= {name: connection.execute(_SQL[name]).fetchall() for name in _OF_THE_SERVER}
    rows |= {name: rows[name][0] for name in ("server", "connections")}
    behind = lag(looker)
    if looker.replica is None and database.replica is not None:
        behind += [one for one in lag(database) if one.seen_by == "standby"]
    return Observation(
        at=datetime.now(UTC),
        database=database.name,
        tenant=tenant,
        days=days,
        replicas=[one.to_dict() for one in behind],
        **rows,
    )
