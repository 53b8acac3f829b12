"""The guess of a dry run."""

from __future__ import annotations

from pipelines.estimate import estimate
from pipelines.sync import PlannedSource, SyncPlan
from tests.unit.ledger_rows import row


def planned(source: str, size: int) -> PlannedSource:
    return PlannedSource(state=row(source, size=size), path=source, meta={})


def test_nothing_to_embed_takes_no_time() -> None:
    expected = estimate(SyncPlan(roots=("/",), unchanged=[row("a.txt", size=9000, chunks=10)]))
    assert (expected.embeddings, expected.seconds) == (0, 0.0)


def test_sizes_alone() -> None:
    expected = estimate(SyncPlan(roots=("/",), added=[planned("a.txt", 9000)], changed=[planned("b.md", 5)]))
    assert expected.embeddings == 10 + 1
    assert "file sizes alone" in expected.based_on


def test_what_is_indexed_tells_how_many_bytes_make_a_chunk() -> None:
    known = [row("a.txt", size=1000, chunks=10), row("b.txt", size=3000, chunks=10), row("c.pdf", size=10, chunks=0)]
    expected = estimate(SyncPlan(roots=("/",), unchanged=known, added=[planned("new.TXT", 20_000)]))
    assert expected.embeddings == 100
    assert "unchanged files" in expected.based_on
    assert expected.seconds > 0
