"""Diversity, cross-encoder and feedback on their own, with vectors and weights that are known."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystack import Document
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from components.diversity import MaximalMarginalRelevance
from components.hybrid_retriever import HybridRetriever
from components.relevance_gate import RelevanceGate
from components.reranker import Reranker
from database.document_store import ScoredDocument
from database.errors import ConfigurationError
from tests.support.cross_encoder import WORDS, save_cross_encoder


def document(name: str, score: float | None, *vector: float) -> Document:
    return Document(id=name, content=name, score=score, embedding=list(vector) or None)


def ids(found: dict[str, Any]) -> list[str]:
    return [one.id for one in found["documents"]]


def reference(documents: list[Document], diversity: float, top_k: int) -> list[str]:
    """The definition of the paper, one document at a time, slowly."""
    best = max(one.score or 0 for one in documents)

    def cosine(one: Document, other: Document) -> float:
        a, b = np.array(one.embedding), np.array(other.embedding)
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    rest, chosen = list(documents), [documents[0]]
    rest.remove(chosen[0])
    while rest and len(chosen) < top_k:
        marginal = {
            one.id: (1 - diversity) * (one.score or 0) / best - diversity * max(cosine(one, other) for other in chosen)
            for one in rest
        }
        following = max(rest, key=lambda one: marginal[one.id])
        chosen.append(following)
        rest.remove(following)
    return [one.id for one in chosen]


def test_a_copy_goes_behind_what_is_new() -> None:
    documents = [document("best", 1.0, 1, 0), document("copy", 0.95, 1, 0.01), document("other", 0.7, 0.2, 1)]
    assert ids(MaximalMarginalRelevance(diversity=0.5).run(documents, [1.0, 0.0])) == ["best", "other", "copy"]
    assert ids(MaximalMarginalRelevance(diversity=0.0).run(documents, [1.0, 0.0])) == ["best", "copy", "other"]
    assert ids(MaximalMarginalRelevance(diversity=0.5).run(documents, [1.0, 0.0], top_k=2)) == ["best", "other"]


@pytest.mark.parametrize("diversity", [0.1, 0.5, 0.9, 1.0])
def test_it_is_what_the_paper_defines(diversity: float) -> None:
    random = np.random.default_rng(7)
    scores = sorted(random.random(40), reverse=True)
    documents = [document(f"d{n}", float(score), *random.normal(size=8)) for n, score in enumerate(scores)]
    found = MaximalMarginalRelevance(diversity=diversity, top_k=25).run(documents, [1.0] * 8)
    assert ids(found) == reference(documents, diversity, 25)


@pytest.mark.parametrize(
    "documents",
    [
        [],
        [document("alone", 0.5, 1, 0)],
        [document("a", 1.0), document("b", 0.5)],
        [document("a", 1.0, 0, 0), document("b", 0.9, 0, 0), document("c", 0.8, 1, 0)],
        [document("a", 1.0, 1, 0), document("b", 0.9, 1, 0, 0), document("c", 0.8)],
        [document("a", float("nan"), 1, 0), document("b", 0.9, float("nan"), 0)],
        [document("a", 0.0, 1, 0), document("b", 0.0, 1, 1)],
        [document("a", -3.0, 1, 0), document("b", -4.0, 1, 1)],
    ],
)
def test_every_document_comes_once_whatever_is_missing(documents: list[Document]) -> None:
    for question in ([1.0, 0.0], [0.0, 0.0]):
        found = ids(MaximalMarginalRelevance(diversity=0.5).run(documents, question))
        assert sorted(found) == sorted(one.id for one in documents)


def test_without_scores_relevance_is_similarity() -> None:
    documents = [document("far", None, 0, 1), document("near", None, 1, 0), document("copy", None, 1, 0)]
    found = ids(MaximalMarginalRelevance(diversity=0.6).run(documents, [1.0, 0.1]))
    assert found == ["near", "far", "copy"]


def test_no_embedding_neither_helps_nor_harms() -> None:
    documents = [
        document("best", 1.0, 1, 0),
        document("copy", 0.9, 1, 0),
        document("unknown", 0.89),
        document("new", 0.88, 0, 1),
    ]
    assert ids(MaximalMarginalRelevance(diversity=0.5).run(documents, [1.0, 0.0])) == ["best", "new", "unknown", "copy"]


@pytest.mark.parametrize(
    "options", [{"diversity": 1.1}, {"diversity": -0.1}, {"diversity": float("nan")}, {"top_k": 0}]
)
def test_what_diversity_refuses(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        MaximalMarginalRelevance(**options)


# A cross-encoder whose score is known: it is high where the document has the question's word.


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cross_encoder(tmp_path_factory.mktemp("cross-encoder"))


def candidates() -> list[Document]:
    return [
        Document(id="rain", content="rain rain cloud", score=0.9),
        Document(id="title", content="dome", meta={"title": "telescope"}, score=0.5),
        Document(id="telescope", content="telescope telescope telescope", score=0.4),
        Document(id="empty", content=None, score=0.1),
    ]


def test_the_cross_encoder_decides(cross_encoder: Path) -> None:
    ranker = Reranker(model=str(cross_encoder))
    ranker.warm_up()
    found = ranker.run(query="where", documents=candidates())["documents"]
    assert [one.id for one in found][:2] == ["telescope", "title"]
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[2]
    assert all(0 <= score <= 1 for score in scores)
    assert ids(ranker.run(query="where", documents=candidates(), top_k=1)) == ["telescope"]
    assert ids(ranker.run(query="where", documents=[])) == []
    assert ids(ranker.run(query="", documents=candidates()[:1])) == ["rain"]


def test_two_rankers_share_a_model_and_threads_a_ranker(cross_encoder: Path) -> None:
    ranker, other = Reranker(model=str(cross_encoder)), Reranker(model=str(cross_encoder), top_k=2)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: ids(ranker.run(query="where", documents=candidates())), range(32)))
    assert len(set(map(tuple, found))) == 1
    other.warm_up()
    assert other._cross_encoder is ranker._cross_encoder
    assert Reranker.from_dict(other.to_dict()).to_dict() == other.to_dict()


def test_a_cross_encoder_that_is_none(tmp_path: Path, cross_encoder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"RERANK_MODEL must be .*'org/nowhere' cannot be loaded"):
        Reranker(model="org/nowhere").warm_up()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        Reranker(model=str(tmp_path)).run(query="a", documents=candidates())
    classes = tmp_path / "classes"
    tokenizer = BertTokenizerFast.from_pretrained(cross_encoder)
    tokenizer.save_pretrained(classes)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        num_labels=3,
    )
    BertForSequenceClassification(config).save_pretrained(classes)
    with pytest.raises(ConfigurationError, match=r"must give one score, but .* gives 3"):
        Reranker(model=str(classes)).warm_up()


# Feedback, with a store that notes what it is asked.


class Store:
    """Two searches: the second one finds something else, if it is asked with another embedding."""

    vector_function = "cosine_similarity"

    def __init__(self, embeddings: dict[str, list[float]]) -> None:
        self.known = embeddings
        self.asked: list[list[float]] = []

    def hybrid_search(self, query: str, embedding: list[float], **options: Any) -> list[ScoredDocument]:
        self.asked.append(embedding)
        names = ["a", "b", "c"] if len(self.asked) == 1 else ["c", "d"]
        return [ScoredDocument(document=document(name, 1.0), similarity=0.99, keyword_score=0.0) for name in names]

    def embeddings(self, wanted: list[str]) -> dict[str, list[float]]:
        return {name: self.known[name] for name in wanted if name in self.known}

    async def hybrid_search_async(self, query: str, embedding: list[float], **options: Any) -> list[ScoredDocument]:
        return self.hybrid_search(query, embedding, **options)

    async def embeddings_async(self, wanted: list[str]) -> dict[str, list[float]]:
        return self.embeddings(wanted)


async def test_feedback_moves_the_question_and_judges_by_the_old_one() -> None:
    known = {"a": [0.0, 2.0], "b": [0.0, 1.0], "c": [0.0, 3.0], "d": [1.0, 0.0]}
    for is_async in (False, True):
        store: Any = Store(known)
        retriever = HybridRetriever(store, feedback=2, feedback_weight=1.0)
        if is_async:
            found = await retriever.run_async("q", [3.0, 0.0])
        else:
            found = retriever.run("q", [3.0, 0.0])
        assert ids(found) == ["c", "d"]
        assert store.asked[0] == [3.0, 0.0]
        assert store.asked[1] == pytest.approx([0.5**0.5, 0.5**0.5])
        assert [passage.similarity for passage in found["passages"]] == pytest.approx([0.0, 1.0])
        # "c" fits the expanded question; the gate sees that it has nothing to do with the one that was asked.
        assert ids(RelevanceGate().run("q", found["passages"])) == ["d"]


def test_feedback_without_embeddings_is_one_search() -> None:
    for known in ({}, {"a": [0.0, 0.0]}):
        store: Any = Store(known)
        found = HybridRetriever(store, feedback=3).run("q", [1.0, 0.0])
        assert (ids(found), len(store.asked)) == (["a", "b", "c"], 1)


def test_no_feedback_reads_no_embeddings() -> None:
    store: Any = Store({"a": [0.0, 1.0]})
    assert ids(HybridRetriever(store).run("q", [1.0, 0.0])) == ["a", "b", "c"]
    assert len(store.asked) == 1


def test_the_gate_keeps_a_rankers_order_and_its_own_judgement() -> None:
    passages = [
        ScoredDocument(document=document("near", 1.0), similarity=0.9, keyword_score=0.0),
        ScoredDocument(document=document("far", 0.9), similarity=0.1, keyword_score=0.0),
        ScoredDocument(document=document("also", 0.8), similarity=0.8, keyword_score=0.0),
    ]
    ranked = [document("also", 0.99), document("far", 0.98), document("near", 0.5)]
    found = RelevanceGate().run("question", passages, ranked)["documents"]
    assert [(one.id, one.score) for one in found] == [("also", 0.99), ("near", 0.5)]
    assert "answer" in RelevanceGate().run("question", passages, [document("far", 0.9)])
