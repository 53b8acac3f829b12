"""Sentence windows: what stands around a hit in its source is read with it, and cited by its own place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from components.answers import CONTEXT, context_of
from database.document_store import SynapseDocumentStore
from database.errors import ConfigurationError
from database.neighbours import Chunk, chunks_from_rows, excerpts_query, neighbours_query


@dataclass
class _Window:
    """A run of chunks of one source, around one hit or several that are near each other."""

    documents: list[Document]
    chunks: list[Chunk]

    @property
    def source(self) -> str:
        return self.chunks[0].source

    @property
    def span(self) -> tuple[int, int]:
        return _span(self.chunks[0].meta)[0], _span(self.chunks[-1].meta)[1]

    def shares_with(self, other: _Window) -> bool:
        return self.source == other.source and not {c.id for c in self.chunks}.isdisjoint(c.id for c in other.chunks)

    def take(self, other: _Window) -> None:
        self.documents += other.documents
        by_position = {chunk.position: chunk for chunk in [*self.chunks, *other.chunks]}
        self.chunks = [by_position[position] for position in sorted(by_position)]


@component
class ContextWindow:
    """
    Widens documents by their neighbours in the source.

    A widened document keeps its id. Its content is the source's own text over the whole window, its `span` that of the
    window, and `context_window` in its metadata tells the span, page, heading and id of each chunk in it, from which
    citations take theirs. Hits whose windows share a chunk become one document, at the place of the better one.

    Neighbours that the filter keeps out are never shown, and end the window. A document without a ledger row, such as
    one that another program wrote, or whose text is not what stands in the source, stays as it is.

    :param document_store: Where the documents are.
    :param window: How many chunks on either side at most, at least 0.
    """

    def __init__(self, document_store: SynapseDocumentStore, *, window: int = 1) -> None:
        if window < 0:
            raise ConfigurationError(f"window must be at least 0, but is {window}.")
        self.document_store = document_store
        self.window = window

    def to_dict(self) -> dict[str, Any]:
        """Serialize the component to a dictionary."""
        return default_to_dict(self, document_store=self.document_store.to_dict(), window=self.window)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ContextWindow:
        """Deserialize the component from a dictionary."""
        parameters = dict(data["init_parameters"])
        if isinstance(parameters["document_store"], dict):
            parameters["document_store"] = SynapseDocumentStore.from_dict(parameters["document_store"])
        found: ContextWindow = default_from_dict(cls, {**data, "init_parameters": parameters})
        return found

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document], filters: dict[str, Any] | None = None) -> dict[str, list[Document]]:
        """
        Widen.

        :param documents: Hits, best first.
        :param filters: The Haystack filter that they passed.
        :returns: `documents`, in the same order.
        """
        if not documents or not self.window:
            return {"documents": documents}
        store, ids = self.document_store, [document.id for document in documents]
        query = neighbours_query(store, ids, window=self.window, filters=filters)
        windows = _windows(documents, chunks_from_rows(store.reading.read(query.statement, query.params)))
        query = excerpts_query(store, _spans(windows))
        return {"documents": _widened(windows, store.reading.read(query.statement, query.params))}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, documents: list[Document], filters: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """The same, without blocking the event loop."""
        if not documents or not self.window:
            return {"documents": documents}
        store, ids = self.document_store, [document.id for document in documents]
        query = neighbours_query(store, ids, window=self.window, filters=filters)
        rows = await store.reading.read_async(query.statement, query.params)
        windows = _windows(documents, chunks_from_rows(rows))
        query = excerpts_query(store, _spans(windows))
        return {"documents": _widened(windows, await store.reading.read_async(query.statement, query.params))}


def narrowed(document: Document) -> Document:
    """A widened document as it was found."""
    context = context_of(document)
    if context is None:
        return document
    start, end = context["hit"]
    offset = document.meta["span"][0]
    meta = {**{key: value for key, value in document.meta.items() if key != CONTEXT}, "span": [start, end]}
    return replace(document, content=(document.content or "")[start - offset : end - offset], meta=meta)


def _windows(documents: Sequence[Document], chunks: Sequence[Chunk]) -> list[_Window]:
    """One window a hit, best first, those that share a chunk joined; without chunks where there is nothing to add."""
    around: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        around.setdefault(chunk.hit, []).append(chunk)
    windows: list[_Window] = []
    for document in documents:
        window = _Window([document], _run(document, around.get(document.id, [])))
        shared = [other for other in windows if window.chunks and other.chunks and other.shares_with(window)]
        if not shared:
            windows.append(window)
            continue
        for other in [*shared[1:], window]:
            shared[0].take(other)
        windows = [other for other in windows if not any(other is gone for gone in shared[1:])]
    return windows


def _run(document: Document, chunks: list[Chunk]) -> list[Chunk]:
    """The chunks that follow on each other without a gap, around the document's own; none if it has none."""
    place = next((n for n, chunk in enumerate(chunks) if chunk.id == document.id), None)
    if place is None or not _has_span(chunks[place]) or chunks[place].content != document.content:
        return []
    first = last = place
    while first > 0 and _follows(chunks[first - 1], chunks[first]):
        first -= 1
    while last + 1 < len(chunks) and _follows(chunks[last], chunks[last + 1]):
        last += 1
    return chunks[first : last + 1]


def _follows(one: Chunk, other: Chunk) -> bool:
    return (
        other.position == one.position + 1
        and _has_span(one)
        and _has_span(other)
        and _span(one.meta)[1] <= _span(other.meta)[0]
    )


def _has_span(chunk: Chunk) -> bool:
    span = chunk.meta.get("span")
    if not (isinstance(span, list) and len(span) == 2 and all(type(number) is int for number in span)):
        return False
    return bool(0 <= span[0] <= span[1] and span[1] - span[0] == len(chunk.content or ""))


def _span(meta: dict[str, Any]) -> tuple[int, int]:
    start, end = meta["span"]
    return start, end


def _spans(windows: Sequence[_Window]) -> list[tuple[str, int, int]]:
    return [(window.source, *window.span) for window in windows if len(window.chunks) > 1]


def _widened(windows: Sequence[_Window], rows: Sequence[dict[str, Any]]) -> list[Document]:
    texts = iter(row["excerpt"] for row in rows)
    widened: list[Document] = []
    for window in windows:
        widened += _joined(window, next(texts)) if len(window.chunks) > 1 else window.documents
    return widened


def _joined(window: _Window, text: str | None) -> list[Document]:
    start, end = window.span
    parts = [
        {"document_id": c.id, "span": c.meta["span"], "page": c.meta.get("page"), "heading": c.meta.get("heading")}
        for c in window.chunks
    ]
    stands = text is not None and all(
        text[chunk.meta["span"][0] - start : chunk.meta["span"][1] - start] == chunk.content for chunk in window.chunks
    )
    if not stands:
        return window.documents  # the source was written anew since the search, or the chunks were changed by hand
    best = window.documents[0]
    hit = next(chunk for chunk in window.chunks if chunk.id == best.id)
    context = {"hit": hit.meta["span"], "parts": parts}
    return [replace(best, content=text, meta={**best.meta, "span": [start, end], CONTEXT: context})]
