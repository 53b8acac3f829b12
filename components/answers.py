"""What an answer is made of: plain data, the same with and without a language model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from haystack import Document

NOT_IN_DOCUMENTS = "The documents do not answer this question."
UNSUPPORTED_MARK = "[unsupported]"

CONTEXT = "context_window"
"""Where the metadata of a document that was widened by its neighbours tell which chunks it consists of."""


@dataclass(frozen=True, kw_only=True)
class Citation:
    """
    Where a statement stands.

    :param number: The mark in the answer, `[1]`, and the place of the document among the answer's documents, from 1.
    :param source: The document's source: a path, or the name that it was indexed under.
    :param page: From 1; `None` where there are no pages.
    :param heading: The headings above the quote, outermost first, joined by " > "; `None` where there are none.
    :param quote: Verbatim text of the source.
    :param span: `[start, end)` of the quote in the source's converted text, in code points.
    :param document_id: The document's (chunk's) id.
    """

    number: int
    source: str
    page: int | None
    heading: str | None
    quote: str
    span: tuple[int, int]
    document_id: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "span": list(self.span)}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """
    An answer with what it rests on.

    :param text: The answer, with marks `[1]` that refer to `documents`.
    :param supported: Whether the documents answer the question; false means that they do not, or that nothing of what a
        language model wrote cites them.
    :param extractive: Whether the text consists of sentences of the documents, no language model involved.
    :param citations: Ordered by their marks.
    :param documents: What the answer was made from, best first; without a good passage, none.
    :param unsupported: The sentences of a language model's answer that cite nothing that was retrieved.
    :param timings_ms: Milliseconds by stage, and in `total`; without loading models.
    """

    text: str
    supported: bool
    extractive: bool
    citations: tuple[Citation, ...] = ()
    documents: tuple[Document, ...] = ()
    unsupported: tuple[str, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As `ask --json` prints it."""
        return {
            "answer": self.text,
            "supported": self.supported,
            "extractive": self.extractive,
            "citations": [citation.to_dict() for citation in self.citations],
            "documents": [document_to_dict(document) for document in self.documents],
            "unsupported": list(self.unsupported),
            "timings_ms": self.timings_ms,
        }


def not_in_documents(*, extractive: bool, documents: tuple[Document, ...] = ()) -> Answer:
    """The answer where the documents have none; never a guess."""
    return Answer(text=NOT_IN_DOCUMENTS, supported=False, extractive=extractive, documents=documents)


def document_to_dict(document: Document) -> dict[str, Any]:
    """A document as `ask --json` and `search --json` print it."""
    return {"id": document.id, "score": document.score, "content": document.content, "meta": document.meta}


def cite(document: Document, number: int, span: tuple[int, int]) -> Citation:
    """
    Cite a part of a document.

    :param number: The document's mark.
    :param span: `[start, end)` of the quote in the document's content.
    """
    content, meta = document.content or "", document.meta
    begin = (meta.get("span") or [0])[0]  # a document that was not indexed by Synapse is its own source
    part = _part(document, begin + span[0])
    return Citation(
        number=number,
        source=str(meta.get("source") or document.id),
        page=part.get("page"),
        heading=part.get("heading"),
        quote=content[slice(*span)],
        span=(begin + span[0], begin + span[1]),
        document_id=part.get("document_id", document.id),
    )


def _part(document: Document, start: int) -> dict[str, Any]:
    """What tells the page and the heading of a place in a source: the document, or the chunk in it that stands there."""
    parts: list[dict[str, Any]] = (context_of(document) or {}).get("parts", [])
    return next((part for part in parts if start < part["span"][1]), document.meta)


def context_of(document: Document) -> dict[str, Any] | None:
    """What a context window noted: `hit`, the span that was found, and `parts`; `None` for a document as it was found."""
    context = document.meta.get(CONTEXT)
    return context if isinstance(context, dict) and context.keys() == {"hit", "parts"} else None
