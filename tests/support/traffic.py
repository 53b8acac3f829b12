"""
Programs at work on a database while something is done to it: readers and writers in threads, every answer checked.

    with Traffic(readers=[Client(app)], writers=[Client(app, role="synapse_tenant_default")]) as traffic:
        traffic.wait(reads=1000, writes=200)   # or: upgrade, reindex, restart …
    report = traffic.report()
    assert report.failures == {} and report.wrong == []
"""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import psycopg

TABLE = "documents_all_minilm_l6_v2"
MODEL = "all-minilm-l6-v2"
DIMENSION = 384
CHUNKS = 3
WORDS = ["river", "mountain", "engine", "violin", "glacier", "harbour", "lantern", "orchard", "compass", "meadow"]

Search = Callable[[list[float]], int]
"""Another way to search: takes a vector, returns how many documents came back."""

SEARCH = "SELECT id FROM {table} ORDER BY embedding <=> %s::vector LIMIT 10"
WRITE_SOURCE = """
INSERT INTO sources (model, source, root, size, mtime_ns, checked_at_ns, content_hash, meta_hash, fingerprint, chunks)
VALUES (%(model)s, %(source)s, '/traffic', 1, 1, 1, %(version)s, 'm', 'f', %(chunks)s)
ON CONFLICT (model, source) DO UPDATE SET content_hash = EXCLUDED.content_hash
"""
WRITE_DOCUMENT = """
INSERT INTO {table} (id, embedding, content, meta) VALUES (%(id)s, %(embedding)s::vector, %(content)s, %(meta)s)
ON CONFLICT (id) DO UPDATE SET embedding = EXCLUDED.embedding, content = EXCLUDED.content, meta = EXCLUDED.meta
"""
WRITE_CHUNK = """
INSERT INTO source_chunks (model, document_id, source, position) VALUES (%(model)s, %(id)s, %(source)s, %(position)s)
ON CONFLICT DO NOTHING
"""
WRITTEN = """
SELECT s.source, s.content_hash, c.document_id, c.position, d.content
  FROM sources s
  LEFT JOIN source_chunks c USING (model, source)
  LEFT JOIN {table} d ON d.id = c.document_id
 WHERE s.root = '/traffic'
"""
ORPHANS = """
SELECT id FROM {table} d
 WHERE starts_with(id, 'traffic/') AND NOT EXISTS (SELECT FROM source_chunks c WHERE c.document_id = d.id)
"""


