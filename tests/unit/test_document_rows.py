"""Metadata as JSON text that jsonb gives back unchanged."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from database.document_rows import json_text, shown, vector
from database.errors import InvalidInputError

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)


@given(values)
def test_it_is_json_that_means_the_same(value: Any) -> None:
    assert json.loads(json_text(value, where="meta")) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_stays_one_where_numbers_are_decimals(number: float) -> None:
    """jsonb keeps the digits, and writes them without an exponent."""
    kept = f"{Decimal(json_text(number, where='meta')):f}"
    assert isinstance(json.loads(kept), float)
    assert json.loads(kept) == number


def test_a_message_names_the_place() -> None:
    with pytest.raises(InvalidInputError, match=r"^meta of document 'x'\.a\[1\]\.b must be a finite number"):
        json_text({"a": [1, {"b": float("inf")}]}, where="meta of document 'x'")


def test_metadata_nested_without_end_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(InvalidInputError, match="nested less deeply"):
        json_text(endless, where="meta")


def test_tuples_are_lists() -> None:
    assert json_text({"span": (1, 2)}, where="meta") == '{"span": [1, 2]}'


def test_a_vector_is_rounded_as_it_is_kept() -> None:
    assert vector([0.1, 1], vector_type="halfvec", where="it").to_list() == [0.0999755859375, 1.0]
    assert vector([1.0, 2.0], vector_type="vector", where="it").to_list() == [1.0, 2.0]
    with pytest.raises(InvalidInputError, match="list of numbers"):
        vector([[1.0]], vector_type="vector", where="it")


def test_what_messages_show_is_short() -> None:
    assert shown("a") == "'a'"
    assert shown(1.5) == "float 1.5"
    assert shown(10**5000) == "int"
    assert len(shown("a" * 1000)) == 60
