"""LlamaIndex's records as what they were made from: text and metadata of the node inside `_node_content`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from migration.source import Part, Position, Record, Source

NODE = "_node_content"
UNREADABLE_NODE = "node_not_unpacked"


class UnpackedNodes:
    """
    A source whose LlamaIndex nodes are unpacked on the way; whatever is none passes as it is.

    The node's text becomes the content where there is none, its metadata joins the record's, and the rest of the node, such as
    its relationships, stays under `_node`. A node that cannot be read stays as it is, and is counted.

    :param source: The source itself.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.kind, self.location, self.version = source.kind, source.location, source.version

    def parts(self) -> list[Part]:
        """The source's parts; their facts say that nodes are unpacked."""
        return [replace(part, facts={**part.facts, "llamaindex_nodes": "unpacked"}) for part in self._source.parts()]

    def records(self, part: Part, *, after: Position | None = None) -> Iterator[Record]:
        """The source's records, unpacked."""
        for record in self._source.records(part, after=after):
            yield unpacked(record)

    def fingerprint(self) -> str:
        """Made from the source's own: unpacked, it is another source."""
        return hashlib.sha256(f"{self._source.fingerprint()} with LlamaIndex's nodes unpacked".encode()).hexdigest()

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def unpacked(record: Record) -> Record:
    """A record with its node's text and metadata; the same record where it has no node."""
    text = record.meta.get(NODE)
    if not isinstance(text, str):
        return record
    node = _node(text)
    if node is None:
        return replace(record, notes=(*record.notes, UNREADABLE_NODE))
    content = node.pop("text", None)
    inner = node.pop("metadata", None) or {}
    kept = {key: value for key, value in record.meta.items() if key != NODE}
    differing = {key: value for key, value in inner.items() if key in kept and kept[key] != value}
    if differing:  # what the database filters by wins, and what the node says is not lost
        node["metadata"] = differing
    if content is not None and record.content:
        if content not in ("", record.content):
            node["text"] = content
        content = record.content
    meta: dict[str, Any] = {**inner, **kept, **({"_node": node} if node else {})}
    return replace(record, content=content if content is not None else record.content, meta=meta)


def _node(text: str) -> dict[str, Any] | None:
    try:
        node = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(node, dict) or not isinstance(node.get("metadata", {}), dict | None):
        return None
    return node if isinstance(node.get("text", ""), str | None) else None
