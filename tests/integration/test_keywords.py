"""The keyword tables: BM25 against a computation by hand, statistics after whatever is written, languages, other writers."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from haystack import Document
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import Secret
from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from database import schema
from database.connection import Database
from database.document_store import SynapseDocumentStore
from database.errors import ConfigurationError, InvalidInputError
from database.models import EmbeddingModel, add_model, drop_model
from database.ranking import Ranking
from tests.support.partitions import PARTITIONS, partitioned
from tests.support.schema_versions import FIRST, keyword_statistics

TABLE = "worded"
WORDS = [
    "river",
    "rivers",
    "mountain",
    "engine",
    "running",
    "the",
    "violin",
    "glacier",
    "fluss",
    "flüsse",
    "und",
    "berge",
]


@pytest.fixture(scope="module", params=PARTITIONS)
def made(owner_conninfo: str, request: pytest.FixtureRequest) -> Iterator[SynapseDocumentStore]:
    partitioned(owner_conninfo, TABLE, dimension=3, partitions=request.param)
    store = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo), table_name=TABLE, embedding_dimension=3
    )
    store.create_table()
    yield store
    store.delete_table()


@pytest.fixture
def store(made: SynapseDocumentStore) -> SynapseDocumentStore:
    made.delete_all_documents()
    return made


@pytest.fixture
def connection(owner_conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(owner_conninfo, autocommit=True) as connected:
        yield connected


def document(number: int, text: str | None, **meta: Any) -> Document:
    return Document(id=str(number), content=text, meta=meta)


def bm25(
    connection: psycopg.Connection[Any], texts: dict[str, str], question: str, *, k1: float, b: float
) -> dict[str, float]:
    """Robertson & Zaragoza, 2009, over PostgreSQL's English lexemes."""

    def lexemes(text: str) -> Counter[str]:
        rows = connection.execute(
            "SELECT lexeme, cardinality(positions) FROM unnest(to_tsvector('english', %s))", (text,)
        )
        return Counter(dict(rows.fetchall()))

    documents = {name: lexemes(text) for name, text in texts.items()}
    average = sum(sum(words.values()) for words in documents.values()) / len(documents)
    scores = {}
    for name, words in documents.items():
        score = 0.0
        for word, asked in lexemes(question).items():
            if not words[word]:
                continue
            having_it = sum(word in other for other in documents.values())
            rarity = math.log(1 + (len(documents) - having_it + 0.5) / (having_it + 0.5))
            saturation = words[word] + k1 * (1 - b + b * sum(words.values()) / average)
            score += asked * rarity * words[word] * (k1 + 1) / saturation
        if score > 0:
            scores[name] = score
    return scores


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=some.lists(some.lists(some.sampled_from(WORDS), max_size=30).map(" ".join), min_size=1, max_size=40),
    question=some.lists(some.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join),
    k1=some.sampled_from([0.4, 1.2, 2.0]),
    b=some.sampled_from([0.0, 0.75, 1.0]),
)
def test_scores_are_bm25(
    store: SynapseDocumentStore,
    connection: psycopg.Connection[Any],
    texts: list[str],
    question: str,
    k1: float,
    b: float,
) -> None:
    store.delete_all_documents()
    half = len(texts) // 2
    store.write_documents([document(n, text) for n, text in enumerate(texts[:half])])
    store.write_documents([document(n, text) for n, text in enumerate(texts[half:], start=half)])
    asking = SynapseDocumentStore(
        connection_string=store.connection_string,
        table_name=TABLE,
        embedding_dimension=3,
        ranking={"k1": k1, "b": b},
    )
    expected = bm25(connection, {str(n): text for n, text in enumerate(texts)}, question, k1=k1, b=b)
    found = {d.id: d.score for d in asking.keyword_search(question, top_k=100)}
    assert found == pytest.approx(expected, rel=1e-4)


