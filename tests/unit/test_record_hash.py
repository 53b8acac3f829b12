"""Hashes of records, and indexes of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration.record_hash import HashIndex, canonical, hash_of, key_of, pairs

WHOLE = ("id", "content", '{"a":1}', b"\x00\x00\x80\x3f")


@pytest.mark.parametrize(
    "other",
    [
        ("ID", *WHOLE[1:]),
        (WHOLE[0], None, *WHOLE[2:]),
        (WHOLE[0], "", *WHOLE[2:]),
        (*WHOLE[:2], '{"a":1.0}', WHOLE[3]),
        (*WHOLE[:3], None),
        (*WHOLE[:3], b"\x00\x00\x80\x3e"),
        ("idc", "ontent", *WHOLE[2:]),
    ],
)
def test_whatever_differs_has_another_hash(other: tuple[str, str | None, str, bytes | None]) -> None:
    assert hash_of(*other) != hash_of(*WHOLE)


def test_metadata_has_one_form() -> None:
    assert canonical({"b": [1, 2.0], "a": {"y": None, "x": "é"}}) == '{"a":{"x":"é","y":null},"b":[1,2.0]}'


@given(st.lists(st.integers(0, 10_000), unique=True), st.lists(st.integers(0, 10_000)))
def test_an_index_finds_what_was_added_and_nothing_else(added: list[int], sought: list[int]) -> None:
    index, known = HashIndex(), {}
    for number in added:
        known[number] = key_of(f"hash of {number}")
        index.add(key_of(str(number)), known[number])
    places, hashes = index.find([key_of(str(number)) for number in sought])
    for number, place, found in zip(sought, places, hashes, strict=True):
        assert (place >= 0) == (number in known)
        if place >= 0:
            assert (found == pairs([known[number]])[0]).all()


def test_ids_that_share_half_of_their_hash_are_told_apart() -> None:
    index = HashIndex()
    keys = [b"same ha." + bytes([n]) * 8 for n in range(5)]
    for key in keys:
        index.add(key, key)
    places, hashes = index.find([keys[3], keys[0], b"same ha." + b"x" * 8])
    assert (hashes[:2] == pairs([keys[3], keys[0]])).all()
    assert places[2] == -1


def test_repeated_ids_are_counted_and_the_checksum_has_no_order() -> None:
    one, other = HashIndex(), HashIndex()
    for number in range(10):
        one.add(key_of(str(number)), key_of(f"h{number}"))
        other.add(key_of(str(9 - number)), key_of(f"h{9 - number}"))
    assert one.checksum() == other.checksum() != HashIndex().checksum()
    assert one.repeated() == 0
    twice = HashIndex()
    twice.add(key_of("a"), key_of("b"))
    twice.add(key_of("a"), key_of("c"))
    assert twice.repeated() == 1
    assert len(twice) == 2
