"""Whether searches find in a copy what they find in its source: exactly, and through the index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from database.copies.inventory import Inventory
from database.copies.progress import Counter, OnProgress
from database.sql import statements

TOP_K = 10
EF_SEARCH = 200
TIE = 1e-6
"""Distances this close are ties: any of such documents is as right as the other. float32 has seven digits."""

_SQL = statements(Path(__file__).with_suffix(".sql"))
Found = list[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """
    How far searches of a documents table agree; all figures 0 to 1.

    :param queries: How many vectors were searched for.
    :param overlap: Share of the copy's nearest that are among the source's nearest, both found exactly; the least of all queries.
    :param recall_before: Share of the nearest that the source's index finds, on average.
    :param recall_after: The same of the copy's index.
    """

    queries: int
    overlap: float
    recall_before: float
    recall_after: float

    @property
    def passed(self) -> bool:
        """Whether exact search finds the same; an index is built anew, and may find a little more or less."""
        return self.overlap == 1.0


def compare_searches(
    source: psycopg.Connection[Any],
    copy: psycopg.Connection[Any],
    inventory: Inventory,
    *,
    queries: int,
    on_progress: OnProgress,
) -> dict[str, Parity]:
    """
    Search both sides for vectors of each documents table.

    :param source: A connection in an open transaction, and so is `copy`.
    :param queries: Vectors per table.
    :returns: By `schema.name`; tables without vectors are left out.
    """
    models = {model["table_name"]: model["vector_type"] for model in inventory.models}
    tables = [table for table in inventory.tables if table.name in models and queries]
    count = Counter(on_progress, "comparing searches", len(tables) * queries, unit="searches")
    found = {}
    for table in tables:
        _set(source, inventory, indexed=False)
        sample = _rows(source, "sample", table.identifier, models[table.name], count=queries)
        compared = []
        for row in sample:
            sides = [
                _nearest(side, inventory, table.identifier, models[table.name], row["query"], indexed=indexed)
                for side in (source, copy)
                for indexed in (False, True)
            ]
            compared.append(sides)
            count.add(1)
        count.add(queries - len(sample))
        if compared:
            found[table.full_name] = Parity(
                queries=len(compared),
                overlap=min(overlap(exact, truth) for truth, _, exact, _ in compared),
                recall_before=_mean(overlap(back, truth) for truth, back, _, _ in compared),
                recall_after=_mean(overlap(back, truth) for truth, _, _, back in compared),
            )
    return found


def overlap(found: Found, truth: Found) -> float:
    """
    The share of the nearest that came back.

    :param truth: The nearest, nearest first, with their distances.
    :returns: 0 to 1; a document as near as the last of the truth counts, whichever it is.
    """
    if not truth:
        return 1.0
    near = sum(distance <= truth[-1][1] + TIE for _, distance in found)
    known = dict(truth)
    same = all(abs(known.get(name, distance) - distance) <= TIE for name, distance in found)
    return min(near, len(truth)) / len(truth) if same else 0.0


def _nearest(
    connection: psycopg.Connection[Any],
    inventory: Inventory,
    table: Identifier,
    vector_type: str,
    query: str,
    *,
    indexed: bool,
) -> Found:
    _set(connection, inventory, indexed=indexed)
    rows = _rows(connection, "nearest", table, vector_type, query=query, top_k=TOP_K)
    return [(row["id"], row["distance"]) for row in rows]


def _set(connection: psycopg.Connection[Any], inventory: Inventory, *, indexed: bool) -> None:
    path = f"public, {Identifier(inventory.facts['pgvector_schema']).as_string()}"
    settings = {"search_path": path, "indexed": "on" if indexed else "off", "exact": "off" if indexed else "on"}
    connection.execute(_SQL["search_settings"], settings | {"ef_search": str(EF_SEARCH)})


def _rows(
    connection: psycopg.Connection[Any], name: str, table: Identifier, vector_type: str, **params: Any
) -> list[dict[str, Any]]:
    statement = SQL(_SQL[name]).format(table=table, vector_type=SQL(vector_type))
    return connection.cursor(row_factory=dict_row).execute(statement, params).fetchall()


def _mean(values: Any) -> float:
    found = list(values)
    return float(sum(found) / len(found))
