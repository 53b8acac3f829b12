"""The indexes of the documents tables: there, whole, for the right distance, used by the searches, and in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from psycopg.sql import SQL, Identifier, Literal

from database.document_queries import DocumentsTable
from database.health.finding import Finding, Kind, right, unknown
from database.health.patient import Patient, Table
from database.index_variants import KnownIndexes
from database.metadata_fields import STATISTICS
from database.ranking import Ranking
from database.search_queries import Searches
from database.sql import statements

SUBJECT = "indexes"
NEEDS_SCHEMA = True

SMALL = 20_000
"""Rows of a table whose index is built within seconds; and up to which comparing every embedding is no fault of the planner."""

INDEX_MISSING = Kind(
    code="index_missing",
    subject=SUBJECT,
    severity="warning",
    means="A documents table has no index for its embeddings.",
    why="Each search compares every embedding: right, but slow.",
    mended="`CREATE INDEX CONCURRENTLY …`; `python synapse.py database reindex` shows how far it is.",
)
INDEX_OTHER_DISTANCE = Kind(
    code="index_other_distance",
    subject=SUBJECT,
    severity="warning",
    means="A documents table's index is for another distance than the searches', cosine.",
    why="No search can use it, and every write pays for it.",
    mended="An index for cosine distance built beside it, and the other one dropped.",
)
INDEX_INVALID = Kind(
    code="index_invalid",
    subject=SUBJECT,
    severity="warning",
    means="An index is not valid: its build was interrupted.",
    why="No search uses it, and every write pays for it.",
    mended="`DROP INDEX CONCURRENTLY` where another does its work, else `REINDEX INDEX CONCURRENTLY`.",
)
INDEX_UNUSED = Kind(
    code="index_unused",
    subject=SUBJECT,
    severity="warning",
    means="The index is there, but the searches' own statement does not use it.",
    why="Each search compares every embedding: right, but slow.",
    mended="The setting that forbids it, or `ANALYZE` where the planner knows too little of the table.",
)
INDEX_BEYOND_SHARED_BUFFERS = Kind(
    code="index_beyond_shared_buffers",
    subject=SUBJECT,
    severity="advice",
    means="A documents table's index is larger than `shared_buffers`.",
    why="A search walks all over the index; what is not in shared_buffers comes from the operating system's cache, more slowly.",
    mended="`ALTER SYSTEM SET shared_buffers`, up to about a quarter of the memory, and a restart; or halfvec.",
)
INDEX_BEYOND_MEMORY = Kind(
    code="index_beyond_memory",
    subject=SUBJECT,
    severity="warning",
    means="A documents table's index is larger than all memory for caches, `effective_cache_size`.",
    why="Each search waits for the disk many times.",
    mended="More memory; halfvec; partitions. Or `effective_cache_size` as it really is.",
)
BULK_LOAD_UNFINISHED = Kind(
    code="bulk_load_unfinished",
    subject=SUBJECT,
    severity="warning",
    means="A bulk load was killed: its table's indexes are dropped and its keyword tables rest.",
    why="Searches are slow, and by words they do not find what was loaded.",
    mended="The same load again, which ends what it had begun; or the statements that the finding shows.",
)
KINDS = (
    INDEX_MISSING,
    INDEX_OTHER_DISTANCE,
    INDEX_INVALID,
    INDEX_UNUSED,
    INDEX_BEYOND_SHARED_BUFFERS,
    INDEX_BEYOND_MEMORY,
    BULK_LOAD_UNFINISHED,
)

_SQL = statements(Path(__file__).with_suffix(".sql"))
_NOTE = "synapse bulk load "


def look_at_invalid_indexes(patient: Patient) -> Iterator[Finding]:
    """Leftovers of builds that are not under way any more, on any table of ours."""
    for row in patient.ask(_SQL["invalid"], as_owner=True):
        if row["replaced"]:
            cure = f"DROP INDEX CONCURRENTLY IF EXISTS {row['name']}"
        else:
            cure = f"REINDEX INDEX CONCURRENTLY {row['name']}"
        yield INDEX_INVALID.sql(
            f"Index {row['name']} of {row['table_name']} is not valid"
            f"{', and another does its work' if row['replaced'] else ''}.",
            cure,
            fixable=row["replaced"] or row["rows"] <= SMALL,
        )


def look_at_search_indexes(patient: Patient) -> Iterator[Finding]:
    """Each documents table's: there, for cosine distance, used, and in memory."""
    described = []
    for table in patient.present_tables:
        known = patient.ask(_SQL["indexes"], {"oid": table.oid}, as_owner=True)
        if table.is_loading:
            yield from _loading(patient, table)
            continue
        serving = [row for row in known if row["valid"] and row["cosine"] and row["whole"]]
        if not serving and not any(not row["valid"] for row in known):
            yield _missing(table, known)
        if not serving:
            continue
        yield from _use(patient, table)
        size = max(row["bytes"] for row in serving)
        yield from _size(patient, table, serving[0]["name"], size)
        described.append(f"{table.shown}: {_megabytes(size)} for about {table.rows:,} documents")
    if described:
        yield right(
            SUBJECT, "; ".join(described[:3]) + (f" and {len(described) - 3} more" if len(described) > 3 else "")
        )


