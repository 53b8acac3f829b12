"""
Haystack's filters as SQL conditions, in three-valued logic.

`haystack.utils.filters.document_matches_filter` is the reference: true is 1, dates compare as instants, what is missing is
None. A comparison that it refuses because of a document's value (text against a number) is unknown, and so is its negation;
AND and OR are SQL's, and an unknown document does not match, so that no filter fails because of the data. The same in Python,
with the differences to the reference, is `database.filter_reference`.

NOT is carried down to the comparisons, each of which knows when it holds and when it fails: where it holds, it is a plain
expression on `meta -> key`, NULL for "no" and "unknown" alike, which an index on that expression serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from haystack.errors import FilterError
from psycopg.sql import SQL, Composed

from database.document_rows import json_text, shown
from database.errors import InvalidInputError
from database.field_names import split_name
from database.filter_values import (
    depth_of,
    has_truth_or_its_number,
    is_storable_number,
    is_storable_text,
    iso_date,
    stored_number,
)

MAX_DEPTH = 64
MAX_PARAMETERS = 30_000
"""PostgreSQL takes 65,535."""

_COMPARED_DEPTH = 32
"""Lists and mappings nested more deeply than this are never equal: `synapse_comparable` recurses."""

_INDEXED_CHARACTERS = 500
"""As `synapse_text` has it."""

COMPARISONS = ("==", "!=", ">", ">=", "<", "<=", "in", "not in", "like", "not like", "array_contains", "array_overlaps")
"""Haystack's operators, and those that its pgvector integration adds."""

_NOTHING, _MISSING = "false", "NULL::jsonb"
_OPPOSITES = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "=": "<>"}
_COLUMNS = {
    "id": "to_jsonb(id)",
    "content": "to_jsonb(content)",
    "meta": "coalesce(meta, '{}'::jsonb)",
    "score": _MISSING,
    "sparse_embedding": _MISSING,
}
_PRESENCE = {"embedding": "embedding IS NULL", "blob": "blob_data IS NULL"}


class InvalidFilterError(InvalidInputError, FilterError):
    """A filter that cannot be used; also Haystack's `FilterError`."""

    code = "invalid_filter"


def condition(filters: dict[str, Any] | None, *, prefix: str = "filter") -> tuple[Composed, dict[str, Any]]:
    """
    Translate a filter.

    :param filters: In Haystack's syntax; `None` and `{}` let everything pass.
    :param prefix: What the names of the parameters begin with.
    :returns: A condition for WHERE on a documents table, true for the documents that pass, and its parameters.
    :raises InvalidFilterError: If it is malformed; the message says where.
    """
    translation = _Translation(prefix)
    try:
        sql = translation.node(filters, depth=0) if filters else "true"
    except RecursionError:
        raise InvalidFilterError("A filter's values must be nested less deeply.") from None
    if len(translation.params) > MAX_PARAMETERS:
        raise InvalidFilterError(f"A filter must have at most {MAX_PARAMETERS} keys and values, but has more.")
    return _composed(sql), translation.params


def field_value(field: str, *, prefix: str) -> tuple[Composed, dict[str, Any]]:
    """
    The jsonb value of a metadata field, NULL where it is missing.

    :param field: With or without `meta.`; further dots go into mappings, see `database.field_names`.
    :param prefix: What the names of its parameters begin with.
    :returns: An expression, and its parameters.
    """
    translation = _Translation(prefix)
    sql = translation.path(split_name(field.removeprefix("meta.")))
    return _composed(sql), translation.params


def indexed_expression(kind: str, value: str) -> str:
    """
    What comparisons with a kind of values compare, and so what an index for them is on.

    :param kind: `number`, `boolean`, `text` or `date`.
    :param value: The field's jsonb value.
    """
    if kind == "text":
        return f'synapse_text({value}) COLLATE "C"'
    if kind == "date":
        return f"synapse_instant({value}, NULL)"
    return f"synapse_number({value})"


