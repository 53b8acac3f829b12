"""The ledger and the documents table say the same, whatever happens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from haystack import Document

from database.connection import Database
from database.errors import InvalidInputError
from database.ledger import IndexedSource, Ledger, SourceState
from database.models import active_model
from tests.support.relay import relayed


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, model=active_model(database))


def state(source: str, **changes: Any) -> SourceState:
    usual = SourceState(
        source=source,
        root="/docs",
        size=1,
        mtime_ns=2,
        checked_at_ns=3,
        content_hash="c",
        meta_hash="m",
        fingerprint="f",
    )
    return replace(usual, **changes)


def indexed(source: str, *contents: str) -> IndexedSource:
    documents = [
        Document(
            id=f"{source}:{content.strip(chr(0))}",
            content=content,
            embedding=[1.0] * 384,
            meta={"source": source, "position": position},
        )
        for position, content in enumerate(contents)
    ]
    text = "\n".join(contents)
    return IndexedSource(state=state(source), title="T", mime_type="text/plain", text=text, documents=documents)


def contents(database: Database) -> list[str]:
    rows = database.read("SELECT content FROM documents_all_minilm_l6_v2 ORDER BY content")
    return [row["content"] for row in rows]


def assert_books_agree(database: Database) -> None:
    """Every chunk number has its document, every document its chunk number, and every source its count."""
    assert not database.read(
        "SELECT c.document_id, d.id FROM source_chunks c "
        "FULL JOIN documents_all_minilm_l6_v2 d ON d.id = c.document_id WHERE c.document_id IS NULL OR d.id IS NULL"
    )
    assert not database.read(
        "SELECT s.source FROM sources s LEFT JOIN source_chunks c USING (model, source) "
        "GROUP BY s.model, s.source HAVING s.chunks <> count(c.document_id)"
    )


def test_write_and_read(ledger: Ledger, database: Database) -> None:
    ledger.write([indexed("/docs/a", "one", "two"), indexed("/docs/b", "three")])
    assert ledger.read() == {"/docs/a": state("/docs/a", chunks=2), "/docs/b": state("/docs/b", chunks=1)}
    assert ledger.text("/docs/a") == "one\ntwo"
    assert [chunk["content"] for chunk in ledger.chunks("/docs/a")] == ["one", "two"]
    assert_books_agree(database)


def test_writing_again_removes_stale_chunks(ledger: Ledger, database: Database) -> None:
    ledger.write([indexed("/docs/a", "one", "two", "three")])
    ledger.write([indexed("/docs/a", "two", "four")])
    assert contents(database) == ["four", "two"]
    assert ledger.text("/docs/a") == "two\nfour"
    assert_books_agree(database)


def test_nothing_is_written_when_one_chunk_is_refused(ledger: Ledger, database: Database) -> None:
    ledger.write([indexed("/docs/a", "one")])
    with pytest.raises(InvalidInputError, match=r"U\+0000"):
        ledger.write([indexed("/docs/a", "two"), indexed("/docs/b", "nul \x00")])
    assert contents(database) == ["one"]
    assert list(ledger.read()) == ["/docs/a"]


@pytest.mark.parametrize(
    ("roots", "found"),
    [
        (["/docs"], {"/docs/a", "/docs/sub/b"}),
        (["/docs/"], {"/docs/a", "/docs/sub/b"}),
        (["/docs/a"], {"/docs/a"}),
        (["/docs/sub", "/docs2"], {"/docs/sub/b", "/docs2/c"}),
        (["/doc"], set()),
        ([], set()),
        (["/"], {"/docs/a", "/docs/sub/b", "/docs2/c", "/100%_x"}),
    ],
)
def test_roots(ledger: Ledger, roots: list[str], found: set[str]) -> None:
    ledger.write([indexed(name, "x") for name in ("/docs/a", "/docs/sub/b", "/docs2/c", "/100%_x")])
    assert set(ledger.read(roots)) == found


def test_quarantine_takes_chunks_away(ledger: Ledger, database: Database) -> None:
    ledger.write([indexed("/docs/a", "one")])
    ledger.quarantine([state("/docs/a", reason="damaged"), state("/docs/b", reason="empty")])
    assert contents(database) == []
    assert ledger.text("/docs/a") is None
    assert {name: found.reason for name, found in ledger.read().items()} == {"/docs/a": "damaged", "/docs/b": "empty"}
    ledger.write([indexed("/docs/a", "one")])
    assert ledger.read()["/docs/a"].reason is None
    assert_books_agree(database)


def test_move_keeps_chunks_and_changes_their_meta(ledger: Ledger, database: Database) -> None:
    ledger.write([indexed("/docs/a", "one"), indexed("/docs/b", "old")])
    ledger.move([("/docs/a", state("/docs/b"), {"source": "/docs/b"})])
    assert list(ledger.read()) == ["/docs/b"]
    assert [(c["content"], c["meta"]["source"]) for c in ledger.chunks("/docs/b")] == [("one", "/docs/b")]
    assert ledger.text("/docs/b") == "one"
    assert_books_agree(database)


def test_remove(ledger: Ledger, database: Database) -> None:
    ledger.write([indexed("/docs/a", "one", "two"), indexed("/docs/b", "three")])
    assert ledger.remove(["/docs/a", "/docs/unknown"]) == 2
    assert contents(database) == ["three"]
    assert_books_agree(database)


def test_touch(ledger: Ledger) -> None:
    ledger.write([indexed("/docs/a", "one")])
    ledger.touch([state("/docs/a", mtime_ns=99, checked_at_ns=100)])
    found = ledger.read()["/docs/a"]
    assert (found.mtime_ns, found.checked_at_ns, found.chunks) == (99, 100, 1)


def test_known_embeddings(ledger: Ledger) -> None:
    source = indexed("/docs/a", "one")
    ledger.write([source])
    known = ledger.known_embeddings([source.documents[0].id, "unknown"])
    assert {name: vector.tolist() for name, vector in known.items()} == {source.documents[0].id: [1.0] * 384}


def test_many_writers_of_the_same_sources(ledger: Ledger, database: Database) -> None:
    from concurrent.futures import ThreadPoolExecutor

    names = [f"/docs/{number}" for number in range(20)]

    def write(writer: int) -> None:
        order = names if writer % 2 else names[::-1]
        ledger.write([indexed(name, f"chunk {writer}") for name in order])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(16)))
    assert len(contents(database)) == 20
    assert_books_agree(database)


def test_models_do_not_see_each_other(ledger: Ledger, owner: Database, database: Database) -> None:
    from database.models import EmbeddingModel, add_model, drop_model, switch_model

    other = EmbeddingModel.named("org/Other-Model", dimension=3)
    add_model(owner, other)
    assert other.table_name == "documents_other_model"
    ledger.write([indexed("/docs/a", "one")])
    assert Ledger(database, model=other).read() == {}

    switch_model(owner, "org/Other-Model")
    assert active_model(database).name == "other-model"
    switch_model(owner, "all-minilm-l6-v2")
    assert drop_model(owner, "other-model")["documents"] == 0
    assert contents(database) == ["one"]


def test_many_sources_are_few_round_trips(ledger: Ledger, database: Database) -> None:
    """A database far away takes 50 ms for each."""
    if "host=/" not in database.conninfo:
        pytest.skip("the relay stands before a socket")
    with relayed(database.conninfo) as (conninfo, relay):
        far = Database(conninfo).for_tenant("default")
        counted = []
        for sources in (1, 2, 40):  # the first opens the pool
            before = relay.round_trips
            Ledger(far, model=ledger.model).write([indexed(f"/docs/{n}", f"one {n}", "two") for n in range(sources)])
            counted.append(relay.round_trips - before)
        far.close()
    assert 0 < counted[1] <= 8, counted
    assert 0 < counted[2] <= 8, counted
    assert len(contents(database)) == 80
    assert_books_agree(database)
