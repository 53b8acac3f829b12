"""Random filters over awkward metadata: the database agrees with `haystack.utils.filters.document_matches_filter`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from haystack import Document
from haystack.errors import FilterError
from haystack.utils import Secret
from haystack.utils.filters import document_matches_filter
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from database.document_store import SynapseDocumentStore
from database.filters import InvalidFilterError

NUMBERS = [0, 1, -1, 2, 9, 9.5, 0.1, 0.30000000000000004, 1.0, -0.0, 1e16, 10**16, 1e23, 10**23, 2**53 + 1, 2.0**53]
NUMBERS += [1e-7, 5e-324, 1.7976931348623157e308, 10**400, True, False]
TEXTS = [
    "",
    "a",
    "A",
    "1",
    "true",
    "null",
    "n/a",
    "50%",
    "it's",
    'say "x"',
    "back\\slash",
    "ünïcode",
    "\U0001f600",
    "{}",
]
DATES = ["2024-01-31", "2024-01-31T00:00", "2024-01-31T05:30:00+05:30", "2024-01-31T00:00:00Z", "2024-01-30T24:00"]
DATES += [
    "2024-01-31 10:00:00.123456",
    "2024-01-31T10:00:00.1234567Z",
    "2023-06-01T00:00:00-08:00",
    "0001-01-01T00:00+14:00",
]
DATES += ["9999-12-31T23:59:59-14:00", "2024-02-29", "2023-06-01t10", "2024-01-31T100000z"]
NO_DATES = [
    "2023-02-29",
    "2024-13-01",
    "2024-01-31T25:00",
    "2024-01",
    "20240131",
    "0000-01-01",
    "2024-01-31T10:00:00+24:00",
]
SCALARS: list[Any] = [*NUMBERS, *TEXTS, *DATES, *NO_DATES, None]
CONTAINERS: list[Any] = [
    [],
    {},
    [1],
    [True],
    [1.0, "a"],
    ["2024-01-31"],
    {"a": 1},
    {"a": True},
    {"a": {"b": [0, None]}},
]
CONTAINERS += [[[1]], [None], {"b": 2, "a": 1}, {"0": "x"}]
KEYS = ["k", "l", "%s", "a.b", "0", "quote'\"", "ключ"]

values = st.sampled_from(SCALARS + CONTAINERS)
moments = st.datetimes(datetime(2023, 1, 1), datetime(2024, 12, 31)) | st.sampled_from(
    [datetime.fromisoformat(text) for text in DATES if text not in ("2024-01-30T24:00", "2024-01-31T100000z")]
)
paths = ["k", "l", "k.a", "k.a.b", "k.0", "missing", "%s", "quote'\"", "ключ", ""]
fields = st.sampled_from([*(f"meta.{path}" for path in paths), "k", "content", "id", "meta", "score", "other.k"])
unstorable = st.sampled_from([float("nan"), float("inf"), float("-inf"), "\x00", "\ud800", [float("nan")], ["\x00"]])
leaves = st.one_of(
    st.tuples(fields, st.sampled_from(["==", "!="]), values | moments | unstorable),
    st.tuples(fields, st.sampled_from(["in", "not in"]), st.lists(values | moments | unstorable, max_size=4)),
    st.tuples(
        fields,
        st.sampled_from([">", ">=", "<", "<="]),
        st.sampled_from([*NUMBERS, *DATES, None, float("nan"), float("inf"), float("-inf")]) | moments,
    ),
).map(lambda leaf: dict(zip(("field", "operator", "value"), leaf, strict=True)))
filters = st.recursive(
    leaves,
    lambda children: st.fixed_dictionaries(
        {"operator": st.sampled_from(["AND", "OR", "NOT"]), "conditions": st.lists(children, max_size=3)}
    ),
    max_leaves=5,
)


def awkward_documents() -> list[Document]:
    random_ = random.Random(7)
    documents = [
        Document(id=f"{number}", content="a", meta={"k": value}) for number, value in enumerate(SCALARS + CONTAINERS)
    ]
    for number in range(150):
        keys = random_.sample(KEYS, random_.randint(0, 4))
        meta = {key: random_.choice(SCALARS + CONTAINERS) for key in keys}
        documents.append(Document(id=f"mixed {number}", content=random_.choice([None, "a", *DATES]), meta=meta))
    return documents


DOCUMENTS = awkward_documents()


@pytest.fixture(scope="module")
def store(owner_conninfo: str) -> Iterator[SynapseDocumentStore]:
    store = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo), table_name="awkward", embedding_dimension=3
    )
    store.create_table()
    store.delete_all_documents()
    store.write_documents(DOCUMENTS)
    yield store
    store.delete_table()


def expected(filter_: dict[str, Any], document: Document) -> bool | None:
    """What the reference says; `None` where it raises because of the document's value, or guesses a date."""
    try:
        return document_matches_filter(filter_, document)
    except (FilterError, TypeError, ValueError, OverflowError):
        return None


def test_the_store_gives_metadata_back_as_it_was(store: SynapseDocumentStore) -> None:
    stored = {document.id: document for document in store.filter_documents()}
    for document in DOCUMENTS:
        assert stored[document.id] == document
        for key, value in document.meta.items():
            assert type(stored[document.id].meta[key]) is type(value)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(filter_=filters)
@example(filter_={"field": "meta.k", "operator": "==", "value": 0.1})
@example(filter_={"field": "meta.k", "operator": ">=", "value": 9})
@example(filter_={"field": "meta.k", "operator": "in", "value": [1, 2.5, "a", None]})
@example(filter_={"operator": "NOT", "conditions": [{"field": "meta.k", "operator": "==", "value": True}]})
@example(filter_={"field": "meta.k", "operator": "==", "value": "2024-01-31T00:00:00+00:00"})
@example(filter_={"field": "meta.k", "operator": "<", "value": "2024-01-31T00:00:00+05:30"})
def test_random_filters(store: SynapseDocumentStore, filter_: dict[str, Any]) -> None:
    found = {document.id for document in store.filter_documents(filter_)}
    differences = {
        document.id: (document.meta, document.content)
        for document in DOCUMENTS
        if (wanted := expected(filter_, document)) is not None
        and wanted != (document.id in found)
        and not _guesses(filter_, document)
    }
    assert not differences


def _guesses(filter_: dict[str, Any], document: Document) -> bool:
    """Whether an ordering met text that is no ISO 8601 date, which the reference leaves to dateutil's guessing."""
    orderings = [leaf["field"] for leaf in _leaves(filter_) if leaf["operator"] in (">", ">=", "<", "<=")]
    return any(isinstance(text := _held(document, field), str) and text not in DATES for field in orderings)


def _held(document: Document, field: str) -> Any:
    root, *keys = field.split(".")
    if not keys:
        return getattr(document, root) if root in ("content", "id", "meta", "score") else document.meta.get(root)
    value = getattr(document, root, None)
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _leaves(filter_: dict[str, Any]) -> list[dict[str, Any]]:
    return [filter_] if "field" in filter_ else [leaf for child in filter_["conditions"] for leaf in _leaves(child)]


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
        ({"operator": "AND", "conditions": {}}, "must be a list"),
        ({"operator": "AND", "conditions": ["x"]}, "must be a mapping"),
        ({"field": "embedding", "operator": "==", "value": [0.1]}, "None only"),
        ({"field": "meta." + "a." * 100, "operator": "==", "value": 1}, "levels deep"),
        ({"field": "meta.k", "operator": "==", "value": "deep"}, "nested"),
        (
            {"operator": "OR", "conditions": [{"field": "meta.k", "operator": "==", "value": 1}] * 20_000},
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
