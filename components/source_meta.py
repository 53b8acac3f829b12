"""Metadata of a source: what jsonb can hold of it, and which keys are ours."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any

from database.errors import InvalidInputError

RESERVED = frozenset(
    {"source", "heading", "page", "span", "content_hash", "modified", "position", "file_type", "context_window"}
)
"""Keys that describe where a chunk comes from. A user's own are kept as `original_<key>`."""

INTERNAL = frozenset({"sections", "file", "mime_type"})
"""Keys that travel between our components only; a user's own are kept as `original_<key>` too."""

MAX_VALUES, MAX_DEPTH = 10_000, 32


def user_meta(meta: Mapping[Any, Any], *, origin: str) -> dict[str, Any]:
    """
    Make metadata that a user wrote fit to be stored.

    Dates and times become ISO 8601 texts, keys become texts, and keys that are ours are renamed. `title` and `language`
    stay: a user knows them better.

    :param meta: What was written.
    :param origin: Where, for messages, such as `its front matter`.
    :raises InvalidInputError: If JSON cannot hold a value, or there are too many; the message names the field.
    """
    budget = [MAX_VALUES]
    stored = {}
    for key, value in meta.items():
        name = _key(key, origin=origin)
        renamed = f"original_{name}" if name in RESERVED | INTERNAL else name
        stored[renamed] = _value(value, field=f"field {name!r} of {origin}", budget=budget, depth=0)
    for name in ("title", "language"):
        if stored.get(name) is None:
            stored.pop(name, None)  # nothing was said
        else:
            stored[name] = " ".join(str(stored[name]).split())
    return stored


def _key(key: Any, *, origin: str) -> str:
    name = key if isinstance(key, str) else str(key)
    if problem := _text_problem(name):
        raise InvalidInputError(f"a field name in {origin} holds {problem}")
    return name


def _value(value: Any, *, field: str, budget: list[int], depth: int) -> Any:
    budget[0] -= 1
    if budget[0] < 0 or depth > MAX_DEPTH:
        raise InvalidInputError(f"{field} has more than {MAX_VALUES:,} values or {MAX_DEPTH} levels")
    match value:
        case None | bool() | int():
            return value
        case float():
            if not math.isfinite(value):
                raise InvalidInputError(f"{field} is {value}, which JSON cannot hold")
            return value
        case str():
            if problem := _text_problem(value):
                raise InvalidInputError(f"{field} holds {problem}")
            return value
        case datetime.date() | datetime.time():
            return value.isoformat()
        case Mapping():
            return {
                _key(k, origin=field): _value(v, field=field, budget=budget, depth=depth + 1) for k, v in value.items()
            }
        case list() | tuple() | set():
            return [_value(item, field=field, budget=budget, depth=depth + 1) for item in value]
    raise InvalidInputError(f"{field} is a {type(value).__name__}, which JSON cannot hold")


def _text_problem(text: str) -> str:
    if "\0" in text:
        return "the character U+0000, which PostgreSQL cannot hold"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "half of a surrogate pair, which is no character"
    return ""
