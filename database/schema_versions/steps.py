"""What the schema versions are made of."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from alembic import op
from psycopg.sql import SQL, Identifier, Literal

from database.online import BATCH_SECONDS, Online
from database.sql import statements

FIRST_BATCH, LARGEST_BATCH = 50, 2000
_SQL = statements(Path(__file__).with_suffix(".sql"))


def run(revision: str, files: tuple[Path, ...]) -> Online | None:
    """
    Run a version's files: in one transaction with all other versions where the database is empty, else in a short one.

    :returns: What runs the further steps that data needs; `None` in an empty database.
    """
    if online() is None:
        cursor = op.get_bind().connection.cursor()  # psycopg2's own, which leaves a lone % alone
        for path in files:
            cursor.execute(path.read_text(encoding="utf-8"))
        return None
    steps = required(revision)
    steps.files("functions and tables", files)
    return steps


def online() -> Online | None:
    """What runs steps beside running programs; `None` in an empty database."""
    context = op.get_context()
    assert context.config is not None
    steps: Online | None = context.config.attributes["online"]
    return steps


def required(revision: str) -> Online:
    """What runs the steps of a version, where the database is not empty."""
    steps = online()
    assert steps is not None
    steps.version = revision
    return steps


def add_keywords(steps: Online, model: dict[str, Any]) -> None:
    """Give a documents table its keyword tables, filled; writers of a document wait while a batch with it is filed."""
    table = model["table_name"]
    index = f"{table}_keywords_terms"
    if steps.has_index(index):
        return
    facts = {"table": table, "language": model["language"]}
    steps.run(f"keyword tables of {table}", _SQL["create_keywords"], facts)
    while missing := steps.run(f"counting {table}", _named("without_keywords", table))[0]["missing"]:
        _file_keywords(steps, table, missing)
    columns = SQL("CREATE INDEX CONCURRENTLY {} ON public.{} USING gin (terms) WITH (gin_pending_list_limit = 1024)")
    steps.build_index(index, columns.format(Identifier(index), Identifier(f"{table}_keywords")))
    steps.run(f"statistics of {table}_keywords", _named("analyze_keywords", table))


def _file_keywords(steps: Online, table: str, missing: int) -> None:
    after, filed, size = None, 0, FIRST_BATCH
    while True:
        began = time.monotonic()
        parameters = {"table": f"public.{Identifier(table).as_string()}", "after": after, "size": size}
        (batch,) = steps.run(f"keywords of {table}", _SQL["file_keywords"], parameters, done=filed, total=missing)
        if batch["last_id"] is None:
            return
        after, filed = batch["last_id"], filed + batch["filed"]
        pace = BATCH_SECONDS / max(time.monotonic() - began, 0.001)
        size = int(min(max(size * min(pace, 2.0), 10), LARGEST_BATCH))


def remove_keywords(steps: Online, model: dict[str, Any]) -> None:
    """Take the keyword tables away, once the index of the version before them is there."""
    table = model["table_name"]
    words = SQL(
        "CREATE INDEX CONCURRENTLY {} ON public.{} USING gin (to_tsvector({}, content)) WITH (fastupdate = off)"
    )
    index = f"{table}_keyword_index"
    steps.build_index(index, words.format(Identifier(index), Identifier(table), Literal(model["language"])))
    steps.run(f"keyword tables of {table}", _named("drop_keywords", table))


def indexes_of_fields(steps: Online) -> list[str]:
    """The indexes of declared metadata fields."""
    if not steps.has("metadata_fields"):
        return []
    return [row["index_name"] for row in steps.connection.execute(_SQL["indexes_of_fields"]).fetchall()]


def build_missing_indexes(steps: Online) -> None:
    """Build search indexes that somebody dropped, or else the tables' functions would, and nobody could write meanwhile."""
    for row in steps.connection.execute(_SQL["without_index"]).fetchall():
        name, table = f"{row['table_name']}_hnsw_index", row["table_name"]
        build = SQL(
            "CREATE INDEX CONCURRENTLY {} ON public.{} USING hnsw (embedding {}) WITH (m = 8, ef_construction = 48)"
        )
        operators = SQL("vector_cosine_ops" if row["vector_type"] == "vector" else "halfvec_cosine_ops")
        steps.build_index(name, build.format(Identifier(name), Identifier(table), operators))


def other_tenants(steps: Online) -> list[str]:
    """All tenants but `default`."""
    if not steps.has("tenants"):
        return []
    return [row["name"] for row in steps.connection.execute(_SQL["other_tenants"]).fetchall()]


def bind_tables(steps: Online, names: dict[str, str]) -> None:
    """Give tables of `public` to the tenant default, one by one; by name, with what its role may do."""
    for name, rights in names.items():
        steps.run(f"binding {name}", _SQL["bind_table"], {"table": name, "rights": rights})


def unbind_tables(steps: Online, names: dict[str, str]) -> None:
    """Take them from the tenant default again."""
    for name, rights in names.items():
        steps.run(f"unbinding {name}", _SQL["unbind_table"], {"table": name, "rights": rights})


def tables_of_default(steps: Online) -> dict[str, str]:
    """The tables that belong to a tenant, as they stand in `public`, with what its role may do."""
    ledger = dict.fromkeys(("source_chunks", "source_texts", "sources"), "SELECT, INSERT, UPDATE, DELETE")
    of_models = [model["table_name"] + part for model in steps.models() for part in ("", "_keywords", "_terms")]
    documents = dict.fromkeys(of_models, "SELECT, INSERT, UPDATE, DELETE, TRUNCATE")
    return documents | {"metadata_fields": "SELECT"} | ledger


def _named(statement: str, table: str) -> Any:
    names = {"documents": table, "keywords": f"{table}_keywords", "terms": f"{table}_terms"}
    return SQL(_SQL[statement]).format(**{name: Identifier("public", value) for name, value in names.items()})
