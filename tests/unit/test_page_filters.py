"""Controls become filters, and sentences."""

from __future__ import annotations

from typing import Any

import pytest

from components.metadata_filter import parse_filter
from database.errors import InvalidInputError
from serving.page.filters import ANY, Control, choice, filter_from, in_words

CONTROLS = (
    choice("lang", ["en", "de"]),
    choice("draft", [True, False]),
    Control(name="year", kind="number"),
    Control(name="date", kind="date"),
    Control(name="title", kind="text"),
    Control(name="tags", kind="element"),
)


@pytest.mark.parametrize(
    ("entered", "filters", "words"),
    [
        ({}, None, ""),
        ({"lang": ANY, "year from": "", "title": None, "unknown": "x"}, None, ""),
        ({"lang": "en"}, {"lang": "en"}, "lang: en"),
        ({"draft": "no"}, {"draft": False}, "draft: no"),
        ({"year from": "2020"}, {"year": {">=": 2020}}, "year from 2020"),
        ({"year from": "1.5", "year until": 3}, {"year": {">=": 1.5, "<=": 3}}, "year from 1.5, year until 3"),
        ({"date until": "2025-12-31"}, {"date": {"<": "2026-01-01"}}, "date until 2025-12-31"),
        ({"title": "50%_\\"}, {"title": {"like": "%50\\%\\_\\\\%"}}, "title contains 50%_\\"),
        ({"tags": "dome"}, {"tags": {"contains": "dome"}}, "tags contains dome"),
    ],
)
def test_what_is_entered_becomes_a_filter(entered: dict[str, Any], filters: dict[str, Any] | None, words: str) -> None:
    assert filter_from(CONTROLS, entered) == filters
    assert in_words(CONTROLS, entered) == words
    assert (parse_filter(filters) is None) == (filters is None)


@pytest.mark.parametrize(
    "entered", [{"year from": "soon"}, {"year until": "nan"}, {"date from": "31.12.2025"}, {"date until": "2025-02-30"}]
)
def test_what_is_no_number_and_no_day_is_refused(entered: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"needs a (number|day)"):
        filter_from(CONTROLS, entered)
