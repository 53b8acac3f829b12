"""What becomes of records that PostgreSQL cannot hold as they are."""

from __future__ import annotations

import json
import math
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from database.errors import InvalidInputError
from migration.conversion import KINDS, Converted, Converter, checked_policies
from migration.record_hash import canonical
from migration.source import Loss, Record
from tests.support.record_source import record, vector

ZERO = np.zeros(8, dtype=np.float32)

LOSSY: dict[str, Record] = {
    "nul": record(1, content="a\x00b"),
    "surrogate": record(1, content="a\ud800b"),
    "not_finite": record(1, meta={"x": math.nan}),
    "number": record(1, meta={"x": -0.0}),
    "unsupported_value": record(1, meta={"x": date(2026, 1, 2)}),
    "unreadable": record(1, losses=(Loss("unreadable", "meta.x", "garbled"),)),
    "long_id": record(1, id="x" * 129),
    "empty_id": record(1, id=""),
    "reserved_id": record(1, id="x~" + "0" * 32),
    "missing_vector": record(1, embedding=None),
    "dimension": record(1, embedding=vector(1, 2, 3)),
    "not_finite_vector": record(1, embedding=vector(math.inf, 0, 0, 0, 0, 0, 0, 0)),
    "zero_vector": record(1, embedding=ZERO),
    "repeated_id": record(1, losses=(Loss("repeated_id", "record", [{"content": "older"}]),)),
    "extra_vectors": record(1, losses=(Loss("extra_vectors", "embedding.title", [1.0]),)),
}
"""One record for each kind that a single record can have."""


def convert(*found: Record, policy: str = "keep", vector_type: str = "vector", **options: Any) -> list[Converted]:
    policies = checked_policies(dict.fromkeys(KINDS, policy))
    return Converter("part", dimension=8, vector_type=vector_type, policies=policies, **options).convert(found)


def kept(one: Record) -> dict[str, Any]:
    (converted,) = convert(one)
    assert converted.kept
    return {**converted.row(), "meta": json.loads(converted.meta)}


@pytest.mark.parametrize("kind", LOSSY)
def test_each_loss_has_its_kind_and_its_policy_decides(kind: str) -> None:
    for policy, action in (("stop", "stopped"), ("keep", "changed"), ("reject", "rejected")):
        (converted,) = convert(LOSSY[kind], policy=policy)
        assert [loss.kind for loss in converted.losses] == [kind]
        assert converted.action == action
        assert converted.kept == (action == "changed")


def test_every_kind_is_tried_here() -> None:
    assert set(KINDS) - set(LOSSY) == {"id_collision", "half_precision", "conflict"}


def test_harmless_records_are_copied() -> None:
    converted = convert(*[record(number) for number in range(5)], policy="stop")
    assert [one.action for one in converted] == ["copied"] * 5
    assert [one.id for one in converted] == [f"id {number}" for number in range(5)]


@pytest.mark.parametrize(
    "meta",
    [
        {"big": 2**63, "bigger": 10**4000, "float": 1e300, "small": 5e-324, "whole": 1.0, "large": 2.0**60},
        {"text": "-0.0", "list": ["1e+5", {"deep": [None, True]}], "": 0, "\u2028": "\ufffd"},
        {"text": "NaN and Infinity and \\u0000"},
    ],
)
def test_what_looks_odd_and_is_not_stays_as_it_is(meta: dict[str, Any]) -> None:
    (converted,) = convert(record(1, meta=meta), policy="stop")
    assert converted.action == "copied"
    assert converted.kept
    assert canonical(json.loads(converted.meta)) == canonical(meta)


def test_text_keeps_its_length() -> None:
    assert kept(LOSSY["nul"])["content"] == "a\ufffdb"
    assert kept(LOSSY["surrogate"])["content"] == "a\ufffdb"


