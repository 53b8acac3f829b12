"""What the plain store does otherwise or not at all: writing, errors, the table shared with it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.dataclasses import ByteStream
from haystack.document_stores.errors import DocumentStoreError, DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import Secret
from haystack_integrations.components.retrievers.pgvector import PgvectorEmbeddingRetriever, PgvectorKeywordRetriever
from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore

from database.document_store import SynapseDocumentStore
from database.errors import ConfigurationError, DatabaseError, InvalidInputError
from database.metadata_methods import MetadataMethods
from database.store_errors import StoreError


def document(id_: str = "1", *, content: str | None = "text", embedding: Any = None, **meta: Any) -> Document:
    return Document(id=id_, content=content, embedding=embedding, meta=meta)


@pytest.fixture
def store(owner_conninfo: str) -> Iterator[SynapseDocumentStore]:
    store = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo), table_name="small", embedding_dimension=3
    )
    store.create_table()
    yield store
    store.delete_table()


# Construction


def test_it_is_saved_and_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "host=somewhere")
    store = SynapseDocumentStore(table_name="t", embedding_dimension=8, home="/somewhere", return_embedding=True)
    loaded = SynapseDocumentStore.from_dict(store.to_dict())
    assert loaded.to_dict() == store.to_dict()
    assert (loaded.table_name, loaded.home, loaded.return_embedding) == ("t", "/somewhere", True)
    assert loaded.connection_string.resolve_value() == "host=somewhere"


def test_its_arguments_are_the_parents_and_five_more() -> None:
    ours, theirs = (
        set(inspect.signature(c.__init__).parameters) for c in (SynapseDocumentStore, PgvectorDocumentStore)
    )
    assert ours - theirs == {"home", "ranking", "return_embedding", "read_connection_string", "max_lag"}
    assert not theirs - ours


@pytest.mark.parametrize(
    "argument",
    [
        {"recreate_table": True},
        {"hnsw_recreate_index_if_exists": True},
        {"hnsw_ef_search": 0},
        {"hnsw_ef_search": 1001},
        {"search_strategy": "ivfflat"},
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused(argument: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(argument))):
        SynapseDocumentStore(**argument)


def test_every_method_on_the_parents_shared_connection_is_replaced() -> None:
    """What is left of them is called by the parent's `_ensure_db_setup` alone, which is replaced, too."""
    setup = {
        f"{name}{suffix}" for name in ("_execute_sql", "_handle_hnsw", "_initialize_table") for suffix in ("", "_async")
    }
    shared = re.compile(r"self\._(async_)?((dict_)?cursor|connection)\b|self\._ensure_db_setup")
    users = {
        n
        for n, m in vars(PgvectorDocumentStore).items()
        if inspect.isfunction(m) and shared.search(inspect.getsource(m))
    }
    assert len(users) > 30
    assert users - setup - {"__init__"} <= {*vars(SynapseDocumentStore), *vars(MetadataMethods)}


@pytest.mark.parametrize(
    "arguments",
    [
        {"vector_function": "l2_distance"},
        {"hnsw_index_name": "mine"},
        {"hnsw_index_creation_kwargs": {"lists": 5}},
    ],
)
def test_a_table_that_the_function_does_not_create_is_refused(owner_conninfo: str, arguments: dict[str, Any]) -> None:
    store = SynapseDocumentStore(connection_string=Secret.from_token(owner_conninfo), table_name="other", **arguments)
    with pytest.raises(ConfigurationError, match=r"create_table|creation_kwargs"):
        store.create_table()


# Writing


def test_of_documents_with_one_id_the_policy_decides(store: SynapseDocumentStore) -> None:
    twice = [document("1", content="first"), document("1", content="last")]
    with pytest.raises(DuplicateDocumentError, match="1"):
        store.write_documents([document("0"), *twice])
    assert store.count_documents() == 0
    assert store.write_documents(twice, DuplicatePolicy.SKIP) == 1
    assert store.filter_documents()[0].content == "first"
    assert store.write_documents(twice, DuplicatePolicy.OVERWRITE) == 1
    assert store.filter_documents()[0].content == "last"


def test_a_write_is_whole_or_not_at_all(store: SynapseDocumentStore) -> None:
    store.write_documents([document("2500")])
    with pytest.raises(DuplicateDocumentError, match="2500"):
        store.write_documents([document(str(number)) for number in range(3000)])
    assert store.count_documents() == 1
    assert store.write_documents([document(str(number)) for number in range(3000)], DuplicatePolicy.SKIP) == 2999


def test_nothing_is_written_from_an_empty_list(store: SynapseDocumentStore) -> None:
    assert store.write_documents([]) == 0


