"""What a model's documents table holds, for people to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL, Identifier

from database.sql import statements

if TYPE_CHECKING:
    from database.ledger import Ledger

_SQL = statements(Path(__file__).with_suffix(".sql"))


def fields(ledger: Ledger) -> list[dict[str, Any]]:
    """
    The metadata fields: `{field, types, documents, different, examples}`, by name.

    `types` are JSON's, `documents` says how many have the field, `different` how many different values there are, and
    `examples` holds up to three of the most frequent.
    """
    return ledger.database.read(SQL(_SQL["fields"]).format(table=Identifier(ledger.model.table_name)))


def matching_sources(ledger: Ledger, filters: dict[str, Any]) -> list[str]:
    """
    The sources with a chunk that a filter lets pass, by name.

    :param filters: In Haystack's syntax.
    :raises InvalidInputError: If it is malformed.
    """
    from database.filters import condition

    where, parameters = condition(filters)
    statement = SQL(_SQL["matching_sources"]).format(table=Identifier(ledger.model.table_name), condition=where)
    rows = ledger.database.read(statement, {"model": ledger.model.name, **parameters})
    return sorted(row["source"] for row in rows)
