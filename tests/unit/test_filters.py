"""Filters as SQL, without a database: what is sent, and how."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from haystack.errors import FilterError

from database.errors import InvalidInputError
from database.filters import InvalidFilterError, condition, field_value


def sql(filters: dict[str, Any] | None) -> str:
    return condition(filters)[0].as_string()


def leaf(operator: str, value: Any, field: str = "meta.k") -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value}


@pytest.mark.parametrize("nothing", [None, {}])
def test_no_filter_lets_everything_pass(nothing: dict[str, Any] | None) -> None:
    assert (sql(nothing), condition(nothing)[1]) == ("true", {})


def test_keys_and_values_are_parameters() -> None:
    injection = "'; DROP TABLE x; --"
    statement, params = condition(leaf("in", [injection, 1], field=f"meta.{injection}"))
    assert "DROP" not in statement.as_string()
    assert params == {
        "filter_0": injection,
        "filter_1": [Decimal(1)],
        "filter_2": ['"\'; DROP TABLE x; --"'],
    }


def test_ids_are_compared_as_they_are_so_that_their_index_serves() -> None:
    assert sql(leaf("in", ["a", "b"], field="id")) == "id = ANY(%(filter_0)s::text[])"
    assert "synapse_instant" in sql(leaf("==", "2024-01-31", field="id"))


def test_only_what_negates_decides_about_the_unknown() -> None:
    assert "IS NOT TRUE" not in sql({"operator": "AND", "conditions": [leaf("==", 1), leaf(">", 2), leaf("in", ["a"])]})
    for filters in (leaf("!=", 1), leaf("not in", [1]), {"operator": "NOT", "conditions": [leaf("==", 1)]}):
        assert sql(filters).count("IS NOT TRUE") == 1


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"operator": "AND", "conditions": []}, "true"),
        ({"operator": "OR", "conditions": []}, "false"),
        ({"operator": "NOT", "conditions": []}, "(true IS NOT TRUE)"),
        (leaf("in", []), "false"),
        (leaf("not in", []), "(false IS NOT TRUE)"),
        (leaf(">", None), "false"),
        (leaf("==", float("nan")), "false"),
        (leaf("==", "\x00"), "false"),
        (leaf("==", ["\ud800"]), "(false)"),
    ],
)
def test_what_is_decided_without_the_data(filters: dict[str, Any], expected: str) -> None:
    assert sql(filters) == expected


def test_numbers_are_sent_exactly() -> None:
    for number, sent in ((0.1, "0.1"), (1e23, "99999999999999991611392"), (float("inf"), "Infinity"), (True, "1")):
        assert condition(leaf(">=", number))[1]["filter_1"] == Decimal(sent)
    assert condition(leaf("<", -(10**5000)))[1]["filter_1"] == Decimal("-Infinity")


def test_a_date_is_sent_as_its_wall_clock_and_its_offset() -> None:
    moment = datetime(2024, 1, 31, 12, tzinfo=timezone(timedelta(hours=2)))
    for value in (moment, "2024-01-31T12:00:00+02:00"):
        assert list(condition(leaf(">", value))[1].values())[1:] == [datetime(2024, 1, 31, 12), timedelta(hours=2)]
    assert list(condition(leaf(">", "2024-01-31"))[1].values())[1:] == [datetime(2024, 1, 31)]


def test_a_field_without_meta_is_a_legacy_filters() -> None:
    assert sql(leaf("==", None, field="year")) == sql(leaf("==", None, field="meta.year"))
    assert condition(leaf("==", 1, field="year"))[1]["filter_0"] == "year"
    assert "NULL::jsonb" in sql(leaf("==", 1, field="other.year"))


def test_a_field_of_its_own() -> None:
    statement, params = field_value("meta.a.b", prefix="field")
    assert statement.as_string() == "(meta -> %(field_0)s::text -> %(field_1)s::text)"
    assert params == {"field_0": "a", "field_1": "b"}


def test_the_error_is_haystacks_and_a_value_error() -> None:
    with pytest.raises(InvalidFilterError) as caught:
        condition(leaf("like", "a"))
    assert isinstance(caught.value, FilterError)
    assert isinstance(caught.value, InvalidInputError)
    assert isinstance(caught.value, ValueError)


def test_values_nested_without_end_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidFilterError, match="nested"):
        condition(leaf("==", endless))
