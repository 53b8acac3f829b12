"""How long it takes to reach the server, and what time it is there."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg

from database.connection import wrapped
from database.health.finding import Finding, Kind, right
from database.health.patient import Patient

SUBJECT = "connection"
NEEDS_SCHEMA = False

CONNECTION_SLOW = Kind(
    code="connection_slow",
    subject=SUBJECT,
    severity="advice",
    means="A first connection takes longer than a second, or an open one longer than 50 ms to answer.",
    why="A question waits for the server once or twice; far away, that is most of its time.",
    mended="Run the program near the server, in the same region; put a pooler beside the program.",
)
CLOCK_SKEW = Kind(
    code="clock_skew",
    subject=SUBJECT,
    severity="warning",
    means="The server's clock and this machine's differ by more than 5 s.",
    why="Limits per minute and day, and what counts as new, go by the server's clock; sessions of the page by this one's.",
    mended="Synchronise both clocks (`timedatectl set-ntp true`).",
)
OWNER_UNREACHABLE = Kind(
    code="owner_unreachable",
    subject=SUBJECT,
    severity="warning",
    means="`DATABASE_OWNER_URL` does not connect.",
    why="Upgrades, models, tenants and index builds go through it.",
    mended="`DATABASE_OWNER_URL` corrected: host, port, user, password.",
)
KINDS = (CONNECTION_SLOW, CLOCK_SKEW, OWNER_UNREACHABLE)


def look_at_the_way(patient: Patient) -> Iterator[Finding]:
    """A first connection, and the round trips of an open one; the quickest of five, as a busy machine makes some wait."""
    started = time.perf_counter()
    with psycopg.connect(patient.application.conninfo, autocommit=True, prepare_threshold=None) as connection:
        first = (time.perf_counter() - started) * 1000
        trips, skews = [], []
        for _ in range(5):
            started, before = time.perf_counter(), patient.now()
            row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
            trips.append((time.perf_counter() - started) * 1000)
            skews.append(_skew(float(row[0]) if row else before, before=before, after=patient.now()))
    trip, skew = min(trips), min(skews, key=abs)
    sentence = f"{patient.name}: {first:.0f} ms to connect, {trip:.1f} ms to ask and be answered"
    if first > patient.limits.first_connection_ms or trip > patient.limits.round_trip_ms:
        yield CONNECTION_SLOW.text(f"{sentence}.", "Run the program in the region of the server.")
    else:
        yield right(SUBJECT, sentence)
    if abs(skew) > patient.limits.clock_skew:
        yield CLOCK_SKEW.text(
            f"The server's clock is {abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's.",
            "Synchronise both clocks: timedatectl set-ntp true.",
        )


def look_at_the_owner(patient: Patient) -> Iterator[Finding]:
    """Whether the owner can connect; if not, the application looks at what it can."""
    if patient.owner is None:
        return
    try:
        psycopg.connect(patient.owner.conninfo, autocommit=True).close()
    except psycopg.Error as exc:
        error = wrapped(exc, name=patient.owner.name)
        patient.owner = None
        yield OWNER_UNREACHABLE.text(error.message, error.hint.replace("DATABASE_URL", "DATABASE_OWNER_URL"))


def _skew(there: float, *, before: float, after: float) -> float:
    """Seconds that the server's clock is off: its moment lies between those before and after it was asked."""
    return there - after if there > after else min(there - before, 0.0)


CHECKS = (look_at_the_way, look_at_the_owner)