def test_common_words_are_left_out_only_where_they_cannot_matter(
    store: SynapseDocumentStore, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("database.search_queries.FIRST_MATCHES", 5)  # so that every question takes both steps
    rng = random.Random(1)
    weights = [1 / n for n in range(1, 61)]
    texts = {
        str(n): " ".join(f"w{w}" for w in rng.choices(range(60), weights, k=rng.randint(5, 60))) for n in range(400)
    }
    store.write_documents([Document(id=name, content=text) for name, text in texts.items()])
    for _ in range(15):
        question = " ".join(f"w{w}" for w in rng.choices(range(60), weights, k=rng.randint(1, 8)))
        expected = sorted(bm25(connection, texts, question, k1=1.2, b=0.75).values(), reverse=True)[:10]
        assert [d.score for d in store.keyword_search(question, top_k=10)] == pytest.approx(expected, rel=1e-4)


def test_statistics_follow_every_write(store: SynapseDocumentStore, connection: psycopg.Connection[Any]) -> None:
    def right() -> bool:
        said, true = keyword_statistics(connection, TABLE)
        return said == true

    store.write_documents([document(n, f"river mountain number{n}", title="Report") for n in range(50)])
    assert right()
    store.write_documents([document(n, "engine", language="de") for n in range(10)], policy=DuplicatePolicy.OVERWRITE)
    assert right()
    store.write_documents([document(n, "violin") for n in range(40, 60)], policy=DuplicatePolicy.SKIP)
    assert right()
    store.update_by_filter({"field": "meta.title", "operator": "==", "value": "Report"}, {"title": "Glacier"})
    assert right()
    assert store.keyword_search("glacier", top_k=100)
    store.delete_documents([str(n) for n in range(5, 20)])
    assert right()
    connection.execute(f"UPDATE {TABLE} SET id = 'new ' || id WHERE id = '30'")  # noqa: S608
    assert right()
    assert "new 30" in {d.id for d in store.keyword_search("number30")}
    with connection.transaction(force_rollback=True):
        connection.execute(f"DELETE FROM {TABLE}")  # noqa: S608
        connection.execute(f"INSERT INTO {TABLE} (id, content) VALUES ('x', 'unwanted')")  # noqa: S608
    assert right()
    before = keyword_statistics(connection, TABLE)[0]
    connection.execute(f"SELECT synapse_rebuild_keywords('{TABLE}')")
    assert keyword_statistics(connection, TABLE)[0] == before
    store.delete_all_documents()
    assert keyword_statistics(connection, TABLE) == ({}, {})


def test_a_change_of_other_metadata_leaves_the_keywords_alone(
    store: SynapseDocumentStore, connection: psycopg.Connection[Any]
) -> None:
    store.write_documents([document(1, "river", year=2024)])
    row = f"SELECT ctid::text, xmin::text FROM {TABLE}_keywords"  # noqa: S608
    before = connection.execute(row).fetchall()
    store.update_by_filter({}, {"year": 2025})
    assert connection.execute(row).fetchall() == before


def test_many_writers_do_not_wait_or_miscount(store: SynapseDocumentStore, connection: psycopg.Connection[Any]) -> None:
    def work(worker: int) -> None:
        rng = random.Random(worker)
        for _ in range(12):
            numbers = sorted(rng.sample(range(60), 5))
            if rng.random() < 0.3:
                store.delete_documents([str(n) for n in numbers])
            else:
                documents = [document(n, " ".join(rng.choices(WORDS, k=8))) for n in numbers]
                store.write_documents(documents, policy=DuplicatePolicy.OVERWRITE)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(16)))
    said, true = keyword_statistics(connection, TABLE)
    assert said == true
    parts = connection.execute(
        f"SELECT max(parts) FROM (SELECT count(*) AS parts FROM {TABLE}_terms GROUP BY term) AS p"  # noqa: S608
    )
    row = parts.fetchone()
    assert row is not None
    assert row[0] <= 64  # parts are folded as writers come by
    store.write_documents([document(100, " ".join(WORDS))])
    folded = connection.execute(
        f"SELECT count(*) = count(DISTINCT (term, language)) FROM {TABLE}_terms WHERE term <> 0"  # noqa: S608
    )
    assert folded.fetchone() == (True,)


def test_a_language_whose_documents_are_gone_stops_no_writer(
    store: SynapseDocumentStore, connection: psycopg.Connection[Any], owner_conninfo: str
) -> None:
    """Its parts add up to nothing, and are not one row yet, as a writer held one of them."""
    store.write_documents([document(1, "river")])
    with psycopg.connect(owner_conninfo) as other:
        other.execute(f"SELECT FROM {TABLE}_terms FOR UPDATE")
        store.delete_documents(["1"])
    parts = connection.execute(f"SELECT sum(documents), count(*) FROM {TABLE}_terms WHERE term = 0").fetchone()  # noqa: S608
    assert parts == (0, 2)
    connection.execute(f"INSERT INTO {TABLE} (id) SELECT 'none' WHERE false")
    store.write_documents([document(2, "Flüsse", language="de")])
    assert [d.id for d in store.keyword_search("Fluss")] == ["2"]
    said, true = keyword_statistics(connection, TABLE)
    assert said == true


