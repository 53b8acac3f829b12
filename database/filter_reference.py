"""
What a filter means, in Python: Haystack's `document_matches_filter`, comparison by comparison, in three-valued logic.

The SQL of `database.filters` is held against it. Where Haystack's answer is defined, this is Haystack's answer. It differs:

- A comparison that Haystack refuses because of a document's value (`5 > "n/a"`) is unknown, `None`, and so is its negation;
  AND and OR are SQL's. Haystack raises, or not, depending on the order of the conditions.
- `>`, `>=`, `<` and `<=` take text as a date only where `==` does, in ISO 8601 with a full date. Haystack also asks dateutil,
  which reads "may" and "10" as days of the current month.
- `like`, `not like`, `array_contains` and `array_overlaps`, which pgvector-haystack adds, are defined here: SQL's LIKE for
  text, and jsonb's containment for lists. They are false for what is missing and unknown for values of another type.
- A key that has a dot itself can be named, see `database.field_names`.

One difference is PostgreSQL's alone: numbers compare as the decimals that jsonb holds. The store writes every number so that it
is equal to itself; other programs may write 0.1000000000000000001, which Python reads as 0.1 and which is more than 0.1 here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from haystack import Document
from haystack.dataclasses import ByteStream
from haystack.errors import FilterError
from haystack.utils.filters import document_matches_filter

from database.field_names import split_name
from database.filter_values import iso_date

_OWN_FIELDS = {field.name for field in fields(Document)}


def matches(filters: dict[str, Any], document: Document) -> bool | None:
    """
    Whether a document matches a filter.

    :param filters: In Haystack's syntax, well-formed.
    :returns: True, false, or `None` for unknown; only what is true is found.
    """
    if "field" in filters:
        return _compared(_held(document, filters["field"]), filters["operator"], filters["value"])
    found = (matches(condition, document) for condition in filters["conditions"])
    if filters["operator"] == "OR":
        return _not(_all(_not(one) for one in found))
    every = _all(found)
    return _not(every) if filters["operator"] == "NOT" else every


def _compared(value: Any, operator: str, wanted: Any) -> bool | None:
    if operator.startswith("not "):
        return _not(_compared(value, operator.removeprefix("not "), wanted))
    if operator == "like":
        return _typed(value, str, lambda: bool(_pattern(wanted).fullmatch(value)))
    if operator == "array_contains":
        return _typed(value, list, lambda: _contains(value, wanted))
    if operator == "array_overlaps":
        return _typed(value, list, lambda: any(_contains(value, [one]) for one in wanted))
    if operator[0] in "<>" and value is not None and wanted is not None:
        value, wanted = (iso_date(one) if isinstance(one, str) else one for one in (value, wanted))
        if value is None or wanted is None:
            return None
    condition = {"field": "meta.value", "operator": operator, "value": wanted}
    try:
        return document_matches_filter(condition, ByteStream(b"", meta={"value": value}))
    except (FilterError, TypeError):
        return None


def _held(document: Document, name: str) -> Any:
    root, *keys = split_name(name)
    if not keys:
        return getattr(document, root) if name in _OWN_FIELDS else document.meta.get(root)
    value = getattr(document, root, None)
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _typed(value: Any, kind: type, test: Any) -> bool | None:
    if value is None:
        return False
    return test() if isinstance(value, kind) else None


def _pattern(like: str) -> re.Pattern[str]:
    parts = re.findall(r"\\(.)|(%)|(_)|(.)", like, re.DOTALL)
    return re.compile(
        "".join(".*" if any_ else "." if one else re.escape(escaped or plain) for escaped, any_, one, plain in parts),
        re.DOTALL,
    )


def _contains(value: Any, part: Any) -> bool:
    """As jsonb contains jsonb: a list the elements, a mapping the entries; true is not 1."""
    if isinstance(value, dict) and isinstance(part, dict):
        return all(key in value and _contains(value[key], part[key]) for key in part)
    if isinstance(value, list) and isinstance(part, list):
        return all(any(_contains(element, one) for element in value) for one in part)
    same_kind = isinstance(value, bool) == isinstance(part, bool)
    return same_kind and not isinstance(value, list | dict) and bool(value == part)


def _all(found: Iterable[bool | None]) -> bool | None:
    answers = set(found)
    return False if False in answers else None if None in answers else True


def _not(found: bool | None) -> bool | None:
    return None if found is None else not found
