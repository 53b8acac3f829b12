"""Filtered searches by embedding: right whichever way they go, and the way is chosen by what the planner says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from haystack import Document
from haystack.utils import Secret

from database.document_store import SynapseDocumentStore
from database.search_queries import KNOWN_FILTERS, PlannerCosts
from tests.support.partitions import PARTITIONS, partitioned

DIMENSION, DOCUMENTS, CLUSTERS = 16, 6000, 6


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Documents in clusters, number n in cluster n % 6, so that a filter can shut out a question's whole neighbourhood."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, DIMENSION)) * 4
    made = centres[np.arange(DOCUMENTS) % CLUSTERS] + rng.normal(size=(DOCUMENTS, DIMENSION))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module", params=PARTITIONS)
def store(owner_conninfo: str, vectors: np.ndarray, request: pytest.FixtureRequest) -> Iterator[SynapseDocumentStore]:
    # Between clusters as far apart as these, a graph of few links may have none: with m 8, one question in some 700 missed its own.
    partitioned(owner_conninfo, "clustered", dimension=DIMENSION, partitions=request.param, m=24)
    store = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo), table_name="clustered", embedding_dimension=DIMENSION
    )
    store.create_table()
    store.delete_all_documents()
    store.write_documents(
        [
            Document(
                id=str(n),
                content=f"word{n % 50} {'filling ' * 60}",  # some pages, so that reading them all is dear
                embedding=vectors[n].tolist(),
                meta={"n": n, "cluster": n % CLUSTERS},
            )
            for n in range(DOCUMENTS)
        ]
    )
    with psycopg.connect(owner_conninfo, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE clustered")
    yield store
    store.delete_table()


def best(vectors: np.ndarray, passing: np.ndarray, query: np.ndarray, *, top_k: int) -> np.ndarray:
    """The similarities that a right answer has."""
    return np.sort((vectors[passing] @ query).astype(np.float64))[::-1][:top_k]


@pytest.mark.parametrize("dear", [True, False], ids=["along the index", "one by one"])
@pytest.mark.parametrize("top_k", [1, 10, 300])
@pytest.mark.parametrize("operator", ["==", "!="])
def test_a_filter_for_or_against_the_questions_own_neighbourhood(
    store: SynapseDocumentStore,
    vectors: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    operator: str,
    top_k: int,
    dear: bool,
) -> None:
    monkeypatch.setattr("database.search_queries.CHEAP", 0.0 if dear else 1e9)
    for number in range(8):
        cluster = number % CLUSTERS
        filters = {"field": "meta.cluster", "operator": operator, "value": cluster}
        passing = (np.arange(DOCUMENTS) % CLUSTERS == cluster) == (operator == "==")
        for _ in range(2):  # the second time, the planner's word is known
            found = store.dense_search(vectors[number].tolist(), filters=filters, top_k=top_k)
            expected = best(vectors, passing, vectors[number], top_k=top_k)
            assert len(found) == len(expected)
            near_enough = sum((d.score or 0.0) >= expected[-1] - 1e-6 for d in found)
            assert near_enough >= 0.99 * top_k


def test_the_way_is_the_planners_choice(store: SynapseDocumentStore, vectors: np.ndarray) -> None:
    rare = {"field": "id", "operator": "in", "value": ["5", "700", "4000"]}
    common = {"field": "meta.n", "operator": ">=", "value": 0}
    query = vectors[1].tolist()
    first, second = (store.explain_search("word1", query, filters=rare) for _ in range(2))
    assert "10 wanted; so every document that passes compared" in first.dense.way
    assert second.dense.way == "every document that passes compared: 3 read"
    assert second.exact_cost is not None
    assert second.exact_cost < 100
    plan = store.explain_search("word1", query, filters=common)
    assert plan.dense.way.startswith("HNSW index: 50 of its ")
    assert 50 <= plan.dense.looked_at <= 54, "one more of each partition"
    assert plan.keyword.looked_at >= DOCUMENTS // 50
    assert plan.candidates >= 50
    assert any("clustered_hnsw_index" in line or "clustered_p0_embedding_idx" in line for line in plan.plan)
    without = store.explain_search("word1", query)
    assert without.exact_cost is None


@pytest.mark.parametrize("search", ["dense", "keyword", "hybrid"])
def test_every_search_under_a_filter_gives_what_passes(
    store: SynapseDocumentStore, vectors: np.ndarray, search: str
) -> None:
    calls: dict[str, Any] = {
        "dense": lambda f: store.dense_search(vectors[9].tolist(), filters=f, top_k=10),
        "keyword": lambda f: store.keyword_search("word9 filling", filters=f, top_k=10),
        "hybrid": lambda f: [
            s.document for s in store.hybrid_search("word9", vectors[9].tolist(), filters=f, top_k=10)
        ],
    }
    for low, high in ((0, 3), (100, 160), (0, 3000), (5990, 9000), (7000, 8000)):
        filters = {
            "operator": "AND",
            "conditions": [
                {"field": "meta.n", "operator": ">=", "value": low},
                {"field": "meta.n", "operator": "<", "value": high},
            ],
        }
        found = calls[search](filters)
        assert len({d.id for d in found}) == min(10, max(0, min(high, DOCUMENTS) - low))
        assert all(low <= int(d.id) < high for d in found)


def test_what_the_planner_said_is_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    costs = PlannerCosts()
    costs.remember("a", [{"Plan": {"Total Cost": 12.5}}])
    assert costs.get("a") == 12.5
    assert costs.get("b") is None
    now = 161.0
    assert costs.get("a") is None
    for number in range(KNOWN_FILTERS + 5):
        costs.remember(str(number), [{"Plan": {"Total Cost": 1.0}}])
    assert costs.get("0") is None
    assert costs.get(str(KNOWN_FILTERS + 4)) == 1.0
