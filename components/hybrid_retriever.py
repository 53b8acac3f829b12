"""Retrieval by meaning and by words together, in one statement."""

from __future__ import annotations

from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from components.metadata_filter import combine, parse_filter
from database.document_store import ScoredDocument, SynapseDocumentStore


@component
class HybridRetriever:
    """
    Finds the documents that are nearest to a question and that have its words.

    :param document_store: Where they are.
    :param filters: A Haystack filter for every run; a run's own filters narrow it.
    :param top_k: How many documents, at least 1.
    """

    def __init__(
        self, document_store: SynapseDocumentStore, *, filters: dict[str, Any] | None = None, top_k: int = 10
    ) -> None:
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component to a dictionary."""
        return default_to_dict(
            self, document_store=self.document_store.to_dict(), filters=self.filters, top_k=self.top_k
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> HybridRetriever:
        """Deserialize the component from a dictionary."""
        parameters = dict(data["init_parameters"])
        if isinstance(parameters["document_store"], dict):
            parameters["document_store"] = SynapseDocumentStore.from_dict(parameters["document_store"])
        found: HybridRetriever = default_from_dict(cls, {**data, "init_parameters": parameters})
        return found

    @component.output_types(documents=list[Document], passages=list[ScoredDocument])
    def run(
        self,
        query: str,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, Any]:
        """
        Retrieve.

        :param query: The question.
        :param query_embedding: Its embedding.
        :param filters: A Haystack filter.
        :param top_k: How many documents; `None` means the component's.
        :returns: `documents`, best first, and `passages`: the same with the scores that each leg gave them.
        """
        passages = self.document_store.hybrid_search(query, query_embedding, **self._options(filters, top_k))
        return {"documents": [passage.document for passage in passages], "passages": passages}

    @component.output_types(documents=list[Document], passages=list[ScoredDocument])
    async def run_async(
        self,
        query: str,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, Any]:
        """The same, without blocking the event loop."""
        passages = await self.document_store.hybrid_search_async(
            query, query_embedding, **self._options(filters, top_k)
        )
        return {"documents": [passage.document for passage in passages], "passages": passages}

    def _options(self, filters: dict[str, Any] | None, top_k: int | None) -> dict[str, Any]:
        return {"filters": combine(parse_filter(self.filters), filters or None), "top_k": top_k or self.top_k}
