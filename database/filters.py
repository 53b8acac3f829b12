"""
Haystack's filters as SQL conditions.

`haystack.utils.filters.document_matches_filter` is the reference: true is 1, dates compare as instants, what is missing is
None. Where the reference raises because of a document's value (text against a number), that document does not match, so
that no filter fails because of the data. Dates are ISO 8601 with a full date; the reference's guesses at other spellings
("5 Jan", "10") are not followed.

A condition is true, false or NULL for "unknown"; only what negates turns NULL into a value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from dateutil.parser import isoparse
from haystack.errors import FilterError
from psycopg.sql import SQL, Composable, Composed, Literal

from database.document_rows import json_text, shown
from database.errors import InvalidInputError

MAX_DEPTH = 64
MAX_PARAMETERS = 30_000
"""PostgreSQL takes 65,535."""

_COMPARED_DEPTH = 32
"""Lists and mappings nested more deeply than this are never equal: `synapse_comparable` recurses."""

_EXACT_INTEGERS = 2.0**53
_MAX_DIGITS = 4300
_NOTHING, _MISSING = SQL("false"), SQL("NULL::jsonb")
_ORDERINGS = {">": SQL(">"), ">=": SQL(">="), "<": SQL("<"), "<=": SQL("<=")}
_COLUMNS = {
    "id": SQL("to_jsonb(id)"),
    "content": SQL("to_jsonb(content)"),
    "meta": SQL("coalesce(meta, '{}'::jsonb)"),
    "score": _MISSING,
    "sparse_embedding": _MISSING,
}
_PRESENCE = {"embedding": SQL("embedding IS NULL"), "blob": SQL("blob_data IS NULL")}


class InvalidFilterError(InvalidInputError, FilterError):
    """A filter that cannot be used; also Haystack's `FilterError`."""

    code = "invalid_filter"


def condition(filters: dict[str, Any] | None) -> tuple[Composed, dict[str, Any]]:
    """
    Translate a filter.

    :param filters: In Haystack's syntax; `None` and `{}` let everything pass.
    :returns: A condition for WHERE on a documents table, and its parameters, whose names begin with `filter_`.
    :raises InvalidFilterError: If it is malformed; the message says where.
    """
    translation = _Translation("filter")
    try:
        sql = translation.node(filters, depth=0) if filters else SQL("true")
    except RecursionError:
        raise InvalidFilterError("A filter's values must be nested less deeply.") from None
    if len(translation.params) > MAX_PARAMETERS:
        raise InvalidFilterError(f"A filter must have at most {MAX_PARAMETERS} keys and values, but has more.")
    return Composed([sql]), translation.params


def field_value(field: str, *, prefix: str) -> tuple[Composed, dict[str, Any]]:
    """
    The jsonb value of a metadata field, NULL where it is missing.

    :param field: With or without `meta.`; further dots go into mappings.
    :param prefix: What the names of its parameters begin with.
    :returns: An expression, and its parameters.
    """
    translation = _Translation(prefix)
    sql = translation.path(field.removeprefix("meta.").split("."))
    return Composed([sql]), translation.params


