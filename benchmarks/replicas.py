"""
A primary and its standby under load: what each fault does to reads and writes, and what connections and the standby cost.

    python -m benchmarks.replicas [--fault NAME ...] [--cut 10] [--max-lag 5] [--searches 1000]

Both servers run here, and so do the clients: seconds until the other server is read are of interest, not reads per second.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from benchmarks.measuring import in_turn, p50, p95
from database.connection import Database
from database.document_store import SynapseDocumentStore
from tests.support.replica_load import DIMENSION, Load, fill, store_on
from tests.support.standby import Pair, pair

DOCUMENTS = 10_000


def connections(pair: Pair, *, count: int) -> dict[str, float]:
    """Milliseconds: a first connection, as far as a program's first statement, and one from the pool, over TCP with a password."""
    url = pair.primary.application()  # no relay between
    first = []
    for _ in range(max(20, count // 10)):
        database = Database(url)
        began = time.perf_counter()
        with database.unpooled() as connection:
            connection.execute("SELECT 1")
        first.append((time.perf_counter() - began) * 1000)
    opening = []
    for _ in range(20):
        database = Database(url)
        began = time.perf_counter()
        database.read("SELECT 1")
        opening.append((time.perf_counter() - began) * 1000)
        database.close()
    database = Database(url)
    pooled, read = [], []
    for _ in range(count):
        began = time.perf_counter()
        with database._checked_out(check=False):
            pooled.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        database.read("SELECT 1")
        read.append((time.perf_counter() - began) * 1000)
    database.close()
    times = {"first_connection": first, "first_read_of_a_pool": opening, "from_the_pool": pooled, "read_of_a_row": read}
    return {f"{name}_{part.__name__}_ms": part(found) for name, found in times.items() for part in (p50, p95)}


def searches(pair: Pair, *, count: int, max_lag: float) -> dict[str, float]:
    """Milliseconds of a search of the primary alone, and of one that may go to the standby, by turns; nothing is written."""
    plain = SynapseDocumentStore(
        connection_string=store_on(pair, max_lag=max_lag, url=pair.primary.application()).connection_string
    )
    reading = store_on(pair, max_lag=max_lag, url=pair.primary.application(), read_url=pair.standby.application())
    replica: Any = reading.reading.replica  # type: ignore[union-attr]
    questions = np.random.default_rng(1).normal(size=(count, DIMENSION)).tolist()
    while not replica.reads["standby", "fresh"]:
        reading.dense_search(questions[0])
    sides: dict[str, Callable[[int], Any]] = {
        "primary": lambda n: plain.dense_search(questions[n]),
        "standby": lambda n: reading.dense_search(questions[n]),
    }
    times, _ = in_turn(sides, calls=count, warm_up=20)
    where = Counter({server: sum(n for (name, _), n in replica.reads.items() if name == server) for server in sides})
    plain.close()
    return {
        **{f"{side}_p50_ms": p50(times[side]) for side in sides},
        **{f"{side}_p95_ms": p95(times[side]) for side in sides},
        "read_from_standby": where["standby"] / sum(where.values()),
    }


def faults(pair: Pair, *, cut: float) -> dict[str, tuple[Callable[[Load], float], Callable[[Load], Any]]]:
    """What is done, and undone: the first says how many seconds passed until the other server was read."""

    def silent(name: str, after: Callable[[Load], float]) -> tuple[Callable[[Load], float], Callable[[Load], Any]]:
        relay = getattr(pair, name)

        def do(load: Load) -> float:
            began = time.monotonic()
            relay.fall_silent()
            took = after(load)
            time.sleep(max(0.0, began + cut - time.monotonic()))
            return took

        return do, lambda _: relay.mend()

    def stopped(server: Any, after: Callable[[Load], float]) -> tuple[Callable[[Load], float], Callable[[Load], Any]]:
        def do(load: Load) -> float:
            server.kill()
            took = after(load)
            time.sleep(cut)
            return took

        return do, lambda _: server.go_on()

    def paused(load: Load) -> float:
        pair.standby.execute("SELECT pg_wal_replay_pause()")
        took = load.more(20, "primary", "behind")
        time.sleep(cut)
        return took

    to_primary = lambda load: load.more(20, "primary", "standby away")  # noqa: E731
    to_standby = lambda load: load.more(20, "standby", "primary away")  # noqa: E731
    behind = lambda load: load.more(20, "primary", "behind")  # noqa: E731
    return {
        "standby stopped": stopped(pair.standby, to_primary),
        "primary stopped": stopped(pair.primary, to_standby),
        "standby cut off from clients": silent("to_standby", to_primary),
        "primary cut off from clients": silent("to_primary", to_standby),
        "standby cut off from primary": silent("replication", behind),
        "replay paused": (paused, lambda _: pair.standby.execute("SELECT pg_wal_replay_resume()")),
    }


def suffered(pair: Pair, do: Callable[[Load], float], undo: Callable[[Load], Any], *, max_lag: float) -> dict[str, Any]:
    """What a fault did to a load."""
    store = store_on(pair, max_lag=max_lag)
    with Load(pair, store, pause=0.01) as load:
        load.more(100, "standby", "fresh")
        away = do(load)
        undo(load)
        began, written = time.monotonic(), load.written()
        back = load.more(5, "standby", "fresh", seconds=60)
        load.until(lambda: load.written() > written)
        writes = time.monotonic() - began
        load.more(100, "standby", "fresh")
    report = load.verify(pair.primary.tcp())
    store.close()
    return {
        "other_server_after_s": round(away, 2),
        "standby_again_after_s": round(back, 2),
        "writes_again_after_s": round(writes, 2),
        "reads": sum(report.reads.values()),
        "by": {f"{server}, {why}": n for (server, why), n in sorted(report.reads.items())},
        "reads_failed": sum(report.failed_reads.values()),
        "own_writes_missed": report.missed_own,
        "too_old": report.stale,
        "slowest_read_ms": round(report.slowest),
        "writes": report.written,
        "writes_refused": sum(report.failed_writes.values()),
        "writes_lost": len(report.lost),
    }


def main() -> None:
    """Measure; print a line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", nargs="*", default=None, help="only these")
    parser.add_argument("--cut", type=float, default=10.0, help="seconds that a fault lasts")
    parser.add_argument("--max-lag", type=float, default=5.0)
    parser.add_argument("--searches", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="synapse-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        with pair(Path(name) / "pair") as made:
            print(json.dumps({"connections": connections(made, count=given.searches)}), flush=True)
            store = store_on(made, max_lag=given.max_lag)
            fill(store, DOCUMENTS)
            made.caught_up()
            found = searches(made, count=given.searches, max_lag=given.max_lag)
            print(json.dumps({"searches": found}), flush=True)
            store.delete_all_documents()
            fill(store, 200)
            with psycopg.connect(made.primary.tcp(), autocommit=True) as connection:
                connection.execute("VACUUM documents_all_minilm_l6_v2")
            store.close()
            for what, (do, undo) in faults(made, cut=given.cut).items():
                if given.fault is None or what in given.fault:
                    print(json.dumps({what: suffered(made, do, undo, max_lag=given.max_lag)}), flush=True)


if __name__ == "__main__":
    main()
