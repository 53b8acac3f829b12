"""What the document store asks about metadata: fields, their types, ranges and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psycopg.sql import SQL, Identifier

from database.document_queries import Query
from database.document_rows import checked_text
from database.errors import InvalidInputError
from database.filters import condition, field_value
from database.sql import statements

_SQL = statements(Path(__file__).with_suffix(".sql"))


def fields_info(table: Identifier) -> Query:
    """The fields and their kinds; `field_types` reads the rows."""
    return Query(statement=SQL(_SQL["metadata_fields"]).format(table=table))


def field_types(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """
    Turn the rows of `fields_info` into the parent's words.

    :returns: `{field: {"type": "integer" | "real" | "boolean" | "text"}}`; mixed fields are text.
    """
    return {
        row["key"]: {
            "type": "integer" if row["whole"] else "real" if row["numeric"] else "boolean" if row["truth"] else "text"
        }
        for row in rows
    }


def smallest_and_largest(table: Identifier, field: str) -> Query:
    """The smallest and the largest value of a field, in one row `min`, `max`."""
    present, params = _values(table, field, filters=None)
    return Query(statement=SQL(_SQL["smallest_and_largest"]).format(present=present), params=params)


def unique_values(
    table: Identifier,
    field: str,
    *,
    search_term: str | None,
    from_: int,
    size: int,
    filters: dict[str, Any] | None,
) -> Query:
    """One page of a field's different values, and how many there are, in one row `values`, `total`."""
    if from_ < 0 or size < 0:
        raise InvalidInputError(f"from_ and size must not be negative, but are {from_} and {size}.")
    if search_term is not None:
        checked_text(search_term, where="search_term")
    present, params = _values(table, field, filters=filters)
    page = {"search_term": search_term, "from": from_, "size": size}
    return Query(statement=SQL(_SQL["unique_values"]).format(present=present), params={**params, **page})


def unique_counts(table: Identifier, fields: Sequence[str], *, filters: dict[str, Any] | None) -> Query:
    """How many different values each field has in the documents that pass: one row, a column per field, `count_0` …"""
    if not fields:
        raise InvalidInputError("metadata_fields must name at least one field.")
    where, params = condition(filters)
    counts = []
    for number, field in enumerate(fields):
        value, keys = field_value(field, prefix=f"field_{number}")
        params |= keys
        counts.append(
            SQL("count(DISTINCT nullif({}, 'null')::text) AS {}").format(value, Identifier(f"count_{number}"))
        )
    statement = SQL("SELECT {} FROM {} WHERE {}").format(SQL(", ").join(counts), table, where)
    return Query(statement=statement, params=params)


def counts(rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> dict[str, int]:
    """Turn the row of `unique_counts` into a number by field."""
    return {field.removeprefix("meta."): rows[0][f"count_{number}"] for number, field in enumerate(fields)}


def _values(table: Identifier, field: str, *, filters: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    where, params = condition(filters)
    value, keys = field_value(field, prefix="field")
    present = SQL(_SQL["values_of_field"]).format(table=table, value=value, condition=where)
    return present, {**params, **keys}
