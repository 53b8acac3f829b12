"""Indexing from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from haystack import Document

from config import Settings
from database.connection import Database
from database.errors import InvalidInputError
from pipelines.api import delete_source, index_documents, open_ledger
from pipelines.indexing_run import SyncResult
from tests.support.indexing import HashEmbedder, assert_books_agree


@pytest.fixture
def settings(database: Database, tmp_path: Path) -> Settings:
    return Settings(database_url=database.conninfo, home=tmp_path)


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


def chunks(settings: Settings, source: str) -> list[dict[str, Any]]:
    return open_ledger(settings).chunks(source)


def counts(result: SyncResult) -> tuple[int, int, int]:
    return (result.added, result.updated, result.unchanged)


def test_documents_are_split_and_keep_their_metadata(
    settings: Settings, embedder: HashEmbedder, database: Database
) -> None:
    text = "A sentence about pools. " * 200
    documents = [
        Document(content=text, meta={"source": "wiki/pools", "year": 2024}),
        Document(id="note-1", content="A note."),
    ]
    result = index_documents(documents, settings=settings, embedder=embedder)
    assert counts(result) == (2, 0, 0)
    found = chunks(settings, "wiki/pools")
    assert len(found) > 1
    assert {(c["meta"]["source"], c["meta"]["year"], c["meta"]["title"]) for c in found} == {
        ("wiki/pools", 2024, "pools")
    }
    assert chunks(settings, "note-1")[0]["content"] == "A note."
    converted = open_ledger(settings).text("wiki/pools") or ""
    assert all(converted[slice(*c["meta"]["span"])] == c["content"] for c in found)
    assert_books_agree(database)


def test_markdown_is_split_at_its_headings(settings: Settings, embedder: HashEmbedder) -> None:
    text = "# Title\n" + "".join(f"\n## {name}\n\n" + f"A sentence about {name}. " * 40 for name in ("One", "Two"))
    index_documents([Document(content=text, meta={"source": "a/b.md"})], settings=settings, embedder=embedder)
    assert {"One", "Two"} <= {c["meta"].get("heading") for c in chunks(settings, "a/b.md")}


def test_only_what_changed_is_indexed_again(settings: Settings, embedder: HashEmbedder) -> None:
    first = [Document(id="a", content="One."), Document(id="b", content="Two.")]
    index_documents(first, settings=settings, embedder=embedder)
    embedder.batches.clear()
    second = [Document(id="a", content="One."), Document(id="b", content="Three.")]
    assert counts(index_documents(second, settings=settings, embedder=embedder)) == (0, 1, 1)
    assert embedder.embedded == ["Three."]
    third = [Document(id="a", content="One.", meta={"year": 2024})]
    assert counts(index_documents(third, settings=settings, embedder=embedder)) == (0, 1, 0)
    assert chunks(settings, "b")


def test_a_document_without_words_is_kept_out(settings: Settings, embedder: HashEmbedder) -> None:
    result = index_documents(
        [Document(id="a", content="  "), Document(id="b", content="Two.")], settings=settings, embedder=embedder
    )
    assert result.failed == {"a": "it is empty"}
    assert result.added == 1


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([Document(id="a", content=None)], "has none"),
        ([Document(content="x", meta={"source": "s"}), Document(content="y", meta={"source": "s"})], "two are named"),
    ],
)
def test_documents_that_cannot_be_indexed(settings: Settings, documents: list[Document], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        index_documents(documents, settings=settings)


def test_a_source_can_be_deleted(settings: Settings, embedder: HashEmbedder, database: Database) -> None:
    index_documents(
        [Document(id="a", content="One."), Document(id="a/b", content="Two.")], settings=settings, embedder=embedder
    )
    assert delete_source("a", settings=settings) == 1
    assert list(open_ledger(settings).read()) == ["a/b"]
    with pytest.raises(InvalidInputError, match="none"):
        delete_source("a", settings=settings)
    assert_books_agree(database)
