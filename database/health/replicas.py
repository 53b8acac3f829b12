"""The standby that reads go to: there, a standby of this very database, and not far behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from database.connection import Database
from database.health.finding import Finding, Kind, right
from database.health.patient import Patient
from database.sql import statements

SUBJECT = "replica"
NEEDS_SCHEMA = False
PATIENCE = 0.5
"""Seconds in which a standby that keeps up has replayed what the primary had written before."""

REPLICA_UNREACHABLE = Kind(
    code="replica_unreachable",
    subject=SUBJECT,
    severity="warning",
    means="The standby of `DATABASE_READ_URL` cannot be reached.",
    why="All reads go to the primary, which may be too much for it.",
    mended="The standby started again, or `DATABASE_READ_URL` corrected.",
)
REPLICA_OTHER = Kind(
    code="replica_other",
    subject=SUBJECT,
    severity="fault",
    means="`DATABASE_READ_URL` leads to a server that is no standby of this one.",
    why="What it has is not what is written here.",
    mended="`DATABASE_READ_URL` with a standby of `DATABASE_URL`, or without a value.",
)
REPLICA_BEHIND = Kind(
    code="replica_behind",
    subject=SUBJECT,
    severity="warning",
    means="The standby is more than 10 s behind.",
    why="Reads that may not be so old go to the primary; the others are old.",
    mended="What holds it up ended: long queries there, a slow disk or network, a stopped replay (`SELECT pg_wal_replay_resume()`).",
)
KINDS = (REPLICA_UNREACHABLE, REPLICA_OTHER, REPLICA_BEHIND)

_SQL = statements(Path(__file__).with_suffix(".sql"))


def look_at_the_replica(patient: Patient) -> Iterator[Finding]:
    """Where it stands, beside what the primary had written a moment before."""
    if not patient.configured.read_url:
        yield right(SUBJECT, "none is configured")
        return
    replica = Database(patient.configured.read_url)
    written = patient.ask(_SQL["written"])[0]
    try:
        with psycopg.connect(
            replica.conninfo, autocommit=True, prepare_threshold=None, row_factory=dict_row
        ) as connection:
            state = _caught_up(connection, written["position"])
    except psycopg.OperationalError as exc:
        yield REPLICA_UNREACHABLE.text(
            f"{replica.name} was expected to answer: {' '.join(str(exc).split())[:200]}",
            "Start the standby, or correct DATABASE_READ_URL.",
        )
        return
    late = "" if state["seconds"] is None else f", {state['seconds']:,.0f} s"
    if state["cluster"] != written["cluster"]:
        yield REPLICA_OTHER.text(
            f"{replica.name} was expected to be a standby of {patient.name}, but is another server.",
            "Set DATABASE_READ_URL to a standby of DATABASE_URL, or leave it empty.",
        )
    elif state["behind"] and (state["seconds"] is None or state["seconds"] > patient.limits.replica_lag):
        yield REPLICA_BEHIND.text(
            f"{replica.name} is {state['behind'] / 2**20:,.1f} MB of write-ahead log behind{late}.",
            "On the standby: SELECT pg_wal_replay_resume() if pg_is_wal_replay_paused(); else look in its pg_stat_activity.",
        )
    else:
        yield right(
            SUBJECT, f"{replica.name}, {'a standby that keeps up' if state['standby'] else 'which is the primary now'}"
        )


def _caught_up(connection: psycopg.Connection[Any], position: int | None) -> dict[str, Any]:
    """The standby's state as soon as it has replayed what the primary had written, or when patience is at its end."""
    deadline = time.monotonic() + PATIENCE
    while True:
        state: dict[str, Any] = connection.execute(_SQL["state"], {"position": position or 0}).fetchone() or {}
        if not state["behind"] or time.monotonic() > deadline:
            return state
        time.sleep(0.05)


CHECKS = (look_at_the_replica,)
