"""Each kind of index is used by the searches that it serves, and what they find is right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from haystack import Document
from haystack.utils import Secret

from database.connection import Database
from database.document_store import SynapseDocumentStore
from database.errors import InvalidInputError
from database.index_definition import Wanted
from database.reindex import reindex

DIMENSION, DOCUMENTS, TABLE = 24, 5000, "varied"
PDF = {"field": "meta.type", "operator": "==", "value": "pdf"}
LATE = {"field": "meta.n", "operator": ">=", "value": 2500}
NOTE = {"field": "meta.type", "operator": "==", "value": "it's 100%"}


def both(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"operator": "AND", "conditions": list(conditions)}


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    made = np.random.default_rng(3).normal(size=(DOCUMENTS, DIMENSION)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def filled(owner_conninfo: str, vectors: np.ndarray) -> Iterator[SynapseDocumentStore]:
    store = made_store(owner_conninfo)
    store.create_table()
    types = ["pdf", "txt", "txt", "it's 100%"]
    store.write_documents(
        [
            Document(
                id=str(n),
                content=f"word{n % 50} {'filling ' * 60}",
                embedding=vectors[n].tolist(),
                meta={"n": n, "type": types[n % 4]},
            )
            for n in range(DOCUMENTS)
        ]
    )
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute(f"VACUUM ANALYZE {TABLE}")
    yield store
    store.delete_table()


@pytest.fixture
def store(filled: SynapseDocumentStore, owner_conninfo: str) -> SynapseDocumentStore:
    """One that has asked nothing yet."""
    return made_store(owner_conninfo)


def made_store(conninfo: str, **more: Any) -> SynapseDocumentStore:
    return SynapseDocumentStore(
        connection_string=Secret.from_token(conninfo), table_name=TABLE, embedding_dimension=DIMENSION, **more
    )


@pytest.fixture(autouse=True)
def _dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """On so small a table comparing all is cheap; here the index is to be gone along."""
    monkeypatch.setattr("database.search_queries.CHEAP", 0.0)


def index_used(store: SynapseDocumentStore, query: list[float], filters: dict[str, Any] | None) -> str:
    plan = store.explain_search("word1", query, filters=filters)
    (used,) = {
        line.split()[3].rstrip(":") for line in plan.plan if re.search("Index Scan on varied_(hnsw|where)", line)
    }
    return used


def recall(store: SynapseDocumentStore, vectors: np.ndarray, filters: dict[str, Any] | None) -> float:
    exact = made_store(store.connection_string.resolve_value() or "", search_strategy="exact_nearest_neighbor")
    found = 0
    for number in range(0, 400, 20):
        query = vectors[number].tolist()
        mine = store.dense_search(query, filters=filters, top_k=10)
        truth = exact.dense_search(query, filters=filters, top_k=10)
        assert len(mine) == 10
        assert [d.score for d in mine] == sorted((d.score for d in mine), reverse=True)
        scores = {d.id: d.score for d in truth}
        assert all(d.score == pytest.approx(scores[d.id], abs=1e-6) for d in mine if d.id in scores), "full precision"
        found += len({d.id for d in mine} & scores.keys())
    return found / 200


@pytest.mark.parametrize(
    ("wanted", "way", "least"),
    [
        (Wanted(), "HNSW index:", 0.99),
        (Wanted(half=True), "HNSW index in half precision:", 0.99),
        (Wanted(half=False, method="ivfflat", lists=20), "IVFFlat index:", 0.6),
        (Wanted(half=True, method="ivfflat", lists=20), "IVFFlat index in half precision:", 0.6),
        (Wanted(half=False, method="hnsw"), "HNSW index:", 0.99),
    ],
    ids=["default", "half", "ivfflat", "half ivfflat", "and back"],
)
def test_a_kind_is_used_and_finds_what_is_nearest(
    owner: Database, store: SynapseDocumentStore, vectors: np.ndarray, wanted: Wanted, way: str, least: float
) -> None:
    reindex(owner, TABLE, wanted=wanted, settle=0)
    query = vectors[7].tolist()
    for filters in (None, LATE):
        assert index_used(store, query, filters) == "varied_hnsw_index"
        assert store.explain_search("word1", query, filters=filters).dense.way.startswith(way)
    assert recall(store, vectors, None) >= least
    assert recall(store, vectors, LATE) >= least


@pytest.mark.parametrize(("filters", "rows"), [(PDF, DOCUMENTS // 4), (NOTE, DOCUMENTS // 4)], ids=["pdf", "quoted"])
def test_a_partial_index_serves_its_filter_and_narrower_ones(
    owner: Database, store: SynapseDocumentStore, vectors: np.ndarray, filters: dict[str, Any], rows: int
) -> None:
    done = reindex(owner, TABLE, wanted=Wanted(filters=filters))
    assert done.rows == rows
    query = vectors[7].tolist()
    for asked in (filters, both(filters, LATE), both(LATE, both(filters))):
        assert index_used(store, query, asked) == done.index
        assert recall(store, vectors, asked) >= 0.99
    for other in (None, LATE, {"operator": "OR", "conditions": [filters, LATE]}, both(LATE)):
        assert index_used(store, query, other) == "varied_hnsw_index"
    with owner.connection() as connection:
        connection.execute(f"DROP INDEX {done.index}")
    assert recall(store, vectors, filters) >= 0.99, "right also while a search still believes in the index"


def test_a_plan_for_the_filter_alone_looks_at_no_more_than_is_wanted(
    owner: Database, store: SynapseDocumentStore, vectors: np.ndarray
) -> None:
    done = reindex(owner, TABLE, wanted=Wanted(filters=PDF))
    try:
        alone = store.explain_search("word1", vectors[7].tolist(), filters=PDF)
        narrower = store.explain_search("word1", vectors[7].tolist(), filters=both(PDF, LATE))
        assert alone.dense.looked_at == 50
        assert 50 < narrower.dense.looked_at <= 200
    finally:
        with owner.connection() as connection:
            connection.execute(f"DROP INDEX {done.index}")


def test_which_indexes_there_are_is_asked_along_the_way(
    store: SynapseDocumentStore, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    searches, query = store._searches, vectors[0].tolist()

    def statements() -> list[str]:
        asked = searches.nearest(query, filters=None, top_k=3, vector_function=None, with_embedding=False)
        return ["pg_index" if "pg_index" in one.as_string() else "search" for one in asked.statements]

    assert statements() == ["pg_index"], "a first search asks before"
    searches.indexes.remember([])
    assert statements() == ["search"]
    now += 31
    assert statements() == ["search", "pg_index"]
    now += 30
    assert statements() == ["pg_index"], "after a long pause what was known is not relied on"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(method="btree"), "hnsw or ivfflat"),
        (Wanted(method="ivfflat", m=16), "neither m nor"),
        (Wanted(lists=10), "has no lists"),
        (Wanted(m=40, ef_construction=50), "at least twice m"),
    ],
    ids=["type", "m", "lists", "ef_construction"],
)
def test_what_does_not_go_together(owner: Database, store: SynapseDocumentStore, wanted: Wanted, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        reindex(owner, TABLE, wanted=wanted)
