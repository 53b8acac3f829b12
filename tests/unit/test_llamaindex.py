"""LlamaIndex's nodes, unpacked on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from migration.source import Record
from migration.sources.llamaindex import UNREADABLE_NODE, UnpackedNodes, unpacked
from tests.support.record_source import RecordSource, record, records

NODE = {
    "id_": "n1",
    "text": "What the node says.",
    "metadata": {"file_name": "a.pdf", "page_label": "3"},
    "relationships": {"1": {"node_id": "d1"}},
    "class_name": "TextNode",
}


def node(content: str | None = None, *, meta: dict[str, Any] | None = None, **changes: Any) -> Record:
    packed = {
        "_node_content": json.dumps({**NODE, **changes}),
        "_node_type": "TextNode",
        "doc_id": "d1",
        **(meta or {}),
    }
    return record(1, content=content, meta=packed)


def test_text_and_metadata_come_out_and_the_rest_stays() -> None:
    found = unpacked(node())
    assert found.content == "What the node says."
    assert found.meta == {
        "file_name": "a.pdf", "page_label": "3", "_node_type": "TextNode", "doc_id": "d1",
        "_node": {"id_": "n1", "relationships": {"1": {"node_id": "d1"}}, "class_name": "TextNode"},
    }  # fmt: skip


def test_the_records_own_text_and_metadata_win_and_nothing_is_lost() -> None:
    found = unpacked(node("The record's text.", meta={"page_label": "4"}))
    assert found.content == "The record's text."
    assert found.meta["page_label"] == "4"
    assert found.meta["_node"]["text"] == "What the node says."
    assert found.meta["_node"]["metadata"] == {"page_label": "3"}


def test_the_same_text_is_not_kept_twice() -> None:
    assert "text" not in unpacked(node("What the node says.")).meta["_node"]
    assert "text" not in unpacked(node("The record's text.", text="")).meta["_node"]


@pytest.mark.parametrize("text", ["{", "[]", '{"text": 5}', '{"metadata": []}', "[" * 100_000])
def test_what_is_no_node_stays_as_it_is_and_is_counted(text: str) -> None:
    given = record(1, meta={"_node_content": text})
    found = unpacked(given)
    assert (found.meta, found.content, found.notes) == (given.meta, given.content, (UNREADABLE_NODE,))


def test_other_records_pass() -> None:
    plain = record(1)
    assert unpacked(plain) is plain
    number = record(1, meta={"_node_content": 5})
    assert unpacked(number) is number


def test_as_a_source_it_is_another_one() -> None:
    inner = RecordSource({"papers": [node("x"), *records(2)]})
    source = UnpackedNodes(inner)
    (part,) = source.parts()
    found = list(source.records(part))
    assert len(found) == part.count == 3
    assert part.facts["llamaindex_nodes"] == "unpacked"
    assert [one.id for one in source.records(part, after=found[0].position)] == [one.id for one in found[1:]]
    assert source.fingerprint() == source.fingerprint() != inner.fingerprint()
    assert (source.kind, source.location) == (inner.kind, inner.location)
