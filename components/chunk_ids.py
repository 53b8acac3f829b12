"""The ids of chunks."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haystack import Document


def chunk_id(source: str, position: int, document: Document) -> str:
    """
    The id of a chunk: the same source, position and embedded text give the same id, and so the same embedding.

    `Ledger.move` computes the same in SQL.

    :param source: Name of its source.
    :param position: Its place among the source's chunks, from 0.
    :param document: The chunk.
    """
    meta = document.meta
    parts = (source, str(position), meta.get("title") or "", meta.get("heading") or "", document.content or "")
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:40]
