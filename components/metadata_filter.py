"""
One filter from whatever the caller has: an expression, a mapping, or a Haystack filter.

    'lang in ["en", "de"] and year >= 2020'                     an expression, see `components.filter_expression`
    {"lang": ["en", "de"], "year": {">=": 2020}}                a mapping: every entry must hold
    {"field": "meta.year", "operator": ">=", "value": 2020}     a Haystack filter, also with AND, OR and NOT

A mapping's value is what the field must equal, a list of what it may equal, or operators with their values. A string that
begins with a brace is a mapping or a Haystack filter in JSON. What the operators mean is in docs/filters.md.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from copy import deepcopy
from datetime import date, datetime
from typing import Any

from haystack import component, default_from_dict, default_to_dict
from haystack.core.serialization import import_class_by_name

from components.field_knowledge import DOCUMENT_FIELDS, FieldKnowledge
from components.filter_expression import MAX_DEPTH, Filter, has_lone_backslash, is_date, parse_expression, qualified
from database.document_rows import shown
from database.errors import InvalidInputError
from database.filters import COMPARISONS

logger = logging.getLogger(__name__)

FilterLike = str | Mapping[str, Any] | None

CONNECTIVES = ("AND", "OR", "NOT")
_ARRAYS = {"contains": "array_contains", "overlaps": "array_overlaps"}
_NEGATED = {f"not {name}": name for name in (*_ARRAYS, *_ARRAYS.values())}


def parse_filter(given: FilterLike) -> Filter | None:
    """
    Normalise a filter, in whichever form it comes, to Haystack's.

    :param given: An expression, a mapping or a Haystack filter; `None`, blank and empty mean no filter.
    :returns: A Haystack filter with fully named fields, or `None`.
    :raises InvalidInputError: If it is no filter; the message says where and why.
    """
    if given is None:
        return None
    if isinstance(given, str):
        text = given.strip()
        if text.startswith("{"):
            return parse_filter(_json(text))
        return parse_expression(given) if text else None
    if not isinstance(given, Mapping):
        raise InvalidInputError(
            f"A filter must be an expression, a mapping or a Haystack filter, but is {type(given).__name__}."
        )
    if not given:
        return None
    return _checked(given) if _is_haystack(given) else _from_mapping(given)


def combine(*filters: Filter | None) -> Filter | None:
    """One filter that holds where all of the given ones do."""
    present = [one for one in filters if one is not None]
    if len(present) > 1:
        return {"operator": "AND", "conditions": present}
    return present[0] if present else None


@component
class MetadataFilter:
    """
    Turns a caller's filter into Haystack's, inside a scope that no caller can leave.

    With a document store, a field that no document has is an error that names the nearest one, and a comparison whose type no
    document has is a warning. The store is asked at most once a minute; where it cannot be, or is empty, nothing is checked.

    :param scope: A filter that holds for every run, in any form; callers only narrow it. `None` means none. It is not checked.
    :param document_store: Any document store with `get_metadata_fields_info`.
    """

    def __init__(self, scope: str | dict[str, Any] | None = None, *, document_store: Any | None = None) -> None:
        self.scope = deepcopy(scope)
        self.document_store = document_store
        self._scope = parse_filter(scope)
        self._knowledge = None if document_store is None else FieldKnowledge(document_store)

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component to a dictionary."""
        store = None if self.document_store is None else self.document_store.to_dict()
        return default_to_dict(self, scope=self.scope, document_store=store)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MetadataFilter:
        """Deserialize the component from a dictionary."""
        parameters = dict(data["init_parameters"])
        if isinstance(store := parameters.get("document_store"), dict):
            kind: Any = import_class_by_name(store["type"])
            parameters["document_store"] = kind.from_dict(store)
        found: MetadataFilter = default_from_dict(cls, {**data, "init_parameters": parameters})
        return found

    @component.output_types(filters=dict[str, Any] | None, warnings=list[str])
    def run(self, filters: str | dict[str, Any] | None = None) -> dict[str, Any]:
        """
        Normalise a filter and add the scope.

        :param filters: An expression, a mapping or a Haystack filter.
        :returns: `filters`: a Haystack filter, or `None` if there is neither filter nor scope; `warnings`: comparisons that
            find nothing because no document's value has their type.
        :raises InvalidInputError: If it is no filter, or names a field that no document has.
        """
        parsed = parse_filter(filters)
        warnings = self._knowledge.check(parsed) if self._knowledge is not None and parsed is not None else []
        for warning in warnings:
            logger.warning("Filter: %s", warning)
        # A copy: what is handed out may be changed by whoever gets it.
        return {"filters": combine(deepcopy(self._scope), parsed), "warnings": warnings}


