"""What the index is worth: the newest recall certificate, and whether it still speaks of this table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from database.certificates import newest_in
from database.health.finding import Finding, Kind, right
from database.health.patient import Patient
from database.tenancy import DEFAULT_TENANT

SUBJECT = "recall"
NEEDS_SCHEMA = True

LARGE = 10_000
"""Rows from which on an index is measured: below, it finds all but everything."""

OLD_DAYS = 180
GROWN = 1.5
LOW = 0.95

RECALL_UNKNOWN = Kind(
    code="recall_unknown",
    subject=SUBJECT,
    severity="advice",
    means="A table of more than 10,000 documents has no recall certificate.",
    why="How much an approximate index loses depends on the documents; nobody has looked.",
    mended="`python synapse.py recall`",
)
RECALL_OUTDATED = Kind(
    code="recall_outdated",
    subject=SUBJECT,
    severity="advice",
    means="The recall certificate is older than half a year, or the table is half as large again as it was.",
    why="Recall falls as a table grows, with the same settings.",
    mended="`python synapse.py recall`",
)
RECALL_LOW = Kind(
    code="recall_low",
    subject=SUBJECT,
    severity="warning",
    means="The newest recall certificate has less than 0.95 with the settings of its time.",
    why="One of twenty documents that should be found is not.",
    mended="`HNSW_EF_SEARCH` as `python synapse.py recall` recommends it, and measured again.",
)
KINDS = (RECALL_UNKNOWN, RECALL_OUTDATED, RECALL_LOW)


def look_at_certificates(patient: Patient) -> Iterator[Finding]:
    """The newest one of each table that questions go to."""
    known = []
    for table in patient.present_tables:
        if not table.active or not patient.has_tenant(table.tenant):
            continue
        command = "python synapse.py recall"
        if table.tenant != DEFAULT_TENANT:
            command = f"SYNAPSE_TENANT={table.tenant} {command}"
        with patient.transaction(tenant=table.tenant) as connection:
            newest = newest_in(connection, table.name, tenant=table.tenant)
        if newest is None:
            if table.rows > LARGE:
                yield RECALL_UNKNOWN.shell(
                    f"{table.shown}, about {table.rows:,} documents, was never measured.", command
                )
            continue
        days = (datetime.fromtimestamp(patient.now(), UTC) - newest.measured_at).days
        if newest.recall < LOW:
            yield RECALL_LOW.text(
                f"{table.shown} returned {newest.recall:.1%} of the nearest {newest.top_k} with ef_search {newest.ef_search}, "
                f"measured on {newest.measured_at:%Y-%m-%d}.",
                f"Run {command}, set HNSW_EF_SEARCH as it recommends, and run it again.",
            )
        elif days > OLD_DAYS or (table.rows > LARGE and table.rows > GROWN * newest.rows):
            yield RECALL_OUTDATED.shell(
                f"{table.shown} was measured {days} days ago with {newest.rows:,} documents, and has about {table.rows:,}.",
                command,
            )
        known.append(f"{newest.recall:.1%} of {table.shown}, {days} days ago")
    yield right(SUBJECT, "; ".join(known) or "not measured, and not needed for small tables")


CHECKS = (look_at_certificates,)
