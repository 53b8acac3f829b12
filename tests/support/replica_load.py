"""
Readers and writers on a primary and its standby, every answer checked, while something is done to the servers or the network.

Own writes, of the process that reads, must be in every read that begins after their commit; those of others, after `max_lag`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import psycopg
from haystack import Document
from haystack.utils import Secret

from database.document_store import SynapseDocumentStore
from database.errors import SynapseError
from database.reading import Replica
from tests.support.standby import Pair

DIMENSION = 384
NEWEST = """
SELECT max(id) FILTER (WHERE starts_with(id, 'own')) AS own, max(id) FILTER (WHERE starts_with(id, 'other')) AS other
  FROM documents_all_minilm_l6_v2
 WHERE meta IS NOT NULL
"""
OTHER = (
    "INSERT INTO documents_all_minilm_l6_v2 (id, content, meta, embedding) "
    "VALUES (%s, 'of another program', '{}', array_fill(0.1, ARRAY[384])::vector)"
)


def store_on(pair: Pair, *, max_lag: float, url: str = "", read_url: str = "") -> SynapseDocumentStore:
    """A store on the primary of a pair that reads from its standby, or on other URLs of theirs."""
    return SynapseDocumentStore(
        connection_string=Secret.from_token(url or pair.url),
        read_connection_string=Secret.from_token(read_url or pair.read_url),
        max_lag=max_lag,
    )


def fill(store: SynapseDocumentStore, count: int) -> None:
    """Documents to search among."""
    vectors = np.random.default_rng(0).normal(size=(count, DIMENSION)).astype(np.float32)
    store.write_documents(
        [Document(id=f"fill-{n:06d}", content=f"text {n}", embedding=vectors[n].tolist()) for n in range(count)]
    )


@dataclass
class Report:
    """
    What became of a load.

    :param reads: Reads that came back, by server and why it was asked.
    :param failed_reads: Reads that failed, by message.
    :param missed_own: Reads without a document that this process had committed before.
    :param stale: Reads without a document that another program had committed more than `max_lag` before.
    :param slowest: Milliseconds of the slowest read.
    :param written: Writes that were acknowledged.
    :param failed_writes: Writes that failed, by message.
    :param lost: Acknowledged documents that are not there in the end, or not as they were written.
    """

    reads: dict[tuple[str, str], int]
    failed_reads: Counter[str] = field(default_factory=Counter)
    missed_own: int = 0
    stale: int = 0
    slowest: float = 0.0
    written: int = 0
    failed_writes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def from_server(self, server: str) -> int:
        """Reads that a server answered."""
        return sum(number for (name, _), number in self.reads.items() if name == server)


class Load:
    """
    Readers and writers in threads, for as long as it is entered.

    :param pair: The servers.
    :param store: What is read and written through.
    :param readers: How many threads read.
    :param pause: Seconds between two reads of a thread.
    :param others: Whether another program writes, too, straight to the primary.
    """

    def __init__(
        self, pair: Pair, store: SynapseDocumentStore, *, readers: int = 4, pause: float = 0.002, others: bool = True
    ) -> None:
        self._pair, self._store, self._pause = pair, store, pause
        replica = store.reading.replica
        assert replica is not None
        self.replica: Replica = replica
        self._before = Counter(replica.reads)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._own, self._others = "", [(0.0, "")]
        self._acknowledged: set[str] = set()
        self._report = Report(reads={})
        work = [*[self._reads] * readers, self._writes, *[self._others_write] * others]
        self._threads = [threading.Thread(target=one, daemon=True) for one in work]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def counted(self, server: str, *why: str) -> int:
        """Reads that a server has answered since the beginning, for these reasons or any."""
        now = Counter(self.replica.reads) - self._before
        return sum(n for (name, reason), n in now.items() if name == server and (not why or reason in why))

    def until(self, condition: Callable[[], Any], *, seconds: float = 30) -> float:
        """Wait until something is so; how many seconds that took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, self.report()
            time.sleep(0.01)
        return time.monotonic() - began

    def more(self, count: int, server: str, *why: str, seconds: float = 30) -> float:
        """Wait for so many more reads from a server; how many seconds that took."""
        before = self.counted(server, *why)
        return self.until(lambda: self.counted(server, *why) >= before + count, seconds=seconds)

    def written(self) -> int:
        """Writes that were acknowledged so far."""
        return self._report.written

    def report(self) -> Report:
        """What became of it."""
        self._report.reads = dict(Counter(self.replica.reads) - self._before)
        return self._report

    def verify(self, conninfo: str) -> Report:
        """Look on a server for what was acknowledged."""
        with psycopg.connect(conninfo) as connection:
            rows = connection.execute("SELECT id, content FROM documents_all_minilm_l6_v2").fetchall()
        there = dict(rows)
        report = self.report()
        report.lost = sorted(id for id in self._acknowledged if there.get(id) != f"text of {id}")
        return report

    def _reads(self) -> None:
        vector = np.random.default_rng(threading.get_ident() % 2**32).normal(size=DIMENSION).tolist()
        while not self._over.is_set():
            with self._lock:
                own, others = self._own, self._others
            began = time.monotonic()
            due = max(id for at, id in others if at <= began - self.replica.max_lag) if others[0][0] else ""
            try:
                found = self._store.reading.read(NEWEST)[0]
                nearest = self._store.dense_search(vector, top_k=5)
            except SynapseError as exc:
                self._report.failed_reads[exc.message] += 1
                time.sleep(0.05)
            else:
                with self._lock:
                    self._report.missed_own += (found["own"] or "") < own
                    self._report.stale += (found["other"] or "") < due or len(nearest) < 5
            took = (time.monotonic() - began) * 1000
            self._report.slowest = max(self._report.slowest, took)
            time.sleep(self._pause)

    def _writes(self) -> None:
        while not self._over.is_set():
            name = f"own-{time.time_ns()}"
            try:
                self._store.write_documents([Document(id=name, content=f"text of {name}", meta={"n": 1})])
            except SynapseError as exc:
                self._report.failed_writes[exc.message] += 1
                time.sleep(0.1)
            else:
                with self._lock:
                    self._own = name
                    self._acknowledged.add(name)
                    self._report.written += 1
            time.sleep(0.02)

    def _others_write(self) -> None:
        while not self._over.is_set():
            with suppress(psycopg.Error), psycopg.connect(self._pair.primary.tcp(), autocommit=True) as connection:
                while not self._over.is_set():
                    name = f"other-{time.time_ns()}"
                    connection.execute(OTHER, (name,))
                    with self._lock:
                        self._others = [*self._others[-2000:], (time.monotonic(), name)]
                    time.sleep(0.02)
            time.sleep(0.05)