def _json(text: str) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(text, object_pairs_hook=_without_repeats)
    except InvalidInputError:
        raise
    except (ValueError, RecursionError) as exc:  # also an integer of more digits than Python reads
        raise InvalidInputError(f"The filter begins as JSON, but is not JSON: {exc}.") from None
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON would silently keep the last of several."""
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(name for number, (name, _) in enumerate(pairs) if name in dict(pairs[:number]))
        raise InvalidInputError(
            f"The filter names {repeated} twice in one mapping.",
            hint='Give its operators together: {"year": {">": 1, "<": 9}}.',
        )
    return found


def _is_haystack(given: Mapping[str, Any]) -> bool:
    return "operator" in given and ("conditions" in given or ("field" in given and "value" in given))


def _from_mapping(given: Mapping[str, Any]) -> Filter | None:
    conditions = []
    for name, wanted in given.items():
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"A filter's field must be a name, but is {shown(name)}.")
        if isinstance(wanted, Mapping):
            if not wanted:
                raise InvalidInputError(f"The filter gives no operator for {name}.", hint=_OPERATORS_HINT)
            conditions += [_condition(name, operator, value) for operator, value in wanted.items()]
        else:
            conditions.append(_condition(name, "in" if isinstance(wanted, (list, tuple, set)) else "==", wanted))
    return combine(*conditions)


def _checked(given: Mapping[str, Any], depth: int = 1) -> Filter:
    """A Haystack filter, checked throughout: what reaches the database is well-formed."""
    if depth > MAX_DEPTH:
        raise InvalidInputError(f"A filter nests at most {MAX_DEPTH} deep.")
    if not isinstance(given, Mapping) or not _is_haystack(given):
        raise InvalidInputError(
            f"A Haystack filter has field, operator and value, or operator and conditions, but this part is {shown(given)}."
        )
    if "field" in given:
        if not isinstance(given["field"], str) or not given["field"]:
            raise InvalidInputError(f"A filter's field must be a name, but is {shown(given['field'])}.")
        found = _condition(given["field"], given["operator"], given["value"])
        return {**found, "field": given["field"]} if given["field"] in DOCUMENT_FIELDS and "field" in found else found
    operator, conditions = given["operator"], given["conditions"]
    if operator not in CONNECTIVES:
        raise InvalidInputError(f"Conditions are joined by AND, OR or NOT, but here by {shown(operator)}.")
    if not isinstance(conditions, (list, tuple)):
        raise InvalidInputError(f"{operator} takes a list of conditions, but has {type(conditions).__name__}.")
    return {"operator": operator, "conditions": [_checked(one, depth + 1) for one in conditions]}


_OPERATORS_HINT = f"Operators are {', '.join((*COMPARISONS, *_ARRAYS))}."


def _condition(name: str, operator: Any, value: Any) -> Filter:
    if isinstance(operator, str) and operator in _NEGATED:
        return {"operator": "NOT", "conditions": [_condition(name, _NEGATED[operator], value)]}
    operator = _ARRAYS.get(operator, operator) if isinstance(operator, str) else operator
    if operator not in COMPARISONS:
        raise InvalidInputError(f"The filter compares {name} by {shown(operator)}.", hint=_OPERATORS_HINT)
    several = isinstance(value, (list, tuple, set))
    if operator in ("in", "not in"):
        if not several:
            raise InvalidInputError(f"'{operator}' takes a list of values for {name}, but has {shown(value)}.")
        value = [_scalar(name, one) for one in value]
    elif operator in _ARRAYS.values():
        value = [_element(name, one) for one in (value if several else [value])]
        if not value:
            raise InvalidInputError(f"'{operator}' takes at least one value for {name}, but has none.")
    elif several and operator in ("==", "!="):
        value = [_scalar(name, one) for one in value]  # a list is equal to a list, as in Haystack
    else:
        value = _scalar(name, value)
    if operator[0] in "<>" and not _ordered(value):
        raise InvalidInputError(
            f"'{operator}' compares {name} with a number or an ISO date, but was given {shown(value)}."
        )
    if operator.endswith("like") and (not isinstance(value, str) or has_lone_backslash(value)):
        raise InvalidInputError(
            f"'{operator}' takes a pattern for {name}, such as \"a%\", but was given {shown(value)}."
        )
    return {"field": qualified(name), "operator": operator, "value": value}


def _element(name: str, value: Any) -> Any:
    """What stands in a list: also a mapping, which a list contains where one of its mappings has these entries."""
    if isinstance(value, Mapping):
        return {str(key): _element(name, one) for key, one in value.items()}
    return [_element(name, one) for one in value] if isinstance(value, (list, tuple)) else _scalar(name, value)


def _scalar(name: str, value: Any) -> Any:
    usable = value is None or isinstance(value, (str, bool, int, float, date))
    if not usable or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidInputError(
            f"The filter compares {name} with {shown(value)}, which is not a value that metadata can have."
        )
    return value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value


def _ordered(value: Any) -> bool:
    # None is ordered to nothing, but Haystack takes it and finds nothing.
    return (
        value is None
        or isinstance(value, datetime)
        or (
            is_date(value)
            if isinstance(value, str)
            else isinstance(value, (int, float)) and not isinstance(value, bool)
        )
    )
