"""Documents to ask about, written through the ledger and embedded by the real model: answers depend on what texts mean."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from haystack import Document

from components.embedders import DocumentEmbedder
from components.sentences import sentence_spans
from database.connection import Database
from database.ledger import IndexedSource, Ledger, SourceState
from database.models import active_model

TEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "warranty.md": (
        "# Warranty\n\nDishwashers carry a warranty of 24 months. Keep the receipt, e.g. in a drawer.\n\n"
        "How do I claim it? Write to service@example.org within the period.",
        {"title": "Warranty", "lang": "en", "year": 2024},
    ),
    "garantie.md": (
        "Der Kaffeeautomat hat eine Garantie von 12 Monaten.",
        {"title": "Garantie", "lang": "de", "year": 2020},
    ),
    "search.md": (
        "PostgreSQL keeps vectors with the pgvector extension. The setting ef_search says how many candidates an HNSW "
        "search keeps; its default is 100. On Docker you set ef_search in the file .env of the project.",
        {"title": "Search", "lang": "en", "year": 2023, "page": 3, "heading": "Settings > Search"},
    ),
}


def index_texts(database: Database, texts: Mapping[str, tuple[str, dict[str, Any]]] = TEXTS) -> None:
    """Write each text as one source; every paragraph is a chunk."""
    embedder = DocumentEmbedder()
    embedder.warm_up()
    sources = []
    for source, (text, meta) in texts.items():
        documents = embedder.run(documents=_chunks(source, text, meta))["documents"]
        sources.append(_source(source, text, meta, documents))
    Ledger(database, model=active_model(database)).write(sources)


def _chunks(source: str, text: str, meta: dict[str, Any]) -> list[Document]:
    spans = sentence_spans(text)
    bounds = [(spans[0][0], spans[-1][1])] if len(text) < 1000 else spans
    return [
        Document(
            id=hashlib.sha256(f"{source}\0{position}".encode()).hexdigest()[:40],
            content=text[start:end],
            meta={**meta, "source": source, "span": [start, end], "position": position},
        )
        for position, (start, end) in enumerate(bounds)
    ]


def _source(source: str, text: str, meta: dict[str, Any], documents: list[Document]) -> IndexedSource:
    state = SourceState(
        source=source,
        root="",
        size=len(text.encode()),
        mtime_ns=0,
        checked_at_ns=1,
        content_hash=hashlib.sha256(text.encode()).hexdigest(),
        meta_hash="",
        fingerprint="test",
    )
    return IndexedSource(
        state=state, title=meta.get("title"), mime_type="text/markdown", text=text, documents=documents
    )