UNSTORABLE = {
    "NUL in content": (document("bad", content="a\x00b"), "U\\+0000 at position 1"),
    "surrogate in content": (document("bad", content="a\ud800"), "lone surrogate at position 1"),
    "NUL in meta": (document("bad", a={"b": ["x\x00"]}), r"a\.b\[0\].*U\+0000"),
    "surrogate in a key": (Document(id="bad", meta={"\udc00": 1}), "lone surrogate"),
    "NaN": (document("bad", a=float("nan")), "finite"),
    "infinity": (document("bad", a=[float("inf")]), r"a\[0\].*finite"),
    "set": (document("bad", a={1}), "set"),
    "number as key": (Document(id="bad", meta={"a": {1: 2}}), "text as its keys"),
    "huge integer": (document("bad", a=10**5000), "4300 digits"),
    "long id": (document("bad" * 50), "at most 128 characters.*has 150"),
    "long MIME type": (Document(id="bad", blob=ByteStream(b"x", mime_type="t" * 300)), "255"),
    "dimension": (document("bad", embedding=[1.0] * 4), r"small holds vector\(3\).*4"),
    "NaN embedding": (document("bad", embedding=[1.0, float("nan"), 0.0]), "finite.*nan"),
    "embedding beyond float32": (document("bad", embedding=[1.0, 1e39, 0.0]), "finite.*1e\\+39"),
    "embedding of text": (document("bad", embedding=["a", "b", "c"]), "list of numbers"),
}


@pytest.mark.parametrize("case", UNSTORABLE)
def test_what_cannot_be_kept_as_it_is_is_refused_by_name(store: SynapseDocumentStore, case: str) -> None:
    unstorable, message = UNSTORABLE[case]
    with pytest.raises(InvalidInputError, match=message) as caught:
        store.write_documents([document("good"), unstorable])
    assert "bad" in str(caught.value)
    assert store.count_documents() == 0


def test_documents_come_back_as_they_were(store: SynapseDocumentStore) -> None:
    documents = [
        document(
            "lists", embedding=[1.0, 2.0, 0.5], text="é\U0001f600", number=1e300, nested={"a": [1, 1.0, None, True]}
        ),
        document("empty", content=""),
        document("nothing", content=None),
        Document(id="blob", blob=ByteStream(b"\x00\xff", meta={"a": 1}, mime_type="image/png")),
        Document(id="empty blob", blob=ByteStream(b"")),
        document("zeros", embedding=[0.0, 0.0, 0.0]),
        document("x" * 128, content="\\x 'quoted' \"text\" {json}"),
    ]
    store.write_documents(documents)
    assert {d.id: d for d in store.filter_documents()} == {d.id: d for d in documents}


def test_embeddings_may_be_arrays(store: SynapseDocumentStore) -> None:
    given = document("1")
    object.__setattr__(given, "embedding", np.array([1, 2, 3]))
    store.write_documents([given])
    assert store.filter_documents()[0].embedding == [1.0, 2.0, 3.0]


def test_half_precision(owner_conninfo: str) -> None:
    store = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo),
        table_name="half",
        embedding_dimension=3,
        vector_type="halfvec",
    )
    store.create_table()
    try:
        store.write_documents([document("1", embedding=[1.0, 0.0, 0.0]), document("2", embedding=[0.0, 1.0, 0.0])])
        assert [d.id for d in store.dense_search([0.1, 0.9, 0.0])] == ["2", "1"]
        assert [s.document.id for s in store.hybrid_search("text", [0.1, 0.9, 0.0])] == ["2", "1"]
        assert store.filter_documents({"field": "id", "operator": "==", "value": "1"})[0].embedding == [1.0, 0.0, 0.0]
        with pytest.raises(InvalidInputError, match="finite as halfvec"):
            store.write_documents([document("3", embedding=[1e5, 0.0, 0.0])])
    finally:
        store.delete_table()


# The table is shared with plain stores


def plain_store(conninfo: str) -> PgvectorDocumentStore:
    return PgvectorDocumentStore(
        connection_string=Secret.from_token(conninfo),
        table_name="small",
        embedding_dimension=3,
        search_strategy="hnsw",
        hnsw_index_name="small_hnsw_index",
        keyword_index_name="small_keyword_index",
    )


def test_a_plain_store_reads_and_writes_the_same_table(store: SynapseDocumentStore, owner_conninfo: str) -> None:
    plain = plain_store(owner_conninfo)
    ours = [document("ours", content="written by us", embedding=[1.0, 0.0, 0.0], year=2024)]
    theirs = [document("theirs", content="a plain letter", embedding=[0.0, 1.0, 0.0], year=2023)]
    store.write_documents(ours)
    plain.write_documents(theirs)
    both = sorted(ours + theirs, key=lambda d: d.id)
    for reader in (store, plain):
        assert sorted(reader.filter_documents(), key=lambda d: d.id) == both
        filter_ = {"field": "meta.year", "operator": "==", "value": 2023}
        assert [d.id for d in reader.filter_documents(filter_)] == ["theirs"]
        assert [d.id for d in reader._embedding_retrieval([0.9, 0.1, 0.0])] == ["ours", "theirs"]
        assert [d.id for d in reader._keyword_retrieval("letter")] == ["theirs"]
    assert store.dense_search([0.9, 0.1, 0.0])[0].score == pytest.approx(
        plain._embedding_retrieval([0.9, 0.1, 0.0])[0].score
    )
    plain.close()