@dataclass(frozen=True, kw_only=True)
class Client:
    """
    How one program speaks to the database.

    :param conninfo: As whom it connects.
    :param role: The tenant's role that each transaction takes, as programs from schema version 0004 on do; `None` for older
        ones and for the owner.
    """

    conninfo: str
    role: str | None = None

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of its own."""
        return psycopg.connect(self.conninfo, prepare_threshold=None, connect_timeout=10)


@dataclass(kw_only=True)
class Latencies:
    """How long operations took, in ms; the worst is the longest that anybody had to wait."""

    count: int
    p50: float
    p95: float
    p99: float
    worst: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latencies:
        """Of measured seconds; all 0 where nothing was measured."""
        if len(seconds) < 2:
            only = round(1000 * sum(seconds), 2)
            return cls(count=len(seconds), p50=only, p95=only, p99=only, worst=only)
        cuts = statistics.quantiles(seconds, n=100, method="inclusive")
        p50, p95, p99 = (round(1000 * cuts[place - 1], 2) for place in (50, 95, 99))
        return cls(count=len(seconds), p50=p50, p95=p95, p99=p99, worst=round(1000 * max(seconds), 2))


@dataclass(kw_only=True)
class Report:
    """
    What happened.

    :param failures: How often each error came, by its first line; a failed operation counts neither as a read nor a write.
    :param uncertain: Writes whose connection was cut: they may be there or not, but whole.
    :param wrong: What is not as it was written: lost, doubled, half there, come back.
    """

    seconds: float
    reads: Latencies
    writes: Latencies
    failures: dict[str, int]
    uncertain: int
    wrong: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


@dataclass
class _Writer:
    client: Client
    name: str
    expected: dict[str, str] = field(default_factory=dict)
    uncertain: dict[str, set[str | None]] = field(default_factory=dict)


class Traffic:
    """
    Readers search by the HNSW index; writers add, replace and delete sources of three chunks with their ledger rows.

    :param readers: A thread for each.
    :param writers: A thread for each; each has sources of its own.
    :param searches: Other ways to search, a thread for each.
    :param pause: Seconds between the operations of a thread.
    :param hits: How many documents a search must find.
    :param table: The documents table of the model `MODEL`.
    """

    def __init__(
        self,
        *,
        readers: Sequence[Client] = (),
        writers: Sequence[Client] = (),
        searches: Sequence[Search] = (),
        pause: float = 0.0,
        hits: int = 10,
        table: str = TABLE,
        seed: int = 1,
    ) -> None:
        self.pause, self.hits, self.table, self.seed = pause, hits, table, seed
        self._read_seconds: list[float] = []
        self._write_seconds: list[float] = []
        self._failures: Counter[str] = Counter()
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._writers = [_Writer(client, f"traffic/{seed}/{number}") for number, client in enumerate(writers)]
        work = [partial(self._read, client) for client in readers] + [partial(self._search, one) for one in searches]
        work += [partial(self._write, writer) for writer in self._writers]
        self._threads = [
            threading.Thread(target=target, args=(random.Random(seed * 1000 + number),), daemon=True)
            for number, target in enumerate(work)
        ]
        self._started = self._ended = 0.0

    def __enter__(self) -> Traffic:
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def reads(self) -> int:
        """Searches that were answered so far."""
        return len(self._read_seconds)

    @property
    def writes(self) -> int:
        """Transactions that were committed so far."""
        return len(self._write_seconds)

    def wait(self, *, reads: int = 0, writes: int = 0, timeout: float = 600.0) -> None:
        """
        Until so many operations were done, counted from the start.

        :raises TimeoutError: If they are not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self.reads < reads or self.writes < writes:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.reads} reads and {self.writes} writes; failures: {dict(self._failures)}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Let every thread end its operation, and wait for it."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=120)
        self._ended = self._ended or time.monotonic()

    def report(self) -> Report:
        """What happened; after `stop`, as the writers' own rows are compared with what they wrote."""
        return Report(
            seconds=round(self._ended - self._started, 1),
            reads=Latencies.of(self._read_seconds),
            writes=Latencies.of(self._write_seconds),
            failures=dict(self._failures),
            uncertain=sum(len(writer.uncertain) for writer in self._writers),
            wrong=self._wrong(),
        )

    # Threads

    def _read(self, client: Client, rng: random.Random) -> None:
        def search(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction():
                self._take_role(connection, client)
                rows = connection.execute(SEARCH.format(table=self.table), (_vector(rng),)).fetchall()
            self._expect_hits(len(rows))

        self._loop(client, search, self._read_seconds)

    def _search(self, search: Search, rng: random.Random) -> None:
        while not self._stopping.is_set():
            vector, began = [rng.gauss(0, 1) for _ in range(DIMENSION)], time.monotonic()
            try:
                self._expect_hits(search(vector))
            except Exception as exc:  # whatever a program would have seen
                self._fail(exc)
            else:
                self._read_seconds.append(time.monotonic() - began)
            self._stopping.wait(self.pause)

    def _write(self, writer: _Writer, rng: random.Random) -> None:
        def write(connection: psycopg.Connection[Any]) -> None:
            known = sorted(writer.expected.keys() - writer.uncertain.keys())
            replaces = known and rng.random() < 0.5
            source = rng.choice(known) if replaces else f"{writer.name}/{rng.getrandbits(48):012x}"
            version = None if replaces and rng.random() < 0.4 else f"{rng.getrandbits(48):012x}"
            try:
                with connection.transaction():
                    self._take_role(connection, writer.client)
                    self._put(connection, source, version, rng)
            except psycopg.Error:
                if connection.closed:
                    writer.uncertain[source] = {writer.expected.get(source), version}
                raise
            if version is None:
                del writer.expected[source]
            else:
                writer.expected[source] = version

        self._loop(writer.client, write, self._write_seconds)

    def _put(self, connection: psycopg.Connection[Any], source: str, version: str | None, rng: random.Random) -> None:
        ids = [f"{source}#{position}" for position in range(CHUNKS)]
        facts: dict[str, Any] = {"model": MODEL, "source": source, "version": version, "chunks": CHUNKS}
        if version is None:
            connection.execute(f"DELETE FROM {self.table} WHERE id = ANY(%s)", (ids,))  # noqa: S608
            connection.execute("DELETE FROM sources WHERE model = %(model)s AND source = %(source)s", facts)
            return
        connection.execute(WRITE_SOURCE, facts)
        for position, name in enumerate(ids):
            facts |= {
                "id": name,
                "position": position,
                "embedding": _vector(rng),
                "meta": json.dumps({"title": source}),
            }
            facts["content"] = f"{version} {' '.join(rng.choices(WORDS, k=30))}"
            connection.execute(WRITE_DOCUMENT.format(table=self.table), facts)
            connection.execute(WRITE_CHUNK, facts)

    def _loop(self, client: Client, operation: Callable[[psycopg.Connection[Any]], None], seconds: list[float]) -> None:
        connection = None
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                if connection is None or connection.closed:
                    connection = client.connect()
                operation(connection)
            except Exception as exc:  # whatever a program would have seen
                self._fail(exc)
                self._stopping.wait(0.05)
            else:
                seconds.append(time.monotonic() - began)
            self._stopping.wait(self.pause)
        if connection is not None:
            connection.close()

    def _take_role(self, connection: psycopg.Connection[Any], client: Client) -> None:
        if client.role is not None:
            connection.execute("SELECT set_config('role', %s, true)", (client.role,))

    def _fail(self, exc: BaseException) -> None:
        with self._lock:
            self._failures[_first_line(exc)] += 1

    def _expect_hits(self, found: int) -> None:
        if found < self.hits:
            raise AssertionError(f"a search found {found} documents instead of {self.hits}")

    # What is there afterwards

    def _wrong(self) -> list[str]:
        if not self._writers:
            return []
        client = self._writers[0].client
        with client.connect() as connection:
            self._take_role(connection, client)
            rows = connection.execute(WRITTEN.format(table=self.table)).fetchall()
            orphans = connection.execute(ORPHANS.format(table=self.table)).fetchall()
        found: dict[str, list[Any]] = {}
        for source, *row in rows:
            found.setdefault(source, []).append(row)
        wrong = [f"document {name} belongs to no source" for (name,) in orphans]
        for writer in self._writers:
            mine = {source for source in found if source.startswith(f"{writer.name}/")}
            for source in sorted(mine | writer.expected.keys() | writer.uncertain.keys()):
                allowed = writer.uncertain.get(source, {writer.expected.get(source)})
                problem = _problem(found.get(source, []), allowed)
                wrong += [f"{source} {problem}"] if problem else []
        return wrong


def _problem(rows: list[Any], allowed: set[str | None]) -> str | None:
    """What is wrong with a source's rows, of which each has version, document id, position and content."""
    if not rows:
        return None if None in allowed else "is lost"
    version = rows[0][0]
    if version not in allowed:
        return f"is at version {version}, not {' or '.join(map(str, allowed))}"
    if sorted(position for _, _, position, _ in rows) != list(range(CHUNKS)):
        return f"has chunks {[position for _, _, position, _ in rows]}"
    if any(content is None or not content.startswith(f"{version} ") for *_, content in rows):
        return "has chunks of another version, or none"
    return None


def _vector(rng: random.Random) -> str:
    return f"[{','.join(f'{rng.gauss(0, 1):.4f}' for _ in range(DIMENSION))}]"


def _first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0] if lines else ''}"
