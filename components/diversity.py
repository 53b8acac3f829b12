"""Diversity: what repeats a better document is put back, so that an answer sees more of what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from haystack import Document, component, default_from_dict, default_to_dict

from database.document_store import SynapseDocumentStore
from database.errors import ConfigurationError


@component
class MaximalMarginalRelevance:
    """
    Chooses documents one by one: relevant, and unlike those that were chosen already.

    Carbonell and Goldstein, SIGIR 1998. The best document comes first; each next one has the highest
    `(1 - diversity) * relevance - diversity * similarity`, the latter being its cosine similarity to the most similar of
    those before it. Nothing is embedded: the vectors are the stored ones.

    :param document_store: Where embeddings are read that documents come without; `None` means that they come with them.
    :param diversity: 0 keeps the order, 1 ignores relevance after the first document; 1 - λ in the paper.
    :param top_k: How many documents, at least 1.
    :raises ConfigurationError: If an argument is out of its range.
    """

    def __init__(
        self, document_store: SynapseDocumentStore | None = None, *, diversity: float = 0.3, top_k: int = 10
    ) -> None:
        if not 0 <= diversity <= 1:
            raise ConfigurationError(f"diversity must be between 0 and 1, but is {diversity}.")
        if top_k < 1:
            raise ConfigurationError(f"top_k must be at least 1, but is {top_k}.")
        self.document_store = document_store
        self.diversity = diversity
        self.top_k = top_k

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component to a dictionary."""
        store = self.document_store.to_dict() if self.document_store else None
        return default_to_dict(self, document_store=store, diversity=self.diversity, top_k=self.top_k)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MaximalMarginalRelevance:
        """Deserialize the component from a dictionary."""
        parameters = dict(data["init_parameters"])
        if isinstance(parameters.get("document_store"), dict):
            parameters["document_store"] = SynapseDocumentStore.from_dict(parameters["document_store"])
        found: MaximalMarginalRelevance = default_from_dict(cls, {**data, "init_parameters": parameters})
        return found

    @component.output_types(documents=list[Document])
    def run(
        self, documents: list[Document], query_embedding: list[float], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """
        Choose.

        :param documents: Candidates, best first. Relevance is their score divided by the best one; where a score is missing
            or negative, or none is above 0, it is the cosine similarity to the question.
        :param query_embedding: The question's embedding.
        :param top_k: How many documents; `None` means the component's.
        :returns: `documents`, in the order of choice; their scores are left as they are.
        """
        known = self.document_store.embeddings(_missing(documents)) if self._asks(documents) else {}  # type: ignore[union-attr]
        return {"documents": self._chosen(documents, query_embedding, known, top_k or self.top_k)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, documents: list[Document], query_embedding: list[float], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The same, without blocking the event loop."""
        known: Mapping[str, Sequence[float]] = {}
        if self._asks(documents):
            known = await self.document_store.embeddings_async(_missing(documents))  # type: ignore[union-attr]
        return {"documents": self._chosen(documents, query_embedding, known, top_k or self.top_k)}

    def _asks(self, documents: list[Document]) -> bool:
        return self.document_store is not None and self.diversity > 0 and bool(_missing(documents))

    def _chosen(
        self,
        documents: list[Document],
        query_embedding: list[float],
        known: Mapping[str, Sequence[float]],
        top_k: int,
    ) -> list[Document]:
        if self.diversity == 0 or len(documents) < 2:
            return documents[:top_k]
        units, has_vector = _units(documents, known, len(query_embedding))
        similarities = _similarities(units, has_vector)
        relevance = _relevance(documents, units, query_embedding)
        chosen = [int(np.argmax(relevance))]
        nearest = np.full(len(documents), -np.inf)
        while len(chosen) < min(top_k, len(documents)):
            nearest = np.maximum(nearest, similarities[chosen[-1]])
            marginal = (1 - self.diversity) * relevance - self.diversity * nearest
            marginal[chosen] = -np.inf
            chosen.append(int(np.argmax(marginal)))  # of equals the first, which was ranked better
        return [documents[index] for index in chosen]


def _missing(documents: list[Document]) -> list[str]:
    return [document.id for document in documents if document.embedding is None]


def _units(
    documents: list[Document], known: Mapping[str, Sequence[float]], dimension: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Embeddings of length 1, one a row, and which of them there are: one that is missing or zero stays zero."""
    units = np.zeros((len(documents), dimension))
    for row, document in enumerate(documents):
        embedding = document.embedding if document.embedding is not None else known.get(document.id)
        if embedding is not None and len(embedding) == dimension:
            units[row] = embedding
    lengths = np.linalg.norm(units, axis=1, keepdims=True)
    good = np.isfinite(lengths) & (lengths > 0)
    return np.where(good, units / np.where(good, lengths, 1), 0.0), good[:, 0]


def _similarities(units: np.ndarray[Any, Any], has_vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Cosine similarities of all pairs. One that is not known is the mean: neither for nor against the document."""
    similarities = units @ units.T
    pairs = np.outer(has_vector, has_vector)
    np.fill_diagonal(pairs, False)
    mean = float(similarities[pairs].mean()) if pairs.any() else 0.0
    return np.where(np.outer(has_vector, has_vector), similarities, mean)


def _relevance(
    documents: list[Document], units: np.ndarray[Any, Any], query_embedding: list[float]
) -> np.ndarray[Any, Any]:
    scores = np.array([np.nan if document.score is None else document.score for document in documents], dtype=float)
    if np.isfinite(scores).all() and scores.min() >= 0 and scores.max() > 0:
        shares: np.ndarray[Any, Any] = scores / scores.max()
        return shares
    question = np.asarray(query_embedding, dtype=float)
    length = float(np.linalg.norm(question))
    if not (length > 0 and np.isfinite(length)):
        return np.zeros(len(documents))
    cosines: np.ndarray[Any, Any] = units @ question / length
    return cosines
