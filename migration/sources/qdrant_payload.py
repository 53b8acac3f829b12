"""
What of a point's payload is the text, what the metadata, and what the id.

Three layouts are recognised by each point's own payload: qdrant-haystack's, whose point ids prove it, LangChain's and
LlamaIndex's. Of any other payload one key may be the text, and the rest is the metadata. No key is lost.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HAYSTACK, LANGCHAIN, LLAMAINDEX = "written_by_qdrant_haystack", "written_by_langchain", "written_by_llamaindex"

TEXT_KEYS = ("content", "text", "page_content", "document", "body")
"""Keys that may be taken for the text without being named."""

USUAL = 0.95
"""Share of the looked at payloads that must have such a key as text."""

_HAYSTACK_IDS = uuid.UUID("3896d314-1e95-4a3a-b45a-945f9f0b541d")  # qdrant_haystack's converters.UUID_NAMESPACE
_HAYSTACK_UNUSED = ("blob", "dataframe", "score", "embedding", "sparse_embedding")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """
    A payload taken apart.

    :param id: The record's id: of qdrant-haystack's points the document's, otherwise the point's.
    :param content: The text; `None` if there is none.
    :param meta: Everything else.
    :param layout: `HAYSTACK`, `LANGCHAIN`, `LLAMAINDEX`, or empty.
    """

    id: str
    content: str | None
    meta: dict[str, Any]
    layout: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """
    How a collection's payloads are taken apart.

    :param content_field: Key of the text in payloads of no known layout; `None` for no text.
    :param recognise: Whether known layouts are looked for.
    """

    content_field: str | None = None
    recognise: bool = True

    def unpack(self, point: str, payload: Mapping[str, Any]) -> Unpacked:
        """Take a point's payload apart."""
        if self.recognise:
            for known in _KNOWN:
                if unpacked := known(point, payload):
                    return unpacked
        meta = dict(payload)
        if self.content_field is not None and isinstance(meta.get(self.content_field), str):
            return Unpacked(point, meta.pop(self.content_field), meta)
        return Unpacked(point, None, meta)


def layout_of(sample: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Layout, dict[str, Any]]:
    """
    The layout of a collection, as its first points show it.

    A key is taken for the text if it is the only one of `TEXT_KEYS` that occurs, and text in nearly all payloads.

    :param sample: Points' ids and payloads.
    :returns: The layout, and what is worth a line in the receipt.
    """
    found = [Layout().unpack(point, payload) for point, payload in sample]
    facts: dict[str, Any] = {layout: True for layout in sorted({each.layout for each in found}) if layout}
    others = [each.meta for each in found if not each.layout]
    present = [key for key in TEXT_KEYS if any(key in meta for meta in others)]
    if len(present) == 1 and sum(isinstance(meta.get(present[0]), str) for meta in others) >= USUAL * len(others):
        return Layout(present[0]), {**facts, "content_field": present[0]}
    return Layout(), facts


def _haystack(point: str, payload: Mapping[str, Any]) -> Unpacked | None:
    document, content, meta = payload.get("id"), payload.get("content"), payload.get("meta")
    if not isinstance(document, str) or not isinstance(content, str | None) or not isinstance(meta, dict | None):
        return None
    if "content" not in payload or str(_uuid5(document)) != point:
        return None
    rest = {
        key: value
        for key, value in payload.items()
        if key not in ("id", "content", "meta") and not (value is None and key in _HAYSTACK_UNUSED)
    }
    return Unpacked(document, content, _beside(meta or {}, rest), HAYSTACK)


def _uuid5(document: str) -> uuid.UUID | None:
    try:
        return uuid.uuid5(_HAYSTACK_IDS, document)
    except UnicodeEncodeError:  # a lone surrogate, which qdrant-haystack cannot have turned into an id either
        return None


def _langchain(point: str, payload: Mapping[str, Any]) -> Unpacked | None:
    content, meta = payload.get("page_content"), payload.get("metadata", "")
    if not isinstance(content, str) or not isinstance(meta, dict | None):
        return None
    rest = {key: value for key, value in payload.items() if key not in ("page_content", "metadata")}
    return Unpacked(point, content, _beside(meta or {}, rest), LANGCHAIN)


def _llamaindex(point: str, payload: Mapping[str, Any]) -> Unpacked | None:
    # Its text is inside `_node_content`; whoever wants it unpacks it from the metadata.
    if isinstance(payload.get("_node_content"), str) and "_node_type" in payload:
        return Unpacked(point, None, dict(payload), LLAMAINDEX)
    return None


def _beside(meta: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata with the payload's other keys, under another name where theirs is taken."""
    merged = dict(meta)
    for key, value in rest.items():
        while key in merged:
            key = f"payload_{key}"
        merged[key] = value
    return merged


_KNOWN: tuple[Callable[[str, Mapping[str, Any]], Unpacked | None], ...] = (_haystack, _langchain, _llamaindex)
