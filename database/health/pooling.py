"""Whether a pooler stands between, and what it shares: a connection's session, or its transactions, or its statements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import psycopg

from database.health.finding import Finding, Kind, right
from database.health.patient import Patient

SUBJECT = "pooler"
NEEDS_SCHEMA = False
Mode = Literal["none", "session", "transaction", "statement"]

POOLER_STATEMENT = Kind(
    code="pooler_statement",
    subject=SUBJECT,
    severity="fault",
    means="`DATABASE_URL` leads through a pooler in statement mode.",
    why="It refuses transactions; a document and its ledger row are one, and a tenant's role is taken for one.",
    mended="`pool_mode = transaction` in the pooler's settings, or a direct connection.",
)
POOLER_OWNER = Kind(
    code="pooler_owner",
    subject=SUBJECT,
    severity="warning",
    means="`DATABASE_OWNER_URL` leads through a pooler in transaction mode.",
    why="Upgrades, index builds and bulk loads hold locks and settings for a session; there, each transaction has another.",
    mended="`DATABASE_OWNER_URL` with the server's own host and port.",
)
KINDS = (POOLER_STATEMENT, POOLER_OWNER)

_WAYS = {
    "none": "no pooler is seen",
    "session": "through a pooler in session mode",
    "transaction": "through a pooler in transaction mode",
}


def pool_mode(conninfo: str) -> Mode:
    """
    What a pooler shares among clients, as far as two connections can tell.

    A pooler gives clients a cancel key of its own, so that the process number of the handshake is not the backend's.

    :raises psycopg.Error: If there is no connection.
    """
    with _opened(conninfo) as first, _opened(conninfo) as second:
        backend = _backend(first)
        if backend == first.info.backend_pid:
            return "none"
        for _ in range(3):
            try:
                second.execute("BEGIN")
            except psycopg.Error:
                return "statement"
            if _backend(second) == backend or _backend(first) != backend:
                return "transaction"
            second.execute("COMMIT")
    return "session"


def look_at_pooler(patient: Patient) -> Iterator[Finding]:
    """Whether transactions go through it whole, and sessions of the owner."""
    mode = pool_mode(patient.application.conninfo)
    if mode == "statement":
        yield POOLER_STATEMENT.text(
            f"The pooler of {patient.name} is in statement mode.",
            "Set pool_mode = transaction in the pooler's settings and reload it, or set DATABASE_URL to the server itself.",
        )
        return
    if patient.owner is not None and pool_mode(patient.owner.conninfo) in ("transaction", "statement"):
        yield POOLER_OWNER.text(
            f"The owner's connection, {patient.owner.name}, goes through a pooler in transaction mode.",
            "Set DATABASE_OWNER_URL to the server's own host and port; on Supabase, port 5432.",
        )
    yield right(SUBJECT, _WAYS[mode])


def _opened(conninfo: str) -> psycopg.Connection[Any]:
    return psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)


def _backend(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return int(row[0]) if row else 0


CHECKS = (look_at_pooler,)