@dataclass(frozen=True)
class _Comparison:
    """When a comparison holds, and when its negation does; both are untrue for documents of which it is unknown."""

    holds: str
    fails: str

    @classmethod
    def total(cls, holds: str) -> _Comparison:
        """One that is never unknown: whatever it does not hold for, it fails for."""
        return cls(holds, f"({holds} IS NOT TRUE)")

    def negated(self) -> _Comparison:
        return _Comparison(self.fails, self.holds)


class _Translation:
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.params: dict[str, Any] = {}
        self.paths: dict[tuple[str, ...], str] = {}

    def node(self, node: Any, *, depth: int, negated: bool = False) -> str:
        if not isinstance(node, dict):
            raise InvalidFilterError(f"A condition must be a mapping, but is {shown(node)}.")
        if depth > MAX_DEPTH:
            raise InvalidFilterError(f"Conditions must be nested at most {MAX_DEPTH} deep, but are nested more deeply.")
        if "field" in node:
            found = self.comparison(**{key: _required(node, key) for key in ("field", "operator", "value")})
            return found.fails if negated else found.holds
        operator, children = _required(node, "operator"), _required(node, "conditions")
        if operator not in ("AND", "OR", "NOT"):
            raise InvalidFilterError(f"A logical operator must be AND, OR or NOT, but is {shown(operator)}.")
        if not isinstance(children, list | tuple):
            raise InvalidFilterError(f"'conditions' must be a list, but is {shown(children)}.")
        negated ^= operator == "NOT"
        parts = [self.node(child, depth=depth + 1, negated=negated) for child in children]
        if (operator == "OR") != negated:
            return _joined(parts, " OR ", empty="false")
        return _joined(parts, " AND ", empty="true")

    def comparison(self, *, field: Any, operator: Any, value: Any) -> _Comparison:
        if not isinstance(field, str):
            raise InvalidFilterError(f"'field' must be text, but is {shown(field)}.")
        if operator not in COMPARISONS:
            known = ", ".join(COMPARISONS)
            raise InvalidFilterError(f"A comparison operator must be one of {known}, but is {shown(operator)}.")
        if operator in ("in", "not in") and not isinstance(value, list):
            raise InvalidFilterError(f"{field} {operator} takes a list, but was given {shown(value)}.")
        if operator in ("==", "!=", "in", "not in"):
            found = _Comparison.total(self.any_equal(field, value if operator.endswith("in") else [value]))
        elif field in _PRESENCE:
            raise InvalidFilterError(f"{field} can be compared with None only, but was given {operator}.")
        elif operator.endswith("like"):
            found = self.like(field, value)
        elif operator.startswith("array"):
            found = self.array(field, operator, value)
        else:
            found = self.ordering(field, operator, value)
        return found.negated() if operator in ("!=", "not in", "not like") else found

    def any_equal(self, field: str, values: Sequence[Any]) -> str:
        if field in _PRESENCE:
            if any(value is not None for value in values):
                raise InvalidFilterError(f"{field} can be compared with None only, but was given {shown(values[0])}.")
            return _PRESENCE[field] if values else _NOTHING
        if (
            field == "id"
            and values
            and all(isinstance(v, str) and iso_date(v) is None and is_storable_text(v) for v in values)
        ):
            return f"id = ANY({self.add(list(values))}::text[])"
        expression = self.value(field)
        parts: list[str] = []
        numbers = [
            stored_number(value) for value in values if isinstance(value, int | float) and is_storable_number(value)
        ]
        if numbers:
            parts.append(self.one_of(indexed_expression("number", expression), numbers, "numeric"))
        texts = [
            value for value in values if isinstance(value, str) and is_storable_text(value) and iso_date(value) is None
        ]
        if short := [text for text in texts if len(text) < _INDEXED_CHARACTERS]:
            parts.append(self.one_of(indexed_expression("text", expression), short, "text"))
        if long := [text for text in texts if len(text) >= _INDEXED_CHARACTERS]:
            starts = self.one_of(
                indexed_expression("text", expression), [text[:_INDEXED_CHARACTERS] for text in long], "text"
            )
            whole = self.add([json_text(text, where=field) for text in long])
            parts.append(f"({starts} AND {expression} = ANY({whole}::text[]::jsonb[]))")
        if any(value is None for value in values):
            parts.append(_missing(expression))
        for value in values:
            if (date := iso_date(value)) is not None:
                parts.append(self.instants(expression, "=", date).holds)
            elif isinstance(value, list | dict):
                parts.append(self.same_container(expression, value, field))
            elif not isinstance(value, str | int | float | None):
                raise _unusable(field, value)
        return _joined(parts, " OR ", empty="false")

    def one_of(self, expression: str, values: list[Any], type_: str) -> str:
        if len(values) == 1:
            return f"{expression} = {self.add(values[0])}::{type_}"
        return f"{expression} = ANY({self.add(values)}::{type_}[])"

    def ordering(self, field: str, operator: str, value: Any) -> _Comparison:
        if value is None:
            return _Comparison(_NOTHING, "true")
        expression = self.value(field)
        if isinstance(value, int | float):
            number = indexed_expression("number", expression)
            if value != value:  # NaN: no number is greater or less
                return _Comparison(_NOTHING, f"({number} IS NOT NULL OR {_missing(expression)})")
            limit = f"{self.add(stored_number(value))}::numeric"
            return _Comparison(
                f"{number} {operator} {limit}",
                f"({number} {_OPPOSITES[operator]} {limit} OR {_missing(expression)})",
            )
        if (date := iso_date(value)) is None:
            raise InvalidFilterError(
                f"{field} {operator} takes a number or an ISO 8601 date such as 2024-01-31, but was given {shown(value)}."
            )
        return self.instants(expression, operator, date)

    def instants(self, expression: str, operator: str, date: datetime) -> _Comparison:
        """With an offset, the exact comparison is no index's: one of wall clocks a day around it goes before."""
        wall_clock, zone = f"{self.add(date.replace(tzinfo=None))}::timestamp", date.utcoffset()
        known, opposite = indexed_expression("date", expression), _OPPOSITES[operator]
        if zone is None:
            return _Comparison(
                f"{known} {operator} {wall_clock}", f"({known} {opposite} {wall_clock} OR {_missing(expression)})"
            )
        offset = f"{self.add(zone)}::interval"
        instant, limit = f"synapse_instant({expression}, {offset})", f"({wall_clock} - {offset})"
        around = [f"{known} >= {limit} - interval '1 day'"] if operator in (">", ">=", "=") else []
        around += [f"{known} <= {limit} + interval '1 day'"] if operator in ("<", "<=", "=") else []
        # A condition that asks for NULL is estimated to hold nearly always: the estimate is that of the wall clocks.
        exact = f"(CASE WHEN {instant} {operator} {limit} THEN true END) IS NOT NULL"
        fails = f"({instant} {opposite} {limit} OR {_missing(expression)})"
        return _Comparison(_joined([*around, exact], " AND ", empty="true"), fails)

    def like(self, field: str, pattern: Any) -> _Comparison:
        if not isinstance(pattern, str):
            raise InvalidFilterError(f"{field} like takes a text, but was given {shown(pattern)}.")
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            raise InvalidFilterError(f"{field} like takes a pattern that ends in no lone backslash.")
        text = f"({self.value(field)} #>> '{{}}') COLLATE \"C\""
        likeness = f"{text} LIKE {self.add(pattern)}::text" if is_storable_text(pattern) else _NOTHING
        return self.typed(field, "string", likeness)

    def array(self, field: str, operator: str, values: Any) -> _Comparison:
        if not isinstance(values, list) or not values:
            raise InvalidFilterError(
                f"{field} {operator} takes a list that is not empty, but was given {shown(values)}."
            )
        expression = self.value(field)
        parts: list[str] = []
        texts: list[str] = []
        for value in values:
            if not isinstance(value, str | int | float | list | dict | None):
                raise _unusable(field, value)
            if operator == "array_overlaps" and isinstance(value, str) and is_storable_text(value):
                texts.append(value)
            elif (element := self.json([value], field)) is not None:
                parts.append(f"{expression} @> {self.add(element)}::jsonb")
            else:
                parts.append(_NOTHING)
        if texts:
            parts.append(f"{expression} ?| {self.add(texts)}::text[]")
        joint = " OR " if operator == "array_overlaps" else " AND "
        return self.typed(field, "array", _joined(parts, joint, empty="true"))

    def typed(self, field: str, type_: str, holds: str) -> _Comparison:
        """A comparison that only values of one JSON type know; what is missing fails it."""
        expression = self.value(field)
        is_one = f"jsonb_typeof({expression}) = '{type_}'"
        return _Comparison(
            f"CASE WHEN {is_one} THEN {holds} END",
            f"(CASE WHEN {is_one} THEN NOT {holds} END OR {_missing(expression)})",
        )

    def same_container(self, expression: str, value: Any, field: str) -> str:
        if (written := self.json(value, field)) is None:
            return _NOTHING
        text = self.add(written)
        if not has_truth_or_its_number(value):
            return f"{expression} = {text}::jsonb"
        return (
            f"CASE WHEN NOT jsonb_path_exists({expression}, 'strict $.**{{{_COMPARED_DEPTH + 1}}}')"
            f" THEN synapse_comparable({expression}) END = synapse_comparable({text}::jsonb)"
        )

    def json(self, value: Any, field: str) -> str | None:
        """A value as it is stored; `None` for what no document holds, such as NaN."""
        if depth_of(value) > _COMPARED_DEPTH:
            raise InvalidFilterError(f"The value of {field} must be nested at most {_COMPARED_DEPTH} deep.")
        try:
            return json_text(value, where=field)
        except InvalidInputError:
            return None

    def value(self, field: str) -> str:
        """The field's value as jsonb, NULL where it is missing."""
        if field in _COLUMNS:
            return _COLUMNS[field]
        root, *keys = split_name(field)
        if not keys:
            return self.path([root])  # a legacy filter's field, without its `meta.`
        return self.path(keys) if root == "meta" else _MISSING

    def path(self, keys: Sequence[str]) -> str:
        if len(keys) > MAX_DEPTH:
            raise InvalidFilterError(
                f"A field must go at most {MAX_DEPTH} levels deep, but {shown('.'.join(keys))} does."
            )
        if not all(map(is_storable_text, keys)):
            return _MISSING
        if tuple(keys) not in self.paths:
            steps = "".join(f" -> {self.add(key)}::text" for key in keys)
            self.paths[tuple(keys)] = f"(meta{steps})"
        return self.paths[tuple(keys)]

    def add(self, value: Any) -> str:
        name = f"{self.prefix}_{len(self.params)}"
        self.params[name] = value
        return f"%({name})s"


def _required(node: dict[str, Any], key: str) -> Any:
    if key not in node:
        raise InvalidFilterError(f"A condition must have the key {key!r}, but {shown(node)} has not.")
    return node[key]


def _joined(parts: list[str], separator: str, *, empty: str) -> str:
    return f"({separator.join(parts)})" if parts else empty


def _missing(expression: str) -> str:
    return f"coalesce({expression}, 'null') = 'null'"


def _composed(sql: str) -> Composed:
    """Put together as text, ten times as fast as from Composables: it has nothing but our own words and placeholders."""
    return Composed([SQL(sql)])  # type: ignore[arg-type]


def _unusable(field: str, value: Any) -> InvalidFilterError:
    return InvalidFilterError(
        f"{field} must be compared with text, a number, true, false, None, a date, a list or a mapping,"
        f" but was given {shown(value)}."
    )
