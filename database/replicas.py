"""How far standbys are behind, as the primary sees them and as the standby that is read from says itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from database.connection import Database, Row
from database.errors import DatabaseError
from database.sql import statements
from database.standby import NOT_SEEN_YET

_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, kw_only=True)
class Lag:
    """
    How far a standby is behind.

    :param name: Its address, without secrets, or the name that it gives the primary.
    :param seen_by: Who says so: the `primary`, or the `standby` that is read from.
    :param state: `streaming`, `not streaming`, `paused`, `promoted`, `away`, what pg_stat_replication shows, or `hidden` where
        the role may not see it (it may as a member of pg_monitor).
    :param bytes: Of the write-ahead log that are not replayed yet; `None`: not known.
    :param seconds: How old the newest commit is that it has, 0 where it has all; `None`: not known.
    :param trouble: Why it is not read from; `None`: it is, or it is another one.
    """

    name: str
    seen_by: Literal["primary", "standby"]
    state: str
    bytes: int | None = None
    seconds: float | None = None
    trouble: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def lag(database: Database) -> list[Lag]:
    """
    How far each standby is behind: those that the primary sees, and the one that `reading_from` named.

    Asks both servers, each in one round trip; one that is away is told of, and not waited for.

    :param database: The primary, with or without a standby to read from.
    """
    database = database.without_patience()
    try:
        [primary], seen = database.read_all([_SQL["position"], _SQL["standbys"]])
    except DatabaseError:
        primary, seen = None, []
    found = [
        Lag(
            name=row["name"],
            seen_by="primary",
            state=row["state"] or "hidden",
            bytes=row["bytes"],
            seconds=row["seconds"],
        )
        for row in seen
    ]
    return [*found, _own_word(database, primary)] if database.replica else found


def _own_word(database: Database, primary: Row | None) -> Lag:
    assert database.replica is not None
    side = database.replica.standby
    try:
        row = side.database.read(_SQL["position"])[0]
    except DatabaseError as exc:
        return Lag(name=side.database.name, seen_by="standby", state="away", trouble=exc.message)
    if not row["in_recovery"]:
        return Lag(name=side.database.name, seen_by="standby", state="promoted", bytes=0, seconds=0.0)
    behind = None if primary is None or row["position"] is None else max(0, primary["position"] - row["position"])
    missing = behind if behind is not None else (row["received"] or 0) - (row["position"] or 0)
    return Lag(
        name=side.database.name,
        seen_by="standby",
        state="paused" if row["paused"] else "streaming" if row["receiving"] else "not streaming",
        bytes=behind,
        seconds=0.0 if missing <= 0 else row["since_newest_commit"],
        trouble=side.trouble if side.trouble != NOT_SEEN_YET else None,
    )
