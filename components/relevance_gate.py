"""
Whether the documents have anything on a question at all.

Measured with all-MiniLM-L6-v2 on SciFact's 5,183 abstracts: for 300 training claims the best passage's cosine similarity
is at least 0.43 in 95 of 100 cases (median 0.63); for 26 everyday questions that no abstract answers it is at most 0.37
(median 0.23). Where embeddings are unsure, between 0.30 and 0.45, the question's words decide: with at least 60 % of them
in the passage, 94 of 100 claims pass and none of the 26 questions. `benchmarks/relevance_thresholds.py` prints the table.
"""

from __future__ import annotations

from typing import Any

from haystack import Document, component

from components.answers import Answer, not_in_documents
from components.sentences import content_words
from database.document_store import ScoredDocument


@component
class RelevanceGate:
    """
    Lets through the passages that may answer the question; where there are none, that is the answer.

    :param min_similarity: Cosine similarity from which a passage passes.
    :param unsure_similarity: Cosine similarity from which it passes if it has the question's words.
    :param min_coverage: The share of the question's words that it then has, in 0 to 1.
    :param extractive: Whether the answers of this pipeline are extractive, which the answer says.
    """

    def __init__(
        self,
        *,
        min_similarity: float = 0.45,
        unsure_similarity: float = 0.30,
        min_coverage: float = 0.6,
        extractive: bool = True,
    ) -> None:
        self.min_similarity = min_similarity
        self.unsure_similarity = unsure_similarity
        self.min_coverage = min_coverage
        self.extractive = extractive

    @component.output_types(documents=list[Document], answer=Answer)
    def run(
        self, question: str, passages: list[ScoredDocument], ranked: list[Document] | None = None
    ) -> dict[str, Any]:
        """
        Judge the passages.

        :param question: The question.
        :param passages: What was retrieved, best first.
        :param ranked: Those of them that a ranker chose, in its order; `None` means all, as they are.
        :returns: Either `documents`: those that pass, best first; or `answer`: that the documents have none.
        """
        words = set(content_words(question))
        passing = {passage.document.id: passage.document for passage in passages if self._passes(words, passage)}
        documents = list(passing.values()) if ranked is None else [one for one in ranked if one.id in passing]
        return {"documents": documents} if documents else {"answer": not_in_documents(extractive=self.extractive)}

    def _passes(self, words: set[str], passage: ScoredDocument) -> bool:
        similarity = passage.similarity if passage.similarity is not None else 0.0
        if similarity >= self.min_similarity:
            return True
        return similarity >= self.unsure_similarity and coverage(words, passage.document) >= self.min_coverage


def coverage(words: set[str], document: Document) -> float:
    """The share of a question's words that stand in a document, its title or its heading."""
    if not words:
        return 0.0
    text = " ".join(str(part) for part in (document.meta.get("title"), document.meta.get("heading")) if part)
    return len(words & set(content_words(f"{text} {document.content or ''}"))) / len(words)
