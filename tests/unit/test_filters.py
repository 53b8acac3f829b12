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
        "filter_1": Decimal(1),
        "filter_2": injection,
    }


def test_ids_are_compared_as_they_are_so_that_their_index_serves() -> None:
    assert sql(leaf("in", ["a", "b"], field="id")) == "id = ANY(%(filter_0)s::text[])"
    assert "synapse_instant" in sql(leaf("==", "2024-01-31", field="id"))


def test_what_holds_is_a_plain_expression_that_an_index_serves() -> None:
    found = sql({"operator": "AND", "conditions": [leaf("==", 1), leaf(">", 2), leaf("in", ["a", "b"])]})
    assert found == (
        "((synapse_number((meta -> %(filter_0)s::text)) = %(filter_1)s::numeric)"
        " AND synapse_number((meta -> %(filter_0)s::text)) > %(filter_2)s::numeric"
        ' AND (synapse_text((meta -> %(filter_0)s::text)) COLLATE "C" = ANY(%(filter_3)s::text[])))'
    )


def test_not_goes_down_to_the_comparisons() -> None:
    both = {"operator": "AND", "conditions": [leaf(">", 1), {"operator": "NOT", "conditions": [leaf("<", 2)]}]}
    found = sql({"operator": "NOT", "conditions": [both]})
    assert " OR " in found
    assert "NOT " not in found
    assert found.count("<= %(filter_1)s::numeric") == 1  # not greater, but of a number: text stays unknown
    assert found.count("< %(filter_2)s::numeric") == 1


def test_equality_is_never_unknown() -> None:
    for filters in (leaf("!=", 1), leaf("not in", [1]), {"operator": "NOT", "conditions": [leaf("==", 1)]}):
        assert sql(filters).count("IS NOT TRUE") == 1


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"operator": "AND", "conditions": []}, "true"),
        ({"operator": "OR", "conditions": []}, "false"),
        ({"operator": "NOT", "conditions": []}, "false"),
        (leaf("in", []), "false"),
        (leaf("not in", []), "(false IS NOT TRUE)"),
        (leaf(">", None), "false"),
        ({"operator": "NOT", "conditions": [leaf(">", None)]}, "(true)"),
        ({"operator": "NOT", "conditions": [{"operator": "OR", "conditions": []}]}, "(true)"),
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
    assert field_value("`a.b`.c", prefix="field")[1] == {"field_0": "a.b", "field_1": "c"}


def test_the_error_is_haystacks_and_a_value_error() -> None:
    with pytest.raises(InvalidFilterError) as caught:
        condition(leaf("~", "a"))
    assert isinstance(caught.value, FilterError)
    assert isinstance(caught.value, InvalidInputError)
    assert isinstance(caught.value, ValueError)


def test_values_nested_without_end_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidFilterError, match="nested"):
        condition(leaf("==", endless))
