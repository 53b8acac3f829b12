"""Searches: the index, the settings, filters, words; and many threads through restarts."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from haystack import Document
from haystack.utils import Secret
from pgvector.psycopg import register_vector
from psycopg.sql import SQL

from database.document_queries import Query
from database.document_store import SynapseDocumentStore
from database.embedded import EmbeddedServer
from database.errors import InvalidInputError
from tests.support.partitions import PARTITIONS, partitioned

DIMENSION, DOCUMENTS = 32, 3000
WORDS = ["river", "mountain", "engine", "protein", "contract", "treaty", "violin", "harvest", "glacier", "ledger"]
WORDS += ["compiler", "orbit"]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    made = np.random.default_rng(0).normal(size=(DOCUMENTS, DIMENSION)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=PARTITIONS)
def store(owner_conninfo: str, vectors: np.ndarray, request: pytest.FixtureRequest) -> Iterator[SynapseDocumentStore]:
    partitioned(owner_conninfo, "searched", dimension=DIMENSION, partitions=request.param)
    store = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo), table_name="searched", embedding_dimension=DIMENSION
    )
    store.create_table()
    store.delete_all_documents()
    store.write_documents(
        [
            Document(
                id=str(n),
                content=f"{WORDS[n % 12]} {WORDS[n % 7]} number{n}",
                embedding=vectors[n].tolist(),
                meta={"n": n, "hundredth": n % 100 == 0},
            )
            for n in range(DOCUMENTS)
        ]
    )
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE searched")
    yield store
    store.delete_table()


def nearest(vectors: np.ndarray, query: np.ndarray, *, top_k: int, every: int = 1) -> list[str]:
    chosen = np.arange(0, DOCUMENTS, every)
    return [str(chosen[n]) for n in np.argsort(-vectors[chosen] @ query, kind="stable")[:top_k]]


def plan(conninfo: str, query: Query) -> str:
    with psycopg.connect(conninfo, prepare_threshold=None) as connection:
        register_vector(connection)
        for setting in query.settings.items():
            connection.execute("SELECT set_config(%s, %s, true)", setting)
        return "\n".join(
            row[0] for row in connection.execute(SQL("EXPLAIN (COSTS off) ") + query.statement, query.params)
        )


def goes_along_the_index(found: str) -> bool:
    """Of a partitioned table, each part has an index."""
    return all(
        f"Index Scan using {name}" in found
        for name in (
            [f"searched_p{n}_embedding_idx" for n in range(4)] if "searched_p0" in found else ["searched_hnsw_index"]
        )
    )


def test_a_hundred_are_found_through_the_index(
    store: SynapseDocumentStore, vectors: np.ndarray, owner_conninfo: str
) -> None:
    query = vectors[5].tolist()
    store.dense_search(query)  # now it knows which indexes there are
    statement = store._searches.nearest(query, filters=None, top_k=100, vector_function=None, with_embedding=False)
    assert goes_along_the_index(plan(owner_conninfo, statement))
    found = store.dense_search(query, top_k=100)
    assert [d.id for d in found][:10] == nearest(vectors, vectors[5], top_k=10)
    assert len(found) == 100
    scores = [d.score or 0.0 for d in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(1.0)


def test_words_and_vectors_are_found_through_their_indexes(
    store: SynapseDocumentStore, vectors: np.ndarray, owner_conninfo: str
) -> None:
    store.dense_search(vectors[0].tolist())
    statement = store._searches.hybrid("river glacier", vectors[0].tolist(), filters=None, top_k=10)
    found = plan(owner_conninfo, statement)
    assert goes_along_the_index(found)
    assert "Bitmap Index Scan on searched_keywords_terms" in found


@pytest.mark.parametrize("top_k", [1, 100, 1500, 5000])
def test_as_many_as_wanted_come_back(store: SynapseDocumentStore, vectors: np.ndarray, top_k: int) -> None:
    found = store.dense_search(vectors[1].tolist(), top_k=top_k)
    assert len({d.id for d in found}) == min(top_k, DOCUMENTS)
    assert len(store.hybrid_search("river", vectors[1].tolist(), top_k=top_k)) == min(top_k, DOCUMENTS)


def test_the_settings_hold_on_every_connection(
    store: SynapseDocumentStore, vectors: np.ndarray, owner_conninfo: str
) -> None:
    for _ in range(3):
        assert len(store.dense_search(vectors[2].tolist(), top_k=100)) == 100
        cut_connections(owner_conninfo)
    with store.database.connection() as connection:  # and nothing of them stays behind
        row = connection.execute("SELECT current_setting('hnsw.ef_search', true) AS set").fetchone()
    assert row is not None
    assert row["set"] in (None, "", "40")


def test_a_rare_filter_loses_nothing(store: SynapseDocumentStore, vectors: np.ndarray) -> None:
    rare = {"field": "meta.hundredth", "operator": "==", "value": True}
    for n in range(20):
        found = store.dense_search(vectors[n].tolist(), filters=rare, top_k=10)
        assert {d.id for d in found} == set(nearest(vectors, vectors[n], top_k=10, every=100))
        assert {s.document.id for s in store.hybrid_search("river", vectors[n].tolist(), filters=rare)} <= {
            str(number) for number in range(0, DOCUMENTS, 100)
        }
    assert len(store.dense_search(vectors[0].tolist(), filters=rare, top_k=100)) == 30


def test_an_exact_store_compares_all(store: SynapseDocumentStore, vectors: np.ndarray, owner_conninfo: str) -> None:
    exact = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo),
        table_name="searched",
        embedding_dimension=DIMENSION,
        search_strategy="exact_nearest_neighbor",
    )
    query = vectors[7].tolist()
    statement = exact._searches.nearest(query, filters=None, top_k=50, vector_function=None, with_embedding=False)
    assert "hnsw" not in plan(owner_conninfo, statement)
    assert [d.id for d in exact.dense_search(query, top_k=50)] == nearest(vectors, vectors[7], top_k=50)


@pytest.mark.parametrize("function", ["inner_product", "l2_distance"])
def test_other_functions_than_the_index_serves(store: SynapseDocumentStore, vectors: np.ndarray, function: Any) -> None:
    found = store.dense_search(vectors[3].tolist(), top_k=5, vector_function=function)
    assert [d.id for d in found] == nearest(vectors, vectors[3], top_k=5)
    assert found[0].score == pytest.approx(1.0 if function == "inner_product" else 0.0, abs=1e-3)


def test_embeddings_travel_only_when_asked_for(
    store: SynapseDocumentStore, vectors: np.ndarray, owner_conninfo: str
) -> None:
    assert store.dense_search(vectors[0].tolist(), top_k=1)[0].embedding is None
    asking = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo),
        table_name="searched",
        embedding_dimension=DIMENSION,
        return_embedding=True,
    )
    assert asking.dense_search(vectors[0].tolist(), top_k=1)[0].embedding == pytest.approx(vectors[0].tolist())
    assert asking.keyword_search("number17")[0].embedding == pytest.approx(vectors[17].tolist())


# Words


def test_one_word_of_many_is_enough(store: SynapseDocumentStore) -> None:
    found = store.keyword_search("Which of the unheard-of zebras would ask for number17?")
    assert [d.id for d in found] == ["17"]
    assert (found[0].score or 0) > 0


def test_a_rare_word_weighs_more_than_a_common_one(store: SynapseDocumentStore) -> None:
    assert store.keyword_search("river number18", top_k=2)[0].id == "18"


def test_every_match_of_a_common_word_counts(store: SynapseDocumentStore) -> None:
    assert len(store.keyword_search("river", top_k=DOCUMENTS)) == sum(
        "river" in (WORDS[n % 12], WORDS[n % 7]) for n in range(DOCUMENTS)
    )
    assert store.keyword_search("river number2995")[0].id == "2995"


QUESTIONS = [
    "?",
    "'",
    "a & b | !c <-> (d:*",
    "\\",
    "100%",
    "%(question)s {table}",
    "\x00",
    "\ud800x",
    "🦀",
    "the of and",
    " ",
]
QUESTIONS += [
    "x" * 5000,
    "river " * 50_000,
    " ".join(f"number{n}" for n in range(2000)),
    "don't 'quote' \"me\" \\' \\\\",
]


@pytest.mark.parametrize("question", QUESTIONS, ids=range(len(QUESTIONS)))
def test_any_question_is_answered(store: SynapseDocumentStore, vectors: np.ndarray, question: str) -> None:
    assert len(store.hybrid_search(question, vectors[0].tolist(), top_k=5)) == 5
    store.keyword_search(question)


def test_an_empty_question_is_refused(store: SynapseDocumentStore, vectors: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="query"):
        store.keyword_search("")
    with pytest.raises(InvalidInputError, match="query"):
        store.hybrid_search("", vectors[0].tolist())
    with pytest.raises(InvalidInputError, match="top_k"):
        store.hybrid_search("river", vectors[0].tolist(), top_k=0)


def test_both_legs_count(store: SynapseDocumentStore, vectors: np.ndarray) -> None:
    found = store.hybrid_search("number17", vectors[20].tolist(), top_k=10)
    by_id = {scored.document.id: scored for scored in found}
    assert {"17", "20"} <= set(by_id)
    assert by_id["20"].similarity == pytest.approx(1.0)
    assert by_id["20"].keyword_score == 0
    assert by_id["17"].keyword_score > 0
    assert by_id["17"].similarity == pytest.approx(float(vectors[17] @ vectors[20]), abs=1e-5)
    scores = [scored.document.score or 0.0 for scored in found]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] <= scores[0] <= 1
    assert found[0].document.meta["n"] in (17, 20)


def test_without_embeddings_or_with_zeros_documents_are_kept(owner_conninfo: str) -> None:
    store = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo), table_name="bare", embedding_dimension=3
    )
    store.create_table()
    try:
        assert store.hybrid_search("anything", [1.0, 0.0, 0.0]) == []
        store.write_documents(
            [
                Document(id="zeros", content="a cat", embedding=[0.0, 0.0, 0.0]),
                Document(id="none", content="a cat"),
                Document(id="one", content="a dog", embedding=[1.0, 0.0, 0.0]),
                Document(id="empty", content=None),
            ]
        )
        assert store.count_documents_by_filter({"field": "content", "operator": "==", "value": "a cat"}) == 2
        assert [d.id for d in store.dense_search([1.0, 0.0, 0.0])] == ["one"]
        assert store.dense_search([0.0, 0.0, 0.0]) == []
        found = {s.document.id: s.similarity for s in store.hybrid_search("cats", [1.0, 0.0, 0.0])}
        assert found == {"zeros": None, "none": None, "one": pytest.approx(1.0)}
    finally:
        store.delete_table()


# Concurrency


async def test_async_finds_the_same(store: SynapseDocumentStore, vectors: np.ndarray) -> None:
    query, rare = vectors[9].tolist(), {"field": "meta.hundredth", "operator": "==", "value": True}
    try:
        hybrids, dense, words = await asyncio.gather(
            asyncio.gather(*(store.hybrid_search_async("river glacier", query, filters=rare) for _ in range(40))),
            store.dense_search_async(query, top_k=100),
            store.keyword_search_async("glacier"),
        )
        assert all(hybrid == store.hybrid_search("river glacier", query, filters=rare) for hybrid in hybrids)
        assert dense == store.dense_search(query, top_k=100)
        assert words == store.keyword_search("glacier")
    finally:
        await store.close_async()


def cut_connections(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND application_name = 'synapse'"
        )


def test_sixteen_threads_get_their_own_answers(store: SynapseDocumentStore, vectors: np.ndarray) -> None:
    def ask(thread: int) -> int:
        random_, wrong = random.Random(thread), 0
        for _ in range(200):
            n = random_.randrange(DOCUMENTS)
            wrong += store.dense_search(vectors[n].tolist(), top_k=3)[0].id != str(n)
        return wrong

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(ask, range(16))) == 0


def test_cut_connections_and_a_restart_are_survived(
    store: SynapseDocumentStore, vectors: np.ndarray, server: EmbeddedServer | None, owner_conninfo: str
) -> None:
    stop, answers, errors = threading.Event(), [0] * 8, []

    def ask(thread: int) -> None:
        random_ = random.Random(thread)
        while not stop.is_set():
            n = random_.randrange(DOCUMENTS)
            try:
                assert store.hybrid_search(f"number{n}", vectors[n].tolist(), top_k=3)[0].document.id == str(n)
                answers[thread] += 1
            except Exception as exc:
                errors.append((time.monotonic(), exc))

    def every_thread_answers(times: int) -> None:
        """Wait for it, so that a search is cut once, however slow the machine."""
        past = [number + times for number in answers]
        while not errors and any(number < limit for number, limit in zip(answers, past, strict=True)):
            time.sleep(0.02)

    with ThreadPoolExecutor(8) as threads:
        for thread in range(8):
            threads.submit(ask, thread)
        try:
            for _ in range(5):
                every_thread_answers(times=3)
                cut_connections(owner_conninfo)
            every_thread_answers(times=3)
            assert not errors
            if server is not None:
                server.restart()
            reconnected, before = time.monotonic() + 2, sum(answers)
            time.sleep(3)
        finally:
            stop.set()
    assert sum(answers) > before
    assert not [exc for when, exc in errors if when > reconnected]