def test_keys_that_become_equal_stay_apart() -> None:
    meta = kept(record(1, meta={"a\x00": 1, "a\ufffd": 2, "a" + chr(0xD800): 3}))["meta"]
    assert sorted(meta.values()) == [1, 2, 3]
    assert meta["a\ufffd"] == 2


def test_numbers_that_json_has_not() -> None:
    meta = kept(record(1, meta={"nan": math.nan, "deep": [{"inf": -math.inf}], "zero": -0.0, "long": 10**5000}))["meta"]
    assert meta == {"nan": None, "deep": [{"inf": None}], "zero": 0.0, "long": None}
    assert math.copysign(1, meta["zero"]) == 1


def test_losses_name_the_field_and_keep_the_original() -> None:
    (converted,) = convert(record(1, meta={"deep": [1, {"x": math.inf}]}, content="\x00"))
    assert {(loss.kind, loss.field, loss.original) for loss in converted.losses} == {
        ("not_finite", "meta.deep[1].x", math.inf),
        ("nul", "content", "\x00"),
    }


def test_metadata_that_is_too_deep_is_left_out_and_named() -> None:
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    (converted,) = convert(record(1, meta={"deep": deep}))
    assert [loss.kind for loss in converted.losses] == ["unreadable"]
    assert converted.kept
    assert converted.meta == "{}"


def test_ids_made_by_a_migration_are_unique_and_short() -> None:
    long = [record(1, id="x" * 500), record(2, id="x" * 501), record(3, id="\x00"), record(4, id="\ufffd")]
    ids = [one.id for one in convert(*long)]
    assert len(set(ids)) == 4
    assert max(map(len, ids)) <= 128
    assert ids[0].startswith("xxxx")
    assert ids[3] == "\ufffd"


def test_an_id_that_another_part_has_gets_the_parts_name() -> None:
    (first,) = convert(record(1))
    (second,) = convert(record(1), taken=lambda key: key == first.key)
    assert second.id != first.id
    assert [loss.kind for loss in second.losses] == ["id_collision"]


def test_half_precision_rounds_and_says_so() -> None:
    exact, rounded, huge = (record(1, embedding=vector(value, *[0] * 7)) for value in (0.5, 0.1, 1e6))
    kinds = [[loss.kind for loss in one.losses] for one in convert(exact, rounded, huge, vector_type="halfvec")]
    assert kinds == [[], ["half_precision"], ["not_finite_vector"]]


def test_lengths_of_vectors_are_known() -> None:
    converter = Converter("part", dimension=2, vector_type="vector", policies=checked_policies({}))
    converter.convert(
        [record(1, embedding=vector(3, 4)), record(2, embedding=vector(0, 1)), record(3, embedding=vector(0, 0))]
    )
    assert (converter.smallest, converter.largest) == (1, 5)


def test_lengths_beyond_float32_are_no_infinity() -> None:
    (converted,) = convert(record(1, embedding=vector(*[3e38] * 8)), policy="stop")
    assert converted.action == "copied"


def test_policies_are_checked() -> None:
    assert checked_policies({"nul": "keep"})["nul"] == "keep"
    assert set(checked_policies({}).values()) == {"stop"}
    with pytest.raises(InvalidInputError, match="one of nul, surrogate"):
        checked_policies({"nil": "keep"})
    with pytest.raises(InvalidInputError, match="must be stop, keep or reject"):
        checked_policies({"nul": "ignore"})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(st.characters(codec=None)), st.dictionaries(st.text(st.characters(codec=None)), values, max_size=4))
def test_whatever_comes_is_copied_as_it_is_or_named(text: str, meta: dict[str, Any]) -> None:
    (converted,) = convert(record(1, content=text, meta=meta))
    assert converted.kept
    written = json.loads(converted.meta)
    assert "\x00" not in (converted.content or "") + converted.meta
    ((converted.content or "") + converted.meta).encode()
    if converted.action == "copied":
        assert (converted.content or "") == text
        assert canonical(written) == canonical(meta)
    else:
        assert converted.losses
