"""
The canary: searches of the database beside searches in memory, over the vectors that the bytes hold.

Rows of the table are the queries. What is nearest in memory is computed while the table is verified, a page at a time. What the
database finds is judged by the bytes that come with it, so that of equally near rows any is right, and a row that was written
meanwhile is judged as it is now. A query's own row is left out on both sides.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psycopg.sql import SQL

from migration.bytea_index import Index
from migration.bytea_table import STATEMENTS, ByteaTable, escaped
from migration.bytea_values import Packing, unpack
from migration.source import Distance

if TYPE_CHECKING:
    from psycopg import Connection

TOP_K = 10
TIE = 1e-5
"""Distances this close, as a share of their size or of 1, are ties: an index in 16 bits keeps three digits, float32 seven."""

_HALF_TIE = 2e-3
_SAMPLED_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Searches:
    """
    What the canary found.

    :param queries: How many searches.
    :param overlap: Mean share of the ten nearest in memory that the database found, 0 to 1.
    :param worst: The least of them.
    :param through_index: Whether the plan of the searches goes through the index.
    :param setting: What they were made with, for people.
    """

    queries: int
    overlap: float
    worst: float
    through_index: bool
    setting: str


class Canary:
    """
    Searches to compare.

    :param keys: Keys of the rows that are searched for.
    :param vectors: Their vectors, of shape (queries, dimension).
    """

    def __init__(self, keys: list[list[str]], vectors: NDArray[np.float32], distance: Distance) -> None:
        self.keys, self.vectors, self.distance = keys, vectors.astype(np.float64), distance
        self._own = {tuple(key): place for place, key in enumerate(keys)}
        self._nearest = np.full((len(keys), TOP_K), np.inf)

    def observe(self, keys: list[list[str]], vectors: NDArray[np.float32]) -> None:
        """Go on with some rows of the search in memory."""
        if not len(keys) or not self.keys:
            return
        found = distances(self.vectors, vectors, self.distance)
        for row, key in enumerate(keys):
            if (query := self._own.get(tuple(key))) is not None:
                found[query, row] = np.inf
        together = np.concatenate([self._nearest, found], axis=1)
        self._nearest = np.partition(together, TOP_K - 1, axis=1)[:, :TOP_K]

    def compare(
        self,
        connection: Connection[Any],
        table: ByteaTable,
        packing: Packing,
        index: Index | None,
        *,
        setting: tuple[str, int],
    ) -> Searches:
        """
        Search the database.

        :param index: Whose distance and expression are searched by; `None` where there is none.
        :param setting: `hnsw.ef_search` or `ivfflat.probes`, and its value.
        """
        shares = [self._search(connection, table, packing, index, place, setting) for place in range(len(self.keys))]
        overlaps = [share for share, _ in shares]
        return Searches(
            queries=len(shares),
            overlap=float(np.mean(overlaps)) if shares else 1.0,
            worst=float(np.min(overlaps)) if shares else 1.0,
            setting="" if index is None else f" with {setting[0]} {setting[1]}",
            through_index=all(used for _, used in shares) and index is not None,
        )

    def _search(
        self,
        connection: Connection[Any],
        table: ByteaTable,
        packing: Packing,
        index: Index | None,
        place: int,
        setting: tuple[str, int],
    ) -> tuple[float, bool]:
        shape = index or Index(distance=self.distance)
        statement = table.compose(
            "nearest",
            expression=shape.expression(table, packing.dimension, quote=escaped),
            operator=SQL(shape.operator),
            searched_type=SQL(f"{shape.vector_type}({packing.dimension})"),
        )
        given = {"query": str(self.vectors[place].tolist()), "count": TOP_K + 1}
        used = False
        with connection.transaction():
            if index is not None:
                name, value = setting
                connection.execute(STATEMENTS["search_settings"], {"name": name, "value": str(value)})
                if place == 0:
                    plan = connection.execute(SQL("EXPLAIN (FORMAT JSON) ") + statement, given).fetchall()
                    used = json.dumps(index.name_for(table)) in json.dumps(plan)
            rows = connection.execute(statement, given, binary=True).fetchall()
        values = [row["packed"] for row in rows if row["key"] != self.keys[place] and row["packed"] is not None][:TOP_K]
        return self._share(place, values, packing, half=shape.halfvec), used or place > 0

    def _share(self, place: int, values: list[bytes], packing: Packing, *, half: bool) -> float:
        nearest = self._nearest[place][np.isfinite(self._nearest[place])]
        if not len(nearest):
            return 1.0
        found = distances(self.vectors[place : place + 1], unpack(values, packing).vectors, self.distance)[0]
        last = nearest.max()
        tie = (_HALF_TIE if half else TIE) * max(1.0, abs(last))
        return min(int((found <= last + tie).sum()), len(nearest)) / len(nearest)


def choose_queries(
    connection: Connection[Any], table: ByteaTable, packing: Packing, distance: Distance, *, count: int
) -> Canary:
    """Take rows at random as queries; of a large table only some pages are looked at."""
    percent = 100.0 if table.rows <= _SAMPLED_ROWS else 100 * _SAMPLED_ROWS / table.rows
    rows = connection.execute(table.compose("queries"), {"percent": percent, "count": count}, binary=True).fetchall()
    rows = [row for row in rows if len(row["packed"]) == packing.size]
    places, vectors = unpack([row["packed"] for row in rows], packing).fitting(keep_zero=False)
    return Canary([rows[place]["key"] for place in places], vectors, distance)


def distances(queries: NDArray[np.float64], vectors: NDArray[np.float32], distance: Distance) -> NDArray[np.float64]:
    """
    Distances as pgvector has them, in float64.

    :param queries: Of shape (queries, dimension).
    :param vectors: Of shape (rows, dimension).
    :returns: Of shape (queries, rows); for cosine, NaN never: a vector of zeros is infinitely far, as no index holds it.
    """
    others = vectors.astype(np.float64)
    products: NDArray[np.float64] = queries @ others.T
    found: NDArray[np.float64] = -products
    if distance == "ip":
        return found
    squares = (queries**2).sum(axis=1)[:, None], (others**2).sum(axis=1)[None, :]
    if distance == "l2":
        found = np.sqrt(np.maximum(squares[0] + squares[1] - 2 * products, 0))
        return found
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 1 - products / np.sqrt(squares[0] * squares[1])
    found[~np.isfinite(found)] = np.inf
    return found
