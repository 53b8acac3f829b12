"""How sources are dealt out to workers, and what the ledger's rows say of a group that is begun a second time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from database.ledger import SourceState
from pipelines.indexing_run import SyncResult
from pipelines.ray_indexing import GROUP_BYTES, count_found, grouped, is_done
from pipelines.sync import PlannedSource

BEFORE = SourceState(
    source="/a.md",
    root="/",
    size=10,
    mtime_ns=1,
    checked_at_ns=100,
    content_hash="old",
    meta_hash="m",
    fingerprint="v1",
    chunks=2,
)
PLANNED = replace(BEFORE, content_hash="new", checked_at_ns=200, chunks=0)
WRITTEN = replace(PLANNED, chunks=3)


def planned(size: int = 10, *, previous: SourceState | None = None) -> PlannedSource:
    return PlannedSource(state=replace(PLANNED, size=size), path="/a.md", meta={}, previous=previous)


def test_groups_are_limited_by_number_and_size() -> None:
    assert [len(group) for group in grouped([planned()] * 40)] == [16, 16, 8]
    assert [len(group) for group in grouped([planned(GROUP_BYTES)] * 3)] == [1, 1, 1]
    assert [len(group) for group in grouped([planned(10), planned(5 * GROUP_BYTES), planned(10)])] == [1, 1, 1]
    assert list(grouped([])) == []


def test_order_and_number_are_kept() -> None:
    sources = [planned(size) for size in range(100)]
    assert [one for group in grouped(sources) for one in group] == sources


@pytest.mark.parametrize(
    ("known", "done"),
    [
        (None, False),
        (BEFORE, False),
        (WRITTEN, True),
        (replace(WRITTEN, content_hash="changed since it was planned"), True),
        (replace(WRITTEN, reason="it is damaged", chunks=0), True),
        (replace(WRITTEN, checked_at_ns=300), True),
        (replace(WRITTEN, checked_at_ns=300, reason="it is damaged"), False),
        (replace(WRITTEN, checked_at_ns=300, fingerprint="v0"), False),
    ],
    ids=[
        "unknown",
        "as before",
        "written",
        "newer bytes",
        "kept out",
        "by another run",
        "failed there",
        "older version",
    ],
)
def test_what_is_done_says_the_ledger(known: SourceState | None, done: bool) -> None:
    assert is_done(planned(previous=BEFORE), known) is done


def test_what_failed_before_and_is_tried_again_is_not_done() -> None:
    failed = replace(PLANNED, reason="it is damaged", checked_at_ns=100)
    again = PlannedSource(state=PLANNED, path="/a.md", meta={}, previous=failed)
    assert not is_done(again, failed)
    assert is_done(again, replace(failed, checked_at_ns=200))


def test_what_a_killed_worker_did_is_counted() -> None:
    result = SyncResult(added=1, converted=1, chunks=5)
    new, changed = planned(), planned(previous=BEFORE)
    count_found(result, [new], {"/a.md": WRITTEN})
    count_found(result, [changed], {"/a.md": WRITTEN})
    count_found(result, [changed], {"/a.md": replace(WRITTEN, checked_at_ns=300)})
    count_found(result, [changed], {"/a.md": replace(WRITTEN, reason="it is damaged", chunks=0)})
    assert (result.added, result.updated, result.unchanged, result.converted, result.chunks) == (2, 1, 1, 4, 11)
    assert result.failed == {"/a.md": "it is damaged"}
