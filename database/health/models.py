"""Each embedding model: its table against the registry, and the registry against the model that would be loaded."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from psycopg.sql import SQL, Literal

from database.health.finding import Finding, Kind, right, unknown
from database.health.patient import Patient, Table
from database.sql import statements
from database.tenancy import search_path

SUBJECT = "models"
NEEDS_SCHEMA = True

NO_ACTIVE_MODEL = Kind(
    code="no_active_model",
    subject=SUBJECT,
    severity="fault",
    means="No embedding model is active.",
    why="Nobody knows which table questions go to.",
    mended="`python synapse.py models switch NAME`",
)
MODEL_TABLE_MISSING = Kind(
    code="model_table_missing",
    subject=SUBJECT,
    severity="fault",
    means="A registered model has no documents table.",
    why="Indexing and asking with that model fail; what the table held is gone.",
    mended="An empty one by `SELECT synapse_create_documents_table(…)`, then `index` again; or a backup.",
)
MODEL_TABLE_DIFFERS = Kind(
    code="model_table_differs",
    subject=SUBJECT,
    severity="fault",
    means="A documents table has another dimension or vector type than the registry says.",
    why="Vectors of the registered dimension do not go into it, and no question can be compared with what is there.",
    mended="The registry's row, by `UPDATE embedding_models`, as the table holds what was indexed.",
)
MODEL_UNREGISTERED = Kind(
    code="model_unregistered",
    subject=SUBJECT,
    severity="fault",
    means="`EMBEDDING_MODEL` names a model that is not registered.",
    why="It has no documents table.",
    mended="`python synapse.py models add NAME`, or another `EMBEDDING_MODEL`.",
)
MODEL_FILES_MISSING = Kind(
    code="model_files_missing",
    subject=SUBJECT,
    severity="fault",
    means="The model that questions go to cannot be used: its files are missing or damaged, or the server that embeds fails.",
    why="Neither documents nor questions can be embedded.",
    mended="As the finding says: the model's package, its folder, a download from the hub, or `EMBEDDING_BASE_URL`.",
)
MODEL_FILES_DIFFER = Kind(
    code="model_files_differ",
    subject=SUBJECT,
    severity="fault",
    means="The model's files give vectors of another dimension than the registry says.",
    why="It is another model than the one that embedded the documents.",
    mended="The right model under that name; or the other one registered by `models add`, and indexed.",
)
KINDS = (
    NO_ACTIVE_MODEL,
    MODEL_TABLE_MISSING,
    MODEL_TABLE_DIFFERS,
    MODEL_UNREGISTERED,
    MODEL_FILES_MISSING,
    MODEL_FILES_DIFFER,
)

_SQL = statements(Path(__file__).with_suffix(".sql"))


def look_at_tables(patient: Patient) -> Iterator[Finding]:
    """Every model's table, as the registry has it."""
    for table in patient.tables:
        if table.oid is None:
            yield MODEL_TABLE_MISSING.sql(f"{table.registered} has no table {table.shown}.", *creation(table))
        elif (table.column_type, table.column_dimension) != (table.vector_type, table.dimension):
            found = f"{table.column_type}({table.column_dimension})" if table.column_type else "no column embedding"
            what = f"{table.shown} was expected to hold {table.vector_type}({table.dimension}), but has {found}."
            if table.column_type in ("vector", "halfvec") and table.column_dimension:
                update = SQL(_SQL["correct_model"]).format(
                    dimension=Literal(table.column_dimension),
                    vector_type=Literal(table.column_type),
                    name=Literal(table.registered),
                )
                yield MODEL_TABLE_DIFFERS.sql(what, update.as_string())
            else:
                yield MODEL_TABLE_DIFFERS.text(
                    what, "Restore the table from a backup, or drop the model and add it again."
                )


def look_at_the_model(patient: Patient) -> Iterator[Finding]:
    """The one that is loaded: registered, its files there, and of the registered dimension."""
    rows = patient.ask(_SQL["models"], as_owner=True)
    wanted = patient.configured.embedding_model
    chosen = [row for row in rows if (wanted in (row["name"], row["model"]) if wanted else row["active"])]
    if not chosen and wanted:
        names = ", ".join(row["name"] for row in rows) or "none"
        yield MODEL_UNREGISTERED.shell(
            f"EMBEDDING_MODEL is {wanted!r}, but registered are {names}.",
            f"python synapse.py models add {shlex.quote(wanted)}",
        )
        return
    if not chosen:
        name = rows[0]["name"] if rows else "NAME"
        yield NO_ACTIVE_MODEL.shell(
            "One active model was expected, but there is none.", f"python synapse.py models switch {name}"
        )
        return
    model = chosen[0]
    known = f"{model['name']}, {model['vector_type']}({model['dimension']})"
    if patient.configured.model_files is None:
        yield right(SUBJECT, f"{known}; embedded by another machine")
        return
    files = patient.configured.model_files(model["model"])
    if files.problem and not files.downloadable:
        yield MODEL_FILES_MISSING.text(f"{model['model']} cannot be used: {files.problem}", files.cure)
    elif files.problem or files.dimension is None:
        yield unknown(SUBJECT, f"{known}; {files.problem or 'its files do not say their dimension'}")
    elif files.dimension != model["dimension"]:
        yield MODEL_FILES_DIFFER.text(
            f"{model['name']} is registered with {model['dimension']} dimensions, but {files.name} gives {files.dimension}.",
            "Set EMBEDDING_MODEL to the model that embedded the documents, or run python synapse.py models add for the other.",
        )
    else:
        yield right(SUBJECT, known)


def creation(table: Table) -> list[str]:
    """The statements that make a documents table with all that belongs to it, where it is missing, in its tenant's schema."""
    call = SQL("SELECT synapse_create_documents_table({}, {}, {}, {})").format(
        Literal(table.name), Literal(table.dimension), Literal(table.vector_type), Literal(table.language)
    )
    return [f"SET search_path = {search_path(table.tenant)}", call.as_string(), "RESET search_path"]


CHECKS = (look_at_tables, look_at_the_model)
