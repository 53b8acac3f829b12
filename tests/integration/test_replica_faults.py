"""A primary and its standby under load: servers that are stopped, networks that are cut, a standby that falls back, a failover."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from database.document_store import SynapseDocumentStore
from tests.support.replica_load import Load, Report, fill, store_on
from tests.support.standby import Pair, pair

pytestmark = pytest.mark.slow

LAG = 2.0
CUT = 10.0
"""Seconds for which a network is cut."""

SILENCE = 6_000
"""Milliseconds until a read whose server fell silent comes from the other one."""


@pytest.fixture(scope="module")
def servers(short_folder: Path) -> Iterator[Pair]:
    with pair(short_folder / "faults") as made:
        yield made


@pytest.fixture
def store(servers: Pair) -> Iterator[SynapseDocumentStore]:
    with psycopg.connect(servers.primary.tcp(), autocommit=True) as connection:
        connection.execute("TRUNCATE documents_all_minilm_l6_v2 CASCADE")
    made = store_on(servers, max_lag=LAG)
    fill(made, 200)
    yield made
    made.close()


@pytest.fixture
def load(servers: Pair, store: SynapseDocumentStore) -> Iterator[Load]:
    with Load(servers, store, pause=0.02) as running:
        running.more(100, "standby", "fresh")
        yield running


def held(load: Load, servers: Pair, *, slowest: float) -> Report:
    """The report of a load that came back to normal; no read failed, and none was wrong."""
    load.more(50, "standby", "fresh", seconds=20)
    written = load.written()
    load.until(lambda: load.written() > written)
    load.__exit__(None, None, None)
    report = load.verify(servers.primary.tcp())
    assert (report.failed_reads, report.missed_own, report.stale, report.lost) == ({}, 0, 0, [])
    assert report.slowest < slowest
    return report


def test_the_standby_is_stopped(servers: Pair, load: Load) -> None:
    servers.standby.kill()
    assert load.more(50, "primary", "standby away") < 3
    servers.standby.go_on()
    assert load.more(10, "standby", "fresh") < 5
    assert held(load, servers, slowest=3_000).failed_writes == {}


def test_the_primary_is_stopped(servers: Pair, load: Load) -> None:
    """For longer than a write waits for it: that says so, and nothing that was acknowledged is lost."""
    servers.primary.kill()
    assert load.more(50, "standby", "primary away") < 3
    load.until(lambda: load.report().failed_writes)
    servers.primary.go_on()
    written = load.written()
    assert load.until(lambda: load.written() > written) < 5
    assert load.more(10, "standby", "fresh") < 5
    failed = held(load, servers, slowest=3_000).failed_writes
    assert all(message.startswith("A connection to synapse_app@127.0.0.1:") for message in failed), failed


@pytest.mark.parametrize("which", ["to_standby", "to_primary", "replication"])
def test_a_network_is_cut(servers: Pair, load: Load, which: str) -> None:
    """Nothing gets through, and nobody says so."""
    other: Callable[[], float] = {
        "to_standby": lambda: load.more(100, "primary", "standby away"),
        "to_primary": lambda: load.more(100, "standby", "primary away"),
        "replication": lambda: load.more(100, "primary", "behind"),
    }[which]
    relay = getattr(servers, which)
    began = time.monotonic()
    relay.fall_silent()
    try:
        other()
        while time.monotonic() < began + (2 * LAG if which == "replication" else CUT):
            other()
    finally:
        relay.mend()
    assert load.more(10, "standby", "fresh") < 8
    held(load, servers, slowest=SILENCE)


def test_connections_are_broken_again_and_again(servers: Pair, load: Load) -> None:
    for _ in range(10):
        servers.to_standby.break_connections()
        servers.to_primary.break_connections()
        time.sleep(0.3)
    failed = held(load, servers, slowest=3_000).failed_writes
    assert all("closed" in message for message in failed), failed


def test_the_standby_falls_back(servers: Pair, load: Load) -> None:
    servers.standby.execute("SELECT pg_wal_replay_pause()")
    began = time.monotonic()
    load.more(50, "primary", "behind")
    while time.monotonic() < began + 2 * LAG:
        load.more(50, "primary", "behind", "own writes")
    servers.standby.execute("SELECT pg_wal_replay_resume()")
    assert load.more(10, "standby", "fresh") < 5
    assert held(load, servers, slowest=3_000).failed_writes == {}


def test_a_failover(short_folder: Path) -> None:
    """The primary is lost for good, a standby promoted, and both URLs name both: nobody starts anything again."""
    with pair(short_folder / "failover") as servers:
        ports = f"{servers.primary.port},{servers.standby.port}"
        hosts = "127.0.0.1,127.0.0.1"
        url = make_conninfo(servers.url, host=hosts, port=ports, target_session_attrs="read-write")
        reads = make_conninfo(servers.url, host=hosts, port=ports, target_session_attrs="prefer-standby")
        store = store_on(servers, max_lag=LAG, url=url, read_url=reads)
        fill(store, 200)
        with Load(servers, store, pause=0.02, others=False) as load:
            load.more(100, "standby", "fresh")
            servers.primary.confirm_on_standby()  # what is acknowledged is on both
            load.more(20, "standby", "fresh")
            servers.primary.kill()
            load.more(50, "standby", "primary away")
            servers.standby.promote()
            written = load.written()
            assert load.until(lambda: load.written() > written + 20) < 10
            load.more(100, "standby")
        report = load.verify(servers.standby.tcp())
        assert (report.failed_reads, report.missed_own, report.lost) == ({}, 0, [])
        store.close()
