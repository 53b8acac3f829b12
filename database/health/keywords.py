"""The keyword tables, which the search by words reads: there, kept by their triggers, and in step with the documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from psycopg.sql import SQL, Identifier, Literal

from database.health.finding import Finding, Kind, right
from database.health.models import creation
from database.health.patient import Patient, Table
from database.sql import statements

SUBJECT = "keywords"
NEEDS_SCHEMA = True

COUNTED = 20_000
"""Tables up to this many rows are compared whole, larger ones by some pages."""

SAMPLED_PAGES = 200

TRIGGERS = (
    "synapse_keywords_insert",
    "synapse_keywords_update",
    "synapse_keywords_delete",
    "synapse_keywords_truncate",
)

KEYWORD_TABLES_MISSING = Kind(
    code="keyword_tables_missing",
    subject=SUBJECT,
    severity="fault",
    means="A documents table has no keyword tables.",
    why="Every write to it and every search by words fails.",
    mended="Its triggers dropped, then `SELECT synapse_create_documents_table(…)`, which makes and fills them.",
)
KEYWORD_TRIGGERS_OFF = Kind(
    code="keyword_triggers_off",
    subject=SUBJECT,
    severity="fault",
    means="Triggers that keep the keyword tables are missing or disabled.",
    why="What is written is not found by its words, and what is deleted still counts.",
    mended="`ALTER TABLE … ENABLE TRIGGER …`, or the triggers made again; then `SELECT synapse_rebuild_keywords(…)`.",
)
KEYWORDS_OUT_OF_STEP = Kind(
    code="keywords_out_of_step",
    subject=SUBJECT,
    severity="warning",
    means="Documents are missing in the keyword tables, or stand there though they are gone.",
    why="The search by words does not find them, or counts words that nobody has.",
    mended="`SELECT synapse_rebuild_keywords(…)`; writers wait meanwhile, some seconds per 100,000 documents.",
)
KEYWORD_INDEX_MISSING = Kind(
    code="keyword_index_missing",
    subject=SUBJECT,
    severity="warning",
    means="A keywords table has lost the index of its terms.",
    why="Each search by words reads the whole table.",
    mended="`CREATE INDEX CONCURRENTLY … USING gin (terms)`",
)
KINDS = (KEYWORD_TABLES_MISSING, KEYWORD_TRIGGERS_OFF, KEYWORDS_OUT_OF_STEP, KEYWORD_INDEX_MISSING)

_SQL = statements(Path(__file__).with_suffix(".sql"))


def look_at_keywords(patient: Patient) -> Iterator[Finding]:
    """Each documents table's; while a bulk load rests them, they are that load's."""
    count = 0
    for table in patient.present_tables:
        if table.is_loading:
            continue
        count += 1
        row = patient.ask(_SQL["parts"], {"schema": table.schema, "name": table.name, "oid": table.oid}, as_owner=True)[
            0
        ]
        if not (row["keywords"] and row["terms"]):
            yield _without_tables(table)
        elif row["on"] != sorted(TRIGGERS):
            yield _without_triggers(table, known=row["known"], on=row["on"])
        else:
            yield from _compared(patient, table)
            if not row["indexed"]:
                yield _without_index(table)
    yield right(SUBJECT, f"{count} {'table' if count == 1 else 'tables'} in step with the documents")


def _without_tables(table: Table) -> Finding:
    drops = [_on_trigger("DROP TRIGGER IF EXISTS {name} ON {table}", table, name) for name in TRIGGERS]
    return KEYWORD_TABLES_MISSING.sql(f"{table.shown} has lost a keyword table.", *drops, *creation(table))


def _without_triggers(table: Table, *, known: list[str], on: list[str]) -> Finding:
    missing = [name for name in TRIGGERS if name not in known]
    off = [name for name in TRIGGERS if name in known and name not in on]
    if missing:
        drops = [_on_trigger("DROP TRIGGER IF EXISTS {name} ON {table}", table, name) for name in TRIGGERS]
        return KEYWORD_TRIGGERS_OFF.sql(
            f"{table.shown} has lost {', '.join(missing)}.",
            *drops,
            *creation(table),
        )
    enable = [_on_trigger("ALTER TABLE {table} ENABLE TRIGGER {name}", table, name) for name in off]
    return KEYWORD_TRIGGERS_OFF.sql(f"{table.shown} has disabled {', '.join(off)}.", *enable, _rebuilding(table))


def _compared(patient: Patient, table: Table) -> Iterator[Finding]:
    if not patient.has_tenant(table.tenant):
        return
    whole = table.rows <= COUNTED
    pages = (
        SQL("")
        if whole
        else SQL("TABLESAMPLE SYSTEM (least(100, 100.0 * {} / {}))").format(
            Literal(SAMPLED_PAGES), Literal(max(table.bytes // 8192, 1))
        )
    )
    row = patient.ask(patient.formatted(_SQL["differences"], table, pages=pages), tenant=table.tenant)[0]
    if row["unfiled"] or row["gone"]:
        among = "" if whole else " among those of some pages"
        yield KEYWORDS_OUT_OF_STEP.sql(
            f"Of {table.shown}, {row['unfiled']} documents are missing in the keywords table, and {row['gone']} that it has are "
            f"gone{among}.",
            _rebuilding(table),
            fixable=whole,
        )


def _without_index(table: Table) -> Finding:
    keywords = Identifier(table.schema, f"{table.name}_keywords")
    creating = SQL("CREATE INDEX CONCURRENTLY {} ON {} USING gin (terms) WITH (gin_pending_list_limit = 1024)").format(
        Identifier(f"{table.name}_keywords_terms"), keywords
    )
    return KEYWORD_INDEX_MISSING.sql(
        f"{keywords.as_string()} has no index of its terms.", creating.as_string(), fixable=table.rows <= COUNTED
    )


def _rebuilding(table: Table) -> str:
    return f"SELECT synapse_rebuild_keywords({Literal(table.quoted).as_string()})"


def _on_trigger(statement: str, table: Table, name: str) -> str:
    return SQL(statement).format(name=Identifier(name), table=table.identifier).as_string()  # type: ignore[arg-type]


CHECKS = (look_at_keywords,)
