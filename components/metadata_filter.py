"""
One filter from whatever the caller has: an expression, a mapping, or a Haystack filter.

    'lang in ["en", "de"] and year >= 2020'                     an expression, see `components.filter_expression`
    {"lang": ["en", "de"], "year": {">=": 2020}}                a mapping: every entry must hold
    {"field": "meta.year", "operator": ">=", "value": 2020}     a Haystack filter, also with AND, OR and NOT

A mapping's value is what the field must equal, a list of what it may equal, or operators with their values. A string that
begins with a brace is a mapping or a Haystack filter in JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from haystack import component, default_to_dict

from components.filter_expression import MAX_DEPTH, Filter, is_date, parse_expression, qualified
from database.errors import InvalidInputError

FilterLike = str | Mapping[str, Any] | None

COMPARISONS = ("==", "!=", ">", ">=", "<", "<=", "in", "not in")
CONNECTIVES = ("AND", "OR", "NOT")


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

    :param scope: A filter that holds for every run, in any form; callers only narrow it. `None` means none.
    """

    def __init__(self, scope: str | dict[str, Any] | None = None) -> None:
        self.scope = scope
        self._scope = parse_filter(scope)

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component to a dictionary."""
        return default_to_dict(self, scope=self.scope)

    @component.output_types(filters=dict[str, Any] | None)
    def run(self, filters: str | dict[str, Any] | None = None) -> dict[str, Any]:
        """
        Normalise a filter and add the scope.

        :param filters: An expression, a mapping or a Haystack filter.
        :returns: `filters`: a Haystack filter, or `None` if there is neither filter nor scope.
        :raises InvalidInputError: If it is no filter.
        """
        return {"filters": combine(self._scope, parse_filter(filters))}


def _json(text: str) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as exc:
        raise InvalidInputError(f"The filter begins as JSON, but is not JSON: {exc}.") from None
    return found


def _is_haystack(given: Mapping[str, Any]) -> bool:
    return "operator" in given and ("conditions" in given or ("field" in given and "value" in given))


def _from_mapping(given: Mapping[str, Any]) -> Filter | None:
    conditions = []
    for name, wanted in given.items():
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"A filter's field must be a name, but is {name!r}.")
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
            f"A Haystack filter has field, operator and value, or operator and conditions, but this part is {given!r}."
        )
    if "field" in given:
        if not isinstance(given["field"], str) or not given["field"]:
            raise InvalidInputError(f"A filter's field must be a name, but is {given['field']!r}.")
        return _condition(given["field"], given["operator"], given["value"])
    operator, conditions = given["operator"], given["conditions"]
    if operator not in CONNECTIVES:
        raise InvalidInputError(f"Conditions are joined by AND, OR or NOT, but here by {operator!r}.")
    if not isinstance(conditions, (list, tuple)):
        raise InvalidInputError(f"{operator} takes a list of conditions, but has {type(conditions).__name__}.")
    return {"operator": operator, "conditions": [_checked(one, depth + 1) for one in conditions]}


_OPERATORS_HINT = f"Operators are {', '.join(COMPARISONS)}."


def _condition(name: str, operator: Any, value: Any) -> Filter:
    if operator not in COMPARISONS:
        raise InvalidInputError(f"The filter compares {name} by {operator!r}.", hint=_OPERATORS_HINT)
    if operator in ("in", "not in"):
        if not isinstance(value, (list, tuple, set)):
            raise InvalidInputError(f"'{operator}' takes a list of values for {name}, but has {value!r}.")
        value = [_scalar(name, one) for one in value]
    elif isinstance(value, (list, tuple)) and operator in ("==", "!="):
        value = [_scalar(name, one) for one in value]  # a list is equal to a list, as in Haystack
    else:
        value = _scalar(name, value)
    if operator[0] in "<>" and not _ordered(value):
        raise InvalidInputError(f"'{operator}' compares {name} with a number or an ISO date, but was given {value!r}.")
    return {"field": qualified(name), "operator": operator, "value": value}


def _scalar(name: str, value: Any) -> Any:
    usable = value is None or isinstance(value, (str, bool, int, float, date))
    if not usable or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidInputError(
            f"The filter compares {name} with {value!r}, which is not a value that metadata can have."
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
