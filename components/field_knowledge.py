"""Which metadata fields there are and what types they have, so that a filter on none of them is an error and not silence."""

from __future__ import annotations

import difflib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from components.filter_expression import OWN_FIELDS, Filter
from database.errors import InvalidInputError
from database.field_names import split_name

logger = logging.getLogger(__name__)

LIFETIME = 60.0
"""Seconds for which an answer of the store holds. Of a field that nobody knew, it is asked again at once."""

_HAYSTACK_TYPES = {"integer": "number", "long": "number", "real": "number", "float": "number", "boolean": "boolean"}
_IN_WORDS = {
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}

DOCUMENT_FIELDS = {*OWN_FIELDS, "meta", "embedding", "blob", "score", "sparse_embedding"}
"""What a Haystack filter may name beside metadata; in expressions and mappings these, but `id` and `content`, are metadata."""


class FieldKnowledge:
    """
    The fields of a document store; asked for at most once a minute, and for a field that was unknown.

    :param document_store: With `get_metadata_fields_info`; a `SynapseDocumentStore` is asked for a sample, which is cheaper.
    """

    def __init__(self, document_store: Any) -> None:
        self.document_store = document_store
        self._types: dict[str, set[str]] = {}
        self._asked = -LIFETIME
        self._lock = threading.Lock()

    def check(self, filters: Filter) -> list[str]:
        """
        Compare a filter with what is known.

        :param filters: A Haystack filter.
        :returns: Warnings: comparisons whose type no document has.
        :raises InvalidInputError: If a field is one that no document has; the message names the nearest one.
        """
        leaves = [leaf for leaf in _leaves(filters) if leaf["field"] not in DOCUMENT_FIELDS]
        types = self._known() if leaves else {}
        if not types:  # an empty table, or a store that cannot be asked
            return []
        warnings = []
        for leaf in leaves:
            name = leaf["field"].removeprefix("meta.")
            if name not in types and not self._occurs(name, types):
                raise _unknown(name, list(self._types))
            warning = _mismatch(name, leaf["operator"], leaf["value"], types.get(name, set()))
            if warning and warning not in warnings:
                warnings.append(warning)
        return warnings

    def _known(self) -> dict[str, set[str]]:
        if time.monotonic() - self._asked >= LIFETIME and self._lock.acquire(blocking=not self._types):
            try:
                if time.monotonic() - self._asked >= LIFETIME:
                    self._ask()
            finally:
                self._lock.release()
        return self._types

    def _ask(self) -> None:
        try:
            if hasattr(self.document_store, "sample_metadata_fields"):
                self._types = self.document_store.sample_metadata_fields()
            else:
                self._types = _from_haystack(self.document_store.get_metadata_fields_info())
        except Exception as exc:  # whatever a store raises: the filter itself may still work
            logger.debug("The fields of %s are not known: %s", type(self.document_store).__name__, exc)
        self._asked = time.monotonic()

    def _occurs(self, name: str, types: dict[str, set[str]]) -> bool:
        """Whether a field that is not in what is known is in the store all the same: rare, nested, or new."""
        try:
            if hasattr(self.document_store, "has_metadata_field"):
                found = bool(self.document_store.has_metadata_field(name))
            else:
                fresh = _from_haystack(self.document_store.get_metadata_fields_info())
                types.update(fresh)
                found = name in fresh or split_name(name)[0] in fresh  # it tells of the outermost keys only
        except Exception as exc:
            logger.debug("Whether there is a field %s is not known: %s", name, exc)
            return True
        if found:
            types.setdefault(name, set())
        return found


def _from_haystack(info: Mapping[str, Mapping[str, str]]) -> dict[str, set[str]]:
    """Types by field; of text no type is said, as stores call mixed fields text, too."""
    types = {name.removeprefix("meta."): _HAYSTACK_TYPES.get(one.get("type", "")) for name, one in info.items()}
    return {name: {type_} if type_ else set() for name, type_ in types.items()}


def _leaves(filters: Filter) -> Iterator[Filter]:
    if "field" in filters:
        yield filters
        return
    for condition in filters["conditions"]:
        yield from _leaves(condition)


def _unknown(name: str, known: list[str]) -> InvalidInputError:
    lowered = {one.lower(): one for one in known}
    lowered |= {one.replace("`", "").lower(): one for one in known if "`" in one}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    if near:
        return InvalidInputError(
            f"The filter's field must be one that documents have, but none has {name}; the nearest is {lowered[near[0]]}."
        )
    some = ", ".join(sorted(known)[:10]) + (" …" if len(known) > 10 else "")
    return InvalidInputError(
        f"The filter's field must be one that documents have, but none has {name}.", hint=f"They have {some}."
    )


def _mismatch(name: str, operator: str, value: Any, found: set[str]) -> str | None:
    """A sentence, where the values of a field are always of types that the comparison knows nothing of."""
    found = found - {"null"}
    wanted = _wanted_types(operator, value)
    if not found or not wanted or found & wanted:
        return None
    kinds = " or ".join(_IN_WORDS[kind] for kind in sorted(found))
    if operator == "array_contains" or operator == "array_overlaps":
        return f"{name} is always {kinds}, never a list: '{operator}' finds nothing."
    if found == {"array"}:
        return f"{name} is always a list: '{operator}' compares it as a whole; write 'contains' or 'overlaps' for what is in it."
    return f"{name} is always {kinds}, which '{operator}' {value!r:.40} never matches."


def _wanted_types(operator: str, value: Any) -> set[str]:
    """JSON types that a comparison can be true or false of; none where it is of every type."""
    if operator.startswith("array"):
        return {"array"}
    if operator.endswith("like"):
        return {"string"}
    values = value if operator in ("in", "not in") else [value]
    wanted: set[str] = set()
    for one in values:
        if one is None:
            return set()
        if isinstance(one, bool | int | float):
            wanted |= {"number", "boolean"}  # true is 1, as in Python
        elif isinstance(one, str | datetime):
            wanted.add("string")
        else:
            wanted.add("object" if isinstance(one, Mapping) else "array")
    return wanted