def _missing(table: Table, known: list[dict[str, Any]]) -> Finding:
    name = f"{table.name}_hnsw_index"
    creation = SQL(_SQL["creation"]).format(
        name=Identifier(name), table=table.identifier, operators=SQL(f"{table.column_type}_cosine_ops")
    )
    cheap = table.rows <= SMALL
    if others := [row["name"] for row in known if row["valid"] and not row["cosine"]]:
        drops = [
            SQL("DROP INDEX CONCURRENTLY {}").format(Identifier(table.schema, other)).as_string() for other in others
        ]
        return INDEX_OTHER_DISTANCE.sql(
            f"{table.shown} is searched by cosine distance, but its index {others[0]} is for another.",
            *drops,
            creation.as_string(),
        )
    return INDEX_MISSING.sql(
        f"{table.shown} with about {table.rows:,} documents has no index for its embeddings.",
        creation.as_string(),
        fixable=cheap,
    )


def _loading(patient: Patient, table: Table) -> Iterator[Finding]:
    if patient.ask(_SQL["load_runs"], {"oid": table.oid}, as_owner=True)[0]["runs"]:
        yield unknown(SUBJECT, f"{table.shown} is being loaded right now")
        return
    note = json.loads((table.note or "").removeprefix(_NOTE))
    mending = [index["definition"].replace(" INDEX ", " INDEX IF NOT EXISTS ", 1) for index in note["indexes"]]
    for trigger in note["triggers"]:
        enable = SQL("ALTER TABLE {} ENABLE TRIGGER {}").format(table.identifier, Identifier(trigger["name"]))
        mending.append(enable.as_string())
    for index in note["indexes"]:
        if "_field_" in index["name"]:  # a definition does not tell how much is kept of an expression's values
            mending.append(f"ALTER INDEX {index['name']} ALTER COLUMN 1 SET STATISTICS {STATISTICS}")
    mending.append(f"SELECT synapse_rebuild_keywords({Literal(table.quoted).as_string()})")
    if note.get("forced"):
        mending.append(f"ALTER TABLE {table.quoted} FORCE ROW LEVEL SECURITY")
    mending.append(f"COMMENT ON TABLE {table.quoted} IS {Literal(note['comment']).as_string()}")
    mending.append(f"ANALYZE {table.quoted}")
    yield BULK_LOAD_UNFINISHED.sql(f"A bulk load into {table.shown} has begun, and none is under way.", *mending)


def _use(patient: Patient, table: Table) -> Iterator[Finding]:
    """
    What the planner says of the store's own statement. It may rightly compare every embedding of a small table; so it is asked
    again with that forbidden.
    """
    if not patient.has_tenant(table.tenant):
        return
    plain, forced = (_is_used(patient, table, forced=forced) for forced in (False, True))
    forbidding = patient.ask(_SQL["forbidding"])
    if plain or (forced and not forbidding and table.rows <= SMALL):
        return
    what = f"Searches of {table.shown}, about {table.rows:,} documents, do not use its index"
    if forbidding:
        name = forbidding[0]["name"]
        yield patient.mending(INDEX_UNUSED, f"{what}: {name} is off.", setting=name, value="on")
    else:
        yield INDEX_UNUSED.sql(f"{what}, though it could.", f"ANALYZE {table.quoted}", fixable=True)


def _is_used(patient: Patient, table: Table, *, forced: bool) -> bool:
    described = DocumentsTable(
        schema_name=table.schema,
        name=table.name,
        dimension=table.column_dimension or 0,
        vector_type=table.column_type or "vector",
        vector_function="cosine_similarity",
        language=table.language,
    )
    known = KnownIndexes(table.identifier, vector_type=described.vector_type)
    known.remember(patient.ask(known.question, as_owner=True))
    searches = Searches(
        table=described, exact=False, ef_search=patient.configured.ef_search, ranking=Ranking.of(None), indexes=known
    )
    query = searches.nearest(
        [1.0] * described.dimension, filters=None, top_k=10, vector_function=None, with_embedding=False
    )
    settings = dict(query.settings) | ({"enable_seqscan": "off"} if forced else {})
    params = {**query.params, "embedding": query.params["embedding"].to_text()}
    with patient.transaction(tenant=table.tenant) as connection:
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, true)", (name, value))
        statement = query.statement.as_string(connection).replace("%(embedding)b", "%(embedding)s")
        plan = connection.execute("EXPLAIN (FORMAT JSON) " + statement, params).fetchall()
        names = {row["name"] for row in connection.execute(_SQL["names"], {"oid": table.oid}).fetchall()}
    nodes = list(_nodes(plan[0]["QUERY PLAN"][0]["Plan"]))
    # Without a scan, row-level security lets this role see no row of the table: that is another finding.
    return not any("Relation Name" in node for node in nodes) or any(node.get("Index Name") in names for node in nodes)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _size(patient: Patient, table: Table, name: str, size: int) -> Iterator[Finding]:
    buffers, cache = patient.setting("shared_buffers"), patient.setting("effective_cache_size")
    if buffers is None or cache is None:
        yield unknown(SUBJECT, "how much memory the server has is not shown")
        return
    index = f"Index {name} has {_megabytes(size)}"
    if size > max(cache, buffers):
        yield INDEX_BEYOND_MEMORY.text(
            f"{index}, and effective_cache_size is {_megabytes(cache)}.",
            "Give the server more memory, or let it know what it has: ALTER SYSTEM SET effective_cache_size = '…' to three "
            "quarters of the memory; docs/indexes.md has halfvec and partitions.",
        )
    elif size > buffers:
        larger = f"{-(-size * 3 // 2 // 2**20)}MB"
        what = f"{index}, and shared_buffers is {_megabytes(buffers)}."
        yield patient.mending(INDEX_BEYOND_SHARED_BUFFERS, what, setting="shared_buffers", value=larger)


def _megabytes(size: int) -> str:
    if size < 2**20:
        return f"{max(size, 0) // 1024} kB"
    return f"{size / 2**20:.0f} MB" if size < 2**30 else f"{size / 2**30:.1f} GB"


CHECKS = (look_at_invalid_indexes, look_at_search_indexes)