class _Translation:
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.params: dict[str, Any] = {}

    def node(self, node: Any, *, depth: int) -> Composable:
        if not isinstance(node, dict):
            raise InvalidFilterError(f"A condition must be a mapping, but is {shown(node)}.")
        if depth > MAX_DEPTH:
            raise InvalidFilterError(f"Conditions must be nested at most {MAX_DEPTH} deep, but are nested more deeply.")
        if "field" in node:
            return self.comparison(**{key: _required(node, key) for key in ("field", "operator", "value")})
        operator, children = _required(node, "operator"), _required(node, "conditions")
        if operator not in ("AND", "OR", "NOT"):
            raise InvalidFilterError(f"A logical operator must be AND, OR or NOT, but is {shown(operator)}.")
        if not isinstance(children, list | tuple):
            raise InvalidFilterError(f"'conditions' must be a list, but is {shown(children)}.")
        parts = [self.node(child, depth=depth + 1) for child in children]
        if operator == "OR":
            return _joined(parts, " OR ", empty="false")
        every = _joined(parts, " AND ", empty="true")
        return every if operator == "AND" else _negated(every)

    def comparison(self, *, field: Any, operator: Any, value: Any) -> Composable:
        if not isinstance(field, str):
            raise InvalidFilterError(f"'field' must be text, but is {shown(field)}.")
        if operator in ("in", "not in"):
            if not isinstance(value, list):
                raise InvalidFilterError(f"{field} {operator} takes a list, but was given {shown(value)}.")
            found = self.any_equal(field, value)
        elif operator in ("==", "!="):
            found = self.any_equal(field, [value])
        elif operator in _ORDERINGS:
            return self.ordering(field, operator, value)
        else:
            known = "==, !=, >, >=, <, <=, in, not in"
            raise InvalidFilterError(f"A comparison operator must be one of {known}, but is {shown(operator)}.")
        return _negated(found) if operator in ("!=", "not in") else found

    def any_equal(self, field: str, values: Sequence[Any]) -> Composable:
        if field in _PRESENCE:
            if any(value is not None for value in values):
                raise InvalidFilterError(f"{field} can be compared with None only, but was given {shown(values[0])}.")
            return _PRESENCE[field] if values else _NOTHING
        if field == "id" and values and all(isinstance(v, str) and _date(v) is None and _storable(v) for v in values):
            return SQL("id = ANY({}::text[])").format(self.add(list(values)))
        expression = self.value(field)
        parts: list[Composable] = []
        numbers = [_number(value) for value in values if isinstance(value, int | float) and _is_storable_number(value)]
        if numbers:
            parts.append(SQL("{} = ANY({}::numeric[])").format(_as_number(expression), self.add(numbers)))
        texts = [json_text(value, where=field) for value in values if isinstance(value, str) and _storable(value)]
        if texts:
            parts.append(SQL("{} = ANY({}::text[]::jsonb[])").format(expression, self.add(texts)))
        if any(value is None for value in values):
            parts.append(SQL("coalesce({}, 'null') = 'null'").format(expression))
        for value in values:
            if (date := _date(value)) is not None:
                parts.append(self.instants(expression, SQL("="), date))
            elif isinstance(value, list | dict):
                parts.append(self.same_container(expression, value, field))
            elif not isinstance(value, str | int | float | None):
                raise _unusable(field, value)
        return _joined(parts, " OR ", empty="false")

    def ordering(self, field: str, operator: str, value: Any) -> Composable:
        if field in _PRESENCE:
            raise InvalidFilterError(f"{field} can be compared with None only, but was given {operator}.")
        if value is None or value != value:  # None and NaN are neither greater nor less than anything
            return _NOTHING
        expression = self.value(field)
        if isinstance(value, int | float):
            return SQL("{} {} {}::numeric").format(
                _as_number(expression), _ORDERINGS[operator], self.add(_number(value))
            )
        if (date := _date(value)) is None:
            raise InvalidFilterError(
                f"{field} {operator} takes a number or an ISO 8601 date such as 2024-01-31, but was given {shown(value)}."
            )
        return self.instants(expression, _ORDERINGS[operator], date)

    def instants(self, expression: Composable, operator: SQL, date: datetime) -> Composable:
        wall_clock, zone = self.add(date.replace(tzinfo=None)), date.utcoffset()
        if zone is None:
            return SQL("synapse_instant({}, NULL) {} {}::timestamp").format(expression, operator, wall_clock)
        return SQL("synapse_instant({}, {zone}::interval) {} {}::timestamp - {zone}::interval").format(
            expression, operator, wall_clock, zone=self.add(zone)
        )

    def same_container(self, expression: Composable, value: Any, field: str) -> Composable:
        try:
            if _depth(value) > _COMPARED_DEPTH:
                raise InvalidFilterError(f"The value of {field} must be nested at most {_COMPARED_DEPTH} deep.")
            text = self.add(json_text(value, where=field))
        except InvalidFilterError:
            raise
        except InvalidInputError:  # no document holds such a value
            return _NOTHING
        if not _has_truth_or_its_number(value):
            return SQL("{} = {}::jsonb").format(expression, text)
        return SQL(
            "CASE WHEN NOT jsonb_path_exists({value}, {deeper}) THEN synapse_comparable({value}) END"
            " = synapse_comparable({}::jsonb)"
        ).format(text, value=expression, deeper=Literal(f"strict $.**{{{_COMPARED_DEPTH + 1}}}"))

    def value(self, field: str) -> Composable:
        """The field's value as jsonb, NULL where it is missing."""
        if field in _COLUMNS:
            return _COLUMNS[field]
        root, *keys = field.split(".")
        if not keys:
            return self.path([field])  # a legacy filter's field, without its `meta.`
        return self.path(keys) if root == "meta" else _MISSING

    def path(self, keys: Sequence[str]) -> Composable:
        if len(keys) > MAX_DEPTH:
            raise InvalidFilterError(
                f"A field must go at most {MAX_DEPTH} levels deep, but {shown('.'.join(keys))} does."
            )
        if not all(map(_storable, keys)):
            return _MISSING
        return SQL("(meta{})").format(Composed([SQL(" -> {}::text").format(self.add(key)) for key in keys]))

    def add(self, value: Any) -> Composable:
        name = f"{self.prefix}_{len(self.params)}"
        self.params[name] = value
        return SQL("%({})s").format(SQL(name))


