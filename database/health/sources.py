"""The ledger: files that are kept out, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from database.health.finding import Finding, Kind, right
from database.health.patient import Patient
from database.sql import statements

SUBJECT = "sources"
NEEDS_SCHEMA = True
SHOWN = 3

SOURCES_QUARANTINED = Kind(
    code="sources_quarantined",
    subject=SUBJECT,
    severity="advice",
    means="Files are kept out of the index: they could not be read, or are refused.",
    why="Nothing of them is found; an answer may be missing.",
    mended="The files mended, then `python synapse.py index PATH --retry`; or removed.",
)
KINDS = (SOURCES_QUARANTINED,)

_SQL = statements(Path(__file__).with_suffix(".sql"))


def look_at_sources(patient: Patient) -> Iterator[Finding]:
    """Of the active model, in each tenant that is looked at."""
    indexed = 0
    for tenant in patient.tenants:
        if not patient.has_tenant(tenant):
            continue
        rows = patient.ask(_SQL["sources"], {"most": SHOWN}, tenant=tenant)
        indexed += rows[0]["indexed"]
        if rows[0]["kept_out"]:
            first = "; ".join(f"{row['source']}: {row['reason']}" for row in rows)
            more = rows[0]["kept_out"] - len(rows)
            yield SOURCES_QUARANTINED.text(
                f"{rows[0]['kept_out']:,} of {rows[0]['kept_out'] + rows[0]['indexed']:,} sources"
                f"{'' if tenant == 'default' else f' of {tenant}'} are kept out: {first}{f'; and {more:,} more' if more else ''}.",
                "Mend the files, then run python synapse.py index PATH --retry.",
            )
    yield right(SUBJECT, f"{indexed:,} indexed")


CHECKS = (look_at_sources,)
