"""Declared metadata fields: their indexes, and what the planner knows of their values."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from psycopg.sql import SQL, Identifier, Literal

from database.health.finding import Finding, Kind, right, unknown
from database.health.patient import Patient
from database.metadata_fields import STATISTICS
from database.sql import statements
from database.tenancy import DEFAULT_TENANT

SUBJECT = "fields"
NEEDS_SCHEMA = True

FIELD_INDEX_MISSING = Kind(
    code="field_index_missing",
    subject=SUBJECT,
    severity="warning",
    means="A declared field has no index.",
    why="Filters on the field read the whole table.",
    mended="`python synapse.py fields declare FIELD TYPE`",
)
FIELD_STATISTICS_MISSING = Kind(
    code="field_statistics_missing",
    subject=SUBJECT,
    severity="advice",
    means="The planner has no statistics, or too few, of a declared field's values.",
    why="It guesses how many documents pass a filter, and with that which way of searching is the quickest.",
    mended=f"`ALTER INDEX … ALTER COLUMN 1 SET STATISTICS {STATISTICS}; ANALYZE …`",
)
KINDS = (FIELD_INDEX_MISSING, FIELD_STATISTICS_MISSING)

_SQL = statements(Path(__file__).with_suffix(".sql"))


def look_at_fields(patient: Patient) -> Iterator[Finding]:
    """Each declared field of each table; what a bulk load has dropped for a while is that load's."""
    sees_all = patient.owner is not None or patient.is_superuser()
    count = unseen = 0
    for table in patient.present_tables:
        if table.is_loading or not patient.has_tenant(table.tenant):
            continue
        known = {"name": table.name, "schema": table.schema}
        for row in patient.ask(_SQL["fields"], {"table_name": table.name}, tenant=table.tenant):
            count += 1
            index = next(iter(patient.ask(_SQL["index"], known | {"index": row["index_name"]}, as_owner=True)), None)
            if index is None:
                tenant = f"SYNAPSE_TENANT={table.tenant} " if table.tenant != DEFAULT_TENANT else ""
                yield FIELD_INDEX_MISSING.shell(
                    f"Field {row['name']} of {table.shown} is declared as {row['type']}, but has no index.",
                    f"{tenant}python synapse.py fields declare {shlex.quote(row['name'])} {row['type']}",
                )
            elif (index["valid"] and index["target"] != STATISTICS) or (
                sees_all and index["analysed"] is False and table.rows
            ):
                name = Identifier(table.schema, row["index_name"])
                yield FIELD_STATISTICS_MISSING.sql(
                    f"Of field {row['name']} of {table.shown} the planner "
                    f"{'knows nothing' if not index['analysed'] else 'keeps too little'}.",
                    SQL("ALTER INDEX {} ALTER COLUMN 1 SET STATISTICS {}")
                    .format(name, Literal(STATISTICS))
                    .as_string(),
                    f"ANALYZE {table.quoted}",
                    fixable=True,
                )
            unseen += not sees_all
    if unseen:
        yield unknown(SUBJECT, "statistics of their values are shown to the owner alone (DATABASE_OWNER_URL)")
    yield right(SUBJECT, f"{count} declared" if count else "none is declared")


CHECKS = (look_at_fields,)
