"""The page of `status`: what stands on it, that it fits 80 columns, and that names on it steer no terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from commands.status_page import duration, milliseconds, page, size, unavailable
from database.errors import DatabaseUnavailableError
from database.observation import Observation

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
NAME = "documents_a_model_with_a_name_of_the_most_48_cha"

SEEN = Observation(
    at=NOW,
    database="synapse_app@db.example.org:5432/synapse",
    tenant="default",
    days=7,
    server={
        "server_version": "18.4 (Debian 18.4-1)", "pgvector_version": "0.8.5", "schema_version": "0006", "role": "synapse_app",
        "standby": False, "bytes": 5 * 1024**3, "started_at": NOW - timedelta(days=3), "counted_since": None,
        "has_statements": True,
    },
    tables=[
        {"name": f"{NAME}{end}", "estimated_rows": 1_000_000, "dead_rows": 12_345, "heap_bytes": 2 * 1024**3,
         "index_bytes": 3 * 1024**3, "total_bytes": 5 * 1024**3, "last_vacuum": None, "heap_hit_ratio": 0.5,
         "index_hit_ratio": None}
        for end in ("", "_keywords", "_terms", "_4", "_5", "_6", "_7", "_8")
    ],
    indexes=[
        {"name": f"{NAME}_hnsw_index", "table": NAME, "method": "hnsw", "scans": 12_345_678, "rows_read": 1,
         "last_used": NOW - timedelta(minutes=5), "bytes": 3 * 1024**3, "valid": valid, "is_unique": False}
        for valid in (False, True)
    ],
    sources=[
        {"model": "bge-small", "active": True, "sources": 1_234, "chunks": 45_678, "quarantined": 3, "last_indexed_at": NOW},
        {"model": "old", "active": False, "sources": 0, "chunks": 0, "quarantined": 0, "last_indexed_at": None},
    ],
    quarantined=[{"model": "bge-small", "source": "/a/b/c.pdf", "reason": "it is encrypted", "since": NOW}],
    growth=[
        {"day": date(2026, 5, day), "sources": 10, "chunks": 100, "bytes": 1024, "conversations": None} for day in (3, 4)
    ],
    questions=[
        {"day": date(2026, 5, 4), "questions": 1_500, "empty_answers": 20, "tokens_in": 3_000_000, "tokens_out": 400_000,
         "p50_ms": 1234.5, "p95_ms": 9876.5, "max_ms": 60_000.0}
    ],
    slowest=[{"at": NOW, "kind": "ask", "model": None, "milliseconds": 60_000.0}],
    statements=[{"statement": "SELECT id\n  FROM x " * 30, "calls": 5, "mean_ms": 0.42, "max_ms": 12.0, "total_ms": 2000.0}],
    certificates=[{"table": NAME, "measured_at": NOW - timedelta(hours=5), "recall": 0.9961, "lower": 0.9912, "top_k": 10,
                   "ef_search": 200}],
    connections={"open": 12, "active": 2, "idle": 8, "idle_in_transaction": 1, "hidden": 1, "most": 100,
                 "longest_transaction_seconds": 90.0},
    builds=[
        {"index": "fresh", "table": NAME, "phase": "building index: loading tuples", "done": 25, "total": 100, "seconds": 60.0},
        {"index": None, "table": None, "phase": None, "done": None, "total": None, "seconds": None},
    ],
    replicas=[
        {"name": "standby1", "seen_by": "primary", "state": "streaming", "bytes": 2048, "seconds": 3.0, "trouble": None},
        {"name": "db2:5432/synapse", "seen_by": "standby", "state": "paused", "bytes": None, "seconds": None, "trouble": "old"},
    ],
)  # fmt: skip


def drawn(seen: Observation, *, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, soft_wrap=width > 1000, highlight=False)
    console.print(page(seen))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    "line",
    [
        "PostgreSQL 18.4, pgvector 0.8.5, schema 0006, 5.0 GB, up 3 days",
        "sources      1,234 in 45,678 chunks, 3 kept out; the last just now  bge-small",
        "in 7 days    +20 sources (2 KB), +200 chunks, +0 conversations",
        "connections  12 of 100: 2 active, 8 idle, 1 idle in a transaction, 1 of other roles; longest transaction 90 s",
        "building     fresh: loading tuples, 25%, about 3 min left",
        "building     an index of another role's",
        "standby      standby1: streaming, 2 KB behind, 3 s",
        "standby      db2:5432/synapse: paused; not read from: old",
        f"recall       99.61% of the nearest 10, at least 99.12%; 5 h ago  {NAME}",
        "2026-05-04      1,500          20  3,000,000  400,000  1.2 s  9.9 s   60.0 s",
        "2026-05-04 12:00  60.0 s  ask        none",
        f"{NAME}_hnsw_index (invalid)  hnsw  12,345,678  5 min ago  3.0 GB",
        "… and 2 more",
        "2026-05-04 12:00  /a/b/c.pdf  it is encrypted",
    ],
)
def test_it_says(line: str) -> None:
    assert line in [written.rstrip() for written in drawn(SEEN, width=10_000).splitlines()]


def test_the_last_backup() -> None:
    backup = {"at": "2026-05-04T07:00:00+00:00", "path": "/b/\x1b[31m1.dump", "bytes": 4 * 1024**2, "database": "d"}
    console = Console(file=io.StringIO(), width=200)
    console.print(page(SEEN, backup=backup))
    assert "backup       5 h ago, 4 MB  /b/\ufffd[31m1.dump" in console.file.getvalue()  # type: ignore[attr-defined]


def test_it_fits_80_columns() -> None:
    text = drawn(SEEN, width=80)
    assert max(map(len, text.splitlines())) <= 80
    for number in ("1,000,000", "12,345,678", "3,000,000", "50.0%", "60.0 s"):
        assert number in text


def test_what_there_is_none_of_is_left_out() -> None:
    empty = replace(
        SEEN, tables=[], indexes=[], quarantined=[], questions=[], slowest=[], statements=[], certificates=[], builds=[],
        replicas=[], growth=[], sources=[],
    )  # fmt: skip
    text = drawn(empty, width=80)
    assert "Tables" not in text
    assert "Kept out" not in text
    assert "standby" not in text
    assert "not measured" in text


@pytest.mark.parametrize("hostile", ["\x1b[31mred", "bell\x07", "\u202eright to left", "[bold]markup[/bold]"])
def test_names_are_harmless(hostile: str) -> None:
    changes: dict[str, Any] = {
        "quarantined": [{**SEEN.quarantined[0], "source": hostile, "reason": hostile}],
        "statements": [{**SEEN.statements[0], "statement": hostile}],
        "replicas": [{**SEEN.replicas[0], "name": hostile}],
        "slowest": [{**SEEN.slowest[0], "kind": hostile, "model": hostile}],
    }
    text = drawn(replace(SEEN, **changes), width=10_000)
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert ("[bold]markup[/bold]" in text) == ("[bold]" in hostile)


def test_while_the_server_is_away() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(unavailable(DatabaseUnavailableError("A connection was expected, but [red]none[/red] came.")))
    assert "[red]none[/red]" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (86_400 * 2, "2 days")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.4249, "0.42 ms"), (12.3, "12 ms"), (1234.0, "1.2 s")])
def test_milliseconds(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (2048, "2 KB"), (1024**2 * 5, "5 MB"), (1024**4, "1024.0 GB")])
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text