def test_each_chunk_is_read_in_its_own_language(store: SynapseDocumentStore) -> None:
    store.write_documents(
        [
            document(1, "Die Flüsse und die Berge", language="de"),
            document(2, "The rivers and the mountains", language="en"),
            document(3, "Rivers without a language"),
            document(4, "Running rivers", language="no-such-language"),
        ]
    )
    assert [d.id for d in store.keyword_search("Fluss")] == ["1"]
    assert {d.id for d in store.keyword_search("river")} == {"2", "3", "4"}
    assert store.keyword_search("die und") == []  # stop words in German; no English document has them


def test_title_and_heading_count(store: SynapseDocumentStore) -> None:
    store.write_documents([document(1, "It is tall.", title="The tower", heading="Height"), document(2, "It is old.")])
    assert [d.id for d in store.keyword_search("tower")] == ["1"]
    assert [d.id for d in store.keyword_search("height of it")] == ["1"]


def test_what_a_plain_store_writes_is_found(store: SynapseDocumentStore, owner_conninfo: str) -> None:
    plain = PgvectorDocumentStore(
        connection_string=Secret.from_token(owner_conninfo),
        table_name=TABLE,
        embedding_dimension=3,
        search_strategy="hnsw",
        hnsw_index_name=f"{TABLE}_hnsw_index",
        keyword_index_name=f"{TABLE}_keyword_index",
    )
    plain.write_documents([Document(id="1", content="a violin", embedding=[1.0, 0.0, 0.0])])
    assert [d.id for d in store.keyword_search("violins")] == ["1"]
    plain.delete_documents(["1"])
    assert store.keyword_search("violins") == []


def test_a_table_that_a_plain_store_made_is_completed(owner_conninfo: str) -> None:
    arguments = {
        "connection_string": Secret.from_token(owner_conninfo),
        "table_name": "plain",
        "embedding_dimension": 3,
    }
    plain = PgvectorDocumentStore(**arguments, keyword_index_name="plain_keyword_index")
    plain.write_documents([Document(id="1", content="a violin", embedding=[1.0, 0.0, 0.0])])
    ours = SynapseDocumentStore(**arguments)
    ours.create_table()
    assert [s.document.id for s in ours.hybrid_search("violins", [1.0, 0.0, 0.0])] == ["1"]
    plain.delete_table()  # which knows nothing of the keyword tables
    ours.create_table()
    assert ours.keyword_search("violins") == []
    ours.delete_table()
    with psycopg.connect(owner_conninfo) as connection:
        assert connection.execute("SELECT to_regclass('plain_keywords'), to_regclass('plain_terms')").fetchone() == (
            None,
            None,
        )


def test_an_upgrade_files_what_was_there(empty_conninfo: str) -> None:
    with psycopg.connect(empty_conninfo, autocommit=True) as connection:
        connection.execute(FIRST.read_bytes())
        connection.execute(
            "INSERT INTO documents_all_minilm_l6_v2 (id, content, meta) VALUES ('1', 'Flüsse', '{\"language\": \"de\"}')"
        )
    assert schema.upgrade(empty_conninfo).before == "0001"
    store = SynapseDocumentStore(connection_string=Secret.from_token(empty_conninfo))
    assert [d.id for d in store.keyword_search("Fluss")] == ["1"]
    store.write_documents([Document(id="2", content="a fluss")])
    assert len(store.keyword_search("Fluss")) == 2
    store.close()


@pytest.mark.parametrize(
    "ranking", [{"k1": -1}, {"b": 2}, {"candidates": 0}, {"candidates": 1.5}, {"keyword_weight": "0.5"}, {"k2": 1}]
)
def test_ranking_is_checked(ranking: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="ranking"):
        SynapseDocumentStore(ranking=ranking)
    assert Ranking.of({"b": 0.5}).to_dict()["b"] == 0.5


def test_models_do_not_take_each_others_tables(owner: Database) -> None:
    first = EmbeddingModel.named("some/words", dimension=3)
    add_model(owner, first)
    try:
        with pytest.raises(InvalidInputError, match="documents_words"):
            add_model(owner, EmbeddingModel.named("some/words-terms", dimension=3))
    finally:
        drop_model(owner, first.name)
    left = owner.read("SELECT relname FROM pg_class WHERE starts_with(relname, 'documents_words')")
    assert left == []
