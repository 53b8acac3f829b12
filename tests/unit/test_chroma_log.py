"""What Chroma's log makes of a record."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration.sources.chroma_log import (
    ADD,
    DELETE,
    GONE,
    UPDATE,
    UPSERT,
    Entry,
    Patch,
    change_from_log,
    newest_vector,
    record_from_log,
    unstorable,
)


def log(*entries: tuple[int, Any]) -> list[Entry]:
    """Entries numbered from 1."""
    return [
        Entry(seq, operation, None if meta is None else meta if isinstance(meta, str) else json.dumps(meta))
        for seq, (operation, meta) in enumerate(entries, 1)
    ]


def applied(patch: Patch, meta: dict[str, Any]) -> dict[str, Any]:
    """The same by way of its text."""
    other = dict(meta)
    assert patch.apply(meta) == Patch.loads(patch.dumps()).apply(other)
    assert repr(other) == repr(meta)
    return meta


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([(ADD, {"a": 1})], (1, {"a": 1})),
        ([(ADD, {"a": 1}), (ADD, {"a": 2})], (1, {"a": 1})),
        ([(UPDATE, {"a": 1})], None),
        ([(UPDATE, {"a": 1}), (UPSERT, {"b": 2})], (2, {"b": 2})),
        ([(ADD, {"a": 1, "b": 1}), (UPDATE, {"b": 2}), (UPSERT, {"c": 3})], (1, {"a": 1, "b": 2, "c": 3})),
        ([(ADD, {"a": 1, "b": 1}), (UPDATE, {"b": None})], (1, {"a": 1})),
        ([(ADD, {"a": 1}), (DELETE, None)], None),
        ([(ADD, {"a": 1}), (DELETE, None), (UPDATE, {"c": 1})], None),
        ([(ADD, {"a": 1}), (DELETE, None), (ADD, {"b": 1})], (3, {"b": 1})),
        ([(ADD, None)], (1, {})),
    ],
)
def test_a_record_that_only_the_log_holds(entries: list[tuple[int, Any]], expected: tuple[int, dict[str, Any]]) -> None:
    record = record_from_log(log(*entries))
    assert (record and (record[0], applied(record[1], {}))) == expected


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([(ADD, {"a": 2})], {"a": 1, "b": 1}),
        ([(UPDATE, {"a": 2, "c": 3})], {"a": 2, "b": 1, "c": 3}),
        ([(UPDATE, {"a": None})], {"b": 1}),
        ([(UPDATE, None)], {"a": 1, "b": 1}),
        ([(DELETE, None), (UPDATE, {"a": 2})], None),
        ([(DELETE, None), (UPSERT, {"c": 2})], {"c": 2}),
        ([(DELETE, None), (ADD, {"c": 2}), (ADD, {"c": 3})], {"c": 2}),
    ],
)
def test_entries_that_the_tables_have_not_applied(
    entries: list[tuple[int, Any]], expected: dict[str, Any] | None
) -> None:
    patch = change_from_log(log(*entries), applied=0, row_seq=0)
    assert (None if patch.gone else applied(patch, {"a": 1, "b": 1})) == expected


def test_older_entries_fill_only_what_the_tables_lack() -> None:
    entries = log((ADD, {"a": 1, "b": 2**70}), (UPDATE, {"a": None, "c": 3}), (ADD, {"z": 1}))
    patch = change_from_log(entries, applied=3, row_seq=2)
    assert applied(patch, {"c": 4}) == {"b": 2**70, "c": 4}


def test_an_older_entry_does_not_undo_a_newer_one() -> None:
    patch = change_from_log(log((ADD, {"a": 2**70, "b": 2**70}), (UPDATE, {"a": None})), applied=1, row_seq=1)
    assert applied(patch, {}) == {"b": 2**70}
    assert change_from_log(log((ADD, {"a": 2**70}), (DELETE, None), (UPSERT, {})), applied=3, row_seq=3) == Patch()


@pytest.mark.parametrize("text", ["{", "[1]", "1" * 5000, '{"a":' * 100_000])
def test_an_entry_that_is_no_json_object_is_kept_as_it_is(text: str) -> None:
    record = record_from_log(log((ADD, {"a": 1}), (UPDATE, text)))
    assert record is not None
    assert record[1].unreadable == [text]
    assert applied(record[1], {}) == {"a": 1}
    assert change_from_log(log((UPDATE, text)), applied=0, row_seq=0).unreadable == [text]
    assert not unstorable(text)


@pytest.mark.parametrize(
    ("entries", "there", "expected"),
    [
        ([], True, None),
        ([(ADD, True)], False, 1),
        ([(ADD, True)], True, None),
        ([(ADD, True)], None, 1),
        ([(UPDATE, True)], True, 1),
        ([(UPDATE, True)], False, None),
        ([(UPDATE, True)], None, 1),
        ([(UPDATE, False)], True, None),
        ([(UPSERT, True), (UPSERT, False)], False, 1),
        ([(ADD, False), (UPDATE, True)], False, None),
        ([(UPSERT, True), (DELETE, False)], True, GONE),
        ([(DELETE, False), (ADD, True), (ADD, True)], True, 2),
        ([(DELETE, False), (UPDATE, True)], True, GONE),
    ],
)
def test_the_entry_that_has_the_vector(
    entries: list[tuple[int, bool]], there: bool | None, expected: int | None
) -> None:
    numbered = [(seq, operation, has_vector) for seq, (operation, has_vector) in enumerate(entries, 1)]
    assert newest_vector(numbered, there=there) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**63, True),
        (-(2**63) - 1, True),
        (2**63 - 1, False),
        (float("nan"), True),
        (float("-inf"), True),
        (True, False),
        ("lone \ud800", True),
        ("😀 NaN", False),
        ([1, [float("nan")]], True),
        ({"\udfff": 1}, True),
        (None, False),
    ],
)
def test_what_sqlite_did_not_take(value: object, expected: bool) -> None:
    assert unstorable(json.dumps({"key": value})) is expected


operations = st.tuples(
    st.sampled_from([ADD, UPDATE, UPSERT, DELETE]),
    st.dictionaries(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 9))),
)


@given(st.lists(operations, max_size=8), st.integers(0, 8))
def test_what_is_applied_already_makes_no_difference(entries: list[tuple[int, Any]], split: int) -> None:
    """Tables that have applied a part of the log, and the rest of it: the same as all of it."""
    whole = record_from_log(log(*entries))
    first = record_from_log(log(*entries[:split]))
    if first is None:
        return
    meta = applied(first[1], {})
    patch = change_from_log(log(*entries), applied=split, row_seq=split)
    patch.missing.clear()  # the tables of this test lose nothing
    assert patch.gone == (whole is None)
    if whole is not None:
        assert applied(patch, meta) == applied(whole[1], {})
