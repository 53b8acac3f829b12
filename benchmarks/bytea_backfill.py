"""
Filling a vector column from bytea while an application writes: lost updates, locks, the writer's waits, rows per second.

    python -m benchmarks.bytea_backfill [--rows 200000] [--dimension 384]

A process of its own plays the application: new embeddings, new titles, inserts, deletes, moves to other keys, transactions that
hold their row for a while. It keeps a journal of what it committed. The server logs whoever waits for a lock for 100 ms.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psycopg

from benchmarks.measuring import MISSED
from database.connection import Database
from database.embedded import EmbeddedServer
from migration.bytea import migrate
from migration.bytea_index import Index
from migration.bytea_options import Options

LOCK_MS = 100
SETTINGS = {"log_lock_waits": "on", "deadlock_timeout": f"{LOCK_MS}ms"}
_WAITS = re.compile(r"still waiting for (\w+) on (relation|tuple|transaction|extension)")

_LOCKS = """
    SELECT pid, mode || CASE WHEN granted THEN ' held' ELSE ' waited for' END
      FROM pg_locks
     WHERE relation = 'items'::regclass AND locktype = 'relation'
       AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
     UNION ALL
    SELECT pid, 'wait for a ' || wait_event || ' lock'
      FROM pg_stat_activity
     WHERE wait_event_type = 'Lock' AND wait_event <> 'virtualxid' AND datname = current_database()
"""
"""Locks that stop readers or writers of the table, and who waits for any lock; a concurrent build's wait stops nobody."""

TABLE = """
    DROP TABLE IF EXISTS items;
    CREATE TABLE items (id bigint PRIMARY KEY, title text NOT NULL, embedding bytea)
"""


