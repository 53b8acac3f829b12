"""Migrations that have begun and not ended."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from database.health.finding import Finding, Kind, right
from database.health.patient import Patient
from database.sql import statements
from database.tenancy import DEFAULT_TENANT

SUBJECT = "migrations"
NEEDS_SCHEMA = True

MIGRATION_UNFINISHED = Kind(
    code="migration_unfinished",
    subject=SUBJECT,
    severity="advice",
    means="A migration has begun more than an hour ago and has not ended.",
    why="Some of its records are here and some are not.",
    mended="The same command again, which goes on where it was; or `python synapse.py migrate rollback ID`.",
)
KINDS = (MIGRATION_UNFINISHED,)

_SQL = statements(Path(__file__).with_suffix(".sql"))


def look_at_migrations(patient: Patient) -> Iterator[Finding]:
    """Runs of every tenant stand in one table, which the tenant default reads."""
    tenant = DEFAULT_TENANT if patient.has_tenant(DEFAULT_TENANT) else None
    rows = patient.ask(_SQL["unfinished"], tenant=tenant)
    for row in rows:
        yield MIGRATION_UNFINISHED.shell(
            f"Migration {row['id']} from {row['source_kind']} has begun on {row['started_at']:%Y-%m-%d %H:%M}, has written "
            f"{row['inserted']:,} documents, and has not ended.",
            f"python synapse.py migrate rollback {shlex.quote(row['id'])}",
        )
    if not rows:
        yield right(SUBJECT, "none is unfinished")


CHECKS = (look_at_migrations,)
