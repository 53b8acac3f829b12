"""What stands around a chunk in its source: the ledger's order of chunks, and the converted text itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.sql import SQL, Identifier

from database.document_queries import Query
from database.filters import condition
from database.sql import statements

if TYPE_CHECKING:
    from database.document_store import SynapseDocumentStore

_SQL = statements(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """
    A chunk in its source.

    :param hit: The id of the chunk that it was found around; its own for that one.
    :param source: The source, as the ledger names it.
    :param position: Its place among the source's chunks, from 0.
    :param id: Its id.
    :param content: Its text.
    :param meta: Its metadata.
    """

    hit: str
    source: str
    position: int
    id: str
    content: str | None
    meta: dict[str, Any]


def neighbours_query(
    store: SynapseDocumentStore, ids: Sequence[str], *, window: int, filters: dict[str, Any] | None
) -> Query:
    """
    The chunks around those of these ids.

    :param store: Whose documents they are.
    :param window: How many on either side at most.
    :param filters: In Haystack's syntax; what does not pass is left out, also where it is next to what does.
    """
    where, params = condition(filters)
    table = Identifier(store.schema_name, store.table_name)
    return Query(
        statement=SQL(_SQL["neighbours"]).format(table=table, condition=where),
        params={**params, "ids": list(ids), "window": window, "table_name": store.table_name},
    )


def excerpts_query(store: SynapseDocumentStore, spans: Sequence[tuple[str, int, int]]) -> Query:
    """
    Parts of converted texts.

    :param store: Whose documents they were made into.
    :param spans: Source, and `[start, end)` in code points.
    """
    return Query(
        statement=SQL(_SQL["excerpts"]).format(),
        params={
            "sources": [source for source, _, _ in spans],
            "starts": [start for _, start, _ in spans],
            "lengths": [end - start for _, start, end in spans],
            "table_name": store.table_name,
        },
    )


def chunks_from_rows(rows: Sequence[dict[str, Any]]) -> list[Chunk]:
    """Chunks, as the query gives them."""
    return [Chunk(**{**row, "meta": row["meta"] or {}}) for row in rows]
