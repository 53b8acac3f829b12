"""Embedders, converters and checks that the tests of indexing share. Offline, and the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from haystack import Document

from database.connection import Database
from pipelines.conversion_worker import ConversionError, SourceGoneError
from pipelines.preparation import PreparedSource

DIMENSION = 384


def vector_of(text: str) -> list[float]:
    """A unit vector that depends on the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    vector = np.random.default_rng(seed).standard_normal(DIMENSION)
    return (vector / np.linalg.norm(vector)).tolist()  # type: ignore[no-any-return]


class HashEmbedder:
    """Embeds by hash, and remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    @property
    def embedded(self) -> list[str]:
        return [content for batch in self.batches for content in batch]

    def warm_up(self) -> None:
        pass

    def run(self, documents: list[Document]) -> dict[str, Any]:
        self.batches.append([document.content or "" for document in documents])
        return {"documents": [replace(d, embedding=vector_of(d.content or "")) for d in documents]}


class LineConverter:
    """Makes a chunk of every line. Files that hold `damaged` cannot be converted."""

    def __init__(self) -> None:
        self.converted: list[str] = []

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def convert(self, path: str, *, meta: Mapping[str, Any]) -> PreparedSource:
        self.converted.append(Path(path).name)
        try:
            data = Path(path).read_bytes()
        except FileNotFoundError as exc:
            raise SourceGoneError("gone") from exc
        text = data.decode()
        if "damaged" in text:
            raise ConversionError("it is damaged")
        title = str(meta.get("title", Path(path).stem))
        documents, start = [], 0
        for position, line in enumerate(text.splitlines(keepends=True)):
            span = [start, start + len(line)]
            own = {"source": path, "title": title, "position": position, "span": span, "file_type": "txt"}
            documents.append(Document(content=line, meta={**meta, **own}))
            start += len(line)
        return PreparedSource(
            text=text,
            title=title,
            mime_type="text/plain",
            file_type="txt",
            content_hash=hashlib.sha256(data).hexdigest(),
            documents=documents,
        )


def assert_books_agree(database: Database, table: str = "documents_all_minilm_l6_v2") -> None:
    """Nothing is lost, doubled or orphaned: every chunk has its number, and every source as many as it says."""
    assert not database.read(
        f"SELECT c.document_id, d.id FROM source_chunks c FULL JOIN {table} d ON d.id = c.document_id "  # noqa: S608
        "WHERE c.document_id IS NULL OR d.id IS NULL OR d.meta ->> 'source' <> c.source OR d.embedding IS NULL"
    )
    assert not database.read(
        "SELECT s.source FROM sources s LEFT JOIN source_chunks c USING (model, source) "
        "GROUP BY s.model, s.source HAVING s.chunks <> count(c.document_id) "
        "OR (count(c.document_id) > 0 AND max(c.position) <> count(c.document_id) - 1)"
    )
    assert not database.read(
        "SELECT s.source FROM sources s LEFT JOIN source_texts t USING (model, source) "
        "WHERE (s.reason IS NULL) <> (t.source IS NOT NULL)"
    )