def test_haystacks_retrievers_and_writer_work_with_it(store: SynapseDocumentStore) -> None:
    pipeline = Pipeline()
    pipeline.add_component("writer", DocumentWriter(store))
    pipeline.run({"writer": {"documents": [document("1", content="a cat", embedding=[1.0, 0.0, 0.0])]}})
    found = PgvectorEmbeddingRetriever(document_store=store).run([1.0, 0.0, 0.0])["documents"]
    assert [(d.id, d.score, d.embedding) for d in found] == [("1", pytest.approx(1.0), None)]
    assert [d.id for d in PgvectorKeywordRetriever(document_store=store).run("which cats sleep")["documents"]] == ["1"]


# Errors


def test_a_missing_table_is_one_sentence(owner_conninfo: str) -> None:
    store = SynapseDocumentStore(connection_string=Secret.from_token(owner_conninfo), table_name="nowhere")
    for operation in (store.count_documents, lambda: store.write_documents([document()]), store.delete_all_documents):
        with pytest.raises(
            StoreError, match=r"documents table nowhere was expected with its keyword tables.*create_table"
        ) as caught:
            operation()
        assert isinstance(caught.value, DatabaseError)
        assert isinstance(caught.value, DocumentStoreError)
        assert caught.value.code == "schema"


def test_a_store_of_another_dimension_is_told_the_tables(store: SynapseDocumentStore, owner_conninfo: str) -> None:
    store.write_documents([document("1", embedding=[1.0, 0.0, 0.0])])
    wrong = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo), table_name="small", embedding_dimension=4
    )
    for operation in (
        lambda: wrong.dense_search([1.0, 0.0, 0.0, 0.0]),
        lambda: wrong.write_documents([document("2", embedding=[1.0] * 4)]),
    ):
        with pytest.raises(StoreError, match=r"small holds vector\(3\), but the store gives it 4"):
            operation()


@pytest.mark.parametrize("embedding", [[], [1.0, 0.0], ["a", "b", "c"], [float("nan"), 0.0, 0.0], None])
def test_an_embedding_that_cannot_be_compared_is_refused(store: SynapseDocumentStore, embedding: Any) -> None:
    with pytest.raises(ValueError, match="query_embedding"):
        store.dense_search(embedding)


def test_a_very_long_content_is_kept_whole_and_found_by_its_beginning(store: SynapseDocumentStore) -> None:
    content = " ".join(f"number{n}number{n}" for n in range(80_000))
    assert store.write_documents([document("1", content=content)]) == 1
    assert store.filter_documents()[0].content == content
    assert [d.id for d in store.keyword_search("number3number3")] == ["1"]
    assert store.keyword_search("number79999number79999") == []


def test_without_the_extension_it_says_so(empty_conninfo: str) -> None:
    store = SynapseDocumentStore(connection_string=Secret.from_token(empty_conninfo), create_extension=False)
    for operation in (store.count_documents, store.create_table):
        with pytest.raises(StoreError, match="extension vector was expected") as caught:
            operation()
        assert caught.value.code == "extension_missing"
    store.close()


def test_a_store_of_its_own_needs_no_schema(empty_conninfo: str) -> None:
    store = SynapseDocumentStore(connection_string=Secret.from_token(empty_conninfo), embedding_dimension=3)
    store.create_table()
    store.create_table()
    store.write_documents([document("1", day="2024-01-31", embedding=[1.0, 0.0, 0.0])])
    assert store.count_documents_by_filter({"field": "meta.day", "operator": ">", "value": "2024-01-30"}) == 1
    assert [s.document.id for s in store.hybrid_search("text", [1.0, 0.0, 0.0])] == ["1"]
    store.delete_table()
    store.close()


def test_many_may_create_the_table_at_once(empty_conninfo: str) -> None:
    def create(_: int) -> int:
        store = SynapseDocumentStore(connection_string=Secret.from_token(empty_conninfo), embedding_dimension=3)
        store.create_table()
        return store.count_documents()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(create, range(8))) == [0] * 8


def test_a_table_in_another_schema(empty_conninfo: str) -> None:
    with psycopg.connect(empty_conninfo, autocommit=True) as connection:
        connection.execute('CREATE EXTENSION vector; CREATE SCHEMA "My Schema"')
    store = SynapseDocumentStore(
        connection_string=Secret.from_token(empty_conninfo),
        embedding_dimension=3,
        schema_name="My Schema",
        table_name="t",
    )
    store.create_table()
    store.write_documents([document("1", embedding=[1.0, 0.0, 0.0])])
    assert [s.document.id for s in store.hybrid_search("text", [1.0, 0.0, 0.0])] == ["1"]
    with psycopg.connect(empty_conninfo) as connection:
        assert connection.execute("SELECT schemaname FROM pg_tables WHERE tablename = 't'").fetchall() == [
            ("My Schema",)
        ]
    store.close()


def test_a_server_that_is_down_is_one_sentence() -> None:
    store = SynapseDocumentStore(connection_string=Secret.from_token("host=127.0.0.1 port=1 user=me password=secret"))
    for operation in (store.count_documents, store.create_table, lambda: store.write_documents([document()])):
        with pytest.raises(StoreError, match="nothing listens there") as caught:
            operation()
        assert "secret" not in str(caught.value)
        assert caught.value.code == "database_unavailable"
