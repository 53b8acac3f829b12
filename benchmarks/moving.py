"""
Upgrading PostgreSQL 16 to 18, and moving embedded to a TCP server and back: time, checksums, searches, and a backup's restore.

    python -m benchmarks.moving [--rows N] [--queries N]

Everything runs on servers of its own, which are removed afterwards; at 100,000 rows they take about 4 GB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from haystack import Document

from benchmarks.corpora import clusters, zipf_texts
from benchmarks.machine import description
from benchmarks.measuring import MISSED, say, temporary_home
from database.bulk_load import load_documents
from database.connection import Database
from database.copies.backup import back_up
from database.copies.filling import differences
from database.copies.inventory import Sum
from database.copies.move import Moved, move, sums_of
from database.copies.progress import silent
from database.copies.restore import restore
from database.copies.source import snapshot
from database.embedded import EmbeddedServer
from database.models import active_model
from tests.support.pg_upgrade import run_pg_upgrade
from tests.tcp_server import TcpServer

BATCH = 10_000
WORDS = 60
OLD = 16


def main() -> None:
    """Measure, print one JSON object, and end with 5 if anything was not the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=50)
    arguments = parser.parse_args()

    found: dict[str, Any] = {"rows": arguments.rows, **description()}
    with temporary_home() as home:
        home.mkdir(mode=0o755)
        found |= _measured(home, rows=arguments.rows, queries=arguments.queries)
    print(json.dumps(found, indent=2, default=str))
    sys.exit(0 if found["all_equal"] else MISSED)


def _measured(home: Path, *, rows: int, queries: int) -> dict[str, Any]:
    old = EmbeddedServer(home / "old", major=OLD)
    old.start()
    tcp, back = TcpServer(home / "tcp"), EmbeddedServer(home / "back")
    try:
        began = time.perf_counter()
        _fill(old, rows)
        say(f"filled PostgreSQL {OLD} in {time.perf_counter() - began:.0f} s")
        before = _sums(old.conninfo(owner=True))
        tcp.start()
        there = move(old.conninfo(owner=True), tcp.tcp(), queries=queries, jobs=2)
        say(f"16 embedded -> 18 TCP: {_line(there)}")
        back.start()
        again = move(tcp.tcp(), back.conninfo(owner=True), queries=queries, jobs=2)
        say(f"18 TCP -> 18 embedded: {_line(again)}")
        backup = _backed_up(tcp, back, home)
        say(f"backup and restore: {backup}")
    finally:
        for server in (tcp, back, old):
            server.stop()
    for folder in ("tcp", "back", "backups"):
        shutil.rmtree(home / folder, ignore_errors=True)
    upgraded = _upgraded(old, home, before)
    say(f"pg_upgrade: {upgraded}")
    moves = {"upgrade_by_dump": _figures(there, before), "tcp_to_embedded": _figures(again, before)}
    parts = [*moves.values(), backup, upgraded]
    return {**moves, "backup": backup, "pg_upgrade": upgraded, "all_equal": all(part["equal"] for part in parts)}


def _fill(server: EmbeddedServer, rows: int) -> None:
    owner = Database(server.conninfo(owner=True))
    load_documents(owner, active_model(owner), _documents(rows))
    owner.close()
    with psycopg.connect(server.conninfo(owner=True), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _documents(rows: int) -> Iterator[Document]:
    for first in range(0, rows, BATCH):
        count = min(BATCH, rows - first)
        texts = zipf_texts(count, words=WORDS, seed=first + 1)
        for n, (vector, text) in enumerate(
            zip(clusters(count, seed=1_000 + first // BATCH), texts, strict=True), first
        ):
            meta = {"source": f"file {n % 1000}.txt", "position": n}
            yield Document(id=f"row {n}", content=text, embedding=vector.tolist(), meta=meta)


def _sums(conninfo: str) -> dict[str, Sum]:
    with snapshot(conninfo) as source:
        return sums_of(source, jobs=2, on_progress=silent, step="reading")


def _figures(moved: Moved, before: dict[str, Sum]) -> dict[str, Any]:
    parity = next(iter(moved.searches.values()))
    return {
        "equal": not differences(before, moved.found) and not moved.changed and parity.overlap == 1.0,
        "overlap@10 exact": parity.overlap,
        "recall@10 of the index before": round(parity.recall_before, 4),
        "recall@10 of the index after": round(parity.recall_after, 4),
        "seconds": {step: round(value, 1) for step, value in moved.seconds.items()},
    }


def _line(moved: Moved) -> str:
    parity = next(iter(moved.searches.values()))
    return f"{moved.seconds['all']:.0f} s, overlap@10 {parity.overlap}, {len(moved.differences)} tables differ"


def _backed_up(source: TcpServer, target: EmbeddedServer, home: Path) -> dict[str, Any]:
    began = time.perf_counter()
    made = back_up(source.tcp(), home / "backups", jobs=2)
    backup_s = time.perf_counter() - began
    began = time.perf_counter()
    done = restore(made.path, target.conninfo(owner=True), replace=True)
    return {
        "equal": not done.differences,
        "backup_s": round(backup_s, 1),
        "restore_s": round(time.perf_counter() - began, 1),
        "mib": round(made.bytes / 2**20, 1),
    }


def _upgraded(old: EmbeddedServer, home: Path, before: dict[str, Sum]) -> dict[str, Any]:
    new = EmbeddedServer(home / "new", keeps_schema=True)
    began = time.perf_counter()
    run_pg_upgrade(old, new, home, link=True)
    elapsed = time.perf_counter() - began
    new.start()
    try:
        return {"equal": not differences(before, _sums(new.conninfo(owner=True))), "link_s": round(elapsed, 1)}
    finally:
        new.stop()


if __name__ == "__main__":
    main()
