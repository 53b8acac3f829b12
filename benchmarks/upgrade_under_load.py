"""
What programs at work notice of an upgrade from the first schema version to the last, and of a rebuilt index.

    python -m benchmarks.upgrade_under_load [--documents 20000] [--reads 10000] [--writes 2000]

Readers search through the HNSW index, as the application and as the owner; writers add, replace and delete sources of three
chunks with their ledger rows. Half of them are programs from before tenants. All operations fall between the upgrade's first
step and its last: each version begins when its share of them is done. Afterwards every write is looked for. Ends with 5 if an
operation failed, a write is lost, or one took a second.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.measuring import MISSED
from benchmarks.stores import benchmark_server
from database import schema
from database.connection import Database
from database.embedded import APPLICATION_ROLE
from database.online import SchemaProgress
from database.reindex import reindex
from tests.support.schema_versions import TABLE, checksum, fill, require_keywords
from tests.support.traffic import Client, Traffic

WORST_STALL = 1000.0
"""Milliseconds that a write may take at most."""

PAUSE = 0.002
DATABASE = "upgraded"
VERSIONS = ("0002", "0003", "0004", "0005", "0006")


class Shares:
    """Lets each version begin when its share of the operations is done."""

    def __init__(self, traffic: Traffic, *, reads: int, writes: int) -> None:
        self.traffic, self.reads, self.writes = traffic, reads, writes
        self.begun: set[str] = set()
        self.steps: dict[str, float] = {}
        self._last: tuple[str, float] | None = None

    def __call__(self, step: SchemaProgress) -> None:
        now = time.monotonic()
        if self._last is not None:
            name, began = self._last
            self.steps[name] = round(self.steps.get(name, 0.0) + now - began, 3)
        if step.version in VERSIONS and step.version not in self.begun:
            share = len(self.begun) / len(VERSIONS)
            self.begun.add(step.version)
            self.traffic.wait(reads=int(share * self.reads), writes=int(share * self.writes))
        self._last = (f"{step.version} {step.step}", time.monotonic())


def under_load(traffic: Traffic, work: Callable[[], object], *, reads: int, writes: int) -> dict[str, Any]:
    """What traffic says of it, and how long it took."""
    with traffic:
        began = time.monotonic()
        work()
        seconds = time.monotonic() - began
        during = {"reads": traffic.reads, "writes": traffic.writes}
        traffic.wait(reads=reads, writes=writes)
    return {"work_seconds": round(seconds, 1), "during": during, **traffic.report().to_dict()}


def measure(conninfo: str, *, documents: int, reads: int, writes: int) -> dict[str, Any]:
    """An upgrade and a rebuilt index, each under its own traffic."""
    application = make_conninfo(conninfo, user=APPLICATION_ROLE)
    old = [Client(conninfo=application), Client(conninfo=conninfo)]
    new = Client(conninfo=application, role="synapse_tenant_default")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        fill(connection, documents)
        before = checksum(connection)

        traffic = Traffic(readers=[*old, *old], writers=old, pause=PAUSE, seed=1)
        shares = Shares(traffic, reads=reads, writes=writes)
        upgrade = partial(schema.upgrade, conninfo, on_progress=shares)
        found = {"upgrade": under_load(traffic, upgrade, reads=reads, writes=writes)}
        longest = sorted(shares.steps.items(), key=lambda item: -item[1])[:8]
        found["upgrade"]["longest_steps_seconds"] = dict(longest)

        owner = Database(conninfo).for_tenant("default")
        traffic = Traffic(readers=[*old, new, new], writers=[old[0], new], pause=PAUSE, seed=2)
        found["reindex"] = under_load(traffic, partial(reindex, owner, TABLE), reads=reads, writes=writes)
        owner.close()

        require_keywords(connection)
        if checksum(connection) != before:
            raise SystemExit("documents that nobody changed are not as they were")
    return found


def missed(report: dict[str, Any]) -> list[str]:
    """What a report falls short of."""
    short = [f"failed: {message} ({count} times)" for message, count in report["failures"].items()]
    short += report["wrong"]
    if report["writes"]["worst"] >= WORST_STALL:
        short.append(f"worst write {report['writes']['worst']} ms")
    return short


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and compare with the thresholds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--reads", type=int, default=10_000)
    parser.add_argument("--writes", type=int, default=2_000)
    options = parser.parse_args(arguments)
    with benchmark_server() as server:
        with psycopg.connect(server.conninfo(owner=True), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        found = measure(
            server.conninfo(owner=True, dbname=DATABASE),
            documents=options.documents,
            reads=options.reads,
            writes=options.writes,
        )
    print(json.dumps({"documents": options.documents, **found}, indent=2))
    short = [f"{what}: {line}" for what, report in found.items() for line in missed(report)]
    for line in short:
        print(line, file=sys.stderr)
    return MISSED if short else 0


if __name__ == "__main__":
    raise SystemExit(main())
