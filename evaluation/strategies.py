"""Ways to search that are compared: each leg alone, both together, and both with one option more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from haystack import Document

from components.hybrid_retriever import HybridRetriever
from database.document_store import SynapseDocumentStore
from pipelines.query import DIVERSITY_CANDIDATES

Embedding = list[float]
Strategy = Callable[[str, Embedding, int], Sequence[Document]]
"""Finds the documents for a question, its embedding and a number of them; best first."""

REORDERING = ("diversity", "reranker")
"""What only orders anew what the hybrid search finds: their recall@100 is its."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """
    Values of the options.

    :param feedback: How many documents the feedback's query takes from.
    :param diversity: Of MMR, 0 to 1.
    :param rerank_model: A cross-encoder; `None` means that there is no strategy `reranker`.
    :param rerank_top_k: How many documents the reranker chooses from.
    """

    feedback: int = 3
    diversity: float = 0.3
    rerank_model: str | None = None
    rerank_top_k: int = 30


def strategy_names(options: Options) -> list[str]:
    """The strategies that there are with such options."""
    return [name for name in BUILDERS if name != "reranker" or options.rerank_model]


def build_strategy(name: str, store: SynapseDocumentStore, options: Options) -> Strategy:
    """
    One strategy on a store.

    :param name: One of `strategy_names`.
    :param store: Where the documents are.
    :param options: Their values.
    """
    return BUILDERS[name](store, options)


def _dense(store: SynapseDocumentStore, _: Options) -> Strategy:
    return lambda _, embedding, top_k: store.dense_search(embedding, top_k=top_k)


def _keyword(store: SynapseDocumentStore, _: Options) -> Strategy:
    return lambda question, _, top_k: store.keyword_search(question, top_k=top_k)


def _hybrid(store: SynapseDocumentStore, _: Options) -> Strategy:
    return _retrieved(HybridRetriever(store))


def _feedback(store: SynapseDocumentStore, options: Options) -> Strategy:
    return _retrieved(HybridRetriever(store, feedback=options.feedback))


def _retrieved(retriever: HybridRetriever) -> Strategy:
    def search(question: str, embedding: Embedding, top_k: int) -> list[Document]:
        found: list[Document] = retriever.run(query=question, query_embedding=embedding, top_k=top_k)["documents"]
        return found

    return search


def _diversity(store: SynapseDocumentStore, options: Options) -> Strategy:
    from components.diversity import MaximalMarginalRelevance

    diverse, hybrid = MaximalMarginalRelevance(store, diversity=options.diversity), _hybrid(store, options)

    def search(question: str, embedding: Embedding, top_k: int) -> list[Document]:
        documents = list(hybrid(question, embedding, max(DIVERSITY_CANDIDATES, top_k)))
        chosen: list[Document] = diverse.run(documents=documents, query_embedding=embedding, top_k=top_k)["documents"]
        return chosen

    return search


def _reranker(store: SynapseDocumentStore, options: Options) -> Strategy:
    from components.reranker import Reranker

    ranker, hybrid = Reranker(model=str(options.rerank_model)), _hybrid(store, options)
    ranker.warm_up()

    def search(question: str, embedding: Embedding, top_k: int) -> list[Document]:
        documents = list(hybrid(question, embedding, max(options.rerank_top_k, top_k)))
        ordered: list[Document] = ranker.run(query=question, documents=documents, top_k=top_k)["documents"]
        return ordered

    return search


BUILDERS: dict[str, Callable[[SynapseDocumentStore, Options], Strategy]] = {
    "dense": _dense,
    "keyword": _keyword,
    "hybrid": _hybrid,
    "feedback": _feedback,
    "diversity": _diversity,
    "reranker": _reranker,
}