@dataclass
class Journal:
    """
    What the application has committed, and how long it took.

    :param rows: By id: title and SHA-256 of the embedding; `None` for a row that it has deleted or moved away.
    :param latencies: Milliseconds of each write, with the time of its end.
    """

    rows: dict[int, tuple[str, str | None] | None] = field(default_factory=dict)
    latencies: list[tuple[float, float]] = field(default_factory=list)

    def worst(self, begin: float, end: float) -> dict[str, float]:
        """Writes per second, and the median, 99th percentile and worst latency between two times."""
        found = sorted(ms for at, ms in self.latencies if begin <= at <= end) or [0.0]
        place = [len(found) // 2, int(len(found) * 0.99), -1]
        figures = dict(zip(("p50_ms", "p99_ms", "worst_ms"), (round(found[p], 2) for p in place), strict=True))
        return {"writes_per_s": round(len(found) / max(end - begin, 1e-9)), **figures}


class Writer:
    """The application."""

    def __init__(self, conninfo: str, *, rows: int, dimension: int, rest: float) -> None:
        self.connection = psycopg.connect(conninfo, autocommit=True)
        self.random, self.numbers = random.Random(1), np.random.default_rng(1)
        self.rows, self.dimension, self.rest = rows, dimension, rest
        self.journal = Journal()
        self.counter = 0

    def step(self) -> None:
        """One write."""
        self.counter += 1
        what, key, title = self.random.random(), self.random.randrange(self.rows), f"written {self.counter}"
        packed = self.numbers.standard_normal(self.dimension).astype("<f4").tobytes()
        started = time.perf_counter()
        if what < 0.6:
            self._update(key, title, packed)
        elif what < 0.8:
            self._update(key, title)
        elif what < 0.9:
            self._insert(self.rows + self.counter, title, packed)
        elif what < 0.94:
            self._gone("DELETE FROM items WHERE id = %s", key)
        elif what < 0.97:
            self._move(key)
        else:
            with self.connection.transaction():
                self._update(key, title, packed)
                time.sleep(0.02)
        self.journal.latencies.append((time.time(), (time.perf_counter() - started) * 1000))
        time.sleep(self.rest)

    def _update(self, key: int, title: str, packed: bytes | None = None) -> None:
        if packed is None:
            row = self.connection.execute(
                "UPDATE items SET title = %s WHERE id = %s RETURNING embedding", [title, key], binary=True
            ).fetchone()
        else:
            row = self.connection.execute(
                "UPDATE items SET title = %s, embedding = %b WHERE id = %s RETURNING embedding",
                [title, packed, key],
                binary=True,
            ).fetchone()
        if row:
            self.journal.rows[key] = title, digest(row[0])

    def _insert(self, key: int, title: str, packed: bytes) -> None:
        self.connection.execute("INSERT INTO items VALUES (%s, %s, %b)", [key, title, packed])
        self.journal.rows[key] = title, digest(packed)

    def _gone(self, statement: str, key: int) -> None:
        self.connection.execute(statement, [key])
        self.journal.rows[key] = None

    def _move(self, key: int) -> None:
        """To a key that the backfill has passed long ago."""
        row = self.connection.execute(
            "UPDATE items SET id = -1 - id WHERE id = %s RETURNING title, embedding", [key], binary=True
        ).fetchone()
        if row:
            self.journal.rows[key], self.journal.rows[-1 - key] = None, (row[0], digest(row[1]))


def digest(packed: bytes | None) -> str | None:
    """SHA-256 of an embedding."""
    return None if packed is None else hashlib.sha256(packed).hexdigest()


def write_until_told(pipe: Pipe, conninfo: str, rows: int, dimension: int, rest: float) -> None:
    """The application's process: writes until something comes through the pipe, then sends its journal."""
    writer = Writer(conninfo, rows=rows, dimension=dimension, rest=rest)
    pipe.send("ready")
    while not pipe.poll():
        writer.step()
    pipe.send(writer.journal)


@contextmanager
def application(conninfo: str, *, rows: int, dimension: int, rest: float) -> Iterator[list[Journal]]:
    """An application that writes meanwhile; its journal is in the list afterwards."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=write_until_told, args=(theirs, conninfo, rows, dimension, rest))
    process.start()
    journal: list[Journal] = []
    try:
        ours.recv()
        yield journal
    finally:
        ours.send("stop")
        journal.append(ours.recv())
        process.join()


class LockWatch(threading.Thread):
    """Samples every few milliseconds which locks are held or waited for, and keeps how long each lasted at most."""

    def __init__(self, conninfo: str) -> None:
        super().__init__(daemon=True)
        self.conninfo, self.stopped = conninfo, threading.Event()
        self.longest: dict[str, float] = {}
        self.samples = 0

    def run(self) -> None:
        """Sample until stopped."""
        seen: dict[tuple[Any, ...], float] = {}
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            while not self.stopped.wait(0.002):
                now = time.perf_counter()
                seen = {row: seen.get(row, now) for row in connection.execute(_LOCKS).fetchall()}
                self.samples += 1
                for (_, what), since in seen.items():
                    self.longest[what] = max(self.longest.get(what, 0.0), (now - since) * 1000)


def fill(connection: psycopg.Connection[Any], *, rows: int, dimension: int) -> dict[int, tuple[str, str | None]]:
    """Make the table; embeddings lie in clusters."""
    numbers = np.random.default_rng(0)
    centres = numbers.standard_normal((200, dimension))
    expected: dict[int, tuple[str, str | None]] = {}
    connection.execute(TABLE)
    with connection.cursor() as cursor, cursor.copy("COPY items FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["bigint", "text", "bytea"])
        for start in range(0, rows, 5000):
            count = min(5000, rows - start)
            vectors = centres[numbers.integers(0, 200, count)] + 0.5 * numbers.standard_normal((count, dimension))
            for key, vector in enumerate(vectors.astype("<f4"), start=start):
                packed = vector.tobytes()
                copy.write_row((key, f"row {key}", packed))
                expected[key] = f"row {key}", digest(packed)
    return expected


def compare(
    connection: psycopg.Connection[Any], expected: dict[int, tuple[str, str | None]], journal: Journal
) -> dict[str, int]:
    """Every row against what was written last, and every vector against its bytes."""
    wanted: dict[int, tuple[str, str | None] | None] = {**expected, **journal.rows}
    found = {"lost_updates": 0, "wrong_vectors": 0, "rows": 0}
    there = set()
    with connection.transaction(), connection.cursor("rows", binary=True) as cursor:
        cursor.execute("SELECT id, title, embedding, vector_send(embedding_vector) FROM items")
        for key, title, packed, sent in cursor:
            found["rows"] += 1
            there.add(key)
            found["lost_updates"] += wanted.get(key) != (title, digest(packed))
            right = sent is not None and np.frombuffer(sent[4:], ">u4").tobytes() == (
                np.frombuffer(packed, "<u4").astype(">u4").tobytes()
            )
            found["wrong_vectors"] += not right
    found["lost_updates"] += sum(row is not None and key not in there for key, row in wanted.items())
    return found


def waits_in(log: Path, *, after: int) -> list[str]:
    """Who waited for a lock for 100 ms or longer, as the server's log has it; waits for snapshots stop nobody."""
    return [match[0] for match in _WAITS.finditer(log.read_text(errors="replace")[after:])]


def measure(*, rows: int, dimension: int, rest: float, index: Index | None, pause: float = 0.0) -> dict[str, Any]:
    """Migrate once beside the application; 5 s of the application alone come first."""
    with TemporaryDirectory(prefix="synapse-bytea-") as folder:
        server = EmbeddedServer(Path(folder), settings=SETTINGS)
        server.start()
        owner = Database(server.conninfo(owner=True))
        try:
            with psycopg.connect(owner.conninfo, autocommit=True) as connection:
                expected = fill(connection, rows=rows, dimension=dimension)
                connection.execute("CHECKPOINT")
                watch = LockWatch(owner.conninfo)
                logged = len(server.log.read_text(errors="replace"))
                with application(owner.conninfo, rows=rows, dimension=dimension, rest=rest) as journal:
                    begin = time.time()
                    time.sleep(min(5, rows / 1000))
                    watch.start()
                    middle = time.time()
                    options = Options(table="items", column="embedding", index=index, pause=pause)
                    outcome = migrate(owner, options)
                    end = time.time()
                    seconds = outcome.receipt.run["seconds"]
                watch.stopped.set()
                watch.join()
                again = migrate(owner, options)
                filled_by = middle + sum(seconds[step] for step in ("checking", "making the column", "filling"))
                return {
                    "outcome": "closed" if again.receipt.closed else again.receipt.open(),
                    **compare(connection, expected, journal[0]),
                    "filled": outcome.filled,
                    "slowest_statement_ms": outcome.slowest_ms,
                    "rows_per_s": round(outcome.filled / seconds["filling"]),
                    "seconds": seconds,
                    "alone": journal[0].worst(begin, middle),
                    "until_filled": journal[0].worst(middle, filled_by),
                    "meanwhile": journal[0].worst(middle, end),
                    "waits_of_100_ms": waits_in(server.log, after=logged),
                    "locks_ms": {name: round(ms, 1) for name, ms in watch.longest.items()},
                    "lock_samples": watch.samples,
                    "canary": again.receipt.parts[0].checks["canary"]["overlap@10"],
                }
        finally:
            owner.close()
            server.stop()


def main() -> None:
    """Measure, print, and end with 5 if a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rest", type=float, default=0.002, help="seconds between two writes of the application")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds of the backfill's rest after each batch")
    parser.add_argument("--no-index", action="store_true", help="the column alone")
    arguments = parser.parse_args()
    found = measure(
        rows=arguments.rows,
        dimension=arguments.dimension,
        rest=arguments.rest,
        pause=arguments.pause,
        index=None if arguments.no_index else Index(),
    )
    for name, value in found.items():
        print(f"{name:<16} {value}")
    at_most = max(found["slowest_statement_ms"], *found["locks_ms"].values())
    met = not found["lost_updates"] and not found["wrong_vectors"] and not found["waits_of_100_ms"]
    sys.exit(0 if met and at_most <= LOCK_MS else MISSED)


if __name__ == "__main__":
    main()