def _required(node: dict[str, Any], key: str) -> Any:
    if key not in node:
        raise InvalidFilterError(f"A condition must have the key {key!r}, but {shown(node)} has not.")
    return node[key]


def _joined(parts: list[Composable], separator: str, *, empty: str) -> Composable:
    return SQL("({})").format(SQL(separator).join(parts)) if parts else SQL(empty)


def _negated(part: Composable) -> Composable:
    return SQL("({} IS NOT TRUE)").format(part)


def _as_number(expression: Composable) -> Composable:
    return SQL(
        "CASE jsonb_typeof({value}) WHEN 'number' THEN {value}::numeric WHEN 'boolean' THEN {value}::boolean::int::numeric END"
    ).format(value=expression)


def _number(value: float) -> Decimal:
    """As `json_text` writes it; beyond what is stored, infinity compares alike."""
    if isinstance(value, int) and not _is_storable_number(value):
        return Decimal("Infinity") if value > 0 else Decimal("-Infinity")
    if isinstance(value, int) or abs(value) >= _EXACT_INTEGERS:
        return Decimal(value)
    return Decimal(float.__repr__(value))


def _is_storable_number(value: float) -> bool:
    return abs(value) < 10**_MAX_DIGITS if isinstance(value, int) else math.isfinite(value)


def _storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _date(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or len(value) < 10 or not value.isascii():
        return None
    if not (value[:4] + value[5:7] + value[8:10]).isdigit() or value[4] + value[7] != "--" or value[10:11] not in "Tt ":
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        try:
            parsed: datetime = isoparse(value)  # 24:00, which fromisoformat does not know
        except (ValueError, OverflowError):
            return None
        return parsed


def _depth(value: Any) -> int:
    if not isinstance(value, list | dict):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


def _has_truth_or_its_number(value: Any) -> bool:
    if isinstance(value, list | dict):
        return any(map(_has_truth_or_its_number, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int | float) and value in (0, 1)


def _unusable(field: str, value: Any) -> InvalidFilterError:
    return InvalidFilterError(
        f"{field} must be compared with text, a number, true, false, None, a date, a list or a mapping,"
        f" but was given {shown(value)}."
    )
