"""Random filters over random, awkward metadata: the database agrees with `database.filter_reference`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from haystack import Document
from haystack.errors import FilterError
from haystack.utils import Secret
from haystack.utils.filters import document_matches_filter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.sql import Identifier

from benchmarks.filter_strategies import CONTAINERS, SCALARS, contents, differences, filters, metadata
from database.document_store import SynapseDocumentStore
from database.filter_reference import matches
from database.filters import InvalidFilterError

EVERY_VALUE = [
    Document(id=f"{number}", content="a", meta={"k": value}) for number, value in enumerate(SCALARS + CONTAINERS)
]


def field(operator: str, value: Any, name: str = "meta.k") -> dict[str, Any]:
    return {"field": name, "operator": operator, "value": value}


@pytest.fixture(scope="module")
def store(owner_conninfo: str) -> Iterator[SynapseDocumentStore]:
    store = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo), table_name="awkward", embedding_dimension=3
    )
    store.create_table()
    store.delete_all_documents()
    store.write_documents(EVERY_VALUE)
    yield store
    store.delete_table()


def test_the_store_gives_metadata_back_as_it_was(store: SynapseDocumentStore) -> None:
    stored = {document.id: document for document in store.filter_documents()}
    for document in EVERY_VALUE:
        assert stored[document.id] == document
        for key, value in document.meta.items():
            assert type(stored[document.id].meta[key]) is type(value)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    tried=st.lists(filters, min_size=50, max_size=50),
    metas=st.lists(st.tuples(metadata, contents), min_size=20, max_size=20),
)
def test_random_filters(
    store: SynapseDocumentStore, tried: list[dict[str, Any]], metas: list[tuple[dict[str, Any], str | None]]
) -> None:
    random_ones = [
        Document(id=f"random {number}", content=content, meta=meta) for number, (meta, content) in enumerate(metas)
    ]
    store.delete_documents([document.id for document in random_ones])
    store.write_documents(random_ones)
    table = Identifier(store.schema_name, store.table_name)
    try:
        assert not differences(store.database, table, [*EVERY_VALUE, *random_ones], tried)
        for filter_ in tried[:5]:  # in WHERE, an index or a shortcut may decide
            found = {document.id for document in store.filter_documents(filter_)}
            assert found == {one.id for one in (*EVERY_VALUE, *random_ones) if matches(filter_, one)}
    finally:
        store.delete_documents([document.id for document in random_ones])


@pytest.mark.parametrize(
    "filter_",
    [
        field("==", 0.1),
        field(">=", 9),
        field("in", [1, 2.5, "a", None]),
        field("not in", ["a", None]),
        field("!=", "a"),
        field("==", "2024-01-31T00:00:00+00:00"),
        field("<", "2024-01-31T00:00:00+05:30"),
        field(">", None),
        field("==", ["a", "A", "50%"]),
        {"operator": "NOT", "conditions": [field("==", True)]},
        {"operator": "NOT", "conditions": [field(">=", 9)]},
        {"operator": "OR", "conditions": [field(">", 5), field("==", "a")]},
    ],
)
def test_where_haystack_has_an_answer_it_is_ours(store: SynapseDocumentStore, filter_: dict[str, Any]) -> None:
    """Against the reference itself, which raises for some documents; what it says of text that is no date is a guess."""
    found = {document.id for document in store.filter_documents(filter_)}
    answered = 0
    for document in EVERY_VALUE:
        value = document.meta["k"]
        if isinstance(value, str) and "<" in str(filter_) and matches(filter_, document) is None:
            continue
        try:
            answer = document_matches_filter(filter_, document)
        except (FilterError, TypeError):
            assert matches(filter_, document) is None or "OR" in str(filter_) or "T24:00" in value  # a day's end
            continue
        answered += 1
        assert answer == (document.id in found) == matches(filter_, document), value
    assert answered > 10


@pytest.mark.parametrize(
    ("filter_", "true", "false"),
    [
        (field("array_contains", ["a"]), [["a"], ["b", "a"]], [["b"], [], None]),
        (field("array_contains", ["a", 1]), [[1, "a"]], [["a"], [True, "a"]]),
        (field("array_contains", [{"name": "x"}]), [[{"name": "x", "age": 3}]], [[{"age": 3}]]),
        (field("array_overlaps", ["a", 1]), [["a"], [1.0]], [["b"], [[1]], None]),
        (field("like", "a%"), ["a", "ab"], ["ba", "A", None]),
        (field("not like", "a\\_"), ["ab", None], ["a_"]),
        (field(">", 10**16, "meta.`a.b`.c"), [], [1, None]),
    ],
)
def test_what_haystack_does_not_define(
    store: SynapseDocumentStore, filter_: dict[str, Any], true: list[Any], false: list[Any]
) -> None:
    """Values of another type are neither found nor found by the negation."""
    other = [5, {"a": 1}, True] if "meta.k" in str(filter_) else []
    documents = [Document(id=f"case {n}", meta={"k": value}) for n, value in enumerate([*true, *false, *other])]
    store.write_documents(documents)
    try:
        every = [document.id for document in documents]
        here = field("in", every, "id")
        for wanted, one in ((true, filter_), (false, {"operator": "NOT", "conditions": [filter_]})):
            found = store.filter_documents({"operator": "AND", "conditions": [here, one]})
            assert sorted((d.meta["k"] for d in found), key=repr) == sorted(wanted, key=repr)
    finally:
        store.delete_documents(every)


def test_a_key_with_a_dot_is_quoted(store: SynapseDocumentStore) -> None:
    metas = [{"a.b": 1}, {"a": {"b": 2}}, {"a": {"b.c": 3}}, {"`a": {"b`": 4}}]
    store.write_documents([Document(id=f"dot {n}", meta=meta) for n, meta in enumerate(metas)])
    try:
        for name, value in (("meta.`a.b`", 1), ("meta.a.b", 2), ("meta.a.`b.c`", 3), ("meta.```a`.b`", 4)):
            assert [d.id for d in store.filter_documents(field("==", value, name))] == [f"dot {value - 1}"]
    finally:
        store.delete_documents([f"dot {n}" for n in range(4)])


@pytest.mark.parametrize(
    ("filter_", "part"),
    [
        ({"field": "meta.k", "operator": "~", "value": 1}, "must be one of"),
        ({"field": "meta.k", "operator": "==", "value": {1, 2}}, "was given set"),
        ({"field": "meta.k", "operator": ">", "value": "1"}, "ISO 8601"),
        ({"field": "meta.k", "operator": ">", "value": [1]}, "ISO 8601"),
        ({"field": "meta.k", "operator": "in", "value": "a"}, "takes a list"),
        ({"field": "meta.k", "value": "a"}, "'operator'"),
        ({"field": 5, "operator": "==", "value": "a"}, "'field' must be text"),
        ({"operator": "XOR", "conditions": []}, "AND, OR or NOT"),
        ({"field": "meta.k", "operator": "array_contains", "value": "a"}, "not empty"),
        ({"field": "meta.k", "operator": "array_overlaps", "value": []}, "not empty"),
        ({"field": "meta.k", "operator": "array_overlaps", "value": [object()]}, "must be compared"),
        ({"field": "meta.k", "operator": "like", "value": "a\\"}, "lone backslash"),
        ({"field": "meta.k", "operator": "like", "value": 1}, "takes a text"),
        ({"field": "embedding", "operator": ">", "value": 1}, "None only"),
        ({"operator": "AND", "conditions": {}}, "must be a list"),
        ({"operator": "AND", "conditions": ["x"]}, "must be a mapping"),
        ({"field": "embedding", "operator": "==", "value": [0.1]}, "None only"),
        ({"field": "meta." + "a." * 100, "operator": "==", "value": 1}, "levels deep"),
        ({"field": "meta.k", "operator": "==", "value": "deep"}, "nested"),
        (
            {"operator": "OR", "conditions": [{"field": "meta.k", "operator": "==", "value": 1}] * 40_000},
            "at most 30000",
        ),
    ],
)
def test_a_malformed_filter_is_one_sentence(store: SynapseDocumentStore, filter_: dict[str, Any], part: str) -> None:
    if filter_.get("value") == "deep":
        filter_["value"] = []
        for _ in range(40):
            filter_["value"] = [filter_["value"]]
    with pytest.raises(InvalidFilterError, match=part):
        store.filter_documents(filter_)


def test_a_filter_may_be_long_and_deep(store: SynapseDocumentStore) -> None:
    leaf: dict[str, Any] = {"field": "meta.k", "operator": "==", "value": "a"}
    deep = leaf
    for _ in range(60):
        deep = {"operator": "NOT", "conditions": [deep]}
    assert store.count_documents_by_filter(deep) == store.count_documents_by_filter(leaf) > 0
    assert store.count_documents_by_filter({"operator": "OR", "conditions": [leaf] * 5000}) > 0
    assert (
        store.count_documents_by_filter({"field": "id", "operator": "in", "value": [str(n) for n in range(100_000)]})
        > 0
    )


def test_a_number_beyond_all_that_is_stored(store: SynapseDocumentStore) -> None:
    numbers = {"field": "meta.k", "operator": "<", "value": 10**5000}
    assert store.count_documents_by_filter(numbers) > 0
    assert store.count_documents_by_filter({**numbers, "operator": ">"}) == 0
    assert store.count_documents_by_filter({**numbers, "operator": "=="}) == 0
    with pytest.raises(InvalidFilterError, match="takes a list"):
        store.count_documents_by_filter({**numbers, "operator": "in"})


def test_no_filter_is_let_into_the_statement(store: SynapseDocumentStore) -> None:
    before = store.count_documents()
    for text in ("'; DROP TABLE awkward; --", "%(embedding)s", "{table}", "$1", "\\'"):
        for filter_ in (
            {"field": f"meta.{text}", "operator": "==", "value": 1},
            {"field": "meta.k", "operator": "in", "value": [text]},
            {"field": "id", "operator": "==", "value": text},
            {"field": text, "operator": "!=", "value": {text: [text]}},
        ):
            store.count_documents_by_filter(filter_)
    assert store.count_documents() == before


def test_presence_of_an_embedding_and_a_blob(store: SynapseDocumentStore) -> None:
    everything = store.count_documents()
    for field in ("embedding", "blob", "meta.embedding", "score"):
        assert store.count_documents_by_filter({"field": field, "operator": "==", "value": None}) == everything
        assert store.count_documents_by_filter({"field": field, "operator": "!=", "value": None}) == 0


def test_a_date_with_an_offset_meets_the_other_kinds(store: SynapseDocumentStore) -> None:
    half_past_five = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2024, 1, 31, 5, 30, tzinfo=half_past_five)
    found = store.filter_documents({"field": "meta.k", "operator": "==", "value": moment})
    assert {d.meta["k"] for d in found} >= {"2024-01-31T05:30:00+05:30", "2024-01-31T00:00:00Z"}
    assert "2024-01-31" not in {d.meta["k"] for d in found}  # a wall clock, read at the filter's offset
